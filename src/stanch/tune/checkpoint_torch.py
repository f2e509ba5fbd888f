"""Checkpoints without pickle: safetensors and JSON. No random state is stored: a resumed run draws new keys."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic
from stanch.errors import InvalidInput
from stanch.tune.journal import JournalHead
from stanch.tune.refusals import PlanChanged

SCHEMA = "urn:stanch:tune-checkpoint:v1"
ADAPTER_NAME = "adapter_model.safetensors"
_OPTIMIZER_NAME = "optimizer.safetensors"
_STATE_NAME = "state.json"
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What a checkpoint knows beside tensors.

    Attributes:
        run: Digest of everything that must not change between start and resume.
        updates: Updates in these weights.
        elapsed: Steps of the schedule that are over.
        head: The journal's head; None without privacy.
    """

    run: str
    updates: int
    elapsed: int
    head: JournalHead | None


def save_checkpoint(
    folder: Path, state: CheckpointState, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Path:
    """Write ``checkpoint-<elapsed>`` whole or not at all, then remove older ones. Returns its path."""
    final = folder / f"checkpoint-{state.elapsed}"
    partial = folder / f"{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_atomic(partial / ADAPTER_NAME, adapter_bytes(parameters))
    write_atomic(partial / _OPTIMIZER_NAME, save(_flatten(parameters, optimizer)))
    write_atomic(partial / _STATE_NAME, canonical_json({"schema": SCHEMA, **asdict(state)}))
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    sync_folder(folder)
    for older in list_checkpoints(folder)[:-1]:
        shutil.rmtree(older)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.suffix != ".partial"]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def load_checkpoint(
    path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, *, run: str
) -> CheckpointState:
    """Put a checkpoint's tensors into parameters and optimizer.

    Raises:
        PlanChanged: It was made by a run with another plan, data set, unit table or adapter.
        InvalidInput: It is not a checkpoint of this release.
    """
    value = parse_json((path / _STATE_NAME).read_bytes(), what=str(path / _STATE_NAME))
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        raise InvalidInput(f"{path}: expected a checkpoint {SCHEMA}")
    try:
        state = msgspec.convert(value, CheckpointState)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path / _STATE_NAME}: {error}") from error
    if state.run != run:
        raise PlanChanged(
            f"{path}: the checkpoint belongs to another run",
            why="base model, data, units, adapter or settings differ",
            next_step="restore what was changed, or start a new run",
        )
    tensors = load_file(path / ADAPTER_NAME)
    if tensors.keys() != {_PREFIX + name for name in parameters}:
        raise PlanChanged(f"{path}: the checkpoint holds other parameters")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[_PREFIX + name])
    _unflatten(load_file(path / _OPTIMIZER_NAME), parameters, optimizer)
    return state


def adapter_bytes(parameters: Mapping[str, nn.Parameter]) -> bytes:
    """Return the adapter as a safetensors file with PEFT's names."""
    tensors = {_PREFIX + name: parameter.detach().contiguous() for name, parameter in parameters.items()}
    return bytes(save(tensors, metadata={"format": "pt"}))


def adapter_config(base: Path, rank: int, alpha: float, modules: list[str], *, transposed: bool = False) -> bytes:
    """Return ``adapter_config.json`` as PEFT reads it.

    ``modules`` are the full names of the adapted layers; ``transposed`` says that they are GPT-2's ``Conv1D``.
    """
    config: dict[str, Any] = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"


def _flatten(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors ``<parameter name>/<slot>``."""
    return {
        f"{name}/{slot}": value.detach().clone()
        for name, parameter in parameters.items()
        for slot, value in optimizer.state[parameter].items()
    }


def _unflatten(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise PlanChanged("the checkpoint's optimizer state is about other parameters")
        optimizer.state[parameters[name]][slot] = value
