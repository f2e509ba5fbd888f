"""The tokens of all records of a run, four bytes each: Python's own numbers take nine times as much."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from stanch.crypto import frame, sha256
from stanch.data import TokenRecord
from stanch.terms import Digest

_NUMBER = "<u4"


class _Packed(NamedTuple):
    ids: bytes
    span: tuple[int, int]
    skipped: bytes


class TokenTable(Mapping[str, TokenRecord]):
    """Records by id, in the order that they came in; each is unpacked when it is asked for.

    Args:
        records: The records; of two with one id the last stays.

    Attributes:
        longest: Tokens of the longest record, 0 without any.
    """

    def __init__(self, records: Iterable[TokenRecord]) -> None:
        self._packed: dict[str, _Packed] = {}
        self.longest = 0
        for record in records:
            self._packed[record.id] = _Packed(_pack(record.ids), record.span, _pack(record.skipped))
            self.longest = max(self.longest, len(record.ids))

    def __getitem__(self, record_id: str) -> TokenRecord:
        packed = self._packed[record_id]
        return TokenRecord(record_id, _unpack(packed.ids), packed.span, _unpack(packed.skipped))

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def digest(self) -> Digest:
        """SHA-256 over the framed digests of the records, sorted by id: of id, tokens, span and unlearned positions."""
        records = (
            sha256(frame(record_id.encode(), packed.ids, _pack(packed.span), packed.skipped))
            for record_id, packed in sorted(self._packed.items())
        )
        return Digest.sha256(frame(b"stanch/tune/v1/tokens", *records))


def _pack(numbers: tuple[int, ...]) -> bytes:
    return np.array(numbers, _NUMBER).tobytes()


def _unpack(data: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(data, _NUMBER).tolist())
