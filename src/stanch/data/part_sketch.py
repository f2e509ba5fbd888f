"""What near-duplicates are found by, for one part of a dataset: a pure function of its rows."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np
import orjson

from stanch.data.dataset import Dataset
from stanch.data.record_names import name_bytes
from stanch.data.shingles import compared_texts, flat_shingles, folded_text
from stanch.data.sketches import Sketcher
from stanch.data.stage import Numbered, SharedDataset, StageSecrets

DIGEST = 16
_BATCH = 1024


class PartSketches(msgspec.Struct, frozen=True, array_like=True):
    """The records of one part, one after the other, in little-endian bytes.

    Attributes:
        names: Ids, as :func:`stanch.data.record_names.name_bytes` returns them.
        texts: Digests of the texts as they stand, 16 bytes each.
        digests: Digests of the folded texts, 16 bytes each.
        counts: Numbers of shingles (int64).
        hashes: Hashes of the shingles (uint64).
        sketches: Sketches (uint32).
    """

    names: bytes
    texts: bytes
    digests: bytes
    counts: bytes
    hashes: bytes
    sketches: bytes


@dataclass(frozen=True, slots=True)
class SketchJob:
    """See :class:`stanch.data.stage.Job`."""

    dataset: Dataset
    num_perm: int

    def here(self) -> "PartSketcher":
        """Return what sketches parts in this process."""
        return PartSketcher(self.dataset, self.num_perm)

    def task(self) -> "SketchTask":
        """Return what another process needs beside the secrets."""
        return SketchTask(SharedDataset.of(self.dataset), self.num_perm)

    def secrets(self) -> StageSecrets:
        """Return what another process must hold: the dataset key, for the ids."""
        return StageSecrets(dataset_key=self.dataset.key)


@dataclass(frozen=True, slots=True)
class SketchTask:
    """See :class:`stanch.data.stage.Task`."""

    dataset: SharedDataset
    num_perm: int

    def open(self, secrets: StageSecrets) -> "PartSketcher":
        """Open the dataset."""
        return PartSketcher(self.dataset.open(secrets.dataset_key), self.num_perm)


class PartSketcher:
    """Sketches parts of one dataset."""

    def __init__(self, dataset: Dataset, num_perm: int) -> None:
        self._dataset, self._sketcher = dataset, Sketcher(num_perm)

    def __call__(self, numbered: Numbered) -> bytes:
        """Return the :class:`PartSketches` of a part in MessagePack."""
        names, texts = bytearray(), bytearray()
        keyed = self._dataset.key is not None

        def views() -> Iterator[bytes]:
            for record, _, _ in self._dataset.entries(numbered[1]):
                names.extend(name_bytes(record, keyed=keyed))
                texts.extend(_digest(orjson.dumps(compared_texts(record))))
                yield folded_text(record)

        rest, batches = views(), []
        while batch := list(islice(rest, _BATCH)):
            batches.append(sketch_batch(self._sketcher, batch))
        columns = (b"".join(column) for column in zip(*batches, strict=True)) if batches else (b"",) * 4
        return msgspec.msgpack.encode(PartSketches(bytes(names), bytes(texts), *columns))


def sketch_batch(sketcher: Sketcher, views: Sequence[bytes]) -> tuple[bytes, bytes, bytes, bytes]:
    """Return digests, counts, hashes and sketches of folded texts, as in :class:`PartSketches`; at least one text."""
    digests = b"".join(map(_digest, views))
    hashes, counts = flat_shingles(views)
    sketches = sketcher.sketch(hashes, counts)
    sizes, found, made = (np.ascontiguousarray(column).tobytes() for column in (counts, hashes, sketches))
    return digests, sizes, found, made


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
