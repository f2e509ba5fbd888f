"""The four charts of a leak report, as SVG text from plain numbers; pages that show them include ``CHART_CSS`` once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stanch.audit.plot import CHART_CSS, Plot, Point, box_swatch, dot_swatch, line_swatch, linear_axis, log_axis

__all__ = [
    "CHART_CSS",
    "ExposurePoint",
    "RocCurve",
    "exposure_chart",
    "extraction_chart",
    "histogram_chart",
    "roc_chart",
]

_ROC_FLOOR = -4
_COLOURS = ("c0", "c1", "c2", "c3")


@dataclass(frozen=True, slots=True)
class RocCurve:
    """One attack's curve: (false-positive rate, true-positive rate) from (0, ·) to (1, 1), and its band where known."""

    label: str
    points: tuple[Point, ...]
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ExposurePoint:
    """One secret: exposure in bits, whether it was put in, and whether the bits are only a lower bound."""

    label: str
    bits: float
    member: bool
    at_least: bool


def roc_chart(curves: Sequence[RocCurve], *, nonmembers: int) -> str:
    """Draw ROC curves on log-log axes from 1e-4, with their bands, the diagonal, and what the data cannot resolve.

    Args:
        curves: At most four.
        nonmembers: Their number; below 1 / nonmembers a false-positive rate cannot be observed.
    """
    show = _power_or_percent
    plot = Plot(
        log_axis("False-positive rate", _ROC_FLOOR, 0, show),
        log_axis("True-positive rate", _ROC_FLOOR, 0, show),
        "How well an attacker tells members from non-members",
        roc_summary(curves, nonmembers=nonmembers),
    )
    floor = 10.0**_ROC_FLOOR
    resolved = 1 / max(nonmembers, 1)
    if resolved > floor:
        plot.box((floor, floor), (resolved, 1), "veil")
        plot.note((floor, floor), f"  fewer than one of {nonmembers:,} non-members", dy=-8)
    plot.line([(floor, floor), (1, 1)], "guide")
    for curve, colour in zip(curves, _COLOURS, strict=False):
        if curve.band:
            plot.area(curve.band, f"area {colour}")
        plot.line(_steps(curve.points), f"line {colour}")
        plot.key(curve.label, line_swatch(f"line {colour}"))
    plot.key("guessing", line_swatch("guide"))
    return plot.svg()


def roc_summary(curves: Sequence[RocCurve], *, nonmembers: int) -> str:
    """Say in one sentence what the ROC chart shows."""
    lowest = 1 / max(nonmembers, 1)
    found = ", ".join(f"{curve.label} {_rate_at(curve, lowest):.0%}" for curve in curves) or "no attack was run"
    return f"Share of members found at the lowest false-positive rate seen here ({lowest:.2%}): {found}."


def histogram_chart(groups: Mapping[str, Sequence[float]], *, x_title: str, bins: int = 30) -> str:
    """Draw the distribution of each group's scores on shared bins, as shares of the group.

    Args:
        groups: At most four, by label; each must hold a value.
        x_title: What the scores are.
        bins: Number of bins between the smallest and the largest score.
    """
    shares, edges = shared_histogram(groups, bins=bins)
    plot = Plot(
        linear_axis(x_title, float(edges[0]), float(edges[-1])),
        linear_axis("Share of the group", 0.0, max(max(s) for s in shares.values()), _percent),
        f"Distribution of {x_title}",
        histogram_summary(groups, x_title=x_title),
    )
    for (label, share), colour in zip(shares.items(), _COLOURS, strict=False):
        for low, high, height in zip(edges, edges[1:], share, strict=False):
            if height > 0:
                plot.box((low, 0), (high, height), f"bar {colour}")
        plot.key(f"{label} ({len(groups[label])})", box_swatch(f"bar {colour}"))
    return plot.svg()


def shared_histogram(
    groups: Mapping[str, Sequence[float]], *, bins: int = 30
) -> tuple[dict[str, list[float]], list[float]]:
    """Return each group's share in every bin, and the edges of the bins (one more than bins)."""
    values = np.concatenate([np.asarray(v, dtype=float) for v in groups.values()])
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    shares = {label: np.histogram(v, bins=edges)[0] / len(v) for label, v in groups.items()}
    return {label: [float(s) for s in share] for label, share in shares.items()}, [float(e) for e in edges]


def histogram_summary(groups: Mapping[str, Sequence[float]], *, x_title: str) -> str:
    """Say in one sentence what the histogram shows."""
    medians = ", ".join(f"{label} {float(np.median(np.asarray(v, dtype=float))):.3g}" for label, v in groups.items())
    return f"Median {x_title}: {medians}."


def exposure_chart(points: Sequence[ExposurePoint], *, resolvable_bits: float) -> str:
    """Draw the exposure of each secret, largest first; a triangle is at the limit of a sampled rank and may be more."""
    ordered = sorted(points, key=lambda p: (-p.bits, not p.member, p.label))
    plot = Plot(
        linear_axis("Secrets, by falling exposure", 0, max(len(ordered) + 1, 2), lambda v: f"{v:.0f}" if v else ""),
        linear_axis("Exposure (bits)", 0, max(resolvable_bits, 1.0, *(p.bits for p in points)) * 1.05),
        "Exposure of each secret",
        exposure_summary(points, resolvable_bits=resolvable_bits),
    )
    plot.line([(0, resolvable_bits), (plot.x.high, resolvable_bits)], "limit")
    plot.line([(0, 1), (plot.x.high, 1)], "guide")
    for rank, point in enumerate(ordered, start=1):
        css = "c0" if point.member else "c1 hollow"
        (plot.triangle if point.at_least else plot.dot)((rank, point.bits), css)
    plot.key("put in", dot_swatch("c0"))
    plot.key("held back", dot_swatch("c1 hollow"))
    plot.key("median if never seen", line_swatch("guide"))
    plot.key("most that a sample resolves", line_swatch("limit"))
    return plot.svg()


def exposure_summary(points: Sequence[ExposurePoint], *, resolvable_bits: float) -> str:
    """Say in one sentence what the exposure chart shows."""
    parts = []
    for name, member in (("put in", True), ("held back", False)):
        bits = [p.bits for p in points if p.member == member]
        if bits:
            parts.append(
                f"{len(bits)} secrets {name}: median {float(np.median(bits)):.1f}, largest {max(bits):.1f} bits"
            )
    return f"{'; '.join(parts) or 'No secret was tested'} (a sampled rank resolves at most {resolvable_bits:.1f} bits)."


def extraction_chart(curves: Mapping[str, Sequence[Point]], *, budget: int) -> str:
    """Draw the share of texts that come out within n samples, for n from 1 to a million, and mark the tested budget.

    Args:
        curves: (n, share) with rising n, by label; at most four.
        budget: The number of samples at which the audit decides.
    """
    top = max((share for curve in curves.values() for _, share in curve), default=0.0)
    plot = Plot(
        log_axis("Samples drawn by the attacker", 0, 6, lambda v: f"{v:,.0f}"),
        linear_axis("Share of texts that come out", 0.0, max(top, 0.01), _percent),
        "Texts that can be drawn out of the model",
        extraction_summary(curves, budget=budget),
    )
    plot.line([(budget, 0), (budget, plot.y.high)], "limit")
    for (label, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        plot.line(curve, f"line {colour}")
        plot.key(label, line_swatch(f"line {colour}"))
    plot.key(f"tested: {budget:,} samples", line_swatch("limit"))
    return plot.svg()


def extraction_summary(curves: Mapping[str, Sequence[Point]], *, budget: int) -> str:
    """Say in one sentence what the extraction chart shows."""
    shares = {label: max((s for n, s in curve if n <= budget), default=0.0) for label, curve in curves.items()}
    told = ", ".join(f"{label} {share:.1%}" for label, share in shares.items()) or "no text was tested"
    return f"Share of texts that come out within {budget:,} samples: {told}."


def _steps(points: Sequence[Point]) -> list[Point]:
    """Return the corners of the staircase through ``points`` (the true-positive rate holds until it rises)."""
    start = max(i for i, point in enumerate(points) if point[0] == points[0][0])
    corners = [points[start]]
    for x, y in points[start + 1 :]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _rate_at(curve: RocCurve, rate: float) -> float:
    return max((y for x, y in curve.points if x <= rate), default=0.0)


def _percent(value: float) -> str:
    return f"{value:.3g}".rstrip(".") if 0 < value < 1e-6 else f"{100 * value:g}\u202f%"


def _power_or_percent(value: float) -> str:
    return f"{100 * value:g}\u202f%" if value > 0 and math.isfinite(value) else ""
