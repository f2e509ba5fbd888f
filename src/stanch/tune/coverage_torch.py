"""Checks that what is captured, trained, optimised and saved are the same objects."""

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stanch.tune.gradient_torch import PrivateGradient, StepGradient, Trainable, is_checked
from stanch.tune.lora_torch import Adapter
from stanch.tune.model_torch import CausalModel, load_base
from stanch.tune.plan import SLACK
from stanch.tune.refusals import SelfCheckFailed, UncoveredParameter

_FALSE_ALARM = 7.0
"""Standard deviations of a normal law: a false alarm in 4·10¹¹ checks."""
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Relative difference of the probe loss between our layers and PEFT's: their casts differ in bfloat16."""


class Tuned(Protocol):
    """A model and what is trained of it."""

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        ...

    @property
    def adapter(self) -> Trainable:
        """What is trained of it."""
        ...


def check_step(step: int, model: Tuned, optimizer: torch.optim.Optimizer, gradient: StepGradient) -> None:
    """Check the first and every 100th step of a process after its gradient is there, and before it is charged.

    Several processes check together, or none does.

    Raises:
        UncoveredParameter: As :func:`check_coverage`.
        SelfCheckFailed: As :func:`check_noise`.
    """
    if is_checked(step):
        check_coverage(model, optimizer, gradient)
        if isinstance(gradient, PrivateGradient):
            check_noise(gradient)


def check_coverage(model: Tuned, optimizer: torch.optim.Optimizer, gradient: StepGradient | None = None) -> None:
    """Compare adapted, trainable, optimised and collected parameters by identity.

    An optimizer, or a gradient, that holds other tensors than the model trains nothing, silently.

    Raises:
        UncoveredParameter: The sets are not the same objects.
    """
    adapted = _identities(model.adapter.parameters().values())
    found = {
        "trainable": _identities(one for one in model.model.parameters() if one.requires_grad),
        "optimised": _identities(one for group in optimizer.param_groups for one in group["params"]),
    }
    if gradient is not None:
        found["collected"] = _identities(gradient.parameters.values())
    for name, others in found.items():
        if others != adapted:
            raise UncoveredParameter(
                f"{len(others ^ adapted)} parameters are either adapted or {name}, but not both",
                why="their gradients would be without protection, or without effect",
                next_step="do not freeze, thaw or replace weights once the optimizer or the trainer is made",
            )


def check_noise(gradient: PrivateGradient) -> None:
    """Compare what the last release holds beside the clipped sum with the plan's noise, by its variance.

    Raises:
        SelfCheckFailed: There is none, too little, or too much of it.
    """
    count = gradient.plan.coordinates
    # The cube root of a chi-square share is nearly normal (Wilson and Hilferty 1931).
    spread = 2 / (9 * count)
    found = gradient.noise_variance()
    away = (math.cbrt(found / (1 + SLACK) ** 2) - (1 - spread)) / math.sqrt(spread)
    if not abs(away) <= _FALSE_ALARM:
        raise SelfCheckFailed(
            f"the noise has {found:.3g} times the variance of the plan",
            why="the release would not have the stated epsilon, or would be of no use",
            next_step="nothing was charged or released; reinstall stanch, and report this if it comes again",
        )


def check_optimizer(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Take a step of zero for one parameter after another, and undo it: what cannot step fails before a charge.

    State on another device than its parameter, for example, or too little memory. Gradients are gone afterwards.

    Raises:
        SelfCheckFailed: A step fails.
    """
    for parameter in parameters.values():
        parameter.grad = None
    for name, parameter in parameters.items():
        weight, state = parameter.detach().clone(), copy.deepcopy(optimizer.state.get(parameter))
        parameter.grad = torch.zeros_like(parameter)
        try:
            optimizer.step()
        except RuntimeError as error:
            raise SelfCheckFailed(
                f"{name}: the optimizer cannot step",
                why=str(error),
                next_step="nothing was charged; free memory, or report this with the version of torch",
            ) from error
        parameter.grad = None
        with torch.no_grad():
            parameter.copy_(weight)
        if state is None:
            optimizer.state.pop(parameter, None)
        else:
            optimizer.state[parameter] = state


def _identities(parameters: Iterable[Tensor]) -> set[int]:
    return {id(parameter) for parameter in parameters}


def check_movement(before: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise :class:`SelfCheckFailed` where a step with a gradient changed nothing."""
    if all(torch.equal(before[name], parameter) for name, parameter in parameters.items()):
        raise SelfCheckFailed(
            "the first step changed no weight",
            why="the optimizer does not hold the trained parameters, or the learning rate is 0",
            next_step="check learning_rate; if it is right, report this",
        )


def check_saved(model: CausalModel, folder: Path, base: Path) -> None:
    """Reload what was saved, an adapter with PEFT on a fresh base, and compare the loss on a public probe.

    The reloaded model runs on the processor: an accelerator that is full of the trained one may hold no second.

    Raises:
        SelfCheckFailed: The file holds other weights, or gives another loss, than what was trained.
    """
    dtype = model.precision
    reloaded = _reload_adapter(model, folder, base) if isinstance(model.adapter, Adapter) else _reload(model, folder)
    ids = model.probe().cpu()
    with torch.no_grad():
        logits = reloaded(input_ids=ids, use_cache=False).logits[0, :-1].float()
    loss = float(nn.functional.cross_entropy(logits, ids[0, 1:]))
    expected = model.probe_loss()
    if not abs(loss - expected) <= _TOLERANCE[dtype] * max(1.0, abs(expected)):
        raise SelfCheckFailed(
            f"the reloaded model has loss {loss:.4f} on the public probe, the trained one {expected:.4f}",
            why="the saved weights are not what was trained",
            next_step="report this with the versions of peft and transformers",
        )


def _reload_adapter(model: CausalModel, folder: Path, base: Path) -> nn.Module:
    from peft import PeftModel  # noqa: PLC0415 - slow to import, needed once at the end

    saved = load_file(folder / "adapter_model.safetensors")
    _check_weights(model, {name.removeprefix("base_model.model."): value for name, value in saved.items()})
    with warnings.catch_warnings():
        # PEFT reads an attribute that transformers is about to rename.
        warnings.simplefilter("ignore", FutureWarning)
        reloaded: nn.Module = PeftModel.from_pretrained(load_base(base, dtype=model.precision), folder)
    return reloaded.eval()


def _reload(model: CausalModel, folder: Path) -> nn.Module:
    reloaded: nn.Module = load_base(folder, dtype=torch.float32).eval()
    _check_weights(model, dict(reloaded.named_parameters()))
    return reloaded


def _check_weights(model: CausalModel, saved: Mapping[str, Tensor]) -> None:
    live = model.adapter.parameters()
    if saved.keys() != live.keys() or any(not torch.equal(saved[name], value.cpu()) for name, value in live.items()):
        raise SelfCheckFailed(
            "the saved file does not hold the trained weights",
            next_step="report this with the versions of peft and transformers",
        )
