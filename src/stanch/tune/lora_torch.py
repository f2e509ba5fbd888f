"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) with one backward pass for all per-unit gradients.

A frozen linear layer y = x·Wᵀ becomes y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ in one autograd function. In a private run its backward
pass forms each unit's gradient of A and B with the same multiplications that it would spend on their sum, and hands
them to :class:`stanch.tune.engine_torch.UnitGradients` instead of returning them.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stanch.errors import InvalidInput
from stanch.tune.engine_torch import UnitGradients, is_flattened
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import UnsupportedModule
from stanch.tune.spec import ALL_LINEAR, MethodSpec

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


class _LowRank(torch.autograd.Function):
    """y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ, in the dtype of x; A and B are float32 masters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: "LoraLinear") -> Tensor:  # noqa: ANN401 - autograd's context
        a, b = down.to(x.dtype), up.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.t()
        y = F.linear(rows, layer.weight, layer.bias).addmm_(low, b.t(), alpha=layer.scale)
        ctx.save_for_backward(x, a, b, low)
        ctx.layer = layer
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # noqa: ANN401 - same
        x, a, b, low = ctx.saved_tensors
        layer: LoraLinear = ctx.layer
        g = upstream[0].reshape(-1, upstream[0].shape[-1])
        g_low = (g @ b).mul_(layer.scale)
        g_x = (g @ layer.weight).addmm_(g_low, a).view(x.shape) if ctx.needs_input_grad[0] else None
        if layer.gradients is None:
            rows = x.reshape(-1, x.shape[-1])
            return g_x, (g_low.t() @ rows).float(), (g.t() @ low).float().mul_(layer.scale), None
        rows = layer.gradients.unflatten(x) if layer.flattened and x.dim() == 2 else x
        split = layer.gradients.split_rows(rows, layer.name)
        units = len(split)
        g_units, low_units = g.view(units, -1, g.shape[-1]), low.view(units, -1, low.shape[-1])
        layer.gradients.store(
            f"{layer.name}.lora_A.weight", torch.bmm(g_low.view(low_units.shape).transpose(1, 2), split)
        )
        layer.gradients.store(
            f"{layer.name}.lora_B.weight", torch.bmm(g_units.transpose(1, 2), low_units).mul_(layer.scale)
        )
        return g_x, None, None, None


class LoraLinear(nn.Module):
    """A frozen linear layer with trainable low-rank factors ``down`` (r x in) and ``up`` (out x r), both float32.

    Attributes:
        transposed: Whether the layer that it replaces stores its weight transposed, as GPT-2's ``Conv1D`` does.
        flattened: Whether its rows come end to end.
        gradients: Where a private run collects per-unit gradients; None for ordinary autograd.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, name: str, linear: nn.Linear | Conv1D, method: MethodSpec) -> None:
        super().__init__()
        self.name = name
        self.scale = method.scale
        self.transposed = isinstance(linear, Conv1D)
        self.weight = nn.Parameter(linear.weight.t(), requires_grad=False) if self.transposed else linear.weight
        self.bias = linear.bias
        device = linear.weight.device
        out, width = self.weight.shape
        self.down = nn.Parameter(torch.zeros(method.rank, width, dtype=torch.float32, device=device))
        self.up = nn.Parameter(torch.zeros(out, method.rank, dtype=torch.float32, device=device))
        self.flattened = False
        self.gradients: UnitGradients | None = None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw A as PEFT does (uniform, Kaiming with a = √5) and set B to zero: the product starts at zero.

        ``generator`` is the processor's, so that a seed gives the same weights on every device.
        """
        drawn = nn.init.kaiming_uniform_(torch.empty(self.down.shape), a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            self.down.copy_(drawn)
        nn.init.zeros_(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) for (..., in)."""
        y: Tensor = _LowRank.apply(x, self.down, self.up, self)  # type: ignore[no-untyped-call]  # torch types no Function.apply
        return y


@dataclass(frozen=True, slots=True)
class Adapter:
    """The low-rank layers that were put into a model."""

    method: MethodSpec
    layers: tuple[LoraLinear, ...] = field(repr=False)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name, sorted by name: the order of the plan."""
        pairs = [pair for layer in self.layers for pair in _named_factors(layer)]
        return dict(sorted(pairs))

    def shapes(self) -> tuple[ParameterShape, ...]:
        """Return the parameters' names and shapes, sorted by name."""
        return tuple(ParameterShape(name, tuple(value.shape)) for name, value in self.parameters().items())

    def initialise(self, generator: torch.Generator) -> None:
        """Initialise all layers."""
        for layer in self.layers:
            layer.initialise(generator)

    def collect(self, gradients: UnitGradients | None) -> None:
        """Collect per-unit gradients from now on, or return to ordinary autograd."""
        for layer in self.layers:
            layer.gradients = gradients

    def site_of(self, module: nn.Module) -> None:
        """Return None: no module is used without calling it."""

    def first_decoder_layer(self) -> int:
        """Return the number of the lowest decoder layer with an adapter; 0 where one stands outside the layers."""
        return min(number if (number := _layer_number(layer.name)) is not None else 0 for layer in self.layers)


def insert_adapter(model: nn.Module, head: nn.Module, method: MethodSpec) -> Adapter:
    """Freeze ``model`` and put low-rank layers in place of its targeted linear layers.

    Raises:
        InvalidInput: A target or layer number does not exist.
        UnsupportedModule: A target is not an ordinary linear layer.
    """
    model.requires_grad_(requires_grad=False)
    targets = list(_targets(model, head, method))
    _check_choice(targets, method)
    layers = []
    for name, linear in targets:
        layer = LoraLinear(name, linear, method)
        layer.flattened = is_flattened(model, name)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
        layers.append(layer)
    return Adapter(method, tuple(layers))


def _named_factors(layer: LoraLinear) -> Iterator[tuple[str, nn.Parameter]]:
    yield f"{layer.name}.lora_A.weight", layer.down
    yield f"{layer.name}.lora_B.weight", layer.up


def _layer_number(name: str) -> int | None:
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def _targets(model: nn.Module, head: nn.Module, method: MethodSpec) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    for name, module in model.named_modules():
        if module is head or (method.layers != "all" and _layer_number(name) not in method.layers):
            continue
        everything = method.targets == ALL_LINEAR
        if isinstance(module, nn.Linear | Conv1D) if everything else name.rpartition(".")[2] in method.targets:
            if not isinstance(module, nn.Linear | Conv1D) or type(module) not in {nn.Linear, Conv1D}:
                raise UnsupportedModule(
                    f"{name}: {type(module).__name__} cannot be adapted",
                    why="only ordinary linear layers have an exact per-unit gradient here",
                    next_step="leave it out of the targets",
                )
            yield name, module


def _check_choice(targets: list[tuple[str, nn.Linear | Conv1D]], method: MethodSpec) -> None:
    names = {name.rpartition(".")[2] for name, _ in targets}
    numbers = {_layer_number(name) for name, _ in targets}
    missing = [] if method.targets == ALL_LINEAR else sorted(set(method.targets) - names)
    absent = [] if method.layers == "all" else sorted(set(method.layers) - {n for n in numbers if n is not None})
    if missing or absent or not targets:
        raise InvalidInput(
            f"method: the model has no layer for {', '.join([*missing, *map(str, absent)]) or 'these targets'}",
            next_step='use targets = "all-linear" and layers = "all", or existing names and numbers',
        )
