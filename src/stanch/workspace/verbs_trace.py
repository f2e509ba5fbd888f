"""Verbs about a suspect: take it into custody, plan in the log, examine, decide, pack the evidence."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stanch.crypto import write_atomic, write_private
from stanch.crypto.stanza import KeyProvider
from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, JsonValue, Progress
from stanch.trace import (
    PER_CASE,
    Accused,
    Act,
    Case,
    CasePlan,
    Decision,
    ErrorBudget,
    EvidencePack,
    Examination,
    Intake,
    KeyHistory,
    LedgerProofs,
    PackForm,
    Period,
    ReleaseRecord,
    Report,
    Transparency,
    VerifiedCasePlan,
    decide,
    examine,
    fix_plan,
    is_case_id,
    load_examination,
    open_case,
    pack,
    render_html,
    render_json,
    render_pdf,
    report_case,
    report_nobody,
    report_transparency,
    shown_decoys,
)
from stanch.weights import directory_digest
from stanch.workspace import case_log
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.past_acts import moment_of
from stanch.workspace.release_state import ENTRY, PROOF, ReleaseState
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_log import verify_log
from stanch.workspace.verbs_receipt import receipts_of
from stanch.workspace.verbs_release import release_folder

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What is known of a suspect when it arrives.

    Attributes:
        path: A folder or one safetensors file.
        case: Name of the case.
        description: What it is, in plain words.
        received_from: From whom it was received.
        discovered: When it was found.
    """

    path: Path
    case: str
    description: str
    received_from: str
    discovered: datetime


@dataclass(frozen=True, slots=True)
class Traced:
    """A decided case."""

    case: Case
    examination: Examination
    decision: Decision


def case_ref(case: Case) -> ArtifactRef:
    """Return what the log calls a case: its name and the digest of its suspect."""
    return ArtifactRef("case", case.id, case.suspect)


def case_folder(workspace: Workspace, name: str) -> Path:
    """Return the folder of a case, which may not be there."""
    return workspace.state / "cases" / name


def find_case(workspace: Workspace, name: str) -> Path | None:
    """Return the folder of an existing case, or None."""
    folder = case_folder(workspace, name)
    return folder if is_case_id(name) and folder.is_dir() else None


def trace_suspect(workspace: Workspace, suspect: Suspect, release: str, *, progress: Progress = SILENT) -> Traced:
    """Take a suspect into custody, plan, examine and decide; each step is an act of its own."""
    state = ReleaseState.load(release_folder(workspace, release))
    case = take_suspect(workspace, suspect)
    record = release_record(workspace, state)
    return examine_case(workspace, case, plan_case(workspace, case, record), record, progress=progress)


def continue_case(
    workspace: Workspace, name: str, release: str | None = None, *, progress: Progress = SILENT
) -> Traced:
    """Go on with a case that was only opened or planned, or whose examination was killed or failed, and decide it.

    Args:
        workspace: The workspace.
        name: The case.
        release: The release that the suspect may come from; needed as long as there is no plan.
        progress: Told about each variant.

    Raises:
        InvalidInput: As :func:`ready_case` says.
        CustodyBroken: The chain or the suspect was changed.
    """
    case, plan, record = ready_case(workspace, name, release)
    return examine_case(workspace, case, plan, record, progress=progress)


def ready_case(workspace: Workspace, name: str, release: str | None) -> tuple[Case, VerifiedCasePlan, ReleaseRecord]:
    """Return a case that is not decided yet with its plan; one is made and logged where there is none.

    A plan in the log is taken as it is: it was spent when it was logged, and is not spent again.

    Raises:
        InvalidInput: There is no such case, it was decided already, its plan is about another release, or it has no
            plan and no release is named.
        CustodyBroken: The chain or the suspect was changed.
    """
    case = Case.load(existing_case(workspace, name))
    if case_log.standing_of(workspace.ledger.reader(), name).verdict:
        raise InvalidInput(f"case {name}: was decided already", next_step=f"stanch trace show {name}")
    plan = kept_plan(workspace, case)
    planned = release if plan is None else plan.plan.release.name
    if planned is None:
        raise InvalidInput(
            f"case {name}: has no plan yet", next_step=f"name the release: stanch trace run {name} --release NAME"
        )
    if release not in {None, planned}:
        raise InvalidInput(
            f"case {name}: its plan is about release {planned}, and is not changed",
            next_step="go on without --release, or open another case about the suspect",
        )
    record = release_record(workspace, ReleaseState.load(release_folder(workspace, planned)))
    return case, plan or plan_case(workspace, case, record), record


def existing_case(workspace: Workspace, name: str) -> Path:
    """Return the folder of a case.

    Raises:
        InvalidInput: There is no such case.
    """
    folder = find_case(workspace, name)
    if folder is None:
        raise InvalidInput(f"there is no case {name[:64]!r}", next_step="stanch trace cases")
    return folder


def kept_plan(workspace: Workspace, case: Case) -> VerifiedCasePlan | None:
    """Return the plan that the case keeps, if the log holds it."""
    path = case.folder / PLAN
    data = path.read_bytes() if path.is_file() else b""
    entry = case_log.find_plan(workspace.ledger.reader(), case.id, Digest.sha256(data))
    return None if entry is None else VerifiedCasePlan(CasePlan.parse(data), entry)


def release_record(workspace: Workspace, state: ReleaseState) -> ReleaseRecord:
    """Return what tracing needs of a release, with its secret keys, and when each of them was opened to somebody."""
    plan = state.mark_plan()
    base = state.facts.base_digest
    if base is None and state.base is not None:
        base = str(directory_digest(state.base).root)
    record = ReleaseRecord(
        name=state.facts.name, original=state.model, base=state.base, plan=plan, commitment=state.commitment(plan),
        keys=state.mark_keys(plan), beacon=state.beacon(), checkpoint_size=state.facts.checkpoint,
        entry_index=state.facts.entry, base_digest=None if base is None else Digest.parse(base),
    )  # fmt: skip
    root, reader = record.commitment.root.hex(), workspace.ledger.reader()
    return replace(record, disclosed=case_log.disclosed(reader, root, record.decoys))


def _actor(workspace: Workspace) -> str:
    return workspace.people.session.principal


def take_suspect(workspace: Workspace, suspect: Suspect) -> Case:
    """Copy the suspect into custody under its digests."""
    folder = case_folder(workspace, suspect.case)
    ref = ArtifactRef("case", suspect.case, Digest.sha256(suspect.case.encode()))

    def run(_ref: EntryRef) -> Done[Case]:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        intake = Intake(suspect.case, suspect.description, suspect.discovered, suspect.received_from, _actor(workspace))
        case = open_case(folder, suspect.path, intake, opened=workspace.now())
        return Done(case, {"suspect": str(case.suspect), "custody": case.custody().head})

    return workspace.door.act(Request("trace.open", "case:trace", ref), run)


def plan_case(workspace: Workspace, case: Case, record: ReleaseRecord) -> VerifiedCasePlan:
    """Fix the plan and put its digest into the log before any score; the log's order decides what was spent.

    Where whoever planned was killed after the log had taken the plan, the same plan is made anew, and nothing is spent.

    Raises:
        ErrorBudgetExhausted: The lifetime budget does not allow it, if only for a plan that was logged meanwhile.
        Conflict: Another process logged the same plan meanwhile.
    """
    reader = workspace.ledger.reader()
    plan = fix_plan(case, record, epsilon=PER_CASE, budget=ErrorBudget())
    earlier = case_log.find_plan(reader, case.id, plan.digest)
    if earlier is not None:
        return VerifiedCasePlan(plan, earlier)
    ErrorBudget(spent=case_log.spent(reader)).charge(plan.epsilon)

    def run(logged: EntryRef) -> Done[VerifiedCasePlan]:
        if case_log.find_plan(reader, case.id, plan.digest, before=logged.index) is not None:
            raise Conflict(f"case {case.id}: another process planned it", next_step=f"stanch trace run {case.id}")
        ErrorBudget(spent=case_log.spent(reader, before=logged.index)).charge(plan.epsilon)
        _keep(case, plan)
        return Done(VerifiedCasePlan(plan, logged), {"plan": plan.digest.hex})

    payload = {"plan": plan.digest.hex, "epsilon": plan.epsilon}
    return workspace.door.act(Request("trace.plan", "case:trace", case_ref(case), dict(payload)), run)


def _keep(case: Case, plan: CasePlan) -> None:
    write_atomic(case.folder / PLAN, plan.to_bytes(), mode=0o600)


def examine_case(
    workspace: Workspace, case: Case, plan: VerifiedCasePlan, record: ReleaseRecord, *, progress: Progress = SILENT
) -> Traced:
    """Score the suspect as planned, and decide."""

    def run(_ref: EntryRef) -> Done[Traced]:
        _keep(case, plan.plan)  # before the chain of custody grows: the same plan could not be made anew after that
        examination = examine(case, plan, record, actor=_actor(workspace), at=workspace.now(), progress=progress)
        decision = decide(case, examination, key_history(workspace, record.name))
        return Done(Traced(case, examination, decision), {"verdict": str(decision.verdict)})

    return workspace.door.act(Request("trace.examine", "case:trace", case_ref(case)), run)


def key_history(workspace: Workspace, release: str) -> KeyHistory:
    """Return when a release's keys were committed to, and when a pack was first to open each of its leaves."""
    entry = decode_entry((release_folder(workspace, release) / ENTRY).read_bytes())
    root = entry["unmapped"]["stanch"]["payload"]["batch_root"]
    return KeyHistory(moment_of(entry), case_log.disclosed(workspace.ledger.reader(), root))


def load_case(workspace: Workspace, name: str) -> Traced:
    """Return a decided case.

    Raises:
        InvalidInput: There is no such case.
        NotFound: The log holds no verdict of it: what was not recorded is not handed out.
        VerificationError: Its files say something else than the log.
    """
    case = Case.load(existing_case(workspace, name))
    standing = case_log.standing_of(workspace.ledger.reader(), name)
    if not standing.verdict:
        raise NotFound(f"case {name}: was not decided yet", next_step=f"stanch trace run {name}")
    examination = load_examination(case)
    decision = decide(case, examination, key_history(workspace, examination.plan.plan.release.name))
    standing.require(name, str(decision.verdict))
    return Traced(case, examination, decision)


def _state_of(workspace: Workspace, traced: Traced) -> ReleaseState:
    return ReleaseState.load(release_folder(workspace, traced.examination.plan.plan.release.name))


REPORTS = {".html": lambda report: render_html(report).encode(), ".json": render_json, ".pdf": render_pdf}
"""How a report is written, by the ending of its file."""


def write_case_report(workspace: Workspace, traced: Traced, out: Path) -> Digest:
    """Write the report of a decided case, HTML, JSON or PDF by the ending of ``out``; no key is disclosed.

    Raises:
        InvalidInput: ``out`` exists or has another ending.
        MissingExtraError: A PDF is wanted, and the extra ``pdf`` is missing.
    """
    render = REPORTS.get(out.suffix)
    if render is None:
        raise InvalidInput(f"{out}: expected a name that ends in {' or '.join(REPORTS)}")
    if out.exists():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another file name")

    def run(_ref: EntryRef) -> Done[Digest]:
        data = render(_report(workspace, traced))
        write_private(out, data)
        digest = Digest.sha256(data)
        return Done(digest, {"report": str(digest)}, undo=lambda: out.unlink(missing_ok=True))

    return workspace.door.act(Request("trace.report", "case:trace", case_ref(traced.case)), run)


def _report(workspace: Workspace, traced: Traced) -> Report:
    """Return the report; the release's keys are opened only where somebody is accused."""
    if not isinstance(traced.decision, Accused):
        return report_nobody(traced.case, traced.decision, traced.examination)
    record = release_record(workspace, _state_of(workspace, traced))
    return report_case(traced.case, traced.decision, traced.examination, record)


def pack_evidence(
    workspace: Workspace, traced: Traced, out: Path, *, pdf: bool = False, recipients: Sequence[KeyProvider] = ()
) -> EvidencePack:
    """Write the evidence of an accusation, signed with the case key; a stranger can re-compute it.

    With ``recipients`` it is sealed to them, and never in plain on a disk.
    """
    plan: CasePlan = traced.examination.plan.plan
    state = _state_of(workspace, traced)
    release = release_record(workspace, state)

    def run(ref: EntryRef) -> Done[EvidencePack]:
        workspace.ledger.publish()
        reader, index = workspace.ledger.reader(), traced.examination.plan.entry.index
        size, beacon = reader.checkpoint().checkpoint.size, _outcome_of(workspace, state.facts.entry)
        proofs = LedgerProofs(
            commitment_entry=(state.folder / ENTRY).read_bytes(), commitment_proof=(state.folder / PROOF).read_bytes(),
            beacon_entry=reader.entry(beacon), beacon_proof=reader.prove(beacon, size),
            plan_entry=reader.entry(index), plan_proof=reader.prove(index, size),
            consistency=tuple(reader.prove_consistency(state.facts.checkpoint, size)),
            vkey=workspace.ledger.verifier.vkey,
        )  # fmt: skip
        record = replace(release, receipts=receipts_of(workspace, state))
        form = PackForm(workspace.keys.signer("case"), pdf, tuple(recipients), ref.index + 1)  # no number comes twice
        made = pack(traced.case, traced.decision, traced.examination, record, proofs, out, form)
        sealed_to = [about.key_id or about.type for about in (recipient.describe() for recipient in recipients)]
        to = f", sealed to {', '.join(sealed_to)}" if sealed_to else ""
        try:
            traced.case.extend(Act(_actor(workspace), "exported", workspace.now(), f"evidence pack {made.digest}{to}"))
        except BaseException:
            _remove(out)
            raise
        return Done(made, {"pack": str(made.digest), "sealed_to": list(sealed_to)}, undo=lambda: _remove(out))

    opened = [item.leaf for item in traced.decision.recipients] if isinstance(traced.decision, Accused) else []
    payload: dict[str, JsonValue] = {"batch_root": plan.release.batch_root, "opened": list(opened)}
    payload["decoys"] = list(shown_decoys(release, traced.case.custody().acquired)) if opened else []
    return workspace.door.act(Request("trace.pack", "case:trace", case_ref(traced.case), payload), run)


def _outcome_of(workspace: Workspace, index: int) -> int:
    """Return where the outcome stands of the act whose intent is entry ``index``."""
    reader = workspace.ledger.reader()
    act = decode_entry(reader.entry(index))["metadata"]["correlation_uid"]
    found = next(iter(reader.query(EntryQuery(act=act, phase="outcome", status=1))), None)
    if found is None:
        raise InvalidInput(f"entry {index} has no outcome in the log", next_step="stanch log verify")
    return found.index


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def count_period(workspace: Workspace, period: Period) -> Transparency:
    """Count what the log holds of a period; the look is recorded, and the log is verified first.

    Raises:
        VerificationError: The log does not verify.
    """

    def run(_ref: EntryRef) -> Done[Transparency]:
        workspace.ledger.publish()
        verify_log(workspace)
        report = report_transparency(workspace.ledger.reader(), period)
        return Done(report, {"entries": report.size})

    return workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), run)
