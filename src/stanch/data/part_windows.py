"""What the span index is made of, for one part of a dataset: pure functions of its rows."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np

from stanch.crypto import hkdf_sha256, hmac_sha256
from stanch.data.dataset import Dataset, canonical_row
from stanch.data.rows import Range
from stanch.data.stage import Numbered, SharedDataset, StageSecrets
from stanch.errors import InvalidInput
from stanch.scan import IndexParams, fold_text
from stanch.scan.spans.building import IndexKey
from stanch.scan.spans.rolling import Hashes

DIGEST = 16


class PartWindows(msgspec.Struct, frozen=True, array_like=True):
    """The texts of one part, in little-endian bytes.

    Attributes:
        texts: A keyed digest of each folded text, 16 bytes each.
        sizes: The lengths of the folded texts (int64).
        windows: The windows that are indexed, two halves each (uint64).
        leaves: With a dataset key, the SHA-256 of each canonical row.
    """

    texts: bytes
    sizes: bytes
    windows: bytes
    leaves: bytes


class PartCounts(msgspec.Struct, frozen=True, array_like=True):
    """Which windows stand in one part, by number, and in how many of its texts each (both int64)."""

    numbers: bytes
    texts: bytes


@dataclass(frozen=True, slots=True)
class Counting:
    """What the second pass counts.

    Attributes:
        keys: First halves of the windows, sorted.
        first: For each part by number, which of its texts stands nowhere before: one byte each.
    """

    keys: Hashes = field(repr=False)
    first: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class WindowJob:
    """See :class:`stanch.data.stage.Job`; with ``counting`` the second pass, otherwise the first."""

    dataset: Dataset
    secret: IndexKey
    counting: Counting | None = None

    def here(self) -> "PartWindower":
        """Return what indexes parts in this process."""
        return PartWindower(self.dataset, self.secret, self.counting)

    def task(self) -> "WindowTask":
        """Return what another process needs beside the secrets."""
        secret = self.secret
        return WindowTask(
            SharedDataset.of(self.dataset), secret.salt, secret.params, _check_value(secret.key), self.counting
        )

    def secrets(self) -> StageSecrets:
        """Return what another process must hold."""
        return StageSecrets(dataset_key=self.dataset.key, index_key=self.secret.key)


@dataclass(frozen=True, slots=True)
class WindowTask:
    """See :class:`stanch.data.stage.Task`."""

    dataset: SharedDataset
    salt: bytes
    params: IndexParams
    key_check: str
    counting: Counting | None

    def open(self, secrets: StageSecrets) -> "PartWindower":
        """Open the dataset."""
        key = secrets.index_key or b""
        if not hmac.compare_digest(_check_value(key), self.key_check):
            raise InvalidInput("span index: the index key here is not the one of the task")
        dataset = self.dataset.open(secrets.dataset_key)
        return PartWindower(dataset, IndexKey(key, self.salt, self.params), self.counting)


class PartWindower:
    """Finds or counts the windows of parts of one dataset."""

    def __init__(self, dataset: Dataset, secret: IndexKey, counting: Counting | None) -> None:
        self._dataset, self._secret, self._counting = dataset, secret, counting
        self._digest_key = hkdf_sha256(secret.key, info=b"stanch/index-text/v1", length=32, salt=secret.salt)

    def __call__(self, numbered: Numbered) -> bytes:
        """Return :class:`PartWindows` or :class:`PartCounts` of a part in MessagePack."""
        number, part = numbered
        if self._counting is None:
            return msgspec.msgpack.encode(self._find(part))
        first = self._counting.first[number]
        folded = [text for text, new in zip(self._folded(part, []), first, strict=True) if new]
        numbers, texts = self._secret.windows(folded).held(self._counting.keys)
        return msgspec.msgpack.encode(PartCounts(numbers.tobytes(), texts.tobytes()))

    def _find(self, part: Range) -> PartWindows:
        leaves: list[bytes] = []
        folded = list(self._folded(part, leaves))
        digests = (hashlib.blake2b(text, digest_size=DIGEST, key=self._digest_key).digest() for text in folded)
        return PartWindows(
            b"".join(digests),
            np.array([len(text) for text in folded], dtype="<i8").tobytes(),
            self._secret.sampled(list(dict.fromkeys(folded))).tobytes(),
            b"".join(leaves),
        )

    def _folded(self, part: Range, leaves: list[bytes]) -> Iterator[bytes]:
        keyed = self._dataset.key is not None and self._counting is None
        for record, _, row in self._dataset.entries(part):
            if keyed:
                leaves.append(hashlib.sha256(canonical_row(row)).digest())
            yield from (fold_text(text.text, "index") for text in record.fields)


def _check_value(key: bytes) -> str:
    """Return what tells without the index key whether two holders have the same one."""
    return hmac_sha256(key, b"stanch/index-key-check/v1").hex()
