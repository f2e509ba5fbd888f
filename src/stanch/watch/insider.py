"""The scenario ``insider30d``: six people who take a month over it, among many who do not.

Sixty quiet days, then thirty in which six principals do each one thing: copy in bulk, drip slowly, come at night from a
new host, copy the model by its answers, probe for the corpus, drain budgets.
"""

import math
from dataclasses import dataclass

import numpy as np

from stanch.errors import InvalidInput
from stanch.terms import SILENT, JsonValue, Progress
from stanch.watch import synth
from stanch.watch.counts import Floats
from stanch.watch.esr import SIGNALS, RateBank
from stanch.watch.firstseen import CALIBRATION_DAYS, DayBook
from stanch.watch.leak import FILL, LoneHitBank
from stanch.watch.mmd import WindowBook
from stanch.watch.simulate import play
from stanch.watch.synth import Generator

QUIET_DAYS, ATTACK_DAYS = 60, 30
_START = QUIET_DAYS * 24
TRACES = (
    "bulk copy", "slow drip", "off-hours from a new host", "model extraction", "prefix probing", "budget draining",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trace:
    """One of the six: which detector saw it first, after how many hours, and which others did."""

    name: str
    detector: str
    hours: float
    others: tuple[str, ...]

    @property
    def is_found(self) -> bool:
        """Whether any detector saw it within the 30 days."""
        return math.isfinite(self.hours)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the values."""
        hours = self.hours if self.is_found else None
        return {"trace": self.name, "detector": self.detector, "hours": hours, "others": list(self.others)}


@dataclass(frozen=True, slots=True)
class Scenario:
    """The six traces, and how many false alarms a day all others together gave, by detector."""

    principals: int
    days: int
    traces: tuple[Trace, ...]
    false_a_day: dict[str, float]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the values."""
        return {
            "principals": self.principals, "days": self.days, "traces": [trace.to_json() for trace in self.traces],
            "false_alarms_a_day": {name: round(rate, 4) for name, rate in self.false_a_day.items()},
        }  # fmt: skip


def play_insiders(principals: int = 1000, *, seed: int, progress: Progress = SILENT) -> Scenario:
    """Play the scenario.

    Raises:
        InvalidInput: Too few principals to hide among.
    """
    if not 50 <= principals <= 20_000:
        raise InvalidInput(f"scenario: expected 50 to 20,000 principals, found {principals}")
    generator = np.random.default_rng([seed, 30])
    hours = _START + ATTACK_DAYS * 24
    found = {
        "D2": play(RateBank(len(SIGNALS)), _rates(generator, principals, hours), "m", progress, "D2 counts")[0],
        "D3": _new_values(generator, principals, progress),
        "D4": _windows(generator, principals, progress),
        "D5": play(LoneHitBank(1), _lone(generator, principals, hours), None, progress, "D5 lone hits")[0],
        "D6": play(RateBank(1), _probes(generator, principals, hours), "m", progress, "D6 probes")[0],
    }
    traces = tuple(_trace(row, name, found) for row, name in enumerate(TRACES))
    others = {name: alarms[alarms[:, 1] >= len(TRACES)] for name, alarms in found.items()}
    days = QUIET_DAYS + ATTACK_DAYS
    return Scenario(principals, days, traces, {name: len(alarms) / days for name, alarms in others.items()})


def _trace(row: int, name: str, found: dict[str, Floats]) -> Trace:
    """Return when each detector saw a principal, from the first hour of the attack on."""
    seen: list[tuple[float, str]] = []
    for detector, alarms in found.items():
        hours = alarms[(alarms[:, 1] == row) & (alarms[:, 0] >= _START), 0]
        seen += [(float(hours.min()) - _START + 1, detector)] if len(hours) else []
    seen.sort()
    first = seen[0] if seen else (math.inf, "")
    return Trace(name, first[1], first[0], tuple(detector for _, detector in seen[1:]))


def _rates(generator: Generator, principals: int, hours: int) -> Floats:
    """Return the hourly amounts of all signals of D2."""
    profile = synth.working_week()
    amounts = np.zeros((hours, principals, len(SIGNALS)))
    amounts[:, :, 0] = synth.hourly_counts(generator, principals, hours, profile=profile)
    amounts[:, :, 1] = np.floor(amounts[:, :, 0] * generator.uniform(0.2, 2.0, principals))
    amounts[:, :, 2] = generator.poisson(0.02, (hours, principals))
    amounts[:, :, 5] = synth.hourly_counts(generator, principals, hours, scale=0.2, profile=profile)
    amounts[:, :, 6] = np.floor(amounts[:, :, 5] * 3)
    night = np.arange(_START, hours)[np.arange(_START, hours) % 24 == 2]
    amounts[night, 0, 6] += 4096
    amounts[_START:, 1, :2] = np.floor(amounts[_START:, 1, :2] * 2)
    amounts[_START:, 5, :2] *= 6
    amounts[_START:, 5, 3] += 5
    return amounts


def _new_values(generator: Generator, principals: int, progress: Progress) -> Floats:
    habits, book = synth.Habits(generator, principals), DayBook()
    # A month of each principal, then a month of scores: the calibration is full when the attack begins.
    alarms = []
    for day in range(QUIET_DAYS + ATTACK_DAYS):
        today = habits.day()
        if day >= 2 * CALIBRATION_DAYS:
            mine = today["p2"]
            mine["network"] = mine["network"] | {"new host": 5.0}
            mine["client"] = {"new client": 5.0}
            mine["hours"] = mine["hours"] | {"week 0": 5.0}
        alarms += [(24.0 * day + 23, float(who[1:])) for who, *_ in book.close(day, today)]
        progress("D3 days", day, QUIET_DAYS + ATTACK_DAYS)
    return np.array(alarms).reshape(-1, 2)


def _windows(generator: Generator, principals: int, progress: Progress) -> Floats:
    topics, book, alarms = synth.Topics(generator, principals), WindowBook(), []
    book.grow(principals)
    for day in range(QUIET_DAYS + ATTACK_DAYS):
        means = topics.windows()
        if day >= QUIET_DAYS:
            means[3] = topics.stranger()
        for row, mean in enumerate(means):
            statistic, threshold = book.judge(row, mean)
            if statistic > threshold:
                alarms.append((24.0 * day + 23, float(row)))
        progress("D4 windows", day, QUIET_DAYS + ATTACK_DAYS)
    return np.array(alarms).reshape(-1, 2)


def _lone(generator: Generator, principals: int, hours: int) -> Floats:
    found = synth.lone_hits(generator, principals, hours)
    found[_START:, 4, 0] += 4
    found[_START:, 4, 1] += 3000 * FILL
    return found


def _probes(generator: Generator, principals: int, hours: int) -> Floats:
    found = generator.poisson(0.02, (hours, principals, 1)).astype(np.float64)
    found[_START:, 4, 0] += 4
    return found
