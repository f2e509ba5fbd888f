"""One copy from order to opening: who opens it, what is refused, and that no plaintext of it is ever written."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import life
import msgspec
import pytest

from authority import served
from stanch.audit import GatePolicy
from stanch.audit.gate import GateBreached, GateInconclusive
from stanch.crypto import SigningKey, canonical_json
from stanch.errors import (
    Conflict,
    ExternalError,
    GateFailed,
    InvalidInput,
    NoIdentityMatched,
    NotPermitted,
    NoTrustedSignature,
    PolicyViolation,
    Rollback,
    VerificationError,
)
from stanch.mark import MarkedSource
from stanch.release import create_copy, open_copy, read_publisher
from stanch.seal import OpenParams, VolatileReleases, open_bundle
from stanch.sign import Bundle, DirectoryMismatch, TimestampAuthority, Timestamped, TrustedKeys, verify_directory
from stanch.weights import directory_digest

NOW = life.in_days(0)
WRITES = "openat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,mmap,link,linkat,symlinkat"


def open_(bundle, ordering, identity, memory=None):
    return open_copy(bundle, ordering.trusted, [identity], memory=memory or VolatileReleases())


def read_all(bundle, ordering, identity):
    with open_(bundle, ordering, identity) as opened:
        return {file.path: bytes(opened.read(file.path)) for file in opened.files()}


@pytest.fixture(scope="module")
def made(ordering, tmp_path_factory):
    return create_copy(ordering.order(), tmp_path_factory.mktemp("made") / "acme.copy", now=NOW)


@pytest.fixture
def copy(made, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(made.path, tmp_path / "acme.copy"))


def test_the_recipient_reads_its_marked_copy(made, ordering, material):
    assert made.recipient == "acme"
    found = read_all(made.path, ordering, material.acme)
    original = life.contents(material.model)
    assert found.keys() == original.keys()
    changed = {name for name in original if found[name] != original[name]}
    assert changed == {"adapter_model.safetensors"}
    source = MarkedSource(material.model, ordering.plan, ordering.order().key)
    for file in source.files():
        with file.open() as reader:
            assert reader.read() == found[file.path]


def test_two_recipients_have_two_copies(made, ordering, material, tmp_path):
    other = create_copy(ordering.order("bolt"), tmp_path / "bolt.copy", now=NOW)
    name = "adapter_model.safetensors"
    ours, theirs = (
        read_all(made.path, ordering, material.acme)[name],
        read_all(other.path, ordering, material.other)[name],
    )
    assert len(ours) == len(theirs)
    assert ours != theirs


def test_the_manifest_binds_certificate_marks_base_and_grant(made, ordering):
    manifest, verified = read_publisher(made.path, ordering.trusted)
    order = ordering.order()
    assert verified.sha256 == made.manifest.value
    assert verified.signer_key_ids == (ordering.publisher.key_id,)
    assert (manifest.lineage, manifest.release_number, manifest.kind) == ("acme/bot", 1, "adapter")
    assert manifest.commitments.certificate == order.certificate_digest.hex
    assert manifest.commitments.mark == order.mark_commitment.hex()
    assert manifest.base_model == order.base
    assert made.size == sum(path.stat().st_size for path in made.path.rglob("*") if path.is_file())


def test_the_copy_carries_the_signature_over_its_own_marked_files(made, ordering, material, tmp_path):
    with open_(made.path, ordering, material.acme) as opened:
        signature = Bundle.parse(canonical_json(opened.plaintext_signature))
        opened.unseal_unsafe(tmp_path / "clear")
    verified = verify_directory(tmp_path / "clear", signature, ordering.trusted)
    assert (verified.hash, verified.name) == ("sha256", material.model.name)
    assert set(verified.files) == set(life.contents(material.model))
    # The original is not what was signed: its weights lack the mark.
    with pytest.raises(DirectoryMismatch) as caught:
        verify_directory(material.model, signature, ordering.trusted)
    assert caught.value.changed == ("adapter_model.safetensors",)
    names = [name.encode() for name in verified.files]
    assert not any(name in path.read_bytes() for path in made.path.rglob("*") if path.is_file() for name in names)


def test_a_key_that_model_signing_does_not_read_signs_the_copy_alone(ordering, tmp_path):
    signer = SigningKey.generate("ed25519")
    copy = create_copy(ordering.order(signer=signer), tmp_path / "c", now=NOW)
    with open_copy(copy.path, TrustedKeys((signer.public,)), [ordering.material.acme], memory=VolatileReleases()) as it:
        assert it.plaintext_signature is None


def test_another_identity_does_not_open_it(made, ordering, material):
    with pytest.raises(NoIdentityMatched):
        open_(made.path, ordering, material.other)


def test_another_publisher_is_not_trusted(made, material):
    trusted = TrustedKeys((SigningKey.generate("p256").public,))
    with pytest.raises(NoTrustedSignature):
        open_copy(made.path, trusted, [material.acme], memory=VolatileReleases())


def positions(path):
    size = path.stat().st_size
    return sorted({0, size // 3, size // 2, size - 1})


def test_a_flipped_bit_anywhere_is_refused(copy, ordering, material):
    for path in sorted(file for file in copy.rglob("*") if file.is_file()):
        good = path.read_bytes()
        for position in positions(path):
            bad = bytearray(good)
            bad[position] ^= 4
            path.write_bytes(bad)
            with pytest.raises((VerificationError, InvalidInput)):
                read_all(copy, ordering, material.acme)
        path.write_bytes(good)
    read_all(copy, ordering, material.acme)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sigstore.json", "recipients.json", "digests.bin"])
def test_a_missing_part_is_refused(copy, ordering, material, name):
    (copy / name).unlink()
    with pytest.raises(VerificationError):
        open_(copy, ordering, material.acme)


def test_the_signature_of_another_release_is_refused(copy, ordering, material, tmp_path):
    other = create_copy(ordering.order(release_number=2), tmp_path / "two.copy", now=NOW)
    shutil.copy(other.path / "manifest.sigstore.json", copy / "manifest.sigstore.json")
    with pytest.raises(VerificationError) as caught:
        open_(copy, ordering, material.acme)
    assert isinstance(caught.value, PolicyViolation | NoTrustedSignature)


def test_an_older_release_is_refused_after_a_newer_one(made, ordering, material, tmp_path):
    newer = create_copy(ordering.order(release_number=2), tmp_path / "two.copy", now=NOW)
    memory = VolatileReleases()
    with open_(newer.path, ordering, material.acme, memory):
        pass
    with pytest.raises(Rollback):
        open_(made.path, ordering, material.acme, memory)


def refused(order, dest, error, match=None, now=NOW):
    with pytest.raises(error, match=match) as caught:
        create_copy(order, dest, now=now)
    assert sorted(dest.parent.iterdir()) == []
    return caught.value


def test_the_certificate_of_another_model_is_refused(ordering, tmp_path_factory, tmp_path):
    other = life.make_adapter(tmp_path_factory.mktemp("other") / "adapter", seed=9)
    certificate = ordering.certificate(other, "other.json", result=life.make_result(other))
    refused(ordering.order(certificate=certificate), tmp_path / "c", GateFailed, "another file")


def test_an_expired_certificate_is_refused(ordering, tmp_path):
    later = NOW + timedelta(days=91)
    order = ordering.order(not_after=later + timedelta(days=1))
    assert isinstance(refused(order, tmp_path / "c", GateFailed, "expired", now=later), GateBreached)


def test_a_certificate_of_a_leak_is_refused(ordering, material, tmp_path):
    leak = ordering.certificate(material.model, "leak.json", result=life.make_result(material.model, shift=4.0))
    refused(ordering.order(certificate=leak), tmp_path / "c", GateBreached)


def test_a_stricter_policy_is_asked_again(ordering, tmp_path):
    strict = msgspec.structs.replace(GatePolicy.for_context("open-weights"), min_rows=10**6)
    refused(ordering.order(policy=strict), tmp_path / "c", GateInconclusive, "min_rows")


def test_a_changed_model_is_refused(ordering, material, tmp_path_factory, tmp_path):
    model = material.copy_model(tmp_path_factory.mktemp("changed") / "adapter")
    (model / "tokenizer.json").write_text('{"changed":1}')
    refused(ordering.order(original=model), tmp_path / "c", InvalidInput, "not the model")


def test_a_grant_that_has_ended_is_refused(ordering, tmp_path):
    refused(ordering.order(not_after=NOW), tmp_path / "c", InvalidInput, "end before it begins")


def test_an_expired_grant_does_not_open(made, ordering, material):
    _, verified = read_publisher(made.path, ordering.trusted)
    later = OpenParams(clock=lambda: NOW + timedelta(days=31))
    with pytest.raises(NotPermitted, match="ended"):
        open_bundle(made.path, verified, [material.acme], memory=VolatileReleases(), params=later)


def test_a_longer_grant_in_the_recipients_file_is_refused(copy, ordering, material):
    path = copy / "recipients.json"
    document = json.loads(path.read_bytes())
    document["stanzas"][0]["not_after"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(VerificationError):
        open_(copy, ordering, material.acme)


def test_an_existing_destination_is_not_touched(ordering, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine").write_text("keep")
    with pytest.raises(Conflict):
        create_copy(ordering.order(), tmp_path / "c", now=NOW)
    assert life.contents(tmp_path) == {"c/mine": b"keep"}


def test_a_signer_that_fails_leaves_nothing(ordering, tmp_path, monkeypatch):
    def fail(*_, **_options):
        raise RuntimeError("the token was pulled out")

    monkeypatch.setattr("stanch.release.copy.sign_manifest", fail)
    refused(ordering.order(), tmp_path / "c", RuntimeError, "pulled out")


def test_an_authority_confirms_when_a_copy_was_signed_or_there_is_no_copy(authority, made, ordering, tmp_path):
    with served(authority.answer, status=500) as url:
        order = ordering.order(authority=TimestampAuthority(url, authority.roots))
        refused(order, tmp_path / "c", ExternalError, "refused")
    with served(authority.answer) as url:
        copy = create_copy(replace(order, authority=TimestampAuthority(url, authority.roots)), tmp_path / "c", now=NOW)
    policy = Timestamped(ordering.trusted, authority.roots)
    _, verified = read_publisher(copy.path, policy)
    assert abs(verified.signed_at - datetime.now(UTC)) < timedelta(minutes=5)
    with pytest.raises(PolicyViolation, match="no signature has a time-stamp"):
        read_publisher(made.path, policy)


def test_a_destroyed_copy_is_gone(ordering, tmp_path):
    create_copy(ordering.order(), tmp_path / "c", now=NOW).destroy()
    assert life.tree(tmp_path) == []


def test_no_plaintext_of_the_marked_copy_is_written(ordering, material, tmp_path, monkeypatch):
    """Every byte that is written anywhere during the making is searched for pieces of the marked tensors."""
    source = {file.path: file for file in MarkedSource(material.model, ordering.plan, ordering.order().key).files()}
    with source["adapter_model.safetensors"].open() as reader:
        marked = reader.read()
    original = (material.model / "adapter_model.safetensors").read_bytes()
    pieces = [marked[start : start + 32] for start in range(4096, len(marked) - 32, len(marked) // 40)]
    markers = [piece for piece in pieces if piece not in original]
    assert len(markers) > 10
    written = []
    for name in ("write", "pwrite"):
        real = getattr(os, name)

        def spy(handle, data, *rest, real=real):
            written.append(bytes(data))
            return real(handle, data, *rest)

        monkeypatch.setattr(os, name, spy)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    copy = create_copy(ordering.order(), tmp_path / "c", now=NOW)
    monkeypatch.undo()
    assert written  # the body goes through os.pwrite
    on_disk = b"".join(life.contents(tmp_path).values())
    assert not any(marker in on_disk or marker in b"".join(written) for marker in markers)
    assert life.tree(tmp_path / "tmp") == []
    assert any(
        marker in read_all(copy.path, ordering, material.acme)["adapter_model.safetensors"] for marker in markers
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "tmp"]


def test_the_kernel_sees_no_plaintext_of_the_marked_copy(ordering, tmp_path):
    """As above for whatever writes, by whatever call: the making is traced in a child of this process."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    order = ordering.order()
    source = {file.path: file for file in MarkedSource(order.original, order.plan, order.key).files()}
    with source["adapter_model.safetensors"].open() as reader:
        marked = reader.read()
    begin, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begin, 1)
        create_copy(order, tmp_path / "c", now=NOW)
        os._exit(0)
    command = ["strace", "-f", "-xx", "-s", "4000000", "-e", f"trace={WRITES}", "-o", tmp_path / "trace", "-p", child]
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True) as tracer:
        said = tracer.stderr.readline()
        os.write(go, b"x")
        assert os.waitpid(child, 0)[1] == 0
    if "ttached" not in said:
        pytest.skip(f"strace may not trace here: {said}")
    lines = (tmp_path / "trace").read_text().splitlines()
    written = b"".join(bytes.fromhex(text.replace("\\x", "")) for line in lines for text in line.split('"')[1::2])
    assert len(written) > len(marked)  # the whole body, and the paths
    starts = range(4096, len(marked) - 32, 997)
    assert not any(marked[start : start + 32] in written for start in starts)
    assert not any("MAP_SHARED" in line and "PROT_WRITE" in line for line in lines)


def test_the_original_is_not_touched(made, ordering, material):
    assert made.path.is_dir()
    assert directory_digest(material.model).root == ordering.plan.original
