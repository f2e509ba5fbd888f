"""The watch of a workspace: detectors over its log, alarms into the book of alerts, and what becomes due by the clock.

Three loops, so that neither a sink that is slow to answer nor a long check keeps a detector from the log. Of several
hosts on one database one does each round while the others wait: a lease of the database says which.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from stanch.errors import Conflict, OutcomeNotRecorded, StoreError
from stanch.watch import Alarm, Detector, runner
from stanch.watch.alert import alert_id
from stanch.watch.book import find_alert
from stanch.watch.outbox import anything_due
from stanch.workspace.alerting import sinks_of
from stanch.workspace.opening import Workspace
from stanch.workspace.renewal import kept_certificates
from stanch.workspace.schedule import Check, do_check, due_checks, late_checks
from stanch.workspace.verbs_alerts import deliver_alerts, raise_alarms
from stanch.workspace.verbs_glass import tell_glasses
from stanch.workspace.verbs_incident import remind_incidents

CLOCK_SECONDS = 2.0
"""How often it is asked whether something is due; each time is three short reads."""
AGAIN_SECONDS = 5.0
"""How long a loop waits after the database failed."""
LOOK_SECONDS = 60.0
"""How often it is asked whether a check is due or late."""
_LEASE, _CHECKS = "watch clock", "watch checks"


@dataclass(slots=True)
class Watcher:
    """Watches until told to end.

    Attributes:
        workspace: The workspace, with whoever watches acting.
        detectors: Who looks at the log.
        renew: Logs in again: a login lasts for hours, the watch for months.
        stop: Ends it when set.
        tell: Told what went wrong and is tried again.
        checks: What is done again and again.
    """

    workspace: Workspace
    detectors: Sequence[Detector]
    renew: Callable[[], Workspace]
    stop: threading.Event
    tell: Callable[[str], None]
    checks: Sequence[Check] = ()
    _since: float = field(default=0.0, init=False)
    _look: float = field(default=0.0, init=False)
    _started: float = field(default=0.0, init=False)
    _renewing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self) -> None:
        """Watch until told to end; what fails for another reason than the database ends it.

        Raises:
            InvalidInput: A sink is not as it must be, or an entry is of another release.
            NotPermitted: Whoever watches may not, or no longer.
        """
        sinks_of(self.workspace)
        self._since = self._started = self.workspace.door.clock()
        with ThreadPoolExecutor(3) as pool:
            loops = [pool.submit(self._lasting, work) for work in (self._follow, self._keep_time, self._keep_checking)]
            wait(loops, return_when=FIRST_COMPLETED)
            self.stop.set()
        for loop in loops:
            loop.result()

    def _lasting(self, loop: Callable[[], None]) -> None:
        """Run a loop, and again after the database failed: it may come back, and nothing is lost meanwhile."""
        while not self.stop.is_set():
            try:
                loop()
            except StoreError as error:
                self.tell(f"{error.what}; trying again")
                self.stop.wait(AGAIN_SECONDS)

    def _follow(self) -> None:
        reader = self.workspace.ledger.reader()
        runner.run(reader, self.workspace.tables, self.detectors, deliver=self.deliver, wait=self.stop.wait)

    def deliver(self, alarms: Sequence[Alarm], save: runner.Save) -> None:
        """Make alerts of alarms; they, their deliveries, the record and what detectors remember are one transaction.

        Raises:
            Conflict: Another run has read these entries meanwhile; nothing was changed.
        """
        try:
            raise_alarms(self._acting(), alarms, within=save)
        except OutcomeNotRecorded as error:
            if isinstance(error.__cause__, Conflict):
                raise error.__cause__ from error
            raise

    def _keep_time(self) -> None:
        while True:
            with self.workspace.tables.lease(_LEASE) as held:
                if held:
                    self.tend()
            if self.stop.wait(CLOCK_SECONDS):
                return

    def tend(self) -> None:
        """Tell of emergencies and incidents, hand on what waited, deliver; where nothing is due, record nothing."""
        workspace = self._acting()
        tell_glasses(workspace)
        remind_incidents(workspace)
        self._tell_late(workspace)
        with workspace.tables.read() as connection:
            due = anything_due(connection, int(workspace.door.clock() * 1000))
        if due:
            deliver_alerts(workspace)

    def _keep_checking(self) -> None:
        while True:
            with self.workspace.tables.lease(_CHECKS) as held:
                if held:
                    self.check()
            if self.stop.wait(LOOK_SECONDS):
                return

    def check(self) -> None:
        """Do every check that is due; one that finds something is an alert."""
        for check in due_checks(self._acting(), self.checks):
            if self.stop.is_set():
                return
            alarm = do_check(self._acting(), check)
            if alarm is not None:
                raise_alarms(self._acting(), [alarm])

    def _tell_late(self, workspace: Workspace) -> None:
        """Raise an alert for each check that is late or does not end, and each certificate that was not renewed."""
        now = workspace.door.clock()
        if now < self._look:
            return
        self._look = now + LOOK_SECONDS
        for alarm in (*late_checks(workspace, self.checks, self._started), *kept_certificates(workspace)):
            with workspace.tables.read() as connection:
                known = find_alert(connection, alert_id(alarm))
            if known is None:
                raise_alarms(workspace, [alarm])

    def _acting(self) -> Workspace:
        """Return the workspace with a login that is at most half as old as it may become."""
        with self._renewing:
            now = self.workspace.door.clock()
            if now - self._since >= self.workspace.people.ground.session_minutes * 30:
                self.workspace, self._since = self.renew(), now
            return self.workspace
