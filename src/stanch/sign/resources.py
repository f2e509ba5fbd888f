"""The predicate of a model signature: how a directory was cut into resources, and the digest of each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stanch.crypto import FileHashName
from stanch.errors import InvalidInput
from stanch.sign.files import Piece
from stanch.terms import JsonValue
from stanch.weights import check_paths

_SIZES: dict[FileHashName, int] = {"sha256": 32, "blake2b": 64, "blake3": 32}
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_SHARD = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,18}):(?P<end>[1-9][0-9]{0,18})", re.DOTALL)
_MAX_RESOURCES = 1_000_000
_MAX_SHARD = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Serialization:
    """How a directory was cut: by ``files``, or by ``shards`` of ``shard_size`` bytes; and what was left out."""

    method: str
    hash: FileHashName
    shard_size: int | None
    ignore_paths: tuple[str, ...]

    @property
    def algorithm(self) -> str:
        """What each resource calls its digest."""
        return self.hash if self.shard_size is None else f"{self.hash}-sharded-{self.shard_size}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A piece of a file and its digest."""

    piece: Piece
    digest: bytes


def write_resources(serialization: Serialization, resources: Sequence[Resource]) -> dict[str, JsonValue]:
    """Return the predicate for whole files."""
    return {
        "serialization": {
            "method": serialization.method,
            "hash_type": serialization.hash,
            "allow_symlinks": False,
            "ignore_paths": list(serialization.ignore_paths),
        },
        "resources": [
            {"name": resource.piece.path, "algorithm": serialization.algorithm, "digest": resource.digest.hex()}
            for resource in resources
        ],
    }


def read_resources(predicate: dict[str, JsonValue]) -> tuple[Serialization, tuple[Resource, ...]]:
    """Read the predicate strictly. Fields beside the two of version 1.0 are ignored, as that version demands.

    Raises:
        InvalidInput: A rule of the format is broken: another method or hash, a digest of another kind, a name twice or
            one that escapes the directory, shards that do not cover a file from its start without hole or overlap.
    """
    listed = predicate.get("resources")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_RESOURCES:
        raise _malformed(f"expected 1 to {_MAX_RESOURCES} resources")
    serialization = _read_serialization(predicate.get("serialization"))
    resources = tuple(_read_resource(item, serialization) for item in listed)
    ends: dict[str, int] = {}
    for resource in sorted(resources, key=lambda item: (item.piece.path, item.piece.start)):
        piece = resource.piece
        if piece.end is None:
            if piece.path in ends:
                raise _malformed("a name stands twice")
            ends[piece.path] = 0
            continue
        if piece.start != ends.get(piece.path, 0) or piece.start % (serialization.shard_size or 1):
            raise _malformed("the shards of a file leave a hole or overlap")
        ends[piece.path] = piece.end
    check_paths(ends)
    return serialization, resources


def _read_serialization(value: JsonValue) -> Serialization:
    match value:
        case {
            "method": ("files" | "shards") as method,
            "hash_type": ("sha256" | "blake2b" | "blake3") as name,
            # A link is refused wherever one lies, so what the signer allowed does not matter.
            "allow_symlinks": bool(),
            **others,
        }:
            ignored = others.get("ignore_paths", [])
            if isinstance(ignored, list):
                size = _read_size(others.get("shard_size")) if method == "shards" else None
                return Serialization(method, name, size, tuple(item for item in ignored if isinstance(item, str)))
    raise _malformed("unknown serialization")


def _read_size(value: object) -> int:
    # Protocol buffers write every number as a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= _MAX_SHARD or value % 1:
        raise _malformed("shard_size is not a positive integer")
    return int(value)


def _read_resource(value: JsonValue, serialization: Serialization) -> Resource:
    match value:
        case {"name": str(name), "algorithm": str(algorithm), "digest": str(text), **extra} if not extra:
            if algorithm != serialization.algorithm or not _HEX.fullmatch(text):
                raise _malformed("a resource has a digest of another kind")
            digest = bytes.fromhex(text)
            if len(digest) != _SIZES[serialization.hash]:
                raise _malformed("a resource has a digest of another length")
            return Resource(_read_piece(name, serialization), digest)
    raise _malformed("a resource needs name, algorithm and digest")


def _read_piece(name: str, serialization: Serialization) -> Piece:
    if serialization.shard_size is None:
        return Piece(name)
    if (found := _SHARD.fullmatch(name)) is None:
        raise _malformed("a shard's name is not path:start:end")
    start, end = int(found["start"]), int(found["end"])
    if not start < end <= min(start + serialization.shard_size, _MAX_SHARD):
        raise _malformed("a shard has another length than shard_size")
    return Piece(found["path"], start, end)


def _malformed(why: str) -> InvalidInput:
    return InvalidInput("not a model signature that this release reads", why=why)
