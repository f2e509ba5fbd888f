"""Read GGUF files with numpy alone: the head, and the values of llama.cpp's common block formats.

Beside models.py. Names mean nothing here: weights are known by what they hold. Formats are those of the GGUF
specification, version 2 and 3, little-endian.
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.integer]
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2), 39: (32, 17),
}  # fmt: skip
"""Of each format that is read, how many values a block holds, and in how many bytes."""
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
SPLIT = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, np.newaxis]


class Stored(NamedTuple):
    """A tensor: its name, shape, format, and the bytes of its blocks, one line a block; no bytes where not read."""

    name: str
    shape: tuple[int, ...]
    kind: int
    blocks: Bytes | None


class Head:
    """A cursor over the head of a file."""

    def __init__(self, data: Bytes) -> None:
        self.data, self.place = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if not 0 <= count <= len(self.data) - self.place:
            raise ValueError("the file ends before its head does")
        self.place += count
        return self.data[self.place - count : self.place].tobytes()

    def number(self, form: str) -> int:
        """Return the next number; what is no whole one plays no part here."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> bytes:
        """Return the next text."""
        return self.take(self.number("<Q"))

    def value(self, kind: int) -> int | bytes | None:
        """Return the next value of a type: a number or a text; arrays are passed over."""
        if kind == 8:
            return self.text()
        if kind in {6, 12}:
            self.take(struct.calcsize(SCALARS[kind]))
            return None
        if kind != 9:
            return self.number(SCALARS[kind])
        item, count = self.number("<I"), self.number("<Q")
        if item == 8:
            for _ in range(count):
                self.text()
        else:
            self.take(count * struct.calcsize(SCALARS[item]))
        return None


def parts_of(folder: Path) -> list[Path]:
    """Return the first GGUF file of a folder by name, or all parts of its split."""
    files = sorted(folder.glob("*.gguf"))
    split = SPLIT.fullmatch(files[0].name) if files else None
    same = (
        path for path in files if (found := SPLIT.fullmatch(path.name)) and split and found.groups() == split.groups()
    )
    return list(same) if split else files[:1]


def read_tensors(path: Path) -> tuple[dict[str, int | bytes | None], Iterator[Stored]]:
    """Return a file's metadata by name, and its tensors."""
    data = np.memmap(path, np.uint8, "r")
    head = Head(data)
    if head.take(4) != b"GGUF" or head.number("<I") not in {2, 3}:
        raise ValueError("no GGUF file of version 2 or 3")
    tensors, fields = head.number("<Q"), {}
    for _ in range(head.number("<Q")):
        name = head.text().decode()
        fields[name] = head.value(head.number("<I"))
    places = []
    for _ in range(tensors):
        name = head.text().decode()
        shape = tuple(head.number("<Q") for _ in range(head.number("<I")))[::-1]
        places.append((name, shape, head.number("<I"), head.number("<Q")))
    step = fields.get("general.alignment", 32)
    if not isinstance(step, int) or step < 1:
        raise ValueError("its alignment is no number")
    start = -(-head.place // step) * step
    return fields, (stored(data, name, shape, kind, start + offset) for name, shape, kind, offset in places)


def stored(data: Bytes, name: str, shape: tuple[int, ...], kind: int, start: int) -> Stored:
    """Return a tensor that begins at a byte."""
    if kind not in BLOCKS or not shape or not math.prod(shape):
        return Stored(name, shape, kind, None)
    values, size = BLOCKS[kind]
    count = math.prod(shape) // values
    if shape[-1] % values or start + count * size > len(data):
        raise ValueError(f"{name} does not fit into the file")
    return Stored(name, shape, kind, data[start : start + count * size].reshape(count, size))


def half(blocks: Bytes, place: int) -> Floats:
    """Return the binary16 number at a place of each block, as a column."""
    return np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2").astype(np.float32)


def nibbles(packed: Bytes) -> Bytes:
    """Return the low halves of bytes, and then the high ones, along the last axis."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def bits(packed: Bytes) -> Bytes:
    """Return the bits of bytes along the last axis, the lowest first."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def pairs(packed: Bytes) -> Numbers:
    """Return 64 bytes a block as 256 numbers of two bits: of each half the lowest two bits of all 32, and so on."""
    return cast("Numbers", packed.reshape(-1, 2, 1, 32) >> SHIFTS & 3).reshape(-1, 256)


def scaled(numbers: Numbers, factors: Floats) -> Floats:
    """Return numbers times the factor of their group, of which a block has as many as ``factors`` has columns."""
    groups = numbers.reshape(*factors.shape, -1).astype(np.float32)
    return (groups * factors[..., np.newaxis]).reshape(len(numbers), -1)


def six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Return eight scales and eight minima of six bits each, from twelve bytes a block."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    low = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1)
    return low, np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1)


def small(blocks: Bytes, kind: int) -> Floats:
    """Return the values of blocks of 32."""
    scale, offset = half(blocks, 0), half(blocks, 2)
    if kind == 8:  # Q8_0
        return blocks[:, 2:].view(np.int8) * scale
    if kind == 39:  # MXFP4
        steps = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
        return steps[nibbles(blocks[:, 1:])] * np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127)
    if kind == 2:  # Q4_0
        return (nibbles(blocks[:, 2:]) - np.float32(8)) * scale
    if kind == 3:  # Q4_1
        return nibbles(blocks[:, 4:]) * scale + offset
    if kind == 6:  # Q5_0
        return (nibbles(blocks[:, 6:]) + 16 * bits(blocks[:, 2:6]) - np.float32(16)) * scale
    return (nibbles(blocks[:, 8:]) + 16 * bits(blocks[:, 4:8])) * scale + offset  # Q5_1


def large(blocks: Bytes, kind: int) -> Floats:
    """Return the values of blocks of 256."""
    if kind == 10:  # Q2_K
        packed = blocks[:, :16]
        offsets = (packed >> 4) * half(blocks, 82)
        return scaled(pairs(blocks[:, 16:80]), (packed & 15) * half(blocks, 80)) - np.repeat(offsets, 16, axis=1)
    if kind == 11:  # Q3_K
        packed = blocks[:, 96:108]
        high = np.concatenate([packed[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
        six = (nibbles(packed[:, :8]) | high << 4).astype(np.int16) - 32
        return scaled(pairs(blocks[:, 32:96]) + 4 * fifth(blocks[:, :32]) - 4, six * half(blocks, 108))
    if kind == 14:  # Q6_K
        low = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
        signed = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
        return scaled((low | pairs(blocks[:, 128:192]) << 4).astype(np.int16) - 32, signed * half(blocks, 208))
    scales, minima = six_bits(blocks[:, 4:16])
    codes = nibbles(blocks[:, -128:].reshape(-1, 4, 32)).reshape(-1, 256).astype(np.int16)
    if kind == 13:  # Q5_K; else Q4_K
        codes += 16 * fifth(blocks[:, 16:48])
    return scaled(codes, scales * half(blocks, 0)) - np.repeat(minima * half(blocks, 2), 32, axis=1)


def fifth(packed: Bytes) -> npt.NDArray[np.int16]:
    """Return 32 bytes a block as 256 bits: the lowest of all bytes, then the next."""
    return bits(packed).reshape(-1, 32, 8).swapaxes(1, 2).reshape(-1, 256).astype(np.int16)


def dequantised(blocks: Bytes, kind: int) -> Floats:
    """Return the values of blocks, flat."""
    if kind == 30:
        found = (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif kind < 2:
        found = np.ascontiguousarray(blocks).view("<f4" if kind == 0 else "<f2").astype(np.float32)
    else:
        with np.errstate(all="ignore"):
            found = small(blocks, kind) if BLOCKS[kind][0] == 32 else large(blocks, kind)
    return np.asarray(found, np.float32).reshape(-1)


def unpaired(values: Floats, heads: int) -> Floats:
    """Return rows whose halves of each head stand side by side, in pairs, in the order of the original model."""
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
