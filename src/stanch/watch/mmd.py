"""D4: what a principal asks is distributed otherwise than before, as when a model is copied by its answers.

The gateway sends the mean of random Fourier features of 200 prompts (:class:`stanch.watch.events.Window`), or of 100
and more where no others came for a day. The statistic is its squared distance from the mean of the principal's last ten
quiet windows, over what chance gives means of so many prompts; the threshold is a conformal quantile of the same
statistic of other principals' windows (Vovk, Gammerman, Shafer 2005).
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from stanch.watch.alarm import Alarm, Severity
from stanch.watch.counts import HOUR, Floats, SavedArray
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.events import FEATURES, Event, Window

ALPHA = 0.001
FEWEST = math.ceil(1 / ALPHA) - 1
REFERENCE = 10
SHORTEST, FULL = 100, 200
KEPT = 8192
"""So many statistics are kept for the threshold, the newest."""


def conformal_threshold(calibration: Floats, alpha: float, *, spare: int = 0) -> float:
    """Return the ⌈(n+1)(1−α)⌉-th smallest, ``spare`` ranks up where there are any; infinite while n is too small."""
    place = math.ceil((len(calibration) + 1) * (1 - alpha))
    if not 0 < place <= len(calibration):
        return math.inf
    place = min(place + spare, len(calibration))
    return float(np.partition(calibration, place - 1)[place - 1])


class WindowBook:
    """The last quiet windows of every principal, and the statistics that calibrate the threshold.

    Attributes:
        means: (principals, 10, 256), the oldest first; NaN where there is none yet.
        counts: (principals, 10): of how many prompts each is the mean.
        statistics: Of the last windows of all, the oldest first.
        owners: Whose they are.
        beyond: 1 where they were beyond the threshold. Of each principal one such is kept: without any, the calibration
            would lose its tail and the threshold sink from turn to turn; with all, one attacker would hide the next.
    """

    def __init__(self, *, alpha: float = ALPHA) -> None:
        self.means = np.full((0, REFERENCE, FEATURES), np.nan, "<f4")
        self.counts = np.full((0, REFERENCE), float(FULL), "<f4")
        self.statistics = np.zeros(0)
        self.owners = np.zeros(0, "<i8")
        self.beyond = np.zeros(0, "<i8")
        self._alpha = alpha

    def grow(self, rows: int) -> None:
        """Make place for ``rows`` principals."""
        new = np.full((rows - len(self.means), REFERENCE, FEATURES), np.nan, "<f4")
        self.means = np.concatenate([self.means, new])
        self.counts = np.concatenate([self.counts, np.full((len(new), REFERENCE), float(FULL), "<f4")])

    def measure(self, row: int, mean: Floats, count: int = FULL) -> tuple[float, float]:
        """Return statistic and threshold of a window; (NaN, inf) for whoever has not ten before it."""
        past, counts = self.means[row], self.counts[row].astype(np.float64)
        if np.isnan(past[0, 0]):
            return math.nan, math.inf
        distance = float(((mean - counts @ past / counts.sum()) ** 2).sum())
        statistic = distance / (1 / count + 1 / float(counts.sum()))
        # What is beyond leaves the calibration, but for one of each principal: one rank up makes good for that.
        return statistic, conformal_threshold(self.statistics[self.owners != row], self._alpha, spare=1)

    def judge(self, row: int, mean: Floats, count: int = FULL) -> tuple[float, float]:
        """Measure a window of ``count`` prompts, then learn it: as a reference only if it is quiet."""
        statistic, threshold = self.measure(row, mean, count)
        is_beyond = statistic > threshold
        if not math.isnan(statistic):
            stays = slice(None) if not is_beyond else (self.owners != row) | (self.beyond == 0)
            self.statistics = np.append(self.statistics[stays], statistic)[-KEPT:]
            self.owners = np.append(self.owners[stays], row)[-KEPT:]
            self.beyond = np.append(self.beyond[stays], int(is_beyond))[-KEPT:]
        if not is_beyond:
            self.means[row] = np.concatenate([self.means[row, 1:], mean[None].astype("<f4")])
            self.counts[row] = np.append(self.counts[row, 1:], count)
        return statistic, threshold


class _Saved(Struct):
    keys: list[str]
    means: SavedArray
    statistics: SavedArray
    owners: SavedArray
    beyond: SavedArray
    counts: SavedArray | None = None


_DECODER = msgspec.msgpack.Decoder(_Saved)


class ExtractionDetector:
    """D4. A principal without ten quiet windows is not judged, and nobody is before 999 of others were."""

    name = "D4"
    signals = ("query distribution",)
    promise = FalseAlarm(
        Measure.RATE, ALPHA, "window of 100 to 200 prompts", f"{REFERENCE} windows of the principal, {FEWEST} of others"
    )

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        windows = [(event, event.detail) for event in entries if isinstance(event.detail, Window)]
        windows = [(event, window) for event, window in windows if window.count >= SHORTEST]
        if not windows:
            return state, []
        keys, book = self._load(state)
        known = {key: row for row, key in enumerate(keys)}
        alarms = []
        for event, window in windows:
            key = f"{window.principal} {window.model}"
            if key not in known:
                known[key] = len(keys)
                keys.append(key)
                book.grow(len(keys))
            statistic, threshold = book.judge(known[key], window.vector(), window.count)
            if statistic > threshold:
                alarms.append(Alarm(
                    detector=self.name, signal=self.signals[0], principal=window.principal, model=window.model,
                    window_start=event.time // HOUR * HOUR, at=event.time, severity=Severity.MEDIUM,
                    statistic=statistic, threshold=threshold, entries=(event.index,),
                ))  # fmt: skip
        kept = (book.means, book.statistics, book.owners, book.beyond, book.counts)
        return msgspec.msgpack.encode(_Saved(keys, *map(SavedArray.of, kept))), alarms

    def _load(self, state: bytes) -> tuple[list[str], WindowBook]:
        book = WindowBook()
        if not state:
            return [], book
        saved = _DECODER.decode(state)
        book.means, book.statistics = saved.means.load(), saved.statistics.load()
        book.owners, book.beyond = saved.owners.load(), saved.beyond.load()
        if saved.counts is not None:
            book.counts = saved.counts.load()
        else:  # an earlier release took all windows for full ones, and did not divide by what chance gives them
            book.counts = np.full(book.means.shape[:2], float(FULL), "<f4")
            book.statistics /= (1 + 1 / REFERENCE) / FULL
        return saved.keys, book
