"""Finding stray plaintext copies of protected weights, whatever they are called and whatever they lie in.

Three looks at each file, in one pass: is it a protected weight file byte for byte; does it hold a protected tensor (as
a safetensors file written again, split or renamed does); does it hold windows of one (as any other uncompressed
container does, or a part of a file). Compressed, encrypted, converted or re-trained weights are not found: their bytes
differ.
"""

import threading
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from stanch.crypto import Hasher
from stanch.errors import InvalidInput, StoreError
from stanch.release.fingerprint import Fingerprint
from stanch.release.places import Item, Listing
from stanch.release.pool import run_all
from stanch.release.tensor_stream import TensorStream
from stanch.release.windows import WindowStream, window_digest
from stanch.terms import SILENT, Progress


class Match(NamedTuple):
    """What of the protected weights one file holds: digests of files, tensors and windows, in hexadecimal."""

    files: frozenset[str]
    tensors: frozenset[str]
    windows: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stray:
    """A file or object that holds protected weights.

    Attributes:
        place: Where it lies.
        size: Its size in bytes.
        file: The protected file that it equals, or None.
        tensors: Protected tensors that it holds, named as in the protected model.
        parts: Protected tensors of which it holds windows, beside ``tensors``.
    """

    place: str
    size: int
    file: str | None
    tensors: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a search found.

    Attributes:
        stray: Copies, in the order of the places.
        searched: How many files and objects were read.
        size: Their bytes.
        unread: What could not be read; nothing is known of it.
    """

    stray: tuple[Stray, ...]
    searched: int
    size: int
    unread: tuple[str, ...]


def search(fingerprint: Fingerprint, listing: Listing, *, workers: int = 4, progress: Progress = SILENT) -> Inventory:
    """Look through all items for copies of the protected weights.

    Args:
        fingerprint: Of the protected weights.
        listing: What to look through.
        workers: Files that are read at once; each holds one chunk in memory, and at most one safetensors header.
        progress: Told ``("search", bytes done, total)``.
    """
    searcher, meter = _Searcher(fingerprint), _Meter(progress, listing.size)

    def look(item: Item) -> tuple[Item, Match | None]:
        try:
            return item, searcher.look(item, meter)
        except StoreError:
            return item, None

    stray: list[Stray] = []
    unread, size = list(listing.unread), 0
    for item, match in run_all(listing.items, look, workers):
        if match is None:
            unread.append(item.place)
            continue
        size += item.size
        if any(match):
            stray.append(searcher.describe(item, match))
    searched = len(listing.items) + len(listing.unread) - len(unread)
    return Inventory(tuple(stray), searched, size, tuple(unread))


def leave_out(fingerprint: Fingerprint, listing: Listing) -> Fingerprint:
    """Return the fingerprint without what also lies in ``listing``, such as the public base model's files.

    Raises:
        StoreError: One of them cannot be read.
        InvalidInput: Nothing would be left to search for.
    """
    searcher, meter = _Searcher(fingerprint), _Meter(SILENT, 0)
    found = [searcher.look(item, meter) for item in listing.items]
    files, tensors, windows = (frozenset[str]().union(*part) for part in zip(*found, strict=True)) if found else _NONE
    kept = tuple(
        msgspec.structs.replace(tensor, windows=tuple(one for one in tensor.windows if one not in windows))
        for tensor in fingerprint.tensors
        if tensor.blake3 not in tensors
    )
    if not kept:
        raise InvalidInput("nothing is left to search for: every protected tensor is in the base model too")
    return Fingerprint(fingerprint.format, tuple(file for file in fingerprint.files if file.blake3 not in files), kept)


_NONE = Match(frozenset(), frozenset(), frozenset())


class _Meter:
    """Counts bytes for several threads and tells the progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done, self._lock = progress, total, 0, threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress("search", self._done, self._total)


class _Searcher:
    """The fingerprint, arranged for looking things up; read by several threads."""

    def __init__(self, fingerprint: Fingerprint) -> None:
        self._files = {file.blake3: file for file in fingerprint.files}
        self._tensors = {tensor.blake3: tensor.name for tensor in fingerprint.tensors}
        self._windows = {
            bytes.fromhex(window): tensor.name for tensor in fingerprint.tensors for window in tensor.windows
        }
        self._file_sizes = {file.size for file in fingerprint.files}
        self._tensor_sizes = {tensor.size for tensor in fingerprint.tensors}

    def look(self, item: Item, meter: _Meter) -> Match:
        """Read one item and return what it holds."""
        whole = Hasher("blake3") if item.size in self._file_sizes else None
        stream, hasher, passed = TensorStream(item.size), Hasher("blake3"), 0
        windows, seen = WindowStream(), set[bytes]()
        tensors = set[str]()
        for chunk in item.chunks():
            if whole is not None:
                whole.update(chunk)
            for tensor, part in stream.feed(chunk):
                size = tensor.end - tensor.start
                passed += len(part)
                if size in self._tensor_sizes:
                    hasher.update(part)
                if passed == size:
                    tensors.add(hasher.digest().hex())
                    hasher, passed = Hasher("blake3"), 0
            seen.update(map(window_digest, windows.feed(chunk)))
            seen &= self._windows.keys()
            meter.add(len(chunk))
        files = set[str]() if whole is None else {whole.digest().hex()}
        return Match(
            frozenset(files & self._files.keys()),
            frozenset(tensors & self._tensors.keys()),
            frozenset(window.hex() for window in seen),
        )

    def describe(self, item: Item, match: Match) -> Stray:
        """Return a match in the names of the protected model."""
        tensors = {self._tensors[digest] for digest in match.tensors}
        parts = {self._windows[bytes.fromhex(window)] for window in match.windows} - tensors
        file = next((self._files[digest].name for digest in match.files), None)
        return Stray(item.place, item.size, file, _sorted(tensors), _sorted(parts))


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
