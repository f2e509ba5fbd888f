"""D6: prompts that probe: they quote the protected corpus, repeat one word, or nearly equal each other.

The gateway sets the flags; here the flagged prompts of an hour go into the statistic of :mod:`stanch.watch.esr` with a
fit of their own.
"""

from dataclasses import replace

from stanch.watch.alarm import Containment, Severity
from stanch.watch.counts import Added, HourlyDetector, Reading
from stanch.watch.esr import PROMISE, RateBank
from stanch.watch.events import Event, Intent


def read_probes(event: Event) -> Added:
    """Return 1 for a flagged prompt and 0 for another, so that the hours of quiet principals count too."""
    if not isinstance(event.detail, Intent):
        return ()
    return ((0, float(event.detail.probe.is_set)),)


def probe_detector() -> HourlyDetector:
    """Return D6."""
    reading = Reading(1, read_probes, Severity.MEDIUM, Containment.LOWER_BUDGET)
    promise = replace(PROMISE, unit="hours of one principal")
    return HourlyDetector("D6", ("probing prompts",), promise, reading, RateBank)
