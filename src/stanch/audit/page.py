"""One HTML page for people: no script, no request, every value escaped, good in print and in the dark.

Reports of audits, traces and the demo are such pages; each chart has its description and its numbers as a table.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from stanch.audit.plot import CHART_CSS

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root{color-scheme:light dark;--bg:#f5f7fa;--card:#ffffff;--text:#1f2933;--mute:#52606d;--edge:#d9e0e7;
--bad:#a61b1b;--badbg:#fdeaea;--good:#0f6b3c;--goodbg:#e6f6ec;--open:#8a5a00;--openbg:#fff5dd}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--text);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.2rem 0 .7rem}p{margin:.4rem 0}
.mute{color:var(--mute)}code{font-family:ui-monospace,monospace;font-size:.86em;overflow-wrap:anywhere}
.verdict{border-radius:10px;padding:1rem 1.25rem;margin:1.25rem 0;border-left:6px solid}
.verdict strong{font-size:1.35rem;letter-spacing:.01em;display:block}
.bad{background:var(--badbg);border-color:var(--bad)}.bad strong{color:var(--bad)}
.good{background:var(--goodbg);border-color:var(--good)}.good strong{color:var(--good)}
.open{background:var(--openbg);border-color:var(--open)}.open strong{color:var(--open)}
.verdict ul{margin:.5rem 0 0;padding-left:1.2rem}
table{border-collapse:collapse;width:100%;background:var(--card);font-size:.92em}
th,td{padding:.4rem .7rem;text-align:left;border-bottom:1px solid var(--edge);vertical-align:top}
thead th{color:var(--mute);font-weight:600;font-size:.88em}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.facts th{width:13rem;font-weight:600}.scroll{overflow-x:auto;border:1px solid var(--edge);border-radius:8px}
figure{margin:1rem 0;padding:1rem;background:var(--card);border:1px solid var(--edge);border-radius:10px}
figcaption{color:var(--mute);margin-top:.5rem}details{margin-top:.6rem}summary{cursor:pointer;color:var(--mute)}
@media (prefers-color-scheme:dark){:root{--bg:#11171d;--card:#1b232c;--text:#e4e7eb;--mute:#9aa5b1;--edge:#323f4b;
--bad:#fc8181;--badbg:#3a1d1f;--good:#68d391;--goodbg:#17301f;--open:#f6c453;--openbg:#352a12}}
@media print{:root{--bg:#ffffff;--card:#ffffff;--text:#000000;--mute:#444444;--edge:#bbbbbb;--bad:#a61b1b;
--badbg:#ffffff;--good:#0f6b3c;--goodbg:#ffffff;--open:#8a5a00;--openbg:#ffffff}
main{max-width:none;padding:0}figure,.verdict,tr{break-inside:avoid}summary{display:none}}
"""


def page(title: str, body: str) -> str:
    """Return a whole page around ``body`` (trusted HTML) with the report's style, charts included."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{_STYLE}{CHART_CSS}</style></head><body><main>{body}</main></body></html>\n"
    )


def figure(svg: str, caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a chart (trusted SVG) with its description and, folded away, its numbers."""
    return (
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption>"
        f"<details><summary>Numbers of this chart</summary>{grid(header, rows)}</details></figure>"
    )


def grid(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers stand right, everything is escaped."""
    listed = [tuple(row) for row in rows]
    sides = [' class="n"' if listed and isinstance(listed[0][i], float | int) else "" for i in range(len(header))]
    names = zip(sides, header, strict=True)
    head = "".join(f'<th scope="col"{side}>{escape(name)}</th>' for side, name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in listed)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    side = ' class="n"' if isinstance(value, float | int) else ""
    return f"<td{side}>{escape(in_cell(value))}</td>"


def in_cell(value: object) -> str:
    """Return what a table shows of a value: four digits of a float, an integer with its thousands apart."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
