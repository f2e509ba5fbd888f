"""Cases: suspects in custody, how far each came, and what was decided."""

from msgspec import Struct

from stanch.console.desk import Call
from stanch.console.pages.paging import Paged
from stanch.console.route import Nothing
from stanch.errors import NotFound
from stanch.trace import Accused, Inconclusive, NothingFound, error_sentence
from stanch.workspace import verbs_case
from stanch.workspace.verbs_trace import find_case

_SHOWN = 200


class CaseRow(Struct, frozen=True):
    """A case: how far it came, and its verdict, empty until there is one. ``trouble``: why it cannot be read."""

    id: str
    state: str
    verdict: str
    opened: str
    suspect: str
    description: str
    trouble: str


class CaseList(Struct, frozen=True):
    """Cases, the one that was opened last first, and where the next part of the list begins."""

    cases: tuple[CaseRow, ...]
    next: str


class CaseFile(Struct, frozen=True):
    """A file of the suspect."""

    name: str
    bytes: int
    sha256: str


class CustodyLine(Struct, frozen=True):
    """A line of the chain of custody: who did what, when."""

    n: int
    at: str
    actor: str
    name: str
    action: str
    note: str


class CasePlanView(Struct, frozen=True):
    """What was fixed and logged before the first score."""

    entry: int
    digest: str
    release: str
    n: int
    analyses: int
    epsilon: str
    threshold: float
    variants: tuple[str, ...]


class AccusedRow(Struct, frozen=True):
    """A recipient from whose copy the suspect was made."""

    recipient: str
    variant: str
    z: float
    log10_p: float


class CaseView(Struct, frozen=True):
    """One case: what was received, its custody, its plan and what was decided.

    Attributes:
        case: Its row.
        received_from, discovered: From whom it was received, and when it was found.
        files, file_count: The first files of the suspect, and how many there are.
        custody, custody_count: The newest lines of its chain, which was verified, and how many there are.
        plan: Its plan; None until there is one.
        accused: Who is accused.
        said: What the verdict says.
        matched: The share of the marked weights that could be compared; 0 until the case is decided.
        next_z: The highest score of those that are not accused.
        entries: Entries of the log that say so.
        may_log: Whether whoever asks may open them.
    """

    case: CaseRow
    received_from: str
    discovered: str
    files: tuple[CaseFile, ...]
    file_count: int
    custody: tuple[CustodyLine, ...]
    custody_count: int
    plan: CasePlanView | None
    accused: tuple[AccusedRow, ...]
    said: tuple[str, ...]
    matched: float
    next_z: float
    entries: tuple[int, ...]
    may_log: bool


def list_cases(call: Call, asked: Paged) -> CaseList:
    """Show all cases, the one that was opened last first."""
    found = verbs_case.read_cases(call.workspace)
    ids = [row.id for row in found]
    start = ids.index(asked.after) + 1 if asked.after in ids else len(ids) if asked.after else 0
    shown = found[start : start + asked.limit]
    return CaseList(tuple(map(_row, shown)), shown[-1].id if len(found) > start + len(shown) else "")


def show_case(call: Call, _asked: Nothing) -> CaseView:
    """Show one case.

    Raises:
        NotFound: There is none.
        VerificationError: Its chain of custody was changed, or its files say something else than the log.
    """
    name = call.path["case"]
    if find_case(call.workspace, name) is None:
        raise NotFound("there is no such case")
    view = verbs_case.read_case(call.workspace, name)
    items, lines = view.custody.lines[0].items, view.custody.lines
    names = call.names(line.actor for line in lines[-_SHOWN:])
    found = None if view.examination is None else view.examination.detection
    return CaseView(
        _row(verbs_case.CaseRow(view.case.id, view.standing, view.case)), view.case.received_from,
        view.case.discovered, tuple(CaseFile(item.name, item.bytes, item.sha256) for item in items[:_SHOWN]),
        len(items),
        tuple(
            CustodyLine(one.n, one.at, one.actor, names.get(one.actor, one.actor), one.action, one.note)
            for one in lines[-_SHOWN:]
        ),
        len(lines), _plan(view), _accused(view), _said(view), 0.0 if found is None else found.matched,
        0.0 if found is None else found.next_z, view.standing.entries, call.could("log:read"),
    )  # fmt: skip


def _row(row: verbs_case.CaseRow) -> CaseRow:
    case, standing = row.case, row.standing
    about = ("", "", "") if case is None else (case.opened, str(case.suspect), case.description)
    return CaseRow(row.id, str(standing.state), standing.verdict, *about, row.trouble)


def _plan(view: verbs_case.CaseView) -> CasePlanView | None:
    if view.plan is None:
        return None
    plan = view.plan.plan
    return CasePlanView(
        view.plan.entry.index, str(plan.digest), plan.release.name, plan.n, plan.analyses, plan.epsilon, plan.threshold,
        tuple(map(str, plan.variants)),
    )  # fmt: skip


def _accused(view: verbs_case.CaseView) -> tuple[AccusedRow, ...]:
    if not isinstance(view.decision, Accused):
        return ()
    return tuple(AccusedRow(who.recipient, str(who.variant), who.z, who.log10_p) for who in view.decision.recipients)


def _said(view: verbs_case.CaseView) -> tuple[str, ...]:
    if view.decision is None or view.examination is None:
        return ()
    match view.decision:
        case Accused(recipients):
            names = ", ".join(who.recipient for who in recipients)
            said = f"The suspect was made from the copy sealed to {names}. It does not say who did it."
        case NothingFound(power):
            said = power
        case Inconclusive(reason, detail):
            said = f"{reason}: {detail}"
    return (said, error_sentence(view.examination.plan.plan))
