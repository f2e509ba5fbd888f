"""What one chunk says about one parameter's gradient, told apart by unit: its norms and its clipped sum.

A gradient comes in three forms. ``dense`` holds it. ``pairs`` hold (left, right) with gradient leftᵀ·right, the two
factors that a linear layer has at hand: the norm follows from their inner products (ghost norms: Goodfellow 2015, arXiv
1510.01799), and the sum over all units is one matrix product (book-keeping: Bu et al. 2022, arXiv 2210.00038).
``rows`` hold (ids, g): row id_s of the gradient is the sum of all g_s, as an embedding has it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

_GUARD = 2.0**-17
"""More than float32 rounding can take off a squared norm, as a share of the sum of its terms' absolute values."""
_BLOCKS, _LEAST_BLOCK = 4, 32
"""Rows of blocks that inner products are cut into, and the least places of one: smaller products are slow."""


@dataclass(slots=True)
class Captured:
    """The gradients of U units for one parameter of shape (a, b), or for ``dense`` of any shape.

    Attributes:
        dense: (U, *shape), or None.
        pairs: (U, S, a) and (U, S, b).
        rows: (U, S) and (U, S, b).
    """

    dense: Tensor | None = None
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add_dense(self, gradient: Tensor) -> None:
        """Add (U, *shape)."""
        self.dense = gradient if self.dense is None else self.dense.float() + gradient.float()

    def add_pair(self, left: Tensor, right: Tensor) -> None:
        """Add leftᵀ·right: as it is while that is smaller and its norm cheaper, else multiplied."""
        size, width = left.shape[-1] * right.shape[-1], left.shape[-1] + right.shape[-1]
        if left.shape[1] * width < size:
            self.pairs.append((left, right))
        else:
            self.add_dense(torch.bmm(left.transpose(1, 2), right))

    def join(self, shape: torch.Size) -> None:
        """Bring all that was added into one form each: parts must add up before the norm is taken."""
        if self.dense is not None and (self.pairs or self.rows):
            total = self.dense.float()
            for left, right in self.pairs:
                total = total.baddbmm(left.float().transpose(1, 2), right.float())
            if self.rows:
                total = total + _scatter(*_joined(self.rows), shape)
            self.dense, self.pairs, self.rows = total, [], []
        self.pairs = [_joined(self.pairs)] if self.pairs else []
        self.rows = [_joined(self.rows)] if self.rows else []

    def square_norms(self, grams: "Grams") -> Tensor:
        """Return each unit's squared norm, (U,) in float64, never too small; call :meth:`join` first."""
        found = []
        for part in [] if self.dense is None else [self.dense]:
            lengths = torch.linalg.vector_norm(part, dim=-1, dtype=torch.float32)
            squares = lengths.double().square().reshape(len(part), -1).sum(1)
            found.append((squares, squares))
        found += [_ghost_norms(*grams.of(left, right)) for left, right in self.pairs]
        found += [_row_norms(ids, g) for ids, g in self.rows]
        found += [
            _cross_terms(ids, g.float(), left, right.float()) for ids, g in self.rows for left, right in self.pairs
        ]
        # The parts of a tied weight can cancel each other; the guard is taken from what they were before.
        return torch.stack([value + _GUARD * size for value, size in found]).sum(0).clamp(min=0)

    def clipped_sum(self, factors: Tensor, bad: Tensor | None, shape: torch.Size) -> Tensor:
        """Return Σ c_u·g_u in float32, without the units that are ``bad``; call :meth:`join` first."""
        total = None
        if self.dense is not None:
            total = (factors @ _without(self.dense.float().flatten(1), bad)).view(shape)
        for left, right in self.pairs:
            a, b = _without(left.float(), bad), _without(right.float(), bad)
            # The narrower side takes the factors: it is copied for it.
            scale = factors[:, None, None]
            a, b = (a * scale, b) if a.shape[-1] < b.shape[-1] else (a, b * scale)
            total = a.flatten(0, 1).t() @ b.flatten(0, 1)
        for ids, g in self.rows:
            scaled = _without(g.float(), bad) * factors[:, None, None]
            total = torch.zeros(shape, device=g.device) if total is None else total
            total.index_add_(0, ids.flatten(), scaled.flatten(0, 1))
        return torch.zeros(shape, device=factors.device) if total is None else total


class Grams:
    """Inner products of all places of a unit, (U, S, S), for the two factors of a pair.

    They are symmetric, so only the blocks on and below the diagonal are formed. Layers that read the same input follow
    each other, and its products are formed once.
    """

    def __init__(self) -> None:
        self._last: list[tuple[Tensor, list[Tensor]]] = []

    def of(self, left: Tensor, right: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the rows of blocks of both: the last block of each row is on the diagonal."""
        self._last = [(part, self._find(part)) for part in (left, right)]
        return self._last[0][1], self._last[1][1]

    def _find(self, part: Tensor) -> list[Tensor]:
        for known, blocks in self._last:
            if known.data_ptr() == part.data_ptr() and known.shape == part.shape and known.stride() == part.stride():
                return blocks
        part = part.float()
        size = max(_LEAST_BLOCK, -(-part.shape[1] // _BLOCKS))
        starts = range(0, part.shape[1], size)
        return [torch.bmm(part[:, at : at + size], part[:, : at + size].transpose(1, 2)) for at in starts]


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join parts along S."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([one for one, _ in parts], 1), torch.cat([other for _, other in parts], 1)


def _without(values: Tensor, bad: Tensor | None) -> Tensor:
    """Set the units that are bad to zero: zero times NaN is NaN, so the values themselves must go."""
    return values if bad is None else values.masked_fill(bad.view(-1, *[1] * (values.dim() - 1)), 0)


def _scatter(ids: Tensor, g: Tensor, shape: torch.Size) -> Tensor:
    """Return rows as (U, *shape)."""
    dense = torch.zeros(len(ids), *shape, device=g.device)
    return dense.scatter_add_(1, ids[..., None].expand_as(g), g.float())


def _ghost_norms(left: list[Tensor], right: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return ‖leftᵀ·right‖² = Σ (left_s·left_t)(right_s·right_t) and the sum of the terms' absolute values."""
    found = []
    for one, other in zip(left, right, strict=True):
        terms = one * other
        # Blocks beside the diagonal stand for their mirror images too.
        terms[:, :, : terms.shape[2] - terms.shape[1]] *= 2
        found.append(_add_up(terms))
    values, sizes = zip(*found, strict=True)
    return torch.stack(values).sum(0), torch.stack(sizes).sum(0)


def _add_up(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of each unit's terms and of their absolute values, which are left in ``terms``.

    Rows are added pairwise in float32, which rounds by far less than the guard, and their sums in float64.
    """
    value = terms.sum(2).sum(1, dtype=torch.float64)
    return value, terms.abs_().sum(2).sum(1, dtype=torch.float64)


def _row_norms(ids: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared norms of rows: equal ids of one unit add up first."""
    units = torch.arange(len(ids), device=ids.device)[:, None]
    keys = (ids * len(ids) + units).flatten()
    keys, inverse = torch.unique(keys, return_inverse=True)
    sums = torch.zeros(len(keys), g.shape[-1], device=g.device).index_add_(0, inverse, g.float().flatten(0, 1))
    squares = torch.linalg.vector_norm(sums, dim=-1).double().square()
    norms = torch.zeros(len(ids), dtype=torch.float64, device=g.device).index_add_(0, keys % len(ids), squares)
    return norms, norms


def _cross_terms(ids: Tensor, g: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2⟨E, H⟩ of rows E and pair H, and the sum of its terms' absolute values.

    ⟨E, H⟩ = Σ_{s,t} left_t[id_s]·(g_s·right_t).
    """
    at_ids = left.gather(2, ids[:, None, :].expand(-1, left.shape[1], -1)).float()
    terms = torch.bmm(right, g.transpose(1, 2)).mul_(at_ids).mul_(2)
    return _add_up(terms)
