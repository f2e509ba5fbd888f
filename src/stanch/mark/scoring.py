"""Scores: the correlation of features with a key's values, over all coordinates or over a keyed stratum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt

from stanch.crypto import aes_ctr_into
from stanch.mark.buffers import Buffers
from stanch.mark.features import FeatureSet
from stanch.mark.kernels import COMPILER, LANES
from stanch.mark.signature import (
    GROUP,
    Draws,
    Indexes,
    counter_blocks,
    gaussian_table,
    look_up,
    scattered_indexes,
    signature_values,
)
from stanch.mark.sums import add_in_pairs
from stanch.mark.threads import run_each

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

BLOCK = 1 << 16
"""Coordinates whose products are summed in float32; the sums of blocks are added in float64, in order."""

# Coordinates and streams of one task: handing single blocks to a thread costs a good part of what scoring them does.
_TASK = 1 << 20
_STREAMS_A_TASK = 16
_DRAWS = 1 << 20
_DRAWS_A_BLOCK = 4
_buffers = Buffers()


def correlate(features: Floats, indexes: Indexes) -> float:
    """Return ``Σ f x`` of at most :data:`BLOCK` features with the values at table indexes.

    The products are added to :data:`stanch.mark.kernels.LANES` sums in turn, in float32; these are added in pairs in
    float64. So the result is the same compiled and in numpy.
    """
    loops = COMPILER.loops(len(indexes))
    if loops is not None:
        return loops.correlate(features, indexes, gaussian_table())
    products = look_up(indexes, _buffers.get("values", np.float32, len(indexes)))
    products *= features
    whole = len(products) - len(products) % LANES
    lanes = products[:whole].reshape(-1, LANES).sum(axis=0)
    lanes[: len(products) - whole] += products[whole:]
    return float(add_in_pairs(lanes.astype(np.float64)))


def score(features: FeatureSet, streams: Sequence[bytes], *, threads: int = 1) -> Doubles:
    """Return ``z = Σ f x / √Σ f²`` for each stream; 0 where the suspect shows nothing.

    The result does not depend on ``threads``.
    """
    values = np.asarray(features.values)  # each slice of a mapping would be a mapping, made slowly
    extent = len(values)

    def work_on(first: int) -> list[tuple[list[float], float]]:
        draws = [Draws(stream, first) for stream in streams]
        return [work(draws, values[start : start + BLOCK]) for start in range(first, min(first + _TASK, extent), BLOCK)]

    def work(draws: Sequence[Draws], block: Floats) -> tuple[list[float], float]:
        # The look-ups come first: while they wait for the table, the block comes into the cache.
        return [correlate(block, drawn.take(len(block))) for drawn in draws], float(np.dot(block, block))

    parts = list(chain.from_iterable(run_each(work_on, range(0, extent, _TASK), threads)))
    power = math.fsum(part[1] for part in parts)
    total: Doubles = np.sum([part[0] for part in parts], axis=0)
    return total / math.sqrt(power) if power > 0 else np.zeros(len(streams))


@dataclass(frozen=True, slots=True)
class Stratum:
    """A keyed sample of the coordinates, in groups of 8."""

    groups: npt.NDArray[np.int64]

    @property
    def coordinates(self) -> int:
        """How many coordinates it holds."""
        return GROUP * len(self.groups)


def draw_stratum(key: bytes, extent: int, coordinates: int) -> Stratum:
    """Draw about ``coordinates`` of the ``extent`` coordinates, or all where there are no more.

    Each group of 8 is drawn on its own: when the next four bytes of AES-256-CTR under ``key``, little-endian, are below
    ``2^32 · coordinates / extent``. A smaller stratum of the same key is part of a larger one.
    """
    groups = extent // GROUP
    if coordinates >= extent:
        return Stratum(np.arange(groups))
    limit = np.uint32(coordinates / extent * 2**32)
    chosen = []
    for start in range(0, groups, _DRAWS):
        draws = np.empty(min(_DRAWS, groups - start), "<u4")
        aes_ctr_into(key, (start // _DRAWS_A_BLOCK).to_bytes(16, "big"), draws.data)
        chosen.append(start + np.flatnonzero(draws < limit))
    return Stratum(np.concatenate(chosen))


def score_on(features: FeatureSet, streams: Sequence[bytes], stratum: Stratum, *, threads: int = 1) -> Doubles:
    """Return the z of each stream over a stratum only."""
    step = BLOCK // GROUP
    tasks = [streams[first : first + _STREAMS_A_TASK] for first in range(0, len(streams), _STREAMS_A_TASK)]
    shown = features.values.reshape(-1, GROUP)
    totals, power = np.zeros(len(streams)), 0.0
    for start in range(0, len(stratum.groups), step):
        groups = stratum.groups[start : start + step]
        block = shown[groups].ravel()
        blocks = counter_blocks(groups)
        power += float(np.dot(block, block))
        totals += list(chain.from_iterable(run_each(partial(_correlate, block, blocks), tasks, threads)))
    return totals / math.sqrt(power) if power > 0 else totals


def _correlate(block: Floats, blocks: bytes, streams: Sequence[bytes]) -> list[float]:
    return [correlate(block, scattered_indexes(stream, blocks)) for stream in streams]


def cancel(features: FeatureSet, streams: Sequence[bytes]) -> None:
    """Subtract from the features what the given streams explain: ``f ← f − Σ ĉ x``, ĉ by least squares.

    Only coordinates that show something take part and are changed. An innocent recipient's key is independent of the
    streams, hence of the new features too, so the bound holds for them as before.
    """
    count = len(streams)
    gram, moments = np.zeros((count, count)), np.zeros(count)
    starts = range(0, len(features.values), BLOCK)
    for start in starts:
        block = features.values[start : start + BLOCK]
        shown = block != 0
        if shown.any():
            x = np.stack([signature_values(stream, start, len(block)) * shown for stream in streams])
            gram += x @ x.T
            moments += x @ block
    coefficients = np.linalg.lstsq(gram, moments, rcond=None)[0].astype(np.float32)
    for start in starts:
        block = features.values[start : start + BLOCK]
        shown = block != 0
        if shown.any():
            for stream, coefficient in zip(streams, coefficients, strict=True):
                block -= coefficient * signature_values(stream, start, len(block)) * shown
