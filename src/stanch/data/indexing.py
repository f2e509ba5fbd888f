"""Fills the keyed span index from a dataset."""

from stanch.data.dataset import Dataset
from stanch.data.tree import dataset_root
from stanch.scan import STANDARD, IndexParams, SpanIndex


def build_index(dataset: Dataset, *, key: bytes, params: IndexParams = STANDARD) -> SpanIndex:
    """Index every string of every row, each on its own, so that no window runs over a border.

    The header names the dataset's salted root if it was opened with its key. Strings shorter than a window once folded
    are not covered.

    Args:
        dataset: The dataset.
        key: The index key, 32 bytes: one for each dataset and model, and not the dataset key.
        params: Window, stride and size.

    Raises:
        InvalidInput: A row cannot be read, or the key is not 32 bytes.
    """
    root = dataset_root(dataset, dataset.key) if dataset.key is not None else ""
    texts = (field.text for record in dataset for field in record.fields)
    return SpanIndex.build(texts, key=key, params=params, dataset_root=root)
