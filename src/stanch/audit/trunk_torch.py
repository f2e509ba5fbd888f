"""The decoder layers below the lowest adapter: with the adapter on and off they compute the same, so once is enough."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from stanch.audit.loading_torch import HfModel


class FrozenTrunk:
    """The layers that an adapter leaves alone and that nothing adapted stands before.

    Args:
        model: A model or PEFT model; without a list of decoder layers it has no trunk, and nothing is shared.
    """

    def __init__(self, model: HfModel) -> None:
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        layers = getattr(getattr(plain, "base_model", None), "layers", None)
        self._layers: list[torch.nn.Module] = []
        if not isinstance(layers, torch.nn.ModuleList) or _adapted(plain.get_input_embeddings()):
            return
        for layer in layers:
            if _adapted(layer):
                break
            self._layers.append(layer)

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """Within: the first pass runs the trunk, each further pass over the same batch takes up what it left."""
        left: list[torch.Tensor] = []
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                own = vars(layer).get("forward")
                layer.forward = _remembering(layer.forward, left, last=layer is self._layers[-1])
                stack.callback(_restore, layer, own)
            yield


def _adapted(module: torch.nn.Module) -> bool:
    return any(isinstance(part, BaseTunerLayer) for part in module.modules())


def _restore(layer: torch.nn.Module, own: Callable[..., Any] | None) -> None:
    """Take the forward away again; other libraries may have put one of theirs on the layer before."""
    del layer.forward
    if own is not None:
        layer.forward = own


def _remembering(run: Callable[..., Any], left: list[torch.Tensor], *, last: bool) -> Callable[..., Any]:
    """Return a layer's forward that does nothing once ``left`` holds what the last layer made.

    Layers that return anything but a tensor are run each time.
    """

    def forward(hidden: torch.Tensor, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the layer's own
        if left:
            return left[0] if last else hidden
        made = run(hidden, *given, **named)
        if last and isinstance(made, torch.Tensor):
            left.append(made)
        return made

    return forward
