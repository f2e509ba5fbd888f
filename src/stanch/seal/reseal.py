"""Sealing an open bundle anew: a new root key and the next release number, and no plaintext on any disk."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from stanch.crypto.stanza import KeyProvider
from stanch.errors import InvalidInput, NotPermitted, Tampered
from stanch.seal.read import OpenBundle
from stanch.seal.times import now_utc, parse_time
from stanch.seal.write import FileDigest, SealedBundle, SealParams, seal
from stanch.terms import SILENT, JsonValue, Progress, SourceFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def reseal(  # noqa: PLR0913 - what a release may have of its own, by keyword
    bundle: OpenBundle,
    dest: Path,
    recipients: Sequence[KeyProvider],
    finish: Callable[[bytes], bytes],
    *,
    number: int | None = None,
    not_after: datetime | None = None,
    clock: Callable[[], datetime] = now_utc,
    progress: Progress = SILENT,
) -> SealedBundle:
    """Seal the files of an open bundle into the new directory ``dest``, for ``recipients`` and nobody else.

    Root key and bundle id are new and the release number is higher; what else the manifest says stays, and the
    signature over the plain files too. Whoever could open the old release still can.

    Args:
        bundle: The old release; it stays open.
        dest: The new bundle; must not exist.
        recipients: At least one.
        finish: Given the bytes of the manifest, returns those of its signature file.
        number: The new release number; one higher where None. What else was made of the lineage only its publisher
            knows: it must be higher than all of that, too.
        not_after: When the new release ends; as the old one where None.
        clock: Returns the time of creation.
        progress: Told ``("seal", plaintext bytes done, total)``.

    Raises:
        NotPermitted: The old release opens by quorum.
        VerificationError: A part of the old release is not what its publisher signed.
        InvalidInput: The number is not higher than the old one, nobody is named, or the release would end before it
            begins.
        Conflict: ``dest`` or its ``.partial`` exists.
        StoreError: The destination cannot be written.
    """
    old = bundle.manifest
    if old.quorum is not None:
        raise NotPermitted(
            "a bundle that opens by quorum is not sealed anew from its content",
            why="the approvers decide for whom a release is made",
            next_step="seal the original again and let the approvers release that",
        )
    if not_after is None and old.not_after is not None:
        not_after = parse_time(old.not_after, what="manifest.json, not_after")
    known = {file.path: file for file in bundle.files()}
    params = SealParams(
        kind=old.kind, lineage=old.lineage, release_number=_rising(old.release_number, number), not_after=not_after,
        segment_hash=old.segment_hash, plaintext_sha256=any(file.sha256 is not None for file in known.values()),
        base_model=old.base_model, commitments=old.commitments, summary=old.summary, clock=clock, progress=progress,
    )  # fmt: skip

    def keep_signature(files: Sequence[FileDigest]) -> JsonValue:
        for file in files:
            if file.blake3 != known[file.path].blake3:
                raise Tampered(f"{file.path}: the plaintext differs from its digest in the sealed index")
        return bundle.plaintext_signature

    return seal(BundleSource(bundle), dest, recipients, params, finish, keep_signature)


def _rising(old: int, number: int | None) -> int:
    if number is not None and number <= old:
        raise InvalidInput(
            f"expected a release number above {old}, found {number}", why="recipients refuse one that does not rise"
        )
    return number or old + 1


@dataclass(frozen=True, slots=True)
class BundleSource:
    """The files of an open bundle as a :class:`stanch.terms.Source`: decrypted while they are read."""

    bundle: OpenBundle

    def files(self) -> Sequence[SourceFile]:
        """Return the files, sorted by the bytes of their paths."""
        return tuple(_BundleFile(self.bundle, file.path, file.size) for file in self.bundle.files())


@dataclass(frozen=True, slots=True)
class _BundleFile:
    bundle: OpenBundle
    path: str
    size: int

    def open(self) -> BinaryIO:
        return cast("BinaryIO", _PieceReader(self.bundle.pieces(self.path)))


class _PieceReader(io.RawIOBase):
    """A forward-only reader over verified pieces; each is forgotten, and so overwritten, when the next is read."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill as much of ``buffer`` as the current piece gives; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
