"""D7: what a model says drifts: longer or shorter answers, more or fewer filtered, more repetition, less sure words.

Hourly means x in [0, 1] with the mean μ0 that the past shows for the hour of the day and the day of the week. For each
λ, ``M_t = (1 + M_{t−1})·(1 + λ·(x_t − μ0))`` is an e-SR statistic of the null "the mean is μ0", whatever the
distribution; the alarm is at a mean of ``A`` over eight λ of both signs.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from stanch.watch.alarm import Severity
from stanch.watch.counts import Added, Bank, Crossing, Field, Floats, HourlyDetector, Reading
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.esr import FEWEST, LAG, MOST, THRESHOLD, WEEK
from stanch.watch.events import Event, Outcome
from stanch.watch.week import DAY, OWN

BETS = (0.1, 0.2, 0.4, 0.8, -0.1, -0.2, -0.4, -0.8)
PAST = 28 * 24
SIGNALS = ("length", "filtered share", "repetition", "log-probability")
COLUMNS = 7
OVER, SUMS = [0, 0, 3, 5], [1, 2, 4, 6]
"""For each signal the column of how many answers tell it, and that of the sum of what they tell.

A new signal comes behind the others: what an earlier release remembers is read on.
"""


def bet_factors(x: Floats, mean: Floats) -> Floats:
    """Return the eight factors ``1 + λ(x − μ0)``, on a leading axis; each has mean 1 if x has the mean μ0."""
    bets = np.array(BETS).reshape(-1, *(1,) * x.ndim)
    factors: Floats = 1 + bets / np.maximum(mean, 1 - mean) * (x - mean)
    return factors


class DriftBank(Bank):
    """The eight statistics of every model and signal, the scale and mean, and the hourly means they come from."""

    fields: ClassVar[Mapping[str, Field]] = {
        "low": Field(fill=np.nan), "high": Field(fill=np.nan), "mean": Field(fill=np.nan), "own": Field((OWN,)),
        "bets": Field((len(BETS),)), "since": Field(), "history": Field((PAST + LAG,), np.nan, "<f4"),
    }  # fmt: skip

    def __init__(self, signals: int, *, threshold: float = THRESHOLD) -> None:
        super().__init__(signals)
        self._threshold = threshold

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take an hour's answers and, of each signal, their sum; a signal that no answer tells is skipped."""
        a, answers = self.arrays, amounts[:, OVER[: self.signals]]
        x = np.where(answers > 0, amounts[:, SUMS[: self.signals]] / np.maximum(answers, 1), np.nan)
        a["history"][hour % len(a["history"])] = x
        crossings = self._judge(hour, x)
        if (hour + 1) % 24 == 0:
            self._fit(hour)
        return crossings

    def _judge(self, hour: int, x: Floats) -> list[Crossing]:
        a = self.arrays
        reach = a["high"] - a["low"]
        scaled = np.clip((x - a["low"]) / np.where(reach > 0, reach, 1.0), 0.0, 1.0)
        mean = np.clip(a["mean"] + a["own"][hour % DAY] + a["own"][DAY + hour % WEEK // DAY], 0.0, 1.0)
        moved = np.minimum((1 + a["bets"]) * bet_factors(scaled, mean), MOST)
        # It hardly ever falls below 1; half the evidence for an alarm is a better sign of where the drift began.
        a["since"][a["bets"].mean(axis=0) < math.sqrt(self._threshold)] = hour
        np.copyto(a["bets"], moved, where=~np.isnan(moved))
        statistic = a["bets"].mean(axis=0)
        crossings = []
        for row, signal in np.argwhere(statistic >= self._threshold):
            since = int(a["since"][row, signal])
            crossings.append(Crossing(int(row), int(signal), float(statistic[row, signal]), since))
            a["bets"][:, row, signal] = 0.0
            kept = len(a["history"])
            for inside in range(max(since, hour - kept + 1), hour + 1):
                a["history"][inside % kept, row, signal] = np.nan
        return crossings

    def _fit(self, hour: int) -> None:
        """Take scale and mean from the hours that end LAG before now; what has too few keeps what it had."""
        a = self.arrays
        hours = np.arange(hour + 1 - LAG - PAST, hour + 1 - LAG)
        history = a["history"][hours % len(a["history"])].astype(np.float64)
        there = ~np.isnan(history)
        # Before a whole week is known its weekend would look like a drift.
        enough = (there.sum(axis=0) >= FEWEST) & (there.argmax(axis=0) <= PAST - WEEK)
        low = np.where(there, history, np.inf).min(axis=0)
        high = np.where(there, history, -np.inf).max(axis=0)
        reach = np.where(high > low, high - low, 1.0)
        scaled = np.where(there, (history - low) / reach, np.nan)
        mean = np.where(there, scaled, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        daily = _shifts(scaled - mean, hours % DAY, DAY)
        weekly = _shifts(scaled - mean - daily[hours % DAY], hours % WEEK // DAY, OWN - DAY)
        for name, found in (("low", low), ("high", high), ("mean", mean), ("own", np.concatenate([daily, weekly]))):
            np.copyto(a[name], found, where=enough)


def _shifts(off: Floats, cells: npt.NDArray[np.intp], count: int) -> Floats:
    """Return the mean of each cell, (count, …), drawn to 0 by James and Stein: entirely where all may be chance.

    Args:
        off: How far hours were off the mean, (hours, …); NaN where there is none.
        cells: The cell of each hour.
        count: How many cells there are.
    """
    there = ~np.isnan(off)
    off = np.where(there, off, 0.0)
    member = (np.arange(count)[:, None] == cells).astype(np.float64)
    hours = np.tensordot(member, there, 1)
    means: Floats = np.tensordot(member, off, 1) / np.maximum(hours, 1)
    within = ((off**2).sum(axis=0) - (hours * means**2).sum(axis=0)) / np.maximum(there.sum(axis=0) - count, 1)
    chance = (count - 1) * within / np.maximum((hours * means**2).sum(axis=0), 1e-300)
    drawn: Floats = means * np.maximum(0.0, 1 - chance)
    return drawn


def read_drift(event: Event) -> Added:
    """Return what an answer adds to its model's hour: one answer, and each signal of it."""
    detail = event.detail
    if not isinstance(detail, Outcome) or event.phase != "outcome" or not event.model or detail.error:
        return ()
    told = [(0, 1.0), (1, float(detail.released)), (2, float(detail.verdict in {"redact", "block"}))]
    if detail.runs:
        told += [(3, 1.0), (4, detail.repeated / detail.runs)]
    if detail.entries:
        told += [(5, 1.0), (6, detail.surprisal / detail.entries / 100)]
    return told


def drift_detector() -> HourlyDetector:
    """Return D7."""
    needs = f"{FEWEST} hours with answers of the model, the first a week ago"
    promise = FalseAlarm(Measure.RUN_LENGTH, THRESHOLD, "hours of one signal of one model", needs)
    reading = Reading(COLUMNS, read_drift, Severity.LOW, of_model=True)
    return HourlyDetector("D7", SIGNALS, promise, reading, DriftBank)
