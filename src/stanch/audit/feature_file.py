"""Features of a shard of records as a file, ``leakfeat/v1``: safetensors that are named by what they are features of.

The name follows from model, tokenizer, decoding and records, so that an audit that was interrupted finds what it has
finished, and never takes the features of another model. Losses of each token are private: the caller keeps the bytes
as it keeps the data.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stanch.audit.codec import to_json
from stanch.audit.features import Adapter, Features, ScorerIdentity, record_digest
from stanch.audit.params import Decoding
from stanch.crypto import canonical_json
from stanch.data import TokenRecord
from stanch.errors import InvalidInput
from stanch.weights import build_head, parse_header

SCHEMA: Final = "leakfeat/v1"
SHARD_RECORDS: Final = 2048
_DIGEST = 32
_FIGURES = ("lp", "mu", "sigma", "lq")


@dataclass(frozen=True, slots=True)
class PassOf:
    """What a feature pass is of: the model, with its adapter on or off, and the decoding."""

    identity: ScorerIdentity
    adapter: Adapter
    decoding: Decoding

    def metadata(self, records: Sequence[TokenRecord]) -> dict[str, str]:
        """Return all that the features of ``records`` follow from."""
        identity = self.identity
        listed = hashlib.sha256(b"".join(map(record_digest, records)))
        return {
            "schema": SCHEMA,
            "model": identity.model,
            "base": identity.base,
            "tokenizer": identity.tokenizer,
            "dtype": identity.dtype,
            "engine": identity.engine,
            "adapter": self.adapter,
            "decoding": canonical_json(to_json(self.decoding)).decode(),
            "records": listed.hexdigest(),
        }

    def name(self, records: Sequence[TokenRecord]) -> str:
        """Return the file's name: the SHA-256 of the metadata."""
        return hashlib.sha256(canonical_json(dict(self.metadata(records)))).hexdigest() + ".leakfeat"


def cut_shards(records: Sequence[TokenRecord], size: int = SHARD_RECORDS) -> list[tuple[TokenRecord, ...]]:
    """Return the records in shards of ``size``, in the order of their digests; it does not matter who does a shard."""
    ordered = sorted(records, key=lambda record: (record_digest(record), record.id))
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def encode_features(passed: PassOf, records: Sequence[TokenRecord], found: Sequence[Features]) -> bytes:
    """Return the file of the features of ``records``; ``found`` has one for each, in any order."""
    by_id = {features.record_id: features for features in found}
    ordered = [by_id[record.id] for record in records]
    offsets = np.cumsum([0, *(features.lp.size for features in ordered)], dtype="<i8")
    columns = [np.concatenate([getattr(f, name) for f in ordered]).astype("<f4") for name in _FIGURES]
    hits = np.concatenate([features.hit for features in ordered]).astype("u1")
    body = b"".join(
        [
            offsets.tobytes(), *(column.tobytes() for column in columns), hits.tobytes(),
            *(record_digest(record) for record in records),
        ]
    )  # fmt: skip
    content = {"content": hashlib.sha256(body).hexdigest()}
    return build_head(_layout(len(records), int(offsets[-1])), passed.metadata(records) | content).head + body


def decode_features(data: bytes, passed: PassOf, records: Sequence[TokenRecord], *, what: str) -> list[Features]:
    """Read the features of ``records``, which must be the very ones of the file.

    Raises:
        InvalidInput: It is no such file, is damaged, or is of another model or other records.
    """
    length = min(int.from_bytes(data[:8], "little"), len(data))
    header = parse_header(data[: 8 + length], what=what)
    body = memoryview(data)[header.data_offset :]
    content = {"content": hashlib.sha256(body).hexdigest()}
    if dict(header.metadata) != passed.metadata(records) | content:
        raise InvalidInput(f"{what}: the features are of another model or other records, or are damaged")
    sizes = [record.span[1] - record.span[0] for record in records]
    offsets = np.cumsum([0, *sizes], dtype="<i8")
    layout = [(t.name, t.dtype, t.shape) for t in header.tensors]
    if layout != _layout(len(records), int(offsets[-1])) or header.data_size != len(body):
        raise InvalidInput(f"{what}: not the tensors of {SCHEMA}")
    parts = {t.name: body[t.start : t.end] for t in header.tensors}
    if parts["offsets"] != offsets.tobytes() or parts["records"] != b"".join(map(record_digest, records)):
        raise InvalidInput(f"{what}: the features are of other records")
    columns = [np.frombuffer(parts[name], "<f4") for name in _FIGURES]
    hits = np.frombuffer(parts["hit"], "u1") != 0
    bounds = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    return [
        Features(
            record.id, record.span[0],
            columns[0][low:high], columns[1][low:high], columns[2][low:high], hits[low:high], columns[3][low:high],
        )
        for record, (low, high) in zip(records, bounds, strict=True)
    ]  # fmt: skip


def _layout(records: int, tokens: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return name, type and shape of each tensor, in the order of the file."""
    return [
        ("offsets", "I64", (records + 1,)),
        *((name, "F32", (tokens,)) for name in _FIGURES),
        ("hit", "U8", (tokens,)),
        ("records", "U8", (records, _DIGEST)),
    ]
