"""Subtree hashes of a published log, read from its tiles."""

from functools import lru_cache
from typing import Literal

from stanch.crypto import Frontier
from stanch.errors import NotFound, Tampered
from stanch.ledger.tiles import TILE_WIDTH, decode_bundle, decode_tile, tile_key, tile_width
from stanch.store import BlobStore

_CACHED_TILES = 256


class TileHashes:
    """Reads tiles and entry bundles of a log at one size. Nothing read is trusted until a root over it is checked."""

    def __init__(self, blobs: BlobStore, size: int) -> None:
        self.size = size
        self._blobs = blobs
        self._tile = lru_cache(_CACHED_TILES)(self._read_tile)

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash of leaves ``[index·2^level, (index+1)·2^level)``.

        Raises:
            NotFound: A tile is missing.
            Tampered: A tile has another length than its width asks for.
        """
        tile_level, fold = divmod(level, 8)
        first = index << fold
        number, offset = divmod(first, TILE_WIDTH)
        hashes = self._tile(tile_level, number)[offset : offset + (1 << fold)]
        return Frontier().append(hashes).root()

    def tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of a tile as it stands at this size."""
        return self._tile(level, number)

    def bundle(self, number: int) -> list[bytes]:
        """Return the entries of a bundle as it stands at this size."""
        data, found = self.stored("entries", number)
        return decode_bundle(data, found, what=tile_key("entries", number, found))[: tile_width(self.size, 0, number)]

    def _read_tile(self, level: int, number: int) -> list[bytes]:
        data, found = self.stored(level, number)
        return decode_tile(data, found, what=tile_key(level, number, found))[: tile_width(self.size, level, number)]

    def stored(self, level: int | Literal["entries"], number: int) -> tuple[bytes, int]:
        """Return a tile's bytes and width; a partial one that was deleted is read from the full one (C2SP)."""
        width = tile_width(self.size, 0 if level == "entries" else level, number)
        if not width:
            raise Tampered(f"{tile_key(level, number)}: does not exist in a log of {self.size} entries")
        try:
            return self._blobs.get(tile_key(level, number, width)), width
        except NotFound:
            return self._blobs.get(tile_key(level, number)), TILE_WIDTH
