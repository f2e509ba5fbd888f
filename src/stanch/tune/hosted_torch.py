"""Somebody else's model, of which a PEFT adapter or the weights are trained: per-unit gradients, a record's loss."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from safetensors.torch import load_file
from torch import Tensor, nn

from stanch.crypto import frame, sha256
from stanch.errors import InvalidInput
from stanch.terms import Digest
from stanch.tune.bookkeeping_torch import FullWeights
from stanch.tune.chunks import Row
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.plan import ParameterShape
from stanch.tune.refusals import SelfCheckFailed, UnsafeArgument, UnsupportedModule

_PREFIX = "base_model.model."
_INITIAL = (True, "gaussian", "orthogonal")
_PROBE, _SHOWN = 16, 8
_TOLERANCE = 2e-2
_TOUCHED = "_stanch_touched"
_ZERO = 1e-5
_EXACT_ENOUGH = {torch.float32, torch.bfloat16, torch.float64}
_RANDOM = "masks follow the seed and the rows of a batch, so one unit would move the gradients of all the others"


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

    @property
    def is_zero(self) -> bool:
        """Whether every product of factors is zero, up to rounding: the model still answers as its base does."""
        ups = [name for name in self._weights if ".lora_B." in name]
        return all(_is_zero(self._weights[name.replace(".lora_B.", ".lora_A.")], self._weights[name]) for name in ups)

    def collect(self, gradients: UnitGradients | None) -> None:
        """Collect per-unit gradients from now on, or return to ordinary autograd."""
        for name, layer in self._layers.items():
            # Instance attributes come before the methods of the class.
            layer.__dict__.pop("forward", None)
            if gradients is not None:
                layer.__dict__["forward"] = _forward(layer, name, gradients)


def _is_zero(down: Tensor, up: Tensor) -> bool:
    """Whether up·down is zero beside its factors, up to rounding; orthogonal factors are not zero themselves."""
    a, b = down.detach().double(), up.detach().double()
    # The squared norm of the product, from two matrices of rank x rank.
    square = ((b.t() @ b) * (a @ a.t())).sum()
    return bool(square <= _ZERO**2 * a.square().sum() * b.square().sum())


def _forward(layer: nn.Linear, name: str, gradients: UnitGradients) -> Callable[[Tensor], Tensor]:
    return lambda x: _Capture.apply(x, layer.weight, name, gradients)  # type: ignore[no-untyped-call]  # torch types no Function.apply


class HostedModel:
    """A causal language model as a trainer holds it: with one trainable PEFT adapter, or trained itself.

    Args:
        model: The ``PeftModel``, or a model of transformers whose weights are trained where they ask for a gradient.
        autocast: Opened around each forward pass.

    Attributes:
        adapter: The trainable part.

    Raises:
        UnsafeArgument: The adapter was initialised from data, or is not the only one; the model has dropout.
        UnsupportedModule: The model mixes rows, looks ahead, draws at random, is quantised, or trains what has no exact
            gradient.
    """

    def __init__(self, model: Any, autocast: Callable[[], AbstractContextManager[Any]]) -> None:  # noqa: ANN401 - transformers ships no types
        self.model = model
        self._autocast = autocast
        self.adapter = _find_trainable(model)
        _check_base(model)
        _check_dropout(model)
        # Models with learned positions give all rows one and the same; each row needs its own to be told apart.
        embeddings = [part for part in model.modules() if isinstance(part, nn.Embedding)]
        self._own_positions = isinstance(self.adapter, FullWeights) and len(embeddings) > 1
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

    def base_digest(self) -> Digest:
        """Return SHA-256 over the framed names, types, shapes and bytes of the frozen weights, sorted by name.

        Of all weights, as they are now, where none is an adapter.
        """
        whole = isinstance(self.adapter, FullWeights)
        parts = [b"stanch/tune/v1/base" if whole else b"stanch/tune/v1/frozen"]
        for name, value in sorted(self.model.named_parameters()):
            if whole or not value.requires_grad:
                raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                parts += [name.encode(), str(value.dtype).encode(), str(tuple(value.shape)).encode(), sha256(raw)]
        return Digest.sha256(frame(*parts))

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format, or the whole model, as safetensors and JSON."""
        whole = isinstance(self.adapter, FullWeights)
        self.model.save_pretrained(folder, **({} if whole else {"save_embedding_layers": False}))

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was learned yet, as far as the model tells.

        A fresh adapter's product is zero. Weights that are trained themselves tell only what was done in this process.
        """
        if isinstance(self.adapter, FullWeights):
            return not getattr(self.model, _TOUCHED, False)
        return self.adapter.is_zero

    def touch(self) -> None:
        """Remember that the weights are about to change."""
        setattr(self.model, _TOUCHED, True)

    def check_saved(self, folder: Path) -> None:
        """Compare the trained weights with what lies in ``folder``.

        Raises:
            SelfCheckFailed: It holds others.
        """
        if not self.is_saved_in(folder):
            raise SelfCheckFailed(
                "the saved files do not hold the trained weights",
                why="PEFT or transformers wrote something else",
                next_step="report this with the versions of peft and transformers",
            )

    def is_saved_in(self, folder: Path) -> bool:
        """Whether the safetensors in ``folder`` hold the trainable weights as they are now."""
        saved = {
            name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()
        }
        if isinstance(self.adapter, FullWeights):
            # A weight that several modules share is written under one of its names.
            named = list(self.model.named_parameters(remove_duplicate=False))
        else:
            named = [(f"{_PREFIX}{name}", value) for name, value in self.adapter.parameters().items()]
        found = {name: value for name, value in named if name in saved and value.requires_grad}
        missing = _count(value for _, value in named if value.requires_grad) - _count(found.values())
        return not missing and all(torch.equal(saved[name], value.detach().cpu()) for name, value in found.items())

    def _logits(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.model.device)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if self._own_positions else None
        given = {} if positions is None else {"position_ids": positions}
        with self._autocast():
            logits: Tensor = self.model(input_ids=ids, use_cache=False, **given).logits
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
            self.model.train()
            trained, again = self._logits(one), self._logits(one)
        self.model.train(mode=training)
        ahead = _differ(alone[0, :_SHOWN], both[0, :_SHOWN])
        mixed = _differ(alone[0], both[1])
        if ahead or mixed:
            raise UnsupportedModule(
                f"{type(self.model).__name__}: {'its tokens look ahead' if ahead else 'its rows feel each other'}",
                why="a record's loss must not depend on padding or on other records",
                next_step="use a causal language model without batch statistics",
            )
        if not torch.equal(trained, again):
            raise UnsupportedModule(
                f"{type(self.model).__name__}: in training mode two passes over the same tokens differ",
                why=_RANDOM,
                next_step="set whatever it draws at random in training (dropout, layer drop, jitter) to 0",
            )


def adapter_shapes(model: Any) -> tuple[ParameterShape, ...]:  # noqa: ANN401 - transformers ships no types
    """Return what a model trains, for :meth:`stanch.tune.PrivacyPlan.make`: a PEFT model its adapter, others all.

    Raises:
        InvalidInput: As :class:`HostedModel`.
    """
    return _find_trainable(model).shapes()


def _find_trainable(model: Any) -> TrainableLinears | FullWeights:  # noqa: ANN401 - transformers ships no types
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UnsupportedModule(
            f"{type(model).__name__}: its adapter was added by add_adapter",
            why="only a PeftModel names and saves its adapter as the plan does",
            next_step="wrap the model with peft.get_peft_model and a LoraConfig",
        )
    if hasattr(model, "peft_config"):
        return TrainableLinears(model, adapter_name=_check_adapter(model))
    weights = FullWeights(model)
    if not weights.parameters():
        raise InvalidInput(
            "the model has no trainable parameters", next_step="thaw its weights, or add a LoRA adapter with PEFT"
        )
    return weights


def _count(parameters: Iterable[Tensor]) -> int:
    return len({id(parameter) for parameter in parameters})


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether logits differ by more than rounding in bfloat16."""
    return not bool((one - other).float().norm() <= _TOLERANCE * one.float().norm())


def _plan_name(name: str, adapter_name: str) -> str:
    return f"{name.removeprefix(_PREFIX).removesuffix(f'.{adapter_name}')}.weight"


def _check_adapter(model: Any) -> str:  # noqa: ANN401 - transformers ships no types
    active = list(getattr(model, "active_adapters", ()))
    if len(active) != 1:
        raise UnsupportedModule(
            f"{type(model).__name__}: expected one active adapter, found {len(active)}",
            why="what an adapter does to another one's gradient is not tested",
            next_step="activate one adapter with set_adapter, or train the model without adapters",
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


def _check_dropout(model: Any) -> None:  # noqa: ANN401 - transformers ships no types
    """Refuse dropout: a unit's gradient must be a function of the unit and the weights alone.

    Masks are drawn for a whole batch from one stream, which a trainer seeds with a public number. Taking one unit out
    gives all the others other masks, and moves the clipped sum by many bounds. Masks of a fresh secret seed would do in
    theory: they have the same law for the others whether or not the unit is there, so runs can be paired mask by mask,
    and for each pair the sums differ by one bound. But that needs masks that nobody can tell from independent ones, and
    torch's generators are made for speed: the one on a processor has 2**32 seeds. Without dropout nothing is assumed.
    """
    for name, module in model.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)  # noqa: SLF001 - the one class of all dropouts
        shares = {"p": module.p} if is_dropout else {key: value for key, value in vars(module).items() if "drop" in key}
        for key, share in shares.items():
            if type(share) in {int, float} and share > 0:
                raise UnsafeArgument(
                    f"{name}.{key}: dropout of {share:g} is refused",
                    why=_RANDOM,
                    next_step="load the model with its dropouts at 0, such as from_pretrained(base, "
                    "attention_dropout=0.0); leave lora_dropout at 0",
                )


def _check_base(model: Any) -> None:  # noqa: ANN401 - transformers ships no types
    if getattr(model, "quantization_method", None) is not None:
        raise UnsupportedModule(
            f"{type(model).__name__}: its base is quantised",
            why="the engine is not tested with quantised weights",
            next_step="load the base in bfloat16 or float32",
        )
    for name, value in model.named_parameters():
        if value.dtype not in _EXACT_ENOUGH:
            raise UnsupportedModule(
                f"{name}: expected weights in float32 or bfloat16, found {value.dtype}",
                why="float16 overflows on single records, and nothing is tested in it",
                next_step="load the model with dtype=torch.bfloat16 or torch.float32",
            )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the one class of all batch norms
            raise UnsupportedModule(
                f"{name}: {type(module).__name__} computes statistics of a batch",
                why="a record's loss would depend on other records",
                next_step="use a model with layer norms",
            )
