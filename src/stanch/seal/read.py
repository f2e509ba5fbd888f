"""Opening sealed bundles: every check in order, then verified reads of files and single tensors."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from stanch.crypto.stanza import KeyProvider
from stanch.errors import InvalidInput, InvalidSafetensors, NotFound
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder, BundlePlace
from stanch.seal.index import IndexFile, SealedIndex, parse_index
from stanch.seal.keys import ReleaseRoot
from stanch.seal.manifest import BaseModel, Manifest
from stanch.seal.memory import ReleaseMemory, check_release, remember_release
from stanch.seal.recipients import MAX_RECIPIENTS_FILE, Recipients, unwrap_root
from stanch.seal.segments import SegmentReader, SignedStreams, Verify
from stanch.seal.times import now_utc
from stanch.seal.unseal import write_plaintext
from stanch.seal.views import view_tensor, view_tensors
from stanch.terms import JsonValue, VerifiedDigest
from stanch.weights import Header, Tensor, parse_header


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenParams:
    """How a bundle is opened.

    Attributes:
        allow_older_unsafe: Open a release although a newer one of its lineage was seen.
        min_release: Least release number accepted, which pins the first contact.
        threads: Most threads that decrypt at once.
        clock: Returns the time that grants are compared with.
    """

    allow_older_unsafe: bool = False
    min_release: int = 1
    threads: int = min(4, os.cpu_count() or 1)
    clock: Callable[[], datetime] = now_utc


_DEFAULTS = OpenParams()


def open_bundle(
    src: Path | BundlePlace,
    publisher: VerifiedDigest,
    identities: Sequence[KeyProvider],
    *,
    verify: Verify = "publisher",
    memory: ReleaseMemory,
    recipients: Recipients | None = None,
    params: OpenParams = _DEFAULTS,
) -> "OpenBundle":
    """Open a sealed bundle.

    Checks, in this order: the manifest is the one the publisher signed; a directory holds its entries and nothing
    else; the release is not older than one seen before; recipients belong to this manifest; the grant has not ended;
    the stanza opens to the signed root; the digests are the signed ones; the index is whole and consistent. Segments
    are checked when they are read.

    Args:
        src: The bundle's directory, or wherever else it lies.
        publisher: The manifest's digest as verified by ``sign``; there is no other way in.
        identities: Keys to try; the first that a valid stanza names is used.
        verify: ``aead_only_unsafe`` skips the signed segment digests.
        memory: Where releases are remembered; updated when all of the above passed.
        recipients: In place of those of ``recipients.json``, for example without those that were revoked.
        params: Further settings.

    Raises:
        VerificationError: Tampered, NotSealed, SignatureMissing, UnexpectedFile, BundleIncomplete, NonCanonicalStream,
            Rollback, Equivocation, NoIdentityMatched or DecryptionFailed.
        NotPermitted: GrantExpired, or QuorumNotMet for a bundle whose quorum was not redeemed.
        InvalidInput: A document is malformed.
    """
    if not publisher.signer_key_ids:
        raise InvalidInput("the verified digest names no signer", why="rollback memory is kept for each publisher key")
    place = BundleFolder(src) if isinstance(src, Path) else src
    manifest = place.verified_manifest(publisher)
    release = check_release(
        memory, publisher, manifest, min_release=params.min_release, allow_older_unsafe=params.allow_older_unsafe
    )
    if recipients is None:
        recipients = Recipients.parse(place.document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE))
    root = unwrap_root(recipients, manifest, publisher.sha256, identities, params.clock())
    try:
        reader = SegmentReader(SignedStreams(place, manifest), root, verify, params.threads)
        index = parse_index(bytes(reader.read([0], 0, manifest.streams[0].size)), manifest.streams)
    except BaseException:
        root.wipe()
        raise
    remember_release(memory, publisher, manifest.lineage, release)
    return OpenBundle(manifest, index, reader, root)


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file inside a bundle, with its plaintext digests in hexadecimal."""

    path: str
    size: int
    type: Literal["safetensors", "file"]
    blake3: str
    sha256: str | None


class OpenBundle:
    """An open bundle. A context manager; :meth:`close` forgets the keys.

    Memory handed out stays valid after closing; each piece overwrites itself when its last view is gone.
    """

    def __init__(self, manifest: Manifest, index: SealedIndex, reader: SegmentReader, root: ReleaseRoot) -> None:
        self.manifest = manifest
        self._index = {file.path: file for file in index.files}
        self._oms: JsonValue = index.oms
        self._reader: SegmentReader | None = reader
        self._root = root
        self._headers: dict[str, Header] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenBundle({self.manifest.lineage}, release {self.manifest.release_number})"

    def close(self) -> None:
        """Forget the keys; nothing more can be read."""
        self._root.wipe()
        self._reader = None
        self._headers.clear()

    @property
    def base_model(self) -> BaseModel | None:
        """The model that an adapter belongs to, as the manifest names it."""
        return self.manifest.base_model

    @property
    def plaintext_signature(self) -> JsonValue:
        """The publisher's signature bundle over the plaintext directory, or None."""
        return self._oms

    def files(self) -> tuple[SealedFile, ...]:
        """Return the files, sorted by the bytes of their paths."""
        return tuple(
            SealedFile(file.path, file.size, file.type, file.blake3, file.sha256) for file in self._index.values()
        )

    def read(self, name: str) -> memoryview:
        """Return a file's bytes, read-only.

        Raises:
            NotFound: There is no such file.
            Tampered: A segment does not match its signed digest.
            DecryptionFailed: A segment does not decrypt.
        """
        file = self._file(name)
        return self._read(file.streams, 0, file.size).toreadonly()

    def tensors(self, name: str) -> Mapping[str, Tensor]:
        """Return all tensors of a safetensors file as read-only views, in the order of their offsets.

        Raises:
            NotFound: There is no such safetensors file.
            InvalidSafetensors: Its header breaks a rule of the format.
            Tampered: A segment does not match its signed digest.
            DecryptionFailed: A segment does not decrypt.
        """
        header, memory = self.read_weights(name)
        return view_tensors(header, memory)

    def read_weights(self, name: str) -> tuple[Header, memoryview]:
        """Return a safetensors file's header and its data section, which is new, writable and the caller's own.

        Raises:
            StanchError: As :meth:`tensors`.
        """
        header = self._header(name)
        return header, self._read(self._file(name).streams[1:], 0, header.data_size)

    def tensor(self, name: str) -> Tensor:
        """Return one tensor as a read-only view; only the segments that hold it are read.

        Raises:
            NotFound: No safetensors file of the bundle has a tensor of this name.
            InvalidInput: More than one file has it.
            Tampered: A segment does not match its signed digest.
            DecryptionFailed: A segment does not decrypt.
        """
        found = [
            (file, info)
            for file in self._index.values()
            if file.type == "safetensors"
            for info in self._header(file.path).tensors
            if info.name == name
        ]
        if not found:
            raise NotFound(f"the bundle has no tensor {name[:200]!r}", next_step="list them with tensors(FILE)")
        if len(found) > 1:
            raise InvalidInput(f"tensor {name[:200]!r} is in more than one file of the bundle")
        file, info = found[0]
        return view_tensor(info, self._read(file.streams[1:], info.start, info.end), info.start)

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Yield a file's bytes in order, at most one stream's (128 MiB) at a time.

        Raises:
            StanchError: As :meth:`read`; what was yielded before is whole.
        """
        return self._pieces(self._file(name))

    def unseal_unsafe(self, dest: Path) -> None:
        """Write the plaintext files below the new directory ``dest``. From then on nothing protects them.

        Each file is compared with its BLAKE3 in the index; ``dest`` appears only when all are written.

        Raises:
            Conflict: ``dest`` exists.
            StoreError: It cannot be written.
            Tampered: A segment does not match its signed digest, or a file its BLAKE3.
            DecryptionFailed: A segment does not decrypt.
        """
        write_plaintext(dest, ((file, self._pieces(file)) for file in self._index.values()))

    def _pieces(self, file: IndexFile) -> Iterator[memoryview]:
        for stream in file.streams:
            yield self._read((stream,), 0, self.manifest.streams[stream].size)

    def _header(self, name: str) -> Header:
        if name not in self._headers:
            file = self._file(name)
            if file.type != "safetensors":
                raise NotFound(f"{name[:200]!r} is not a safetensors file")
            head = file.streams[0]
            header = parse_header(bytes(self._read((head,), 0, self.manifest.streams[head].size)), what=name)
            if header.data_offset + header.data_size != file.size:
                raise InvalidSafetensors(f"{name}: its data section is not as long as its header says")
            self._headers[name] = header
        return self._headers[name]

    def _read(self, streams: Sequence[int], start: int, stop: int) -> memoryview:
        if self._reader is None:
            raise InvalidInput("the bundle is closed", next_step="open it again")
        return self._reader.read(streams, start, stop)

    def _file(self, name: str) -> IndexFile:
        file = self._index.get(name)
        if file is None:
            raise NotFound(f"the bundle has no file {name[:200]!r}", next_step="list the files with: stanch seal ls")
        return file
