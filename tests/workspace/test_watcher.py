"""The watch of a workspace: alarms and what led to them are one transaction, and the clock is kept."""

import json
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import life
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "watch"))  # the test folders are no packages

from watching import infer_entries

from stanch.errors import Conflict, InvalidInput, StoreError
from stanch.ledger import EntryQuery, decode_entry
from stanch.watch import runner
from stanch.watch.alert import AlertState, Conclusion
from stanch.watch.book import list_alerts
from stanch.watch.leak import FindingDetector
from stanch.workspace import Workspace
from stanch.workspace.verbs_alerts import Change, deliver_alerts, move_alert
from stanch.workspace.verbs_glass import break_glass
from stanch.workspace.verbs_incident import open_incident
from stanch.workspace.watcher import Watcher

DETECTORS = (FindingDetector(),)
MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def watcher(tmp_path, clock):
    folder = tmp_path / "w"
    with Workspace.init(folder):
        pass
    settings = folder / "stanch.toml"
    settings.write_text(
        settings.read_text()
        + '\n[[alerts.sinks]]\nname = "file"\nkind = "ocsf-file"\nurl = "alerts.jsonl"\n'
        + '\n[[alerts.sinks]]\nname = "next"\nkind = "ocsf-file"\nurl = "next.jsonl"\ntier = 2\n'
    )
    clock[0] = time.time()
    with Workspace.open(folder, clock=lambda: clock[0]) as workspace:
        yield make(workspace)


def make(workspace):
    told = []
    made = Watcher(workspace, DETECTORS, lambda: workspace.acting_as("owner"), threading.Event(), told.append)
    made._since = workspace.door.clock()
    return made


def leak(workspace, number):
    done = {"verdict": "block", "findings": {"canary": 1}}
    for entry in infer_entries(number, int(workspace.door.clock()), None, done):
        workspace.ledger.append(entry)


def alerts(workspace):
    with workspace.tables.read() as connection:
        return list_alerts(connection)


def count(workspace, kind, phase="outcome"):
    return len(list(workspace.ledger.reader().query(EntryQuery(kind=kind, phase=phase))))


def catch_up(watcher):
    workspace = watcher.workspace
    return runner.catch_up(workspace.ledger.reader(), workspace.tables, DETECTORS, deliver=watcher.deliver)


@contextmanager
def running(*watchers):
    failed = []

    def run(watcher):
        try:
            watcher.run()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=run, args=[watcher]) for watcher in watchers]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        for watcher in watchers:
            watcher.stop.set()
        for thread in threads:
            thread.join(60)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_alert_delivery_record_and_state_are_one_transaction(watcher):
    workspace = watcher.workspace
    leak(workspace, 1)

    def fails_at_the_end(alarms, save):
        def save_and_fail(connection):
            save(connection)
            raise Conflict("another run was here")

        watcher.deliver(alarms, save_and_fail)

    reader = workspace.ledger.reader()
    batches = runner._batches(reader, workspace.tables, DETECTORS)
    events, behind = next(batches)
    assert runner._take(workspace.tables, reader.origin, events, behind, fails_at_the_end) == 0
    assert (alerts(workspace), runner.alarms_of(workspace.tables, reader.origin)) == ((), [])
    assert runner.progress(workspace.tables, reader.origin, DETECTORS)[0].next_index == 0
    assert catch_up(watcher) == 1
    assert catch_up(watcher) == 0
    (alert,) = alerts(workspace)
    assert (alert.detector, alert.severity.value, alert.count) == ("D1", "critical", 1)
    assert len(runner.alarms_of(workspace.tables, reader.origin)) == 1


def test_emergency_rights_are_a_critical_alert_once(watcher):
    workspace = watcher.workspace
    glass = break_glass(workspace, "the pager rang", 15)
    for _ in range(2):
        watcher.tend()
    (alert,) = alerts(workspace)
    assert (alert.detector, alert.severity.value, alert.state.value) == ("break-glass", "critical", "open")
    assert (alert.count, alert.principal) == (1, glass.principal)
    begun = decode_entry(workspace.ledger.reader().entry(alert.entries[0]))
    assert begun["unmapped"]["stanch"]["kind"] == "access.break-glass"
    assert len((workspace.folder / "alerts.jsonl").read_text().splitlines()) == 1


def test_the_clock_is_kept_and_nothing_is_recorded_while_nothing_is_due(watcher, clock):
    workspace = watcher.workspace
    leak(workspace, 1)
    catch_up(watcher)
    watcher.tend()
    file, second = workspace.folder / "alerts.jsonl", workspace.folder / "next.jsonl"
    assert len(file.read_text().splitlines()) == 1
    size = workspace.ledger.reader().size()
    watcher.tend()
    assert workspace.ledger.reader().size() == size
    clock[0] += 16 * MINUTE
    watcher.tend()
    assert len(second.read_text().splitlines()) == 1
    open_incident(workspace, int((clock[0] - 25 * HOUR) * 1000))
    for _ in range(2):
        watcher.tend()
    assert len(file.read_text().splitlines()) == 3  # the alert, the incident, and its reminder
    assert {alert.severity.value for alert in alerts(workspace)} == {"critical", "high"}


def test_a_watch_outlives_its_login(watcher, clock):
    workspace = watcher.workspace
    clock[0] += 30 * HOUR
    leak(workspace, 1)
    assert catch_up(watcher) == 1
    assert len(alerts(workspace)) == 1
    assert watcher.workspace is not workspace


def test_it_watches_until_told_to_end_and_goes_on_after_the_database_failed(watcher, monkeypatch):
    workspace = watcher.workspace
    monkeypatch.setattr("stanch.workspace.watcher.AGAIN_SECONDS", 0.01)
    follow, tries = runner.run, []

    def fails_once(*arguments, **more):
        tries.append(1)
        if len(tries) == 1:
            raise StoreError("the database is gone")
        follow(*arguments, **more)

    monkeypatch.setattr(runner, "run", fails_once)
    leak(workspace, 1)
    with running(watcher) as failed:
        until(lambda: alerts(workspace) and (workspace.folder / "alerts.jsonl").exists())
    assert failed == []
    assert watcher.tell.__self__ == ["the database is gone; trying again"]


def test_what_no_waiting_helps_ends_both_loops(watcher):
    workspace = watcher.workspace
    for entry in infer_entries(1, int(workspace.door.clock()), {"probe": {"quotes": "yes"}}):
        workspace.ledger.append(entry)
    with running(watcher) as failed:
        until(lambda: failed)
    assert isinstance(failed[0], InvalidInput)
    assert watcher.stop.is_set()


def test_on_one_postgresql_one_of_two_hosts_watches_at_a_time(tmp_path, postgresql, monkeypatch):
    monkeypatch.setattr(runner, "PAUSE_SECONDS", 0.01)
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "stanch.toml").write_text(
        f'[workspace]\ntables = "{postgresql.database()}"\n\n[ledger]\norigin = "example.com/shared"\n'
        '\n[access]\nprofile = "team"\n'
    )
    inside, most = [], []

    class Slow(FindingDetector):
        def step(self, state, entries):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()
            return super().step(state, entries)

    with life.cheaply():
        with Workspace.init(folder, profile="team", owner="olga", passphrase=life.passphrase("olga")):
            pass
        hosts = [Workspace.open(folder, principal="olga", unlock=lambda: life.passphrase("olga")) for _ in range(2)]
        watchers = [replace_detectors(make(host), (Slow(),)) for host in hosts]
        with running(*watchers) as failed:
            for number in range(4):
                leak(hosts[0], number)
            until(lambda: sum(alert.count for alert in alerts(hosts[0])) >= 4)
    assert (failed, max(most)) == ([], 1)
    assert sum(alert.count for alert in alerts(hosts[0])) == 4
    assert len(runner.alarms_of(hosts[0].tables, "example.com/shared")) == 4
    for host in hosts:
        host.close()


def replace_detectors(watcher, detectors):
    return replace(watcher, detectors=detectors)


def test_who_was_told_of_an_alert_is_told_when_it_is_closed(watcher):
    workspace = watcher.workspace
    leak(workspace, 1)
    catch_up(watcher)
    (alert,) = alerts(workspace)
    deliver_alerts(workspace)
    move_alert(workspace, alert.id, Change(AlertState.ACKNOWLEDGED))
    move_alert(workspace, alert.id, Change(AlertState.CLOSED, Conclusion.TRUE))
    deliver_alerts(workspace)
    told = [json.loads(line) for line in (workspace.folder / "alerts.jsonl").read_text().splitlines()]
    assert [one["activity_name"] for one in told] == ["Create", "Close"]
    assert {one["finding_info"]["uid"] for one in told} == {alert.id}
    assert not (workspace.folder / "next.jsonl").exists(), "the next tier never heard of it"
