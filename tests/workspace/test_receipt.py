"""What a recipient signs decides when the key of its copy goes out, and travels in the evidence."""

import base64
import json
import shutil
from dataclasses import replace
from datetime import timedelta

import life
import msgspec
import pytest

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import Conflict, InvalidInput, NotFound, PolicyViolation, Rollback, Tampered, VerificationError
from stanch.mark import embed
from stanch.release import RemoteBundle, RevokeOrder
from stanch.seal import read_manifest
from stanch.sign import TrustedKeys, sign_manifest
from stanch.store import FileBlobs
from stanch.terms import Digest
from stanch.trace import PackInvalid, sign_receipt, verify_pack
from stanch.workspace import verbs_trace
from stanch.workspace.copies import KeptCopy
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_deliver import deliver_copy, revoke_copy
from stanch.workspace.verbs_receipt import expect_receipt, find_receipt, receipts_of, receive
from stanch.workspace.verbs_release import release_folder

KEY = SigningKey.generate("ed25519")


@pytest.fixture
def made(case, tmp_path):
    """A workspace whose rolf made acme's copy, which both approved, and what acme must sign."""
    with case.acting("rolf") as rolf:
        copy = case.create(rolf, tmp_path / "copy")
        for name in life.APPROVERS:
            life.acting_in(rolf, name, lambda acting: case.approve(acting, recipient="acme"))
        yield rolf, copy, expect_receipt(rolf, copy.manifest)


def signed(workspace, expected, *, later=0, key=KEY, **changes):
    return sign_receipt(replace(expected, **changes), key, received=workspace.now() + timedelta(seconds=later))


def deliver(workspace, copy, store, **options):
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    return deliver_copy(workspace, copy.path, f"file:{store}", trusted, **options)


def test_the_key_goes_out_once_the_log_holds_the_receipt(made, tmp_path):
    workspace, copy, expected = made
    assert not deliver(workspace, copy, tmp_path / "store").has_key
    assert list((tmp_path / "store").rglob("quorum.json"))
    assert not list((tmp_path / "store").rglob("approval-*"))
    kept = KeptCopy.newest(release_folder(workspace, "r1"), "acme")
    kept.add_receipt(signed(workspace, expected))  # a file that nobody took in counts nothing
    assert not deliver(workspace, copy, tmp_path / "store").has_key
    received = receive(workspace, "r1", "acme", signed(workspace, expected), KEY.public)
    assert find_receipt(workspace, copy.manifest) == received
    assert deliver(workspace, copy, tmp_path / "store").has_key
    assert len(list((tmp_path / "store").rglob("approval-*"))) == 2
    with pytest.raises(Conflict, match="holds its receipt already"):
        receive(workspace, "r1", "acme", signed(workspace, expected), KEY.public)


def test_who_does_not_wait_is_in_the_log(made, tmp_path):
    workspace, copy, _ = made
    start = workspace.ledger.reader().size()
    assert deliver(workspace, copy, tmp_path / "store", before_receipt=True).has_key
    entry = json.loads(workspace.ledger.reader().entry(start))
    assert entry["unmapped"]["stanch"]["payload"]["before_receipt"] is True


def test_another_copy_that_takes_its_place_meanwhile_is_not_sent(made, tmp_path, monkeypatch):
    workspace, copy, _ = made
    other = shutil.copytree(copy.path, tmp_path / "other")
    manifest = msgspec.structs.replace(read_manifest(other), created="2026-01-01T00:00:00Z").to_bytes()
    (other / "manifest.json").write_bytes(manifest)
    signature = sign_manifest(manifest, workspace.keys.signer("publisher"))
    (other / "manifest.sigstore.json").write_bytes(signature.to_bytes())

    def move(location, bundle_id):  # after it was decided and logged
        copy.path.rename(tmp_path / "aside")
        other.rename(copy.path)
        return RemoteBundle(FileBlobs(tmp_path / "store"), location, bundle_id)

    monkeypatch.setattr(RemoteBundle, "at", move)
    with pytest.raises(Tampered, match="decided about"):
        deliver(workspace, copy, tmp_path / "store")


def test_a_store_that_drops_its_revocation_list_is_told_by_the_log(made, material, tmp_path):
    """The store forgets that acme was revoked: nothing goes out, and nothing is signed."""
    workspace, copy, _ = made
    store, signer = tmp_path / "store", workspace.keys.signer("publisher")
    bundle_id = deliver(workspace, copy, store).bundle_id
    order = RevokeOrder(material.acme.recipient.key_id, "left", signer, workspace.now())
    remote, trusted = RemoteBundle.open(f"file:{store}/{bundle_id}"), TrustedKeys((signer.public,))
    entry, listed = revoke_copy(workspace, remote, order, trusted)
    told = json.loads(workspace.ledger.reader().entry(entry.index + 1))["unmapped"]["stanch"]["payload"]
    assert told == {"number": 1, "revocations": {"store": f"file:{store}", "number": 1, "sha256": listed.digest}}
    (store / "revocations.json").unlink()
    with pytest.raises(Rollback, match="number 1"):
        deliver(workspace, copy, store, before_receipt=True)
    with pytest.raises(Rollback, match="number 1"):
        revoke_copy(workspace, remote, order, trusted)
    assert not (store / "revocations.json").exists()
    assert deliver(workspace, copy, tmp_path / "another").sent  # of which the log says nothing


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"recipient": "bolt"}, VerificationError, "recipient: expected acme, found bolt"),
        ({"leaf": 0}, VerificationError, "leaf_index: expected"),
        ({"batch_root": "ab" * 32}, VerificationError, "batch_root: expected"),  # another release's
        ({"bundle": Digest.sha256(b"another")}, VerificationError, ""),
        ({"key": SigningKey.generate("ed25519")}, VerificationError, ""),
        ({"later": 3600}, PolicyViolation, "cannot have arrived"),
        ({"later": -3600}, PolicyViolation, "cannot have arrived"),
    ],
)
def test_a_receipt_of_anything_else_is_refused_and_sends_no_key(made, change, error, said):
    workspace, copy, expected = made
    if change == {"leaf": 0} and expected.leaf == 0:
        change = {"leaf": 1}
    with pytest.raises(error) as refused:
        receive(workspace, "r1", "acme", signed(workspace, expected, **change), KEY.public)
    assert said in f"{refused.value.what} {refused.value.why}"
    assert find_receipt(workspace, copy.manifest) is None
    assert KeptCopy.newest(release_folder(workspace, "r1"), "acme").receipt is None


def test_changed_bytes_and_names_that_are_nobodys_are_refused(made):
    workspace, _, expected = made
    data = signed(workspace, expected)
    envelope = json.loads(data)["dsseEnvelope"]
    for part in (envelope["payload"], envelope["signatures"][0]["sig"]):
        raw = base64.b64decode(part)
        for at in range(0, len(raw), 29):
            changed = base64.b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            with pytest.raises((VerificationError, InvalidInput)):
                receive(workspace, "r1", "acme", data.replace(part.encode(), changed), KEY.public)
    for name, recipient, error in (("r9", "acme", NotFound), ("r1", "zoe", InvalidInput), ("r1", "bolt", NotFound)):
        with pytest.raises(error):
            receive(workspace, name, recipient, data, KEY.public)


def test_the_receipt_of_an_earlier_copy_is_not_one_of_the_next(case, made, tmp_path):
    workspace, _, expected = made
    old = signed(workspace, expected)
    receive(workspace, "r1", "acme", old, KEY.public)
    case.create(workspace, tmp_path / "next")
    with pytest.raises(VerificationError):
        receive(workspace, "r1", "acme", old, KEY.public)


def test_evidence_carries_the_receipt_that_was_taken_in_and_no_other(case, made, tmp_path):
    workspace, _, expected = made
    data = signed(workspace, expected)
    receive(workspace, "r1", "acme", data, KEY.public)
    state = ReleaseState.load(release_folder(workspace, "r1"))
    assert receipts_of(workspace, state) == {"acme": data}
    plan = state.mark_plan()
    stolen = embed(state.model, tmp_path / "stolen", plan, state.copy_key(plan, "acme")).path
    with case.acting("ines") as ines:
        suspect = verbs_trace.Suspect(
            path=stolen, case="c-1", description="found", received_from="a host", discovered=ines.now()
        )
        traced = verbs_trace.trace_suspect(ines, suspect, "r1")
        out = verbs_trace.pack_evidence(ines, traced, tmp_path / "evidence.zip").path
        known = {"key": ines.keys.publics("case")[0], "vkey": ines.ledger.verifier.vkey}
        assert "acme got its copy" in " ".join(verify_pack(out, **known, recipients={"acme": KEY.public}).steps)
        other = SigningKey.generate("ed25519").public
        with pytest.raises(PackInvalid, match="receipts"):
            verify_pack(out, **known, recipients={"acme": other})
        report = tmp_path / "report.pdf"
        verbs_trace.write_case_report(ines, traced, report)
        assert report.read_bytes().startswith(b"%PDF-")
        with pytest.raises(InvalidInput, match=r"ends in \.html or \.json or \.pdf"):
            verbs_trace.write_case_report(ines, traced, tmp_path / "report.txt")
        reader = generate_identity()
        packs = [
            verbs_trace.pack_evidence(ines, traced, tmp_path / name, recipients=[reader.recipient]).path
            for name in ("sealed", "later")
        ]
        found = [read_manifest(bundle) for bundle in packs]
        assert {one.lineage for one in found} == {"evidence/c-1"}
        assert found[0].release_number < found[1].release_number
        assert traced.case.custody().lines[-1].note.endswith(f", sealed to {reader.recipient.describe().key_id}")
        KeptCopy.newest(state.folder, "acme").add_receipt(signed(ines, expected, leaf=expected.leaf + 1))
        with pytest.raises(Tampered, match="not the one that was taken in"):
            receipts_of(ines, state)
