"""Write every measured figure of the documents anew from benchmarks/results/*.json.

    python tools/make_figures.py

A figure in prose is bound by a comment right behind it: file, JSON pointer, perhaps a factor, and a Python format::

    248<!-- scan-quality.json/rules ,.0f --> rules;  2.5 ms<!-- seal.json/rekey_ms/median .1f -->

Tables stand between ``<!-- NAME -->`` and ``<!-- end -->``; :data:`TABLES` has their makers. A test compares.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import growth
from comparison import PARTS, RESULTS, count, look_up, table

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
BOUND = re.compile(
    rf"(?P<figure>{NUMBER})(?P<unit>[^\d\n<|]{{0,16}})"
    r"<!-- (?P<file>[a-z-]+\.json)(?P<pointer>/.+?)(?: x(?P<factor>[\d.e+-]+))? (?P<form>\S+) -->"
)


def documents() -> list[Path]:
    """Return every document that a reader may take a figure from."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def results(name: str) -> Any:  # noqa: ANN401 - a result file
    """Return a committed result file."""
    return json.loads((RESULTS / name).read_text())


def bind(text: str) -> str:
    """Return a document with each bound figure as its result file has it."""

    def one(found: re.Match[str]) -> str:
        value = float(look_up(results(found["file"]), found["pointer"])) * float(found["factor"] or 1)
        return format(value, found["form"]) + found[0][len(found["figure"]) :]

    return BOUND.sub(one, text)


def watch() -> str:
    """Return the tables of what detectors promise and keep."""
    figures = results("watch.json")
    lines = [
        "| detector | traffic | promised | observed | verdict | found | z-score |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures["detectors"]:
        season = ", working hours" if row["seasonal"] else ""
        shift = f", attack ×{row['shift']:g}" if row["detector"] == "D2" else ""
        power = "–" if row["power"] is None else f"{row['power']['found']:.1%}"
        z = "–" if row["z_power"] is None else f"{row['z_power']['found']:.1%}"
        lines.append(
            f"| {row['detector']} | {row['principals']:,} × {row['hours']:,} h{season}{shift} | {row['promised']:.3g} |"
            f" {row['observed']:.3g} [{row['lower']:.3g}, {row['upper']:.3g}] | {row['verdict']} | {power} | {z} |"
        )
    return "\n".join(lines)


def insiders() -> str:
    """Return the table of the six insiders, and how often the detectors erred meanwhile."""
    played = results("watch.json")["insider30d"]
    lines = ["| trace | seen first by | after |", "|---|---|---|"]
    lines += [f"| {row['trace']} | {row['detector']} | {row['hours']:.0f} h |" for row in played["traces"]]
    rates = ", ".join(f"{name} {rate:.2f}" for name, rate in played["false_alarms_a_day"].items())
    return "\n".join([*lines, "", f"False alarms a day of all {played['principals']:,} principals together: {rates}."])


def goals() -> str:
    """Return how many goals are met."""
    met, asked = count()
    return f"Of {asked} goals whose results are committed, {met} are met and {asked - met} are missed."


TABLES: dict[str, Callable[[], str]] = {
    "watch": watch,
    "insiders": insiders,
    "goals": goals,
    "growth": lambda: growth.measured(results("growth.json")),
    "plan": lambda: growth.plan(results("growth.json")),
    "comparison": lambda: "\n".join(table(part) for part in PARTS).rstrip(),
}


def render(text: str) -> str:
    """Return a document with every table and bound figure made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = before + begin + make() + "\n" + end + rest.partition(end)[2]
    return bind(text)


def main() -> None:
    """Write the documents that changed."""
    for path in documents():
        old = path.read_text(encoding="utf-8")
        if (new := render(old)) != old:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
