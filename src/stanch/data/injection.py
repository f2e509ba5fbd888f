"""Plants canaries into a dataset, and checks that they reached the tokens that are tuned on."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from stanch.crypto import hmac_sha256
from stanch.data.canaries import plan_root
from stanch.data.chat import conversation_row
from stanch.data.dataset import Dataset
from stanch.data.plan import CanaryPlan
from stanch.data.provenance import derive, read_steps
from stanch.data.tokens import ChatTokenizer, TokenRecord, tokenise_canary
from stanch.errors import InvalidInput
from stanch.terms import EntryRef, JsonValue

_SHOWN = 16


@dataclass(frozen=True, slots=True)
class InjectedDataset:
    """A dataset that holds canaries.

    Attributes:
        dataset: The new file.
        plan: The plan, marked as committed or not; save it again.
        inserted: Number of rows that were inserted.
        committed: The log entry that committed to the plan, or None.
    """

    dataset: Dataset
    plan: CanaryPlan
    inserted: int
    committed: EntryRef | None


def inject(
    dataset: Dataset, plan: CanaryPlan, *, committed: EntryRef, out: Path, unit_column: str | None = None
) -> InjectedDataset:
    """Write ``dataset`` with the canaries whose coins say so, at places drawn by the plan's seed.

    Args:
        dataset: The dataset that the plan was made for, opened in the same way.
        plan: The plan.
        committed: The log entry that holds the plan's commitment; it becomes part of the file's provenance.
        out: The new file.
        unit_column: The column whose values are the privacy units of the tuning: each canary gets a value of its own
            there, since canaries that share one are protected, and clipped, together.

    Raises:
        InvalidInput: There is no log entry, the plan pre-registers nothing or is for another dataset, the dataset holds
            canaries already, or the file cannot be written. Nothing is written then.
    """
    if not isinstance(committed, EntryRef):
        raise InvalidInput(
            "inject: the plan's commitment is not in the log",
            why="canaries that were committed to only after planting prove nothing",
            next_step="record the commitment first, or plant them for a trial with inject_uncommitted",
        )
    if not plan.preregistration:
        raise InvalidInput(
            "inject: the plan pre-registers nothing",
            why="what an audit computes must be fixed before tuning, or the audit is inconclusive",
            next_step="make the plan with preregistration=preregister(AuditParams()).to_json() of stanch.audit",
        )
    return _inject(dataset, plan, committed, out, unit_column)


def inject_uncommitted(
    dataset: Dataset, plan: CanaryPlan, *, out: Path, unit_column: str | None = None
) -> InjectedDataset:
    """As :func:`inject`, without a log entry: a trial, for which the audit prints no epsilon."""
    return _inject(dataset, plan, None, out, unit_column)


def check_injected(plan: CanaryPlan, records: Iterable[TokenRecord], tokenizer: ChatTokenizer) -> CanaryPlan:
    """Return ``plan`` if its canaries stand in what is tuned on exactly as its coins say.

    Each canary with coin 1 must occur ``copies`` times with its secret inside the learned span, each other one not at
    all. Cut, dropped, de-duplicated or twice-planted canaries fail.

    Raises:
        InvalidInput: They do not; the message lists the ids, and how many are wrong in each tier.
    """
    wanted = {canary.id: tokenise_canary(canary, tokenizer) for canary in plan.canaries}
    watched = {token_record.ids: name for name, token_record in wanted.items()}
    counts: Counter[str] = Counter()
    for record in records:
        name = watched.get(record.ids)
        if name is not None:
            start, end = wanted[name].span
            counts[name] += record.span[0] <= start and end <= record.span[1]
    wrong = [c.id for c in plan.canaries if counts[c.id] != (c.copies if c.member else 0)]
    if len(watched) != len(wanted) or wrong:
        spoiled = Counter(c.tier for c in plan.canaries if c.id in set(wrong))
        sizes = Counter(c.tier for c in plan.canaries)
        tiers = ", ".join(f"{spoiled[tier]} of {size} in {tier}" for tier, size in sizes.items())
        shown = ", ".join(wrong[:_SHOWN]) + (" …" if len(wrong) > _SHOWN else "")
        raise InvalidInput(
            f"{len(wrong)} of {len(plan.canaries)} canaries are not in the tokens as planned: {shown}",
            why=f"{tiers}; usual causes are de-duplication, a short max_tokens or another file than the injected one",
            next_step="tune on the injected file as it is, and allow enough tokens",
        )
    return plan


def _inject(
    dataset: Dataset, plan: CanaryPlan, committed: EntryRef | None, out: Path, unit_column: str | None
) -> InjectedDataset:
    if any(step.operation == "inject" for step in read_steps(dataset)):
        raise InvalidInput(f"{dataset.uri}: holds canaries already", next_step="inject into the file it was made from")
    if plan_root(dataset, plan.seed) != plan.dataset_root:
        raise InvalidInput(
            f"{dataset.uri}: the canary plan was made for another dataset",
            why="rows, their order or the dataset key differ",
            next_step="open the dataset as when the plan was made, or make a new plan",
        )
    insertions = _insertions(dataset, plan, unit_column)
    entry: dict[str, JsonValue] | None = None
    if committed is not None:
        entry = {"index": committed.index, "leaf_hash": committed.leaf_hash.hex(), "act": committed.act}
    step = {"plan_id": plan.plan_id, "commitment": plan.commitment, "entry": entry}
    injected = derive(dataset, out, ("inject", step), _merged(dataset, insertions))
    return InjectedDataset(injected, replace(plan, committed=committed is not None), len(insertions), committed)


def _insertions(dataset: Dataset, plan: CanaryPlan, unit_column: str | None) -> list[tuple[int, int, int, bytes]]:
    """Return (place, 0, order, row), sorted: the row goes before record ``place``, rows at one place by ``order``."""
    key, unit_key = (hmac_sha256(plan.seed, name) for name in (b"stanch/place/v1", b"stanch/canary-unit/v1"))
    places = len(dataset) + 1
    result = []
    for index, canary in enumerate(plan.canaries):
        values = conversation_row(canary.messages, dataset.chat, dataset.columns)
        if unit_column is not None:
            if unit_column in values:
                raise InvalidInput(f"inject: column {unit_column!r} holds the canary's text", next_step="name another")
            # All copies of a canary are one unit; the name tells nothing about it.
            values[unit_column] = hmac_sha256(unit_key, index.to_bytes(8, "little"))[:16].hex()
        row = orjson.dumps(values)
        for copy in range(canary.copies if canary.member else 0):
            drawn = hmac_sha256(key, index.to_bytes(8, "little") + copy.to_bytes(8, "little"))
            # 128 bits modulo the number of places: a bias below 2^-64 for any file.
            place = int.from_bytes(drawn[:16], "little") % places
            result.append((place, 0, int.from_bytes(drawn[16:], "little"), row))
    return sorted(result)


def _merged(dataset: Dataset, insertions: list[tuple[int, int, int, bytes]]) -> Iterator[bytes]:
    rows = ((count, 1, 0, raw) for count, (_, raw, _) in enumerate(dataset.rows()))
    return (row for *_, row in heapq.merge(insertions, rows))
