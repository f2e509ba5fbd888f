"""D1 and D5: what left or nearly left: canaries, secrets and runs of training text; shares of the protected windows.

D1 is exact: the guard found it. D5 has two parts: a cap on what a principal may draw, which is no statistic, and the
rate of lone index hits, of which chance gives a known number a character: a Poisson mixture e-SR with nothing fitted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec
import numpy as np
from msgspec import Struct

from stanch.watch.alarm import Alarm, Containment, Severity
from stanch.watch.counts import HOUR, Added, Bank, Crossing, Field, Floats, HourlyDetector, Reading
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.esr import MOST, THRESHOLD
from stanch.watch.events import Event, Outcome

FILL = 2.7e-4
"""Chance of an index hit in one folded character of text that holds none of the corpus (16-bit fingerprints)."""

TILTS = (2.0, 4.0, 8.0, 16.0)
CAP, STEPS = 256, (0.5, 0.8, 1.0)
_SHARE = ("half of the leak cap", "80 % of the leak cap", "leak cap")
_LOG_MOST = 690.0


def lone_ratio(x: Floats, expected: Floats) -> Floats:
    """Return the mean over g of Poisson(g·λ) against Poisson(λ) at ``x`` lone hits, where chance gives λ."""
    total = np.zeros(np.broadcast(x, expected).shape)
    for g in TILTS:
        total += np.exp(np.minimum(x * np.log(g) - (g - 1) * expected, _LOG_MOST))
    return total / len(TILTS)


class LoneHitBank(Bank):
    """The statistic of every principal; hours in which nothing was answered leave it as it is."""

    fields: ClassVar[Mapping[str, Field]] = {"statistic": Field(), "since": Field()}

    def __init__(self, signals: int, *, threshold: float = THRESHOLD, fill: float = FILL) -> None:
        super().__init__(signals)
        self._threshold = threshold
        self._fill = fill

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take lone hits and folded characters of an hour."""
        statistic, since = self.arrays["statistic"], self.arrays["since"]
        since[statistic < 1] = hour
        rows = np.flatnonzero(amounts[:, 1])
        x, n = amounts[rows, :1], amounts[rows, 1:]
        statistic[rows] = np.minimum((1 + statistic[rows]) * lone_ratio(x, n * self._fill), MOST)
        found = np.flatnonzero(statistic[:, 0] >= self._threshold)
        crossings = [Crossing(int(row), 0, float(statistic[row, 0]), int(since[row, 0])) for row in found]
        statistic[found] = 0.0
        return crossings


def read_lone_hits(event: Event) -> Added:
    """Return the lone hits and the folded characters of an answer."""
    detail = event.detail
    if not isinstance(detail, Outcome) or event.phase != "outcome" or not detail.folded_chars:
        return ()
    return ((0, float(detail.lone)), (1, float(detail.folded_chars)))


def lone_hit_detector() -> HourlyDetector:
    """Return the statistical part of D5."""
    promise = FalseAlarm(Measure.RUN_LENGTH, THRESHOLD, "hours with answers of one principal", "nothing")
    reading = Reading(2, read_lone_hits, Severity.HIGH, Containment.LOWER_BUDGET)
    return HourlyDetector("D5", ("lone index hits",), promise, reading, LoneHitBank)


class FindingDetector:
    """D1: each answer in which the guard found a canary, a secret that blocks, or a run of training text."""

    name = "D1"
    signals = ("canary", "training-text", "secret")
    # Two chance hits in a chain, a character; a canary has 60 bits or more.
    promise = FalseAlarm(Measure.RATE, FILL * FILL, "character that was answered", "nothing")

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Nothing has to be remembered: the state stays empty."""
        return state, [alarm for event in entries for alarm in self._read(event)]

    def _read(self, event: Event) -> Iterable[Alarm]:
        detail = event.detail
        if not isinstance(detail, Outcome) or not detail.findings:
            return
        counts = {"canary": 0, "training-text": 0, "secret": 0}
        for kind, count in detail.findings.items():
            if kind in counts:
                counts[kind] += count
            elif detail.verdict == "block":
                counts["secret"] += count
        for signal, count in counts.items():
            if count:
                is_canary = signal == "canary"
                yield Alarm(
                    detector=self.name, signal=signal, principal=event.principal, model=event.model or None,
                    window_start=event.time // HOUR * HOUR, at=event.time,
                    severity=Severity.CRITICAL if is_canary else Severity.HIGH,
                    statistic=float(count), threshold=1.0, entries=(event.index,),
                    containment=Containment.QUARANTINE_MODEL if is_canary else Containment.LOWER_BUDGET,
                )  # fmt: skip


class _Drawn(Struct):
    sums: dict[str, int] = {}


_DECODER = msgspec.msgpack.Decoder(_Drawn)


class LeakCapDetector:
    """D5: the protected windows that a principal drew from a model, against half, 80 % and all of the cap.

    The sum over answers counts a window that was drawn twice twice: the alarm comes early, never late.
    """

    name = "D5-cap"
    signals = _SHARE
    promise = FalseAlarm(Measure.EXACT, 0.0, "", "nothing")

    def __init__(self, cap: int = CAP) -> None:
        self._steps = tuple(share * cap for share in STEPS)

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        alarms: list[Alarm] = []
        saved: _Drawn | None = None
        for event in entries:
            if not isinstance(event.detail, Outcome) or not event.detail.drawn:
                continue
            saved = saved or (_DECODER.decode(state) if state else _Drawn())
            key = f"{event.principal} {event.model}"
            before = saved.sums.get(key, 0)
            after = saved.sums[key] = before + event.detail.drawn
            passed = [at for at, step in enumerate(self._steps) if before < step <= after]
            alarms += [self._alarm(event, passed[-1], after)] if passed else []
        return state if saved is None else msgspec.msgpack.encode(saved), alarms

    def _alarm(self, event: Event, step: int, drawn: int) -> Alarm:
        return Alarm(
            detector=self.name, signal=_SHARE[step], principal=event.principal, model=event.model or None,
            window_start=event.time // HOUR * HOUR, at=event.time, severity=Severity.HIGH, statistic=float(drawn),
            threshold=self._steps[step], entries=(event.index,), containment=Containment.LOWER_BUDGET,
        )  # fmt: skip
