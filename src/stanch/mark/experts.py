"""Experts of a mixture, arranged anew: one matrix each, or all stacked in one tensor, turned, gate and up in one.

Loaders and converters do this without a trace in the values. Which arrangement a suspect has is found by what it holds:
the matrices of one expert are compared with the original's, and those that are alike are taken for all experts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stanch.mark.weight import Floats, Rows, Weight

_SEPARATE = re.compile(r"(.*\.experts)\.(\d+)\.(.+)")
_EXPERTS = re.compile(r"experts|_exps\b")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_ROWS = 16
_LEAST_COSINE = 0.5
_LARGEST = np.float32(1e12)
_VIEWS = range(10)

Parts = Sequence[tuple[int, Sequence[Weight]]]
"""Views of a matrix, and what stands there of each expert."""


def _view(matrix: Floats, number: int) -> Floats:
    """Return a part of a matrix without copying: all, a half, or every other row; from 5 on of its transpose."""
    turned = matrix if number < 5 else matrix.T
    half = len(turned) // 2
    part: Floats = (turned, turned[:half], turned[half:], turned[::2], turned[1::2])[number % 5]
    return part


def find_experts(weights: Mapping[str, Weight], missing: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return a weight for each of the original's experts that a suspect holds in another arrangement.

    Args:
        weights: The suspect's, by its names.
        missing: Those of the original that it has under no name.
    """
    wanted = {name: weight for name, weight in missing.items() if _EXPERTS.search(name)}
    sources = list(_sources(weights)) if wanted else []
    found: dict[str, Weight] = {}
    chosen: dict[tuple[str, str], tuple[int, Sequence[Weight]] | None] = {}
    for name, weight in wanted.items():
        near = [experts for number, experts in sources if number == _layer(name)]
        separate = _SEPARATE.fullmatch(name)
        if separate is not None and len(weight.shape) == 2:
            number, key = int(separate[2]), (separate[1], separate[3])
            if key not in chosen:
                chosen[key] = _choose(weight, [experts for experts in near if number < len(experts)], number)
            part = chosen[key]
            if part is not None and number < len(part[1]):
                found[name] = _taken(part[1][number], weight.shape, part[0])
        elif len(weight.shape) == 3:
            parts = _assemble(weight, [experts for experts in near if len(experts) == weight.shape[0]])
            if parts:
                found[name] = _stacked(weight.shape, parts)
    return found


def _layer(name: str) -> str:
    """Return the first number that stands alone in a name."""
    number = _NUMBER.search(name)
    return "" if number is None else number[0]


def _sources(weights: Mapping[str, Weight]) -> Iterator[tuple[str, Sequence[Weight]]]:
    """Yield the layer and the matrices of each group of experts: the slices of a stack, or those with numbers."""
    separate: dict[tuple[str, str], dict[int, Weight]] = {}
    for name, weight in weights.items():
        number = _SEPARATE.fullmatch(name)
        if number is not None and len(weight.shape) == 2:
            separate.setdefault((number[1], number[3]), {})[int(number[2])] = weight
        elif len(weight.shape) == 3 and _EXPERTS.search(name):
            yield _layer(name), [_slice(weight, number) for number in range(weight.shape[0])]
    for (stem, _), numbered in separate.items():
        if set(numbered) == set(range(len(numbered))):
            yield _layer(f"{stem}."), [numbered[number] for number in range(len(numbered))]


def _slice(stack: Weight, number: int) -> Weight:
    def read(rows: Rows) -> Floats | None:
        found = stack.read(np.array([number]))
        return None if found is None else found.reshape(stack.shape[1:])[rows]

    return Weight(stack.shape[1:], read)


def _choose(weight: Weight, sources: Sequence[Sequence[Weight]], number: int) -> tuple[int, Sequence[Weight]] | None:
    """Return the source, and which part of its matrices, that is most like a weight; None where none is like it."""
    ours, best, least = weight.whole(), None, _LEAST_COSINE
    for experts in sources:
        theirs = experts[number].whole()
        for view in _VIEWS if theirs is not None else ():
            part = _view(theirs, view) if theirs is not None else None
            likeness = _cosine(ours, part)
            if likeness >= least:
                best, least = (view, experts), likeness
    return best


def _taken(expert: Weight, shape: tuple[int, ...], view: int) -> Weight:
    return expert.viewed(shape, lambda whole: _view(whole, view))


def _assemble(weight: Weight, sources: Sequence[Sequence[Weight]]) -> Parts:
    """Return what a stack is made of: views of its matrices that the suspect's fill, disjoint and whole; or nothing."""
    first = weight.read(np.array([0]))
    if first is None:
        return ()
    ours = first.reshape(weight.shape[1:])
    for views in ((0,), (5,), (1, 2), (3, 4), (6, 7), (8, 9)):
        parts = []
        for view in views:
            part = np.ascontiguousarray(_view(ours, view))
            likeness = [_cosine(part, experts[0].whole()) for experts in sources]
            if likeness and max(likeness) >= _LEAST_COSINE:
                parts.append((view, sources[int(np.argmax(likeness))]))
        if len(parts) == len(views):
            return parts
    return ()


def _stacked(shape: tuple[int, ...], parts: Parts) -> Weight:
    """Return the stack whose matrices are put together of parts."""

    def read(rows: Rows) -> Floats:
        numbers = np.arange(shape[0])[rows]
        made = np.full((len(numbers), *shape[1:]), np.nan, np.float32)
        for target, number in zip(made, numbers, strict=True):
            for view, experts in parts:
                values = experts[number].whole()
                place = _view(target, view)
                if values is not None and place.shape == values.shape:
                    place[...] = values
        return made.reshape(len(numbers), -1)

    return Weight(shape, read)


def _cosine(one: Floats | None, two: Floats | None) -> float:
    """Return the cosine of some rows of two matrices; −1 where their shapes differ or one holds nothing."""
    if one is None or two is None or one.shape != two.shape:
        return -1.0
    rows = np.linspace(0, len(one) - 1, min(_ROWS, len(one))).astype(np.int64)
    a, b = (np.where(np.abs(values[rows]) < _LARGEST, values[rows], 0).astype(np.float64) for values in (one, two))
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / lengths) if lengths > 0 else -1.0
