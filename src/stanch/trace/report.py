"""The report of a case as one HTML file for people: no script, no request, every value escaped."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from stanch import __version__
from stanch.audit.html import figure, grid, page
from stanch.audit.plot import Plot, box_swatch, dot_swatch, line_swatch, linear_axis
from stanch.crypto import parse_json
from stanch.mark import DecoyStatistics, Detection
from stanch.terms import JsonValue
from stanch.trace.custody import Custody
from stanch.trace.decision import Accused, error_sentence
from stanch.trace.examination import Examination
from stanch.trace.wording import ALTERNATIVES, ASSUMPTIONS, METHOD, NOT_SHOWN, REPEAT, VARIANTS


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report is made from: the case file, custody, decision, examination, release and the pack's scores."""

    case_file: bytes
    custody: Custody
    decision: Accused
    examination: Examination
    release: str
    scores: dict[str, JsonValue]


def render_report(facts: ReportFacts) -> str:
    """Return the page of an accusation. The same facts give the same bytes."""
    plan = facts.examination.plan.plan
    case: Any = parse_json(facts.case_file, what="case.json")
    names = ", ".join(item.recipient for item in facts.decision.recipients)
    body = "".join(
        (
            _head(facts, names),
            _section("The question", _paragraphs([_question(case, facts.release)])),
            _section("What was received", _received(case, facts)),
            _section("The method", _paragraphs(METHOD)),
            _section("The result", _result(facts)),
            _section("What this does not show", _items(NOT_SHOWN)),
            _section("Assumptions, and what supports each", _assumptions(facts)),
            _section("Other explanations, and what speaks to each", grid(("Explanation", ""), ALTERNATIVES.items())),
            _section("How to repeat this", _repeat(facts)),
        )
    )
    return page(f"Case {plan.case}: accused {names}", body)


def _head(facts: ReportFacts, names: str) -> str:
    plan = facts.examination.plan.plan
    said = f"The suspect was made from the copy of release {facts.release} that was made for: {names}."
    return (
        f'<header><h1>From whose copy was this made?</h1><p class="mute">Case {escape(plan.case)}, examined '
        f"{escape(facts.examination.examined_at)}</p></header>"
        f'<div class="verdict bad" role="status"><strong>Accused: {escape(names)}</strong>'
        f"{escape(said)} {escape(error_sentence(plan))}</div>"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _items(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _question(case: Any, release: str) -> str:  # noqa: ANN401 - a parsed JSON document
    return (
        f"A suspect was received from {case['received_from']}, discovered {case['discovered']}: {case['description']} "
        f"From which recipients' copies of release {release} was it made, if from any?"
    )


def _received(case: Any, facts: ReportFacts) -> str:  # noqa: ANN401 - a parsed JSON document
    files = [(item.name, item.bytes, item.sha256) for item in facts.custody.lines[0].items]
    acts = [(line.n, line.at, line.actor, line.action, line.note) for line in facts.custody.lines]
    return (
        f"<p>Suspect <code>{escape(case['suspect'])}</code></p>"
        + grid(("File", "Bytes", "SHA-256"), files)
        + "<h3>Custody</h3>"
        + grid(("", "At", "By", "Act", "Note"), acts)
    )


def _result(facts: ReportFacts) -> str:
    plan, found = facts.examination.plan.plan, facts.examination.detection
    accused = [(i.recipient, i.z, i.log10_p, i.variant, i.leaf) for i in facts.decision.recipients]
    numbers = (
        ("Threshold τ", plan.threshold),
        ("Recipients n", plan.n),
        ("Analyses T", plan.analyses),
        ("ε", plan.epsilon),
        ("Second highest: best z of those not accused", f"{facts.decision.next_z:.2f}"),
        ("Share of the marked weights that could be compared", f"{found.matched:.1%} of {found.coordinates:,}"),
    )
    tried = [
        (str(result.variant), VARIANTS[result.variant], result.matched, result.rounds, _told(result.decoys))
        for result in found.variants
    ]
    return (
        grid(("Accused", "z", "log10 p at most", "Variant", "Leaf"), accused)
        + f"<p>{escape(error_sentence(plan))}</p>"
        + grid(("", ""), [(name, str(value)) for name, value in numbers])
        + _histogram(facts, found)
        + "<h3>Analyses that were run</h3>"
        + grid(("Variant", "What it does", "Weights compared", "Rounds", "Keys never issued"), tried)
    )


def _told(decoys: DecoyStatistics | None) -> str:
    if decoys is None:
        return "no features"
    return f"{decoys.count:,}: mean {decoys.mean:.3f}, deviation {decoys.sd:.3f}, highest {decoys.maximum:.2f}"


def _histogram(facts: ReportFacts, found: Detection) -> str:
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
        plot.note((item["z"], height), f"{item['recipient']} {item['z']:.1f}  ", anchor="end", dy=4)
    plot.key("never issued", box_swatch("bar c0"))
    plot.key("threshold", line_swatch("limit"))
    plot.key("highest not accused", dot_swatch("c2 hollow"))
    plot.key("accused (triangle: beyond the axis)", dot_swatch("c1"))
    rows = zip(edges, edges[1:], decoys["counts"], strict=False)
    return figure(plot.svg(), summary, ("z from", "z to", "Keys"), rows)


def _assumptions(facts: ReportFacts) -> str:
    plan, scores = facts.examination.plan, facts.scores
    decoys: Any = scores["decoys"]
    values = {
        "decoys": f"{decoys['count']:,}",
        "entry": plan.plan.release.entry,
        "plan": plan.entry.index,
        "original": plan.plan.release.original,
    }
    return grid(("Assumption", "Support"), [(name, support.format(**values)) for name, support in ASSUMPTIONS.items()])


def _repeat(facts: ReportFacts) -> str:
    versions = f"stanch {__version__}; plan {facts.examination.plan.plan.digest}."
    return (
        _paragraphs([REPEAT])
        + "<p><code>python verifier/verify.py PACK.zip --key CASE_KEY.pem --log VKEY</code></p>"
        + _paragraphs([versions])
    )
