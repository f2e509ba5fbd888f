"""What the report of an examination says that accuses nobody: what was compared, what was found, what stays open."""

from stanch import __version__
from stanch.trace.case import Case
from stanch.trace.decision import Inconclusive, NothingFound, decision_to_json, error_sentence
from stanch.trace.examination import Examination
from stanch.trace.report import ask, list_analyses, show_received
from stanch.trace.report_blocks import Block, Bullets, Code, Paragraph, Report, Section, Table
from stanch.trace.wording import FIXED, METHOD, NOT_DECIDED, NOT_EXCLUDED, REPEAT_WHOLE

_MOST_NAMES = 100
_ORIGINAL = "The suspect is the unmarked original itself, at every marked weight. No recipient ever had it."


def report_nobody(case: Case, decision: NothingFound | Inconclusive, examination: Examination) -> Report:
    """Return the report of an examination that accuses nobody. The same case gives the same report; no key is needed.

    Raises:
        CustodyBroken: Chain or suspect were changed.
    """
    case.check_suspect()
    plan = examination.plan.plan
    release = plan.release.name
    found = isinstance(decision, NothingFound)
    finding = "Nobody is accused" if found else "Inconclusive: nobody is accused"
    limits = NOT_EXCLUDED if found else NOT_DECIDED
    return Report(
        title=f"Case {plan.case}: {finding}",
        question="From whose copy was this made?",
        about=f"Case {plan.case}, examined {examination.examined_at}",
        finding=finding,
        sentence=" ".join(_said(decision, release)),
        made_at=examination.examined_at,
        result=decision_to_json(decision, examination),
        sections=(
            ask(case, release),
            show_received(case, case.custody()),
            Section("What was examined", _examined(examination)),
            Section("What was found", _found(decision, examination)),
            Section("What this does not show", (Bullets(tuple(text.format(release=release) for text in limits)),)),
            Section("The method", (*map(Paragraph, METHOD[:2]), Paragraph(_fixed(examination)))),
            Section("How to repeat this", _repeat(examination)),
        ),
        tone="open",
    )


def _said(decision: NothingFound | Inconclusive, release: str) -> tuple[str, ...]:
    if isinstance(decision, Inconclusive):
        return (f"The examination does not decide: {decision.reason}.",)
    said = f"No recipient's copy of release {release} was found in the suspect."
    return (said, _ORIGINAL) if decision.unmarked_original else (said,)


def _examined(examination: Examination) -> tuple[Block, ...]:
    plan, found = examination.plan.plan, examination.detection
    facts = (
        ("Release", plan.release.name),
        ("Its unmarked original", plan.release.original),
        ("Its base model", plan.release.base or "none"),
        ("Keys that may have been issued, n", str(plan.n)),
        ("Analyses T", str(plan.analyses)),
        ("ε", plan.epsilon),
        ("Threshold τ", str(plan.threshold)),
        ("Share of the marked weights that could be compared", f"{found.matched:.1%} of {found.coordinates:,}"),
    )
    return (
        Table(("What was fixed and compared", "Value"), facts),
        list_analyses(found),
        *_names("Marked tensors that could not be compared", found.unmatched),
        *_names("What could hold weights and was not read", found.unread),
    )


def _names(title: str, names: tuple[str, ...]) -> tuple[Table, ...]:
    if not names:
        return ()
    rows = [(name,) for name in names[:_MOST_NAMES]]
    rows += [(f"and {len(names) - _MOST_NAMES:,} more",)] if len(names) > _MOST_NAMES else []
    return (Table(("Name",), tuple(rows), title),)


def _found(decision: NothingFound | Inconclusive, examination: Examination) -> tuple[Block, ...]:
    plan, found = examination.plan.plan, examination.detection
    scores = (
        ("Highest score of a recipient, z", f"{max((score.best for score in found.scores), default=0.0):.2f}"),
        ("Threshold τ", str(plan.threshold)),
        ("Score of the ownership mark, which every copy bears", f"{found.release_z:.2f}"),
    )
    told = decision.power if isinstance(decision, NothingFound) else f"{decision.reason}: {decision.detail}"
    return (Paragraph(told), Table(("Score", "Value"), scores), Paragraph(error_sentence(plan)))


def _fixed(examination: Examination) -> str:
    return FIXED.format(plan=examination.plan.entry.index)


def _repeat(examination: Examination) -> tuple[Block, ...]:
    plan = examination.plan.plan
    return (
        Paragraph(REPEAT_WHOLE),
        Code(f"stanch trace run SUSPECT --release {plan.release.name}"),
        Paragraph(f"stanch {__version__}; plan {plan.digest}."),
    )
