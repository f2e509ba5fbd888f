"""D3: what a principal never did before: a new network, key, model, hour of day. One judgement a day over everybody.

Each principal's day has a score; conformal e-values compare the day's scores with those of the last 30 days, and e-BH
reports principals at a false discovery rate of at most α if days are exchangeable (Wang and Ramdas 2022, "False
discovery rate control with e-values"; Bashari, Epstein, Romano, Sesia 2023).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from stanch.crypto import canonical_json, sha256
from stanch.terms import JsonValue
from stanch.watch.alarm import Alarm, Severity
from stanch.watch.counts import HOUR, Floats
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.events import Closing, Event, Intent

DAY = 24 * HOUR
ALPHA = 0.05
CALIBRATION_DAYS = 30
LEAST_BITS = 6.0
ATTRIBUTES = ("model", "adapter", "network", "key", "client", "hours", "act", "artifact")
_MOST_VALUES = 1024
_OTHERS = ""
"""Stands for every value beyond the first so many of an attribute: a flood of values has no room to grow in."""
_MOST_EVIDENCE = 32

Values: TypeAlias = dict[str, dict[str, float]]
"""How often each value of each attribute was seen."""


def surprise(count: float, total: float, distinct: int) -> float:
    """Return −log2 of the smoothed share of a value that was seen ``count`` times in ``total``."""
    return -math.log2((count + 0.5) / (total + 0.5 * (distinct + 1)))


def day_score(seen: Mapping[str, Mapping[str, float]], today: Mapping[str, Mapping[str, float]]) -> tuple[float, str]:
    """Return a day's surprise and the attribute that has the largest part of it.

    Of each attribute the most surprising value counts, and nothing below 6 bits. The attributes are added up: one
    novelty a day is what people do, a new network at a new hour is not.
    """
    score, best, which = 0.0, 0.0, ""
    for attribute, values in today.items():
        past = seen.get(attribute, {})
        total = sum(past.values())
        bits = max(surprise(past.get(value, 0.0), total, len(past)) for value in values)
        if bits >= LEAST_BITS:
            score += bits
            best, which = max((best, which), (bits, attribute))
    return score, which


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


class DayBook:
    """What each principal did on earlier days, and the scores of the last 30 days.

    Attributes:
        seen: Values of each principal. All counts fade by a thirtieth a day, so that the score of a new value does not
            grow with the age of the principal: days stay comparable.
        scores: The last days, and the score of each principal on them.
        born: Day each principal was first seen; who is younger than the calibration is long is not judged yet.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Values] = {}
        self.born: dict[str, int] = {}
        self.scores: list[tuple[int, dict[str, float]]] = []

    def confirm(self, day: int, who: str) -> None:
        """Take a day that was found to be an attack out of the calibration, or it would hide the next one."""
        for known, scores in self.scores:
            if known == day:
                scores.pop(who, None)

    def close(self, day: int, today: Mapping[str, Values], alpha: float = ALPHA) -> list[tuple[str, str, float, float]]:
        """Judge a day: (principal, attribute, score, threshold) of each that is reported; then learn the day."""
        judged = [who for who in today if self.born.setdefault(who, day) + CALIBRATION_DAYS <= day]
        found = {who: day_score(self.seen[who], today[who]) for who in judged}
        reported: list[tuple[str, str, float, float]] = []
        calibration = np.array([score for _, scores in self.scores for score in scores.values()])
        if judged and len(self.scores) == CALIBRATION_DAYS:
            threshold, values = e_values(calibration, np.array([found[who][0] for who in judged]), alpha)
            for at in e_bh(values, alpha):
                who = judged[at]
                reported.append((who, found[who][1], found[who][0], threshold))
        if judged:
            self.scores = [*self.scores, (day, {who: found[who][0] for who in judged})][-CALIBRATION_DAYS:]
        self._learn(today)
        return reported

    def _learn(self, today: Mapping[str, Values]) -> None:
        keep = 1 - 1 / CALIBRATION_DAYS
        for who, attributes in today.items():
            seen = self.seen.setdefault(who, {})
            for attribute, values in attributes.items():
                past = {value: count * keep for value, count in seen.get(attribute, {}).items()}
                for value, count in values.items():
                    known = value if value in past or len(past) < _MOST_VALUES else _OTHERS
                    past[known] = past.get(known, 0.0) + count
                seen[attribute] = {value: count for value, count in past.items() if count >= 0.01}


def values_of(event: Event) -> Iterator[tuple[str, str]]:
    """Yield attribute and value of what an entry shows of its principal."""
    if event.phase not in {"intent", "note"} or event.kind.startswith(("watch.", "gateway.window", "gateway.refused")):
        return
    weekday, hour = (event.time // DAY + 3) % 7, event.time % DAY // HOUR
    yield "hours", f"{'weekend' if weekday >= 5 else 'week'} {hour // 6}"
    if event.key:
        yield "key", event.key
    if isinstance(event.detail, Intent):
        yield "model", event.model
        yield "client", event.detail.dialect
        yield "network", event.detail.network
        yield from (("adapter", name) for name in event.detail.adapters)
    else:
        yield "act", event.kind
        yield from (("artifact", digest) for digest in event.subjects[:16])


class _Saved(Struct):
    day: int = -1
    today: dict[str, Values] = {}
    evidence: dict[str, list[int]] = {}
    seen: dict[str, Values] = {}
    born: dict[str, int] = {}
    scores: list[tuple[int, dict[str, float]]] = []
    alerts: dict[str, tuple[int, str]] = {}


_DECODER = msgspec.msgpack.Decoder(_Saved)


class FirstSeenDetector:
    """D3."""

    name = "D3"
    signals = ATTRIBUTES
    promise = FalseAlarm(
        Measure.FALSE_DISCOVERY, ALPHA, "day",
        f"{CALIBRATION_DAYS} days of the principal, and {CALIBRATION_DAYS} days of others after that",
    )  # fmt: skip

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        if not entries:
            return state, []
        saved = _DECODER.decode(state) if state else _Saved()
        book = DayBook()
        book.seen, book.born, book.scores = saved.seen, saved.born, saved.scores
        alarms: list[Alarm] = []
        for event in entries:
            day = event.time // DAY
            if day > saved.day:
                alarms += self._close(saved, book)
                saved.day = day
            if (
                isinstance(event.detail, Closing)
                and event.detail.conclusion == "true"
                and event.detail.alert in saved.alerts
            ):
                book.confirm(*saved.alerts[event.detail.alert])
            for attribute, value in values_of(event):
                values = saved.today.setdefault(event.principal, {}).setdefault(attribute, {})
                known = value if value in values or len(values) < _MOST_VALUES else _OTHERS
                values[known] = values.get(known, 0.0) + 1
                evidence = saved.evidence.setdefault(event.principal, [])
                if len(evidence) < _MOST_EVIDENCE and event.index not in evidence[-1:]:
                    evidence.append(event.index)
        saved.seen, saved.born, saved.scores = book.seen, book.born, book.scores
        return msgspec.msgpack.encode(saved), alarms

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
        oldest = saved.day - CALIBRATION_DAYS
        saved.alerts = {key: found for key, found in saved.alerts.items() if found[0] >= oldest}
        saved.alerts |= {alert_key(alarm): (saved.day, alarm.principal or "") for alarm in alarms}
        return alarms


def alert_key(alarm: Alarm) -> str:
    """Return the id of the alert that an alarm becomes: half of SHA-256 over what it is about, in hex."""
    about: list[JsonValue] = [alarm.detector, alarm.principal, alarm.model, alarm.window_start]
    return sha256(canonical_json(about))[:16].hex()


def fewest_scores(principals: int, alpha: float = ALPHA) -> int:
    """Return how many calibration scores must be there before one of so many principals can be reported alone."""
    return math.ceil(principals / alpha) - 1
