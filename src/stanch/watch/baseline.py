"""What D2 takes for usual of one principal: the fit of its hourly requests, read from what the detector remembers."""

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import Struct
from sqlalchemy import select

from stanch.store import Tables
from stanch.store.schema.watch import watch_state
from stanch.watch.counts import SavedArray
from stanch.watch.esr import SIGNALS, WEEK
from stanch.watch.week import DAY

DEVIATIONS = 3
_REQUESTS = SIGNALS.index("requests")


class _Kept(Struct):
    """The part of a saved state that is read here."""

    keys: list[str] = []
    arrays: dict[str, SavedArray] = {}


_DECODER = msgspec.msgpack.Decoder(_Kept)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A negative binomial for each hour of the week.

    Attributes:
        mean: Its mean in an hour whose factor is 1.
        dispersion: k; the variance is m + m²/k.
        profile: The factors of the 168 hours of the week, those of all times its own.
    """

    mean: float
    dispersion: float
    profile: tuple[float, ...]

    def usual(self, hour: int) -> tuple[float, float, float]:
        """Return the least, mean and most that is usual in an hour since 1970: within three standard deviations.

        They are shown, and decide nothing: the detector adds up evidence over hours.
        """
        mean = self.mean * self.profile[hour % WEEK]
        apart = DEVIATIONS * math.sqrt(mean + mean * mean / self.dispersion)
        return max(0.0, mean - apart), mean, mean + apart


def load_baseline(tables: Tables, origin: str, principal: str) -> Baseline | None:
    """Return the baseline of a principal in the log ``origin``; None while D2 has too few hours of it."""
    mine = (watch_state.c.origin == origin) & (watch_state.c.detector == "D2")
    with tables.read() as connection:
        state = connection.scalar(select(watch_state.c.state).where(mine))
    kept = _DECODER.decode(state) if state else _Kept()
    if principal not in kept.keys or "m" not in kept.arrays:
        return None
    row, arrays = kept.keys.index(principal), kept.arrays
    m, k = arrays["m"].load(), arrays["k"].load()
    if row >= len(m) or math.isnan(m[row, _REQUESTS]):
        return None
    profile = arrays["profile"].load()[:, _REQUESTS]
    if "own" in arrays:  # an earlier release kept none
        own, hours = arrays["own"].load()[:, row, _REQUESTS], np.arange(WEEK)
        profile = profile * own[hours % DAY] * own[DAY + hours // DAY]
    return Baseline(float(m[row, _REQUESTS]), float(k[row, _REQUESTS]), tuple(profile.tolist()))
