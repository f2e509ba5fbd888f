"""Which units take part in a step: independent coins from an AES key stream, never a shuffle.

``S(K, a, b)`` is the AES-256-CTR key stream with initial counter block ``u32be(a) ‖ u32be(b) ‖ u64be(0)``, read as
little-endian 64-bit words; ``a`` is the step of this process, from 0. The root key comes from the operating system at
every start of a process and is never stored, so neither sample nor noise can repeat after a crash.
"""

import itertools
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from stanch.crypto import RandomBytes, aes_ctr_into, hkdf_sha256, random_bytes
from stanch.tune.plan import PrivacyPlan
from stanch.tune.units import UnitTable

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """The three keys of one process start."""

    noise: bytes = field(repr=False)
    sample: bytes = field(repr=False)
    records: bytes = field(repr=False)

    @classmethod
    def fresh(cls, random: RandomBytes = random_bytes) -> Self:
        """Derive the keys from a new 32-byte root, which is forgotten."""
        root = random(32)
        noise, sample, records = (
            hkdf_sha256(root, info=b"stanch/tune/v1/" + name, length=32) for name in (b"noise", b"sample", b"records")
        )
        return cls(noise, sample, records)


def seeded_bytes(seed: int) -> RandomBytes:
    """Return a source whose bytes follow from ``seed`` and the number of calls: whoever knows it knows all keys.

    Whatever is made of them protects nobody; the plan's guarantee is void.
    """
    key = hkdf_sha256(seed.to_bytes(8, "big"), info=b"stanch/tune/v1/seed", length=32)
    calls = itertools.count()
    return lambda size: hkdf_sha256(key, info=next(calls).to_bytes(8, "big"), length=size)


def stream_words(key: bytes, a: int, b: int, count: int, *, start: int = 0) -> Words:
    """Return ``count`` words of S(key, a, b) from word ``start`` on."""
    block, skipped = divmod(start, 2)
    out = bytearray(8 * (skipped + count))
    if count:
        aes_ctr_into(key, a.to_bytes(4, "big") + b.to_bytes(4, "big") + block.to_bytes(8, "big"), out)
    return np.frombuffer(out, dtype="<u8")[skipped:]


@dataclass(frozen=True, slots=True)
class UnitSampler:
    """Poisson sampling of units, and the cap on records of a unit.

    Attributes:
        keys: Keys of this process.
        threshold: τ: a unit takes part iff its word is below.
        n_units: Coins tossed; units beyond the table are empty ones.
        max_records: k.
        table: The units.
    """

    keys: StreamKeys
    threshold: int
    n_units: int
    max_records: int
    table: UnitTable

    @classmethod
    def of(cls, plan: PrivacyPlan, table: UnitTable, keys: StreamKeys) -> Self:
        """Take every constant from the plan."""
        return cls(keys, plan.sampling_threshold, plan.n_units, plan.max_records_per_unit, table)

    def draw(self, step: int) -> tuple[int, ...]:
        """Return the indexes of the units that take part in logical step ``step`` of this process."""
        words = stream_words(self.keys.sample, step, 0, self.n_units)
        return tuple(int(index) for index in np.flatnonzero(words < np.uint64(self.threshold)))

    def records_of(self, step: int, unit: int) -> tuple[str, ...]:
        """Return the ids of the records with which ``unit`` takes part: at most k of them, in record order."""
        if unit >= len(self.table.units):
            return ()
        ids = self.table.units[unit].record_ids
        if len(ids) <= self.max_records:
            return ids
        words = stream_words(self.keys.records, step, unit, len(ids))
        chosen = np.argsort(words, kind="stable")[: self.max_records]
        return tuple(ids[int(index)] for index in np.sort(chosen))
