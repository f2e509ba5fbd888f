"""``stanch trace cases`` and ``stanch trace show``: what cases there are, and what one of them holds."""

from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import printable

if TYPE_CHECKING:
    from stanch.terms import JsonValue
    from stanch.trace import VerifiedCasePlan
    from stanch.workspace.verbs_case import CaseRow, CaseView
    from stanch.workspace.verbs_trace import Traced


@click.command("cases", cls=Leaf)
def cases() -> Result:
    """List cases, the newest first: how far each came, and its verdict. The look is recorded."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_case import find_cases  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = find_cases(workspace)
    return Result({"cases": [_row_data(row) for row in found]}, "\n".join(map(_row_line, found)) or "no cases")


@click.command("show", cls=Leaf)
@click.argument("case_id", metavar="CASE")
def show(case_id: str) -> Result:
    """Show CASE: what was received, its custody, its plan, and what was decided. The look is recorded."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_case import show_case  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        found = show_case(workspace, case_id)
    return Result(_case_data(found), _describe_case(found))


def _row_data(row: "CaseRow") -> "JsonValue":
    case = row.case
    known: dict[str, JsonValue] = {"trouble": row.trouble}
    if case is not None:
        known = {"opened": case.opened, "suspect": str(case.suspect), "description": case.description}
    return {"case": row.id, "state": str(row.standing.state), "verdict": row.standing.verdict, **known}


def _row_line(row: "CaseRow") -> str:
    told = f"cannot be read: {row.trouble}" if row.case is None else f"{row.case.opened}  {row.case.description}"
    return f"{row.id:<32} {row.standing.state:<9} {row.standing.verdict:<13} {printable(told)}"


def _case_data(view: "CaseView") -> "dict[str, JsonValue]":
    from stanch.trace import decision_to_json  # noqa: PLC0415 - keeps `stanch --help` light

    case, result = view.case, None
    if view.decision is not None and view.examination is not None:
        result = decision_to_json(view.decision, view.examination)
    acts: list[JsonValue] = [
        {"n": line.n, "at": line.at, "actor": line.actor, "action": line.action, "note": line.note}
        for line in view.custody.lines
    ]
    return {
        "case": case.id, "state": str(view.standing.state), "verdict": view.standing.verdict,
        "suspect": str(case.suspect), "files": dict(case.files), "opened": case.opened, "discovered": case.discovered,
        "received_from": case.received_from, "description": case.description, "custody": acts,
        "entries": list(view.standing.entries), "plan": None if view.plan is None else plan_data(view.plan),
        "result": result,
    }  # fmt: skip


def plan_data(planned: "VerifiedCasePlan") -> "dict[str, JsonValue]":
    """Return a plan for machines."""
    plan = planned.plan
    return {
        "entry": planned.entry.index, "digest": str(plan.digest), "release": plan.release.name, "n": plan.n,
        "analyses": plan.analyses, "epsilon": plan.epsilon, "threshold": plan.threshold,
        "variants": [str(variant) for variant in plan.variants],
    }  # fmt: skip


def _describe_case(view: "CaseView") -> str:
    from stanch.workspace.verbs_trace import Traced  # noqa: PLC0415 - keeps `stanch --help` light

    case, acts = view.case, view.custody.lines
    size = sum(item.bytes for item in acts[0].items)
    lines = [
        f"case       {case.id}: {view.standing.state}",
        f"suspect    {case.suspect}, {len(case.files):,} files, {size:,} bytes; not hashed again here",
        f"received   from {printable(case.received_from)}, discovered {case.discovered}, opened {case.opened}",
        f"about      {printable(case.description)}",
        *(f"custody    {act.n} {act.at} {act.actor} {act.action}: {printable(act.note)}" for act in acts),
    ]
    if view.plan is not None:
        plan = view.plan.plan
        lines.append(f"plan       entry {view.plan.entry.index}, release {plan.release.name}, epsilon {plan.epsilon}")
    if view.decision is not None and view.examination is not None:
        lines.append(describe_trace(Traced(case, view.examination, view.decision)))
    else:
        release = "" if view.plan is not None else " --release NAME"
        lines.append(f"next       stanch trace run {case.id}{release}")
    return "\n".join(lines)


def trace_data(traced: "Traced") -> "dict[str, JsonValue]":
    """Return a decided case for machines."""
    from stanch.trace import decision_to_json  # noqa: PLC0415 - keeps `stanch --help` light

    return decision_to_json(traced.decision, traced.examination)


def describe_trace(traced: "Traced") -> str:
    """Return a decided case in a few lines."""
    from stanch.trace import Accused, Inconclusive, NothingFound, error_sentence  # noqa: PLC0415 - as above

    detection, plan, decision = traced.examination.detection, traced.examination.plan.plan, traced.decision
    lines = [
        f"case {traced.case.id}   suspect {traced.case.suspect}",
        f"  compared     {detection.matched:.1%} of {detection.coordinates:,} marked weights",
        f"  threshold    {plan.threshold:.4f} (n {plan.n}, T {plan.analyses}, epsilon {plan.epsilon})",
    ]
    if isinstance(decision, Accused):
        lines += [
            f"accused        {who.recipient:<20} z {who.z:.1f}   log10 p <= {who.log10_p:.0f}   by {who.variant}"
            for who in decision.recipients
        ]
        lines += [f"not accused    {name:<20} its key had been disclosed before" for name in decision.disclosed]
        lines.append(f"not accused    highest z {decision.next_z:.2f}")
        names = ", ".join(who.recipient for who in decision.recipients)
        lines.append(f"this says: the suspect was made from the copy sealed to {names}. It does not say who did it.")
    elif isinstance(decision, NothingFound):
        lines += [f"nothing        highest z {decision.next_z:.2f}", f"  {decision.power}"]
    elif isinstance(decision, Inconclusive):
        lines.append(f"inconclusive   {decision.reason}: {decision.detail}")
    return "\n".join([*lines, error_sentence(plan)])
