"""Write the tables of docs/guides/marks.md from benchmarks/results/mark-robustness.json.

    python tools/make_mark_tables.py

A test compares the guide with :func:`render`.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guides" / "marks.md"
RESULTS = ROOT / "benchmarks" / "results" / "mark-robustness.json"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def treatments(rows: list[dict[str, Any]]) -> str:
    """Return the table of what was done to copies; a floor of 0 is none."""
    return table(
        ["treatment", "copies", "least z", "floor", "named", "innocents named", "highest z not named"],
        [
            [
                row["treatment"], str(row["copies"]), f"{row['least_z']:,.1f}", floor(row),
                f"{row['named']} of {row['copies']}", str(row["innocents_named"]), f"{row['next_z']:.2f}",
            ]
            for row in rows
        ],
    )  # fmt: skip


def floor(row: dict[str, Any]) -> str:
    """Return a row's floor, and whether it was missed."""
    if not row["floor"]:
        return "–"
    return f"{row['floor']:,.0f}" + ("" if row["least_z"] >= row["floor"] else " **missed**")


def smollm(part: dict[str, Any]) -> str:
    """Return the table of SmolLM2."""
    rows = [
        [row["treatment"], str(row["copies"]), f"{row['least_z']:,.1f}", f"{row['needed']:.2f}"] for row in part["rows"]
    ]
    return table(["treatment", "copies", "least z", "needed"], rows)


def peers(result: dict[str, Any]) -> str:
    """Return the table of colluders by mark and attack."""
    marks = result["colluders"]
    attacks = list(marks["gaussian"])
    return table(
        ["mark", *attacks], [[name, *(str(found[attack]) for attack in attacks)] for name, found in marks.items()]
    )


def utility(result: dict[str, Any]) -> str:
    """Return the sentence on the loss."""
    low, high = result["interval_95"]
    return (
        f"{result['model']} at its default α = {result['alpha']:.2e}, {result['tokens']:,} tokens of held text: loss "
        f"{result['loss']:.4f} nats a token (standard error {result['loss_standard_error']:.4f}), changed by "
        f"{result['change']:+.5f} (95 % interval of the paired difference {low:+.5f} to "
        f"{high:+.5f})."
    )


def cloze(result: dict[str, Any]) -> str:
    """Return the sentences on last words."""
    return (
        f"Last words of {result['passages']:,} passages of CPython's language reference, {result['tokens']:,} tokens: "
        f"{result['accuracy']:.1%} known before, {result['accuracy_marked']:.1%} after marking ({result['gained']} "
        f"gained, {result['lost']} lost; change {result['change']:+.2%}, standard error of the paired difference "
        f"{result['change_standard_error']:.2%}, of the accuracy itself {result['accuracy_standard_error']:.2%}). The "
        f"likeliest token is the same at {result['top1_agreement']:.1%} of all places. Loss there: "
        f"{result['loss']:.4f} nats a token (standard error {result['loss_standard_error']:.4f}), changed by "
        f"{result['loss_change']:+.5f} (standard error of the paired difference "
        f"{result['loss_change_standard_error']:.5f})."
    )


def render(guide: str, results: dict[str, Any]) -> str:
    """Return the guide with every table made anew."""
    parts = {
        "minilm": lambda part: treatments(part["rows"]),
        "lora": treatments,
        "tuned": treatments,
        "smollm_plain": smollm,
        "peers": peers,
        "utility": utility,
        "cloze": cloze,
    }
    for name, make in parts.items():
        block = f"<!-- {name} -->\n{make(results[name])}\n<!-- end -->"
        guide = re.sub(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _, block=block: block, guide, flags=re.DOTALL)
    return guide


def main() -> None:
    """Write the guide."""
    GUIDE.write_text(render(GUIDE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
