"""What is done to a copy on its way: rounding, pruning, averaging. Each works row by row, so on any block."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.rounding import NF4, NF4_EDGES
from stanch.weights import from_float32, to_float32

Floats = npt.NDArray[np.float32]
Change = Callable[[Floats], Floats]

MOST_COPIES = 64
_TINY = np.float32(1e-30)


def stored(kind: str) -> Change:
    """Return rounding to a stored float type."""
    return lambda rows: to_float32(from_float32(rows, kind), kind)


def _groups(rows: Floats, group: int) -> Floats:
    """Return the rows cut into groups of inputs, one a line; a whole row where the group does not fit into it."""
    return rows.reshape(-1, group if group and rows.shape[1] % group == 0 else rows.shape[1])


def integers(bits: int, group: int = 0) -> Change:
    """Return rounding to integers of ``bits`` bits, one scale a group of inputs; group 0: a row."""

    def change(rows: Floats) -> Floats:
        groups = _groups(rows, group)
        scale = np.maximum(np.abs(groups).max(axis=1, keepdims=True), _TINY) / np.float32(2 ** (bits - 1) - 1)
        found: Floats = (np.round(groups / scale) * scale).reshape(rows.shape)
        return found

    return change


def nf4(rows: Floats) -> Floats:
    """Round to the 16 values of NF4 in blocks of 64."""
    groups = _groups(rows, 64)
    scale = np.maximum(np.abs(groups).max(axis=1, keepdims=True), _TINY)
    found: Floats = (NF4[np.searchsorted(NF4_EDGES, groups / scale)] * scale).reshape(rows.shape)
    return found


def prune(share: float) -> Change:
    """Return setting the smallest weights of each row to zero."""

    def change(rows: Floats) -> Floats:
        sizes = np.abs(rows)
        return np.where(sizes < np.quantile(sizes, share, axis=1, keepdims=True), np.float32(0), rows)

    return change


TREATMENTS: Mapping[str, Change] = MappingProxyType({
    "none": lambda rows: rows,
    "fp16": stored("F16"),
    "bf16": stored("BF16"),
    "int8": integers(8),
    "int4": integers(4, 128),
    "int3": integers(3, 64),
    "nf4": nf4,
    "prune50": prune(0.5),
    "prune80": prune(0.8),
})  # fmt: skip
"""By name: float types, integers (a scale a row, a group of 128, a group of 64), NF4 in blocks of 64, pruned shares."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """Some copies are averaged, then changed step by step.

    Attributes:
        name: As it was written, for example ``average:4+prune50+nf4``.
        copies: How many copies are averaged.
        steps: What is done then, in order.
    """

    name: str
    copies: int
    steps: tuple[Change, ...]

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read ``[average:K+]STEP[+STEP…]`` or ``average:K``.

        Raises:
            InvalidInput: A step is unknown, or the copies are not 2 to 64.
        """
        first, *rest = name.split("+")
        copies = 1
        if first.startswith("average:"):
            number = first.removeprefix("average:")
            copies = int(number) if number.isascii() and number.isdigit() and len(number) < 3 else 0
            if not 2 <= copies <= MOST_COPIES:
                raise InvalidInput(f"treatment {name[:64]!r}: expected average:2 to average:{MOST_COPIES}")
        else:
            rest = [first, *rest]
        unknown = next((step for step in rest if step not in TREATMENTS), None)
        if unknown is not None:
            raise InvalidInput(
                f"treatment {name[:64]!r}: there is no step {unknown[:32]!r}",
                next_step=f"steps are: {', '.join(TREATMENTS)}; before them average:K, joined by +",
            )
        return cls(name, copies, tuple(TREATMENTS[step] for step in rest))

    def apply(self, rows: Floats) -> Floats:
        """Return the rows after all steps."""
        for step in self.steps:
            rows = step(rows)
        return rows
