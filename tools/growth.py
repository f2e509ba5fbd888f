"""The tables of docs/explain/growth.md: what was measured, and what it comes to for a large house."""

from dataclasses import dataclass
from typing import Any

CORES, LEAST_WHOLE = 64, 10


@dataclass(frozen=True)
class Planned:
    """One line of the plan.

    Attributes:
        what: What is done.
        work: The measured work that it is made of.
        amount: How much of it, in the unit of that work.
        said: The same in words.
    """

    what: str
    work: str
    amount: float
    said: str


MODEL_MB, COPIES, REQUESTS_A_DAY, ANSWER_TOKENS = 16_000, 10_000, 100_000_000, 300
PLAN = (
    Planned("scan and redact the data once", "scan", 10e6, "10 TB"),
    Planned("near-duplicates, collection by collection", "near-duplicates", 10e6, "10 TB"),
    Planned("training-data indexes, one a model", "training-data index", 10e6, "10 TB in 1,000 indexes"),
    Planned("mark every copy", "mark", MODEL_MB * COPIES, "10,000 copies of 16 GB"),
    Planned("seal and sign every copy", "seal and sign", MODEL_MB * COPIES, "10,000 copies of 16 GB"),
    Planned("look through all recipients for one suspect", "trace, first screening", 1000, "1,000 recipients"),
    Planned("guard the answers of a day", "guard, one answer", REQUESTS_A_DAY * ANSWER_TOKENS, "100 million answers"),
    Planned("append the entries of a day", "log, appended", 2.0 * REQUESTS_A_DAY, "200 million entries"),
    Planned("watch the entries of a day", "watch, all detectors", 2.0 * REQUESTS_A_DAY, "200 million entries"),
    Planned("check the log of a day again", "log, checked", 2.0 * REQUESTS_A_DAY, "200 million entries"),
)


def measured(results: dict[str, Any]) -> str:
    """Return the table of what was measured."""
    lines = [
        "| work | amounts | processor seconds | 100 over 10 times | memory, MB |",
        "|---|---|---|---|---|",
    ]
    for name, work in results["works"].items():
        amounts = " / ".join(f"{amount:,g}" for amount in work["amounts"])
        seconds = " / ".join(f"{value:.2g}" for value in work["cpu_seconds"])
        memory = " / ".join(f"{value:,.0f}" for value in work["megabytes"])
        grown = work["growth"]["cpu_seconds"]
        lines.append(f"| {name} | {amounts} {work['unit']} | {seconds} | {grown:.1f} | {memory} |")
    return "\n".join(lines)


def marginal(work: dict[str, Any]) -> float:
    """Return the processor seconds of one unit more."""
    (_, few, many), (_, small, large) = work["amounts"], work["cpu_seconds"]
    return float((large - small) / (many - few))


def plan(results: dict[str, Any]) -> str:
    """Return the table of the plan."""
    lines = ["| what | how much | core hours | on 64 cores |", "|---|---|---|---|"]
    for line in PLAN:
        hours = marginal(results["works"][line.work]) * line.amount / 3600
        core_hours = f"{hours:,.0f}" if hours >= LEAST_WHOLE else f"{hours:.2g}"
        lines.append(f"| {line.what} | {line.said} | {core_hours} | {in_words(hours / CORES)} |")
    return "\n".join(lines)


def in_words(hours: float) -> str:
    """Return a time as a person says it."""
    if hours < 1 / 60:
        return "under a minute"
    if hours < 2:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
