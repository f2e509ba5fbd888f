"""Where a run computes, and how exactly."""

import os

import torch

from stanch.errors import InvalidInput
from stanch.weights import native_float

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find_device(wanted: str) -> torch.device:
    """Return the device that ``[train] device`` names; of several processes on one machine each takes a GPU of its own.

    Args:
        wanted: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InvalidInput: There is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.device(wanted) if ":" in wanted else torch.device("cuda", local)
    if (found.index or 0) >= count:
        raise InvalidInput(
            f"train.device: expected one of {count} GPUs, found {found}",
            next_step='use "cpu", or as many processes as there are GPUs',
        )
    return found


def find_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the dtype that ``[train] dtype`` names; ``auto`` is bfloat16 where the device multiplies it natively."""
    if wanted == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return _DTYPES.get(wanted) or _DTYPES[native_float()]


def name_precision(dtype: torch.dtype, device: torch.device) -> str:
    """Return in what products of ``dtype`` are made; those of float32 in TF32 or bfloat16 where torch was told so."""
    if dtype != torch.float32:
        return str(dtype).removeprefix("torch.")
    kinds = {"cuda": torch.backends.cuda.matmul, "cpu": torch.backends.mkldnn.matmul}  # type: ignore[attr-defined]  # set when imported
    chosen = kinds[device.type].fp32_precision if device.type in kinds else "ieee"
    return {"tf32": "TF32", "bf16": "bfloat16"}.get(chosen, "float32")
