"""D2: a rise of hourly counts over a principal's own past, by a mixture e-SR statistic of negative binomials.

``M_t = (1 + M_{t−1})·L(x_t)``, where L is a likelihood ratio of mean 1 under the null, makes ``M_t − t`` a martingale;
hence the mean time to an alarm at ``M ≥ A`` is at least A (Shin, Ramdas, Rinaldo 2024, "E-detectors"). The null is
fitted to the past, so the promise is checked by simulation (:mod:`stanch.watch.simulate`).
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from stanch.watch.alarm import Containment, Severity
from stanch.watch.counts import Added, Bank, Crossing, Field, Floats, HourlyDetector, Reading
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.events import Event, Intent, Outcome
from stanch.watch.week import DAY, LEAST_K, MOST_K, OWN, own_week

TILTS = (1.5, 2.0, 3.0, 5.0, 10.0)
THRESHOLD = 1e5
WINDOW, LAG, FEWEST = 168, 24, 120
WEEK, PROFILE_WEEKS, PRIOR_WEEKS = 168, 4, 3
MOST = 1e300
LEARN_FACTOR = 2.0
"""Of an hour that a person calls benign, at most so many times the usual count is learnt."""
_LOG_MOST = 690.0
_FITTED_AT_ONCE = 512  # so many series of a week fit into a processor's cache
_LARGEST_COUNT = float(2**24)  # exact in the float32 that history is kept in
_REQUEST = ((0, 1.0),)

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
    hours, x, s = there.sum(axis=0), history, np.broadcast_to(profile, history.shape)
    if not there.all():
        x, s = np.where(there, x, 0.0), np.where(there, s, 0.0)
    least = np.maximum(hours, 1)
    expected = s.sum(axis=0)
    mean = x.sum(axis=0) / np.maximum(expected, 1e-9)
    off = x - mean * s
    m = mean + 0.1
    excess = np.einsum("i...,i...->...", off, off) / least - m * expected / least
    k = m * m * np.einsum("i...,i...->...", s, s) / least / np.maximum(excess, 0.001)
    return m, np.clip(k, LEAST_K, MOST_K), hours


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
        "learned": Field(fill=-np.inf),
        "pooled": Field((PROFILE_WEEKS * WEEK,), np.nan, by_key=False),
        "profile": Field((WEEK,), 1.0, by_key=False),
        "own": Field((OWN,), 1.0, "<f4"),
    }  # fmt: skip

    def __init__(self, signals: int, *, threshold: float = THRESHOLD) -> None:
        super().__init__(signals)
        self._threshold = threshold
        self._alike: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None = None

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take the counts of an hour; once a day the fits are made anew."""
        a = self.arrays
        x = np.minimum(np.floor(amounts), _LARGEST_COUNT)
        a["history"][hour % len(a["history"])] = x
        a["pooled"][hour % len(a["pooled"])] = x.sum(axis=0)
        crossings = list(self._judge(hour, x))
        if (hour + 1) % 24 == 0:
            self._fit(hour)
        return crossings

    def _judge(self, hour: int, x: Floats) -> Iterator[Crossing]:
        a = self.arrays
        statistic = a["statistic"]
        a["since"][statistic < 1] = hour
        fitted = ~np.isnan(a["m"])  # what has no fit yet stays at 0
        if fitted.any():
            np.copyto(statistic, np.minimum((1 + statistic) * self._ratios(hour, x), MOST), where=fitted)
        for row, signal in np.argwhere(statistic >= self._threshold):
            since, kept, reached = int(a["since"][row, signal]), len(a["history"]), float(statistic[row, signal])
            statistic[row, signal] = 0.0
            inside = np.arange(max(since, hour - kept + 1), hour + 1)
            usual = a["m"][row, signal] * self._factors(inside, row, signal)
            held = np.minimum(a["history"][inside % kept, row, signal], LEARN_FACTOR * usual)
            # Hours inside an alarm are no model of what is usual.
            a["history"][inside % kept, row, signal] = np.nan
            yield Crossing(int(row), int(signal), reached, since, tuple(held.tolist()))

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
        a["history"][np.arange(hour + 1 - len(at.held), hour + 1) % kept, row, signal] = at.held

    def _fit(self, hour: int) -> None:
        """Fit to the hours that end LAG before now; who has too few keeps the fit it had."""
        a = self.arrays
        # The ring is whole weeks long: its places are hours of the week.
        if np.isnan(a["pooled"].reshape(-1, WEEK, self.signals)).all(axis=0).any():
            return  # working hours would look like a rise
        a["profile"][:] = hour_of_week_profile(a["pooled"], a["m"].shape[0])
        hours = np.arange(hour + 1 - LAG - WINDOW, hour + 1 - LAG)
        profile, places = a["profile"][hours % WEEK], hours % len(a["history"])
        series = a["history"].reshape(len(a["history"]), -1)
        highest = series[places[0]].copy()
        for place in places[1:]:
            np.maximum(highest, series[place], out=highest)
        # Who counted nothing, in no hour that is left out, has the fit of all others of whom that is so.
        every = np.arange(len(highest))
        _, first, which = np.unique(
            np.where(highest != 0, every, -1 - every % self.signals), return_index=True, return_inverse=True
        )
        parts = [
            _fit_own(series[np.ix_(places, some)].astype(np.float64), profile[:, some % self.signals], hours % WEEK)
            for some in np.array_split(first, 1 + len(first) // _FITTED_AT_ONCE)
        ]
        m, k, counted, own = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        # A profile of few principals errs: the mean is raised by two standard errors of a factor of it.
        weeks, rows = (~np.isnan(a["pooled"])).sum(axis=0) / WEEK, len(a["m"])
        m *= 1 + 2 * np.sqrt((1 / k + 1 / m) / (weeks[first % self.signals] * rows + PRIOR_WEEKS))
        enough = (counted >= FEWEST)[which].reshape(rows, -1)
        for name, found in (("m", m), ("k", k), ("own", own)):
            np.copyto(a[name], found[..., which].reshape(a[name].shape), where=enough)
        self._alike = None

    def _factors(
        self, hours: int | npt.NDArray[np.intp], row: int | slice = slice(None), signal: int | slice = slice(None)
    ) -> Floats:
        """Return by how much hours differ from the mean: for all, and for each principal."""
        at, own = np.mod(hours, WEEK), self.arrays["own"]
        found: Floats = (
            self.arrays["profile"][at, signal] * own[at % DAY, row, signal] * own[DAY + at // DAY, row, signal]
        )
        return found

    def _ratios(self, hour: int, x: Floats) -> Floats:
        """Return the likelihood ratio of every count: that of 0 once for all of a signal with the same fit."""
        a, rows = self.arrays, len(x)
        if self._alike is None:
            self._alike = _alike(a["m"], a["k"], a["own"])
        first, which = self._alike  # whoever came since has no fit yet
        m, k = (a["m"] * self._factors(hour)).ravel(), a["k"].ravel()
        found = np.full(x.size, np.nan)
        found[: len(which)] = likelihood_ratio(np.zeros(len(first)), m[first], k[first])[which]
        busy = np.flatnonzero(x)
        found[busy] = likelihood_ratio(x.ravel()[busy], m[busy], k[busy])
        return found.reshape(rows, -1)


def _fit_own(
    history: Floats, profile: Floats, places: npt.NDArray[np.intp]
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Return mean, dispersion and number of hours as :func:`fit` does, and the own factors of each series."""
    own = own_week(history, profile, places)
    m, k, hours = fit(history, profile * own.usual)
    return m, np.minimum(k, own.most_k), hours, own.factors


def _alike(m: Floats, k: Floats, own: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the place of the first of each kind, and the kind of each place.

    One kind are equal fits of a signal whose week is that of all.
    """
    every = np.arange(m.size)
    alone = np.where((own != 1).any(axis=0).ravel(), every, -1)
    kinds = np.stack([k.ravel(), m.ravel(), alone, every % m.shape[1]])
    order = np.lexsort(kinds)
    ordered = kinds[:, order]
    is_first = np.append(True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0))[: m.size]
    which = np.empty(m.size, np.intp)
    which[order] = np.cumsum(is_first) - 1
    return order[is_first], which


def read_rates(event: Event) -> Added:
    """Return what an entry adds to the counts of its principal, in the order of :data:`SIGNALS`."""
    detail, phase = event.detail, event.phase
    if isinstance(detail, Intent):
        return _REQUEST
    if isinstance(detail, Outcome):
        tokens, bits = (detail.prompt_tokens + detail.completion_tokens) / 1000, detail.logprob_bits / 1000
        if phase != "denied":
            return ((1, tokens), (4, bits))
        refused = float(detail.refused)
        return ((1, tokens), (2, refused), (3, refused * (detail.error == "budget-exhausted")), (4, bits))
    if event.kind.startswith(("gateway.", "watch.")):
        return ()
    column = 2 if phase == "denied" else 5
    return ((column, float(phase != "outcome")), (6, event.egress / 2**20))


def rate_detector() -> HourlyDetector:
    """Return D2: requests, tokens, refusals, and what insiders do in the workspace."""
    reading = Reading(len(SIGNALS), read_rates, Severity.MEDIUM, Containment.LOWER_BUDGET)
    return HourlyDetector("D2", SIGNALS, PROMISE, reading, RateBank)
