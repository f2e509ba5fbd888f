"""A sealed bundle in a store: the local layout below ``<store>/<bundle id>/``, read without believing a byte of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stanch.crypto.floe import HEADER_SIZE
from stanch.errors import BundleIncomplete, InvalidInput, NotFound, SignatureMissing, Tampered
from stanch.seal import MANIFEST_NAME, SIGNATURE_NAME, Manifest, parse_manifest
from stanch.seal.digests import SignedDigests
from stanch.seal.folder import BODY_NAME, MAX_SIGNATURE, stream_name
from stanch.seal.layout import Segment, list_segments
from stanch.seal.manifest import MAX_MANIFEST
from stanch.sign import Bundle, Timestamped, TrustedKeys, verify_manifest
from stanch.store import BlobStore, open_blobs
from stanch.terms import VerifiedDigest

_BUNDLE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest that a trusted publisher signed: parsed, its digest, and the bytes of its signature file."""

    manifest: Manifest
    publisher: VerifiedDigest
    signature: bytes


@dataclass(frozen=True, slots=True)
class RemoteBundle:
    """Where a delivered bundle lies.

    Attributes:
        blobs: The store.
        location: What the store is called; under this name its revocation list is remembered.
        bundle_id: 64 hex digits.
    """

    blobs: BlobStore
    location: str
    bundle_id: str

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open ``<store>/<bundle id>``, for example ``s3://bucket/releases/4f0c…``.

        Raises:
            InvalidInput: The URI does not end in a bundle id.
            NotFound: A ``file:`` store that does not exist; reading makes none.
        """
        location, _, bundle_id = uri.rpartition("/")
        if not _BUNDLE_ID.fullmatch(bundle_id) or ":" not in location:
            raise InvalidInput(
                f"expected the URI of a delivered bundle, found {uri[:200]!r}",
                why="it ends in the bundle's id: 64 hexadecimal digits",
                next_step="ask the publisher for the line that `stanch release deliver` printed",
            )
        if location.startswith("file:") and not Path(location.removeprefix("file:")).is_dir():
            raise NotFound(f"{location}: there is no such folder")
        return cls.at(location, bundle_id)

    @classmethod
    def at(cls, location: str, bundle_id: str) -> Self:
        """Name the place of a bundle in the store at ``location``; the folder of a ``file:`` store is made."""
        scheme, _, rest = location.partition(":")
        # One name from wherever it is looked at: what was seen in a store is remembered under it.
        name = f"file:{Path(rest.removeprefix('//')).resolve()}" if scheme == "file" else location.rstrip("/")
        return cls(open_blobs(location), name, bundle_id)

    def key(self, name: str) -> str:
        """Return the key of one part of the bundle."""
        return f"{self.bundle_id}/{name}"

    def document(self, name: str, limit: int) -> bytes:
        """Return the bytes of a document of at most ``limit`` bytes.

        Raises:
            BundleIncomplete: It is missing: never delivered, not yet, or removed.
            InvalidInput: It is longer.
        """
        data = self._get(name, 0, limit + 1)
        if len(data) > limit:
            raise InvalidInput(f"{name}: expected at most {limit} bytes")
        return data

    def read(self, piece: "Piece") -> bytes:
        """Return what the store holds for a piece, unchecked.

        Raises:
            BundleIncomplete: The stream is missing.
        """
        return self._get(stream_path(piece.segment.stream), piece.offset, piece.length)

    def _get(self, name: str, start: int, length: int) -> bytes:
        try:
            return self.blobs.get(self.key(name), start=start, length=length)
        except NotFound as error:
            raise BundleIncomplete(
                f"{self.bundle_id[:16]}…: {name} is missing in the store",
                why="the bundle was never delivered whole, or was removed",
                next_step="ask the publisher to deliver it: stanch release deliver BUNDLE URI",
            ) from error

    def signed_manifest(self, trusted: TrustedKeys | Timestamped) -> SignedManifest:
        """Return the manifest once a trusted publisher's signature over it held.

        Raises:
            BundleIncomplete: There is no manifest: it is put last, so the bundle is not there.
            VerificationError: Not signed, not by a trusted key, or another bundle than asked for.
        """
        data = self.document(MANIFEST_NAME, MAX_MANIFEST)
        try:
            signature = self.document(SIGNATURE_NAME, MAX_SIGNATURE)
        except BundleIncomplete as error:
            raise SignatureMissing(f"{SIGNATURE_NAME} is missing in the store") from error
        publisher = verify_manifest(data, Bundle.parse(signature, what=SIGNATURE_NAME), trusted)
        manifest = parse_manifest(data)
        if manifest.bundle_id != self.bundle_id:
            raise Tampered(
                f"another bundle lies here: expected {self.bundle_id[:16]}…, found {manifest.bundle_id[:16]}…",
                next_step="ask the publisher where the bundle lies",
            )
        return SignedManifest(manifest, publisher, signature)


def stream_path(stream: int) -> str:
    """Return the name of a stream inside its bundle."""
    return f"{BODY_NAME}/{stream_name(stream)}"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one request asks for: a segment, the first one together with its stream's header."""

    segment: Segment

    @property
    def offset(self) -> int:
        """Where it starts in the stored stream."""
        return self.segment.offset if self.segment.position else 0

    @property
    def length(self) -> int:
        """Stored bytes."""
        return self.segment.offset + self.segment.length - self.offset

    def match(self, data: bytes, digests: SignedDigests) -> bool:
        """Say whether ``data`` are exactly the signed bytes of this piece."""
        stream, position, view = self.segment.stream, self.segment.position, memoryview(data)
        if len(data) != self.length:
            return False
        if position:
            return digests.match(stream, position + 1, view)
        return digests.match(stream, 0, view[:HEADER_SIZE]) and digests.match(stream, 1, view[HEADER_SIZE:])


def list_pieces(stream: int, size: int) -> Iterator[Piece]:
    """Yield the pieces of a stream of ``size`` plaintext bytes."""
    return map(Piece, list_segments(stream, size))
