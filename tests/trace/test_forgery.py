"""Forged claims by an owner who holds the case key and the log's key: each is refused, and by one check alone.

Every forgery here is whole but for its one lie: its features are made up to fit the accused key, its scores are right,
its plan is logged. So each test also shows that the pack verifies once that check is taken out.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from trace_world import ADAPTER_FILE, CASE_KEY, HISTORY, NOW, RECIPIENTS, Log, make_adapter, rewrite, sign_files

from stanch.crypto import SigningKey, canonical_json
from stanch.errors import InvalidInput, VerificationError
from stanch.ledger import TlogProof
from stanch.mark import Commitment, MarkRoot, RecipientSlot, commit, embed, log10_bound, plan_mark, threshold
from stanch.mark.bounds import decided
from stanch.mark.keys import stream_key
from stanch.mark.signature import gaussian_table
from stanch.terms import Digest
from stanch.trace import (
    Inconclusive,
    KeyHistory,
    PackInvalid,
    PlanMismatch,
    Reason,
    Receipt,
    decide,
    recompute_features,
    sign_receipt,
    verify_pack,
    verify_receipt,
)
from stanch.trace.custody import utc
from stanch.trace.plan import CasePlan, beacons
from stanch.trace.stratum import shown_decoys
from stanch.trace.verifier import primitives, verify
from stanch.trace.verifier.features import features_of
from stanch.trace.verifier.primitives import shown_coordinates
from stanch.weights import Tensor, directory_digest, open_adapter, write_safetensors

SIZE = 14 * 8 * (48 + 64)
GROUND = MarkRoot(bytes(32))
SHOWN = "3863565d790109c811b75ec6fc5aaf76168f8922c277cee5304f12a928b473da"
"""SHA-256 of the coordinates, u64le, for SHA-256(root), SHA-256(beacon) and the extent of the test."""
GLOBEX_KEY = SigningKey.from_seed(bytes(range(1, 33)))
RECEIVED = NOW + timedelta(minutes=1)


@dataclass(frozen=True)
class Claim:
    """What a forger claims: a batch, its entry and proof, and which leaf is accused; features are made to fit."""

    batch: Commitment
    logged: tuple[bytes, bytes, int]
    accused: str = "globex"
    subkey: bytes | None = None
    original: str | None = None
    discovered: str | None = None
    acquired: str | None = None
    log: Log | None = None
    kept: int = SIZE
    whole: bool = False
    extent: int = SIZE

    def open(self, name):
        leaf = self.batch.leaf_of(name)
        subkey = self.subkey if name == self.accused and self.subkey else leaf.subkey
        return {
            "leaf": self.batch.index[name], "recipient": name, "salt": leaf.salt.hex(), "subkey": subkey.hex(),
        }  # fmt: skip

    def about(self, files):
        """Return case and custody, made anew where the claim gives other times."""
        case = json.loads(files["case.json"])
        case["discovered"] = self.discovered or case["discovered"]
        previous, lines = hashlib.sha256(case["case"].encode()).hexdigest(), []
        for raw in files["custody.jsonl"].splitlines():
            fields = json.loads(raw) | {"previous": previous}
            fields["at"] = self.acquired if self.acquired and not lines else fields["at"]
            lines.append(canonical_json(fields))
            previous = hashlib.sha256(lines[-1]).hexdigest()
        return {"case.json": canonical_json(case), "custody.jsonl": b"\n".join(lines) + b"\n"}

    def files(self, world, files):
        """Return a whole pack that makes the claim."""
        leaf = self.batch.leaves[0]
        beacon = beacons(self.logged[1])[self.whole]
        decoys = [
            x.recipient for x in self.batch.leaves if x.recipient.startswith("decoy:") and x.recipient != self.accused
        ]
        accused, opened = self.open(self.accused), [self.open(name) for name in decoys]
        streams = [stream_key(bytes.fromhex(item["subkey"]), beacon, leaf.layout_digest) for item in (accused, *opened)]
        coordinates = np.arange(self.kept, dtype=np.uint64)
        x = np.stack([verify.signature_values(key, coordinates, gaussian_table()) for key in streams])
        values = (x[0] + np.random.default_rng(1).normal(size=self.kept)).astype("<f4")
        z = x @ values.astype(np.float64) / np.linalg.norm(values.astype(np.float64))
        batch = {
            "batch": self.batch.batch, "alpha": leaf.alpha.hex(), "layout_digest": leaf.layout_digest.hex(),
            "original": leaf.original.hex, "accused": [accused], "decoys": opened,
        }  # fmt: skip
        scores = json.loads(files["scores/scores.json"])
        plan = json.loads(files["plan.json"])
        issued = len(self.batch.leaves) - len(decoys) - 1
        plan |= {"n": issued, "threshold": threshold(issued, plan["analyses"], float(plan["epsilon"]))}
        bound = log10_bound(decided(float(z[0])), issued, plan["analyses"])
        told = {"recipient": self.accused, "leaf": accused["leaf"], "z": float(z[0]), "log10_p": bound}
        scores |= {"variant": "plain", "coordinates": self.kept, "accused": [told]}
        counts, edges = np.histogram(z[1:], bins=40)
        scores["decoys"] = {
            "count": len(decoys), "mean": float(z[1:].mean()), "deviation": float(z[1:].std()),
            "highest": float(z[1:].max()), "edges": edges.tolist(), "counts": counts.tolist(),
        }  # fmt: skip
        original = "sha256:" + (self.original or leaf.original.hex)
        scores["examination"] |= {
            "n": plan["n"], "threshold": plan["threshold"], "release": original, "accused": [told],
        }  # fmt: skip
        plan["release"] |= {
            "batch_root": self.batch.root.hex(), "batch": self.batch.batch,
            "entry": TlogProof.parse(self.logged[1]).index, "original": original, "extent": self.extent,
            "beacon": beacon.hex(), "checkpoint": TlogProof.parse(self.logged[1]).index + 1,
        }  # fmt: skip
        about = self.about(files)
        plan["case_digest"] = hashlib.sha256(about["case.json"]).hexdigest()
        plan["custody"] = hashlib.sha256(about["custody.jsonl"].splitlines()[0]).hexdigest()
        data = canonical_json(plan)
        _, entry, proof = world.log.append("trace.plan", {"plan": hashlib.sha256(data).hexdigest()})
        path = world.log.consistency(self.logged[1], proof)
        pinned = self.log.pin(self.logged[2]) if self.log else world.log.pin(self.logged[2], proof)
        return files | about | {
            "commitment/batch.json": canonical_json(batch), "commitment/leaves.bin": b"".join(self.batch.hashes),
            "ledger/commitment.json": self.logged[0], "ledger/commitment.tlog-proof": self.logged[1],
            "ledger/plan.json": entry, "ledger/plan.tlog-proof": proof, "plan.json": data,
            "ledger/beacon.json": pinned[0], "ledger/beacon.tlog-proof": pinned[1],
            "ledger/consistency.json": canonical_json([node.hex() for node in path]),
            "scores/scores.json": canonical_json(scores), "features/values.f32le": values.tobytes(),
            "features/coordinates.u64le": coordinates.astype("<u8").tobytes(),
        }  # fmt: skip


@pytest.fixture(scope="module")
def files(evidence):
    with zipfile.ZipFile(evidence.path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def honest(world):
    return Claim(world.release.commitment, world.logged)


@pytest.fixture
def refused(world, files, tmp_path, monkeypatch):
    """Return a function: the claim fails at ``step`` with the first text, and holds once these checks are taken out."""

    def check(claim, step, *texts):
        path = tmp_path / "forged.zip"
        path.write_bytes(b"".join(verify.container(sign_files(claim.files(world, files)))))
        with pytest.raises(PackInvalid) as caught:
            verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey)
        assert caught.value.step == step
        assert texts[0] in caught.value.why
        need = verify.need
        monkeypatch.setattr(verify, "need", lambda holds, said: need(holds or any(t in said for t in texts), said))
        assert verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey).accused

    return check


def batch_of(world, *, root=GROUND, original=None, log=None):
    """Commit to another batch and log it; return the claim that rests on it."""
    batch = commit(
        plan_mark(original or world.release.original), root, [RecipientSlot(name) for name in RECIPIENTS], decoys=96
    )
    return Claim(batch, (log or world.log).propose({"batch_root": batch.root.hex()}), log=log)


def test_a_claim_without_a_lie_in_its_form_verifies_and_its_features_are_found_out(
    world, stolen, files, honest, tmp_path
):
    path = tmp_path / "pack.zip"
    path.write_bytes(b"".join(verify.container(sign_files(honest.files(world, files)))))
    assert verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey).accused[0][0] == "globex"
    with pytest.raises(PackInvalid) as caught:
        recompute_features(path, suspect=stolen.case.suspect_folder, original=world.release.original)
    assert caught.value.step == "features"
    assert "the features differ" in caught.value.why


def test_a_layout_that_is_said_to_end_early_is_found_out(world, stolen, files, honest, tmp_path):
    """So that all coordinates of a smaller layout, those that suit, would be all."""
    path, short = tmp_path / "pack.zip", replace(honest, kept=SIZE // 2, extent=SIZE // 2)
    path.write_bytes(b"".join(verify.container(sign_files(short.files(world, files)))))
    assert verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey).accused[0][0] == "globex"
    with pytest.raises(PackInvalid) as caught:
        recompute_features(path, suspect=stolen.case.suspect_folder, original=world.release.original)
    assert "of another length" in caught.value.why


def test_another_original_is_refused(world, refused, tmp_path):
    claim = batch_of(world, original=make_adapter(tmp_path / "other", 99))
    refused(replace(claim, original=world.release.plan.original.hex), "plan", "it is about another original")


def test_keys_ground_after_the_fact_in_a_second_log_of_the_same_key_are_refused(world, refused, tmp_path):
    fork = Log.create(tmp_path / "fork")
    fork.append("tune.run", {})
    texts = "the beacon was pinned in another log than the plan's", "is of another log than the plan's"
    refused(batch_of(world, log=fork), "plan", *texts)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("discovered", "the suspect was found before its keys were fixed"),
        ("acquired", "line 0 is older than the keys"),
    ],
)
def test_keys_committed_to_after_the_suspect_was_found_are_refused(world, refused, field, text):
    refused(replace(batch_of(world), **{field: "2027-03-04T05:06:06Z"}), "custody", text)


def test_a_leaf_that_was_not_committed_to_is_refused(honest, refused):
    refused(replace(honest, subkey=b"\7" * 32), "commitment", "is not in the committed batch")


@pytest.mark.parametrize("accused", ["decoy:5", "*release*"])
def test_a_decoy_or_the_ownership_mark_is_never_accused(honest, refused, accused):
    refused(replace(honest, accused=accused), "commitment", "a decoy or the ownership mark is accused")


def test_a_plan_of_another_entry_is_refused(world, files, honest, step_of_forged):
    forged = honest.files(world, files)
    plan = json.loads(forged["plan.json"])
    plan["release"]["entry"] += 1
    data = canonical_json(plan)
    _, entry, proof = world.log.append("trace.plan", {"plan": hashlib.sha256(data).hexdigest()})
    path = [node.hex() for node in world.log.consistency(world.logged[1], proof)]
    pinned = world.log.pin(world.logged[2], proof)
    forged |= {"plan.json": data, "ledger/plan.json": entry, "ledger/plan.tlog-proof": proof}
    forged |= {"ledger/beacon.json": pinned[0], "ledger/beacon.tlog-proof": pinned[1]}
    assert step_of_forged(forged | {"ledger/consistency.json": canonical_json(path)}) == "plan"
    for wrong in ([], path[1:], [*path, "00" * 32], ["00" * 32, *path[1:]]):
        assert step_of_forged(files | {"ledger/consistency.json": canonical_json(wrong)}) == "plan"


@pytest.fixture
def step_of_forged(world, tmp_path):
    def check(files, **options):
        path = tmp_path / "pack.zip"
        path.write_bytes(b"".join(verify.container(sign_files(files))))
        with pytest.raises(PackInvalid) as caught:
            verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey, **options)
        return caught.value.step

    return check


def test_features_are_computed_again_from_suspect_and_original(world, stolen, evidence, tmp_path):
    steps = recompute_features(evidence.path, suspect=stolen.case.suspect_folder, original=world.release.original)
    assert [line.split()[0] for line in steps] == ["suspect", "original", "features"]
    other = make_adapter(tmp_path / "other", 5)
    for folders in (
        {"suspect": other, "original": world.release.original},
        {"suspect": stolen.case.suspect_folder, "original": other},
    ):
        with pytest.raises(PackInvalid) as caught:
            recompute_features(evidence.path, **folders)
        assert "the folder is not the" in caught.value.why


def test_features_are_computed_again_by_a_program_that_stands_alone(world, stolen, evidence, tmp_path):
    with zipfile.ZipFile(evidence.path) as archive:
        for name in (
            "recompute.py",
            "features.py",
            "models.py",
            "packed.py",
            "gguf_files.py",
            "alignment.py",
            "families.py",
        ):
            (tmp_path / name).write_bytes(archive.read(f"verifier/{name}"))
    command = [
        sys.executable,
        "-I",
        str(tmp_path / "recompute.py"),
        str(evidence.path),
        "--original",
        str(world.release.original),
    ]
    run = subprocess.run(
        [*command, "--suspect", str(stolen.case.suspect_folder)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04")
    for name, code, said in (("no.zip", 1, "FAILED      malformed"), ("missing.zip", 5, "NOT DONE    cannot read")):
        broken = [tmp_path / name if word == str(evidence.path) else word for word in command]
        run = subprocess.run([*broken, "--suspect", "."], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout.startswith(said), run.stderr) == (code, True, "")
    shutil.copytree(stolen.case.suspect_folder, tmp_path / "changed")
    (tmp_path / "changed" / "more.txt").write_text("x")
    run = subprocess.run(
        [*command, "--suspect", str(tmp_path / "changed")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stdout.startswith("FAILED")


def test_features_of_an_adapter_with_other_factors_are_computed_again(world, tmp_path):
    copy, generator, tensors = open_adapter(world.copy("globex")), np.random.default_rng(3), []
    for module in copy.modules.values():
        turn = generator.normal(size=(module.rank, module.rank))
        factors = (turn @ module.a.to_float32(), module.b.to_float32() @ np.linalg.inv(turn))
        tensors += [
            Tensor.from_float32(old.name, new.astype(np.float32))
            for old, new in zip((module.a, module.b), factors, strict=True)
        ]
    suspect = tmp_path / "turned"
    shutil.copytree(world.copy("globex"), suspect)
    write_safetensors(suspect / ADAPTER_FILE, tensors, metadata={"format": "pt"})
    examined = world.examine(suspect)
    made = world.pack(examined, tmp_path / "pack.zip")
    steps = recompute_features(made.path, suspect=examined.case.suspect_folder, original=world.release.original)
    assert "of variant adapter" in steps[-1] or "of variant spectral" in steps[-1]


@pytest.mark.parametrize("variant", ["plain", "projected"])
@pytest.mark.parametrize("seed", range(3))
def test_both_programs_make_the_same_features(variant, seed):
    from stanch.mark.features import _matched_filter, _projected_residual, _Rows  # noqa: PLC0415 - white box

    generator = np.random.default_rng(seed)
    original, base = (generator.normal(size=(24, 40)).astype(np.float32) for _ in range(2))
    suspect = original + generator.normal(size=original.shape).astype(np.float32) * np.float32(0.01)
    suspect[generator.random(suspect.shape) < 0.1] = 0
    suspect[3, 3], suspect[5, 5], original[7, 7] = np.inf, np.nan, 0
    kept = (np.abs(suspect) < 1e12) & (original != 0) & (suspect != 0)
    counts = np.maximum(np.count_nonzero(kept, axis=1), 1)
    residual = np.where(kept, suspect - original, np.float32(0))
    rows = _Rows(original, suspect, (base,), (), kept, counts, residual)
    if variant == "projected":
        columns = [values.ravel() for values in rows.centred()]
        moments = np.array([[float(np.dot(a, b)) for b in columns] for a in columns])
        fit = np.linalg.lstsq(moments[:-1, :-1], moments[:-1, -1], rcond=1e-10)[0]
        residual = _projected_residual(rows, fit)
    with np.errstate(all="ignore"):
        found = features_of(original, suspect, base, 0.02, variant)
    np.testing.assert_allclose(found, _matched_filter(rows, residual, 0.01), rtol=2e-4, atol=1e-4)


def receipt_of(world, **changes):
    fields = {
        "batch_root": world.release.commitment.root.hex(), "leaf": world.release.commitment.index["globex"],
        "bundle": Digest.sha256(b"bundle"), "recipient": "globex",
    } | changes  # fmt: skip
    return Receipt(**fields)


def test_a_receipt_is_of_one_copy_and_one_signer(world):
    receipt = receipt_of(world)
    data = sign_receipt(receipt, GLOBEX_KEY, received=RECEIVED)
    assert verify_receipt(data, GLOBEX_KEY.public, receipt) == "2027-03-04T05:07:07Z"
    with pytest.raises(VerificationError):
        verify_receipt(data, CASE_KEY.public, receipt)
    for change in ({"batch_root": "00" * 32}, {"leaf": 0}, {"bundle": Digest.sha256(b"")}, {"recipient": "acme"}):
        with pytest.raises(VerificationError, match="another copy"):
            verify_receipt(data, GLOBEX_KEY.public, receipt_of(world, **{"leaf": receipt.leaf} | change))
    for change in ({"batch_root": "x"}, {"leaf": -1}):
        with pytest.raises(InvalidInput):
            sign_receipt(receipt_of(world, **change), GLOBEX_KEY, received=RECEIVED)
    with pytest.raises(InvalidInput, match="Ed25519"):
        sign_receipt(receipt, SigningKey.generate("p256"), received=RECEIVED)


def test_receipts_travel_in_the_pack_and_are_checked(world, stolen, step_of_forged, tmp_path):
    data = sign_receipt(receipt_of(world), GLOBEX_KEY, received=RECEIVED)
    made = world.pack(stolen, tmp_path / "with.zip", release=replace(world.release, receipts={"globex": data}))
    known = {"globex": GLOBEX_KEY.public}
    found = verify_pack(made.path, key=CASE_KEY.public, vkey=world.log.vkey, recipients=known)
    assert any("globex got its copy 2027-03-04T05:07:07Z" in line for line in found.steps)
    with zipfile.ZipFile(made.path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in files if name.startswith("receipts/"))
    assert step_of_forged(files, recipients={"globex": CASE_KEY.public}) == "receipts"
    assert step_of_forged(files, recipients={"acme": GLOBEX_KEY.public}) == "receipts"
    assert step_of_forged({n: d for n, d in files.items() if n != name}, recipients=known) == "receipts"
    assert step_of_forged(files | {"receipts/0x.json": data}) == "receipts"
    for change in ({"leaf": 0}, {"batch_root": "00" * 32}, {"recipient": "acme"}):
        other = sign_receipt(receipt_of(world, **change), GLOBEX_KEY, received=RECEIVED)
        assert step_of_forged(files | {name: other}, recipients=known) == "receipts"


def test_a_suspect_older_than_the_keys_accuses_nobody(stolen):
    decision = decide(stolen.case, stolen.examination, KeyHistory(NOW + timedelta(seconds=1)))
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.KEYS_TOO_LATE


def test_a_key_that_was_opened_before_accuses_nobody(world, stolen):
    leaf = world.release.commitment.index["globex"]
    before = decide(stolen.case, stolen.examination, replace(HISTORY, disclosed={leaf: NOW - timedelta(days=1)}))
    assert isinstance(before, Inconclusive)
    assert before.reason is Reason.KEY_DISCLOSED
    for harmless in ({leaf: NOW}, {leaf: NOW + timedelta(seconds=1)}, {leaf + 1: NOW - timedelta(days=1)}):
        assert decide(stolen.case, stolen.examination, replace(HISTORY, disclosed=harmless)) == stolen.decision


# --- what a dishonest packer could choose


def test_coordinates_that_suit_an_innocent_are_refused(world, files, honest, tmp_path):
    """Genuine features, shown only where they agree with the accused key: recompute.py could not find this out."""
    coordinates = np.frombuffer(files["features/coordinates.u64le"], "<u8")
    values = np.frombuffer(files["features/values.f32le"], "<f4")
    leaf = world.release.commitment.leaf_of("acme")
    x = verify.signature_values(stream_key(leaf.subkey, world.release.beacon, leaf.layout_digest), coordinates,
                                gaussian_table())  # fmt: skip
    product = x * values
    kept = product >= np.quantile(product, 0.1)
    assert (x[kept] @ values[kept]) / np.linalg.norm(values[kept]) > 15 > x @ values / np.linalg.norm(values) + 10
    chosen = {
        "features/coordinates.u64le": coordinates[kept].tobytes(), "features/values.f32le": values[kept].tobytes(),
        "commitment/batch.json": canonical_json(
            json.loads(files["commitment/batch.json"]) | {"accused": [honest.open("acme")]}
        ),
    }  # fmt: skip
    path = tmp_path / "pack.zip"
    path.write_bytes(b"".join(verify.container(sign_files(files | chosen))))
    with pytest.raises(PackInvalid) as caught:
        verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey)
    assert "are not those that batch and beacon choose" in caught.value.why


def test_a_part_of_the_coordinates_is_refused(honest, refused):
    refused(replace(honest, kept=SIZE // 2), "score", "are not those that batch and beacon choose")


def test_what_a_pack_shows_follows_from_batch_and_beacon():
    root, beacon = hashlib.sha256(b"root").digest(), hashlib.sha256(b"beacon").digest()
    small = shown_coordinates(root, beacon, 1 << 20)
    assert np.array_equal(small, np.arange(1 << 20))
    extent = (1 << 21) + 8 * 1001
    shown = shown_coordinates(root, beacon, extent)
    assert hashlib.sha256(shown.astype("<u8").tobytes()).hexdigest() == SHOWN
    groups = shown[::8] // 8
    assert len(shown) == 1 << 20
    assert np.array_equal(shown.reshape(-1, 8), groups[:, None] * 8 + np.arange(8))
    runs = np.arange((1 << 17) + 1) * (extent // 8) // (1 << 17)
    assert np.all((runs[:-1] <= groups) & (groups < runs[1:]))
    for other in ((beacon, beacon), (root, root)):
        assert not np.array_equal(shown_coordinates(*other, extent), shown)


def test_of_a_larger_model_a_pack_shows_the_drawn_part_or_all(world, stolen, tmp_path, monkeypatch):
    monkeypatch.setattr(primitives, "SHOWN_GROUPS", 256)
    shown = []
    for name in ("part", "all"):
        made = world.pack(stolen, tmp_path / f"{name}.zip")
        assert verify_pack(made.path, key=CASE_KEY.public, vkey=world.log.vkey).accused[0][0] == "globex"
        assert recompute_features(made.path, suspect=stolen.case.suspect_folder, original=world.release.original)
        with zipfile.ZipFile(made.path) as archive:
            shown.append(len(archive.read("features/values.f32le")) // 4)
        monkeypatch.setattr(primitives, "SHOWN_GROUPS", 1)  # on 8 coordinates nobody reaches the threshold
    assert shown == [256 * 8, SIZE]


def test_another_checkpoint_of_the_commitment_gives_no_other_keys(world, files, step_of_forged):
    """The same entry is in every later checkpoint, and a note takes lines that nobody signed."""
    name = "ledger/commitment.tlog-proof"
    note = files[name] + "\u2014 junk AAAA\n".encode()
    plan = json.loads(files["plan.json"])
    assert plan["release"]["beacon"] == beacons(note)[0].hex() == beacons(files[name])[0].hex()
    assert beacons(note)[1] != beacons(files[name])[1]
    later = world.log.ledger.reader().prove(TlogProof.parse(files[name]).index)
    assert step_of_forged(files | {name: later}) == "plan"


@pytest.mark.parametrize(
    ("pinned", "text"),
    [({"checkpoint": 1}, "not the one that was pinned"), ({"beacon": "00" * 32}, "is not of the checkpoint shown")],
)
def test_the_beacon_is_the_one_that_was_pinned_before_the_copies(world, refused, pinned, text):
    batch = batch_of(world).batch
    logged = world.log.propose({"batch_root": batch.root.hex()}, **pinned)
    refused(Claim(batch, logged), "plan", text, "it is about another beacon")


def test_a_beacon_pinned_by_another_act_is_refused(world, refused):
    first, second = batch_of(world), batch_of(world, root=MarkRoot(b"\1" * 32))
    refused(Claim(first.batch, (*first.logged[:2], second.logged[2])), "plan", "was not pinned by who committed",
            "not the one that was pinned", "is not of the checkpoint shown", "about another beacon")  # fmt: skip


def test_a_release_of_old_is_bound_to_the_whole_note(world, files, tmp_path):
    """Its copies are marked so, and the log pinned it before they were made."""
    batch = batch_of(world).batch
    claim = Claim(batch, world.log.propose({"batch_root": batch.root.hex()}, whole=True), whole=True)
    path = tmp_path / "old.zip"
    path.write_bytes(b"".join(verify.container(sign_files(claim.files(world, files)))))
    assert verify_pack(path, key=CASE_KEY.public, vkey=world.log.vkey).accused[0][0] == "globex"


def test_a_disclosed_decoy_spoils_no_later_case(world, tmp_path):
    """A thief who holds a pack adds one of its decoys' marks to the stolen copy."""
    release, opened = world.release, shown_decoys(world.release, utc(NOW))
    assert len(opened) == 64
    leaf = release.commitment.leaves[opened[0]]
    key = next(key for key in release.keys.copies if key.recipient == "globex")
    stream = stream_key(leaf.subkey, release.beacon, leaf.layout_digest)
    embed(release.original, tmp_path / "decoy", release.plan, replace(key, stream=stream))
    parts = [world.copy("globex"), tmp_path / "decoy", release.original]
    suspect = rewrite(tmp_path / "s", parts, lambda x: x[0] + 0.1 * (x[1] - x[2]))
    assert isinstance(world.examine(suspect).decision, Inconclusive)
    known = dict.fromkeys(opened, NOW - timedelta(days=1))
    examined = world.examine(suspect, release=replace(release, disclosed=known))
    assert [item.recipient for item in examined.decision.recipients] == ["globex"]
    few = {leaf: NOW - timedelta(days=1) for leaf in release.decoys[:30]}
    later = replace(release, disclosed=few)
    assert not set(shown_decoys(later, utc(NOW))) & set(few)
    assert set(shown_decoys(replace(release, disclosed=dict.fromkeys(opened, NOW)), utc(NOW))) == set(opened)


def test_another_base_is_refused(world, stolen, files, evidence, tmp_path):
    base = make_adapter(tmp_path / "base", 55)
    bound = replace(world.release, base=base, base_digest=directory_digest(base).root)
    plan = CasePlan.parse(files["plan.json"])
    with pytest.raises(PlanMismatch, match="another release"):
        plan.check(stolen.case, bound)
    with pytest.raises(PackInvalid) as caught:
        recompute_features(
            evidence.path, suspect=stolen.case.suspect_folder, original=world.release.original, base=base
        )
    assert "the base" in caught.value.why
    (base / "more.txt").write_text("x")
    with pytest.raises(InvalidInput, match="not the base model"):
        bound.check_original()


def test_the_verifier_says_what_it_cannot_read(evidence, world, key_file, tmp_path):
    for name in ("verify.py", "primitives.py"):
        shutil.copy(Path(verify.__file__).with_name(name), tmp_path)
    for missing in ("pack", "key", "recipient"):
        where = {"pack": evidence.path, "key": key_file, "recipient": key_file} | {missing: tmp_path / "absent"}
        options = ["--key", str(where["key"]), "--log", world.log.vkey, "--recipient", "acme", str(where["recipient"])]
        command = [sys.executable, "-I", str(tmp_path / "verify.py"), str(where["pack"]), *options]
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (run.returncode, run.stderr) == (5, "")
        assert run.stdout.startswith("NOT DONE    cannot read")
