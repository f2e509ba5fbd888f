"""Fills the keyed span index from a dataset, and keeps it in sealed bundles."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from stanch.crypto import random_bytes
from stanch.crypto.stanza import KeyProvider
from stanch.data.dataset import Dataset
from stanch.data.engines import LOCAL, Engine, in_order
from stanch.data.part_windows import DIGEST, Counting, PartCounts, PartWindows, WindowJob
from stanch.data.tree import RootBuilder
from stanch.scan import STANDARD, IndexParams, Layout, SpanIndex
from stanch.scan.spans.building import Gathered, IndexKey
from stanch.scan.spans.layout import SALT_SIZE
from stanch.seal import MemorySource, OpenBundle, SealedBundle, SealParams, seal

INDEX_NAME = "train.spans"
"""Name of the index file in a sealed bundle."""


def build_index(
    dataset: Dataset,
    *,
    key: bytes,
    params: IndexParams = STANDARD,
    public: Iterable[str] = (),
    layout: Layout | None = None,
    engine: Engine = LOCAL,
) -> SpanIndex:
    """Index every string of every row, each on its own, so that no window runs over a border.

    The header names the dataset's salted root if it was opened with its key and the index is no part of a larger one.
    Strings shorter than a window once folded are not covered. The dataset is read twice, the second time to count in
    how many texts a window stands. Memory grows by 16 bytes a string, and 24 bytes a window (one for about 25
    characters), of which every process of the second pass holds 8; no text is held beyond a part.

    Args:
        dataset: The dataset.
        key: The index key, 32 bytes: one for each dataset and model, and not the dataset key.
        params: Window, stride and size.
        public: Texts that everybody has; their windows are left out.
        layout: Salt and size, if this is one of several parts that :meth:`SpanIndex.merge` will join.
        engine: Who reads the parts.

    Raises:
        InvalidInput: A row cannot be read, the key is not 32 bytes, or the layout has too little room.
    """
    secret = IndexKey(key, random_bytes(SALT_SIZE) if layout is None else layout.salt, params)
    parts = tuple(enumerate(dataset.file.parts()))
    root = None if dataset.key is None or layout is not None else RootBuilder(dataset.key)
    digests, texts, chars = bytearray(), [0], bytearray()
    windows = []
    for body in in_order(engine.run(WindowJob(dataset, secret), parts), parts):
        part = msgspec.msgpack.decode(body, type=PartWindows)
        digests += part.texts
        chars += part.sizes
        texts.append(len(digests) // DIGEST)
        windows.append(np.frombuffer(part.windows, "<u8").reshape(-1, 2))
        if root is not None:
            root.add(part.leaves)
    # Copies of a text count once: a row that was stored ten times is what a model recites first, not boilerplate.
    first = np.unique(np.frombuffer(digests, f"V{DIGEST}"), return_index=True)[1]
    sizes = np.frombuffer(chars, "<i8")
    gathered = Gathered.of(windows, records=len(first), chars=int(sizes[first].sum()))
    if params.boilerplate_after is not None:
        new = np.zeros(len(sizes), np.uint8)
        new[first] = 1
        counting = Counting(gathered.keys, tuple(new[low:high].tobytes() for low, high in pairwise(texts)))
        for _, body in engine.run(WindowJob(dataset, secret, counting), parts):
            counts = msgspec.msgpack.decode(body, type=PartCounts)
            gathered.count(np.frombuffer(counts.numbers, "<i8"), np.frombuffer(counts.texts, "<i8"))
    dataset_root = "" if root is None else root.root()
    return SpanIndex.assemble(secret, gathered, dataset_root=dataset_root, public=public, layout=layout)


def seal_index(
    index: SpanIndex,
    dest: Path,
    recipients: Sequence[KeyProvider],
    params: SealParams,
    finish: Callable[[bytes], bytes],
) -> SealedBundle:
    """Seal the index into the new directory ``dest``; the file itself is never on a disk. As :func:`stanch.seal.seal`.

    Raises:
        InvalidInput: Bad parameters.
        Conflict: ``dest`` or its ``.partial`` exists.
        StoreError: The destination cannot be written.
    """
    return seal(MemorySource({INDEX_NAME: index.to_bytes()}), dest, recipients, params, finish)


def open_sealed_index(bundle: OpenBundle, key: bytes) -> SpanIndex:
    """Read the index out of an opened bundle into memory, and verify it.

    Raises:
        NotFound: The bundle holds no index.
        Tampered: A segment does not match its signed digest.
        VerificationError: It is not a span index, or made with another key.
    """
    return SpanIndex.from_buffer(bundle.read(INDEX_NAME), key, what=INDEX_NAME)
