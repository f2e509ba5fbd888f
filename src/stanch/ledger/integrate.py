"""Turning entries into tiles."""

import contextlib
import itertools
from collections.abc import Iterator

from stanch.crypto import merkle_root
from stanch.errors import Conflict, NotFound, StoreError, TileConflict
from stanch.ledger.hashes import TileHashes
from stanch.ledger.tiles import TILE_WIDTH, encode_bundle, tile_key
from stanch.store import CREATE, BlobStore

_ATTEMPTS = 4


def integrate(blobs: BlobStore, rows: Iterator[tuple[bytes, bytes]], old_size: int, size: int) -> None:
    """Write the bundles and tiles that a log of ``size`` entries has and one of ``old_size`` had not.

    Full tiles are written before partial ones; partial ones that a full tile replaces are then deleted. Writing what
    exists already is allowed if the bytes are equal.

    Args:
        blobs: Where the tiles of ``old_size`` stand.
        rows: (entry, leaf hash) from the start of the last tile of ``old_size`` up to ``size``.
        old_size: Size whose tiles are all written.
        size: Size to reach.

    Raises:
        TileConflict: A tile exists with other bytes.
    """
    old = TileHashes(blobs, old_size)
    partials: list[tuple[str, bytes]] = []
    start, hashes = old_size // TILE_WIDTH, []
    for number in range(start, -(-size // TILE_WIDTH)):
        chunk = list(itertools.islice(rows, TILE_WIDTH))
        leaves = [leaf for _, leaf in chunk]
        bundle = encode_bundle([entry for entry, _ in chunk])
        if len(chunk) == TILE_WIDTH:
            _write(blobs, tile_key("entries", number), bundle)
            _write(blobs, tile_key(0, number), b"".join(leaves))
            hashes.append(merkle_root(leaves))
        else:
            partials += [
                (tile_key("entries", number, len(chunk)), bundle),
                (tile_key(0, number, len(chunk)), b"".join(leaves)),
            ]
    level = 0
    while hashes:
        level += 1
        number, width = divmod(start, TILE_WIDTH)
        known = old.tile(level, number) if width else []
        start, hashes = number, _write_level(blobs, level, number, known + hashes, partials)
    for key, data in partials:
        _write(blobs, key, data)
    _drop_partials(blobs, old_size, size)


def _write_level(
    blobs: BlobStore, level: int, first: int, hashes: list[bytes], partials: list[tuple[str, bytes]]
) -> list[bytes]:
    """Write the full tiles of one level, set partial ones aside, and return the hashes of the next level."""
    above = []
    for number, position in enumerate(range(0, len(hashes), TILE_WIDTH), start=first):
        tile = hashes[position : position + TILE_WIDTH]
        data = b"".join(tile)
        if len(tile) == TILE_WIDTH:
            _write(blobs, tile_key(level, number), data)
            above.append(merkle_root(tile))
        else:
            partials.append((tile_key(level, number, len(tile)), data))
    return above


def _write(blobs: BlobStore, key: str, data: bytes) -> None:
    for _ in range(_ATTEMPTS):
        # S3 also answers "conflict" while another writer of the key is under way, who may fail after all.
        with contextlib.suppress(Conflict):
            blobs.put(key, data, mode=CREATE)
            return
        with contextlib.suppress(NotFound):
            if blobs.get(key) != data:
                raise TileConflict(
                    f"{key}: exists with other bytes",
                    why="either the tile was changed, or these rows are of another history",
                    next_step="stop all writers; stanch log verify names the first difference",
                )
            return
    raise StoreError(f"{key}: the store refused it, and holds none", next_step="publish again")


def _drop_partials(blobs: BlobStore, old_size: int, size: int) -> None:
    """Delete the partial tiles of those that became full between the two sizes."""
    for level in itertools.count():
        if not size >> 8 * (level + 1):
            return
        for name in ("entries", 0) if level == 0 else (level,):
            for number in range(old_size >> 8 * (level + 1), size >> 8 * (level + 1)):
                _drop(blobs, tile_key(name, number) + ".p/")


def _drop(blobs: BlobStore, prefix: str) -> None:
    for info in blobs.list(prefix):
        try:
            blobs.delete(info.key)
        except NotFound:  # another publisher was faster
            continue
