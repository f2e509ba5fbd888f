"""D1 and D5: what left or nearly left: canaries, secrets and runs of training text; shares of the protected windows.

D1 is exact: the guard found it. D5 has two parts: a cap on what a principal may draw, which is no statistic, and the
rate of lone index hits, of which chance gives a known number a character: a Poisson mixture e-SR with nothing fitted.
The index says that number. A window counts once for a principal: an answer that comes again, or a phrase of many
answers, is no new evidence.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stanch.crypto import sha256
from stanch.watch.alarm import Alarm, Containment, Severity
from stanch.watch.counts import HOUR, Added, Bank, Crossing, Field, Floats, HourlyDetector, Reading
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.esr import MOST, THRESHOLD
from stanch.watch.events import Event, Outcome

FILL = 6.5e-4
"""Chance of an index hit in one folded character of text that holds none of the corpus (17 bits a window)."""
CROWD, WIDTH = 5, 512
"""So many hits within so many characters cut an answer, chained or not."""
REMEMBERED = 256
"""Lone windows that are known again of each principal, those that came last."""
_KNOWN_BY = 4  # bytes of a window's digest

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

    def __init__(self, signals: int, *, threshold: float = THRESHOLD) -> None:
        super().__init__(signals)
        self._threshold = threshold

    def close(self, hour: int, amounts: Floats) -> list[Crossing]:
        """Take the lone hits of an hour, and how many chance gives."""
        statistic, since = self.arrays["statistic"], self.arrays["since"]
        since[statistic < 1] = hour
        rows = np.flatnonzero(amounts[:, 1])
        x, expected = amounts[rows, :1], amounts[rows, 1:]
        statistic[rows] = np.minimum((1 + statistic[rows]) * lone_ratio(x, expected), MOST)
        found = np.flatnonzero(statistic[:, 0] >= self._threshold)
        crossings = [Crossing(int(row), 0, float(statistic[row, 0]), int(since[row, 0])) for row in found]
        statistic[found] = 0.0
        return crossings


def read_lone_hits(event: Event) -> Added:
    """Return the lone hits of an answer, and how many chance gives."""
    detail = event.detail
    if not isinstance(detail, Outcome) or event.phase != "outcome" or not detail.folded_chars:
        return ()
    expected = detail.folded_chars * FILL if detail.lone_expected is None else detail.lone_expected / 1e6
    return ((0, float(detail.lone)), (1, expected))


class _Remembered(Struct):
    hourly: bytes = b""
    seen: dict[str, bytes] = {}


_REMEMBERED = msgspec.msgpack.Decoder(_Remembered)


class LoneHitDetector(HourlyDetector):
    """The statistical part of D5. Of each principal it knows the last windows again."""

    def __init__(self) -> None:
        promise = FalseAlarm(Measure.RUN_LENGTH, THRESHOLD, "hours with answers of one principal", "nothing")
        reading = Reading(2, read_lone_hits, Severity.HIGH, Containment.LOWER_BUDGET)
        super().__init__("D5", ("lone index hits",), promise, reading, LoneHitBank)

    def step(self, state: bytes, entries: Sequence[Event]) -> tuple[bytes, list[Alarm]]:
        """Take entries in the order of the log; see :class:`stanch.watch.detector.Detector`."""
        if not entries:
            return state, []
        saved = _REMEMBERED.decode(state) if state else _Remembered()
        fresh = [_without_seen(event, saved.seen) for event in entries]
        saved.hourly, alarms = super().step(saved.hourly, fresh)
        return msgspec.msgpack.encode(saved), alarms


def _without_seen(event: Event, seen: dict[str, bytes]) -> Event:
    """Return an answer with those of its lone hits that are new of its principal; they are ``seen`` then."""
    detail = event.detail
    if not isinstance(detail, Outcome) or not detail.lone_windows:
        return event
    held, size = seen.get(event.principal, b""), _KNOWN_BY
    known = dict.fromkeys(held[at : at + size] for at in range(0, len(held), size))
    new = 0
    for digest in detail.lone_windows:
        window = sha256(digest.encode())[:size]
        new += window not in known
        known.pop(window, None)
        known[window] = None  # as the last one
    seen[event.principal] = b"".join(known)[-REMEMBERED * size :]
    return replace(event, detail=replace(detail, lone=new))


def chance_run(fill: float) -> float:
    """Return how likely a character of unrelated text ends a run: two chained hits, or five that stand close."""
    others = (WIDTH - 1) * fill
    few = sum(math.exp(-others) * others**n / math.factorial(n) for n in range(CROWD - 1))
    return fill * fill + fill * (1 - few)


class FindingDetector:
    """D1: each answer in which the guard found a canary, a secret that blocks, or a run of training text."""

    name = "D1"
    signals = ("canary", "training-text", "secret")
    # A canary has 60 bits or more.
    promise = FalseAlarm(Measure.RATE, chance_run(FILL), "character that was answered", "nothing")

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
