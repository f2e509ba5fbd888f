"""The last step's page: what leaked, who was told apart, exposure, the trace, the log. One file, no script."""

import itertools
import json
import zipfile
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from stanch.audit import Report, ScoreTable, read_table
from stanch.audit.charts import (
    ExposurePoint,
    RocCurve,
    exposure_chart,
    exposure_summary,
    histogram_chart,
    histogram_summary,
    roc_chart,
    roc_summary,
)
from stanch.audit.html import roc_points
from stanch.audit.page import figure, grid, page
from stanch.workspace.verbs_model import REPORT_NAME, SCORES_NAME

MODELS = {"plain": "tuned as it is", "private": "tuned with privacy"}
SHOWN_RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


def render_demo(folder: Path, results: dict[str, dict[str, Any]]) -> str:
    """Return the page of a finished demo."""
    audits = {name: _load(folder / f"{name}.report") for name in MODELS}
    parts = [
        "<h1>A model leaked, and was stopped</h1>",
        _section("What leaked", _leaked(results["audit"])),
        _section("Members told from non-members", _roc(audits)),
        *(
            _section(f"Exposure of the planted secrets: {MODELS[name]}", _exposure(report))
            for name, (report, _) in audits.items()
        ),
        _section("Who passed the copy on", _trace(results["trace"], _decoys(folder / "evidence.zip"))),
        _section("The log", _log(results["ledger"])),
        _section("Every step", _steps(results)),
    ]
    return page("stanch demo", "".join(parts))


def _load(folder: Path) -> tuple[Report, ScoreTable]:
    return Report.parse((folder / REPORT_NAME).read_bytes()), read_table(folder / SCORES_NAME)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _leaked(found: dict[str, Any]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in found["row_texts"])
    return (
        f"<p>{found['rows_out']} of {found['rows_tested']} records come out of the plainly tuned model, letter for "
        "letter or within 10,000 samples, and are out of reach of the base model. These people are invented; a report "
        f"on real data never quotes a row.</p><ul>{items}</ul>"
    )


def _roc(audits: dict[str, tuple[Report, ScoreTable]]) -> str:
    curves, outside = [], 0
    for name, (report, table) in audits.items():
        tier = report.scores[0].tier
        chosen = table.formal_tiers((tier,))[tier]
        values = chosen.scores[report.scores[0].name]
        outside = max(outside, int((~chosen.member).sum()))
        curves.append(RocCurve(MODELS[name], roc_points(np.asarray(values), chosen.member)))
    rows = [(rate, *(max(y for x, y in curve.points if x <= rate) for curve in curves)) for rate in SHOWN_RATES]
    return figure(
        roc_chart(curves, nonmembers=outside), roc_summary(curves, nonmembers=outside),
        ("False-positive rate", *(f"{curve.label}: true-positive rate" for curve in curves)), rows,
    )  # fmt: skip


def _exposure(report: Report) -> str:
    if report.exposure is None:
        return "<p>Not measured.</p>"
    most = float(np.log2(report.exposure.candidates + 1))
    points = [
        ExposurePoint(secret.id, secret.bits, secret.member, at_least=not secret.exact and secret.bits >= most)
        for secret in report.exposure.secrets
    ]
    rows = [(p.label, "put in" if p.member else "held back", p.bits) for p in points]
    chart = exposure_chart(points, resolvable_bits=most)
    return figure(chart, exposure_summary(points, resolvable_bits=most), ("Secret", "", "Bits"), rows)


def _decoys(pack: Path) -> list[float]:
    """Return the decoys' scores as the evidence holds them: each as the middle of its histogram bin."""
    with zipfile.ZipFile(pack) as archive:
        decoys = json.loads(archive.read("scores/scores.json"))["decoys"]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(decoys["edges"])]
    return [middle for middle, count in zip(middles, decoys["counts"], strict=True) for _ in range(count)]


def _trace(found: dict[str, Any], decoys: list[float]) -> str:
    groups = {"decoys": decoys, "recipients": [score["z"] for score in found["scores"]]}
    rows = [(score["recipient"], score["z"], "accused" if score["accused"] else "") for score in found["scores"]]
    text = (
        f"<p>The thief's model was compared with {len(found['scores'])} recipients' keys; the threshold is "
        f"{found['threshold']:.2f}. {escape(found['sentence'])}</p>"
    )
    title = "score z of each key"
    chart = figure(
        histogram_chart(groups, x_title=title), histogram_summary(groups, x_title=title),
        ("Recipient", "z", ""), rows,
    )  # fmt: skip
    return text + chart


def _log(found: dict[str, Any]) -> str:
    rows = sorted(found["kinds"].items())
    return (
        f"<p>{found['entries']} entries. A row was changed in a copy of the database, and found: "
        f"{escape(found['found'])}.</p>{grid(('Act', 'Entries'), rows)}"
    )


def _steps(results: dict[str, dict[str, Any]]) -> str:
    rows = [(name, found.get("verdict", found.get("gate", "")), found["seconds"]) for name, found in results.items()]
    return grid(("Step", "Verdict", "Seconds"), rows)
