"""Strict reading and writing of safetensors headers.

A file is ``u64 little-endian length ‖ JSON header ‖ data``. The rules enforced here are stricter than some readers':
JSON without duplicate keys, known element types, shape × element size = length, and tensors that cover the data
section from 0 to its end without hole or overlap. A file that two readers could see differently is refused.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from stanch.crypto.canonical import parse_json
from stanch.errors import InvalidInput, InvalidSafetensors
from stanch.terms import JsonValue

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation; checked before anything is allocated."""

ELEMENT_TYPES: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {
        "BOOL": "u1",
        "U8": "u1",
        "I8": "i1",
        "F8_E5M2": "u1",
        "F8_E4M3": "u1",
        "F8_E4M3FNUZ": "u1",
        "F8_E5M2FNUZ": "u1",
        "F8_E8M0": "u1",
        "I16": "<i2",
        "U16": "<u2",
        "F16": "<f2",
        "BF16": "<u2",
        "I32": "<i4",
        "U32": "<u4",
        "F32": "<f4",
        "I64": "<i8",
        "U64": "<u8",
        "F64": "<f8",
        "C64": "<c8",
    }
)
"""Element types and the numpy type of their raw view; what numpy lacks (bf16, fp8) is seen as unsigned integers."""

_MAX_DIMENSIONS = 64  # of a numpy array; the size of a shape without a bound takes hours to compute

PACKED_BITS: Mapping[str, int] = MappingProxyType({"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6})
"""Element types that share bytes, and their bits; their raw view is their bytes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a header; ``start`` and ``end`` are byte offsets into the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def raw_type(self) -> npt.DTypeLike:
        """The numpy type of the raw view."""
        return "u1" if self.dtype in PACKED_BITS else ELEMENT_TYPES[self.dtype]

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of the raw view: the tensor's own, or one row of bytes where elements share bytes."""
        return (self.end - self.start,) if self.dtype in PACKED_BITS else self.shape


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Attributes:
        tensors: In the order of their offsets.
        metadata: The ``__metadata__`` map.
        head: The file's first bytes up to the data section, exactly as found (8-byte length and JSON).
    """

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    head: bytes

    @property
    def data_offset(self) -> int:
        """Where the data section starts in the file."""
        return len(self.head)

    @property
    def data_size(self) -> int:
        """Bytes of the data section."""
        return self.tensors[-1].end if self.tensors else 0


def element_size(dtype: str) -> int:
    """Return the bytes of one element of a known safetensors type."""
    return np.dtype(ELEMENT_TYPES[dtype]).itemsize


def parse_header(head: bytes, *, what: str = "safetensors header") -> Header:
    """Check the head of a file: the 8-byte length followed by exactly that many bytes of JSON.

    Args:
        head: The bytes.
        what: How to call them in an error message, usually the file's name.

    Raises:
        InvalidSafetensors: A rule of the format is broken.
    """
    if len(head) < 8 or int.from_bytes(head[:8], "little") != len(head) - 8 or len(head) - 8 > MAX_HEADER_BYTES:
        raise InvalidSafetensors(f"{what}: the header's stated length does not fit")
    if head[8:9] != b"{":
        raise InvalidSafetensors(f"{what}: the header does not start with '{{'")
    try:
        document = parse_json(head[8:], what=what, max_bytes=MAX_HEADER_BYTES)
    except InvalidInput as error:
        raise InvalidSafetensors(error.what, why=error.why) from error
    if not isinstance(document, dict):
        raise InvalidSafetensors(f"{what}: the header is not an object")
    metadata = _metadata(document.pop("__metadata__", {}), what)
    tensors = sorted(
        (_tensor(name, entry, what) for name, entry in document.items()), key=lambda tensor: (tensor.start, tensor.end)
    )
    end = 0
    for tensor in tensors:
        if tensor.start != end:
            raise InvalidSafetensors(
                f"{what}: tensor {tensor.name!r} starts at {tensor.start}, expected {end}",
                why="tensors must follow each other without hole or overlap",
            )
        end = tensor.end
    return Header(tuple(tensors), MappingProxyType(metadata), bytes(head))


def _metadata(value: JsonValue, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidSafetensors(f"{what}: __metadata__ is not a map from text to text")
    return {key: str(item) for key, item in value.items()}


def _naturals(value: JsonValue) -> tuple[int, ...] | None:
    """Return a JSON list of non-negative integers as a tuple, or None if it is something else."""
    if not isinstance(value, list):
        return None
    numbers = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return numbers if len(numbers) == len(value) else None


def _tensor(name: str, value: JsonValue, what: str) -> TensorInfo:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidSafetensors(f"{what}: tensor {name!r} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = value["dtype"], _naturals(value["shape"]), _naturals(value["data_offsets"])
    if not isinstance(dtype, str) or (dtype not in ELEMENT_TYPES and dtype not in PACKED_BITS):
        raise InvalidSafetensors(f"{what}: tensor {name!r} has an unknown element type")
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
        raise InvalidSafetensors(
            f"{what}: tensor {name!r}: shape and offsets must be short lists of non-negative integers"
        )
    start, end = offsets
    if 8 * (end - start) != math.prod(shape) * (PACKED_BITS.get(dtype) or 8 * element_size(dtype)):
        raise InvalidSafetensors(f"{what}: tensor {name!r} has {end - start} bytes, which is not its shape's size")
    return TensorInfo(name, dtype, shape, start, end)


def read_head(stream: BinaryIO, size: int, *, what: str) -> Header:
    """Read and check the header of a file of ``size`` bytes from a reader at its start.

    Raises:
        InvalidSafetensors: A rule is broken, or the data section is not as long as the header says.
    """
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if prefix == b"version ":
        raise InvalidSafetensors(
            f"{what}: a pointer of Git LFS, and not the weights themselves",
            why="the repository was cloned without its large files",
            next_step="fetch them with: git lfs pull",
        )
    if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise InvalidSafetensors(f"{what}: not a safetensors file: its header length is out of range")
    header = parse_header(prefix + stream.read(length), what=what)
    if header.data_offset + header.data_size != size:
        raise InvalidSafetensors(
            f"{what}: expected {header.data_offset + header.data_size} bytes, found {size}",
            why="the file is cut off, or has bytes that no tensor owns",
        )
    return header


def read_header(path: Path) -> Header:
    """Read and check the header of the file at ``path``.

    Raises:
        InvalidSafetensors: As :func:`read_head`.
    """
    with path.open("rb") as stream:
        return read_head(stream, os.fstat(stream.fileno()).st_size, what=path.name)


def build_head(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> Header:
    """Return the header of a file that holds tensors ``(name, dtype, shape)`` in the given order.

    The JSON is padded with spaces so that the data section starts at a multiple of 8.
    """
    document: dict[str, JsonValue] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, dtype, shape in tensors:
        if dtype not in ELEMENT_TYPES:
            raise InvalidSafetensors(f"cannot write safetensors: tensor {name!r} has elements of type {dtype[:20]!r}")
        if name in document or name == "__metadata__":
            raise InvalidInput(f"cannot write safetensors: the name {name!r} stands twice or is reserved")
        end = start + math.prod(shape) * element_size(dtype)
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    return parse_header(len(body).to_bytes(8, "little") + body)
