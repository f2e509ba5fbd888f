"""Per-unit gradients of one chunk: collected, clipped, summed.

The norm of a unit is computed from the very tensors that are summed, so that its clipped gradient is at most C long
whatever rounding went into it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stanch.tune.captures_torch import Captured, Grams
from stanch.tune.plan import Clipping
from stanch.tune.refusals import BatchAxisLost, UncoveredParameter

_AUTOMATIC_OFFSET = 0.01


class UnitGradients:
    """Collects the gradients of U units while backward passes run, then adds their clipped sum to a float64 total.

    Args:
        parameters: The trainable parameters, by name.
        max_grad_norm: C.
        clipping: ``flat`` min(1, C/n), or ``automatic`` C/(n + 0.01) (Bu et al. 2022, arXiv 2206.07136).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], max_grad_norm: float, clipping: Clipping) -> None:
        self._parameters = dict(parameters)
        self._bound = max_grad_norm
        self._clipping = clipping
        self._units = 0
        self._rows = 0
        self._collected: defaultdict[str, Captured] = defaultdict(Captured)
        self._total: dict[str, Tensor] = {}

    @property
    def total(self) -> dict[str, Tensor]:
        """The clipped sum of the chunks so far, by name: of one chunk in float32, of several in float64.

        Whoever takes a sum out of it frees its memory.
        """
        for name, p in self._parameters.items():
            if name not in self._total:
                self._total[name] = torch.zeros(p.shape, device=p.device)
        return self._total

    def reset(self) -> None:
        """Forget the total and whatever was collected."""
        self._collected.clear()
        self._total = {}
        for parameter in self._parameters.values():
            parameter.grad = None

    def expect(self, units: int, rows: int) -> None:
        """Announce a backward pass over ``rows`` rows, unit after unit, the same number for each of ``units`` units."""
        if self._collected and units != self._units:
            raise BatchAxisLost(
                "a chunk's passes must hold the same units", next_step="give each pass rows of the announced units"
            )
        self._units, self._rows = units, rows

    @property
    def rows(self) -> int:
        """How many rows the announced pass has."""
        return self._rows

    def split_rows(self, x: Tensor, name: str) -> Tensor:
        """Return (rows, T, width) as (U, S, width): a unit's records end to end.

        Summing over S is then the aggregation over the records of a unit.

        Raises:
            BatchAxisLost: The rows are not the ones that were announced.
        """
        if x.dim() != 3:
            raise _lost_axis(name, self._rows, x)
        return self.split(x, name).flatten(1, 2)

    def unflatten(self, x: Tensor) -> Tensor:
        """Return (rows · T, width) as (rows, T, width)."""
        return x.view(self._rows, -1, x.shape[-1])

    def split(self, x: Tensor, name: str) -> Tensor:
        """Return (rows, ...) as (U, records of a unit, ...).

        Raises:
            BatchAxisLost: The rows are not the ones that were announced.
        """
        if x.shape[0] != self._rows or self._rows % self._units:
            raise _lost_axis(name, self._rows, x)
        return x.reshape(self._units, self._rows // self._units, *x.shape[1:])

    def store(self, name: str, gradient: Tensor) -> None:
        """Take (U, *shape); a module used several times adds up before the norm is taken."""
        self._collected[name].add_dense(gradient)

    def store_pair(self, name: str, left: Tensor, right: Tensor) -> None:
        """Take the gradient leftᵀ·right by its factors, (U, S, a) and (U, S, b)."""
        # Saved tensors would hold the whole graph.
        self._collected[name].add_pair(left.detach(), right.detach())

    def store_rows(self, name: str, ids: Tensor, g: Tensor) -> None:
        """Take a gradient whose row id_s is the sum of all g_s, (U, S) and (U, S, b)."""
        self._collected[name].rows.append((ids, g))

    def add_clipped(self) -> None:
        """Clip every unit's gradient and add the sum to :attr:`total`.

        A unit whose norm is not finite counts as zero; no step is ever skipped for it. An error may leave the chunk in
        some parameters' sums: :meth:`reset` then.

        Raises:
            UncoveredParameter: A trainable parameter was not collected, or was used where nothing collects.
        """
        self._check_collected()
        with _exact_products():
            for name, captured in self._collected.items():
                captured.join(self._parameters[name].shape)
            factors, bad = self._clip_factors()
            for name in list(self._collected):
                # Each is let go before the next sum is formed.
                part = self._collected.pop(name).clipped_sum(factors, bad, self._parameters[name].shape)
                before = self._total.get(name)
                # Float64 from the second chunk on, so that their order does not matter.
                self._total[name] = part if before is None else before.double().add_(part)

    def _check_collected(self) -> None:
        missing = sorted(self._parameters.keys() - self._collected.keys())
        if missing:
            raise UncoveredParameter(
                f"{len(missing)} trainable parameters have no gradient, among them {missing[:1]}",
                why="the backward pass did not reach them",
                next_step="leave unused modules out of the targets",
            )
        # Autograd would leave a gradient here only for a use that went past the engine.
        besides = sorted(name for name, parameter in self._parameters.items() if parameter.grad is not None)
        if besides:
            raise UncoveredParameter(
                f"{len(besides)} trainable parameters are used outside their modules, among them {besides[:1]}",
                why="such a gradient cannot be told apart by unit, and would go unclipped",
                next_step="train this model with low-rank adapters on modules that are used by calling them",
            )

    def _clip_factors(self) -> tuple[Tensor, Tensor | None]:
        """Return c_u in float32, and which norms are not finite, (U,) each; None where all are."""
        grams = Grams()
        norms = torch.stack([captured.square_norms(grams) for captured in self._collected.values()]).sum(0).sqrt()
        bad = ~torch.isfinite(norms)
        if self._clipping == "automatic":
            factors = self._bound / (norms + _AUTOMATIC_OFFSET)
        else:
            factors = (self._bound / norms).clamp(max=1.0)
        return factors.masked_fill(bad, 0).float(), bad if bad.any() else None


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply float32 as float32, whatever a script or a trainer chose.

    TF32 and bfloat16 products round a norm and the sum it bounds in different ways, by more than the slack allows.
    """
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # set when imported
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, chosen in zip(kinds, before, strict=True):
            kind.fp32_precision = chosen


def is_flattened(model: nn.Module, name: str) -> bool:
    """Whether the module ``name`` is known to get its rows end to end, in order: (rows · T, width)."""
    parent, _, child = name.rpartition(".")
    kind = type(model.get_submodule(parent)).__name__
    return kind == "OPTDecoderLayer" and child in {"final_layer_norm", "fc1", "fc2"}


def _lost_axis(name: str, rows: int, x: Tensor) -> BatchAxisLost:
    return BatchAxisLost(
        f"{name}: expected {rows} rows, found shape {tuple(x.shape)}",
        why="gradients can only be told apart by unit while the batch axis is kept",
        next_step="leave this module out of the targets",
    )
