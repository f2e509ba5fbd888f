"""D6: prompts that probe: they quote the protected corpus, repeat one word, or nearly equal each other; or own terms.

The gateway sets the flags; here the flagged prompts of an hour go into the statistic of :mod:`stanch.watch.esr` with a
fit of their own. So do the owner's terms in answers: who lets the model repeat many words learns from each that is
replaced or cut that it is one of them.
"""

from dataclasses import replace

from stanch.watch.alarm import Containment, Severity
from stanch.watch.counts import Added, HourlyDetector, Reading
from stanch.watch.esr import PROMISE, RateBank
from stanch.watch.events import Event, Intent, Outcome


def read_probes(event: Event) -> Added:
    """Return 1 for a flagged prompt and 0 for another, so that the hours of quiet principals count too; and terms."""
    if isinstance(event.detail, Outcome):
        return ((1, float(event.detail.terms)),)
    return ((0, float(event.detail.probe.is_set)),) if isinstance(event.detail, Intent) else ()


def probe_detector() -> HourlyDetector:
    """Return D6."""
    reading = Reading(2, read_probes, Severity.MEDIUM, Containment.LOWER_BUDGET)
    promise = replace(PROMISE, unit="hours of one principal")
    return HourlyDetector("D6", ("probing prompts", "own terms"), promise, reading, RateBank)
