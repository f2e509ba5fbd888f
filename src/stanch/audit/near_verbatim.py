"""Rows that come out nearly word for word when the model goes on with the likeliest token each time.

What is said is compared token by token with what was tuned on; a few changed, missing or added tokens still count.
"""

from collections.abc import Sequence
from typing import Final

from stanch.audit.extraction import Probe
from stanch.audit.features import Adapter, AdapterOff, Scorer
from stanch.audit.params import BOUND_CONFIDENCE
from stanch.audit.rates import clopper_pearson
from stanch.audit.sections import NearVerbatim
from stanch.terms import Progress

MOST_EDITS: Final = 0.1
"""Largest edit distance that counts as nearly word for word, as a share of the tokens that were to come."""


def measure_near_verbatim(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    members: Sequence[Probe],
    control: Sequence[Probe],
    *,
    progress: Progress,
) -> NearVerbatim | None:
    """Let target and base go on after each probe's prefix; None if there is nothing to test."""
    if not members:
        return None
    total = len(members) * (1 if base is None else 2) + len(control)
    done = 0

    def near(scorer: Scorer, probes: Sequence[Probe], adapter: Adapter) -> list[bool]:
        nonlocal done
        found = [False] * len(probes)
        prompts = [probe.record.ids[: probe.start] for probe in probes]
        longest = max((probe.end - probe.start for probe in probes), default=1)
        for number, said in scorer.complete(prompts, longest, adapter=adapter):
            probe = probes[number]
            wanted = probe.record.ids[probe.start : probe.end]
            found[number] = edit_distance(wanted, said[: len(wanted)]) <= MOST_EDITS * len(wanted)
            done += 1
            progress("near-verbatim", done, total)
        return found

    inside, outside = near(target, members, "on"), near(target, control, "on")
    known = None
    if base is not None:
        known = near(target, members, "off") if isinstance(base, AdapterOff) else near(base, members, "on")
    attributable = sum(
        came and (bool(control) if known is None else not known[number]) for number, came in enumerate(inside)
    )
    return NearVerbatim(
        k=sum(inside),
        n=len(inside),
        base=None if known is None else sum(known),
        attributable=attributable,
        upper=clopper_pearson(attributable, len(inside), confidence=BOUND_CONFIDENCE, side="upper").upper,
        control_k=sum(outside),
        control_n=len(outside),
    )


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the least number of tokens to change, add or drop that makes one sequence the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
