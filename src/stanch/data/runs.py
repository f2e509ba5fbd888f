"""From places with the same fingerprint to the longest runs of bytes that they agree in."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_PARTS = 16
_COMPARED = 1 << 22  # bytes that are compared at once
_SPACE = ord(" ")

PLACE = np.dtype([("print", "<u8"), ("record", "<i8"), ("low", "<i8"), ("high", "<i8"), ("at", "<i8")])
"""A window: its fingerprint, its record's number, where its text begins and ends, and where it starts."""

Place = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of bytes: its length in whole words, how often it stands there, and the numbers of the records."""

    length: int
    occurrences: int
    records: tuple[int, ...]


class Runs:
    """Finds the runs of at least ``shortest`` bytes around windows of ``window`` bytes."""

    def __init__(self, text: Bytes, window: int, shortest: int) -> None:
        self._text, self._window, self._shortest = text, window, shortest
        # For each text that holds the first occurrence of a run: its first and last byte, and how often it stands.
        self._known: dict[int, list[tuple[int, int, int]]] = {}

    def find(self, places: Place) -> list[Run]:
        """Return the runs, each once; a sixteenth of the places is in memory at a time."""
        # Winnowing may keep a window in some occurrences of a run and another one in the rest, and those may share a
        # piece of the next word: the window that most of them kept tells how often the run stands.
        best: dict[bytes, Run] = {}
        for text, run in self._each(places):
            known = best.get(text)
            if known is None or known.occurrences < run.occurrences:
                best[text] = run
        return list(best.values())

    def _each(self, places: Place) -> Iterator[tuple[bytes, Run]]:
        for part in range(_PARTS):
            own = places[places["print"] >> np.uint64(60) == part]
            own = own[np.argsort(own["print"], kind="stable")]
            edges = np.flatnonzero(np.diff(own["print"], prepend=~own["print"][:1], append=~own["print"][-1:]))
            for low, high in pairwise(edges):
                if high - low > 1 and (found := self._run(own[low:high])) is not None:
                    yield found

    def _run(self, group: Place) -> tuple[bytes, Run] | None:
        """Return a digest of the run's words, and the run."""
        group = group[self._agree(group["at"], self._window)]
        first, count = group[0], len(group)
        known = self._known.setdefault(int(first["low"]), [])
        at, end = int(first["at"]), int(first["at"]) + self._window
        # A window inside a known run that stands as often stands in the same places: it gives the same run.
        if count < 2 or any(start <= at and end <= stop and often == count for start, stop, often in known):
            return None
        left = self._common(group["at"], group["at"] - group["low"], -1)
        right = self._common(group["at"] + self._window, group["high"] - group["at"] - self._window, 1)
        start, stop = at - left, end + right
        known.append((start, stop, count))
        records = tuple(np.unique(group["record"]).tolist())
        if stop - start < self._shortest or len(records) < 2:
            return None
        shift, text = group["at"] - at, self._text[start:stop].tobytes()
        words = _whole_words(
            text,
            opens=self._is_edge(start + shift, group["low"], start + shift - 1),
            closes=self._is_edge(stop + shift, group["high"], stop + shift),
        )
        return hashlib.blake2b(words, digest_size=16).digest(), Run(len(words), count, records)

    def _agree(self, starts: Numbers, length: int) -> npt.NDArray[np.bool_]:
        """Tell which windows have the bytes of the first."""
        same = np.empty(starts.size, np.bool_)
        step = max(1, _COMPARED // length)
        wanted = self._text[starts[0] : starts[0] + length]
        for low in range(0, starts.size, step):
            block = self._text[starts[low : low + step, None] + np.arange(length)]
            same[low : low + step] = (block == wanted).all(axis=1)
        return same

    def _common(self, starts: Numbers, room: Numbers, step: int) -> int:
        """Return how many bytes from the starts on (``step`` 1), or before them (-1), are the same everywhere."""
        most, done = int(room.min()), 0
        while done < most:
            width = min(max(16, _COMPARED // starts.size), most - done)
            reach = done + np.arange(width) if step > 0 else -1 - done - np.arange(width)
            block = self._text[starts[:, None] + reach]
            differs = (block != block[0]).any(axis=0)
            if differs.any():
                return done + int(differs.argmax())
            done += width
        return done

    def _is_edge(self, borders: Numbers, limits: Numbers, neighbours: Numbers) -> bool:
        """Tell whether a run is bordered by a space or the end of the text everywhere."""
        inside = borders != limits
        return bool((self._text[neighbours[inside]] == _SPACE).all())


def _whole_words(run: bytes, *, opens: bool, closes: bool) -> bytes:
    """Return the run without a word that is cut at its start or end; all of it if there is one word."""
    start = 0 if opens else run.find(b" ") + 1
    stop = len(run) if closes else run.rfind(b" ")
    return run[start:stop] if start < stop else run
