"""Goldfish loss (Hans et al., NeurIPS 2024, arXiv 2406.10209): some tokens are never learned.

A label is left out when a keyed hash of the 13 tokens before it says so. The same text loses the same tokens in every
copy, and who does not hold the key cannot tell which. It lowers verbatim memory; it carries no guarantee and does not
stop membership inference.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from stanch.crypto import hkdf_sha256
from stanch.data import TokenRecord

_CONTEXT = 13
_KEY_INFO = b"stanch/tune/v1/goldfish"
_PERSON = b"stanch/goldfish1"


@dataclass(frozen=True, slots=True)
class Goldfish:
    """Leaves out about one label in ``every``, chosen by ``key``."""

    key: bytes = field(repr=False)
    every: int = 4

    @classmethod
    def of(cls, dataset_key: bytes | None, every: int) -> Self:
        """Derive the key from the key of the dataset."""
        return cls(hkdf_sha256(dataset_key or b"", info=_KEY_INFO, length=32), every)

    def forgotten(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the positions whose labels are left out; never one of the first 13."""
        coded = np.asarray(ids, dtype="<u4").tobytes()
        return tuple(place for place in range(_CONTEXT, len(ids)) if self._drops(coded, place))

    def apply(self, record: TokenRecord) -> TokenRecord:
        """Return the record without the labels that are left out."""
        first, last = record.span
        skipped = {*record.skipped, *(place for place in self.forgotten(record.ids) if first <= place < last)}
        return replace(record, skipped=tuple(sorted(skipped)))

    def _drops(self, coded: bytes, place: int) -> bool:
        context = coded[4 * (place - _CONTEXT) : 4 * place]
        digest = hashlib.blake2b(context, digest_size=8, key=self.key, person=_PERSON).digest()
        return int.from_bytes(digest, "little") % self.every == 0
