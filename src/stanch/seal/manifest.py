"""``manifest.json``: the public, signed description of a sealed bundle."""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from stanch.crypto import HashName, canonical_json, parse_json, sha256
from stanch.errors import InvalidInput, NonCanonicalStream, NotSealed
from stanch.seal.layout import MAX_INDEX, MAX_STREAMS, SEGMENT, STREAM_PLAIN, count_segments, stored_size
from stanch.seal.times import parse_time

FORMAT: Final = "stanch/sealed-bundle/v1"
MAX_MANIFEST = 16 << 20
CIPHER = "FLOE-AES256GCM-HKDF384"
LINEAGE: Final = r"^[a-z0-9._/-]{1,200}\Z"
_FAMILY = "stanch/sealed-bundle/"
_NAME = "manifest.json"

BundleKind: TypeAlias = Literal["model", "adapter", "dataset", "other"]
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Lineage: TypeAlias = Annotated[str, msgspec.Meta(pattern=LINEAGE)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class UnsupportedFormat(NotSealed):
    """A sealed bundle of a format version that this release does not read."""


class Cipher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cipher of the streams; only one is accepted."""

    name: str
    segment: int


class StreamEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream: its number, plaintext size, stored size, number of digests, and the digest over them."""

    n: Natural
    size: Natural
    stored: Natural
    entries: Natural
    digests: Hex32


class BaseModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model that an adapter belongs to; ``digest`` is the SHA-256 of its directory listing."""

    name: str
    digest: Hex32


class Commitments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Salted or random-keyed digests of what belongs to the release.

    Attributes:
        dataset: Keyed root of the manifest of the data set that the model was tuned on.
        recipe: Digest of the privacy plan of that tuning.
        certificate: Digest of the leak certificate.
        mark: Root of the batch of marks.
    """

    dataset: Hex32 | None
    recipe: Hex32 | None
    certificate: Hex32 | None
    mark: Hex32 | None


class Quorum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of how many approvers must release the bundle."""

    m: Annotated[int, msgspec.Meta(ge=2, le=16)]
    n: Annotated[int, msgspec.Meta(ge=2, le=16)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest; the fields are those of the file, in lower-case hexadecimal and RFC 3339 text as written there."""

    format: str
    bundle_id: Hex32
    created: str
    kind: BundleKind
    lineage: Lineage
    release_number: Positive
    not_after: str | None
    cipher: Cipher
    segment_hash: HashName
    root_commitment: Hex32
    streams: tuple[StreamEntry, ...]
    base_model: BaseModel | None
    commitments: Commitments
    quorum: Quorum | None
    summary: dict[str, str] | None

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the manifest."""
        return canonical_json(msgspec.to_builtins(self))

    @property
    def release_digest(self) -> str:
        """What tells a release from another of its number, in hexadecimal.

        It is the SHA-256 of the manifest; for marked copies, of which each recipient has another, that of what they
        share: the commitments to their certificate and to the batch of their marks.
        """
        if self.commitments.mark is None:
            return sha256(self.to_bytes()).hex()
        return sha256(canonical_json(msgspec.to_builtins(self.commitments))).hex()


NO_COMMITMENTS = Commitments(None, None, None, None)
ONLY_CIPHER = Cipher(CIPHER, SEGMENT)


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest, strictly.

    Raises:
        NotSealed: The document is of another format; ``UnsupportedFormat`` for another version of this one.
        NonCanonicalStream: A stream's lengths do not fit together.
        InvalidInput: Any other rule is broken; the bytes must be what :meth:`Manifest.to_bytes` writes.
    """
    document = parse_json(data, what=_NAME, max_bytes=MAX_MANIFEST)
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        if isinstance(found, str) and found.startswith(_FAMILY):
            raise UnsupportedFormat(
                f"{_NAME}: expected format {FORMAT}, found version {found.removeprefix(_FAMILY)[:20]!r}",
                next_step="open the bundle with the release of stanch that made it",
            )
        raise NotSealed(f"{_NAME}: not the manifest of a sealed bundle")
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{_NAME}: {error}") from error
    if manifest.to_bytes() != data:
        raise InvalidInput(f"{_NAME}: expected canonical JSON (RFC 8785)")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Check what the types cannot say."""
    parse_time(manifest.created, what=f"{_NAME}, created")
    if manifest.not_after is not None:
        parse_time(manifest.not_after, what=f"{_NAME}, not_after")
    if manifest.cipher != ONLY_CIPHER:
        raise InvalidInput(f"{_NAME}: expected cipher {CIPHER} with segments of {SEGMENT} bytes")
    if manifest.quorum is not None and manifest.quorum.m > manifest.quorum.n:
        raise InvalidInput(f"{_NAME}: expected a quorum of m <= n")
    if not 1 <= len(manifest.streams) <= MAX_STREAMS:
        raise InvalidInput(f"{_NAME}: expected 1 to {MAX_STREAMS} streams, found {len(manifest.streams)}")
    for number, stream in enumerate(manifest.streams):
        if stream.n != number:
            raise InvalidInput(f"{_NAME}: expected stream {number}, found {stream.n}")
        if stream.size > (STREAM_PLAIN if number else MAX_INDEX):
            raise NonCanonicalStream(f"{_NAME}: stream {number} is longer than the format allows")
        if stream.stored != stored_size(stream.size) or stream.entries != 1 + count_segments(stream.size):
            raise NonCanonicalStream(
                f"{_NAME}: stream {number} of {stream.size} bytes must be stored in {stored_size(stream.size)} bytes "
                f"with {1 + count_segments(stream.size)} digests",
            )
