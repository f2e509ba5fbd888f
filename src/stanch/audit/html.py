"""The report of an audit as a page (:mod:`stanch.audit.page`): findings, charts, scores, limits, provenance."""

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

import numpy as np

from stanch.audit.charts import (
    ExposurePoint,
    RocCurve,
    exposure_chart,
    exposure_summary,
    extraction_chart,
    extraction_summary,
    histogram_chart,
    histogram_summary,
    roc_chart,
    roc_summary,
    shared_histogram,
)
from stanch.audit.evidence import Reason
from stanch.audit.features import BoolArray, FloatArray
from stanch.audit.membership import rank_within_kinds
from stanch.audit.page import figure, grid, page
from stanch.audit.rates import Suppressed, tpr_at_fpr
from stanch.audit.reconstruction import CANDIDATES, difference_interval
from stanch.audit.report import Report
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import Exposure, Extraction, RateAt, Reconstruction
from stanch.audit.verdict import CURES, MEANING
from stanch.terms import Interval, Verdict

_BAND_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_SHOWN_ROC = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
_TONES: Final[Mapping[Verdict, str]] = {
    Verdict.LEAK_PROVEN: "bad",
    Verdict.DP_CLAIM_FALSIFIED: "bad",
    Verdict.NO_LEAK_DETECTED: "good",
    Verdict.INCONCLUSIVE: "open",
}


def render_html(report: Report, table: ScoreTable | None = None) -> str:
    """Return the page of a report; with the table of scores it shows their ROC curves and distributions as well."""
    parts = [_head(report), _verdict(report), _section("Findings", _facts(_findings(report)))]
    if table is not None and report.scores:
        parts.append(_section("Membership", _membership_charts(report, table)))
    if report.exposure is not None:
        parts.append(_section("Exposure of the secrets", _exposure(report.exposure)))
    if report.extraction is not None and report.extraction.curve:
        parts.append(_section("Texts that come out", _extraction(report.extraction)))
    if report.scores:
        parts.append(_section("Scores", _scores(report)))
    if report.scan:
        parts.append(_section("Exact scan tests", _scan(report)))
    coverage = [(c.attack, c.reference, "run" if c.run else "NOT RUN", c.why) for c in report.coverage]
    parts.append(_section("What was tested", grid(("Attack", "List", "", "How, or why not"), coverage)))
    parts.append(_section("Limits", "<ul>" + "".join(f"<li>{escape(limit)}</li>" for limit in report.limits) + "</ul>"))
    parts.append(_section("What was audited", _facts(_provenance(report))))
    return page(f"Leak audit: {report.verdict}", "".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


def _head(report: Report) -> str:
    model = "opened from memory" if report.model is None else report.model.digest
    about = f"{report.tool.name} {report.tool.version} · attack pack {report.attack_pack} · {report.created}"
    return (
        f'<header><h1>Leak audit of a tuned model</h1><p class="mute">{escape(about)} · mode: {escape(report.mode)}</p>'
        f"<p>Model <code>{escape(model)}</code></p></header>"
    )


def _verdict(report: Report) -> str:
    reasons = "".join(
        f"<li><b>{escape(reason.value.replace('_', ' '))}</b>: {escape(CURES[Reason(reason)])}</li>"
        for reason in report.reasons
    )
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    return (
        f'<div class="verdict {_TONES[report.verdict]}" role="status"><strong>{escape(report.verdict)}</strong>'
        f"{escape(MEANING[report.verdict])}.{listed}</div>"
    )


def _findings(report: Report) -> list[tuple[str, str]]:
    rows = []
    if report.membership is not None:
        rows.append(
            ("Membership", f"p = {report.membership.p:.2g} against “nothing leaks” ({report.membership.score})")
        )
    if report.epsilon is not None:
        bound = report.epsilon
        name = "Epsilon lower bound" if bound.formal else "Distinguishability scale (no epsilon: coins not proven)"
        rows.append((name, f"≥ {bound.lower:.2f}; the most that {bound.m} coins could show is {bound.ceiling:.2f}"))
        if bound.formal:
            rows.append(("In plain words", _in_words(bound.per_record)))
    if report.power is not None:
        power = report.power
        seen = f"would have seen an attack of AUC {power.auc:.2f} with probability {power.probability.estimate:.2f}"
        rows.append(("Power", f"{seen} (at least {power.required:.2f} wanted)"))
    if report.dp is not None:
        p = "not tested" if report.dp.p_value is None else f"p = {report.dp.p_value:.2g}"
        rows.append(("Privacy claim", f"ε = {report.dp.claim.epsilon:g}, δ = {report.dp.claim.delta:g}: {p}"))
    if report.exposure is not None:
        rows.append(("Exposure", f"p = {report.exposure.fisher_in:.2g} over the secrets that were put in"))
    if report.extraction is not None:
        rows += _came_out(report.extraction)
    rows += [(f"Personal data ({found.kind})", _guessed(found)) for found in report.reconstruction]
    if report.shift is not None:
        shift = report.shift.blind_auc
        rows.append(("Shift gate", f"a test blind to the model reaches AUC {_interval(shift)}"))
    return rows or [("Nothing", "no test could be run")]


def _came_out(extraction: Extraction) -> list[tuple[str, str]]:
    rows = []
    if extraction.secrets is not None:
        secrets = extraction.secrets
        said = f"{secrets.k_in} of {secrets.n_in} put in come out within {extraction.n_budget:,} samples or greedily"
        rows.append(("Secrets", f"{said}; {secrets.k_out} of {secrets.n_out} held back"))
    if extraction.rows is not None:
        found = extraction.rows
        said = f"{found.attributable} of {found.n:,} come out because of the tuning"
        rows.append(
            ("Rows", f"{said}; at most {found.upper:.3%} (95 %, one-sided); {found.too_short} too short to test")
        )
    if extraction.near_verbatim is not None:
        near = extraction.near_verbatim
        said = f"{near.attributable} of {near.n:,} come out because of the tuning, a few tokens changed or not"
        never = f"; {near.control_k} of {near.control_n} never tuned on" if near.control_n else ""
        rows.append(("Rows, nearly word for word", f"{said}; at most {near.upper:.3%} (95 %, one-sided){never}"))
    return rows


def _guessed(found: Reconstruction) -> str:
    """Say how often values are guessed, and by how much oftener than values that were never tuned on."""
    said = f"{found.k} of {found.n} values guessed first of {CANDIDATES}"
    difference = difference_interval(found)
    if difference is None:
        return f"{said}; no values that were never tuned on to compare with"
    low, high = difference
    never = f"{found.control_k} of {found.control_n} never tuned on"
    return f"{said}; {never}; difference of the rates [{100 * low:+.0f}, {100 * high:+.0f}] points (95 %)"


def _in_words(epsilon: float) -> str:
    """Return what an epsilon lower bound of one record means for a guesser."""
    if epsilon == 0:
        return "nothing shows that a guesser does better than the toss of a coin; that is no promise of privacy"
    right = 1 / (1 + math.exp(-epsilon))
    return (
        "whether a record was tuned on can be guessed: a limit on guessing that this model keeps lies at "
        f"{right:.0%} right or higher, where the toss of a coin is right half of the time"
    )


def _membership_charts(report: Report, table: ScoreTable) -> str:
    tier = report.scores[0].tier
    chosen = table.rows() if report.mode == "holdout" else table.formal_tiers((tier,))[tier]
    names = list(dict.fromkeys(score.name for score in report.scores if score.tier == tier))
    if report.mode == "holdout":
        columns = {name: chosen.scores[name] for name in names}
    else:
        columns = {name: rank_within_kinds(chosen.scores[name], chosen.kinds) for name in names}
    outside = int((~chosen.member).sum())
    curves = [
        RocCurve(name, roc_points(values, chosen.member), _band(values, chosen.member) if name == names[0] else ())
        for name, values in columns.items()
    ]
    rates = [(f, *(max(y for x, y in curve.points if x <= f) for curve in curves)) for f in _SHOWN_ROC]
    roc = figure(
        roc_chart(curves, nonmembers=outside),
        roc_summary(curves, nonmembers=outside),
        ("False-positive rate", *(f"{name}: true-positive rate" for name in names)),
        rates,
    )
    shown = chosen.scores[names[0]]
    groups = {"members": shown[chosen.member].tolist(), "non-members": shown[~chosen.member].tolist()}
    shares, edges = shared_histogram(groups)
    bins = [(edges[i], edges[i + 1], *(share[i] for share in shares.values())) for i in range(len(edges) - 1)]
    histogram = figure(
        histogram_chart(groups, x_title=f"score {names[0]}"),
        histogram_summary(groups, x_title=f"score {names[0]}"),
        ("From", "To", *(f"Share of {name}" for name in shares)),
        bins,
    )
    return roc + histogram


def roc_points(values: FloatArray, member: BoolArray) -> tuple[tuple[float, float], ...]:
    """Return the corners of the empirical ROC curve, from the strictest threshold to (1, 1)."""
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, [True]))
    hits = np.cumsum(member[order])[last] / member.sum()
    alarms = np.cumsum(~member[order])[last] / (~member).sum()
    return ((0.0, 0.0), *((float(x), float(y)) for x, y in zip(alarms, hits, strict=True)))


def _band(values: FloatArray, member: BoolArray) -> tuple[tuple[float, float, float], ...]:
    """Return the 95 % band where there are non-members enough to know the threshold."""
    found = ((rate, tpr_at_fpr(values, member, rate)) for rate in _BAND_RATES)
    return tuple((rate, i.lower, i.upper) for rate, i in found if not isinstance(i, Suppressed))


def _exposure(exposure: Exposure) -> str:
    most = math.log2(exposure.candidates + 1)
    points = [ExposurePoint(s.id, s.bits, s.member, at_least=not s.exact and s.bits >= most) for s in exposure.secrets]
    rows = [
        (s.id, "put in" if s.member else "held back", s.bits, "exact" if s.exact else "sampled", s.sampled_p)
        for s in exposure.secrets
    ]
    chart = exposure_chart(points, resolvable_bits=most)
    caption = exposure_summary(points, resolvable_bits=most)
    return figure(chart, caption, ("Secret", "", "Bits", "Rank", "p of its sampled rank"), rows)


def _extraction(extraction: Extraction) -> str:
    curves = {"tuned model": [(float(p.samples), p.target) for p in extraction.curve]}
    base = [(float(p.samples), p.base) for p in extraction.curve if p.base is not None]
    control = [(float(p.samples), p.control) for p in extraction.curve if p.control is not None]
    curves |= {"base model": base} if base else {}
    curves |= {"rows never tuned on": control} if control else {}
    rows = zip(*([y for _, y in curve] for curve in curves.values()), strict=True)
    return figure(
        extraction_chart(curves, budget=extraction.n_budget),
        extraction_summary(curves, budget=extraction.n_budget),
        ("Samples", *curves),
        [(p.samples, *row) for p, row in zip(extraction.curve, rows, strict=True)],
    )


def _scores(report: Report) -> str:
    rows = [
        (
            score.name,
            score.tier,
            f"{score.n_member} / {score.n_nonmember}",
            _interval(score.auc),
            *(_rate(rate) for rate in (*score.tpr, *score.tnr)),
        )
        for score in report.scores
    ]
    first = report.scores[0]
    rates = [f"TPR at {r.rate:.1%} FPR" for r in first.tpr] + [f"TNR at {r.rate:.1%} FNR" for r in first.tnr]
    return grid(("Score", "Tier", "Members / others", "AUC [95 %]", *rates), rows)


def _rate(rate: RateAt) -> str:
    return _interval(rate.interval) if rate.interval is not None else f"needs {rate.needs:,} records"


def _interval(value: Interval) -> str:
    return f"{value.estimate:.3f} [{value.lower:.3f}, {value.upper:.3f}]"


def _scan(report: Report) -> str:
    rows = [(s.score, s.order.replace("_", "-"), s.tier, s.m, s.lower, f"{s.p_null:.2g}") for s in report.scan]
    return grid(("Score", "Order", "Tier", "Coins", "Lower bound", "p against “nothing leaks”"), rows)


def _provenance(report: Report) -> list[tuple[str, str]]:
    rows = [
        ("Adapter", report.adapter),
        ("Base", report.base),
        ("Tokenizer", report.tokenizer_digest),
        ("Data set", report.dataset_digest),
        ("Canary plan", None if report.plan is None else report.plan.plan_id),
        ("Commitment", None if report.plan is None else report.plan.commitment),
        ("Score table", report.scores_digest),
        ("Weights", None if report.features is None else report.features.dtype),
        ("Tokens scored", None if report.features is None else f"{report.features.tokens:,}"),
    ]
    files = () if report.model is None else report.model.files
    listed = [(file.name, f"{file.digest} · {file.size:,} bytes") for file in files]
    return [(name, value) for name, value in rows if value] + listed
