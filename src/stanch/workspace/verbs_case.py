"""Verbs about cases that exist: list them, show one."""

from dataclasses import dataclass

from stanch.errors import StanchError
from stanch.terms import EntryRef
from stanch.trace import Case, Custody, Decision, Examination, VerifiedCasePlan, judge, load_examination
from stanch.workspace.act import Done, Request
from stanch.workspace.case_log import Standing, standing_of, standings
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_trace import case_ref, existing_case, find_case, kept_plan, key_history


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One case of a list.

    Attributes:
        id: Its name.
        standing: How far it came, as the log says.
        case: What its file says; None where that cannot be read.
        trouble: Why not.
    """

    id: str
    standing: Standing
    case: Case | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case as far as it came.

    Attributes:
        case: What was received.
        standing: How far it came, as the log says.
        custody: Its verified chain; the suspect's files were not hashed again.
        plan: Its plan, if the log holds it.
        examination, decision: What was found; None as long as the log holds no verdict.
    """

    case: Case
    standing: Standing
    custody: Custody
    plan: VerifiedCasePlan | None
    examination: Examination | None
    decision: Decision | None


def find_cases(workspace: Workspace) -> tuple[CaseRow, ...]:
    """Return every case, the one that was opened last first; the look is recorded."""

    def run(_ref: EntryRef) -> Done[tuple[CaseRow, ...]]:
        return Done(read_cases(workspace))

    return workspace.door.act(Request("trace.read", "case:read", workspace_ref(workspace)), run)


def show_case(workspace: Workspace, name: str) -> CaseView:
    """Return one case; the look is recorded.

    Raises:
        InvalidInput: There is no such case.
        VerificationError: Its chain of custody was changed, or its files say something else than the log.
    """

    def run(_ref: EntryRef) -> Done[CaseView]:
        return Done(read_case(workspace, name))

    ref = case_ref(Case.read(existing_case(workspace, name)))
    return workspace.door.act(Request("trace.show", "case:read", ref), run)


def read_cases(workspace: Workspace) -> tuple[CaseRow, ...]:
    """Read every case, the one that was opened last first; one that cannot be read comes first, and says why."""
    standing = standings(workspace.ledger.reader())
    names = [path.name for path in (workspace.state / "cases").glob("*") if find_case(workspace, path.name)]
    rows = [_row(workspace, name, standing.get(name, Standing())) for name in names]
    return tuple(sorted(rows, key=lambda row: (row.case.opened if row.case else "~", row.id), reverse=True))


def _row(workspace: Workspace, name: str, standing: Standing) -> CaseRow:
    try:
        return CaseRow(name, standing, Case.read(existing_case(workspace, name)))
    except (StanchError, OSError) as error:
        return CaseRow(name, standing, None, error.what if isinstance(error, StanchError) else type(error).__name__)


def read_case(workspace: Workspace, name: str) -> CaseView:
    """Read one case.

    Raises:
        InvalidInput: There is no such case.
        VerificationError: Its chain of custody was changed, or its files say something else than the log.
    """
    case = Case.read(existing_case(workspace, name))
    custody, standing = case.custody(), standing_of(workspace.ledger.reader(), name)
    plan = kept_plan(workspace, case)
    if not standing.verdict:
        return CaseView(case, standing, custody, plan, None, None)
    examination = load_examination(case)
    history = key_history(workspace, examination.plan.plan.release.name)
    decision = judge(case.discovered, custody.acquired, examination, history)
    standing.require(name, str(decision.verdict))
    return CaseView(case, standing, custody, plan, examination, decision)
