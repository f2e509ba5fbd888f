"""Per-unit gradients of one chunk: collected, clipped, summed.

The norm of a unit is computed from the very tensors that are summed, so that its clipped gradient is at most C long
whatever rounding went into it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stanch.tune.plan import Clipping
from stanch.tune.refusals import BatchAxisLost, UncoveredParameter

_GUARD = 1 + 2.0**-17
"""More than float32 rounding can take off a squared norm (a sum of non-negative terms)."""
_AUTOMATIC_OFFSET = 0.01


class UnitGradients:
    """Collects the gradients of U units while backward passes run, then adds their clipped sum to a float64 total.

    Args:
        parameters: The trainable parameters, by name.
        max_grad_norm: C.
        clipping: ``flat`` min(1, C/n), or ``automatic`` C/(n + 0.01) (Bu et al. 2022, arXiv 2206.07136).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], max_grad_norm: float, clipping: Clipping) -> None:
        self._names = tuple(parameters)
        self._bound = max_grad_norm
        self._clipping = clipping
        self._units = 0
        self._rows = 0
        self._collected: dict[str, Tensor] = {}
        self.total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}

    def reset(self) -> None:
        """Forget the total and whatever was collected."""
        self._collected.clear()
        for total in self.total.values():
            total.zero_()

    def expect(self, units: int, rows: int) -> None:
        """Announce a backward pass over ``rows`` rows, unit after unit, the same number for each of ``units`` units."""
        if self._collected and units != self._units:
            raise BatchAxisLost(
                "a chunk's passes must hold the same units", next_step="give each pass rows of the announced units"
            )
        self._units, self._rows = units, rows

    def split_rows(self, x: Tensor, name: str) -> Tensor:
        """Return (rows, T, width) as (U, S, width): a unit's records end to end.

        Summing over S is then the aggregation over the records of a unit.

        Raises:
            BatchAxisLost: The rows are not the ones that were announced.
        """
        if x.dim() != 3 or x.shape[0] != self._rows or self._rows % self._units:
            raise BatchAxisLost(
                f"{name}: expected {self._rows} rows, found shape {tuple(x.shape)}",
                why="gradients can only be told apart by unit while the batch axis is kept",
                next_step="leave this module out of the targets",
            )
        return x.reshape(self._units, -1, x.shape[-1])

    def store(self, name: str, gradient: Tensor) -> None:
        """Take (U, *shape); a module used several times adds up before the norm is taken."""
        earlier = self._collected.get(name)
        self._collected[name] = gradient if earlier is None else earlier.float() + gradient.float()

    def add_clipped(self) -> None:
        """Clip every unit's gradient and add the sum to :attr:`total`.

        A unit whose norm is not finite counts as zero; no step is ever skipped for it.

        Raises:
            UncoveredParameter: A trainable parameter was not collected.
        """
        if self._collected.keys() != set(self._names):
            missing = sorted(set(self._names) - self._collected.keys())
            raise UncoveredParameter(
                f"{len(missing)} trainable parameters have no gradient, among them {missing[:1]}",
                why="the backward pass did not reach them",
                next_step="leave unused modules out of the targets",
            )
        factors, finite = self._clip_factors()
        for name, gradient in self._collected.items():
            kept = gradient.float().flatten(1)
            if not finite.all():
                # Zero times NaN is NaN: the values themselves must go.
                kept = torch.where(finite[:, None], kept, torch.zeros(()))
            self.total[name] += (factors @ kept).view(self.total[name].shape)
        self._collected.clear()

    def _clip_factors(self) -> tuple[Tensor, Tensor]:
        """Return c_u in float32 and whether each norm is finite, both (U,)."""
        squares = [_square_norms(gradient) for gradient in self._collected.values()]
        norms = (torch.stack(squares).sum(0) * _GUARD).sqrt()
        finite = torch.isfinite(norms)
        if self._clipping == "automatic":
            factors = self._bound / (norms + _AUTOMATIC_OFFSET)
        else:
            factors = (self._bound / norms).clamp(max=1.0)
        return torch.where(finite, factors, torch.zeros_like(factors)).float(), finite


def _square_norms(gradient: Tensor) -> Tensor:
    """Return the squared norm of each unit, (U,) in float64: float32 within a row of the matrix, float64 beyond."""
    rows: Tensor = torch.linalg.vector_norm(gradient, dim=-1, dtype=torch.float32)
    return rows.double().square().flatten(1).sum(1)
