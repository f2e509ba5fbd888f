"""Targets of the stages and of what combines them: data, tune, audit, watch, release, trace."""

import functools
import gzip
import io
import json
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
from fuzz_harness import Target, as_file, corpus, scratch, text_of

from stanch.audit.certificate_file import verify_certificate
from stanch.audit.codec import to_json
from stanch.audit.feature_file import PassOf, decode_features, encode_features
from stanch.audit.features import Features, ScorerIdentity
from stanch.audit.gate_policy import read_policy
from stanch.audit.leakcert import LEAKCERT_TYPE, LeakCert
from stanch.audit.params import Decoding
from stanch.audit.report import Report
from stanch.audit.score_table import parse_table
from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.hashes import sha256
from stanch.crypto.signing import SigningKey, VerifyKey
from stanch.data.chat import ChatTurn
from stanch.data.dataset import open_dataset
from stanch.data.manifest import DatasetManifest, RecordProof, build_manifest, prove_record, verify_record
from stanch.data.plan import Canary, CanaryPlan, coins
from stanch.data.provenance import provenance_path, read_steps
from stanch.data.readers import Csv, JsonLines, Paragraphs
from stanch.data.tokens import TokenRecord
from stanch.errors import InvalidInput, ProofInvalid, Tampered, VerificationError
from stanch.ledger.entry import Act, noted, outcome
from stanch.release.fingerprint import Fingerprint, take_fingerprint
from stanch.release.quorum import read_record
from stanch.release.redemption import check_approval
from stanch.release.request import ReleaseRequest
from stanch.release.revocations import REVOCATIONS_TYPE, Revocation, RevocationList
from stanch.sign.bundle import sign_statement
from stanch.sign.policy import TrustedKeys
from stanch.sign.statement import Statement, Subject
from stanch.terms import Digest
from stanch.trace.custody import Act as CaseAct
from stanch.trace.custody import Item, extend_custody, read_custody
from stanch.trace.plan import CasePlan, PlannedRelease
from stanch.trace.receipt import Receipt, sign_receipt, verify_receipt
from stanch.trace.text_keys import TextRoot
from stanch.trace.verifier import verify
from stanch.tune.journal import BudgetJournal, JournalHead, check_anchor, read_journal
from stanch.tune.plan import ParameterShape, PrivacyParams, PrivacyPlan
from stanch.tune.refusals import BudgetRolledBack
from stanch.tune.spec import TuneSpec
from stanch.tune.statement import ModelFile, PrivacyStatement, RunFacts, state_no_privacy, state_privacy
from stanch.tune.units import Unit, UnitTable
from stanch.watch.events import Closing, Window, read_entry
from stanch.weights.header import build_head

VECTORS = Path(__file__).parents[1] / "vectors"
KEY = bytes(range(32))
SIGNER = SigningKey.from_seed(KEY)
TRUSTED = TrustedKeys((SIGNER.public,))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
INPUT, WRONG = (InvalidInput,), (InvalidInput, VerificationError)


def _vector(name: str):
    return json.loads((VECTORS / f"{name}.json").read_text())


# data

CHAT = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b \xc3\xa9"}]}\n'
ROWS = CHAT + b'\n{"text":"x","n":1.5}\n'
TABLE = b'\xef\xbb\xbfid,text\r\n1,"a ""b"", c"\r\n2,"x\ny"\r\n3,plain\r\n'
PARAGRAPHS = b"first line\nsecond line\n\n\nthird\r\n"


def _rows(reader) -> object:
    rows = [(row.number, getattr(row, "values", None)) for row in reader.read()]
    parts = [(row.number, getattr(row, "values", None)) for part in reader.parts() for row in reader.read(part)]
    assert rows == parts, "read in parts, a file has other rows"
    return rows


def _read_dataset(data: bytes) -> object:
    return [record.id for record in open_dataset(as_file(data, "set.jsonl"), key=KEY)]


def _dataset(name: str = "train.jsonl"):
    rows = [{"text": f"row {number}", "n": number} for number in range(5)]
    return open_dataset(as_file(b"".join(orjson.dumps(row) + b"\n" for row in rows), name, folder="data"), key=KEY)


@functools.cache
def _manifest() -> DatasetManifest:
    return build_manifest(_dataset(), key=KEY, now=lambda: NOW)


def _make_record_proofs() -> Iterable[bytes]:
    dataset = _dataset()
    for record in list(dataset)[1:3]:
        yield prove_record(dataset, _manifest(), record.id, key=KEY).to_json()


def _check_record(data: bytes) -> object:
    return verify_record(
        RecordProof.from_json(data), Digest("sha256", bytes.fromhex(_manifest().root)), count=_manifest().count
    )


def _steps() -> bytes:
    digest = sha256(_dataset("made.jsonl").path.read_bytes()).hex()
    step = {"operation": "redact", "parameters": {"pack": "a", "policy": "b"}, "parent": "sha256:" + "0" * 64}
    return json.dumps({"schema": "stanch/dataset-provenance/v1", "sha256": digest, "steps": [step]}).encode()


def _read_steps(data: bytes) -> object:
    dataset = _dataset("made.jsonl")
    as_file(data, provenance_path(dataset.path).name, folder="data")
    return read_steps(dataset)


def _plan() -> CanaryPlan:
    canaries = tuple(
        Canary(
            f"c{n}",
            "secret",
            (ChatTurn("user", f"q {n}"), ChatTurn("assistant", f"a #10002{n}")),
            f"10002{n}",
            1,
            "x1",
            member,
        )
        for n, member in enumerate(coins(KEY, 3))
    )
    return CanaryPlan(
        canaries, KEY, "0123456789", "00" * 32, "sha256:" + "11" * 32, "", {"alpha": 0.05, "scorers": ["ratio/1"]}
    )


# tune

SPEC = b"""[base]
path = "base"
[data]
uri = "train.jsonl"
[method]
rank = 2
alpha = 4
layers = [1]
[privacy]
epsilon = 1.0
[train]
steps = 4
batch = 8
dtype = "float32"
"""


@functools.cache
def _privacy_plan() -> PrivacyPlan:
    units = UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"{n}",)) for n in range(60)))
    return PrivacyPlan.make(units, [ParameterShape("a", (2,))], PrivacyParams(epsilon=1.0, steps=4, expected_batch=8))


def _read_privacy_plan() -> PrivacyPlan:
    return PrivacyPlan.from_json(corpus("privacy-plan")[0])


def _make_journal() -> Iterable[bytes]:
    path = as_file(b"", "budget.jsonl", folder="journal")
    path.unlink()
    with BudgetJournal.create(path, _read_privacy_plan(), clock=lambda: NOW) as journal:
        for step in range(3):
            journal.charge(step)
        journal.close(3)
    yield path.read_bytes()


def _read_journal(data: bytes) -> object:
    reading = read_journal(data, _read_privacy_plan())
    check_anchor(reading, read_journal(corpus("journal")[0], _read_privacy_plan()).head)
    return reading.lines


def _make_statements() -> Iterable[bytes]:
    facts = RunFacts(
        files=(ModelFile("a", 3, "00" * 32),), base_digest="", dataset_root="00", updates=3, dtype="float32",
        device="cpu", versions={"stanch": "1"},
    )  # fmt: skip
    yield state_no_privacy(facts).to_json()
    yield state_privacy(
        _read_privacy_plan(), read_journal(corpus("journal")[0], _read_privacy_plan()).head, facts
    ).to_json()


# audit

SCORES = "score,member,id\n" + "".join(f"{n / 7:.6f},{n % 2},r{n}\n" for n in range(40))


def _make_report() -> Iterable[bytes]:
    sys.path[:0] = [str(VECTORS.parent), str(VECTORS.parent / "workspace")]
    import life  # noqa: PLC0415 - the neighbour's maker of reports, which only making seeds needs

    shutil.rmtree(scratch() / "base", ignore_errors=True)
    life.make_base(scratch() / "base")
    yield life.make_result(scratch() / "base").report.to_bytes()


def _predicate() -> dict:
    return _vector("audit/leakcert")["valid"]


def _make_certificate() -> Iterable[bytes]:
    subject = Subject("model", Digest.sha256(b"model"))
    yield sign_statement(Statement((subject,), LEAKCERT_TYPE, _predicate()), SIGNER).to_bytes()


def _read_predicate(data: bytes) -> object:
    value = parse_json(data, what="predicate")
    if not isinstance(value, dict):
        raise InvalidInput("not an object")
    cert = LeakCert.parse(value)
    return cert.issued_at, cert.evidence(), to_json(cert)


RECORDS = (TokenRecord("a", (1, 2, 3, 4), (1, 4)), TokenRecord("b", (5, 6), (1, 2)))
PASS = PassOf(ScorerIdentity("m", (), "a", "b", "t", "float32", "torch"), "on", Decoding())


def _features(record: TokenRecord) -> Features:
    size = record.span[1] - record.span[0]
    numbers = np.arange(size, dtype=np.float32)
    return Features(record.id, record.span[0], numbers, numbers, numbers, numbers > 0, numbers)


def _read_features(data: bytes) -> object:
    return [(f.record_id, f.lp.tolist(), f.hit.tolist()) for f in decode_features(data, PASS, RECORDS, what="features")]


# watch


def _make_events() -> Iterable[bytes]:
    import base64  # noqa: PLC0415 - for this alone

    act = {"id": "019b76da-a800-7000-8000-000000000000", "principal": "p_aaaqeayeaudaocajbifqydiob4"}
    used = {"verdict": "allow", "findings": {"canary": 1}, "released": 12, "prompt_tokens": 3}
    yield outcome(Act(kind="gateway.infer", **act), time_ms=1_767_225_600_000, payload=used).encode("example.com/log")
    mean = base64.b64encode(np.zeros(256, "<f4").tobytes()).decode()
    seen = {"principal": "p_a", "model": "sha256:00", "count": 3, "mean": mean}
    yield noted(Act(kind="gateway.window", **act), time_ms=1_767_225_600_000, payload=seen).encode("example.com/log")


def _read_event(data: bytes) -> object:
    event = read_entry(7, data)
    if isinstance(event.detail, Window):
        event.detail.vector()
    assert not isinstance(event.detail, Closing) or isinstance(event.detail.alert, str)
    return event


# release


def _fingerprint() -> bytes:
    head = build_head([("a", "U8", (4096,))])
    body = np.random.default_rng(1).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    return take_fingerprint([("m.safetensors", len(head.head) + 4096, [head.head, body])]).to_bytes()


def _revocations() -> RevocationList:
    return RevocationList(2, (Revocation("00" * 32, "x25519:" + "0" * 32, "left the company", "2026-06-01T00:00:00Z"),))


def _read_revocations(data: bytes) -> object:
    """Read a list that a publisher signed, whatever it says."""
    predicate = parse_json(data, what="list")
    if not isinstance(predicate, dict):
        raise InvalidInput("not an object")
    subject = Subject("revocations", Digest.sha256(canonical_json(predicate)))
    return RevocationList.verify(
        sign_statement(Statement((subject,), REVOCATIONS_TYPE, predicate), SIGNER).to_bytes(), TRUSTED
    )


def _make_lists() -> Iterable[bytes]:
    entry = {"at": "2026-06-01T00:00:00Z", "bundle_id": "00" * 32, "key_id": "k", "reason": "r"}
    yield canonical_json({"entries": [entry], "number": 2})


@functools.cache
def _quorum():
    vector = _vector("release/quorum")
    return TrustedKeys((VerifyKey.from_pem(vector["publisher"]),)), vector


def _read_quorum(data: bytes) -> object:
    return read_record(data, _quorum()[0])


def _read_approval(data: bytes) -> object:
    trusted, vector = _quorum()
    return check_approval(read_record(vector["record"].encode(), trusted), data)


def _request() -> bytes:
    return canonical_json(_vector_request())


def _vector_request() -> dict:
    trusted, vector = _quorum()
    return json.loads(read_record(vector["record"].encode(), trusted).request.release.to_bytes())


# trace


def _case_plan() -> bytes:
    from stanch.mark.detection import ScorePlan  # noqa: PLC0415 - for making seeds alone

    default = ScorePlan.default("full", 12, epsilon=1e-9)
    scores = ScorePlan(default.variants, default.n, views=verify.VIEWS)
    release = PlannedRelease(
        "r1", "sha256:" + "00" * 32, None, "full", 1, "11" * 32, 3, "55" * 32, 4, 100_008, 100_000, 0.003
    )
    return CasePlan(
        "case-1", "22" * 32, "33" * 32, "sha256:" + "44" * 32, release, scores.n, scores.variants, scores.rounds,
        scores.analyses, "1e-9", scores.threshold,
    ).to_bytes()  # fmt: skip


RECEIPT = Receipt("ab" * 32, 3, Digest.sha256(b"bundle"), "acme")


def _make_custody() -> Iterable[bytes]:
    path = as_file(b"", "custody.jsonl", folder="case")
    path.unlink()
    item = Item("m.safetensors", 12, "00" * 32)
    for number, action in enumerate(("acquired", "examined", "exported")):
        extend_custody(path, "case-1", CaseAct("p_a", action, NOW, f"note {number} é"), [item])
    yield path.read_bytes()


def _read_custody(data: bytes) -> object:
    """Read a chain whose head a plan in the log pins."""
    found = read_custody(as_file(data, "custody.jsonl", folder="case"), "case-1")
    pinned = read_custody(as_file(corpus("custody")[0], "custody.jsonl", folder="case"), "case-1")
    if found.head != pinned.head:
        raise VerificationError("another head than the pinned one")
    return found.lines


def _make_pack() -> Iterable[bytes]:
    files = {"plan.json": _case_plan(), "case.json": b"{}"}
    listing = canonical_json(
        {
            "format": verify.FORMAT,
            "files": [
                {"path": name, "size": len(data), "sha256": sha256(data).hex()} for name, data in sorted(files.items())
            ],
        }
    )
    statement = Statement((Subject("manifest.json", Digest.sha256(listing)),), verify.PREDICATE, {})
    yield b"".join(
        verify.container(
            files | {"manifest.json": listing, "manifest.dsse.json": sign_statement(statement, SIGNER).to_bytes()}
        )
    )


def _open_pack(data: bytes) -> object:
    try:
        with verify.step("pack"):
            return verify.open_pack(as_file(data, "pack.zip"), SIGNER.public.to_pem().decode())
    except verify.Failed as error:
        raise VerificationError(str(error)) from error


def _make_text_root() -> Iterable[bytes]:
    path = as_file(b"", "made.root")
    path.unlink()
    TextRoot(KEY).save(path)
    yield path.read_bytes()


TARGETS = (
    Target(name="jsonl", parser="stanch.data.readers.JsonLines", reads="rows as JSON lines", kind="plain",
           refuses=INPUT, run=lambda data: _rows(JsonLines(as_file(data, "r.jsonl"))), make=lambda: [ROWS]),
    Target(name="jsonl-gzip", parser="stanch.data.readers.JsonLines", reads="rows as JSON lines in gzip", kind="plain",
           refuses=INPUT, run=lambda data: _rows(JsonLines(as_file(data, "r.jsonl.gz"))),
           make=lambda: [gzip.compress(ROWS * 20, mtime=0)]),
    Target(name="csv", parser="stanch.data.readers.Csv", reads="rows as a table", kind="plain", refuses=INPUT,
           run=lambda data: _rows(Csv(as_file(data, "r.csv"), separator=",")), make=lambda: [TABLE]),
    Target(name="paragraphs", parser="stanch.data.readers.Paragraphs", reads="rows as plain text", kind="plain",
           refuses=INPUT, run=lambda data: _rows(Paragraphs(as_file(data, "r.txt"))), make=lambda: [PARAGRAPHS]),
    Target(name="dataset", parser="stanch.data.dataset.open_dataset", reads="a data set of conversations", kind="plain",
           run=_read_dataset, refuses=INPUT, make=lambda: [CHAT + CHAT.replace(b'"a"', b'"c"')]),
    Target(name="dataset-manifest", parser="stanch.data.manifest.DatasetManifest.from_json",
           reads="a data set's manifest", kind="plain", run=DatasetManifest.from_json, refuses=INPUT,
           make=lambda: [_manifest().to_json()]),
    Target(name="record-proof", parser="stanch.data.manifest.verify_record", reads="the proof of one row",
           kind="authentic", run=_check_record, refuses=(InvalidInput, ProofInvalid), make=_make_record_proofs),
    Target(name="dataset-steps", parser="stanch.data.provenance.read_steps", reads="how a data set was made",
           kind="plain", run=_read_steps, refuses=(InvalidInput, Tampered), make=lambda: [_steps()]),
    Target(name="canary-plan", parser="stanch.data.plan.CanaryPlan.from_json", reads="a canary plan", kind="authentic",
           run=lambda data: CanaryPlan.from_json(data).canaries, refuses=WRONG, make=lambda: [_plan().to_json()]),
    Target(name="tune-spec", parser="stanch.tune.spec.TuneSpec.from_toml", reads="a tuning run", kind="plain",
           run=TuneSpec.from_toml, refuses=INPUT, make=lambda: [SPEC]),
    Target(name="privacy-plan", parser="stanch.tune.plan.PrivacyPlan.from_json", reads="a privacy plan",
           kind="canonical", run=PrivacyPlan.from_json, rewrite=lambda p: p.to_json(), refuses=INPUT,
           make=lambda: [_privacy_plan().to_json()]),
    Target(name="journal", parser="stanch.tune.journal.read_journal", reads="a budget journal whose head is known",
           kind="authentic", run=_read_journal, refuses=(Tampered, BudgetRolledBack), make=_make_journal),
    Target(name="journal-head", parser="stanch.tune.journal.JournalHead.parse", reads="a journal's head", kind="plain",
           refuses=INPUT, run=lambda data: JournalHead.parse(text_of(data)),
           make=lambda: [str(JournalHead(5, "0" * 64, 3)).encode()]),
    Target(name="privacy-statement", parser="stanch.tune.statement.PrivacyStatement.from_json",
           reads="a privacy statement", kind="canonical", run=PrivacyStatement.from_json, rewrite=lambda s: s.to_json(),
           refuses=WRONG, make=_make_statements),
    Target(name="gate-policy", parser="stanch.audit.gate_policy.read_policy", reads="the gate's policy", kind="plain",
           refuses=INPUT, run=lambda data: read_policy(as_file(data, "stanch.toml")),
           make=lambda: [b'[gate]\nrelease_context = "partner"\nmax_auc = 0.6\n']),
    Target(name="report", parser="stanch.audit.report.Report.parse", reads="an audit's report", kind="canonical",
           run=Report.parse, rewrite=lambda r: r.to_bytes(), refuses=INPUT, make=_make_report),
    Target(name="leakcert", parser="stanch.audit.leakcert.LeakCert.parse", reads="the predicate of a leak certificate",
           kind="plain", run=_read_predicate, refuses=WRONG, make=lambda: [canonical_json(_predicate())]),
    Target(name="certificate-file", parser="stanch.audit.certificate_file.verify_certificate",
           reads="a signed leak certificate", kind="authentic",
           run=lambda data: verify_certificate(data, TRUSTED, what="cert").statement, refuses=WRONG,
           make=_make_certificate),
    Target(name="features", parser="stanch.audit.feature_file.decode_features", reads="the features of a shard",
           kind="plain", run=_read_features, refuses=INPUT,
           make=lambda: [encode_features(PASS, RECORDS, [_features(r) for r in RECORDS])]),
    Target(name="scores", parser="stanch.audit.score_table.parse_table", reads="a table of scores", kind="plain",
           refuses=INPUT,
           run=lambda data: parse_table(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), what="s").digest,
           make=lambda: [SCORES.encode(), parse_table(io.StringIO(SCORES), what="s").to_csv()]),
    Target(name="watched-entry", parser="stanch.watch.events.read_entry", reads="a log entry that a detector reads",
           kind="plain", run=_read_event, refuses=INPUT, make=_make_events),
    Target(name="fingerprint", parser="stanch.release.fingerprint.Fingerprint.parse", reads="a fingerprint of weights",
           kind="canonical", run=Fingerprint.parse, rewrite=lambda f: f.to_bytes(), refuses=INPUT,
           make=lambda: [_fingerprint()]),
    Target(name="revocations", parser="stanch.release.revocations.RevocationList.verify",
           reads="a signed list of revocations", kind="authentic",
           run=lambda data: RevocationList.verify(data, TRUSTED), refuses=WRONG,
           make=lambda: [_revocations().sign(SIGNER)]),
    Target(name="revocations-signed", parser="stanch.release.revocations.RevocationList.verify",
           reads="a list by a trusted publisher", kind="plain", run=_read_revocations, refuses=WRONG, make=_make_lists),
    Target(name="quorum-record", parser="stanch.release.quorum.read_record", reads="a quorum's record",
           kind="authentic", run=_read_quorum, refuses=WRONG, make=lambda: [_quorum()[1]["record"].encode()]),
    Target(name="share-approval", parser="stanch.release.redemption.check_approval",
           reads="the approval that releases a share", kind="authentic", run=_read_approval, refuses=WRONG,
           make=lambda: [text.encode() for text in _quorum()[1]["approvals"]]),
    Target(name="release-request", parser="stanch.release.request.ReleaseRequest.parse",
           reads="the request for a release", kind="plain", run=ReleaseRequest.parse, refuses=INPUT,
           make=lambda: [_request()]),
    Target(name="case-plan", parser="stanch.trace.plan.CasePlan.parse", reads="the plan of a case", kind="canonical",
           run=CasePlan.parse, rewrite=lambda p: p.to_bytes(), refuses=INPUT, make=lambda: [_case_plan()]),
    Target(name="receipt", parser="stanch.trace.receipt.verify_receipt", reads="a recipient's receipt",
           kind="authentic", run=lambda data: verify_receipt(data, SIGNER.public, RECEIPT), refuses=WRONG,
           make=lambda: [sign_receipt(RECEIPT, SIGNER, received=NOW)]),
    Target(name="custody", parser="stanch.trace.custody.read_custody", reads="a chain of custody whose head is known",
           kind="authentic", run=_read_custody, refuses=(VerificationError,), make=_make_custody),
    Target(name="evidence-pack", parser="stanch.trace.verifier.verify.open_pack", reads="an evidence pack",
           kind="authentic", run=_open_pack, refuses=(VerificationError,), make=_make_pack),
    Target(name="text-root", parser="stanch.trace.text_keys.TextRoot.load", reads="the root of text watermarks",
           kind="plain", run=lambda data: TextRoot.load(as_file(data, "text.root")).secret, refuses=INPUT,
           make=_make_text_root),
)  # fmt: skip
