"""D2: a rise of hourly counts over a principal's own past, by a mixture e-SR statistic of negative binomials.

``M_t = (1 + M_{t−1})·L(x_t)``, where L is a likelihood ratio of mean 1 under the null, makes ``M_t − t`` a martingale;
hence the mean time to an alarm at ``M ≥ A`` is at least A (Shin, Ramdas, Rinaldo 2024, "E-detectors"). The null is
fitted to the past, so the promise is checked by simulation (:mod:`stanch.watch.simulate`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np

from stanch.watch.alarm import Containment, Severity
from stanch.watch.counts import Added, Bank, Crossing, Field, Floats, HourlyDetector, Reading
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.events import Event, Intent, Outcome

TILTS = (1.5, 2.0, 3.0, 5.0, 10.0)
THRESHOLD = 1e5
WINDOW, LAG, FEWEST = 168, 24, 120
WEEK, PROFILE_WEEKS, PRIOR_WEEKS = 168, 4, 3
MOST = 1e300
LEARN_FACTOR = 2.0
"""Of an hour that a person calls benign, at most so many times the usual count is learnt."""
_LOG_MOST = 690.0
_FITTED_AT_ONCE = 256  # keys whose hours fit into a processor's cache
_LARGEST_COUNT = float(2**24)  # exact in the float32 that history is kept in

SIGNALS = ("requests", "tokens/1000", "refusals", "budget hits", "log-probability bits/1000", "acts", "MiB read")
PROMISE = FalseAlarm(
    Measure.RUN_LENGTH,
    THRESHOLD,
    "hours of one signal of one principal",
    f"{FEWEST} hours of the principal, a week of all",
)


def likelihood_ratio(x: Floats, m: Floats, k: Floats) -> Floats:
    """Return the mean over the tilts g of NB(g·m, k) against NB(m, k) at ``x``; NaN where there is no fit."""
    total = np.zeros(np.broadcast(x, m).shape)
    for g in TILTS:
        total += np.exp(np.minimum(x * np.log(g) + (k + x) * np.log((k + m) / (k + g * m)), _LOG_MOST))
    return total / len(TILTS)


def fit(history: Floats, profile: Floats | float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Return mean, dispersion and number of hours of negative binomials fitted along the first axis.

    Args:
        history: Counts; NaN where an hour does not count.
        profile: Factor of each hour against the mean, of the same shape.
    """
    there = ~np.isnan(history)
    hours = there.sum(axis=0)
    x, s = np.where(there, history, 0.0), np.where(there, profile, 0.0)
    least = np.maximum(hours, 1)
    mean = x.sum(axis=0) / np.maximum(s.sum(axis=0), 1e-9)
    variance = np.where(there, (x - mean * s) ** 2, 0.0).sum(axis=0) / least
    m = mean + 0.1
    excess = variance - m * s.sum(axis=0) / least
    k = np.clip(m * m * (s * s).sum(axis=0) / least / np.maximum(excess, 0.001), 0.5, 50.0)
    return m, k, hours


def hour_of_week_profile(pooled: Floats, principals: int) -> Floats:
    """Return the factor of each hour of the week, mean 1 and within 0.1 to 5.

    Args:
        pooled: Counts of all principals together in one to four weeks, (hours, signals); NaN where not yet known. Every
            hour of the week is known once.
        principals: How many they are of. The factors of few are drawn to 1, or they would fit the noise.
    """
    weeks = pooled.reshape(-1, WEEK, pooled.shape[-1])
    known = (~np.isnan(weeks)).sum(axis=0)
    weekly = np.nan_to_num(weeks).sum(axis=0) / known
    mean = weekly.mean(axis=0)
    factors = np.where(mean > 0, weekly / np.where(mean > 0, mean, 1.0), 1.0)
    evidence = known * principals
    factors = np.clip((factors * evidence + PRIOR_WEEKS) / (evidence + PRIOR_WEEKS), 0.1, 5.0)
    scaled: Floats = factors / factors.mean(axis=0)
    return scaled


class RateBank(Bank):
    """The statistic of every principal and signal, its fit, and the counts the next fit comes from."""

    fields: ClassVar[Mapping[str, Field]] = {
        "m": Field(fill=np.nan), "k": Field(fill=np.nan), "statistic": Field(), "since": Field(),
        "history": Field((WINDOW + LAG,), np.nan, "<f4"),
        "held": Field((WINDOW + LAG,), np.nan, "<f4"), "learned": Field(fill=-np.inf),
        "pooled": Field((PROFILE_WEEKS * WEEK,), np.nan, by_key=False),
        "profile": Field((WEEK,), 1.0, by_key=False),
    }  # fmt: skip

    def __init__(self, signals: int, *, threshold: float = THRESHOLD) -> None:
        super().__init__(signals)
        self._threshold = threshold

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take the counts of an hour; once a day the fits are made anew."""
        a = self.arrays
        x = np.minimum(np.floor(amounts), _LARGEST_COUNT)
        a["history"][hour % len(a["history"])] = x
        a["held"][hour % len(a["held"])] = np.nan
        a["pooled"][hour % len(a["pooled"])] = x.sum(axis=0)
        crossings = list(self._judge(hour, x))
        if (hour + 1) % 24 == 0:
            self._fit(hour)
        return crossings

    def _judge(self, hour: int, x: Floats) -> Iterator[Crossing]:
        a = self.arrays
        m, statistic = a["m"] * a["profile"][hour % WEEK], a["statistic"]
        a["since"][statistic < 1] = hour
        fitted = ~np.isnan(m)  # what has no fit yet stays at 0
        ratio = likelihood_ratio(x[fitted], m[fitted], a["k"][fitted])
        statistic[fitted] = np.minimum((1 + statistic[fitted]) * ratio, MOST)
        for row, signal in np.argwhere(statistic >= self._threshold):
            since = int(a["since"][row, signal])
            yield Crossing(int(row), int(signal), float(statistic[row, signal]), since)
            statistic[row, signal] = 0.0
            # Hours inside an alarm are no model of what is usual.
            kept = len(a["history"])
            for inside in range(max(since, hour - kept + 1), hour + 1):
                usual = a["m"][row, signal] * a["profile"][inside % WEEK, signal]
                counted = a["history"][inside % kept, row, signal]
                a["held"][inside % kept, row, signal] = min(counted, LEARN_FACTOR * usual)
                a["history"][inside % kept, row, signal] = np.nan

    def learn(self, at: Crossing, hour: int, now: int) -> None:
        """Put back the hours of an alarm that was benign, each as at most twice what was usual then.

        Once in 168 hours for a signal of a principal: whoever raises alarms and has them closed moves the mean by less
        than a factor of two in the time that a fit looks back.
        """
        a = self.arrays
        kept, row, signal = len(a["history"]), at.row, at.signal
        if now - at.since >= kept or now - a["learned"][row, signal] < WINDOW:
            return
        a["learned"][row, signal] = now
        for inside in range(at.since, hour + 1):
            value = a["held"][inside % kept, row, signal]
            if not np.isnan(value):
                a["history"][inside % kept, row, signal] = value
                a["held"][inside % kept, row, signal] = np.nan

    def _fit(self, hour: int) -> None:
        """Fit to the hours that end LAG before now; who has too few keeps the fit it had."""
        a = self.arrays
        # The ring is whole weeks long: its places are hours of the week.
        if np.isnan(a["pooled"].reshape(-1, WEEK, self.signals)).all(axis=0).any():
            return  # working hours would look like a rise
        a["profile"][:] = hour_of_week_profile(a["pooled"], a["m"].shape[0])
        hours = np.arange(hour + 1 - LAG - WINDOW, hour + 1 - LAG)
        profile = a["profile"][hours % WEEK][:, None, :]
        # A profile of few principals errs: the mean is raised by two standard errors of a factor of it.
        weeks, rows = (~np.isnan(a["pooled"])).sum(axis=0) / WEEK, a["m"].shape[0]
        for start in range(0, rows, _FITTED_AT_ONCE):
            part = slice(start, start + _FITTED_AT_ONCE)
            history = a["history"][hours % len(a["history"]), part].astype(np.float64)
            m, k, counted = fit(history, np.broadcast_to(profile, history.shape))
            m *= 1 + 2 * np.sqrt((1 / k + 1 / m) / (weeks * rows + PRIOR_WEEKS))
            enough = counted >= FEWEST
            a["m"][part][enough], a["k"][part][enough] = m[enough], k[enough]


def read_rates(event: Event) -> Iterable[Added]:
    """Yield what an entry adds to the counts of its principal, in the order of :data:`SIGNALS`."""
    who, detail = event.principal, event.detail
    if isinstance(detail, Intent):
        yield who, 0, 1.0
    elif isinstance(detail, Outcome):
        if event.phase == "denied":
            yield who, 2, 1.0
            if detail.error == "budget-exhausted":
                yield who, 3, 1.0
        yield who, 1, (detail.prompt_tokens + detail.completion_tokens) / 1000
        yield who, 4, detail.logprob_bits / 1000
    elif not event.kind.startswith(("gateway.", "watch.")):
        if event.phase in {"intent", "note"}:
            yield who, 5, 1.0
        elif event.phase == "denied":
            yield who, 2, 1.0
        yield who, 6, event.egress / 2**20


def rate_detector() -> HourlyDetector:
    """Return D2: requests, tokens, refusals, and what insiders do in the workspace."""
    reading = Reading(len(SIGNALS), read_rates, Severity.MEDIUM, Containment.LOWER_BUDGET)
    return HourlyDetector("D2", SIGNALS, PROMISE, reading, RateBank)
