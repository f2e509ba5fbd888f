"""Reads the ledger and raises alerts whose false-alarm rate is stated and checked.

Detectors are pure: saved state and new entries in, alarms out. An alarm becomes an alert with a life of its own, and
alerts that belong together become an incident with its clock. Nothing here decides who may act; the workspace does.

Example:
    >>> from stanch.watch.runner import run                                                   # doctest: +SKIP
    >>> run(reader, reader.tables, detectors(), deliver=alerts.take, wait=stop.wait)          # doctest: +SKIP
"""

from stanch.watch.alarm import Alarm, Containment, Severity
from stanch.watch.detector import Detector, FalseAlarm, Measure

__all__ = ["Alarm", "Containment", "Detector", "FalseAlarm", "Measure", "Severity", "detectors"]


def detectors() -> tuple[Detector, ...]:
    """Return all detectors, D1 to D7."""
    from stanch.watch.drift import drift_detector  # noqa: PLC0415 - whoever only names an alarm needs no numpy
    from stanch.watch.esr import rate_detector  # noqa: PLC0415 - same
    from stanch.watch.firstseen import FirstSeenDetector  # noqa: PLC0415 - same
    from stanch.watch.leak import FindingDetector, LeakCapDetector, lone_hit_detector  # noqa: PLC0415 - same
    from stanch.watch.mmd import ExtractionDetector  # noqa: PLC0415 - same
    from stanch.watch.probe import probe_detector  # noqa: PLC0415 - same

    return (
        FindingDetector(), rate_detector(), FirstSeenDetector(), ExtractionDetector(), LeakCapDetector(),
        lone_hit_detector(), probe_detector(), drift_detector(),
    )  # fmt: skip
