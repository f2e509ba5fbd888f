"""D3: what a principal never did before: a new network, key, model, hour of day. One judgement a day over everybody.

Each principal's day has a score; conformal e-values compare the day's scores with those of the last 30 days, and e-BH
reports principals at a false discovery rate of at most α if days are exchangeable (Wang and Ramdas 2022, "False
discovery rate control with e-values"; Bashari, Epstein, Romano, Sesia 2023). How rare a surprise is, is counted among
the days of both together: a score that does not know which is which keeps the rate (Marandon, Lei, Mary, Roquain 2024,
"Adaptive novelty detection with false discovery rate guarantee").
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import Raw, Struct

from stanch.watch.alarm import Alarm, Severity
from stanch.watch.counts import HOUR, Floats
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.events import Closing, Event, Intent

DAY = 24 * HOUR
ALPHA = 0.05
CALIBRATION_DAYS = 30
LEAST_BITS = 6.0
ATTRIBUTES = ("model", "adapter", "network", "key", "client", "tool", "hours", "act", "artifact")
_MOST_VALUES = 1024
_OTHERS = ""
"""Stands for every value beyond the first so many of an attribute: a flood of values has no room to grow in."""
_MOST_EVIDENCE = 32
_BANDS = tuple(
    f"{'weekend' if weekday >= 5 else 'week'} {hour // 6}" for weekday in range(7) for hour in range(24)
)  # fmt: skip
"""Of each hour of the week, from Monday on."""

Values: TypeAlias = dict[str, dict[str, float]]
"""How often each value of each attribute was seen."""

Bits: TypeAlias = dict[str, float]
"""How surprising a day is in each attribute; those below 6 bits are left out."""


def surprise(count: float, total: float, distinct: int) -> float:
    """Return −log2 of the smoothed share of a value that was seen ``count`` times in ``total``."""
    return -math.log2((count + 0.5) / (total + 0.5 * (distinct + 1)))


def day_bits(seen: Mapping[str, Mapping[str, float]], today: Mapping[str, Mapping[str, float]]) -> Bits:
    """Return the surprise of a day in each attribute, that of its most surprising value."""
    found = {}
    for attribute, values in today.items():
        past = seen.get(attribute, {})
        rarest = min(past.get(value, 0.0) for value in values)
        bits = surprise(rarest, sum(past.values()), len(past))
        if bits >= LEAST_BITS:
            found[attribute] = bits
    return found


class ScoredDay(Struct, array_like=True):
    """A day of the calibration: how many principals were judged, and the bits of those that were surprising."""

    day: int
    judged: int
    bits: dict[str, Bits]


def day_scores(days: Sequence[Bits], total: int) -> list[float]:
    """Return the score of each surprising day: −log2 of how rare it is, added up over its attributes.

    One novelty is what people do now and then, and a new key rarer than a new network, or the other way round: of each
    attribute it counts what share of all ``total`` days is as surprising in it.
    """
    known: dict[str, list[float]] = {}
    for bits in days:
        for attribute, value in bits.items():
            known.setdefault(attribute, []).append(value)
    ordered = {attribute: np.sort(values) for attribute, values in known.items()}
    return [
        sum(
            math.log2(total / (len(ordered[attribute]) - int(np.searchsorted(ordered[attribute], value))))
            for attribute, value in bits.items()
        )
        for bits in days
    ]


def e_values(calibration: Floats, test: Floats, alpha: float) -> tuple[float, Floats]:
    """Return the threshold T (infinite if there is none) and the conformal e-value of each test score."""
    n, m = len(calibration), len(test)
    ordered, tested = np.sort(calibration), np.sort(test)
    candidates = np.unique(np.concatenate([calibration, test]))
    above_calibration = n - np.searchsorted(ordered, candidates, side="left")
    above_test = m - np.searchsorted(tested, candidates, side="left")
    share = m / (n + 1) * (1 + above_calibration) / np.maximum(above_test, 1)
    good = np.flatnonzero((share <= alpha) & (above_test > 0))
    if not len(good):
        return math.inf, np.zeros(m)
    threshold = float(candidates[good[0]])
    value = (n + 1) / (1 + int(above_calibration[good[0]]))
    return threshold, np.where(test >= threshold, value, 0.0)


def e_bh(values: Floats, alpha: float) -> list[int]:
    """Return which hypotheses e-BH rejects at level α."""
    order = np.argsort(-values, kind="stable")
    m = len(values)
    good = np.flatnonzero(values[order] >= m / (alpha * np.arange(1, m + 1)))
    return sorted(int(i) for i in order[: good[-1] + 1]) if len(good) else []


def fewest_scores(principals: int, alpha: float = ALPHA) -> int:
    """Return how many calibration scores must be there before one of so many principals can be reported alone."""
    return math.ceil(principals / alpha) - 1


class Reach(NamedTuple):
    """Whether D3 can report anybody: whom it judged on its last day, its calibration, and how large that must be."""

    judged: int
    scores: int
    fewest: int

    @property
    def told(self) -> str:
        """The same in one sentence."""
        if not self.judged:
            return f"Nobody was judged yet: that begins after {CALIBRATION_DAYS} days of a principal."
        return (
            f"One of {self.judged:,} principals can be reported alone from {self.fewest:,} days of calibration on "
            f"(n + 1 ≥ m / α, α = {ALPHA:g}); there are {self.scores:,}."
        )


def reach_of(state: bytes) -> Reach:
    """Return how far D3's saved state reaches; with fewer days it reports nobody, whatever they do."""
    days = msgspec.msgpack.decode(state, type=_Days).days if state else []
    judged = days[-1].judged if days else 0
    return Reach(judged, sum(one.judged for one in days), fewest_scores(judged) if judged else 0)


class _Days(Struct):
    """The part of the saved state that :func:`reach_of` reads."""

    days: list[ScoredDay] = []


class DayBook:
    """What each principal did on earlier days, and how surprising the last 30 days were.

    Attributes:
        seen: Values of each principal, as :data:`Values` in msgpack: on most days most of them are not looked at. All
            counts fade by a thirtieth a day, so that the surprise of a new value does not grow with the age of the
            principal: days stay comparable.
        days: The last days on which somebody was judged.
        born: Day each principal was first seen; who is younger than the calibration is long is not judged yet.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Raw] = {}
        self.born: dict[str, int] = {}
        self.days: list[ScoredDay] = []

    def confirm(self, who: str, first: int, last: int) -> None:
        """Take days that were found to be an attack out of the calibration, or they would hide the next one."""
        for scored in self.days:
            if first <= scored.day <= last and scored.bits.pop(who, None) is not None:
                scored.judged -= 1

    def close(self, day: int, today: Mapping[str, Values], alpha: float = ALPHA) -> list[tuple[str, str, float, float]]:
        """Judge a day: (principal, attribute, score, threshold) of each that is reported; then learn the day.

        The attribute is the one that has the largest part of the score.
        """
        seen = {who: _VALUES.decode(self.seen[who]) if who in self.seen else {} for who in today}
        judged = {who for who in today if self.born.setdefault(who, day) + CALIBRATION_DAYS <= day}
        bits = {who: found for who in today if who in judged and (found := day_bits(seen[who], today[who]))}
        reported: list[tuple[str, str, float, float]] = []
        if bits and len(self.days) == CALIBRATION_DAYS:
            reported = self._judge(bits, len(judged), alpha)
        if judged:
            self.days = [*self.days, ScoredDay(day, len(judged), bits)][-CALIBRATION_DAYS:]
        for who, values in today.items():
            self.seen[who] = Raw(_ENCODER.encode(_learnt(seen[who], values)))
        return reported

    def _judge(self, today: Mapping[str, Bits], judged: int, alpha: float) -> list[tuple[str, str, float, float]]:
        past = [bits for scored in self.days for bits in scored.bits.values()]
        days = sum(scored.judged for scored in self.days)
        scores = np.array(day_scores([*past, *today.values()], days + judged))
        # Whoever did nothing new has the score 0.
        calibration, test = np.zeros(days), np.zeros(judged)
        calibration[: len(past)], test[: len(today)] = scores[: len(past)], scores[len(past) :]
        threshold, values = e_values(calibration, test, alpha)
        found = list(today.items())
        return [
            (found[at][0], max(found[at][1], key=found[at][1].__getitem__), float(test[at]), threshold)
            for at in e_bh(values, alpha)
        ]


def _learnt(seen: Values, today: Values) -> Values:
    """Return what was seen with a day added to it."""
    keep = 1 - 1 / CALIBRATION_DAYS
    for attribute, values in today.items():
        past = {value: faded for value, count in seen.get(attribute, {}).items() if (faded := count * keep) >= 0.01}
        for value, count in values.items():
            _count(past, value, count)
        seen[attribute] = past
    return seen


def _count(counts: dict[str, float], value: str, more: float) -> None:
    if value in counts:
        counts[value] += more
    else:
        known = value if len(counts) < _MOST_VALUES else _OTHERS
        counts[known] = counts.get(known, 0.0) + more


def values_of(event: Event) -> Iterator[tuple[str, str]]:
    """Yield attribute and value of what an entry shows of its principal."""
    if event.phase not in {"intent", "note"} or event.kind.startswith(("watch.", "gateway.window", "gateway.refused")):
        return
    yield "hours", _BANDS[(event.time // HOUR + 3 * 24) % len(_BANDS)]
    if event.key:
        yield "key", event.key
    detail = event.detail
    if isinstance(detail, Intent):
        yield "model", event.model
        yield "client", detail.dialect
        if detail.client:
            yield "client", detail.client
        yield "network", detail.network
        for name in detail.adapters:
            yield "adapter", name
        for name in detail.tools:
            yield "tool", name
    else:
        yield "act", event.kind
        for digest in event.subjects[:16]:
            yield "artifact", digest


class _Saved(Struct):
    day: int = -1
    today: dict[str, Values] = {}
    evidence: dict[str, list[int]] = {}
    seen: dict[str, Raw] = {}
    born: dict[str, int] = {}
    days: list[ScoredDay] = []


_DECODER = msgspec.msgpack.Decoder(_Saved)
_VALUES = msgspec.msgpack.Decoder(Values)
_ENCODER = msgspec.msgpack.Encoder()


class FirstSeenDetector:
    """D3."""

    name = "D3"
    signals = ATTRIBUTES
    promise = FalseAlarm(
        Measure.FALSE_DISCOVERY, ALPHA, "day",
        f"{CALIBRATION_DAYS} days of the principal, and {CALIBRATION_DAYS} days of others after that; "
        f"where 1,000 are judged, {fewest_scores(1000):,} days of theirs",
    )  # fmt: skip

    def __init__(self) -> None:
        self._last: tuple[bytes, _Saved] | None = None

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        if not entries:
            return state, []
        saved = self._open(state)
        book = DayBook()
        book.seen, book.born, book.days = saved.seen, saved.born, saved.days
        alarms: list[Alarm] = []
        for event in entries:
            day = event.time // DAY
            if day > saved.day:
                alarms += self._close(saved, book)
                saved.day = day
            if isinstance(event.detail, Closing):
                _confirm(book, event.detail)
            values = None
            for attribute, value in values_of(event):
                if values is None:
                    values = _opened(saved, event)
                _count(values.setdefault(attribute, {}), value, 1.0)
        saved.seen, saved.born, saved.days = book.seen, book.born, book.days
        after = _ENCODER.encode(saved)
        self._last = after, saved
        return after, alarms

    def _open(self, state: bytes) -> _Saved:
        """Return what a state holds; what this detector came to last is at hand."""
        last, self._last = self._last, None
        if last is not None and last[0] == state:
            return last[1]
        return _DECODER.decode(state) if state else _Saved()

    def _close(self, saved: _Saved, book: DayBook) -> list[Alarm]:
        reported = book.close(saved.day, saved.today) if saved.today else []
        alarms = [
            Alarm(
                detector=self.name, signal=attribute, principal=who, model=None, window_start=saved.day * DAY,
                at=(saved.day + 1) * DAY, severity=Severity.LOW, statistic=score, threshold=threshold,
                entries=tuple(saved.evidence[who]),
            )
            for who, attribute, score, threshold in reported
        ]  # fmt: skip
        saved.today, saved.evidence = {}, {}
        return alarms


def _opened(saved: _Saved, event: Event) -> Values:
    """Return the values of a principal's day so far, and keep the entry as evidence of it."""
    who = event.principal
    if who not in saved.today:
        saved.today[who], saved.evidence[who] = {}, []
    if len(saved.evidence[who]) < _MOST_EVIDENCE:
        saved.evidence[who].append(event.index)
    return saved.today[who]


def _confirm(book: DayBook, closing: Closing) -> None:
    """Take the days of an alert of any detector out of the calibration once a person called it true."""
    if closing.conclusion == "true" and closing.principal:
        book.confirm(closing.principal, closing.since // DAY, max(closing.since, closing.until - 1) // DAY)
