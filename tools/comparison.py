"""What stanch set out to reach beside its peers, and what the committed results say: rows, verdicts, tables.

``tools/make_figures.py`` puts the tables into docs/explain/comparison.md. The rows stand in comparison.toml; each has a
JSON pointer (RFC 6901) into a result file. A part whose file is not committed says so, and fills itself once it is.
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
SPREADS = (("low", "high"), ("lower", "upper"), ("min", "max"))


@dataclass(frozen=True)
class Row:
    """One figure: what, against whom, where it stands, and what the design asked for (``≤ 2.5``, ``≥ 5`` or none)."""

    what: str
    pointer: str
    peer: str = ""
    goal: str = ""
    over: str = ""  # a second pointer: the figure is the ratio of the two medians
    best: bool = False  # the best round, as the design has it for loading, not the median


@dataclass(frozen=True)
class Part:
    """The rows of one result file, and the script that writes it."""

    title: str
    file: str
    script: str
    rows: tuple[Row, ...]


def read_parts() -> tuple[Part, ...]:
    """Return the parts of the comparison in their order."""
    found = tomllib.loads((Path(__file__).parent / "comparison.toml").read_text(encoding="utf-8"))["parts"]
    return tuple(Part(**part | {"rows": tuple(Row(**row) for row in part["rows"])}) for part in found)


PARTS = read_parts()


def look_up(value: Any, pointer: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return what a JSON pointer names."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def number(found: Any, *, best: bool = False) -> float:  # noqa: ANN401 - a number, or a summary that holds one
    """Return the figure of a summary (its median, its best round, or its rate), or the plain number."""
    if not isinstance(found, dict):
        return float(found)
    return float(found["best"] if best else found.get("median", found.get("rate")))


def shown(value: float) -> str:
    """Return a number with three significant digits, never in powers of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.4f}"


def spread(found: Any) -> str:  # noqa: ANN401 - as above
    """Return the lowest and the highest round in brackets, or nothing."""
    if not isinstance(found, dict):
        return ""
    ends = found.get("range") or next(([found[low], found[high]] for low, high in SPREADS if low in found), None)
    return "" if ends is None else f" [{shown(ends[0])}–{shown(ends[1])}]"


def meets(value: float, goal: str) -> bool:
    """Tell whether a figure keeps a goal."""
    sign, _, bound = goal.partition(" ")
    limit = float(bound.replace(",", ""))
    return {"≤": value <= limit, "≥": value >= limit}[sign]


def measure(row: Row, results: Any) -> tuple[float, str]:  # noqa: ANN401 - a result file
    """Return a row's figure, and how it is shown."""
    found = look_up(results, row.pointer)
    value = number(found, best=row.best)
    if row.over:
        return (ratio := value / number(look_up(results, row.over))), shown(ratio)
    return value, shown(value) + spread(found)


def verdict(row: Row, value: float) -> str:
    """Return what a figure says about its goal."""
    if not row.goal:
        return ""
    return "met" if meets(value, row.goal) else "**missed**"


def table(part: Part) -> str:
    """Return the section of one result file."""
    path = RESULTS / part.file
    lines = [f"### {part.title}", ""]
    if not path.exists():
        peers = ", ".join(dict.fromkeys(row.peer for row in part.rows if row.peer))
        asked = "; ".join(f"{row.what} {row.goal}" for row in part.rows if row.goal)
        lines += [
            f"Beside {peers}: no result is committed; `python benchmarks/{part.script}` measures it. Asked: {asked}."
        ]
        return "\n".join([*lines, ""])
    results = json.loads(path.read_text())
    where = results.get("machine")
    if isinstance(where, dict):
        where = f"{where['cpus']} cores, {where['platform']}"
    source = f"`python benchmarks/{part.script}` → `benchmarks/results/{part.file}`"
    lines += [source + (f"; {where}." if isinstance(where, str) else "; no time enters it."), ""]
    lines += ["| what | peer | found | goal | |", "|---|---|--:|--:|---|"]
    for row in part.rows:
        value, text = measure(row, results)
        lines.append(f"| {row.what} | {row.peer or '–'} | {text} | {row.goal or '–'} | {verdict(row, value)} |")
    return "\n".join([*lines, ""])


def count() -> tuple[int, int]:
    """Return how many goals of committed results are met, and how many there are."""
    found = []
    for part in PARTS:
        path = RESULTS / part.file
        if path.exists():
            results = json.loads(path.read_text())
            found += [meets(measure(row, results)[0], row.goal) for row in part.rows if row.goal]
    return sum(found), len(found)
