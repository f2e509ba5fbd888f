"""Tensors of safetensors files as memory-mapped, read-only views, and an ordered writer."""

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from stanch.weights.floats import from_float32, to_float32
from stanch.weights.header import ELEMENT_TYPES, build_head, read_head


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named tensor with its safetensors element type and its raw elements, shaped.

    ``raw`` of a tensor that was opened from a file is a read-only view of the mapping, which it keeps alive; bf16 is
    seen as ``uint16`` and fp8 as ``uint8``; of types whose elements share bytes (F4, F6) it is one row of bytes.
    """

    name: str
    dtype: str
    raw: npt.NDArray[np.generic]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``raw``."""
        return self.raw.shape

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return the values as a new float32 array (F32, F16, BF16, F64)."""
        return to_float32(self.raw, self.dtype)

    @classmethod
    def from_float32(cls, name: str, values: npt.NDArray[np.float32], dtype: str = "F32") -> Self:
        """Make a tensor of the stored type from float32 values, rounding to nearest even."""
        return cls(name, dtype, from_float32(values, dtype))


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Map the file and return its tensors by name, in the order of their offsets. Reads nothing but the header.

    Raises:
        InvalidSafetensors: The file breaks a rule of the format.
    """
    with path.open("rb") as stream:
        header = read_head(stream, os.fstat(stream.fileno()).st_size, what=path.name)
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return {
        info.name: Tensor(
            info.name,
            info.dtype,
            np.frombuffer(
                mapping, info.raw_type, count=math.prod(info.raw_shape), offset=header.data_offset + info.start
            ).reshape(info.raw_shape),
        )
        for info in header.tensors
    }


def write_safetensors(path: Path, tensors: Sequence[Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors in the given order, one after the other; the file appears under its name only when complete.

    Raises:
        InvalidInput: A name stands twice.
        InvalidSafetensors: An element type is unknown or does not fit its array.
    """
    header = build_head([(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors], metadata)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(header.head)
            for tensor in tensors:
                stream.write(np.ascontiguousarray(tensor.raw, ELEMENT_TYPES[tensor.dtype]).data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
