"""A console for tests, with browsers that are signed in."""

from dataclasses import dataclass, field

import life
from starlette.testclient import TestClient

from stanch.access import Session
from stanch.mark import embed
from stanch.watch import Alarm, Containment, Severity
from stanch.watch.alert import AlertState, Conclusion
from stanch.workspace import Workspace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_alerts import Change, Quiet, move_alert, raise_alarms, suppress_alerts
from stanch.workspace.verbs_incident import open_incident
from stanch.workspace.verbs_trace import Suspect, take_suspect, trace_suspect

ADDRESS = "http://127.0.0.1:8402"


@dataclass
class Seat:
    """A console of a workspace that a test may change."""

    workspace: Workspace
    case: life.Case
    app: object
    clients: list[TestClient] = field(default_factory=list)

    def client(self, **options):
        settings = {"follow_redirects": False, "client": ("127.0.0.1", 50000)} | options
        client = TestClient(self.app, base_url=ADDRESS, **settings)
        self.clients.append(client)
        return client

    def browser(self, name, *, mfa=True):
        """Return a browser in which somebody is signed in."""
        desk = self.app.desk
        principal = self.workspace.people.find(name)
        now_ms = int(self.workspace.door.clock() * 1000)
        opened = desk.sessions.open_session(Session(principal, "x", mfa, now_ms, now_ms + 60_000))
        client = self.client()
        client.cookies.set("stanch", opened.cookie)
        client.session, client.desk = opened.session, desk
        return client


def post(client, path, *, route=None, **fields):
    """Send a form as a page of the session would."""
    token = client.desk.csrf.token(client.session.key_id, f"POST {route or path}")
    headers = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    return client.post(path, data={"_token": token, **fields}, headers=headers)


def alarm(number, **changes):
    """Return one of many different alarms."""
    made = {
        "detector": "D2", "signal": "requests", "principal": None, "model": None,
        "window_start": 1_700_000_000 + 3600 * number, "at": 1_700_003_000 + 3600 * number,
        "severity": Severity.MEDIUM, "statistic": 123456.0, "threshold": 100000.0, "entries": (1, 2),
        "containment": None,
    }  # fmt: skip
    return Alarm(**made | changes)


def watch_something(case):
    """Raise alarms as the watch does; ines takes steps, keeps one kind quiet, and opens an incident."""
    with case.acting("olga") as workspace:
        dana = workspace.people.find("dana")
        model = ReleaseState.load(workspace.state / "releases" / "r1").facts.digest
        hour = int(workspace.door.clock()) // 3600 - 53  # the first just before the incident became known

        def seen(number, **changes):
            start = 3600 * (hour + number)
            return alarm(number, window_start=start, at=start + 3000, **changes)

        canary = seen(
            1, detector="D1", signal="canary", principal=dana, model=model, severity=Severity.CRITICAL, statistic=1.0,
            threshold=1.0, containment=Containment.QUARANTINE_MODEL,
        )  # fmt: skip
        raised = raise_alarms(workspace, [
            canary, seen(2, principal=dana), seen(3, detector="D3", signal="network", severity=Severity.LOW),
            seen(4, detector="D5", signal="lone index hits", model=model, severity=Severity.HIGH), seen(5),
        ])  # fmt: skip
        lead = workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))
        now_ms = int(lead.door.clock() * 1000)
        move_alert(lead, raised[0].id, Change(AlertState.INVESTIGATING))
        move_alert(lead, raised[2].id, Change(AlertState.CLOSED, Conclusion.FALSE))
        suppress_alerts(lead, Quiet(
            detector="D3", principal="nina", model=None, until_ms=now_ms + 30 * 86_400_000, reason="a planned move",
        ))  # fmt: skip
        open_incident(lead, now_ms - 50 * 3_600_000, [raised[0].id])


DESCRIBED = "<script>alert(1)</script> & a file on a share"


def trace_something(case, folder, described=DESCRIBED):
    """Let ines trace acme's copy, which accuses acme, and take a second suspect into custody without a plan."""
    with case.acting("ines") as workspace:
        state = ReleaseState.load(workspace.state / "releases" / "r1")
        plan = state.mark_plan()
        copy = embed(state.model, folder / "surfaced", plan, state.copy_key(plan, "acme")).path
        theft, other = (
            Suspect(path=copy, case=name, description=described, received_from="a host", discovered=workspace.now())
            for name in ("theft", "waiting")
        )
        trace_suspect(workspace, theft, "r1")
        take_suspect(workspace, other)
