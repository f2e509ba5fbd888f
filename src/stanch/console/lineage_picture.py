"""The graph of a model's lineage as an SVG file: boxes in columns from what it was made from to its copies.

It is shown by ``<img>``; the page beside it says the same in one sentence and in a table with links. Nothing is told by
colour alone: each box says in words what it is.
"""

from collections import Counter, defaultdict
from xml.sax.saxutils import escape

from stanch.console.charts import Theme
from stanch.console.desk import Call
from stanch.console.lineage import Lineage, Node
from stanch.console.pages.models import lineage_of

_WIDE, _HIGH, _ACROSS, _DOWN, _EDGE = 190, 48, 120, 18, 12
_COLOURS = {
    "light": {"ink": "#17202b", "soft": "#52606f", "line": "#8a96a3", "card": "#ffffff", "own": "#e2f1ef"},
    "dark": {"ink": "#e6ebf0", "soft": "#a3b0bd", "line": "#6d7b89", "card": "#181f27", "own": "#14332f"},
}


def draw_lineage(call: Call, asked: Theme) -> bytes:
    """Draw where a model comes from and where it went, as SVG.

    Raises:
        NotFound: The workspace knows no such model.
    """
    return render_lineage(lineage_of(call, call.path["digest"]), call.path["digest"], asked.theme).encode()


def render_lineage(lineage: Lineage, own: str, theme: str) -> str:
    """Return the picture of a graph; the model ``own`` has a thicker line."""
    colours, places, heights = _COLOURS[theme], dict[str, tuple[int, int]](), defaultdict[int, int](int)
    for node in lineage.nodes:
        places[node.id] = (_EDGE + node.column * (_WIDE + _ACROSS), _EDGE + heights[node.column] * (_HIGH + _DOWN))
        heights[node.column] += 1
    width = 2 * _EDGE + max(node.column for node in lineage.nodes) * (_WIDE + _ACROSS) + _WIDE
    height = 2 * _EDGE + max(heights.values()) * (_HIGH + _DOWN) - _DOWN
    leaving = Counter(edge.source for edge in lineage.edges)
    edges = "".join(
        _arrow(places[edge.source], places[edge.target], edge.how, colours, at_end=leaving[edge.source] > 1)
        for edge in lineage.edges
    )
    boxes = "".join(_box(node, places[node.id], colours, own=node.id == own) for node in lineage.nodes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif"><title>Lineage</title>'
        f"<desc>{escape(lineage.told)}</desc>{edges}{boxes}</svg>"
    )


def _box(node: Node, place: tuple[int, int], colours: dict[str, str], *, own: bool) -> str:
    x, y = place
    fill, stroke = (colours["own"], 3) if own else (colours["card"], 1)
    return (
        f"<g><title>{escape(f'{node.kind} {node.name} {node.digest}'.strip())}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="8" fill="{fill}" stroke="{colours["line"]}" '
        f'stroke-width="{stroke}"/>'
        f'<text x="{x + 12}" y="{y + 20}" font-size="12" fill="{colours["soft"]}">{escape(node.kind)}</text>'
        f'<text x="{x + 12}" y="{y + 37}" font-size="14" fill="{colours["ink"]}">'
        f"{escape(_short(node.name, 20))}</text></g>"
    )


def _arrow(source: tuple[int, int], target: tuple[int, int], how: str, colours: dict[str, str], *, at_end: bool) -> str:
    """Return a line from the right side of one box to the left side of another, its word at the end that is its own."""
    x1, y1, x2, y2 = source[0] + _WIDE, source[1] + _HIGH // 2, target[0], target[1] + _HIGH // 2
    middle = (x1 + x2) // 2
    x, y, anchor = (x2 - 10, y2 - 7, "end") if at_end else (x1 + 8, y1 - 7, "start")
    return (
        f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2 - 7} {y2}" fill="none" stroke="{colours["line"]}" '
        f'stroke-width="1.5"/><path d="M{x2 - 8} {y2 - 4} L{x2} {y2} L{x2 - 8} {y2 + 4} Z" fill="{colours["line"]}"/>'
        f'<text x="{x}" y="{y}" font-size="11" text-anchor="{anchor}" fill="{colours["soft"]}">'
        f"{escape(_short(how, 17))}</text>"
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
