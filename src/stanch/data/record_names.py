"""Ids of many records, kept as bytes on disk and put together only for the records that are named in the end."""

import base64
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from stanch.data.record import Record

NAME_SIZE = 20
"""Bytes of a keyed id without its number."""

LINE_SIZE = 8
"""Bytes of the number that is the id of a record without a key."""

_BLOCK = 1 << 16

Bytes = npt.NDArray[np.uint8]


def name_bytes(record: Record, *, keyed: bool) -> bytes:
    """Return the id of a record without what tells repeats apart: 20 bytes with a dataset key, otherwise 8."""
    name = record.id.partition("-")[0]
    return base64.b32decode(name) if keyed else int(name[1:]).to_bytes(LINE_SIZE, "little")


def shown_names(names: Bytes, wanted: Collection[int]) -> dict[int, str]:
    """Return the ids of the records at the ``wanted`` positions, repeats numbered from 2 as the dataset does.

    Args:
        names: What :func:`name_bytes` returned of every record, one row each.
        wanted: Positions of records.
    """
    if names.shape[1] == LINE_SIZE:
        return {place: f"r{int.from_bytes(names[place].tobytes(), 'little')}" for place in wanted}
    counts = dict.fromkeys((names[place].tobytes() for place in wanted), 0)
    shown = {}
    for start in range(0, len(names), _BLOCK):
        block = np.ascontiguousarray(names[start : start + _BLOCK]).view(f"V{NAME_SIZE}").ravel().tolist()
        for place, name in enumerate(block, start):
            if name in counts:
                counts[name] += 1
                if place in wanted:
                    text = base64.b32encode(name).decode()
                    shown[place] = text if counts[name] == 1 else f"{text}-{counts[name]}"
    return shown
