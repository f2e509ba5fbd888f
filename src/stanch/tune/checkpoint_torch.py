"""Checkpoints without pickle: safetensors and JSON, plain or sealed.

No random state is stored: a resumed run draws new keys.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic
from stanch.errors import InvalidInput
from stanch.seal import MANIFEST_NAME
from stanch.tune.checkpoint_sealed import CheckpointSeal, open_files, seal_files
from stanch.tune.journal import JournalHead
from stanch.tune.refusals import PlanChanged
from stanch.tune.spec import MethodSpec

SCHEMA = "urn:stanch:tune-checkpoint:v1"
ADAPTER_NAME = "adapter_model.safetensors"
_OPTIMIZER_NAME = "optimizer.safetensors"
_STATE_NAME = "state.json"
CHECKPOINT_FILES = (ADAPTER_NAME, _OPTIMIZER_NAME, _STATE_NAME)
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
    folder: Path,
    state: CheckpointState,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    seal: CheckpointSeal | None = None,
) -> Path:
    """Write ``checkpoint-<elapsed>`` whole or not at all, then remove older ones. Returns its path.

    Args:
        folder: Where checkpoints lie.
        state: What is not a tensor.
        parameters: What is trained.
        optimizer: Of these parameters.
        seal: For whom and by whom it is sealed; None writes plaintext.
    """
    final = folder / f"checkpoint-{state.elapsed}"
    partial = folder / f"{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if final.exists():
        shutil.rmtree(final)
    files = pack(state, parameters, optimizer)
    if seal is not None:
        seal_files(files, final, seal, lineage=f"tune/checkpoint/{state.run}", number=max(1, state.elapsed))
    else:
        partial.mkdir()
        for name, data in files.items():
            write_atomic(partial / name, data)
        partial.rename(final)
        sync_folder(folder)
    for older in list_checkpoints(folder)[:-1]:
        shutil.rmtree(older)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def load_checkpoint(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    run: str,
    seal: CheckpointSeal | None = None,
) -> CheckpointState:
    """Put a checkpoint's tensors into parameters and optimizer.

    Args:
        path: The checkpoint.
        parameters: What is trained.
        optimizer: Of these parameters.
        run: Digest of everything that must not change between start and resume.
        seal: How the checkpoint was sealed; a plain one is then refused, for anybody could have put it there.

    Raises:
        PlanChanged: It was made by a run with another plan, data set, unit table or adapter.
        InvalidInput: It is not a checkpoint of this release.
        VerificationError: It is sealed, but not by this signer, for these identities, or as it was.
    """
    if seal is not None:
        files = open_files(path, seal)
    elif (path / MANIFEST_NAME).exists():
        raise InvalidInput(
            f"{path}: the checkpoint is sealed", next_step="resume with the recipients and keys that the run had"
        )
    else:
        files = _read_files(path)
    return unpack(files, parameters, optimizer, run=run, what=str(path))


def _read_files(path: Path) -> dict[str, bytes]:
    try:
        return {name: (path / name).read_bytes() for name in CHECKPOINT_FILES}
    except OSError as error:
        raise InvalidInput(f"{path}: not a whole checkpoint", why=error.strerror or "") from error


def pack(
    state: CheckpointState, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, bytes]:
    """Return the files of a checkpoint, by name."""
    contents = (
        adapter_bytes(parameters),
        save(_flatten(parameters, optimizer)),
        canonical_json({"schema": SCHEMA, **asdict(state)}),
    )
    return dict(zip(CHECKPOINT_FILES, contents, strict=True))


def unpack(
    files: Mapping[str, bytes],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    run: str,
    what: str,
) -> CheckpointState:
    """Put the tensors of a checkpoint's files into parameters and optimizer; the inverse of :func:`pack`.

    Raises:
        PlanChanged: They belong to another run.
        InvalidInput: They are not a checkpoint of this release.
    """
    if files.keys() != set(CHECKPOINT_FILES):
        raise InvalidInput(f"{what}: expected the files {', '.join(CHECKPOINT_FILES)}")
    adapter, slots, state_json = (files[name] for name in CHECKPOINT_FILES)
    value = parse_json(state_json, what=f"{what}: {_STATE_NAME}")
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        raise InvalidInput(f"{what}: expected a checkpoint {SCHEMA}")
    try:
        state = msgspec.convert(value, CheckpointState)
        tensors, optimised = load(adapter), load(slots)
    except (msgspec.ValidationError, SafetensorError) as error:
        raise InvalidInput(f"{what}: {error}") from error
    if state.run != run:
        raise PlanChanged(
            f"{what}: the checkpoint belongs to another run",
            why="base model, data, units, adapter or settings differ",
            next_step="restore what was changed, or start a new run",
        )
    expected = {_PREFIX + name: parameter.shape for name, parameter in parameters.items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise PlanChanged(
            f"{what}: the checkpoint holds other parameters", next_step="resume with the adapter that it was made with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[_PREFIX + name])
    try:
        _unflatten(optimised, parameters, optimizer)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        kind = type(optimizer).__name__
        raise InvalidInput(
            f"{what}: expected the optimizer state of {kind}, found something else",
            why=f"{type(error).__name__}: {error}",
            next_step="resume from an older checkpoint, or start a new run",
        ) from error
    return state


def adapter_bytes(parameters: Mapping[str, nn.Parameter]) -> bytes:
    """Return the adapter as a safetensors file with PEFT's names."""
    tensors = {_PREFIX + name: parameter.detach().contiguous() for name, parameter in parameters.items()}
    return bytes(save(tensors, metadata={"format": "pt"}))


def adapter_config(base: Path, method: MethodSpec, modules: list[str], *, transposed: bool = False) -> bytes:
    """Return ``adapter_config.json`` as PEFT reads it.

    ``modules`` are the full names of the adapted layers; ``transposed`` says that they are GPT-2's ``Conv1D``.
    """
    config: dict[str, Any] = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(method.alpha) if method.alpha == int(method.alpha) else method.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": method.rank,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": method.rank_stabilised,
    }
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"


def _flatten(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors ``<parameter name>/<slot>``."""
    return {
        f"{name}/{slot}": torch.as_tensor(value).detach().contiguous()
        for name, parameter in parameters.items()
        for slot, value in optimizer.state[parameter].items()
    }


def _unflatten(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    optimised = (parameter for group in optimizer.param_groups for parameter in group["params"])
    numbers = {id(parameter): number for number, parameter in enumerate(optimised)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise PlanChanged(
                "the checkpoint's optimizer state is about other parameters",
                next_step="resume with the adapter that it was made with",
            )
        state.setdefault(numbers[id(parameters[name])], {})[slot] = value
    # Torch knows where each slot lies: moments beside their parameter, a count of steps often not.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
