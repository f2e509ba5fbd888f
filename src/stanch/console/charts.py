"""Charts: Vega-Lite specifications with their data inside, rendered to SVG files of their own addresses.

A page shows a chart by ``<img>``, so that its policy never meets the SVG's own styles; next to it stand one sentence
and a table that say the same. Nothing is ever loaded from a URL while rendering.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.json import encode

from stanch.console.counts import Day, count_days
from stanch.console.desk import Call
from stanch.console.rate import Rate, read_rate
from stanch.crypto import sha256
from stanch.errors import ExternalError, MissingExtraError

SECONDS = 2.0
_KEPT = 64
_INK = {"light": "#52606f", "dark": "#a3b0bd"}
_GRID = {"light": "#e3e8ed", "dark": "#2b3540"}
_COLOURS = {
    "light": {"done": "#0f6b63", "failed": "#c98a1b", "refused": "#b3283a"},
    "dark": {"done": "#5fd0c3", "failed": "#f2c46d", "refused": "#ff9aa4"},
}


class Theme(Struct, frozen=True, forbid_unknown_fields=True):
    """Light or dark."""

    theme: Annotated[str, Meta(pattern=r"^(light|dark)\Z")] = "light"


class _Renderer:
    """Renders in one thread and keeps what it rendered, by data and theme."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="charts")
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def render(self, spec: Callable[[], dict[str, Any]], key: bytes) -> bytes:
        """Return the SVG of a specification.

        Raises:
            ExternalError: It took longer than two seconds; the page has its table.
            MissingExtraError: vl-convert is not installed.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        load_renderer()
        running: Future[bytes] = self._pool.submit(lambda: _convert(spec()))
        try:
            made = running.result(SECONDS)
        except Late as error:
            raise ExternalError("the chart took too long; its table says the same") from error
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made


_RENDERER = _Renderer()


def draw_activity(call: Call, asked: Theme) -> bytes:
    """Draw the acts of four weeks by day, as SVG.

    Raises:
        ExternalError: It took too long.
        MissingExtraError: altair or vl-convert is not installed.
    """
    days = count_days(call, 28)
    key = sha256(encode([asked.theme, [[day.start_ms, day.done, day.failed, day.refused] for day in days]]))
    return _RENDERER.render(lambda: _activity(days, asked.theme), key)


def draw_rate(call: Call, asked: Theme) -> bytes:
    """Draw what a principal asked of models in each hour of a week, and what is usual of it, as SVG.

    Raises:
        NotFound: Nobody of that id is registered.
        ExternalError: It took too long.
        MissingExtraError: altair or vl-convert is not installed.
    """
    rate = read_rate(call, call.workspace.people.directory.facts_of(call.path["id"]).principal.id)
    return _RENDERER.render(lambda: _rate(rate, asked.theme), sha256(encode([asked.theme, rate])))


def tell_activity(days: tuple[Day, ...]) -> str:
    """Return the chart in one sentence."""
    total = sum(day.done + day.failed + day.refused for day in days)
    if not total:
        return f"No act was recorded in {len(days)} days."
    most = max(days, key=lambda day: day.done + day.failed + day.refused)
    acts = most.done + most.failed + most.refused
    refused, failed = sum(day.refused for day in days), sum(day.failed for day in days)
    return (
        f"{total:,} acts in {len(days)} days, most of them ({acts:,}) on "
        f"{datetime.fromtimestamp(most.start_ms / 1000, UTC):%Y-%m-%d}; {refused:,} were refused and {failed:,} failed."
    )


def _activity(days: tuple[Day, ...], theme: str) -> dict[str, Any]:
    import altair as alt  # noqa: PLC0415 - an optional part, loaded before

    rows = [
        {
            "day": f"{datetime.fromtimestamp(day.start_ms / 1000, UTC):%Y-%m-%d}",
            "state": state,
            "acts": getattr(day, state),
        }
        for day in days
        for state in ("done", "failed", "refused")
    ]
    colours, ink, grid, text = _COLOURS[theme], _INK[theme], _GRID[theme], _text(theme)
    data = alt.Data(values=rows)  # type: ignore[no-untyped-call]  # altair leaves it without types
    made = (
        alt.Chart(data, width=900, height=170, background="transparent")
        .mark_bar(cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=alt.X("day:O", title=None, axis=alt.Axis(
                labelAngle=0, labelOverlap=True, ticks=False, domainColor=grid, labelExpr="slice(datum.label, 5)",
                **text
            )),
            y=alt.Y("acts:Q", title="acts", axis=alt.Axis(
                tickMinStep=1, tickCount=4, domain=False, ticks=False, gridColor=grid, **text
            )),
            color=alt.Color(
                "state:N", title=None, scale=alt.Scale(domain=[*colours], range=[*colours.values()]),
                legend=alt.Legend(orient="top", labelColor=ink, labelFontSize=12),
            ),
        )
        .configure_view(stroke=None)
    )  # fmt: skip
    spec: dict[str, Any] = made.to_dict()
    return spec


def _rate(rate: Rate, theme: str) -> dict[str, Any]:
    import altair as alt  # noqa: PLC0415 - an optional part, loaded before

    rows = [
        {"hour": hour.start_ms, "requests": hour.requests, "least": hour.least, "usual": hour.usual, "most": hour.most}
        for hour in rate.hours
    ]
    colours, grid, text = _COLOURS[theme], _GRID[theme], _text(theme)
    data = alt.Data(values=rows)  # type: ignore[no-untyped-call]  # altair leaves it without types
    base = alt.Chart(data, width=900, height=170).encode(
        x=alt.X("hour:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(
            format="%m-%d", tickCount="day", ticks=False, domainColor=grid, grid=False, **text
        )),
    )  # fmt: skip
    axis = alt.Axis(tickMinStep=1, tickCount=4, domain=False, ticks=False, gridColor=grid, **text)
    drawn = base.mark_line(interpolate="step-after", color=colours["done"], strokeWidth=1.5)
    layers = [drawn.encode(y=alt.Y("requests:Q", title="requests", axis=axis))]
    if rate.has_baseline:
        band = base.mark_area(color=colours["failed"], opacity=0.25)
        mean = base.mark_line(color=colours["failed"], strokeDash=[4, 3], strokeWidth=1)
        layers = [band.encode(y="least:Q", y2="most:Q"), mean.encode(y="usual:Q"), *layers]
    spec: dict[str, Any] = alt.layer(*layers, background="transparent").configure_view(stroke=None).to_dict()
    return spec


def _text(theme: str) -> dict[str, Any]:
    """Return how the axes of a chart are written."""
    return {
        "labelColor": _INK[theme],
        "titleColor": _INK[theme],
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    }


@cache
def load_renderer() -> None:
    """Load what renders, which takes longer than any chart.

    Raises:
        MissingExtraError: altair or vl-convert is not installed.
    """
    try:
        import altair as _  # noqa: F401, ICN001, PLC0415 - an optional part, loaded alone
        import vl_convert  # noqa: F401, PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("console") from error
    _convert({"data": {"values": []}, "mark": "bar", "encoding": {}})


def _convert(spec: dict[str, Any]) -> bytes:
    import vl_convert  # noqa: PLC0415 - an optional part, loaded before

    svg: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return svg.encode()
