"""Verbs about a suspect: take it into custody, plan in the log, examine, decide, pack the evidence."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, Progress
from stanch.trace import (
    PER_CASE,
    Act,
    Case,
    CasePlan,
    Decision,
    ErrorBudget,
    EvidencePack,
    Examination,
    Intake,
    LedgerProofs,
    ReleaseRecord,
    VerifiedCasePlan,
    decide,
    examine,
    fix_plan,
    load_examination,
    open_case,
    pack,
)
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.release_state import ENTRY, PROOF, ReleaseState
from stanch.workspace.verbs_release import release_folder

CASE_RELEASE = "release.txt"


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


def trace_suspect(workspace: Workspace, suspect: Suspect, release: str, *, progress: Progress = SILENT) -> Traced:
    """Take a suspect into custody, plan, examine and decide; each step is an act of its own."""
    state = ReleaseState.load(release_folder(workspace, release))
    case = take_suspect(workspace, suspect)
    record = release_record(state)
    return examine_case(workspace, case, plan_case(workspace, case, record), record, progress=progress)


def release_record(state: ReleaseState) -> ReleaseRecord:
    """Return what tracing needs of a release, with its secret keys."""
    plan = state.mark_plan()
    return ReleaseRecord(
        name=state.facts.name, original=state.model, base=state.base, plan=plan, commitment=state.commitment(plan),
        keys=state.mark_keys(plan), beacon=state.beacon(), checkpoint_size=state.facts.checkpoint,
        entry_index=state.facts.entry,
    )  # fmt: skip


def _actor(workspace: Workspace) -> str:
    return workspace.people.session.principal


def take_suspect(workspace: Workspace, suspect: Suspect) -> Case:
    """Copy the suspect into custody under its digests."""
    folder = workspace.state / "cases" / suspect.case
    ref = ArtifactRef("case", suspect.case, Digest.sha256(suspect.case.encode()))

    def run(_ref: EntryRef) -> Done[Case]:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        intake = Intake(suspect.case, suspect.description, suspect.discovered, suspect.received_from, _actor(workspace))
        case = open_case(folder, suspect.path, intake, opened=workspace.now())
        return Done(case, {"suspect": str(case.suspect), "custody": case.custody().head})

    return workspace.door.act(Request("trace.open", "case:trace", ref), run)


def plan_case(workspace: Workspace, case: Case, record: ReleaseRecord) -> VerifiedCasePlan:
    """Fix the plan and put its digest into the log before any score; the log's order decides what was spent."""
    plan = fix_plan(case, record, epsilon=PER_CASE, budget=ErrorBudget(spent=_spent(workspace)))

    def run(logged: EntryRef) -> Done[VerifiedCasePlan]:
        (case.folder / "plan.json").write_bytes(plan.to_bytes())
        return Done(VerifiedCasePlan(plan, logged), {"plan": plan.digest.hex})

    payload = {"plan": plan.digest.hex, "epsilon": plan.epsilon}
    return workspace.door.act(Request("trace.plan", "case:trace", case_ref(case), dict(payload)), run)


def examine_case(
    workspace: Workspace, case: Case, plan: VerifiedCasePlan, record: ReleaseRecord, *, progress: Progress = SILENT
) -> Traced:
    """Score the suspect as planned, and decide."""

    def run(_ref: EntryRef) -> Done[Traced]:
        examination = examine(case, plan, record, actor=_actor(workspace), at=workspace.now(), progress=progress)
        decision = decide(case, examination)
        return Done(Traced(case, examination, decision), {"verdict": str(decision.verdict)})

    return workspace.door.act(Request("trace.examine", "case:trace", case_ref(case)), run)


def _spent(workspace: Workspace) -> tuple[str, ...]:
    """Return the error probability of every plan in the log."""
    reader = workspace.ledger.reader()
    query = EntryQuery(kind="trace.plan", phase="intent", limit=1_000_000)
    entries = (decode_entry(reader.entry(ref.index)) for ref in reader.query(query))
    return tuple(str(entry["unmapped"]["stanch"]["payload"]["epsilon"]) for entry in entries)


def load_case(workspace: Workspace, name: str) -> Traced:
    """Return a decided case.

    Raises:
        InvalidInput: There is no such case, or it was not examined yet.
    """
    folder = workspace.state / "cases" / name
    if not folder.is_dir():
        raise InvalidInput(f"there is no case {name[:64]!r}", next_step="stanch trace run SUSPECT --release NAME")
    case = Case.load(folder)
    examination = load_examination(case)
    return Traced(case, examination, decide(case, examination))


def pack_evidence(workspace: Workspace, traced: Traced, out: Path) -> EvidencePack:
    """Write the evidence of an accusation, signed with the case key; a stranger can re-compute it."""
    plan: CasePlan = traced.examination.plan.plan
    state = ReleaseState.load(release_folder(workspace, plan.release.name))

    def run(_ref: EntryRef) -> Done[EvidencePack]:
        workspace.ledger.publish()
        reader, index = workspace.ledger.reader(), traced.examination.plan.entry.index
        proofs = LedgerProofs(
            commitment_entry=(state.folder / ENTRY).read_bytes(), commitment_proof=(state.folder / PROOF).read_bytes(),
            plan_entry=reader.entry(index), plan_proof=reader.prove(index), vkey=workspace.ledger.verifier.vkey,
        )  # fmt: skip
        made = pack(
            traced.case, traced.decision, traced.examination, release_record(state), proofs,
            workspace.keys.signer("case"), out,
        )  # fmt: skip
        traced.case.extend(Act(_actor(workspace), "exported", workspace.now(), f"evidence pack {made.digest}"))
        return Done(made, {"pack": str(made.digest)}, undo=lambda: out.unlink(missing_ok=True))

    return workspace.door.act(Request("trace.pack", "case:trace", case_ref(traced.case)), run)
