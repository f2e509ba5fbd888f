"""Rollback memory: which release of each lineage was seen last, so that an older one is not taken for news."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stanch.crypto import canonical_json, parse_json, write_atomic
from stanch.errors import Equivocation, InvalidInput, Rollback, StoreError
from stanch.seal.manifest import Manifest
from stanch.terms import JsonValue, VerifiedDigest

MEMORY_FORMAT = "stanch/release-memory/v1"


@dataclass(frozen=True, slots=True)
class SeenRelease:
    """A release: its number and what tells it from another of that number (``Manifest.release_digest``)."""

    number: int
    digest: str


class ReleaseMemory(Protocol):
    """Keeps the highest release seen for each publisher key and lineage."""

    def last(self, publisher: str, lineage: str) -> SeenRelease | None:
        """Return the highest release seen, or None at first contact."""
        ...

    def remember(self, publisher: str, lineage: str, release: SeenRelease) -> None:
        """Keep ``release`` unless a higher one is kept already."""
        ...


def check_release(
    memory: ReleaseMemory,
    publisher: VerifiedDigest,
    manifest: Manifest,
    *,
    min_release: int = 1,
    allow_older_unsafe: bool = False,
) -> SeenRelease:
    """Compare a release with what was seen before, and return what is to be remembered of it.

    Args:
        memory: What was seen before.
        publisher: The manifest's digest as verified.
        manifest: The release's manifest.
        min_release: Least release number accepted, which pins the first contact.
        allow_older_unsafe: Accept a release that is older than one seen before.

    Raises:
        Rollback: It is older than ``min_release``, or than one of the lineage seen from any of the publisher's keys.
        Equivocation: The same number was seen on another release; no setting allows this.
    """
    lineage, release = manifest.lineage, SeenRelease(manifest.release_number, manifest.release_digest)
    if release.number < min_release:
        raise Rollback(f"{lineage}: expected release {min_release} or later, found {release.number}")
    # Of a marked copy earlier releases of stanch remembered the manifest.
    digests = {release.digest, publisher.sha256.hex()}
    for key_id in publisher.publisher_key_ids:
        seen = memory.last(key_id, lineage)
        if seen is None or seen.number < release.number:
            continue
        if seen.number == release.number:
            if seen.digest not in digests:
                raise Equivocation(
                    f"{lineage}: two different releases are signed as number {release.number}",
                    why=f"another one was opened before, by {key_id} or a key trusted beside it",
                    next_step="ask the publisher which one is right",
                )
        elif not allow_older_unsafe:
            raise Rollback(
                f"{lineage}: release {release.number} is older than release {seen.number}, which was opened before",
                next_step="fetch the newest release",
            )
    return release


def remember_release(memory: ReleaseMemory, publisher: VerifiedDigest, lineage: str, release: SeenRelease) -> None:
    """Remember a release under every key of its publisher, so that no other key of it takes the lineage back."""
    for key_id in publisher.publisher_key_ids:
        memory.remember(key_id, lineage, release)


class VolatileReleases:
    """A rollback memory that lasts as long as the object."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], SeenRelease] = {}

    def last(self, publisher: str, lineage: str) -> SeenRelease | None:
        """Return the highest release seen, or None."""
        return self._seen.get((publisher, lineage))

    def remember(self, publisher: str, lineage: str, release: SeenRelease) -> None:
        """Keep ``release`` unless a higher one is kept already."""
        seen = self.last(publisher, lineage)
        if seen is None or seen.number < release.number:
            self._seen[publisher, lineage] = release


class FileReleases:
    """A rollback memory in a JSON file, safe for several processes on one host.

    The file holds ``{"format", "releases": {publisher: {lineage: [number, digest]}}}``. It is replaced as a
    whole; a lock file beside it keeps two processes from losing each other's entry. A damaged file is refused, never
    taken for an empty one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self, publisher: str, lineage: str) -> SeenRelease | None:
        """Return the highest release seen, or None.

        Raises:
            InvalidInput: The file is damaged.
            StoreError: It cannot be read, or nothing could be remembered in it; known before anything is opened.
        """
        with self._locked():
            return self._read().get(publisher, {}).get(lineage)

    def remember(self, publisher: str, lineage: str, release: SeenRelease) -> None:
        """Keep ``release`` durably unless a higher one is kept already.

        Raises:
            InvalidInput: The file is damaged.
            StoreError: It cannot be written.
        """
        with self._locked():
            seen = self._read()
            of_publisher = seen.setdefault(publisher, {})
            known = of_publisher.get(lineage)
            if known is not None and known.number >= release.number:
                return
            of_publisher[lineage] = release
            releases: JsonValue = {
                key: {name: [item.number, item.digest] for name, item in lineages.items()}
                for key, lineages in seen.items()
            }
            write_atomic(self._path, canonical_json({"format": MEMORY_FORMAT, "releases": releases}), mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path.with_name(self._path.name + ".lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(
                f"{self._path}: releases cannot be remembered here",
                why=os.strerror(error.errno or 0),
                next_step="let it be written to, or name a writable file: --memory FILE",
            ) from error

    def _read(self) -> dict[str, dict[str, SeenRelease]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        match parse_json(data, what=self._path.name):
            case {"format": found, "releases": dict(releases)} if found == MEMORY_FORMAT:
                return {key: _lineages(value, self._path.name) for key, value in releases.items()}
        raise InvalidInput(f"{self._path.name}: expected format {MEMORY_FORMAT}")


def _lineages(value: JsonValue, name: str) -> dict[str, SeenRelease]:
    lineages: dict[str, SeenRelease] = {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name}: expected lineages for each publisher")
    for lineage, release in value.items():
        match release:
            case [int(number), str(digest)] if number >= 1:
                lineages[lineage] = SeenRelease(number, digest)
            case _:
                raise InvalidInput(f"{name}: an entry is not [release number, digest]")
    return lineages
