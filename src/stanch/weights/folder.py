"""The files of a folder, listed without following a link; what cannot be read is refused, and never left out."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stanch.errors import InvalidInput
from stanch.weights.hub import find_blob


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a directory, as relative paths with ``/``, sorted by their bytes.

    Attributes:
        files: Regular files, where that was asked for also those that are blobs of a snapshot in the hub's cache.
        others: Links and special files; none of them is ever followed or opened.
    """

    files: tuple[str, ...]
    others: tuple[str, ...]


def list_files(root: Path, ignored: Iterable[str] = (), *, hub: bool = False) -> Listing:
    """List everything below ``root`` but the ``ignored`` entries at its top.

    Args:
        root: The directory.
        ignored: Names of files and folders; a link of such a name is listed all the same.
        hub: Whether it may be a snapshot in the cache of the Hugging Face hub, whose links to its own blobs are files.

    Raises:
        InvalidInput: ``root`` is no directory, or a folder in it cannot be read.
    """
    if not root.is_dir():
        raise InvalidInput(f"expected a directory, found none at {root}")
    skipped = frozenset(ignored)
    files: list[str] = []
    others: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    linked = entry.is_symlink()
                    if linked and not (hub and find_file(root, name)):
                        others.append(name)
                    elif name in skipped:
                        continue
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    else:
                        (files if linked or entry.is_file(follow_symlinks=False) else others).append(name)
        except OSError as error:
            raise InvalidInput(
                f"{root / folder}: expected a folder that can be read",
                why=error.strerror or "",
                next_step="let it be read, or move it away: nothing of it would be in the result",
            ) from error
    return Listing(tuple(sorted(files, key=os.fsencode)), tuple(sorted(others, key=os.fsencode)))


def find_file(root: Path, name: str) -> Path | None:
    """Return the blob that the link ``name`` stands for, where ``root`` is a snapshot in the hub's cache."""
    blob = find_blob(root, root / name)
    return blob if blob is not None and blob.is_file() and not blob.is_symlink() else None


def walk_files(root: Path, *, hub: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield ``(relative path with /, path)`` of every regular file below ``root``, sorted by the path's bytes.

    Args:
        root: The directory.
        hub: As :func:`list_files`; the path of a linked file is that of its blob.

    Raises:
        InvalidInput: As :func:`list_files`, or something in it is neither a directory nor a regular file.
    """
    listing = list_files(root, hub=hub)
    for name in listing.others:
        raise InvalidInput(
            f"{name}: expected a regular file, found a link or a special file",
            why="what a link points to can change without the directory changing",
            next_step="replace it by a copy of the file; of a model in the cache of the Hugging Face hub name the "
            "folder snapshots/REVISION",
        )
    for name in listing.files:
        yield name, (find_file(root, name) if hub else None) or root / name
