"""What a principal's prompts look like in the mean, so that a change of them shows and no prompt does.

A prompt becomes a vector: its words and pairs of words are hashed into 4,096 signed places, projected onto 64 keyed
Gaussian directions and scaled to length 1; 256 random cosines of that (Rahimi and Recht 2007) have an inner product
that is near a Gaussian kernel. Only the mean of at least 100 such vectors leaves the process, and without the key it
says nothing about words. All gateways of a workspace have one key, so that their means compare.
"""

import base64
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stanch.crypto import aes_ctr_into, hmac_sha256
from stanch.scan import fold_text
from stanch.terms import JsonValue

PLACES, DIRECTIONS, COSINES = 4096, 64, 256
MOST, FEWEST, LONGEST_SECONDS = 200, 100, 24 * 3600.0
BANDWIDTH = 1.3
"""Between the 1.41 of prompts that share no word and the distances of one principal's prompts; fixed, so that means of
all gateways and times compare."""
_LABEL = b"stanch/watch/rff/v1"
_MOST_WORDS = 2048
_TOGETHER = 8
"""Numpy takes as long for so many vectors of a prompt as for one."""
_MOST_OPEN = 10_000

Vector = NDArray[np.float64]


class Features:
    """Turns prompts into vectors under one key."""

    def __init__(self, key: bytes) -> None:
        self._hash_key = hmac_sha256(key, _LABEL + b"\x00hash")
        normal = _gaussians(hmac_sha256(key, _LABEL + b"\x00projection"), PLACES * DIRECTIONS)
        self._projection = normal.reshape(PLACES, DIRECTIONS) / np.sqrt(DIRECTIONS)
        cosines = _gaussians(hmac_sha256(key, _LABEL + b"\x00cosines"), DIRECTIONS * COSINES)
        self._cosines = cosines.reshape(DIRECTIONS, COSINES) / BANDWIDTH
        self._phases = 2 * np.pi * _uniforms(hmac_sha256(key, _LABEL + b"\x00phases"), COSINES)

    def of(self, text: str) -> Vector:
        """Return the vector of a prompt; only its last 2,048 words count."""
        return self.total([self.direction(text)])

    def direction(self, text: str) -> Vector:
        """Return the 64 numbers that the vector of a prompt is made of."""
        words = fold_text(text, "index").split()[-_MOST_WORDS:]
        signed: dict[int, float] = {}
        for gram in itertools.chain(words, map(b" ".join, itertools.pairwise(words))):
            bits = int.from_bytes(blake2b(gram, digest_size=2, key=self._hash_key).digest(), "little")
            place = bits & (PLACES - 1)
            signed[place] = signed.get(place, 0.0) + (1.0 if bits >> 15 else -1.0)
        direction: Vector = np.array([*signed.values()]) @ self._projection[np.array([*signed], np.intp)]
        length = math.sqrt(direction @ direction)
        return direction / length if length else direction

    def total(self, directions: Sequence[Vector]) -> Vector:
        """Return the sum of the vectors of some prompts."""
        cosines = np.cos(np.array(directions) @ self._cosines + self._phases)
        vector: Vector = math.sqrt(2 / COSINES) * cosines.sum(axis=0)
        return vector


@dataclass(slots=True)
class _Open:
    """Prompts of one principal to one model that no window has told of; the last ones wait to be added together."""

    since: float
    count: int = 0
    waiting: list[Vector] = field(default_factory=list)
    total: Vector = field(default_factory=lambda: np.zeros(COSINES))


@dataclass(slots=True)
class Windows:
    """Sums up the prompts of every principal and model; a sum is told when it holds 200, or after 24 hours.

    Attributes:
        features: Turns prompts into vectors.
        clock: Seconds since 1970.
    """

    features: Features
    clock: Callable[[], float]
    _open: dict[tuple[str, str], _Open] = field(default_factory=dict)
    _full: list[dict[str, JsonValue]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, principal: str, model: str, text: str) -> None:
        """Count one prompt."""
        direction = self.features.direction(text)
        with self._lock:
            if len(self._open) >= _MOST_OPEN and (principal, model) not in self._open:
                self._close(next(iter(self._open)))
            window = self._open.setdefault((principal, model), _Open(self.clock()))
            window.count += 1
            window.waiting.append(direction)
            if len(window.waiting) >= _TOGETHER:
                self._add_up(window)
            if window.count >= MOST:
                self._close((principal, model))

    def take(self, *, all_of_them: bool = False) -> list[dict[str, JsonValue]]:
        """Return the payloads of the windows that are to be told now; none is returned twice."""
        with self._lock:
            now = self.clock()
            for key in [key for key, one in self._open.items() if all_of_them or now - one.since >= LONGEST_SECONDS]:
                self._close(key)
            full, self._full = self._full, []
        return full

    def put_back(self, payloads: list[dict[str, JsonValue]]) -> None:
        """Keep windows that could not be told."""
        with self._lock:
            self._full += payloads

    def _add_up(self, window: _Open) -> None:
        if window.waiting:
            window.total += self.features.total(window.waiting)
            window.waiting.clear()

    def _close(self, key: tuple[str, str]) -> None:
        window = self._open.pop(key)
        self._add_up(window)
        if window.count >= FEWEST:  # of fewer, a mean would say too much about each
            mean = base64.b64encode((window.total / window.count).astype("<f4").tobytes()).decode()
            self._full.append({"principal": key[0], "model": key[1], "count": window.count, "mean": mean})


def _uniforms(key: bytes, count: int) -> Vector:
    """Return numbers in (0, 1) that the key alone decides."""
    stream = bytearray(8 * count)
    aes_ctr_into(key, bytes(16), stream)
    return (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54


def _gaussians(key: bytes, count: int) -> Vector:
    """Return standard normal numbers that the key alone decides (Box and Muller 1958)."""
    uniform = _uniforms(key, count).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
