"""A sealed bundle as a directory: its exact set of entries, its documents, and its stream files."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

from stanch.crypto import sha256
from stanch.errors import (
    BundleIncomplete,
    NonCanonicalStream,
    NotSealed,
    SignatureMissing,
    Tampered,
    UnexpectedFile,
)
from stanch.seal.manifest import MAX_MANIFEST, Manifest, parse_manifest
from stanch.terms import VerifiedDigest

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sigstore.json"
DIGESTS_NAME = "digests.bin"
RECIPIENTS_NAME = "recipients.json"
BODY_NAME = "body"
PARTIAL_SUFFIX = ".partial"
MAX_SIGNATURE = 4 << 20
ReadInto: TypeAlias = Callable[[memoryview, int], None]
"""Fills the memory with a stored stream's bytes from an offset on, or raises ``BundleIncomplete``."""

_DOCUMENTS = frozenset({MANIFEST_NAME, SIGNATURE_NAME, DIGESTS_NAME, RECIPIENTS_NAME})


def stream_name(stream: int) -> str:
    """Return the file name of a stream inside ``body``."""
    return f"{stream:05d}.floe"


class BundlePlace(Protocol):
    """Where a bundle lies. Whoever reads there compares every byte with what the publisher signed."""

    def verified_manifest(self, publisher: VerifiedDigest, /) -> Manifest:
        """Return the manifest, its bytes being those that the publisher signed."""
        ...

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a document of at most ``limit`` bytes."""
        ...

    def stream(self, number: int, stored: int, /) -> AbstractContextManager[ReadInto]:
        """Open a stream of ``stored`` bytes and yield what reads from it."""
        ...


class BundleFolder:
    """The directory of a sealed bundle, read-only; nothing outside it is ever followed.

    Raises:
        NotSealed: The path is no directory with a manifest, or an unfinished one (``.partial``).
    """

    def __init__(self, path: Path) -> None:
        if not (path / MANIFEST_NAME).is_file() or path.resolve().name.endswith(PARTIAL_SUFFIX):
            raise NotSealed(
                f"{path}: not a sealed bundle",
                why=f"expected a directory with {MANIFEST_NAME}, finished and renamed by its writer",
                next_step="seal it with: stanch seal create",
            )
        self.path = path

    def verified_manifest(self, publisher: VerifiedDigest) -> Manifest:
        """Return the manifest, its bytes being those that the publisher signed, and check the directory against it.

        The digest is compared before anything is parsed.

        Raises:
            Tampered: The manifest is not the signed one.
            SignatureMissing: The signature file is gone.
            UnexpectedFile: An entry, link or special file does not belong here.
            BundleIncomplete: A part is missing.
        """
        data = self.document(MANIFEST_NAME, MAX_MANIFEST)
        if sha256(data) != publisher.sha256:
            raise Tampered(
                f"{MANIFEST_NAME} is not the one that the publisher signed", next_step="fetch the bundle again"
            )
        manifest = parse_manifest(data)
        self.signature()
        check_entries(self.path, len(manifest.streams))
        return manifest

    def signature(self) -> bytes:
        """Return the bytes of the signature file; checking them is the business of ``sign``.

        Raises:
            SignatureMissing: There is none.
        """
        if not (self.path / SIGNATURE_NAME).is_file():
            raise SignatureMissing(
                f"{self.path.name}: {SIGNATURE_NAME} is missing",
                why="an unsigned bundle is never opened",
                next_step="fetch the bundle again",
            )
        return self.document(SIGNATURE_NAME, MAX_SIGNATURE)

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a document of at most ``limit`` bytes.

        Raises:
            BundleIncomplete: It is missing.
            UnexpectedFile: It is a link or a special file, or too long.
        """
        with self._open(name) as handle, os.fdopen(os.dup(handle), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise UnexpectedFile(f"{name}: expected at most {limit} bytes")
        return data

    @contextmanager
    def stream(self, number: int, stored: int, /) -> Iterator[ReadInto]:
        """Open a stream file of exactly ``stored`` bytes and yield what reads from it.

        Raises:
            NonCanonicalStream: It has another length.
            BundleIncomplete: It is missing.
        """
        with self._open(f"{BODY_NAME}/{stream_name(number)}") as handle:
            found = os.fstat(handle).st_size
            if found != stored:
                raise NonCanonicalStream(
                    f"stream {number}: expected {stored} bytes, found {found}",
                    why="the copy was cut off or extended",
                    next_step="fetch the bundle again",
                )
            yield partial(_read_at, handle, number)

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        try:
            handle = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise BundleIncomplete(f"{name} is missing", next_step="fetch the bundle again") from error
        except OSError as error:
            raise UnexpectedFile(f"{name}: cannot be opened", why=os.strerror(error.errno or 0)) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnexpectedFile(f"{name}: expected a regular file")
            yield handle
        finally:
            os.close(handle)


def _read_at(handle: int, stream: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(handle, [target], offset)
        if not count:
            raise stream_ended(stream)
        target, offset = target[count:], offset + count


def stream_ended(stream: int) -> BundleIncomplete:
    """Return the error for a stream that is shorter than its signed length."""
    return BundleIncomplete(f"stream {stream} ended while it was read", next_step="fetch the bundle again")


def check_entries(folder: Path, streams: int, *, unfinished: bool = False) -> None:
    """Check that a folder holds the entries of a bundle with that many streams, and nothing else.

    Args:
        folder: The bundle's directory.
        streams: How many stream files there are.
        unfinished: Parts may be missing as yet, but for the directory of the streams.

    Raises:
        UnexpectedFile: An entry, link or special file does not belong here.
        BundleIncomplete: A part is missing.
    """
    body = folder / BODY_NAME
    _check_names(folder, _DOCUMENTS | {BODY_NAME}, unfinished=unfinished)
    if body.is_symlink() or not body.is_dir():
        raise UnexpectedFile(f"{BODY_NAME}: expected a directory", next_step=f"remove {body}")
    _check_names(body, frozenset(map(stream_name, range(streams))), unfinished=unfinished)


def _check_names(folder: Path, expected: frozenset[str], *, unfinished: bool) -> None:
    found = {entry.name for entry in os.scandir(folder)}
    if extra := sorted(found - expected):
        raise UnexpectedFile(
            f"{folder.name}: {extra[0][:80]!r} does not belong to the bundle",
            why="another one was being fetched to this place" if unfinished else "",
            next_step=f"remove {folder} and fetch again" if unfinished else "fetch the bundle again",
        )
    if unfinished:
        return
    if missing := sorted(expected - found):
        raise BundleIncomplete(f"{folder.name}: {missing[0]} is missing", next_step="fetch the bundle again")


def read_manifest(src: Path) -> Manifest:
    """Return the public facts of a bundle **without checking them**: nobody has vouched for them yet.

    Raises:
        NotSealed: Not a sealed bundle.
        InvalidInput: The manifest is malformed.
    """
    return parse_manifest(BundleFolder(src).document(MANIFEST_NAME, MAX_MANIFEST))


def read_signature(src: Path) -> bytes:
    """Return the bytes of the bundle's signature file, for ``sign`` to verify.

    Raises:
        NotSealed: Not a sealed bundle.
        SignatureMissing: There is no signature file.
    """
    return BundleFolder(src).signature()
