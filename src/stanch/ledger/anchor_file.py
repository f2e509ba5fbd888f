"""Anchors on another disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from stanch.errors import Conflict, StoreError
from stanch.ledger.anchor import anchor_folder, anchor_key, check_same
from stanch.ledger.checkpoint import SignedCheckpoint
from stanch.store import CREATE, FileBlobs


class FileAnchor:
    """``file:<folder>``: one file for each checkpoint, best on a disk that others administer."""

    def __init__(self, folder: Path, *, uri: str, log_folder: Path) -> None:
        self.uri = uri
        self._blobs = FileBlobs(folder)
        self._folder = folder
        self.outside = folder.stat().st_dev != log_folder.stat().st_dev

    def keep(self, signed: SignedCheckpoint) -> None:
        """See :meth:`stanch.ledger.anchor.Anchor.keep`."""
        key = anchor_key(signed.checkpoint.origin, signed.checkpoint.size)
        try:
            self._blobs.put(key, signed.note, mode=CREATE)
        except Conflict:
            check_same(self.uri, signed, self._blobs.get(key))

    def notes(self, origin: str) -> Iterator[bytes]:
        """See :meth:`stanch.ledger.anchor.Anchor.notes`."""
        for name in self._names(origin):
            yield self._blobs.get(f"{anchor_folder(origin)}/{name}")

    def newest(self, origin: str) -> bytes | None:
        """See :meth:`stanch.ledger.anchor.Anchor.newest`."""
        names = self._names(origin)
        return self._blobs.get(f"{anchor_folder(origin)}/{names[-1]}") if names else None

    def _names(self, origin: str) -> list[str]:
        """Return the names of the kept notes, smallest size first, without reading them."""
        try:
            return sorted(
                path.name for path in (self._folder / anchor_folder(origin)).iterdir() if path.suffix == ".note"
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"anchor {self.uri}: cannot be read", why=os.strerror(error.errno or 0)) from error
