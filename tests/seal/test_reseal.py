"""Sealing anew: the same content under a new root key and number, and no plaintext on a disk."""

import sys
from datetime import timedelta

import msgspec
import pytest

from stanch.crypto.identity import generate_identity
from stanch.errors import Conflict, InvalidInput, NoIdentityMatched, NotPermitted, Tampered
from stanch.seal import OpenParams, Quorum, VolatileReleases, open_bundle, read_manifest, reseal
from stanch.seal.layout import PLAIN
from stanch.seal.reseal import BundleSource
from stanch.terms import VerifiedDigest

MARKER = b"the plaintext marker of the tests, which must be in no file"
FILES = {"config.json": b"{}", "empty": b"", "notes.txt": MARKER * 3}
written = []


def note_writes(event, args):
    # A number is a descriptor that was opened, and noted, before.
    if event == "open" and written and not isinstance(args[0], int) and args[2] & 3:
        written.append(str(args[0]))


sys.addaudithook(note_writes)  # a hook stays for good; it notes nothing while the list is empty


@pytest.fixture
def old(make_sealed, safetensors, clock):
    weights = safetensors({"a": MARKER + bytes(PLAIN), "b": MARKER})
    return make_sealed(
        {**FILES, "model.safetensors": weights}, release_number=6, segment_hash="sha256", plaintext_sha256=True,
        summary={"for": "tests"}, not_after=clock() + timedelta(days=9),
    )  # fmt: skip


@pytest.fixture
def again(tmp_path, signer, clock):
    def make(opened, recipient, name="new.sealed", **options):
        return reseal(opened, tmp_path / name, [recipient], signer.sign, clock=clock, **options)

    return make


def read_all(path, made, identity, signer, clock):
    publisher = VerifiedDigest(made.digest.value, (signer.key_id,), None)
    params = OpenParams(clock=clock)
    with open_bundle(path, publisher, [identity], memory=VolatileReleases(), params=params) as bundle:
        return bundle.files(), {file.path: bytes(bundle.read(file.path)) for file in bundle.files()}


def test_the_content_is_the_same_and_everything_else_new(old, again, signer, clock, tmp_path):
    new, earlier = generate_identity("hybrid"), read_manifest(old.path)
    with old.open() as opened:
        files = opened.files()
        written.append("")
        try:
            made = again(opened, new.recipient)
        finally:
            paths = written[1:]
            written.clear()
    assert paths
    assert [path for path in paths if not path.startswith(str(tmp_path / "new.sealed.partial/"))] == []
    assert not any(MARKER in path.read_bytes() for path in made.path.rglob("*") if path.is_file())
    assert read_all(made.path, made, new, signer, clock) == (files, old.files)
    manifest = made.manifest
    assert (manifest.release_number, manifest.lineage, manifest.segment_hash) == (7, earlier.lineage, "sha256")
    assert (manifest.summary, manifest.not_after) == ({"for": "tests"}, earlier.not_after)
    assert manifest.bundle_id != earlier.bundle_id
    assert manifest.root_commitment != earlier.root_commitment
    with pytest.raises(NoIdentityMatched):
        read_all(made.path, made, old.identity, signer, clock)


def test_the_number_rises_and_is_chosen_where_more_was_made_of_the_line(old, again):
    with old.open() as opened:
        for number in (1, 6):
            with pytest.raises(InvalidInput, match="above 6"):
                again(opened, old.identity.recipient, number=number)
        assert again(opened, old.identity.recipient, number=9).manifest.release_number == 9


def test_the_signature_over_the_plain_files_stays(old, again, monkeypatch):
    with old.open() as opened:
        monkeypatch.setattr(opened, "_oms", {"signature": "of the files"})
        made = again(opened, old.identity.recipient)
    publisher = VerifiedDigest(made.digest.value, ("ed25519:" + "0" * 32,), None)
    with old._replace(path=made.path, publisher=publisher).open() as opened:
        assert opened.plaintext_signature == {"signature": "of the files"}


def test_the_end_may_change_and_must_lie_ahead(old, again, clock):
    with old.open() as opened:
        assert again(opened, old.identity.recipient, not_after=clock() + timedelta(days=2)).manifest.not_after == (
            "2026-06-03T12:00:00Z"
        )
        with pytest.raises(InvalidInput, match="end before it begins"):
            again(opened, old.identity.recipient, "b", not_after=clock())
        with pytest.raises(Conflict):
            again(opened, old.identity.recipient)


def test_what_has_no_end_has_none_afterwards(small, again):
    with small.open() as opened:
        assert again(opened, small.identity.recipient).manifest.not_after is None


def test_what_opens_by_quorum_is_not_sealed_anew(old, again, tmp_path):
    with old.open() as opened:
        opened.manifest = msgspec.structs.replace(opened.manifest, quorum=Quorum(2, 3))
        with pytest.raises(NotPermitted, match="quorum"):
            again(opened, old.identity.recipient)
    assert not list(tmp_path.glob("new*"))


def test_a_damaged_segment_leaves_nothing_behind(old, again, tmp_path):
    stream = max((old.path / "body").iterdir())
    data = bytearray(stream.read_bytes())
    data[-1] ^= 1
    stream.write_bytes(data)
    with old.open() as opened, pytest.raises(Tampered):
        again(opened, old.identity.recipient)
    assert not list(tmp_path.glob("new*"))


def test_a_file_that_is_not_the_indexed_one_is_refused(old, again, tmp_path):
    with old.open() as opened:
        file = opened._index["notes.txt"]
        opened._index["notes.txt"] = msgspec.structs.replace(file, blake3="0" * 64)
        with pytest.raises(Tampered, match=r"notes\.txt"):
            again(opened, old.identity.recipient)
    assert not list(tmp_path.glob("new*"))


def test_a_reader_gives_the_bytes_in_pieces_of_any_size(old):
    with old.open() as opened:
        for file in BundleSource(opened).files():
            for size in (1 << 16, PLAIN + 7):
                with file.open() as reader:
                    assert b"".join(iter(lambda read=reader.read, size=size: read(size), b"")) == old.files[file.path]
