"""Evidence packs: one zip file from which another expert re-computes an accusation with Python and numpy alone.

The format is in ``docs/spec/evidence-pack.md``; ``verifier/verify.py`` travels inside each pack and reads it.
"""

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from stanch.crypto import SigningKey, VerifyKey, canonical_json, sync_folder
from stanch.crypto.stanza import KeyProvider
from stanch.errors import Inconclusive, InvalidInput, VerificationError
from stanch.mark import Originals, Variant, extract, log10_bound, open_suspect
from stanch.mark.bounds import decided
from stanch.seal import MemorySource, SealParams, seal
from stanch.sign import Statement, Subject, sign_manifest, sign_statement
from stanch.terms import Digest, JsonValue
from stanch.trace.case import Case
from stanch.trace.decision import Accused, Decision, decision_to_json
from stanch.trace.examination import Examination
from stanch.trace.plan import CasePlan, ReleaseRecord, beacons
from stanch.trace.report import ReportFacts, write_report
from stanch.trace.report_blocks import Report
from stanch.trace.report_html import render_html
from stanch.trace.report_pdf import render_pdf
from stanch.trace.stratum import ShownScores, show_scores, shown_decoys
from stanch.trace.verifier import models, recompute, verify
from stanch.trace.verifier.primitives import Failed

FORMAT = verify.FORMAT
PREDICATE = verify.PREDICATE
BINS = 40
PACK_NAME = "evidence.zip"
"""What the pack is called in a sealed bundle."""
PROGRAM = (
    "verify.py", "primitives.py", "recompute.py", "features.py", "models.py", "packed.py", "gguf_files.py",
    "alignment.py", "families.py", "README.txt",
)  # fmt: skip


class PackInvalid(VerificationError):
    """An evidence pack does not verify.

    Attributes:
        step: The first step that does not hold.
    """

    def __init__(self, path: Path, step: str, why: str) -> None:
        super().__init__(f"{path}: does not verify at step '{step}'", why=why)
        self.step = step


@dataclass(frozen=True, slots=True)
class LedgerProofs:
    """The log entries that a pack rests on, each with its tlog-proof, and the log's public key.

    ``beacon_entry`` is the outcome of the act that committed; ``beacon_proof`` is under the checkpoint of
    ``plan_proof``. ``consistency`` is the RFC 9162 path from the checkpoint in ``commitment_proof`` to that one.
    """

    commitment_entry: bytes
    commitment_proof: bytes
    beacon_entry: bytes
    beacon_proof: bytes
    plan_entry: bytes
    plan_proof: bytes
    consistency: tuple[bytes, ...]
    vkey: str


@dataclass(frozen=True, slots=True)
class EvidencePack:
    """A pack that was written: where, its digest, and the names of its files."""

    path: Path
    digest: Digest
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedPack:
    """A pack that holds; only :func:`verify_pack` makes one.

    Attributes:
        path: The file.
        plan: The plan: case, suspect, release, and what the bound counts.
        accused: Each accused recipient with its z on the coordinates in the pack.
        steps: What each step found, in words.
    """

    path: Path
    plan: CasePlan
    accused: tuple[tuple[str, float], ...]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackForm:
    """How a pack is written.

    Attributes:
        signer: The case key, Ed25519.
        pdf: Put the report in as ``report.pdf`` too.
        recipients: Who can open it. Then a sealed bundle is written that holds the pack as ``evidence.zip``, and
            the pack itself touches no disk in plain. Nobody: the pack is written, mode 0600.
        number: Of the sealed bundle; a later pack of the case has a higher one.
    """

    signer: SigningKey
    pdf: bool = False
    recipients: tuple[KeyProvider, ...] = ()
    number: int = 1


def pack(  # noqa: PLR0917 - the five things that a pack is made of, in the order of a case
    case: Case,
    decision: Decision,
    examination: Examination,
    release: ReleaseRecord,
    proofs: LedgerProofs,
    out: Path,
    form: PackForm,
) -> EvidencePack:
    """Write the evidence for an accusation to ``out``, after it verified. Equal input gives equal bytes.

    The pack opens the leaves of the accused and of some decoys: whoever holds it can add or remove those marks. A
    sealed one is signed with the case key; its lineage is ``evidence/`` and the case, its number that of ``form``.

    Raises:
        InvalidInput: Nobody is accused, ``out`` exists, the key is not Ed25519, or the proof is of another commitment.
        Inconclusive: An accused does not reach τ on the features that a pack can show.
        MissingExtraError: A PDF is wanted, and the extra ``pdf`` is missing.
        PackInvalid: The parts do not belong together; the step that fails is named.
        CustodyBroken: Chain or suspect were changed.
    """
    accused = _need_accused(case, decision)
    if form.signer.kind != "ed25519":
        raise InvalidInput(f"the case key must be an Ed25519 key, found {form.signer.kind}")
    if out.exists():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another file name")
    if release.beacon not in beacons(proofs.commitment_proof):
        raise InvalidInput(
            f"release {release.name}: the commitment's proof holds another checkpoint than the beacon's",
            next_step="give the tlog-proof that was written when the release was proposed",
        )
    shown, report = _show(case, accused, examination, release)
    files = _gather(case, accused, examination, release, proofs) | shown
    files["report.html"] = render_html(report).encode()
    if form.pdf:
        files["report.pdf"] = render_pdf(report)
    manifest: JsonValue = {
        "format": FORMAT,
        "files": [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        ],
    }
    listing = canonical_json(manifest)
    summary = decision_to_json(accused, examination)
    predicate: dict[str, JsonValue] = {name: summary[name] for name in ("case", "suspect", "release", "verdict")}
    statement = Statement((Subject("manifest.json", Digest.sha256(listing)),), PREDICATE, predicate)
    files |= {"manifest.json": listing, "manifest.dsse.json": sign_statement(statement, form.signer).to_bytes()}
    with _verified(out, files, form.signer.public, proofs.vkey) as file:
        digest = Digest("sha256", hashlib.file_digest(file, "sha256").digest())
        file.seek(0)
        if form.recipients:
            _seal(case, file.read(), out, form)
        else:
            _write(file, out)
    return EvidencePack(out, digest, tuple(sorted(files)))


def verify_pack(
    path: Path, *, key: VerifyKey, vkey: str, recipients: Mapping[str, VerifyKey] = MappingProxyType({})
) -> VerifiedPack:
    """Run every step of the stand-alone verifier over a pack.

    Args:
        path: The zip file.
        key: Public half of the case key, from a source other than the pack.
        vkey: The log's public key, ``name+hash+base64``.
        recipients: Public keys of recipients whose receipts must be in the pack and hold.

    Raises:
        PackInvalid: A step does not hold; the first is named.
    """
    steps: list[str] = []
    try:
        keys = {name: public.to_pem().decode() for name, public in recipients.items()}
        plan, accused = verify.verify(path, key.to_pem().decode(), vkey, steps.append, keys)
    except Failed as error:
        raise PackInvalid(path, error.step, str(error)) from error
    try:
        parsed = CasePlan.parse(canonical_json(plan))
    except InvalidInput as error:
        raise PackInvalid(path, "plan", error.what) from error
    return VerifiedPack(
        path=path,
        plan=parsed,
        accused=tuple(accused.items()),
        steps=tuple(steps),
    )


def recompute_features(path: Path, *, suspect: Path, original: Path, base: Path | None = None) -> tuple[str, ...]:
    """Compute the features of a verified pack again from suspect and original; return what was found, in words.

    What the stand-alone program does not compute, stanch's own does, and the last of the words say so.

    Raises:
        PackInvalid: Suspect or original are others than the pack's, or the features are not what they give.
        Inconclusive: The base model is needed.
        MissingExtraError: The suspect is a GGUF file, and the extra ``gguf`` is missing.
    """
    steps: list[str] = []
    try:
        recompute.recompute(path, suspect, original, steps.append, base)
    except models.Failed as error:
        raise PackInvalid(path, "features", str(error)) from error
    except models.BaseMissing as error:
        raise Inconclusive(f"{path}: its features are not computed again", why=str(error)) from error
    except models.OtherVariant as error:
        steps.append(_extract_again(path, Originals(original, base), suspect, str(error)))
    except models.MALFORMED as error:
        raise PackInvalid(path, "features", f"malformed: {type(error).__name__}") from error
    return tuple(steps)


def _extract_again(path: Path, originals: Originals, suspect: Path, why: str) -> str:
    """Compare the features of a pack, whose folders were checked, with those that stanch makes."""
    shown = recompute.read_shown(path)
    features = extract(originals, open_suspect(suspect), Variant(shown.variant), alpha=shown.alpha)
    try:
        found = shown.compare(features.values[shown.coordinates])
    except models.Failed as error:
        raise PackInvalid(path, "features", str(error)) from error
    return f"features    ok  {found}; made by stanch, since recompute.py does not: {why}"


def report_case(case: Case, decision: Decision, examination: Examination, release: ReleaseRecord) -> Report:
    """Return the report of an accusation; no key stands in it.

    Raises:
        InvalidInput: Nobody is accused, or the parts do not belong together.
        Inconclusive: An accused does not reach τ on the features that a pack can show.
        CustodyBroken: Chain or suspect were changed.
    """
    return _show(case, _need_accused(case, decision), examination, release)[1]


def _need_accused(case: Case, decision: Decision) -> Accused:
    if not isinstance(decision, Accused):
        raise InvalidInput(
            f"case {case.id}: nobody is accused, so there is nothing to prove",
            why=f"the decision is {decision.verdict}",
        )
    return decision


def _show(
    case: Case, decision: Accused, examination: Examination, release: ReleaseRecord
) -> tuple[dict[str, bytes], Report]:
    """Return the pack's features and scores, made anew from the suspect, and the report about them."""
    case.check_suspect()
    plan = examination.plan.plan
    plan.check(case, release)
    release.check_original()
    shown = _show_best(case, decision, examination, release)
    scores = _scores_json(decision, examination, shown)
    facts = ReportFacts(case, case.custody(), decision, examination, release.name, scores)
    files = {
        "scores/scores.json": canonical_json(scores),
        "features/coordinates.u64le": shown.coordinates.astype("<u8").tobytes(),
        "features/values.f32le": shown.values.astype("<f4").tobytes(),
    }
    return files, write_report(facts)


def _gather(
    case: Case, decision: Accused, examination: Examination, release: ReleaseRecord, proofs: LedgerProofs
) -> dict[str, bytes]:
    """Return every file of the pack but features, scores and report, the manifest and its signature."""
    plan = examination.plan.plan
    leaves = b"".join(release.commitment.hashes)
    program = resources.files("stanch.trace.verifier")
    return {
        "case.json": case.file.read_bytes(),
        "plan.json": plan.to_bytes(),
        "custody.jsonl": case.custody_file.read_bytes(),
        "commitment/batch.json": canonical_json(_batch_json(case, decision, release)),
        "commitment/leaves.bin": leaves,
        "ledger/commitment.json": proofs.commitment_entry,
        "ledger/commitment.tlog-proof": proofs.commitment_proof,
        "ledger/beacon.json": proofs.beacon_entry,
        "ledger/beacon.tlog-proof": proofs.beacon_proof,
        "ledger/plan.json": proofs.plan_entry,
        "ledger/plan.tlog-proof": proofs.plan_proof,
        "ledger/consistency.json": canonical_json([node.hex() for node in proofs.consistency]),
        **{f"verifier/{name}": program.joinpath(name).read_bytes() for name in PROGRAM},
        "verifier/gaussian.bin": resources.files("stanch.mark").joinpath("gaussian.bin").read_bytes(),
        **{
            f"receipts/{item.leaf}.dsse.json": release.receipts[item.recipient]
            for item in decision.recipients
            if item.recipient in release.receipts
        },
    }


def _show_best(case: Case, decision: Accused, examination: Examination, release: ReleaseRecord) -> ShownScores:
    """Show the variant in which the weakest of the accused scores highest, of those that recompute.py computes.

    Where that carries no accusation, that of all: an opposing expert then needs stanch to compute the features.
    """
    plan, names = examination.plan.plan, {item.recipient for item in decision.recipients}
    scores = [score for score in examination.detection.accused if score.recipient in names]
    least = {variant: min(score.z[variant] for score in scores) for variant in plan.variants}
    repeatable = [v for v in plan.variants if v in recompute.VARIANTS[release.plan.kind] and least[v] >= plan.threshold]
    if repeatable:
        with suppress(Inconclusive):
            return show_scores(release, case, plan, decision.recipients, max(repeatable, key=least.__getitem__))
    return show_scores(release, case, plan, decision.recipients, max(plan.variants, key=least.__getitem__))


def _batch_json(case: Case, decision: Accused, release: ReleaseRecord) -> JsonValue:
    """Open the leaves of the accused and of some decoys; all others stay hidden."""
    leaves = release.commitment.leaves

    def opened(numbers: Sequence[int]) -> list[JsonValue]:
        return [
            {
                "leaf": number,
                "recipient": leaves[number].recipient,
                "salt": leaves[number].salt.hex(),
                "subkey": leaves[number].subkey.hex(),
            }
            for number in numbers
        ]

    return {
        "batch": release.commitment.batch,
        "alpha": release.plan.alpha.hex(),
        "layout_digest": release.plan.layout.digest.hex(),
        "original": release.plan.original.hex,
        "accused": opened([item.leaf for item in decision.recipients]),
        "decoys": opened(shown_decoys(release, case.custody().acquired)),
    }


def _scores_json(decision: Accused, examination: Examination, shown: ShownScores) -> dict[str, JsonValue]:
    plan = examination.plan.plan
    counts, edges = np.histogram(shown.decoys, bins=BINS)
    return {
        "variant": str(shown.variant),
        "coordinates": len(shown.coordinates),
        "accused": [
            {
                "recipient": item.recipient,
                "leaf": item.leaf,
                "z": z,
                "log10_p": log10_bound(decided(z), plan.n, plan.analyses),
            }
            for item, z in zip(decision.recipients, shown.accused, strict=True)
        ],
        "decoys": {
            "count": len(shown.decoys),
            "mean": float(shown.decoys.mean()),
            "deviation": float(shown.decoys.std()),
            "highest": float(shown.decoys.max()),
            "edges": [float(edge) for edge in edges],
            "counts": [int(count) for count in counts],
        },
        "examination": decision_to_json(decision, examination),
    }


@contextmanager
def _verified(out: Path, files: dict[str, bytes], key: VerifyKey, vkey: str) -> Iterator[io.BufferedRandom]:
    """Make the zip in memory, verify it as any examiner would, and yield it."""
    with os.fdopen(os.memfd_create(PACK_NAME), "w+b") as file:
        file.writelines(verify.container(files))
        file.flush()
        try:
            verify_pack(Path(f"/proc/self/fd/{file.fileno()}"), key=key, vkey=vkey)
        except PackInvalid as error:
            raise PackInvalid(out, error.step, error.why) from error
        file.seek(0)
        yield file


def _write(pack: BinaryIO, out: Path) -> None:
    """Write the zip beside ``out``, and give it its name when it is durable."""
    partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(pack, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(out.parent)


def _seal(case: Case, pack: bytes, out: Path, form: PackForm) -> None:
    """Seal the zip to its recipients."""
    params = SealParams(kind="other", lineage=f"evidence/{case.id}", release_number=form.number)
    source = MemorySource({PACK_NAME: pack})
    seal(source, out, form.recipients, params, lambda manifest: sign_manifest(manifest, form.signer).to_bytes())
