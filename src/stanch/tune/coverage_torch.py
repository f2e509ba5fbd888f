"""Checks that what is captured, trained, optimised and saved are the same objects."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stanch.tune.lora_torch import Adapter
from stanch.tune.model_torch import CausalModel, load_base
from stanch.tune.refusals import SelfCheckFailed, UncoveredParameter

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Relative difference of the probe loss between our layers and PEFT's: their casts differ in bfloat16."""


def check_coverage(model: CausalModel, optimizer: torch.optim.Optimizer) -> None:
    """Compare trainable, adapted and optimised parameters by identity.

    An optimizer that holds other tensors than the model trains nothing, silently.

    Raises:
        UncoveredParameter: The three sets are not the same objects.
    """
    adapted = {id(parameter) for parameter in model.adapter.parameters().values()}
    trainable = {id(parameter) for parameter in model.model.parameters() if parameter.requires_grad}
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, found in (("trainable", trainable), ("optimised", optimised)):
        if found != adapted:
            raise UncoveredParameter(
                f"{len(found ^ adapted)} parameters are either adapted or {name}, but not both",
                why="their gradients would be without protection, or without effect",
                next_step="make the optimizer after the adapter, and train nothing else",
            )


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

    Raises:
        SelfCheckFailed: The file holds other weights, or gives another loss, than what was trained.
    """
    dtype = model.precision
    reloaded = _reload_adapter(model, folder, base) if isinstance(model.adapter, Adapter) else _reload(model, folder)
    ids = model.probe()
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
    if saved.keys() != live.keys() or any(not torch.equal(saved[name], value) for name, value in live.items()):
        raise SelfCheckFailed(
            "the saved file does not hold the trained weights",
            next_step="report this with the versions of peft and transformers",
        )
