"""The file ``stanch/span-index/v1`` (``docs/spec/span-index.md``, section 4): write it whole, read it verified."""

import hashlib
import hmac
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from stanch.crypto import canonical_json, hkdf_sha256, parse_json, write_atomic
from stanch.errors import InvalidInput, VerificationError
from stanch.scan.fold import FOLD
from stanch.scan.spans.bloom import BlockedBloom
from stanch.scan.spans.params import IndexParams
from stanch.terms import JsonValue

MAGIC = b"STXIDX\0\1"
_DATA = 4096
_MAC = 32
_BLOCK = 64


class Boilerplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many texts a window may stand in, and how many windows were left out for standing in more."""

    after: int
    left_out: int


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says about itself; every field is required and no other is allowed."""

    fold: str
    k: int
    stride: int
    bits: int
    blocks: int
    keys: int
    records: int
    chars: int
    salt: str
    key_id: str
    dataset_root: str
    fill_fp: float
    boilerplate: Boilerplate | None

    @property
    def params(self) -> IndexParams:
        """The parameters that the index was built with."""
        return IndexParams(self.k, self.stride, self.bits, self.boilerplate.after if self.boilerplate else None)


@dataclass(frozen=True, slots=True)
class IndexContent:
    """A verified header and the filter behind it."""

    header: Header
    filter: BlockedBloom


def key_id(key: bytes) -> str:
    """Return the public name of an index key: eight bytes of HMAC-SHA256 over ``stanch/index-key-id/v1``, in hex."""
    return hmac.digest(key, b"stanch/index-key-id/v1", "sha256")[:8].hex()


def _mac_key(key: bytes, salt: bytes) -> bytes:
    return hkdf_sha256(key, info=b"stanch/index-mac/v1", length=32, salt=salt)


def index_bytes(content: IndexContent, key: bytes) -> bytes:
    """Return the file as bytes.

    Raises:
        InvalidInput: The header does not fit.
    """
    document: JsonValue = msgspec.to_builtins(content.header)
    header = canonical_json(document)
    if 12 + len(header) > _DATA:
        raise InvalidInput(f"span index: the header has {len(header)} bytes, expected at most {_DATA - 12}")
    head = (MAGIC + len(header).to_bytes(4, "little") + header).ljust(_DATA, b"\0")
    body = head + np.ascontiguousarray(content.filter.words).tobytes()
    return body + hmac.digest(_mac_key(key, bytes.fromhex(content.header.salt)), body, "sha256")


def write_index(path: Path, content: IndexContent, key: bytes) -> None:
    """Write the file, readable by its owner only; it appears whole or not at all.

    Raises:
        InvalidInput: The header does not fit, or the folder cannot be written.
    """
    write_atomic(path, index_bytes(content, key), mode=0o600)


def read_index(path: Path, key: bytes) -> IndexContent:
    """Map a file and verify all of it before anything is used.

    Raises:
        InvalidInput: The file cannot be opened.
        VerificationError: As :func:`parse_index`.
    """
    try:
        with path.open("rb") as file:
            # An empty file cannot be mapped; nothing is verified as it.
            empty = os.fstat(file.fileno()).st_size == 0
            view = memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=os.strerror(error.errno or 0)) from error
    return parse_index(view, key, what=str(path))


def parse_index(view: memoryview, key: bytes, *, what: str) -> IndexContent:
    """Verify all of a file's bytes before anything of them is used; the filter stays where the bytes are.

    Raises:
        VerificationError: Wrong magic, version, length, key or content; unknown or missing header field.
    """
    size = len(view)
    if size < _DATA + _BLOCK + _MAC:
        raise VerificationError(f"{what}: not a span index, or cut short ({size} bytes)")
    header = _header(what, bytes(view[:_DATA]))
    if header.key_id != key_id(key):
        raise VerificationError(
            f"{what}: made with another key ({header.key_id})", next_step="open it with its own key"
        )
    if size != _DATA + _BLOCK * header.blocks + _MAC:
        raise VerificationError(f"{what}: expected {_DATA + _BLOCK * header.blocks + _MAC} bytes, found {size}")
    mac = hmac.new(_mac_key(key, bytes.fromhex(header.salt)), view[:-_MAC], hashlib.sha256).digest()
    if not hmac.compare_digest(mac, view[-_MAC:]):
        raise VerificationError(
            f"{what}: the file was changed after it was written", why="its authentication code differs"
        )
    words = np.frombuffer(view[_DATA:-_MAC], dtype="<u8").reshape(-1, 8)
    return IndexContent(header, BlockedBloom(words))


def _header(what: str, head: bytes) -> Header:
    """Read the header block; its content is only trusted once the code over the whole file is checked."""
    length = int.from_bytes(head[8:12], "little")
    if head[:8] != MAGIC or length > _DATA - 12 or head[12 + length :].strip(b"\0"):
        raise VerificationError(f"{what}: not a span index of version 1")
    try:
        parsed = parse_json(head[12 : 12 + length], what=f"{what}: header")
        header = msgspec.convert(parsed, type=Header, strict=True)
        sound = len(bytes.fromhex(header.salt)) == 16 and 1 <= header.blocks < 2**32 and header.params.k == header.k
    except (InvalidInput, msgspec.ValidationError, ValueError) as error:
        raise VerificationError(f"{what}: the header is malformed", why=str(error)[:200]) from error
    if header.fold != FOLD:
        raise VerificationError(
            f"{what}: made with another version of folding than {FOLD}",
            why="texts are folded otherwise now, and would not be found in it",
            next_step="build the index again from the data set",
        )
    if not sound or canonical_json(parsed) != head[12 : 12 + length]:
        raise VerificationError(f"{what}: the header is not in canonical form")
    return header
