"""Tiles (C2SP tlog-tiles): where the hashes and entries of a log stand, and how they are laid out. Sans-IO.

A full tile holds 256 hashes; hash i of tile n at level l is the root over the leaves
``[(256n+i)·256^l, (256n+i+1)·256^l)``.
"""

from collections.abc import Sequence

from stanch.errors import Tampered

TILE_WIDTH = 256
PREFIX = "log/"
CHECKPOINT_KEY = PREFIX + "checkpoint"


def tile_key(level: int | str, number: int, width: int = TILE_WIDTH) -> str:
    """Return the blob key of a tile: ``log/tile/<level>/x001/x234/067``, with ``.p/<width>`` when it is not full.

    Args:
        level: 0 and up for hashes, ``"entries"`` for entry bundles.
        number: Number of the tile in its level.
        width: How many hashes or entries it holds, 1 to 256.
    """
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"{PREFIX}tile/{level}/{'/'.join(groups)}{partial}"


def level_size(size: int, level: int) -> int:
    """Return how many hashes level ``level`` holds in a log of ``size`` entries: ``floor(size / 256^level)``."""
    return size >> 8 * level


def tile_width(size: int, level: int, number: int) -> int:
    """Return how many hashes tile ``number`` of ``level`` holds in a log of ``size`` entries; 0 if there is no such."""
    return max(0, min(TILE_WIDTH, level_size(size, level) - TILE_WIDTH * number))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle: each entry behind its length as u16."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes, count: int, *, what: str) -> list[bytes]:
    """Return the ``count`` entries of a bundle.

    Raises:
        Tampered: The bytes are not exactly so many entries.
    """
    entries: list[bytes] = []
    position = 0
    for _ in range(count):
        end = position + 2 + int.from_bytes(data[position : position + 2], "big")
        entries.append(data[position + 2 : end])
        position = end
    if position != len(data):
        raise Tampered(f"{what}: expected {count} entries in {position} bytes, found {len(data)} bytes")
    return entries


def decode_tile(data: bytes, width: int, *, what: str) -> list[bytes]:
    """Return the ``width`` hashes of a tile.

    Raises:
        Tampered: The bytes are not exactly so many hashes.
    """
    if len(data) != 32 * width:
        raise Tampered(f"{what}: expected {32 * width} bytes, found {len(data)}")
    return [data[i : i + 32] for i in range(0, len(data), 32)]
