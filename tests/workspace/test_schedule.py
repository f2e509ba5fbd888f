"""Checks that are done again and again: when they are due, what they find, and when they are late."""

import sys
import threading

import pytest
from sqlalchemy import text

from stanch.cli.frame import Frame
from stanch.cli.watch_serve import audit_command, checks_of, end_of, judge
from stanch.config.model import RepeatedAuditSection
from stanch.errors import ExternalError, InvalidInput
from stanch.ledger import decode_entry
from stanch.terms import Verdict
from stanch.watch.book import list_alerts
from stanch.workspace import Workspace
from stanch.workspace.noting import note
from stanch.workspace.schedule import Check, last_done, verify_check
from stanch.workspace.verbs_check import CheckState, Found
from stanch.workspace.watcher import Watcher

HOUR = 3600.0
START = 1_800_000_000.0


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    clock = [START]
    with Workspace.init(tmp_path_factory.mktemp("schedule") / "w") as made:
        folder = made.folder
    with Workspace.open(folder, clock=lambda: clock[0]) as workspace:
        yield workspace, clock


@pytest.fixture
def watched(opened, request):
    """A workspace, its clock at a time of its own, and the check of this test: what it finds is put into a list."""
    workspace, clock = opened
    clock[0] += 1000 * HOUR
    finds = [Found(CheckState.GOOD)]

    def run():
        found = finds.pop() if len(finds) > 1 else finds[0]
        if isinstance(found, Exception):
            raise found
        return found

    check = Check(request.node.name, 24, run)
    made = Watcher(workspace, (), lambda: workspace.acting_as("owner"), threading.Event(), lambda _text: None, (check,))
    made._started = clock[0]  # and no login yet: each test's clock is long after the last one's
    return made, clock, finds, check


def alerts(workspace, name):
    with workspace.tables.read() as connection:
        return [one for one in list_alerts(connection) if one.detector == "check" and one.signal.startswith(name)]


def test_a_check_is_done_at_once_then_when_its_time_has_passed_also_after_a_restart(watched):
    watcher, clock, _, check = watched
    watcher.check()
    first = last_done(watcher.workspace, check)
    assert first.at == pytest.approx(clock[0], abs=1)
    for hours, done in ((23.9, False), (24.1, True)):
        clock[0] = first.at + hours * HOUR
        # A new watcher knows from the log what an earlier one did.
        Watcher(watcher.workspace, (), watcher.renew, watcher.stop, watcher.tell, (check,)).check()
        assert (last_done(watcher.workspace, check) != first) is done
    assert alerts(watcher.workspace, check.name) == []


@pytest.mark.parametrize("found", [Found(CheckState.BAD, "a leak"), ExternalError("a leak")], ids=["bad", "raised"])
def test_what_a_check_finds_is_an_alert_whose_entry_says_so(watched, found):
    watcher, clock, finds, check = watched
    finds[:] = [found]
    watcher.check()
    (alert,) = alerts(watcher.workspace, check.name)
    assert (alert.signal, alert.severity) == (f"{check.name}: a leak", "high")
    entry = decode_entry(watcher.workspace.ledger.reader().entry(alert.entries[0]))["unmapped"]["stanch"]
    assert entry["payload"] == {"check": check.name, "state": "bad", "found": "a leak"}
    clock[0] += 25 * HOUR
    watcher.check()
    assert len(alerts(watcher.workspace, check.name)) == 2


def test_a_check_that_ended_with_the_watch_is_due_again(watched):
    watcher, _, finds, check = watched
    finds[:] = [Found(CheckState.GOOD), Found(CheckState.STOPPED)]
    watcher.check()
    assert last_done(watcher.workspace, check) is None
    assert alerts(watcher.workspace, check.name) == []
    watcher.check()
    assert last_done(watcher.workspace, check) is not None


def test_a_late_check_is_one_alert_until_it_is_done(watched):
    watcher, clock, _, check = watched
    clock[0] += 47 * HOUR
    watcher.tend()
    assert alerts(watcher.workspace, check.name) == []
    for _ in range(3):
        clock[0] += 2 * HOUR
        watcher.tend()
    (alert,) = alerts(watcher.workspace, check.name)
    assert (alert.signal, alert.count) == (f"{check.name}: late", 1)
    watcher.check()
    clock[0] += 49 * HOUR
    watcher.tend()
    assert len(alerts(watcher.workspace, check.name)) == 2


@pytest.mark.parametrize("part", ["gateway", "console"])
def test_a_certificate_that_was_not_renewed_is_one_alert(watched, part):
    watcher, clock, _, _ = watched
    note(watcher.workspace, f"{part}.certificate", {"state": "taken", "until": 1})
    note(watcher.workspace, f"{part}.certificate", {"state": "kept", "why": "no such file"})
    for _ in range(2):
        clock[0] += 60
        watcher.tend()
    with watcher.workspace.tables.read() as connection:
        (alert,) = [alert for alert in list_alerts(connection) if alert.signal.startswith(f"the {part}")]
    signal = f"the {part} keeps its old certificate: no such file"
    assert (alert.detector, alert.signal, alert.count, alert.severity) == ("certificate", signal, 1, "high")


def test_a_changed_log_is_found_by_its_check(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        check = verify_check(workspace)
        watcher = Watcher(workspace, (), lambda: workspace, threading.Event(), lambda _text: None, (check,))
        watcher._since = workspace.door.clock()
        watcher.check()
        assert (check.every_hours, alerts(workspace, check.name)) == (24, [])
        # The outcome of the check itself, made to lie far ahead.
        changed = workspace.ledger.reader().entry(1).replace(b'"time":1', b'"time":2')
        with workspace.tables.write() as connection:
            connection.execute(text("DROP TRIGGER ledger_entry_no_update"))
            connection.execute(text("UPDATE ledger_entry SET data = :data WHERE idx = 1"), {"data": changed})
        watcher.check()
        (alert,) = alerts(workspace, check.name)
        assert alert.signal.startswith("log verification: ")
        assert "entry 1" in alert.signal


def frame_of(folder):
    frame = Frame()
    frame.workspace, frame.principal = folder, "ana"
    return frame


def test_an_audit_is_a_process_of_its_own_with_what_the_settings_name(opened):
    workspace, _ = opened
    section = RepeatedAuditSection(
        name="bot", endpoint="http://127.0.0.1:9/v1", served="m", model="tok", plan="p.json", api_key_file="k"
    )
    at = workspace.folder
    words = audit_command(workspace, frame_of(at), section)
    assert words[3:9] == ["--workspace", str(at), "--as", "ana", "--quiet", "audit"]
    assert words[9:-2] == [
        "run", str(at / "tok"), "--endpoint", section.endpoint, "--model", "m", "--plan", str(at / "p.json"),
        "--api-key-file", str(at / "k"),
    ]  # fmt: skip
    assert words[-1].startswith(str(workspace.state / "audits" / "bot-2"))
    assert [check.name for check in checks_of(workspace, Frame(), threading.Event())] == ["log verification"]


def test_an_audit_ends_with_its_code_in_time_and_with_the_watch(tmp_path):
    def python(code):
        return [sys.executable, "-c", code]

    stop = threading.Event()
    assert end_of(python("raise SystemExit(4)"), 60, stop) == 4
    assert end_of(python("import time; time.sleep(60)"), 0.4, stop).what == "it did not come to an end"
    stop.set()
    assert end_of(python("import time; time.sleep(60)"), 60, stop) == Found(CheckState.STOPPED)
    # Without a report nothing was found out, whatever the code says.
    assert judge(0, tmp_path, Verdict.LEAK_PROVEN) == Found(CheckState.BAD, "it ended with exit code 0")


def test_settings_name_a_model_of_the_gateway_or_where_it_is_served(tmp_path):
    with Workspace.init(tmp_path / "w"):
        pass
    settings = tmp_path / "w" / "stanch.toml"
    plain = settings.read_text()
    both = 'gateway = "bot"\nendpoint = "http://127.0.0.1:9/v1"\nserved = "m"\n'
    for wrong in ("", 'endpoint = "http://127.0.0.1:9/v1"\n', 'served = "m"\n', both):
        settings.write_text(f'{plain}\n[[watch.audits]]\nname = "bot"\nmodel = "tok"\n{wrong}')
        with pytest.raises(InvalidInput, match="audits"):
            Workspace.open(tmp_path / "w")
    settings.write_text(f'{plain}\n[[watch.audits]]\nname = "bot"\nmodel = "tok"\ngateway = "bot"\n')
    with (
        Workspace.open(tmp_path / "w") as workspace,
        pytest.raises(InvalidInput, match=r"gateway\.models: none has the name 'bot'"),
    ):
        checks_of(workspace, Frame(), threading.Event())
