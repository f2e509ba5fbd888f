"""All trainable weights of a model where they are, with one backward pass for their per-unit gradients.

In a private run each module that owns trainable weights gets a forward that hands over what its gradient is made of
(book-keeping: Bu et al. 2022, arXiv 2210.00038) to :class:`stanch.tune.engine_torch.UnitGradients`, and returns no
weight gradient to autograd. Module types, names and gradient checkpointing stay as they were.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from stanch.errors import InvalidInput
from stanch.tune.engine_torch import UnitGradients, is_flattened
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import UnsupportedModule

Forward = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Site:
    """A module that owns trainable weights, and where what they take part in is collected.

    Attributes:
        name: Of the module.
        weight: Name of its trainable weight, or None.
        bias: Name of its trainable bias, or None.
    """

    name: str
    weight: str | None
    bias: str | None
    gradients: UnitGradients

    def collect_linear(self, x: Tensor, g: Tensor, *, transposed: bool = False) -> None:
        """Take input and output gradient of y = x·Wᵀ + b, (rows, T, width) each; ``transposed`` holds Wᵀ."""
        x, g = self.gradients.split_rows(x, self.name), self.gradients.split_rows(g, self.name)
        if self.weight is not None:
            self.gradients.store_pair(self.weight, *((x, g) if transposed else (g, x)))
        if self.bias is not None:
            self.gradients.store(self.bias, g.float().sum(1))


class FullWeights:
    """The trainable weights of a model, all or some of them.

    Raises:
        UnsupportedModule: A module owns a trainable weight for which there is no exact per-unit gradient.
        InvalidInput: A trainable weight is not float32.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = dict(sorted(named.items()))
        # A weight that several modules share has the name of the first.
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._sites: dict[nn.Module, Site] = {}
        self._owners: list[tuple[str, nn.Module]] = []
        besides: list[tuple[str, nn.Module]] = []
        for name, module in model.named_modules():
            own = {key: p for key, p in module.named_parameters(recurse=False) if p.requires_grad}
            if own:
                (self._owners if _is_supported(module, set(own)) else besides).append((name, module))
        covered = {id(p) for _, module in self._owners for p in module.parameters(recurse=False)}
        for name, module in besides:
            # A weight that a supported module owns too is collected there; used elsewhere, it is seen in each step.
            if any(p.requires_grad and id(p) not in covered for p in module.parameters(recurse=False)):
                raise UnsupportedModule(
                    f"{name}: {type(module).__name__} owns trainable weights and cannot be trained privately",
                    why="there is no exact per-unit gradient for it here",
                    next_step="freeze it, or train a low-rank adapter instead",
                )
        if coarse := [name for name, parameter in self._parameters.items() if parameter.dtype != torch.float32]:
            raise InvalidInput(
                f"{coarse[0]}: trainable weights must be float32",
                why="small updates are lost in smaller types",
                next_step="load the model in float32; autocast makes its products in bfloat16",
            )

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name, sorted by name: the order of the plan."""
        return dict(self._parameters)

    def shapes(self) -> tuple[ParameterShape, ...]:
        """Return the parameters' names and shapes, sorted by name."""
        return tuple(ParameterShape(name, tuple(value.shape)) for name, value in self._parameters.items())

    def initialise(self, generator: torch.Generator) -> None:
        """Draw nothing from ``generator``: training starts at the base weights."""

    def collect(self, gradients: UnitGradients | None) -> None:
        """Collect per-unit gradients from now on, or return to ordinary autograd.

        Raises:
            UnsupportedModule: A norm does something else with its weight than its class promises.
        """
        for module in self._sites:
            del module.__dict__["forward"]
        self._sites.clear()
        if gradients is None:
            return
        for name, module in self._owners:
            own = dict(module.named_parameters(recurse=False))
            weight, bias = (self._names.get(id(own.get(key))) for key in ("weight", "bias"))
            site = Site(name, weight, bias, gradients)
            forward = _make_forward(module, site)
            if is_flattened(self._model, name):
                forward = _unflattened(forward, gradients)
            if _is_rms_norm(module):
                _check_norm(site, module, forward)
            self._sites[module] = site
            # Instance attributes come before the methods of the class.
            module.__dict__["forward"] = _with_gradient(forward, module.forward)

    def site_of(self, module: nn.Module) -> Site | None:
        """Return where to hand over a module's gradient that is used without calling it; None with autograd."""
        return self._sites.get(module)


def _is_supported(module: nn.Module, own: set[str]) -> bool:
    if type(module) in {nn.Linear, Conv1D, nn.LayerNorm}:
        return own <= {"weight", "bias"}
    if isinstance(module, nn.Embedding):
        return own == {"weight"} and module.max_norm is None and not module.scale_grad_by_freq
    return own == {"weight"} and _is_rms_norm(module)


def _with_gradient(forward: Forward, original: Forward) -> Forward:
    """Use ``forward`` only where gradients are wanted: what is merely looked at announces no rows."""

    def choose(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as the module takes them
        return (forward if torch.is_grad_enabled() else original)(*args, **kwargs)

    return choose


def _unflattened(forward: Forward, gradients: UnitGradients) -> Forward:
    return lambda x: forward(gradients.unflatten(x)).flatten(0, 1) if x.dim() == 2 else forward(x)


def _is_rms_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and [*dict(module.named_parameters())] == ["weight"]


def _make_forward(module: nn.Module, site: Site) -> Forward:
    if isinstance(module, nn.Linear | Conv1D):
        return lambda x: _Linear.apply(x, module.weight, module.bias, site, isinstance(module, Conv1D))  # type: ignore[no-untyped-call]  # torch types no Function.apply
    if isinstance(module, nn.Embedding):
        return _embedding_forward(module, site)
    if isinstance(module, nn.LayerNorm):
        return _layer_norm_forward(module, site)
    return _rms_norm_forward(module, site)


class _Linear(torch.autograd.Function):
    """y = x·Wᵀ + b, or x·W + b for a Conv1D, in the dtype of autocast."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - autograd's context
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        site: Site,
        transposed: bool,  # noqa: FBT001 - autograd passes by position
    ) -> Tensor:
        # Autocast would keep a cast weight for the whole step; here it lives as long as this pass.
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        rows, w = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(rows, w)
        ctx.site, ctx.transposed, ctx.dtype = site, transposed, x.dtype
        return F.linear(rows, w.t() if transposed else w, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None, None]:  # noqa: ANN401 - same
        x, w = ctx.saved_tensors
        (g,) = upstream
        ctx.site.collect_linear(x, g, transposed=ctx.transposed)
        g_x = (g @ (w.t() if ctx.transposed else w)).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return g_x, None, None, None, None


class _Rows(torch.autograd.Function):
    """The rows of an embedding at ``ids``."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None, site: Site) -> Tensor:  # noqa: ANN401 - autograd's context
        ctx.ids, ctx.padding, ctx.site = ids, padding, site
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, None, None, None]:  # noqa: ANN401 - same
        (g,) = upstream
        site: Site = ctx.site
        if ctx.padding is not None:
            g = g.masked_fill((ctx.ids == ctx.padding)[..., None], 0)
        if site.weight is not None:
            ids = site.gradients.split_rows(ctx.ids[..., None], site.name)[..., 0]
            site.gradients.store_rows(site.weight, ids, site.gradients.split_rows(g, site.name))
        return None, None, None, None


class _Lookups(TorchFunctionMode):
    """Replaces the look-up in ``module`` while its forward runs: subclasses shift ids or scale what they find."""

    def __init__(self, module: nn.Embedding, site: Site) -> None:
        super().__init__()
        self._module = module
        self._site = site

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's protocol
        types: Any,  # noqa: ANN401 - same
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - same
        if func is F.embedding and args[1] is self._module.weight:
            return _Rows.apply(args[0], args[1], self._module.padding_idx, self._site)  # type: ignore[no-untyped-call]  # torch types no Function.apply
        return func(*args, **(kwargs or {}))


def _embedding_forward(module: nn.Embedding, site: Site) -> Forward:
    original: Forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as the subclass takes them
        with _Lookups(module, site):
            return original(*args, **kwargs)

    return forward


class _PerRow(torch.autograd.Function):
    """A vector, once for each row, so that each row's gradient comes back by itself."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, dims: int, name: str, site: Site) -> Tensor:  # noqa: ANN401 - autograd's context
        ctx.name, ctx.site = name, site
        return vector.view([1] * (dims - 1) + [-1]).repeat(site.gradients.rows, *[1] * (dims - 1))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, None, None, None]:  # noqa: ANN401 - same
        gradients: UnitGradients = ctx.site.gradients
        by_unit = gradients.split(upstream[0].float().flatten(1), ctx.site.name)
        gradients.store(ctx.name, by_unit.sum(1))
        return None, None, None, None


def _spread(vector: Tensor, x: Tensor, name: str | None, site: Site) -> Tensor:
    if name is None:
        return vector
    site.gradients.split(x, site.name)
    spread: Tensor = _PerRow.apply(vector, x.dim(), name, site)  # type: ignore[no-untyped-call]  # torch types no Function.apply
    return spread


def _layer_norm_forward(module: nn.LayerNorm, site: Site) -> Forward:
    def forward(x: Tensor) -> Tensor:
        y = F.layer_norm(x, module.normalized_shape, None, None, module.eps)
        y = y * _spread(module.weight, x, site.weight, site)
        bias: Tensor | None = module.bias
        return y if bias is None else y + _spread(bias, x, site.bias, site)

    return forward


def _rms_norm_forward(module: Any, site: Site) -> Forward:  # noqa: ANN401 - any of the families' classes
    original: Forward = module.forward

    def forward(x: Tensor) -> Tensor:
        if isinstance(module, nn.RMSNorm):
            return F.rms_norm(x, module.normalized_shape, None, module.eps) * _spread(
                module.weight, x, site.weight, site
            )
        with _override(module, _spread(module.weight, x, site.weight, site)):
            return original(x)

    return forward


@contextmanager
def _override(module: nn.Module, weight: Tensor) -> Iterator[None]:
    """Let the module see ``weight``: instance attributes come before registered parameters."""
    module.__dict__["weight"] = weight
    try:
        yield
    finally:
        del module.__dict__["weight"]


def _check_norm(site: Site, module: Any, forward: Forward) -> None:  # noqa: ANN401 - any of the families' classes
    """Check on random numbers that a norm gives the same with a weight for each row, and mixes no rows."""
    if module.weight.is_meta:
        return
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, module.weight.shape[-1], generator=generator).to(module.weight.device)
    site.gradients.expect(2, 2)
    with torch.no_grad():
        other = module.weight.repeat(2, 1, 1)
        other[1] += 1
        with _override(module, other):
            moved = module.forward(x)
        same = torch.allclose(module.forward(x), forward(x), rtol=1e-5, atol=1e-5)
        apart = torch.equal(moved[0], forward(x)[0]) and not torch.equal(moved[1], forward(x)[1])
    if not (same and apart):
        raise UnsupportedModule(
            f"{site.name}: {type(module).__name__} does not scale each channel by its weight",
            next_step="freeze it, or train a low-rank adapter instead",
        )
