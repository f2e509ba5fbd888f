"""Everything that an attacker can do to the bytes of a bundle, and the error that it meets."""

import json
import random
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stanch.crypto import canonical_json, sha256
from stanch.crypto.identity import generate_identity
from stanch.crypto.stanza import Stanza, WrapContext
from stanch.errors import (
    BundleIncomplete,
    DecryptionFailed,
    Equivocation,
    InvalidInput,
    NoIdentityMatched,
    NonCanonicalStream,
    NotSealed,
    QuorumNotMet,
    Rollback,
    SignatureMissing,
    Tampered,
    UnexpectedFile,
    VerificationError,
)
from stanch.seal import (
    Commitments,
    GrantExpired,
    OpenParams,
    SeenRelease,
    VolatileReleases,
    open_bundle,
    read_manifest,
    read_signature,
    segments,
    verify_sealed,
)
from stanch.seal.digests import SignedDigests
from stanch.seal.folder import BundleFolder, check_entries
from stanch.seal.layout import PLAIN, SEGMENT
from stanch.seal.recipients import unwrap_root
from stanch.terms import VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def at(moment):
    return OpenParams(clock=lambda: moment, threads=1)


class Arenas:
    """Remembers all memory that plaintext was decrypted to."""

    def __init__(self, monkeypatch):
        self.made, original = [], segments.Arena

        def make(size):
            arena = original(size)
            self.made.append(arena)
            return arena

        monkeypatch.setattr(segments, "Arena", make)

    def all_zero(self):
        return all(not any(bytes(arena.memory)) for arena in self.made)


def flip(path, bit):
    """Change one bit in place."""
    with path.open("r+b", buffering=0) as file:
        file.seek(bit // 8)
        value = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([value ^ 1 << bit % 8]))


def test_every_bit_of_the_manifest(small):
    path = small.path / "manifest.json"
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        with pytest.raises(Tampered, match="not the one that the publisher signed"):
            small.open()
        flip(path, bit)
    assert small.read_all() == small.files


def test_every_byte_of_the_digests(small):
    path, rng = small.path / "digests.bin", random.Random(3)
    for byte in range(path.stat().st_size):
        bit = 8 * byte + rng.randrange(8)
        flip(path, bit)
        stream = f"stream {(bit // 8) // 64}"
        with pytest.raises(Tampered, match=f"the digests of {stream} are"):
            small.open()
        flip(path, bit)


def test_digests_of_another_length_or_value_are_refused_before_anything_is_compared_with_them(small):
    manifest, data = read_manifest(small.path), (small.path / "digests.bin").read_bytes()
    assert SignedDigests(data, manifest).data == data
    for wrong in (b"", data[:-32], data[:-1], data + bytes(32)):
        with pytest.raises(Tampered, match=f"expected {len(data)} bytes, found {len(wrong)}"):
            SignedDigests(wrong, manifest)
    for place in range(0, len(data), 32):  # each stream has a header and one segment
        wrong = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(Tampered, match=f"the digests of stream {place // 64} are"):
            SignedDigests(wrong, manifest)


def test_every_byte_of_the_recipients(small):
    """Only the epoch, which nothing here relies on, can change; then the very same contents open."""
    path, rng = small.path / "recipients.json", random.Random(4)
    original = json.loads(path.read_bytes())
    accepted, epoch = set(), path.read_bytes().index(b'"epoch":0') + len(b'"epoch":')
    bits = [8 * byte + rng.randrange(8) for byte in range(path.stat().st_size)]
    for bit in [*bits, *range(8 * epoch, 8 * epoch + 8)]:
        flip(path, bit)
        try:
            with small.open() as bundle:
                assert bytes(bundle.read("config.json")) == small.files["config.json"]
            changed = json.loads(path.read_bytes())
            assert {name for name in original if changed[name] != original[name]} == {"epoch"}
            accepted.add(changed["epoch"])
        except (InvalidInput, Tampered, NoIdentityMatched, DecryptionFailed):
            pass
        flip(path, bit)
    assert accepted == {1, 2, 4, 8}


@pytest.mark.parametrize("verify", ["publisher", "aead_only_unsafe"])
def test_every_byte_of_the_bodies(small, monkeypatch, verify):
    rng = random.Random(1)
    arenas = Arenas(monkeypatch)
    for path in sorted((small.path / "body").iterdir()):
        number = int(path.stem)
        for byte in range(path.stat().st_size):
            bit = 8 * byte + rng.randrange(8)
            flip(path, bit)
            arenas.made.clear()
            in_header = byte < 74
            expected = Tampered if verify == "publisher" or in_header else DecryptionFailed
            with pytest.raises(expected) as caught:
                small.read_all(verify=verify)
            if expected is Tampered:
                place = "the header" if in_header else f"segment {(byte - 74) // SEGMENT}"
                assert f"stream {number}, {place} does not match" in str(caught.value)
                with pytest.raises(Tampered, match=f"stream {number}, {place} "):
                    verify_sealed(small.path, small.publisher)
            assert not any(bytes(arenas.made[-1].memory))
            flip(path, bit)
    assert small.read_all(verify=verify) == small.files


def test_no_byte_of_a_file_with_a_failed_segment_is_shown(make_sealed, monkeypatch):
    data = random.Random(2).randbytes(18 * PLAIN + 5)
    sealed = make_sealed({"f": data})
    path = sealed.path / "body" / "00001.floe"
    for byte in (74 + 17 * SEGMENT + 99, path.stat().st_size - 1):
        flip(path, 8 * byte)
        for verify, error in (("publisher", Tampered), ("aead_only_unsafe", DecryptionFailed)):
            with sealed.open(verify=verify) as bundle:
                arenas = Arenas(monkeypatch)
                with pytest.raises(error):
                    bundle.read("f")
                assert arenas.made
                assert arenas.all_zero()
                monkeypatch.undo()
        flip(path, 8 * byte)


def test_publisher_mode_decrypts_nothing_of_a_changed_segment(make_sealed, monkeypatch):
    sealed = make_sealed({"f": bytes(2 * PLAIN)})
    path = sealed.path / "body" / "00001.floe"
    flip(path, 8 * (74 + SEGMENT + 50))
    seen = []
    original = segments.FloeDecryptor.segment_into

    def spy(self, segment, position, final, out):
        seen.append(position)
        return original(self, segment, position, final, out)

    with sealed.open() as bundle:
        monkeypatch.setattr(segments.FloeDecryptor, "segment_into", spy)
        with pytest.raises(Tampered):
            bundle.read("f")
    assert seen == [0]


@pytest.mark.parametrize("change", [-1, -33, -SEGMENT, 1, 32, SEGMENT])
def test_cut_and_extended_streams(make_sealed, change):
    sealed = make_sealed({"f": bytes(2 * PLAIN + 10)})
    path = sealed.path / "body" / "00001.floe"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with sealed.open() as bundle, pytest.raises(NonCanonicalStream):
        bundle.read("f")
    with pytest.raises(NonCanonicalStream):
        verify_sealed(sealed.path, sealed.publisher)
    index = sealed.path / "body" / "00000.floe"
    index.write_bytes(index.read_bytes() + b"\x00")
    with pytest.raises(NonCanonicalStream):
        sealed.open()


@pytest.mark.parametrize("verify", ["publisher", "aead_only_unsafe"])
def test_reordered_segments_and_swapped_streams(make_sealed, verify):
    error = Tampered if verify == "publisher" else DecryptionFailed
    sealed = make_sealed({"a": bytes(3 * PLAIN), "b": bytes(3 * PLAIN)})
    first, second = (sealed.path / "body" / f"0000{n}.floe" for n in (1, 2))
    data, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[:74] + data[74 + SEGMENT : 74 + 2 * SEGMENT] + data[74 : 74 + SEGMENT] + data[-SEGMENT:])
    with sealed.open(verify=verify) as bundle, pytest.raises(error):
        bundle.read("a")
    # Segments of another stream behind this stream's own header.
    first.write_bytes(data[:74] + other[74:])
    with sealed.open(verify=verify) as bundle, pytest.raises(error):
        bundle.read("a")
    first.write_bytes(other)
    second.write_bytes(data)
    for name in ("a", "b"):
        with sealed.open(verify=verify) as bundle, pytest.raises(Tampered):
            bundle.read(name)


def test_streams_of_another_bundle(make_sealed):
    identity, files = generate_identity(), {"f": b"x" * 1000}
    one = make_sealed(files, name="one", identity=identity)
    two = make_sealed(files, name="two", identity=identity)
    for number in (0, 1):
        name = f"body/0000{number}.floe"
        original = (one.path / name).read_bytes()
        shutil.copy(two.path / name, one.path / name)
        with pytest.raises(VerificationError):
            one.read_all()
        (one.path / name).write_bytes(original)
    for name in ("manifest.json", "digests.bin", "recipients.json"):
        original = (one.path / name).read_bytes()
        shutil.copy(two.path / name, one.path / name)
        with pytest.raises(Tampered):
            one.read_all()
        (one.path / name).write_bytes(original)
    assert one.read_all() == files


def test_checking_compares_headers_and_whose_the_recipients_are(small, make_sealed):
    flip(small.path / "body" / "00002.floe", 8 * 20)
    with pytest.raises(Tampered, match="stream 2, the header"):
        verify_sealed(small.path, small.publisher)
    flip(small.path / "body" / "00002.floe", 8 * 20)
    verify_sealed(small.path, small.publisher)
    shutil.copy(make_sealed({"f": b"x"}, name="other").path / "recipients.json", small.path)
    with pytest.raises(Tampered, match="belongs to another bundle"):
        verify_sealed(small.path, small.publisher)


def test_entries_that_do_not_belong_or_are_missing(small):
    extra = small.path / "pytorch_model.bin"
    extra.write_bytes(b"")
    with pytest.raises(UnexpectedFile, match="pytorch_model"):
        small.open()
    extra.unlink()
    stray = small.path / "body" / "99999.floe"
    stray.write_bytes(b"")
    with pytest.raises(UnexpectedFile, match="99999"):
        verify_sealed(small.path, small.publisher)
    stray.unlink()
    for name, error in (
        ("manifest.json", NotSealed),
        ("manifest.sigstore.json", SignatureMissing),
        ("digests.bin", BundleIncomplete),
        ("recipients.json", BundleIncomplete),
        ("body/00001.floe", BundleIncomplete),
    ):
        path = small.path / name
        data = path.read_bytes()
        path.unlink()
        for attempt in (small.open, lambda: verify_sealed(small.path, small.publisher)):
            with pytest.raises(error):
                attempt()
        path.write_bytes(data)
    assert small.read_all() == small.files


def test_a_bundle_that_is_still_being_fetched_may_lack_parts_and_holds_nothing_else(small):
    body = small.path / "body"
    for name in ("digests.bin", "recipients.json", "body/00001.floe"):
        (small.path / name).unlink()
    check_entries(small.path, 5, unfinished=True)
    with pytest.raises(BundleIncomplete):
        check_entries(small.path, 5)
    for stray in (small.path / "more", body / "00005.floe"):
        stray.touch()
        with pytest.raises(UnexpectedFile, match=stray.name) as caught:
            check_entries(small.path, 5, unfinished=True)
        assert "fetch again" in caught.value.next_step
        stray.unlink()
    shutil.rmtree(body)
    for unfinished in (True, False):
        with pytest.raises(UnexpectedFile if unfinished else BundleIncomplete):
            check_entries(small.path, 5, unfinished=unfinished)
    body.touch()
    with pytest.raises(UnexpectedFile, match="expected a directory"):
        check_entries(small.path, 5, unfinished=True)


def test_a_document_as_long_as_is_allowed_is_read(small):
    place, length = BundleFolder(small.path), (small.path / "digests.bin").stat().st_size
    assert place.document("digests.bin", length) == (small.path / "digests.bin").read_bytes()
    with pytest.raises(UnexpectedFile, match="at most"):
        place.document("digests.bin", length - 1)


def test_a_stream_that_is_cut_while_it_is_read_is_incomplete(small):
    path = small.path / "body" / "00001.floe"
    with BundleFolder(small.path).stream(1, path.stat().st_size) as read:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleIncomplete, match="stream 1 ended"):
            read(memoryview(bytearray(path.stat().st_size + 1)), 0)


def test_the_signed_digests_are_compared_unless_that_is_refused_by_its_name(small):
    flip(small.path / "body" / "00001.floe", 8 * 120)
    for options in ({}, {"verify": "publsher"}):
        with (
            open_bundle(
                small.path, small.publisher, [small.identity], memory=VolatileReleases(), params=at(NOW), **options
            ) as bundle,
            pytest.raises(Tampered, match="stream 1, segment 0"),
        ):
            bundle.read("config.json")
    with small.open(verify="aead_only_unsafe") as bundle, pytest.raises(DecryptionFailed):
        bundle.read("config.json")


def test_no_segment_is_decrypted_before_every_header_is_checked(make_sealed, monkeypatch):
    sealed = make_sealed({"a": b"1", "b": b"2"})
    flip(sealed.path / "body" / "00002.floe", 0)
    with sealed.open() as bundle:
        arenas = Arenas(monkeypatch)
        monkeypatch.setattr(segments.FloeDecryptor, "segment_into", lambda *_: pytest.fail("a segment was decrypted"))
        with pytest.raises(Tampered, match="stream 2, the header"):
            bundle._read((1, 2), 0, 2)
    assert arenas.all_zero()


def test_the_root_key_of_a_bundle_that_does_not_open_is_wiped(small, monkeypatch):
    made, module = [], sys.modules["stanch.seal.read"]
    monkeypatch.setattr(module, "unwrap_root", lambda *given: made.append(unwrap_root(*given)) or made[0])
    flip(small.path / "digests.bin", 0)
    with pytest.raises(Tampered):
        small.open()
    assert made[0]._root == bytearray(32)


def test_links_and_special_files_are_refused(small, tmp_path):
    import os  # noqa: PLC0415 - only here

    for name in ("digests.bin", "recipients.json", "body/00002.floe", "manifest.sigstore.json"):
        path, away = small.path / name, tmp_path / "away"
        path.rename(away)
        path.symlink_to(away)
        with pytest.raises(UnexpectedFile):
            small.read_all()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises((UnexpectedFile, NonCanonicalStream, SignatureMissing)):
            small.read_all()
        path.unlink()
        away.rename(path)
    body = small.path / "body"
    body.rename(tmp_path / "body")
    body.symlink_to(tmp_path / "body")
    with pytest.raises(UnexpectedFile):
        small.open()


def test_oversized_documents_are_refused_before_they_are_read(small):
    for name in ("recipients.json", "digests.bin", "manifest.json"):
        path = small.path / name
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(64 << 30)  # sparse: reading it would exhaust memory
        with pytest.raises(UnexpectedFile):
            small.open()
        path.write_bytes(data)
        with path.open("r+b") as file:
            file.truncate(len(data))


def test_a_plain_model_or_an_unfinished_bundle_is_not_opened(small, tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    unfinished = tmp_path / "x.sealed.partial"
    shutil.copytree(small.path, unfinished)
    (tmp_path / "link").symlink_to(unfinished)
    monkeypatch.chdir(unfinished)
    for path in (plain, unfinished, Path(), tmp_path / "link", tmp_path / "nothing", small.path / "manifest.json"):
        for attempt in (
            lambda path=path: small._replace(path=path).open(),
            lambda path=path: read_manifest(path),
            lambda path=path: read_signature(path),
            lambda path=path: verify_sealed(path, small.publisher),
        ):
            with pytest.raises(NotSealed):
                attempt()


def test_only_recipients_open(small, make_sealed):
    stranger = generate_identity()
    with pytest.raises(NoIdentityMatched) as caught:
        small.open(identities=[stranger])
    assert stranger.recipient.key_id in str(caught.value)
    with pytest.raises(NoIdentityMatched):
        small.open(identities=[])
    assert small.read_all(identities=[stranger, small.identity]) == small.files
    both = make_sealed({"f": b"1"}, name="both", recipients=[stranger.recipient, small.identity.recipient])
    assert both.read_all(identities=[stranger]) == both.read_all(identities=[small.identity]) == {"f": b"1"}


def edit_recipients(path, change):
    document = json.loads((path / "recipients.json").read_bytes())
    change(document)
    (path / "recipients.json").write_bytes(canonical_json(document))


def test_a_stanza_moved_between_bundles_does_not_open(make_sealed):
    identity = generate_identity()
    one, two = (make_sealed({"f": b"x"}, name=name, identity=identity) for name in ("one", "two"))
    stanzas = json.loads((two.path / "recipients.json").read_bytes())["stanzas"]
    edit_recipients(one.path, lambda document: document.update(stanzas=stanzas))
    with pytest.raises(DecryptionFailed):
        one.open()


def test_a_stanza_that_carries_another_root_does_not_open(small, monkeypatch):
    """A recipient who knows the context can wrap any root to anybody; the signed commitment refuses it."""
    context = WrapContext(bytes.fromhex(read_manifest(small.path).bundle_id), small.publisher.sha256, None)
    forged = small.identity.recipient.wrap(bytes(32), context).to_json()
    edit_recipients(small.path, lambda document: document.update(stanzas=[forged]))
    # Found by its commitment alone: no stream, whose header would not fit either, is looked at.
    monkeypatch.setattr(segments.SegmentReader, "read", None)
    with pytest.raises(DecryptionFailed):
        small.open()


def test_grants_end(make_sealed):
    end = NOW + timedelta(hours=1)
    sealed = make_sealed({"f": b"x"}, not_after=end)
    assert sealed.read_all(params=at(end - timedelta(seconds=1))) == {"f": b"x"}
    for moment in (end, end + timedelta(days=1)):
        with pytest.raises(GrantExpired, match="the release ended") as caught:
            sealed.open(params=at(moment))
        assert caught.value.exit_code == 3


def test_an_edited_end_is_refused(make_sealed):
    end = NOW + timedelta(hours=2)
    sealed = make_sealed({"f": b"x"}, not_after=end)
    data = (sealed.path / "recipients.json").read_bytes()
    for text, error in (
        ("2026-06-01T13:59:59Z", DecryptionFailed),
        ("2026-06-01T12:00:00Z", GrantExpired),
        ("2026-06-01T14:00:01Z", Tampered),
        (None, Tampered),
        ("later", InvalidInput),
    ):
        edit_recipients(sealed.path, lambda document, text=text: document["stanzas"][0].update(not_after=text))
        with pytest.raises(error):
            sealed.open()
        (sealed.path / "recipients.json").write_bytes(data)
    assert sealed.read_all() == {"f": b"x"}


def resign(sealed, **changes):
    """Return the bundle with a changed manifest, as its own publisher could sign it."""
    path = sealed.path / "manifest.json"
    document = json.loads(path.read_bytes()) | changes
    path.write_bytes(canonical_json(document))
    digest = sha256(path.read_bytes())
    edit_recipients(sealed.path, lambda recipients: recipients.update(manifest_sha256=digest.hex()))
    return sealed._replace(publisher=VerifiedDigest(digest, sealed.publisher.signer_key_ids, None))


def test_a_quorum_bundle_takes_no_single_identity(small):
    resigned = resign(small, quorum={"m": 2, "n": 3})
    with pytest.raises(QuorumNotMet, match="2 of 3"):
        resigned.open()


def test_a_stanza_is_bound_to_the_manifest_that_it_was_made_for(small):
    with pytest.raises(DecryptionFailed):
        resign(small, lineage="acme/other").open()


def test_an_unknown_stanza_type_is_passed_over(small):
    other = Stanza("hpke-future", "future:1", None, {"ct": "x"}).to_json()
    edit_recipients(small.path, lambda document: document["stanzas"].insert(0, other))
    assert small.read_all() == small.files


def test_copies_of_one_release_are_no_equivocation(make_sealed):
    """Each recipient has another manifest; what they share is the certificate and the batch of marks."""
    identity, memory = generate_identity(), VolatileReleases()

    def copy(name, mark, certificate="c"):
        commitments = Commitments(None, None, certificate * 64, mark and mark * 64)
        return make_sealed({"f": name.encode()}, name=name, identity=identity, commitments=commitments)

    first = copy("first", "a")
    for same in (first, copy("second", "a"), first):
        same.open(memory=memory)
    for other in (copy("batch", "b"), copy("certificate", "a", "b"), copy("unmarked", None)):
        with pytest.raises(Equivocation):
            other.open(memory=memory)
    unmarked = VolatileReleases()
    copy("one", None).open(memory=unmarked)
    with pytest.raises(Equivocation):
        copy("two", None).open(memory=unmarked)
    # What an earlier stanch remembered of a copy: its manifest.
    old = VolatileReleases()
    old.remember(*first.publisher.signer_key_ids, "acme/bot", SeenRelease(1, first.publisher.sha256.hex()))
    first.open(memory=old)


def test_rollback_and_equivocation(make_sealed):
    identity, memory = generate_identity(), VolatileReleases()
    releases = {
        name: make_sealed({"f": name.encode()}, name=name, identity=identity, release_number=number)
        for name, number in (("v1", 1), ("v2", 2), ("fork", 2), ("v3", 3))
    }
    other_line = make_sealed({"f": b"o"}, name="o", identity=identity, lineage="acme/other")
    releases["v2"].open(memory=memory)
    releases["v2"].open(memory=memory)
    with pytest.raises(Rollback):
        releases["v1"].open(memory=memory)
    with pytest.raises(Equivocation):
        releases["fork"].open(memory=memory)
    unsafe = OpenParams(clock=lambda: NOW, allow_older_unsafe=True)
    releases["v1"].open(memory=memory, params=unsafe)
    with pytest.raises(Equivocation):
        releases["fork"].open(memory=memory, params=unsafe)
    other_line.open(memory=memory)
    releases["v3"].open(memory=memory)
    with pytest.raises(Rollback):
        releases["v2"].open(memory=memory)
    with pytest.raises(Rollback, match="expected release 4"):
        releases["v3"].open(params=OpenParams(clock=lambda: NOW, min_release=4))
    another = releases["v1"]._replace(
        publisher=VerifiedDigest(releases["v1"].publisher.sha256, ("another publisher",), None)
    )
    another.open(memory=memory)


def test_memory_is_not_changed_by_a_bundle_that_does_not_open(make_sealed):
    memory = VolatileReleases()
    sealed = make_sealed({"f": b"x"}, release_number=9)
    with pytest.raises(NoIdentityMatched):
        sealed.open(memory=memory, identities=[])
    flip(sealed.path / "digests.bin", 0)
    with pytest.raises(Tampered):
        sealed.open(memory=memory)
    assert not memory._seen


def test_a_digest_without_a_signer_is_refused(small):
    with pytest.raises(InvalidInput, match="signer"):
        small._replace(publisher=VerifiedDigest(small.publisher.sha256, (), None)).open()


def edit_bytes(rng, data, theirs):
    """Return a file's bytes after one edit; ``theirs`` are those of the same file of another bundle."""
    start, count = rng.randrange(len(data)), rng.randrange(1, 40)
    end = start + count
    return rng.choice([
        lambda: data[:start] + bytes([rng.randrange(256)]) + data[start + 1 :],
        lambda: data[:start] + data[end:],
        lambda: data[:start] + rng.randbytes(count) + data[start:],
        lambda: data[:-count] + data[start:end],
        lambda: data[:start],
        lambda: data + rng.randbytes(count),
        lambda: data[end:] + data[start:end] + data[:start],
        lambda: data[:start] + theirs[start:],
        lambda: theirs,
    ])()  # fmt: skip


def edit_json(rng, data, theirs):
    """Return canonical JSON with one value replaced, by that of another bundle or by a near miss."""
    document, other = json.loads(data), json.loads(theirs)
    name = rng.choice(sorted(document))
    part, source = document, other
    if name in {"stanzas", "streams"} and rng.randrange(4):
        part, source = rng.choice(document[name]), rng.choice(other[name])
        name = rng.choice(sorted(part))
    value = part[name]
    near = value + rng.choice([-1, 1]) if isinstance(value, int) else None
    part[name] = rng.choice([source.get(name), near])
    return canonical_json(document)


def attack(rng, bundle, other):
    """Return what an attacker makes of a bundle's files, with those of another one at hand; None removes a file."""
    path, swapped = rng.choices(sorted(bundle), k=2)
    if rng.randrange(10) == 0:
        return rng.choice([
            {path: None}, {path: bundle[swapped], swapped: bundle[path]}, {path.with_name("more"): bundle[path]},
            {each: data for each, data in other.items() if each.suffix == path.suffix},
        ])  # fmt: skip
    if path.suffix == ".json" and path.name != "manifest.sigstore.json" and rng.randrange(2):
        return {path: edit_json(rng, bundle[path], other[path])}
    return {path: edit_bytes(rng, bundle[path], other[path])}


@pytest.mark.parametrize(
    "count", [500, pytest.param(10_000, marks=[pytest.mark.nightly, pytest.mark.acceptance])]
)  # fmt: skip
def test_seal_attacks_open_nothing_and_show_nothing(small, make_sealed, monkeypatch, count):
    """Random edits, cuts, swaps, splices and forged documents: refused, or what nobody signed opens to the same."""
    rng, refused = random.Random(20260601), 0
    second = make_sealed(small.files, name="second", identity=small.identity)
    ours, theirs = (
        {path.relative_to(one.path): path.read_bytes() for path in one.path.rglob("*") if path.is_file()}
        for one in (small, second)
    )
    arenas = Arenas(monkeypatch)
    assert small.read_all() == small.files
    plain = {bytes(arena.memory) for arena in arenas.made}
    for _ in range(count):
        made = attack(rng, ours, theirs)
        for name, data in made.items():
            (small.path / name).write_bytes(data) if data is not None else (small.path / name).unlink()
        arenas.made.clear()
        try:
            contents = small.read_all()
        except (VerificationError, InvalidInput, GrantExpired):
            refused += 1
        else:
            assert contents == small.files
            unsigned = {Path("recipients.json"), Path("manifest.sigstore.json")}
            assert {name for name, data in made.items() if data != ours.get(name)} <= unsigned
        assert all(bytes(arena.memory) in plain or not any(arena.memory) for arena in arenas.made)
        for name in made:
            (small.path / name).write_bytes(ours[name]) if name in ours else (small.path / name).unlink()
    assert refused > 0.7 * count
