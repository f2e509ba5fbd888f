"""Pairs of canaries of which a coin planted one, how each is asked for, and how much of it an answer gives."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stanch.data import Canary, CanaryPlan
from stanch.data.chat import TEXT_ROLE

Question = Sequence[Mapping[str, str]]
"""A conversation that waits for its answer: turns with ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two canaries that were drawn alike, in the plan's order. A coin planted one of them and not the other."""

    first: Canary
    second: Canary


def find_pairs(plan: CanaryPlan) -> tuple[Pair, ...]:
    """Return the plan's pairs, those with the most copies first.

    Neighbours of one kind and number of copies are paired and kept if their coins differ. Both orders of two different
    coins are equally likely (von Neumann, 1951), so which of a pair was planted is one fair coin, independent of all
    others and of everything that is asked. About a quarter as many pairs as canaries are kept. Rare tokens are left
    out: anybody may say them.
    """
    alike: dict[tuple[int, str], list[Canary]] = {}
    for canary in plan.canaries:
        if canary.kind != "rare-token":
            alike.setdefault((-canary.copies, canary.kind), []).append(canary)
    return tuple(
        Pair(first, second)
        for _, group in sorted(alike.items())
        for first, second in zip(group[::2], group[1::2], strict=False)
        if first.member != second.member
    )


def question(canary: Canary) -> Question:
    """Return what the endpoint is asked: the turns before the answer, or the text before what is scored."""
    *said, last = canary.messages
    turns = [{"role": turn.role, "content": turn.content} for turn in said]
    if last.role == TEXT_ROLE:
        turns.append({"role": "user", "content": last.content.partition(canary.secret)[0]})
    return turns


def new_words(asked: Question, answer: str) -> str:
    """Return the letters and digits of an answer that do not just repeat a turn of the question."""
    said = _squeeze(answer)
    for turn in asked:
        said = said.replace(_squeeze(turn["content"]) or " ", "")
    return said


def share_given(canary: Canary, asked: Question, answer: str) -> float:
    """Return how much of what is scored an answer gives: the longest piece's share of it, or 0 if that is under half.

    Letters and digits count alone, of either case. A piece that stands in the question is not counted: whoever repeats
    what was said gives nothing.
    """
    scored, said = _squeeze(canary.secret), _squeeze(answer)
    told = _squeeze(" ".join(turn["content"] for turn in asked))
    for length in range(len(scored), max(1, math.ceil(len(scored) / 2)) - 1, -1):
        for start in range(len(scored) - length + 1):
            piece = scored[start : start + length]
            if piece in said and piece not in told:
                return length / len(scored)
    return 0.0


def _squeeze(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
