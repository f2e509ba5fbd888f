"""Fills the keyed span index from a dataset, and keeps it in sealed bundles."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stanch.crypto.stanza import KeyProvider
from stanch.data.dataset import Dataset
from stanch.data.tree import dataset_root
from stanch.scan import STANDARD, IndexParams, Layout, SpanIndex
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
) -> SpanIndex:
    """Index every string of every row, each on its own, so that no window runs over a border.

    The header names the dataset's salted root if it was opened with its key and the index is no part of a larger one.
    Strings shorter than a window once folded are not covered.

    Args:
        dataset: The dataset.
        key: The index key, 32 bytes: one for each dataset and model, and not the dataset key.
        params: Window, stride and size.
        public: Texts that everybody has; their windows are left out.
        layout: Salt and size, if this is one of several parts that :meth:`SpanIndex.merge` will join.

    Raises:
        InvalidInput: A row cannot be read, the key is not 32 bytes, or the layout has too little room.
    """
    root = dataset_root(dataset, dataset.key) if dataset.key is not None and layout is None else ""
    texts = (field.text for record in dataset for field in record.fields)
    return SpanIndex.build(texts, key=key, params=params, dataset_root=root, public=public, layout=layout)


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
