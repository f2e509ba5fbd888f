"""Somebody else's model with PEFT adapters, given per-unit gradients and the loss of a record."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from stanch.crypto import frame, sha256
from stanch.errors import InvalidInput
from stanch.terms import Digest
from stanch.tune.chunks import Row
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import UncoveredParameter, UnsafeArgument, UnsupportedModule

_PREFIX = "base_model.model."
_INITIAL = (True, "gaussian", "orthogonal")
_PROBE, _SHOWN = 16, 8
_TOLERANCE = 2e-2


class _Capture(torch.autograd.Function):
    """y = x·Wᵀ; the backward pass hands each unit's gradient of W to the engine instead of returning their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, name: str, gradients: UnitGradients) -> Tensor:  # noqa: ANN401 - autograd's context
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        rows, matrix = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(rows, matrix)
        ctx.name, ctx.gradients, ctx.dtype = name, gradients, x.dtype
        return F.linear(rows, matrix)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None]:  # noqa: ANN401 - same
        x, matrix = ctx.saved_tensors
        (g,) = upstream
        by_unit = ctx.gradients.split_rows(x, ctx.name).float()
        g_unit = ctx.gradients.split_rows(g, ctx.name).float()
        ctx.gradients.store(ctx.name, torch.bmm(g_unit.transpose(1, 2), by_unit))
        return (g @ matrix).to(ctx.dtype) if ctx.needs_input_grad[0] else None, None, None, None


class TrainableLinears:
    """The low-rank factors that a model trains; all other parameters are frozen.

    Raises:
        UnsupportedModule: A trainable parameter belongs to anything else.
        InvalidInput: Nothing is trainable, or not in float32.
    """

    def __init__(self, model: nn.Module, *, adapter_name: str) -> None:
        self._layers: dict[str, nn.Linear] = {}
        self._weights: dict[str, nn.Parameter] = {}
        for name, module in model.named_modules():
            own = {key for key, value in module.named_parameters(recurse=False) if value.requires_grad}
            if not own:
                continue
            factor = ".lora_A." in name or ".lora_B." in name
            if not factor or type(module) is not nn.Linear or own != {"weight"}:
                raise UnsupportedModule(
                    f"{name}: {type(module).__name__} with trainable {', '.join(sorted(own))}",
                    why="only low-rank factors without bias have an exact per-unit gradient here",
                    next_step="use a LoraConfig without biases, DoRA, trained embeddings and modules_to_save",
                )
            if module.weight.dtype != torch.float32:
                raise InvalidInput(
                    f"{name}: trainable weights must be float32, found {module.weight.dtype}",
                    why="small updates are lost in smaller types",
                    next_step="let PEFT keep the adapter in float32 (autocast_adapter_dtype=True)",
                )
            self._layers[_plan_name(name, adapter_name)] = module
            self._weights[_plan_name(name, adapter_name)] = module.get_parameter("weight")
        if not self._layers:
            raise InvalidInput("the model has no trainable parameters", next_step="add a LoRA adapter with PEFT")
        if len({id(weight) for weight in self._weights.values()}) != len(self._layers):
            raise UnsupportedModule("two layers share one trainable weight", next_step="untie them")

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name, sorted by name: the order of the plan."""
        return {name: self._weights[name] for name in sorted(self._weights)}

    def shapes(self) -> tuple[ParameterShape, ...]:
        """Return the parameters' names and shapes, sorted by name."""
        return tuple(ParameterShape(name, tuple(value.shape)) for name, value in self.parameters().items())

    def collect(self, gradients: UnitGradients | None) -> None:
        """Collect per-unit gradients from now on, or return to ordinary autograd."""
        for name, layer in self._layers.items():
            # Instance attributes come before the methods of the class.
            layer.__dict__.pop("forward", None)
            if gradients is not None:
                layer.__dict__["forward"] = _forward(layer, name, gradients)


def _forward(layer: nn.Linear, name: str, gradients: UnitGradients) -> Callable[[Tensor], Tensor]:
    return lambda x: _Capture.apply(x, layer.weight, name, gradients)  # type: ignore[no-untyped-call]  # torch types no Function.apply


class HostedModel:
    """A causal language model with one trainable PEFT adapter, as a trainer holds it.

    Args:
        model: The ``PeftModel``.
        autocast: Opened around each forward pass.

    Attributes:
        adapter: The trainable part.

    Raises:
        UnsafeArgument: The adapter was initialised from data, or is not the only one.
        UnsupportedModule: The model mixes rows, looks ahead, is quantised, or trains what has no exact gradient.
    """

    def __init__(self, model: Any, autocast: Callable[[], AbstractContextManager[Any]]) -> None:  # noqa: ANN401 - transformers ships no types
        self.model = model
        self._autocast = autocast
        self.adapter = TrainableLinears(model, adapter_name=_check_adapter(model))
        _check_base(model)
        self._check_rows()

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Return the sum over the rows of weight times token losses.

        Rows are padded on the right without an attention mask: attention is causal, which was checked, so nothing
        labelled looks at padding.
        """
        ids = torch.zeros(len(rows), max(len(row.record.ids) for row in rows), dtype=torch.long)
        for own, row in zip(ids, rows, strict=True):
            own[: len(row.record.ids)] = torch.tensor(row.record.ids)
        labelled = [row.record.labelled for row in rows]
        index = torch.tensor([number for number, own in enumerate(labelled) for _ in own])
        places = torch.tensor([place for own in labelled for place in own]).long()
        weights = torch.tensor([row.weight for row, own in zip(rows, labelled, strict=True) for _ in own])
        # The logits before a token predict it.
        scores = self._logits(ids)[index, places - 1].float()
        targets = ids[index, places].to(scores.device)
        total: Tensor = (F.cross_entropy(scores, targets, reduction="none") * weights.to(scores.device)).sum()
        return total

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Compare adapted, trainable and optimised parameters by identity.

        Raises:
            UncoveredParameter: They are not the same objects: something would be trained without protection, or not.
        """
        adapted = {id(parameter) for parameter in self.adapter.parameters().values()}
        trainable = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}
        optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, found in (("trainable", trainable), ("optimised", optimised)):
            if found != adapted:
                raise UncoveredParameter(
                    f"{len(found ^ adapted)} parameters are either adapted or {name}, but not both",
                    why="their gradients would be without protection, or without effect",
                    next_step="do not freeze, thaw or replace weights after the trainer was made",
                )

    def base_digest(self) -> Digest:
        """Return SHA-256 over the framed names, types, shapes and bytes of the frozen weights, sorted by name."""
        parts = [b"stanch/tune/v1/frozen"]
        for name, value in sorted(self.model.named_parameters()):
            if not value.requires_grad:
                raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                parts += [name.encode(), str(value.dtype).encode(), str(tuple(value.shape)).encode(), sha256(raw)]
        return Digest.sha256(frame(*parts))

    def _logits(self, ids: Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
        return logits

    def _check_rows(self) -> None:
        """Refuse a model whose first tokens feel later ones, or whose rows feel each other."""
        vocabulary: int = self.model.get_input_embeddings().num_embeddings
        one, other = ((torch.arange(1, _PROBE + 1) * step % vocabulary)[None] for step in (7919, 104729))
        other[:, :_SHOWN] = one[:, :_SHOWN]
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            alone, both = self._logits(one), self._logits(torch.cat([other, one]))
        self.model.train(mode=training)
        ahead = _differ(alone[0, :_SHOWN], both[0, :_SHOWN])
        mixed = _differ(alone[0], both[1])
        if ahead or mixed:
            raise UnsupportedModule(
                f"{type(self.model).__name__}: {'its tokens look ahead' if ahead else 'its rows feel each other'}",
                why="a record's loss must not depend on padding or on other records",
                next_step="use a causal language model without batch statistics",
            )


def adapter_shapes(model: Any) -> tuple[ParameterShape, ...]:  # noqa: ANN401 - transformers ships no types
    """Return what a PEFT model trains, for :meth:`stanch.tune.PrivacyPlan.make`.

    Raises:
        InvalidInput: As :class:`HostedModel`.
    """
    return TrainableLinears(model, adapter_name=_check_adapter(model)).shapes()


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether logits differ by more than rounding in bfloat16."""
    return not bool((one - other).float().norm() <= _TOLERANCE * one.float().norm())


def _plan_name(name: str, adapter_name: str) -> str:
    return f"{name.removeprefix(_PREFIX).removesuffix(f'.{adapter_name}')}.weight"


def _check_adapter(model: Any) -> str:  # noqa: ANN401 - transformers ships no types
    active = list(getattr(model, "active_adapters", ())) if hasattr(model, "peft_config") else []
    if len(active) != 1:
        raise UnsupportedModule(
            f"{type(model).__name__}: expected a PEFT model with one active adapter, found {len(active)}",
            why="the trainers train low-rank adapters; full tuning is done by stanch's own loop",
            next_step="wrap the model with peft.get_peft_model and a LoraConfig",
        )
    config = model.peft_config[active[0]]
    initial = getattr(config, "init_lora_weights", "?")
    if initial not in _INITIAL:
        raise UnsafeArgument(
            f"init_lora_weights: {initial!r} is refused",
            why="initial weights that were fitted to data reveal it",
            next_step="use init_lora_weights=True, 'gaussian' or 'orthogonal'",
        )
    return str(active[0])


def _check_base(model: Any) -> None:  # noqa: ANN401 - transformers ships no types
    if getattr(model, "quantization_method", None) is not None:
        raise UnsupportedModule(
            f"{type(model).__name__}: its base is quantised",
            why="the engine is not tested with quantised weights",
            next_step="load the base in bfloat16 or float32",
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the one class of all batch norms
            raise UnsupportedModule(
                f"{name}: {type(module).__name__} computes statistics of a batch",
                why="a record's loss would depend on other records",
                next_step="use a model with layer norms",
            )
