"""Promised against observed: detectors on seeded traffic in which nothing is wrong, and in which something is.

The traffic goes hour by hour through the very banks that the detectors use. Beside the rate detector stands a z-score
of the same baseline, at the threshold that gives it as many false alarms.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import scipy

from stanch.errors import InvalidInput
from stanch.terms import SILENT, JsonValue, Progress
from stanch.watch import detectors, synth
from stanch.watch.counts import Bank, Floats
from stanch.watch.detector import FalseAlarm, Measure
from stanch.watch.drift import SIGNALS, SUMS, DriftBank
from stanch.watch.esr import LAG, WEEK, WINDOW, RateBank
from stanch.watch.firstseen import CALIBRATION_DAYS, DayBook
from stanch.watch.leak import LoneHitBank
from stanch.watch.mmd import WindowBook

CONFIDENCE = 0.95
ATTACK_HOURS = 96
_TAIL = (1 - CONFIDENCE) / 2
_NONE_UPPER = -math.log(_TAIL)
"""Upper end of the interval of a Poisson mean when nothing was seen."""

_BEFORE_ATTACK = 14 * 24
_CHARACTERS_AN_HOUR = 100

SIZES = {
    "D1": (1500, 720), "D2": (1500, 720), "D3": (150, 13_440), "D4": (1000, 720), "D5": (1500, 720), "D6": (1500, 720),
    "D7": (1000, 2160),
}  # fmt: skip
"""Principals (models for D7) and hours of a simulation, unless others are asked for."""


@dataclass(frozen=True, slots=True)
class SimulationSpec:
    """What is simulated.

    Attributes:
        shift: By how much an attack multiplies what it raises.
        threshold: Of the e-SR statistics; None for the one that the detector uses. A lower one needs less traffic to
            tell whether the promise holds.
    """

    principals: int
    hours: int
    shift: float = 2.0
    seasonal: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.principals <= 100_000 and 1 <= self.hours <= 100_000 and self.shift > 1):
            raise InvalidInput("simulation: expected 1 to 100,000 principals and hours, and a shift above 1")
        if self.principals * self.hours > 20_000_000:
            raise InvalidInput("simulation: expected at most 20,000,000 hours of all principals together")


@dataclass(frozen=True, slots=True)
class Power:
    """How much of an attack is found within 96 hours: the share, and the median hours until then (NaN if none)."""

    found: float
    median_hours: float

    def to_json(self) -> dict[str, JsonValue]:
        """Return the values rounded."""
        median = None if math.isnan(self.median_hours) else round(self.median_hours, 1)
        return {"found": round(self.found, 4), "median_hours": median}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A promise beside what was seen.

    Attributes:
        promised: The highest rate of false alarms per unit that is promised.
        exposure: Units without an attack.
        observed: False alarms per unit, with its 95 % interval: exact, but for the mean of false discovery proportions.
        verdict: ``broken`` if the interval lies above the promise; ``too small`` if even no alarm at all would not show
            that it holds.
    """

    detector: str
    measure: str
    unit: str
    promised: float
    exposure: float
    alarms: float
    observed: float
    lower: float
    upper: float
    verdict: Literal["holds", "broken", "too small"]
    power: Power | None = None
    z_power: Power | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the values, rounded so that they are the same on every machine."""
        found: dict[str, JsonValue] = {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
            if name not in {"power", "z_power"}
        }
        found["power"] = self.power.to_json() if self.power else None
        found["z_power"] = self.z_power.to_json() if self.z_power else None
        return found


def simulate(name: str, spec: SimulationSpec, *, seed: int, progress: Progress = SILENT) -> Outcome:
    """Simulate one detector.

    Raises:
        InvalidInput: There is no detector of this name, or it is one without a chance of false alarms.
    """
    if name not in _SIMULATIONS:
        raise InvalidInput(f"simulation: expected one of {', '.join(_SIMULATIONS)}, found {name!r}")
    promise = next(detector.promise for detector in detectors() if detector.name == name)
    return _SIMULATIONS[name](name, promise, spec, np.random.default_rng([seed, int(name[1])]), progress)


def judge(
    name: str, promise: FalseAlarm, alarms: int, exposure: int, *, most: float | None = None,
    powers: tuple[Power | None, Power | None] = (None, None),
) -> Outcome:  # fmt: skip
    """Return an outcome with its exact interval: of Poisson for run lengths, of Clopper and Pearson for rates."""
    most = promise.most if most is None else most
    units = max(exposure, 1)
    if promise.measure is Measure.RUN_LENGTH:
        lower = float(scipy.special.gammaincinv(alarms, _TAIL)) / units if alarms else 0.0
        upper = float(scipy.special.gammaincinv(alarms + 1, 1 - _TAIL)) / units
    else:
        lower = float(scipy.special.betaincinv(alarms, units - alarms + 1, _TAIL)) if alarms else 0.0
        upper = float(scipy.special.betaincinv(alarms + 1, units - alarms, 1 - _TAIL)) if alarms < units else 1.0
    too_small = _NONE_UPPER / units > most
    verdict: Literal["holds", "broken", "too small"] = (
        "broken" if lower > most else "too small" if too_small else "holds"
    )
    return Outcome(
        name, promise.measure.value, promise.unit, most, float(exposure), float(alarms), alarms / units, lower, upper,
        verdict, *powers,
    )  # fmt: skip


def play(bank: Bank, amounts: Floats, fitted: str | None, progress: Progress, stage: str) -> tuple[Floats, int]:
    """Send (hours, keys, columns) through a bank.

    Returns:
        (hour, key) of each alarm, and for how many hours of keys and signals there was a fit.
    """
    bank.grow(amounts.shape[1])
    alarms, exposure = [], 0
    for hour in range(len(amounts)):
        exposure += amounts.shape[1] if fitted is None else int((~np.isnan(bank.arrays[fitted])).sum())
        alarms += [(hour, crossing.row) for crossing in bank.close(hour, amounts[hour])]
        if hour % 24 == 0:
            progress(stage, hour, len(amounts))
    return np.array(alarms, dtype=np.float64).reshape(-1, 2), exposure


def delays(alarms: Floats, keys: int, start: int) -> Floats:
    """Return after how many hours of the attack each key's first alarm came; infinite if within none of 96."""
    found = np.full(keys, np.inf)
    for hour, row in alarms[::-1]:
        if start <= hour < start + ATTACK_HOURS:
            found[int(row)] = hour - start + 1
    return found


def power_of(found: Floats) -> Power:
    """Summarise delays."""
    there = found[np.isfinite(found)]
    return Power(len(there) / len(found), float(np.median(there)) if len(there) else math.nan)


def z_scores(counts: Floats) -> Floats:
    """Return (x − mean)/sd of each hour against the baseline that the rate detector has; NaN where there is none."""
    found = np.full(counts.shape, np.nan)
    for day in range(WINDOW + LAG, len(counts), 24):
        past = counts[day - LAG - WINDOW : day - LAG]
        found[day : day + 24] = (counts[day : day + 24] - past.mean(axis=0)) / np.sqrt(past.var(axis=0) + 0.1)
    return found


def _rates(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    threshold = spec.threshold or promise.value
    scale, shift = (10.0, spec.shift) if name == "D2" else (0.05, 10 * spec.shift)
    profile = synth.working_week() if spec.seasonal else None
    quiet = synth.hourly_counts(generator, spec.principals, spec.hours, scale=scale, profile=profile)
    bank = RateBank(1, threshold=threshold)
    alarms, exposure = play(bank, quiet[:, :, None], "m", progress, "quiet traffic")
    start = _BEFORE_ATTACK + 9 if profile is None else 4 * WEEK + 9
    loud = synth.hourly_counts(generator, spec.principals, start + ATTACK_HOURS, scale=scale, profile=profile)
    loud[start:] = np.floor(loud[start:] * shift) + (generator.poisson(1.0, loud[start:].shape) if name == "D6" else 0)
    raised, _ = play(RateBank(1, threshold=threshold), loud[:, :, None], "m", progress, "attack")
    power = power_of(delays(raised, spec.principals, start))
    z_quiet = z_scores(quiet)
    ordered = np.sort(z_quiet[~np.isnan(z_quiet)])
    z_power = None
    if len(ordered) > len(alarms):
        hits = np.argwhere(z_scores(loud) > ordered[-1 - len(alarms)]).astype(np.float64)
        z_power = power_of(delays(hits, spec.principals, start))
    return judge(name, promise, len(alarms), exposure, most=1 / threshold, powers=(power, z_power))


def _lone(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    threshold = spec.threshold or promise.value
    quiet = synth.lone_hits(generator, spec.principals, spec.hours)
    alarms, _ = play(LoneHitBank(1, threshold=threshold), quiet, None, progress, "quiet traffic")
    loud = synth.lone_hits(generator, spec.principals, ATTACK_HOURS)
    loud[:, :, 0] += generator.poisson((spec.shift - 1) * 0.5 * loud[:, :, 1]) + (loud[:, :, 1] > 0)
    raised, _ = play(LoneHitBank(1, threshold=threshold), loud, None, progress, "attack")
    exposure = int((quiet[:, :, 1] > 0).sum())
    power = power_of(delays(raised, spec.principals, 0))
    return judge(name, promise, len(alarms), exposure, most=1 / threshold, powers=(power, None))


def _drift(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    """In the attack one signal of each model rises, of the first its length, and so on."""
    threshold, signals = spec.threshold or promise.value, len(SIGNALS)
    quiet = synth.answers(generator, spec.principals, spec.hours)
    alarms, exposure = play(DriftBank(signals, threshold=threshold), quiet, "mean", progress, "quiet answers")
    start = _BEFORE_ATTACK
    loud = synth.answers(generator, spec.principals, start + ATTACK_HOURS)
    for signal in range(signals):
        loud[start:, signal::signals, SUMS[signal]] *= spec.shift
    raised, _ = play(DriftBank(signals, threshold=threshold), loud, "mean", progress, "attack")
    power = power_of(delays(raised, spec.principals, start))
    return judge(name, promise, len(alarms), exposure, most=1 / threshold, powers=(power, None))


def _windows(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    topics, book = synth.Topics(generator, spec.principals), WindowBook()
    book.grow(spec.principals)
    judged = alarms = 0
    for day in range(spec.hours // 24):
        for row, mean in enumerate(topics.windows()):
            statistic, threshold = book.judge(row, mean)
            judged += math.isfinite(threshold)
            alarms += statistic > threshold
        progress("quiet windows", day, spec.hours // 24)
    tried = min(spec.principals, 500)
    found = [
        statistic > threshold for statistic, threshold in (book.measure(r, topics.stranger()) for r in range(tried))
    ]
    power = Power(sum(found) / tried, 24.0 if any(found) else math.nan)
    return judge(name, promise, alarms, judged, powers=(power, None))


def _first_seen(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    """Every fourth day somebody comes from a new network at an hour of their own; on the others nothing happens."""
    habits, book = synth.Habits(generator, spec.principals), DayBook()
    proportions, caught, planted = [], 0, 0
    for day in range(spec.hours // 24):
        today = habits.day()
        who = f"p{generator.integers(spec.principals)}" if day % 4 == 3 else ""
        if who:
            today[who] |= {"network": {f"evil{day}": 3.0}, "hours": {f"night{day}": 3.0}}
        ready = len(book.days) == CALIBRATION_DAYS
        reported = [found[0] for found in book.close(day, today)]
        if who in reported:
            book.confirm(who, day, day)  # whoever looked at the alert closed it as true
        if ready:
            planted, caught = planted + bool(who), caught + (who in reported)
            proportions.append(sum(found != who for found in reported) / max(len(reported), 1))
        progress("days", day, spec.hours // 24)
    return _discoveries(name, promise, np.array(proportions), Power(caught / max(planted, 1), 24.0))


def _discoveries(name: str, promise: FalseAlarm, proportions: Floats, power: Power) -> Outcome:
    days = len(proportions)
    mean = float(proportions.mean()) if days else 0.0
    half = 1.96 * float(proportions.std(ddof=1)) / math.sqrt(days) if days > 1 else 1.0
    lower, upper = max(mean - half, 0.0), min(mean + half, 1.0)
    too_small = days == 0 or _NONE_UPPER / days > promise.value
    return Outcome(
        name, promise.measure.value, promise.unit, promise.value, float(days), float(proportions.sum()), mean, lower,
        upper, "broken" if lower > promise.value else "too small" if too_small else "holds", power,
    )  # fmt: skip


def _chance(
    name: str, promise: FalseAlarm, spec: SimulationSpec, generator: np.random.Generator, progress: Progress
) -> Outcome:
    characters, runs = spec.principals * spec.hours * _CHARACTERS_AN_HOUR, 0
    piece = 10_000_000
    for at in range(0, characters, piece):
        runs += synth.chance_runs(generator, min(piece, characters - at))
        progress("characters", at, characters)
    return judge(name, promise, runs, characters)


_Simulation = Callable[[str, FalseAlarm, SimulationSpec, np.random.Generator, Progress], Outcome]
_SIMULATIONS: dict[str, _Simulation] = {
    "D1": _chance, "D2": _rates, "D3": _first_seen, "D4": _windows, "D5": _lone, "D6": _rates, "D7": _drift,
}  # fmt: skip
