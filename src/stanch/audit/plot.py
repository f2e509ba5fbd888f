"""Axes, scales and marks of the report's charts, as SVG text; no drawing library, no script, no font of its own."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 36, 40, 54
_CHARACTER = 7.3

Point = tuple[float, float]

CHART_CSS = """
.stanch-chart{--ink:#1f2933;--soft:#616e7c;--grid:#e4e7eb;--paper:#ffffff;
--s0:#0b69a3;--s1:#c2410c;--s2:#0f766e;--s3:#6d28d9;--warn:#b91c1c;
display:block;width:100%;max-width:720px;height:auto;font-family:system-ui,"DejaVu Sans",sans-serif;
background:var(--paper)}
.stanch-chart text{fill:var(--ink);font-size:12px}.stanch-chart .soft{fill:var(--soft)}
.stanch-chart .name{font-weight:600}
.stanch-chart .grid{stroke:var(--grid);stroke-width:1}.stanch-chart .axis{stroke:var(--soft);stroke-width:1;fill:none}
.stanch-chart .guide{stroke:var(--soft);stroke-width:1.25;stroke-dasharray:5 4;fill:none}
.stanch-chart .limit{stroke:var(--warn);stroke-width:1.25;stroke-dasharray:2 3;fill:none}
.stanch-chart .veil{fill:var(--soft);fill-opacity:.09;stroke:none}
.stanch-chart .dot{stroke-width:1.75}
.stanch-chart .c0{stroke:var(--s0);fill:var(--s0)}.stanch-chart .c1{stroke:var(--s1);fill:var(--s1)}
.stanch-chart .c2{stroke:var(--s2);fill:var(--s2)}.stanch-chart .c3{stroke:var(--s3);fill:var(--s3)}
.stanch-chart .line{fill:none;stroke-width:2;stroke-linejoin:round}
.stanch-chart .area{fill-opacity:.16;stroke:none}.stanch-chart .bar{fill-opacity:.45;stroke-width:1.25}
.stanch-chart .hollow{fill:var(--paper)}
@media (prefers-color-scheme:dark){.stanch-chart{--ink:#e4e7eb;--soft:#9aa5b1;--grid:#323f4b;--paper:#1b232c;
--s0:#63b3ed;--s1:#fb923c;--s2:#4fd1c5;--s3:#b794f4;--warn:#fc8181}}
@media print{.stanch-chart{--ink:#1f2933;--soft:#616e7c;--grid:#e4e7eb;--paper:#ffffff;
--s0:#0b69a3;--s1:#c2410c;--s2:#0f766e;--s3:#6d28d9;--warn:#b91c1c}}
"""
"""The style sheet every page with one of these charts must contain once."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its title, the values at both ends, the ticks, and whether it is logarithmic."""

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False
    show: Callable[[float], str] = "{:g}".format

    def place(self, value: float) -> float:
        """Return where ``value`` stands between the ends (0 to 1); values beyond an end stand on it."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def log_axis(title: str, low_power: int, high_power: int, show: Callable[[float], str]) -> Axis:
    """Return a logarithmic axis with a tick at each power of ten."""
    ticks = tuple(10.0**power for power in range(low_power, high_power + 1))
    return Axis(title, ticks[0], ticks[-1], ticks, log=True, show=show)


def linear_axis(title: str, low: float, high: float, show: Callable[[float], str] = "{:g}".format) -> Axis:
    """Return a linear axis from ``low`` to at least ``high``, with about five ticks at round numbers."""
    reach = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(reach / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if reach / (power * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = tuple(round(step * i, 10) for i in range(first, last + 1))
    return Axis(title, ticks[0], ticks[-1], ticks, show=show)


@dataclass(slots=True)
class Plot:
    """A frame with two axes, to which marks are added; :meth:`svg` returns the finished picture."""

    x: Axis
    y: Axis
    title: str
    summary: str
    _marks: list[str] = field(default_factory=list)
    _keys: list[tuple[str, str]] = field(default_factory=list)

    def at(self, point: Point) -> Point:
        """Return the picture coordinates of a point given in data coordinates."""
        return (
            round(_LEFT + self.x.place(point[0]) * (WIDTH - _LEFT - _RIGHT), 2),
            round(HEIGHT - _BOTTOM - self.y.place(point[1]) * (HEIGHT - _TOP - _BOTTOM), 2),
        )

    def line(self, points: Iterable[Point], css: str) -> None:
        """Join ``points`` by a line."""
        self._marks.append(f'<polyline class="{css}" points="{self._path(points)}"/>')

    def area(self, band: Sequence[tuple[float, float, float]], css: str) -> None:
        """Fill between the lower and the upper value of each (x, lower, upper)."""
        outline = [(x, upper) for x, _, upper in band] + [(x, lower) for x, lower, _ in reversed(band)]
        self._marks.append(f'<polygon class="{css}" points="{self._path(outline)}"/>')

    def box(self, start: Point, end: Point, css: str) -> None:
        """Fill the rectangle between two corners."""
        (x0, y0), (x1, y1) = self.at(start), self.at(end)
        self._marks.append(
            f'<rect class="{css}" x="{min(x0, x1):g}" y="{min(y0, y1):g}" '
            f'width="{abs(x1 - x0):.2f}" height="{abs(y1 - y0):.2f}"/>'
        )

    def dot(self, point: Point, css: str) -> None:
        """Mark a point by a disc."""
        x, y = self.at(point)
        self._marks.append(f'<circle class="dot {css}" cx="{x:g}" cy="{y:g}" r="4"/>')

    def triangle(self, point: Point, css: str) -> None:
        """Mark a point that is a lower bound by a triangle pointing up."""
        x, y = self.at(point)
        self._marks.append(f'<path class="dot {css}" d="M{x - 5:g} {y + 4:g}h10l-5 -9z"/>')

    def note(self, point: Point, text: str, *, anchor: str = "start", dy: float = -5) -> None:
        """Write a small remark beside a point."""
        x, y = self.at(point)
        self._marks.append(f'<text class="soft" x="{x:g}" y="{y + dy:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def key(self, label: str, swatch: str) -> None:
        """Add an entry to the legend; ``swatch`` is an SVG mark drawn around (10, 0)."""
        self._keys.append((label, swatch))

    def svg(self) -> str:
        """Return the picture as one ``svg`` element with a title and a one-sentence description."""
        return (
            f'<svg class="stanch-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.summary)}</desc>"
            f"{self._grid()}{''.join(self._marks)}{self._legend()}</svg>"
        )

    def _path(self, points: Iterable[Point]) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in map(self.at, points))

    def _grid(self) -> str:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for tick in self.x.ticks:
            x, _ = self.at((tick, self.y.low))
            parts.append(
                f'<path class="grid" d="M{x:g} {_TOP}V{bottom}"/>'
                f'<text class="soft" x="{x:g}" y="{bottom + 18}" text-anchor="middle">'
                f"{escape(self.x.show(tick))}</text>"
            )
        for tick in self.y.ticks:
            _, y = self.at((self.x.low, tick))
            parts.append(
                f'<path class="grid" d="M{_LEFT} {y:g}H{right}"/>'
                f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:g}" text-anchor="end">{escape(self.y.show(tick))}</text>'
            )
        middle = (_TOP + bottom) // 2
        parts.append(
            f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
            f'<text class="name" x="{(_LEFT + right) // 2}" y="{HEIGHT - 12}" text-anchor="middle">'
            f"{escape(self.x.title)}</text>"
            f'<text class="name" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
            f"{escape(self.y.title)}</text>"
        )
        return "".join(parts)

    def _legend(self) -> str:
        parts, x = [], float(_LEFT)
        for label, swatch in self._keys:
            parts.append(f'<g transform="translate({x:g} 20)">{swatch}<text x="26" y="4">{escape(label)}</text></g>')
            x += 26 + _CHARACTER * len(label) + 14
        return "".join(parts)


def line_swatch(css: str) -> str:
    """Return the legend mark of a line."""
    return f'<path class="{css}" d="M0 0H20"/>'


def dot_swatch(css: str) -> str:
    """Return the legend mark of a disc."""
    return f'<circle class="dot {css}" cx="10" cy="0" r="4"/>'


def box_swatch(css: str) -> str:
    """Return the legend mark of a bar."""
    return f'<rect class="{css}" x="2" y="-6" width="16" height="12"/>'
