"""Whatever is changed in a pack, and whoever signs it again, the verifier names the step that does not hold."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from trace_world import CASE_KEY, LOG_KEY, ORIGIN
from trace_world import sign_files as sign

from stanch.crypto import SigningKey, canonical_json
from stanch.ledger import NoteSigner
from stanch.mark import threshold
from stanch.sign import Statement, Subject, sign_statement
from stanch.terms import Digest
from stanch.trace import PackInvalid, verify_pack
from stanch.trace.verifier import verify

OTHER_KEY = SigningKey.from_seed(bytes(32))


@pytest.fixture(scope="session")
def files(evidence):
    with zipfile.ZipFile(evidence.path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def step_of(world, tmp_path):
    """Return a function that verifies a pack of the given files and returns the step that fails."""

    def check(files, *, key=CASE_KEY.public, vkey=world.log.vkey):
        path = tmp_path / "pack.zip"
        path.write_bytes(files if isinstance(files, bytes) else b"".join(verify.container(files)))
        with pytest.raises(PackInvalid) as caught:
            verify_pack(path, key=key, vkey=vkey)
        assert caught.value.step in caught.value.what
        return caught.value.step

    return check


def edit(files, name, change):
    """Change a JSON file in place, and sign the pack again."""
    value = json.loads(files[name])
    change(value)
    return sign(files | {name: canonical_json(value)})


def log_anew(world, plan):
    """Log a plan that suits, as the log's owner can, and return the files that show it."""
    _, entry, proof = world.log.append("trace.plan", {"plan": hashlib.sha256(plan).hexdigest()})
    proofs = world.prove_plan(entry, proof)
    path = proofs.consistency
    return {
        "ledger/beacon.json": proofs.beacon_entry, "ledger/beacon.tlog-proof": proofs.beacon_proof,
        "ledger/plan.json": entry, "ledger/plan.tlog-proof": proof, "plan.json": plan,
        "ledger/consistency.json": canonical_json([node.hex() for node in path]),
    }  # fmt: skip


def test_the_helper_itself_makes_valid_packs(files, world, tmp_path):
    path = tmp_path / "pack.zip"
    path.write_bytes(b"".join(verify.container(sign(files))))
    assert verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey).accused


def test_any_edit_of_any_file_is_refused(files, step_of):
    for name, data in files.items():
        for place in (0, len(data) // 2, len(data) - 1):
            changed = bytearray(data)
            changed[place] ^= 1
            assert step_of(files | {name: bytes(changed)}) == "pack", name


def test_any_missing_or_extra_file_is_refused(files, step_of):
    for name in files:
        assert step_of({other: data for other, data in files.items() if other != name}) == "pack"
    assert step_of(files | {"extra.txt": b""}) == "pack"
    assert step_of(files | {"../escape": b"x"}) == "pack"


def test_any_file_missing_from_a_pack_signed_again_fails_at_its_own_step(files, step_of):
    expected = {
        "ledger/commitment.json": "log", "commitment/leaves.bin": "commitment", "ledger/plan.tlog-proof": "plan",
        "case.json": "plan", "custody.jsonl": "custody", "scores/scores.json": "score",
        "features/values.f32le": "score", "verifier/gaussian.bin": "score",
    }  # fmt: skip
    for name, step in expected.items():
        assert step_of(sign({other: data for other, data in files.items() if other != name})) == step


def test_bytes_of_the_container_cannot_be_changed(evidence, step_of):
    data = evidence.path.read_bytes()
    with zipfile.ZipFile(evidence.path) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    tail = data.rindex(b"PK\1\2")
    for place in [start + 4 + n for start in starts[:3] for n in range(0, 26, 3)] + list(range(tail, len(data), 5)):
        changed = bytearray(data)
        changed[place] ^= 1
        assert step_of(bytes(changed)) == "pack"
    for wrong in (b"", b"x" + data, data + b"x", data[:-1], data[: len(data) // 2]):
        assert step_of(wrong) == "pack"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, zipfile.ZipFile(evidence.path) as old:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    assert step_of(packed.getvalue()) == "pack"


def test_another_case_key_is_refused(files, step_of):
    assert step_of(files, key=OTHER_KEY.public) == "pack"
    assert step_of(sign(files, OTHER_KEY)) == "pack"
    assert step_of(files, key=SigningKey.generate("p256").public) == "pack"


def test_another_log_is_refused(files, step_of):
    assert step_of(files, vkey=NoteSigner(ORIGIN, OTHER_KEY).verifier.vkey) == "log"
    assert step_of(files, vkey=NoteSigner("example.com/other", LOG_KEY).verifier.vkey) == "log"
    assert step_of(files, vkey="nonsense") == "log"


def test_entries_that_are_not_in_the_log_are_refused(files, step_of):
    for stem, step in (("commitment", "log"), ("plan", "plan")):
        name = f"ledger/{stem}.json"
        assert step_of(sign(files | {name: files[name].replace(b'"time":1', b'"time":2')})) == step
    # Swapped: each proof is of the other entry.
    names = ("ledger/commitment.json", "ledger/plan.json")
    assert step_of(sign(files | dict(zip(names, (files[names[1]], files[names[0]]), strict=True)))) == "log"


def test_swapped_leaves_are_refused(files, step_of):
    raw = files["commitment/leaves.bin"]
    assert step_of(sign(files | {"commitment/leaves.bin": raw[32:64] + raw[:32] + raw[64:]})) == "commitment"

    def swap(batch):
        batch["accused"][0]["leaf"], batch["decoys"][0]["leaf"] = (
            batch["decoys"][0]["leaf"],
            batch["accused"][0]["leaf"],
        )

    assert step_of(edit(files, "commitment/batch.json", swap)) == "commitment"


@pytest.mark.parametrize("field", ["recipient", "salt", "subkey"])
def test_each_field_of_a_leaf_is_bound(files, step_of, field):
    def change(batch):
        value = batch["accused"][0][field]
        batch["accused"][0][field] = "acme" if field == "recipient" else f"{int(value[0], 16) ^ 1:x}{value[1:]}"

    assert step_of(edit(files, "commitment/batch.json", change)) == "commitment"


@pytest.mark.parametrize("field", ["alpha", "layout_digest", "original"])
def test_each_field_of_a_batch_is_bound(files, step_of, field):
    def change(batch):
        value = batch[field]
        batch[field] = (0.5).hex() if field == "alpha" else f"{int(value[0], 16) ^ 1:x}{value[1:]}"

    assert step_of(edit(files, "commitment/batch.json", change)) == "commitment"


def test_a_decoy_cannot_pose_as_a_recipient_nor_a_recipient_as_a_decoy(files, step_of):
    assert (
        step_of(edit(files, "commitment/batch.json", lambda b: b["accused"].append(b["decoys"].pop()))) == "commitment"
    )
    assert (
        step_of(edit(files, "commitment/batch.json", lambda b: b["decoys"].append(b["accused"].pop()))) == "commitment"
    )
    assert step_of(edit(files, "commitment/batch.json", lambda b: b["accused"].append(b["accused"][0]))) == "commitment"


def test_hiding_decoys_leaves_too_few(files, step_of):
    assert step_of(edit(files, "commitment/batch.json", lambda b: b["decoys"].pop())) == "decoys"


def test_a_forged_plan_is_refused(files, step_of):
    for field, value in (("n", 400), ("epsilon", "1e-3"), ("threshold", 1.0), ("rounds", 1), ("suspect", "sha256:00")):
        assert step_of(edit(files, "plan.json", lambda p, f=field, v=value: p.update({f: v}))) == "plan"


def test_a_plan_logged_before_the_keys_or_about_another_case_is_refused(world, files, step_of):
    """The log's owner logs whatever suits; what the plan says must still fit the rest of the pack."""
    plan = json.loads(files["plan.json"])
    wrong = (
        {"case": "case-999"}, {"case_digest": "00" * 32}, {"suspect": "sha256:" + "00" * 32}, {"n": 3}, {"analyses": 7},
        {"threshold": 1.0}, {"epsilon": "2"}, {"release": plan["release"] | {"batch_root": "00" * 32}},
        {"release": plan["release"] | {"original": "sha256:" + "00" * 32}},
        {"release": plan["release"] | {"beacon": "00" * 32}}, {"release": plan["release"] | {"checkpoint": 1}},
        {"epsilon": "1e-3", "threshold": threshold(plan["n"], plan["analyses"], 1e-3)},
        {"analyses": 8, "threshold": threshold(plan["n"], 8, 1e-9)},
    )  # fmt: skip
    for change in wrong:
        data = canonical_json(plan | change)
        assert step_of(sign(files | log_anew(world, data))) == "plan", change
    data = canonical_json(plan | {"custody": "00" * 32})
    assert step_of(sign(files | log_anew(world, data))) == "custody"


def test_custody_that_was_changed_is_refused(files, step_of):
    lines = files["custody.jsonl"].splitlines(keepends=True)
    assert len(lines) == 2
    for changed in (lines[::-1], lines[1:], lines[:1], [lines[0], lines[0]], []):
        assert step_of(sign(files | {"custody.jsonl": b"".join(changed)})) == "custody"


def test_a_chain_of_custody_made_anew_is_refused(files, step_of):
    """Consistent in itself, but not the chain whose head the logged plan pins."""
    case = json.loads(files["case.json"])
    previous, lines = hashlib.sha256(case["case"].encode()).hexdigest(), []
    for raw in files["custody.jsonl"].splitlines():
        fields = json.loads(raw) | {"previous": previous, "at": "2026-01-01T00:00:00Z"}
        lines.append(canonical_json(fields))
        previous = hashlib.sha256(lines[-1]).hexdigest()
    assert step_of(sign(files | {"custody.jsonl": b"\n".join(lines) + b"\n"})) == "custody"


def test_features_and_scores_that_were_changed_are_refused(files, step_of):
    values = np.frombuffer(files["features/values.f32le"], "<f4")
    for changed in (-values, values * 0, values[::-1], np.where(values == values[0], np.nan, values), values[:-1]):
        assert step_of(sign(files | {"features/values.f32le": changed.astype("<f4").tobytes()})) == "score"
    coordinates = np.frombuffer(files["features/coordinates.u64le"], "<u8")
    for changed in (coordinates[::-1], coordinates + np.uint64(8), coordinates * np.uint64(0)):
        assert step_of(sign(files | {"features/coordinates.u64le": changed.astype("<u8").tobytes()})) == "score"
    assert step_of(sign(files | {"verifier/gaussian.bin": bytes(131072)})) == "score"
    assert step_of(edit(files, "scores/scores.json", lambda s: s["accused"][0].update(z=1000.0))) == "score"
    assert step_of(edit(files, "scores/scores.json", lambda s: s["accused"][0].update(recipient="acme"))) == "score"
    assert step_of(edit(files, "scores/scores.json", lambda s: s.update(variant="other"))) == "score"
    assert step_of(edit(files, "scores/scores.json", lambda s: s["decoys"].update(mean=0.5))) == "decoys"


def test_what_a_report_is_made_from_follows_from_the_scores(files, step_of):
    def swap(scores):
        counts = scores["decoys"]["counts"]
        counts.sort()

    changes = {
        "log10_p": lambda s: s["accused"][0].update(log10_p=-1e4), "coordinates": lambda s: s.update(coordinates=9),
        "n": lambda s: s["examination"].update(n=4), "who": lambda s: s["examination"]["accused"][0].update(leaf=0),
        "verdict": lambda s: s["examination"].update(verdict="nothing"),
    }  # fmt: skip
    for name, change in changes.items():
        assert step_of(edit(files, "scores/scores.json", change)) == "score", name
    for change in (swap, lambda s: s["decoys"].update(count=900), lambda s: s["decoys"]["edges"].pop()):
        assert step_of(edit(files, "scores/scores.json", change)) == "decoys"


def test_a_pack_of_another_format_is_refused_by_name(files, world, tmp_path):
    old = json.loads(files["manifest.json"]) | {"format": "urn:stanch:evidence-pack:v1"}
    path, data = tmp_path / "old.zip", canonical_json(old)
    statement = Statement((Subject("manifest.json", Digest.sha256(data)),), verify.PREDICATE, {})
    signed = {"manifest.json": data, "manifest.dsse.json": sign_statement(statement, CASE_KEY).to_bytes()}
    path.write_bytes(b"".join(verify.container(files | signed)))
    with pytest.raises(PackInvalid) as caught:
        verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey)
    assert "have the case packed anew" in caught.value.why


def test_an_innocent_recipient_in_place_of_the_accused_is_refused(world, files, step_of):
    leaf = world.release.commitment.leaf_of("acme")
    opened = {
        "leaf": world.release.commitment.index["acme"],
        "recipient": "acme",
        "salt": leaf.salt.hex(),
        "subkey": leaf.subkey.hex(),
    }
    assert step_of(edit(files, "commitment/batch.json", lambda b: b.update(accused=[opened]))) == "score"


def test_nobody_accused_is_refused(files, step_of):
    assert step_of(edit(files, "commitment/batch.json", lambda b: b.update(accused=[]))) == "commitment"


def test_malformed_json_is_refused_by_name(files, step_of):
    for name, step in (("commitment/batch.json", "commitment"), ("scores/scores.json", "score")):
        for data in (b"", b"[]", b"{}", b"[" * 100_000, b'{"accused":1}'):
            assert step_of(sign(files | {name: data})) == step
