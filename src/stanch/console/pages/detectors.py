"""Detectors: what each promises about false alarms, and what people and simulations saw of it."""

import json

from msgspec import Struct

from stanch.console.desk import Call
from stanch.console.route import Nothing
from stanch.ledger import EntryQuery, decode_entry
from stanch.watch import Measure, detectors
from stanch.watch.alert import AlertState, Conclusion
from stanch.watch.book import count_alerts
from stanch.watch.detector import FalseAlarm
from stanch.watch.firstseen import FirstSeenDetector, reach_of
from stanch.watch.runner import progress, state_of

_THRESHOLDS = {
    "D1": "each finding that the guard reports",
    "D4": "the 99.9 % quantile of other principals' quiet windows",
    "D5-cap": "50 %, 80 % and 100 % of the cap",
}


class Simulated(Struct, frozen=True):
    """The last simulation whose result was kept: promised and observed false alarms per unit, with its interval."""

    entry: int
    time_ms: int
    promised: float
    observed: float
    lower: float
    upper: float
    verdict: str
    found: float


class DetectorRow(Struct, frozen=True):
    """One detector: signals, threshold, promise, how far it has read, what was raised and how that was judged.

    ``reach`` says of D3 from how many days on it can report anybody at all; it is empty for the others.
    """

    name: str
    signals: tuple[str, ...]
    threshold: str
    promise: str
    needs: str
    reach: str
    behind: int
    alarms: int
    last_ms: int
    alerts: int
    waiting: int
    true: int
    false: int
    benign: int
    simulated: Simulated | None


class DetectorList(Struct, frozen=True):
    """All detectors, and how long the log is that they read."""

    detectors: tuple[DetectorRow, ...]
    entries: int


def show_detectors(call: Call, _asked: Nothing) -> DetectorList:
    """Show what each detector promises beside what was observed."""
    workspace, known = call.workspace, detectors()
    reader = workspace.ledger.reader()
    size, places = reader.size(), {one.detector: one for one in progress(workspace.tables, reader.origin, known)}
    with workspace.tables.read() as connection:
        counts = count_alerts(connection)
    kept, rows = _simulations(call), []
    reach = reach_of(state_of(workspace.tables, reader.origin, FirstSeenDetector.name)).told
    for detector in known:
        mine = [one for one in counts if one.detector == detector.name]
        waiting = sum(one.alerts for one in mine if one.state is AlertState.OPEN)
        judged = {end: sum(one.alerts for one in mine if one.conclusion is end) for end in Conclusion}
        place = places[detector.name]
        rows.append(DetectorRow(
            detector.name, detector.signals, _threshold(detector.name, detector.promise), _promise(detector.promise),
            detector.promise.needs, reach if detector.name == FirstSeenDetector.name else "",
            size - place.next_index, place.alarms, (place.last_at or 0) * 1000,
            sum(one.alerts for one in mine), waiting, judged[Conclusion.TRUE], judged[Conclusion.FALSE],
            judged[Conclusion.BENIGN], kept.get(detector.name),
        ))  # fmt: skip
    return DetectorList(tuple(rows), size)


def _threshold(name: str, promise: FalseAlarm) -> str:
    if promise.measure is Measure.RUN_LENGTH:
        return f"statistic ≥ {promise.value:,.0f}"
    if promise.measure is Measure.FALSE_DISCOVERY:
        return f"q-value ≤ {promise.value:g}"
    return _THRESHOLDS[name]


def _promise(promise: FalseAlarm) -> str:
    match promise.measure:
        case Measure.RUN_LENGTH:
            return f"one false alarm in {promise.value:,.0f} {promise.unit}, at most"
        case Measure.RATE:
            return f"{promise.value:.3g} false alarms per {promise.unit}, at most"
        case Measure.FALSE_DISCOVERY:
            return f"of the alarms of a {promise.unit}, {promise.value:.0%} are false, at most"
    return "none: a cap, not a statistic"


def _simulations(call: Call) -> dict[str, Simulated]:
    """Return the newest kept simulation of each detector."""
    reader, found = call.workspace.ledger.reader(), dict[str, Simulated]()
    query = EntryQuery(kind="watch.simulate", phase="outcome", newest_first=True, limit=100)
    for index, data in reader.entries(ref.index for ref in reader.query(query)).items():
        entry = decode_entry(data)
        told = json.loads(entry["unmapped"]["stanch"]["payload"]["result"])
        power = told["power"] or {}
        found.setdefault(told["detector"], Simulated(
            index, entry["time"], told["promised"], told["observed"], told["lower"], told["upper"],
            told["verdict"], power.get("found", 0.0),
        ))  # fmt: skip
    return found
