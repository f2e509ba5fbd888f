"""A release's keys in a folder of its owner, for marking without a workspace.

``root.key`` is the root secret, ``batch.json`` the recipients (both mode 0600), ``beacon`` the public file whose digest
binds every stream. The order is fixed: commit, publish the batch's root, then the beacon, then copies. A beacon is set
once: with another one, nothing that was marked before would ever be found.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stanch.crypto import canonical_json, read_private, sha256, sync_folder, write_atomic, write_private
from stanch.errors import InvalidInput
from stanch.mark.commitment import Commitment, commit, copy_key, mark_keys, restore
from stanch.mark.keys import CopyKey, MarkKeys, MarkRoot, RecipientSlot
from stanch.mark.plan import MarkPlan

_ROOT, _BATCH, _BEACON = "root.key", "batch.json", "beacon"
_MAX_BATCH = 64 << 20
_MAX_BEACON = 1 << 20


@dataclass(frozen=True)
class KeyFolder:
    """The keys of one release.

    Attributes:
        folder: Where they lie.
        root: The root secret.
        commitment: Batch 1.
    """

    folder: Path
    root: MarkRoot
    commitment: Commitment

    @classmethod
    def create(cls, folder: Path, plan: MarkPlan, recipients: Sequence[str], *, decoys: int = 1024) -> Self:
        """Draw a root secret, commit to a batch of recipients, and write both to a new folder, whole or not at all.

        Raises:
            InvalidInput: The folder exists or cannot be written, or the recipients are none, too alike, or badly named.
        """
        if folder.exists():
            raise InvalidInput(f"{folder}: exists already and is not replaced", next_step="choose another folder")
        root = MarkRoot.generate()
        made = commit(plan, root, [RecipientSlot(name) for name in recipients], decoys=decoys)
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            root.save(partial / _ROOT)
            write_private(partial / _BATCH, canonical_json(made.to_json()))
            partial.rename(folder)
        except OSError as error:
            raise InvalidInput(f"{folder}: cannot be written", why=os.strerror(error.errno or 0)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder.parent)
        return cls(folder, root, made)

    @classmethod
    def load(cls, folder: Path, plan: MarkPlan) -> Self:
        """Read the keys of the release that ``plan`` describes.

        Raises:
            InvalidInput: A file is missing, readable by others, or not what it should be.
            Tampered: Original, secret and batch do not belong together.
        """
        root = MarkRoot.load(folder / _ROOT)
        return cls(folder, root, restore(read_private(folder / _BATCH, limit=_MAX_BATCH), plan, root))

    def copy_key(self, recipient: str) -> CopyKey:
        """Return what marks one recipient's copy.

        Raises:
            InvalidInput: No such recipient, or there is no beacon yet.
        """
        return copy_key(self.commitment, recipient, beacon=_beacon(self.folder))

    def mark_keys(self) -> MarkKeys:
        """Return all keys, for detection.

        Raises:
            InvalidInput: There is no beacon yet.
        """
        return mark_keys([(self.commitment, _beacon(self.folder))], self.root)


def set_beacon(folder: Path, beacon: Path) -> bytes:
    """Keep ``beacon`` beside the keys and return its SHA-256.

    It proves that the keys were not chosen to fit a model only if it did not exist when the batch's root was published:
    a later checkpoint of a public log, or a time stamp over that root.

    Raises:
        InvalidInput: There are no keys, the file cannot be read, is empty or too long, or another beacon is set.
    """
    if not (folder / _BATCH).is_file():
        raise InvalidInput(f"{folder}: holds no keys", next_step="make them with: stanch mark commit")
    try:
        with beacon.open("rb") as file:
            data = file.read(_MAX_BEACON + 1)
    except OSError as error:
        raise InvalidInput(f"{beacon}: cannot be read", why=os.strerror(error.errno or 0)) from error
    if not 0 < len(data) <= _MAX_BEACON:
        raise InvalidInput(f"{beacon}: expected a file of 1 to {_MAX_BEACON} bytes")
    kept = folder / _BEACON
    if kept.exists() and kept.read_bytes() != data:
        raise InvalidInput(
            f"{folder}: has another beacon already",
            why="copies that were marked with it could not be found again",
            next_step="make new keys with: stanch mark commit",
        )
    write_atomic(kept, data, mode=0o600)
    return sha256(data)


def _beacon(folder: Path) -> bytes:
    kept = folder / _BEACON
    if not kept.is_file():
        raise InvalidInput(
            f"{folder}: has no beacon yet",
            why="keys that could have been chosen after the model existed prove nothing",
            next_step=f"publish the batch's root, then: stanch mark beacon {folder} FILE",
        )
    return sha256(read_private(kept, limit=_MAX_BEACON))
