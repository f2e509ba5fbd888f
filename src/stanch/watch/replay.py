"""What the detectors say of a log from its first entry on; nothing is saved and nobody is told.

Detectors are pure and their clock is that of the entries, so this is what a watch that had always run would have said.
"""

from collections.abc import Sequence

from stanch.ledger import LedgerReader
from stanch.watch.alarm import Alarm
from stanch.watch.detector import Detector
from stanch.watch.events import read_entries
from stanch.watch.runner import BATCH


def replay(reader: LedgerReader, detectors: Sequence[Detector]) -> tuple[int, list[Alarm]]:
    """Return how many entries were read, and the alarms by time.

    Raises:
        InvalidInput: An entry is not of the form that this release reads; the message names it.
    """
    states = dict.fromkeys((detector.name for detector in detectors), b"")
    alarms: list[Alarm] = []
    start, size = 0, reader.size()
    while start < size:
        events = list(read_entries(reader.tail(start, min(BATCH, size - start))))
        for detector in detectors:
            states[detector.name], raised = detector.step(states[detector.name], events)
            alarms += raised
        start = events[-1].index + 1
    return size, sorted(alarms, key=lambda alarm: (alarm.at, alarm.detector))
