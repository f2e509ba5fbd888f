"""The picture of the scenario ``insider30d``: how long each of the six traces went unseen."""

from typing import TYPE_CHECKING

from stanch.audit.plot import CHART_CSS, Axis, Plot, box_swatch, log_axis

if TYPE_CHECKING:
    from stanch.watch.insider import Scenario

_NAME_COLUMN = 0.02


def draw(found: "Scenario") -> str:
    """Return the scenario's picture as an SVG file of its own."""
    seen = [trace for trace in found.traces if trace.is_found]
    slowest = max((trace.hours for trace in seen), default=0)
    summary = f"{len(seen)} of {len(found.traces)} insiders were found, the last after {slowest:.0f} hours."
    x = log_axis("hours until the first alarm", 0, 3, "{:g}".format)
    plot = Plot(x, Axis("", 0, len(found.traces), ()), "Time to detection of six insiders", summary)
    for place, trace in enumerate(reversed(found.traces)):
        if trace.is_found:
            plot.box((1, place + 0.15), (trace.hours, place + 0.5), "bar c0")
        words = f"{trace.name}: " + (f"{trace.detector}, {trace.hours:.0f} h" if trace.is_found else "not found")
        plot.note((1 + _NAME_COLUMN, place + 0.55), words)
    plot.key("first alarm", box_swatch("bar c0"))
    return plot.svg().replace("<title>", f"<style>{CHART_CSS}</style><title>", 1)
