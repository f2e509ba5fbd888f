"""A release of a tiny adapter to four recipients, a real log, and cases about suspects."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from stanch.crypto import SigningKey, VerifyKey, canonical_json
from stanch.ledger import Act, Ledger, LedgerParams, TlogProof, intent, noted, outcome
from stanch.mark import MarkRoot, RecipientSlot, commit, embed, mark_keys, plan_mark
from stanch.sign import Statement, Subject, sign_statement
from stanch.store import FileBlobs, open_tables
from stanch.terms import Digest, EntryRef
from stanch.trace import (
    Case,
    ErrorBudget,
    Examination,
    Intake,
    KeyHistory,
    LedgerProofs,
    PackForm,
    ReleaseRecord,
    VerifiedCasePlan,
    decide,
    examine,
    fix_plan,
    open_case,
    pack,
)
from stanch.trace.plan import beacons
from stanch.trace.verifier import verify
from stanch.weights import Tensor, open_adapter, write_safetensors

ORIGIN = "example.com/trace/log"
PRINCIPAL = "p_aaaqeayeaudaocajbifqydiob4"
NOW = datetime(2027, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HISTORY = KeyHistory(NOW)
RECIPIENTS = ("acme", "globex", "initech", "umbrella é")
DECOYS = 96
ROOT = MarkRoot(bytes(range(32)))
CASE_KEY = SigningKey.from_seed(bytes(range(40, 72)))
PLAIN = PackForm(CASE_KEY)
LOG_KEY = SigningKey.from_seed(bytes(range(32)))
ADAPTER_FILE = "adapter_model.safetensors"


def make_adapter(folder: Path, seed: int, *, modules: int = 14, rank: int = 8) -> Path:
    """Write a LoRA adapter of ``modules`` × 8 × (48 + 64) weights."""
    generator = np.random.default_rng(seed)
    tensors = []
    for number in range(modules):
        stem = f"base_model.model.model.layers.{number}.self_attn.q_proj"
        a = generator.uniform(-1, 1, size=(rank, 48)) / 7
        b = generator.normal(size=(64, rank)) * 0.01
        tensors.append(Tensor.from_float32(f"{stem}.lora_A.weight", a.astype(np.float32)))
        tensors.append(Tensor.from_float32(f"{stem}.lora_B.weight", b.astype(np.float32)))
    folder.mkdir(parents=True)
    write_safetensors(folder / ADAPTER_FILE, tensors, metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def rewrite(folder: Path, copies, rule) -> Path:
    """Write an adapter whose tensors are ``rule`` of a stack of the copies' tensors."""
    opened = [open_adapter(copy).tensors for copy in copies]
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes((copies[0] / "adapter_config.json").read_bytes())
    tensors = [
        Tensor.from_float32(name, rule(np.stack([one[name].to_float32() for one in opened])).astype(np.float32))
        for name in opened[0]
    ]
    write_safetensors(folder / ADAPTER_FILE, tensors, metadata={"format": "pt"})
    return folder


@dataclass
class Log:
    """A real log on disk; each entry is published at once."""

    ledger: Ledger
    count: int = 0

    @classmethod
    def create(cls, folder: Path) -> "Log":
        folder.mkdir()
        tables = open_tables("sqlite:stanch.db", base=folder, create=True)
        params = LedgerParams(highwater=folder / "highwater", checkpoint_seconds=0)
        ledger = Ledger.create(tables, FileBlobs(folder / "blobs"), origin=ORIGIN, signer=LOG_KEY, params=params)
        return cls(ledger)

    def append(self, kind: str, payload) -> tuple[EntryRef, bytes, bytes]:
        """Append and publish; return the reference, the entry and its proof."""
        self.count += 1
        act = Act(kind=kind, id=f"01900000-0000-7000-8000-{self.count:012x}", principal=PRINCIPAL)
        return self._append((intent if kind == "release.propose" else noted)(act, time_ms=self._now(), payload=payload))

    def propose(self, payload, *, whole=False, **pinned):
        """Commit to a batch and pin the beacon; return the commitment's entry, its proof, and the beacon's index."""
        _, entry, proof = self.append("release.propose", payload)
        act = Act(kind="release.propose", id=f"01900000-0000-7000-8000-{self.count:012x}", principal=PRINCIPAL)
        told = {"checkpoint": TlogProof.parse(proof).index + 1, "beacon": beacons(proof)[whole].hex()} | pinned
        ref, _, _ = self._append(outcome(act, time_ms=self._now(), payload=told))
        return entry, proof, ref.index

    def _now(self) -> int:
        return int(NOW.timestamp() * 1000) + self.count

    def _append(self, entry) -> tuple[EntryRef, bytes, bytes]:
        ref = self.ledger.append(entry)
        self.ledger.publish()
        reader = self.ledger.reader()
        return ref, reader.entry(ref.index), reader.prove(ref.index)

    def consistency(self, old: bytes, new: bytes) -> tuple[bytes, ...]:
        """Return the path between the checkpoints of two proofs."""
        sizes = (int(TlogProof.parse(proof).checkpoint.split(b"\n")[1]) for proof in (old, new))
        return tuple(self.ledger.reader().prove_consistency(*sizes))

    def pin(self, index: int, proof: bytes | None = None) -> tuple[bytes, bytes]:
        """Return the beacon's entry and its proof, under the checkpoint of another proof or the latest."""
        reader = self.ledger.reader()
        size = None if proof is None else int(TlogProof.parse(proof).checkpoint.split(b"\n")[1])
        return reader.entry(index), reader.prove(index, size)

    @property
    def vkey(self) -> str:
        return self.ledger.verifier.vkey


@dataclass(frozen=True)
class Examined:
    """A case that was examined, with everything that its pack needs."""

    case: Case
    examination: Examination
    proofs: LedgerProofs

    @property
    def decision(self):
        return decide(self.case, self.examination, HISTORY)


@dataclass
class World:
    """The release, its log, and copies made on demand."""

    folder: Path
    log: Log
    release: ReleaseRecord
    logged: tuple[bytes, bytes, int]
    cases: int = 0

    @classmethod
    def create(cls, folder: Path, make=make_adapter) -> "World":
        folder.mkdir()
        log = Log.create(folder / "log")
        original = make(folder / "original", 1)
        plan = plan_mark(original)
        batch = commit(plan, ROOT, [RecipientSlot(name) for name in RECIPIENTS], decoys=DECOYS)
        log.append("tune.run", {})
        logged = log.propose({"batch_root": batch.root.hex()})
        index, beacon = TlogProof.parse(logged[1]).index, beacons(logged[1])[0]
        release = ReleaseRecord(
            name="r1", original=original, base=None, plan=plan, commitment=batch,
            keys=mark_keys([(batch, beacon)], ROOT), beacon=beacon, checkpoint_size=index + 1,
            entry_index=index,
        )  # fmt: skip
        return cls(folder, log, release, logged)

    def copy(self, recipient: str) -> Path:
        out = self.folder / f"copy-{recipient}"
        if not out.exists():
            key = next(key for key in self.release.keys.copies if key.recipient == recipient)
            embed(self.release.original, out, self.release.plan, key)
        return out

    def open_case(self, suspect: Path, *, folder: Path | None = None, description: str = "a file on a share") -> Case:
        self.cases += 1
        intake = Intake(f"case-{self.cases:03}", description, NOW, "a customer", PRINCIPAL)
        return open_case(folder or self.folder / intake.case_id, suspect, intake, opened=NOW)

    def log_plan(self, plan) -> tuple[VerifiedCasePlan, LedgerProofs]:
        ref, entry, proof = self.log.append("trace.plan", {"plan": plan.digest.hex})
        return VerifiedCasePlan(plan, ref), self.prove_plan(entry, proof)

    def prove_plan(self, entry: bytes, proof: bytes) -> LedgerProofs:
        path = self.log.consistency(self.logged[1], proof)
        return LedgerProofs(*self.logged[:2], *self.log.pin(self.logged[2], proof), entry, proof, path, self.log.vkey)

    def examine(self, suspect: Path, *, release: ReleaseRecord | None = None, **options) -> Examined:
        release = release or self.release
        case = self.open_case(suspect, **options)
        plan, proofs = self.log_plan(fix_plan(case, release, epsilon="1e-9", budget=ErrorBudget()))
        examination = examine(case, plan, release, actor=PRINCIPAL, at=LATER, threads=1)
        return Examined(case, examination, proofs)

    def pack(self, examined: Examined, out: Path, *, form: PackForm = PLAIN, **changes):
        parts = {
            "case": examined.case, "decision": examined.decision, "examination": examined.examination,
            "release": self.release, "proofs": examined.proofs, "out": out, "form": form,
        } | changes  # fmt: skip
        return pack(**parts)


def public_key(folder: Path, key: VerifyKey = CASE_KEY.public) -> Path:
    path = folder / "case-key.pem"
    path.write_bytes(key.to_pem())
    return path


def sign_files(files, key=CASE_KEY):
    """Make the manifest of these files anew and sign it, as a dishonest owner of the case key could."""
    files = {name: data for name, data in files.items() if not name.startswith("manifest.")}
    listing = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    ]
    manifest = canonical_json({"format": verify.FORMAT, "files": listing})
    statement = Statement((Subject("manifest.json", Digest.sha256(manifest)),), verify.PREDICATE, {})
    return files | {"manifest.json": manifest, "manifest.dsse.json": sign_statement(statement, key).to_bytes()}
