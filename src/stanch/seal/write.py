"""Sealing: one pass over the source, into a directory that gets its name only when it is complete and durable."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from stanch.crypto import Hasher, HashName, RandomBytes, random_bytes, sync_folder
from stanch.crypto.stanza import ROOT_SIZE, KeyProvider
from stanch.errors import Conflict, InvalidInput, StoreError
from stanch.seal.body import BodyWriter
from stanch.seal.folder import (
    BODY_NAME,
    DIGESTS_NAME,
    MANIFEST_NAME,
    PARTIAL_SUFFIX,
    RECIPIENTS_NAME,
    SIGNATURE_NAME,
)
from stanch.seal.index import INDEX_FORMAT, IndexFile, SealedIndex
from stanch.seal.keys import BUNDLE_ID_SIZE, ReleaseRoot
from stanch.seal.layout import MAX_INDEX, MAX_STREAMS, cut, cut_safetensors
from stanch.seal.manifest import (
    FORMAT,
    LINEAGE,
    NO_COMMITMENTS,
    ONLY_CIPHER,
    BaseModel,
    BundleKind,
    Commitments,
    Manifest,
    Quorum,
    StreamEntry,
    parse_manifest,
)
from stanch.seal.quorum import check_recipients
from stanch.seal.recipients import Recipients, wrap_root
from stanch.seal.source import DirectorySource, source_changed
from stanch.seal.times import format_time, now_utc
from stanch.terms import SILENT, Digest, JsonValue, Progress, Source, SourceFile
from stanch.weights import check_paths, read_head

_SAFETENSORS = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealParams:
    """What a sealed bundle says about itself, and how it is made.

    Attributes:
        kind: ``model``, ``adapter``, ``dataset`` or ``other``.
        lineage: The line of releases that this one belongs to.
        release_number: Higher than every earlier one of the same publisher key and lineage.
        not_after: When the release and all grants end; None for never.
        segment_hash: ``blake3``, or ``sha256`` where only FIPS algorithms are allowed.
        plaintext_sha256: Also record the SHA-256 of each file in the sealed index.
        base_model: The model that an adapter belongs to.
        commitments: Digests of what belongs to the release.
        quorum: How many of how many approvers must release it; None where recipients open it alone.
        summary: Clear text for everybody to read; nothing by default.
        workers: Encrypting threads.
        rng: Source of all randomness.
        clock: Returns the time of creation.
        progress: Told ``("seal", plaintext bytes done, total)``.
    """

    kind: BundleKind
    lineage: str
    release_number: int
    not_after: datetime | None = None
    segment_hash: HashName = "blake3"
    plaintext_sha256: bool = False
    base_model: BaseModel | None = None
    commitments: Commitments = NO_COMMITMENTS
    quorum: Quorum | None = None
    summary: Mapping[str, str] | None = None
    workers: int = min(4, os.cpu_count() or 1)
    rng: RandomBytes = random_bytes
    clock: Callable[[], datetime] = now_utc
    progress: Progress = SILENT


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A sealed file's path, size and plaintext digests in hexadecimal."""

    path: str
    size: int
    blake3: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class SealedBundle:
    """A bundle that was just sealed: where it lies, its manifest, and the digest that was signed."""

    path: Path
    manifest: Manifest
    digest: Digest


def seal(
    source: Path | Source,
    dest: Path,
    recipients: Sequence[KeyProvider],
    params: SealParams,
    finish: Callable[[bytes], bytes],
    sign_plaintext: Callable[[Sequence[FileDigest]], JsonValue] | None = None,
) -> SealedBundle:
    """Seal the files of ``source`` into the new directory ``dest`` for ``recipients``.

    Plaintext is read once and never written. Until the bundle is complete it is called ``dest`` + ``.partial``, which
    no reader opens; on failure that directory is removed.

    Args:
        source: A directory, or files that are made while they are read.
        dest: The bundle; must not exist.
        recipients: At least one; with a quorum its split alone, so that the root key is nowhere else.
        params: What the bundle says about itself.
        finish: Given the bytes of the manifest, returns those of its signature file.
        sign_plaintext: Given the plaintext digests, returns the signature bundle that goes into the sealed index.

    Raises:
        InvalidInput: Bad parameters, paths or safetensors headers; ``SourceChanged`` when a file changes meanwhile.
        Conflict: ``dest`` or its ``.partial`` exists.
        StoreError: The destination cannot be written.
    """
    check_recipients(recipients, params.quorum)
    listing = DirectorySource(source) if isinstance(source, Path) else source
    plan = [_plan(file) for file in sorted(listing.files(), key=lambda file: os.fsencode(file.path))]
    _check_plan(plan, params)
    root = ReleaseRoot(params.rng(ROOT_SIZE), params.rng(BUNDLE_ID_SIZE))
    try:
        with _unfinished(dest) as folder:
            streams, digests = _write_body(folder, root, plan, params, sign_plaintext)
            manifest = _manifest(root, streams, params)
            data = manifest.to_bytes()
            parse_manifest(data)
            if isinstance(listing, DirectorySource):
                listing.confirm_unchanged()
            digest = Digest.sha256(data)
            stanzas = wrap_root(root, digest.value, params.not_after, recipients)
            _write_new(folder / DIGESTS_NAME, digests)
            _write_new(folder / MANIFEST_NAME, data)
            grants = Recipients(manifest.bundle_id, digest.hex, 0, stanzas)
            _write_new(folder / RECIPIENTS_NAME, grants.to_bytes())
            _write_new(folder / SIGNATURE_NAME, finish(data))
    finally:
        root.wipe()
    return SealedBundle(dest, manifest, digest)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A source file and the plaintext sizes of its streams; ``head`` says that the first is a safetensors head."""

    file: SourceFile
    sizes: tuple[int, ...]
    head: bool


def _plan(file: SourceFile) -> _Planned:
    if not file.path.endswith(_SAFETENSORS):
        return _Planned(file, cut(file.size), head=False)
    with file.open() as reader:
        header = read_head(reader, file.size, what=file.path)
    return _Planned(file, cut_safetensors(file.size, header.data_offset), head=True)


def _check_plan(plan: Sequence[_Planned], params: SealParams) -> None:
    if not plan:
        raise InvalidInput("the source holds no file to seal")
    check_paths(planned.file.path for planned in plan)
    streams = 1 + sum(len(planned.sizes) for planned in plan)
    if streams > MAX_STREAMS:
        raise InvalidInput(f"the source needs {streams} streams, a bundle has at most {MAX_STREAMS}")
    if not re.match(LINEAGE, params.lineage):
        raise InvalidInput(
            f"lineage: expected 1 to 200 of the characters a-z, 0-9 and . _ / -, found {params.lineage[:80]!r}",
            next_step="choose another --lineage",
        )
    if params.not_after is not None and params.not_after <= params.clock():
        raise InvalidInput("the release would end before it begins", next_step="choose a later end")


def _write_body(
    folder: Path,
    root: ReleaseRoot,
    plan: Sequence[_Planned],
    params: SealParams,
    sign_plaintext: Callable[[Sequence[FileDigest]], JsonValue] | None,
) -> tuple[tuple[StreamEntry, ...], bytes]:
    """Write all streams, the index last; return the manifest's entries and the bytes of ``digests.bin``."""
    (folder / BODY_NAME).mkdir()
    with BodyWriter(folder, root, params.segment_hash, workers=params.workers, rng=params.rng) as body:
        files: list[IndexFile] = []
        total, done, number = sum(planned.file.size for planned in plan), 0, 1
        for planned in plan:
            params.progress("seal", done, total)
            files.append(_write_file(body, planned, number, params))
            number += len(planned.sizes)
            done += planned.file.size
        digests = [FileDigest(file.path, file.size, file.blake3, file.sha256) for file in files]
        oms = None if sign_plaintext is None else sign_plaintext(digests)
        index = SealedIndex(INDEX_FORMAT, tuple(files), oms, {}).to_bytes()
        if len(index) > MAX_INDEX:
            raise InvalidInput(f"the sealed index needs {len(index)} bytes, a bundle has at most {MAX_INDEX}")
        pieces = memoryview(index)
        offset = 0

        def next_piece(count: int) -> bytes:
            nonlocal offset
            offset += count
            return bytes(pieces[offset - count : offset])

        body.write(0, len(index), next_piece)
        written = body.finish()
        params.progress("seal", total, total)
    sync_folder(folder / BODY_NAME)
    return written


def _write_file(body: BodyWriter, planned: _Planned, number: int, params: SealParams) -> IndexFile:
    """Write the streams of one file, numbered from ``number``, and return its entry of the index."""
    file = planned.file
    with file.open() as opened:
        reader = _HashingReader(opened, file.path, sha256=params.plaintext_sha256)
        for position, size in enumerate(planned.sizes):
            body.write(number + position, size, reader.read)
        reader.expect_end()
    return IndexFile(
        path=file.path,
        size=file.size,
        streams=tuple(range(number, number + len(planned.sizes))),
        blake3=reader.blake3.digest().hex(),
        sha256=reader.sha256.digest().hex() if reader.sha256 is not None else None,
        type="safetensors" if planned.head else "file",
        head=number if planned.head else None,
    )


class _HashingReader:
    """Reads a file in exact pieces and hashes them on the way."""

    def __init__(self, reader: BinaryIO, path: str, *, sha256: bool) -> None:
        self._reader = reader
        self._path = path
        self.blake3 = Hasher("blake3")
        self.sha256 = Hasher("sha256") if sha256 else None

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes; fewer means that the file changed."""
        data = self._reader.read(count)
        while len(data) < count:
            more = self._reader.read(count - len(data))
            if not more:
                raise source_changed(self._path)
            data += more
        self.blake3.update(data)
        if self.sha256 is not None:
            self.sha256.update(data)
        return data

    def expect_end(self) -> None:
        """Check that no byte follows."""
        if self._reader.read(1):
            raise source_changed(self._path)


def _manifest(root: ReleaseRoot, streams: tuple[StreamEntry, ...], params: SealParams) -> Manifest:
    return Manifest(
        format=FORMAT,
        bundle_id=root.bundle_id.hex(),
        created=format_time(params.clock()),
        kind=params.kind,
        lineage=params.lineage,
        release_number=params.release_number,
        not_after=None if params.not_after is None else format_time(params.not_after),
        cipher=ONLY_CIPHER,
        segment_hash=params.segment_hash,
        root_commitment=root.commitment().hex(),
        streams=streams,
        base_model=params.base_model,
        commitments=params.commitments,
        quorum=params.quorum,
        summary=None if params.summary is None else dict(params.summary),
    )


@contextmanager
def _unfinished(dest: Path) -> Iterator[Path]:
    """Yield the new directory ``dest.partial``; rename it to ``dest`` at the end, or remove it on failure."""
    partial = dest.with_name(dest.name + PARTIAL_SUFFIX)
    if dest.exists() or dest.is_symlink():
        raise Conflict(f"{dest}: exists already", next_step="choose another name, or remove it")
    try:
        partial.mkdir()
    except FileExistsError as error:
        raise Conflict(
            f"{partial}: exists already",
            why="another sealing runs, or one was interrupted",
            next_step="remove it if no other sealing runs",
        ) from error
    except OSError as error:
        raise StoreError(f"{partial}: cannot be made", why=os.strerror(error.errno or 0)) from error
    current = partial
    try:
        yield partial
        sync_folder(partial)
        current = partial.rename(dest)
        sync_folder(dest.parent)
    except BaseException as error:
        shutil.rmtree(current, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{dest}: sealing failed and was undone",
                why=os.strerror(error.errno or 0),
                next_step="free space or choose another place, and seal again",
            ) from error
        raise


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file durably."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
