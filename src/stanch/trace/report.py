"""What the report of an accusation says; :mod:`report_html` and its like write it down."""

from dataclasses import dataclass
from typing import Any

from stanch import __version__
from stanch.audit.plot import Plot, box_swatch, dot_swatch, line_swatch, linear_axis
from stanch.mark import DecoyStatistics, Detection
from stanch.terms import JsonValue
from stanch.trace.case import Case
from stanch.trace.custody import Custody
from stanch.trace.decision import Accused, error_sentence
from stanch.trace.examination import Examination
from stanch.trace.report_blocks import Block, Bullets, Chart, Code, Paragraph, Report, Section, Table
from stanch.trace.wording import ALTERNATIVES, ASSUMPTIONS, METHOD, NOT_SHOWN, REPEAT, VARIANTS

_MOST_FILES = 500


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report is made from: case, custody, decision, examination, release and the pack's scores."""

    case: Case
    custody: Custody
    decision: Accused
    examination: Examination
    release: str
    scores: dict[str, JsonValue]


def write_report(facts: ReportFacts) -> Report:
    """Return the report of an accusation. The same facts give the same report."""
    plan = facts.examination.plan.plan
    names = ", ".join(item.recipient for item in facts.decision.recipients)
    said = f"The suspect was made from the copy of release {facts.release} that was made for: {names}."
    return Report(
        title=f"Case {plan.case}: accused {names}",
        question="From whose copy was this made?",
        about=f"Case {plan.case}, examined {facts.examination.examined_at}",
        finding=f"Accused: {names}",
        sentence=f"{said} {error_sentence(plan)}",
        made_at=facts.examination.examined_at,
        result=facts.scores["examination"],
        sections=(
            ask(facts.case, facts.release),
            show_received(facts.case, facts.custody),
            Section("The method", tuple(map(Paragraph, METHOD))),
            Section("The result", _result(facts)),
            Section("What this does not show", (Bullets(NOT_SHOWN),)),
            Section("Assumptions, and what supports each", (_assumptions(facts),)),
            Section(
                "Other explanations, and what speaks to each",
                (Table(("Explanation", "What speaks to it"), tuple(ALTERNATIVES.items())),),
            ),
            Section("How to repeat this", _repeat(facts)),
        ),
    )


def ask(case: Case, release: str) -> Section:
    """Return the question that the case asks."""
    said = (
        f"A suspect was received from {case.received_from}, discovered {case.discovered}, described as "
        f"“{case.description}”. From which recipients' copies of release {release} was it made, if from any?"
    )
    return Section("The question", (Paragraph(said),))


def show_received(case: Case, custody: Custody) -> Section:
    """Return what was received, and who did what with it."""
    items = custody.lines[0].items
    files: tuple[tuple[object, ...], ...] = tuple((item.name, item.bytes, item.sha256) for item in items[:_MOST_FILES])
    if len(items) > _MOST_FILES:
        files += ((f"and {len(items) - _MOST_FILES:,} more, which custody.jsonl of the pack lists", "", ""),)
    acts = tuple((line.n, line.at, line.actor, line.action, line.note) for line in custody.lines)
    blocks = (
        Code(str(case.suspect), "Suspect"),
        Table(("File", "Bytes", "SHA-256"), files),
        Table(("No.", "At", "By", "Act", "Note"), acts, "Custody"),
    )
    return Section("What was received", blocks)


def _result(facts: ReportFacts) -> tuple[Block, ...]:
    plan, found = facts.examination.plan.plan, facts.examination.detection
    accused = tuple((i.recipient, i.z, i.log10_p, i.variant, i.leaf) for i in facts.decision.recipients)
    numbers = (
        ("Threshold τ", str(plan.threshold)),
        ("Keys that may have been issued, n", str(plan.n)),
        ("Analyses T", str(plan.analyses)),
        ("ε", plan.epsilon),
        ("Second highest: best z of those not accused", f"{facts.decision.next_z:.2f}"),
        ("Share of the marked weights that could be compared", f"{found.matched:.1%} of {found.coordinates:,}"),
    )
    return (
        Table(("Accused", "z", "log10 p at most", "Variant", "Leaf"), accused),
        Paragraph(error_sentence(plan)),
        Table(("What was fixed and found", "Value"), numbers),
        _histogram(facts, found),
        list_analyses(found),
    )


def list_analyses(found: Detection) -> Table:
    """Return the variants that were run, and how keys scored in them that were never issued."""
    tried = tuple(
        (str(result.variant), VARIANTS[result.variant], result.matched, result.rounds, _told(result.decoys))
        for result in found.variants
    )
    header = ("Variant", "What it does", "Weights compared", "Rounds", "Keys never issued")
    return Table(header, tried, "Analyses that were run")


def _told(decoys: DecoyStatistics | None) -> str:
    if decoys is None:
        return "not scored"
    return f"{decoys.count:,}: mean {decoys.mean:.3f}, deviation {decoys.sd:.3f}, highest {decoys.maximum:.2f}"


def _histogram(facts: ReportFacts, found: Detection) -> Chart:
    """Draw the scores of the decoys, the threshold, the second highest score and the accused on one axis."""
    scores: Any = facts.scores
    decoys, accused = scores["decoys"], scores["accused"]
    tau, edges, total = found.threshold, decoys["edges"], decoys["count"]
    reach = min(max(item["z"] for item in accused), 3 * tau) * 1.05
    summary = (
        f"Scores of {total:,} keys that were never issued (mean {decoys['mean']:.3f}, "
        f"deviation {decoys['deviation']:.3f}, highest {decoys['highest']:.2f}), "
        f"the threshold {tau:.2f}, and the accused: "
        + ", ".join(f"{item['recipient']} {item['z']:.2f}" for item in accused)
        + "."
    )
    tallest = max(decoys["counts"])
    plot = Plot(
        linear_axis("z", min(edges[0], -5.0), reach),
        linear_axis("Keys that were never issued", 0, tallest),
        "Scores of the accused beside those of keys that were never issued",
        summary,
    )
    for low, high, count in zip(edges, edges[1:], decoys["counts"], strict=False):
        if count:
            plot.box((low, 0), (high, count), "bar c0")
    plot.line([(tau, 0), (tau, tallest)], "limit")
    plot.dot((facts.decision.next_z, 0), "c2 hollow")
    for place, item in enumerate(accused):
        height = tallest * (0.25 + 0.5 * (place + 1) / (len(accused) + 1))
        (plot.dot if item["z"] <= plot.x.high else plot.triangle)((item["z"], height), "c1")
        plot.note((item["z"], height), f"{item['recipient']} {item['z']:.1f}\u00a0\u00a0", anchor="end", dy=4)
    plot.key("never issued", box_swatch("bar c0"))
    plot.key("threshold", line_swatch("limit"))
    plot.key("highest not accused", dot_swatch("c2 hollow"))
    plot.key("accused (triangle: beyond the axis)", dot_swatch("c1"))
    rows = tuple(zip(edges, edges[1:], decoys["counts"], strict=False))
    return Chart(plot, summary, Table(("z from", "z to", "Keys"), rows, "Scores of keys that were never issued"))


def _assumptions(facts: ReportFacts) -> Table:
    plan, scores = facts.examination.plan, facts.scores
    decoys: Any = scores["decoys"]
    values = {
        "decoys": f"{decoys['count']:,}",
        "entry": plan.plan.release.entry,
        "plan": plan.entry.index,
        "original": plan.plan.release.original,
    }
    rows = tuple((name, support.format(**values)) for name, support in ASSUMPTIONS.items())
    return Table(("Assumption", "Support"), rows)


def _repeat(facts: ReportFacts) -> tuple[Block, ...]:
    return (
        Paragraph(REPEAT),
        Code("python verifier/verify.py PACK.zip --key CASE_KEY.pem --log VKEY"),
        Paragraph(f"stanch {__version__}; plan {facts.examination.plan.plan.digest}."),
    )
