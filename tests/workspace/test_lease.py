"""Signs of life: a running act holds a lease, and an act whose process died is found and recorded once."""

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import replace

import life
import pytest
from sqlalchemy import select, update

from stanch.errors import Conflict, LedgerUnavailable, OutcomeNotRecorded
from stanch.ledger import Ledger, decode_entry
from stanch.store.schema.workspace import act_lease
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.lease import LEASE_SECONDS, Leases
from stanch.workspace.recover import record_abandoned
from stanch.workspace.verbs_access import workspace_ref


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        yield workspace


def request_in(workspace):
    return Request("log.read", "log:read", workspace_ref(workspace))


def rows(workspace):
    with workspace.tables.read() as connection:
        return connection.execute(select(act_lease)).all()


def expire(workspace):
    with workspace.tables.write() as connection:
        connection.execute(update(act_lease).values(until_ms=1))


def leave_open(workspace):
    """Begin an act whose process dies: its intent and lease are written, nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        original, taken = Ledger.append_nowait, []

        def append(self, entry, *, within=None):
            if taken:
                raise LedgerUnavailable("gone")
            taken.append(1)
            return original(self, entry, within=within)

        patch.setattr(Ledger, "append_nowait", append)
        with pytest.raises(OutcomeNotRecorded):
            workspace.door.act(request_in(workspace), lambda _: Done(1))


def test_a_running_act_holds_a_lease_and_no_other(workspace):
    def run(ref):
        (row,) = rows(workspace)
        assert row.act == ref.act
        assert 0 < row.until_ms - workspace.door.clock() * 1000 <= LEASE_SECONDS * 1000
        return Done(workspace.leases.expired())

    assert workspace.door.act(request_in(workspace), run) == ()
    assert rows(workspace) == []


def test_the_lease_of_a_long_act_is_renewed(workspace):
    leases = Leases(workspace.tables, workspace.door.clock, renew_seconds=0.02)

    def run(_ref):
        (first,) = rows(workspace)
        for _ in range(200):
            time.sleep(0.02)
            (now,) = rows(workspace)
            if now.until_ms > first.until_ms:
                return Done(True)
        return Done(False)

    assert replace(workspace.door, leases=leases).act(request_in(workspace), run)
    leases.close()


def test_an_act_whose_lease_was_taken_does_not_hand_out_its_result(workspace):
    undone = []

    def run(_ref):
        expire(workspace)
        assert len(record_abandoned(workspace.ledger, workspace.leases, workspace.door.clock)) == 1
        return Done(1, undo=lambda: undone.append(1))

    with pytest.raises(OutcomeNotRecorded) as caught:
        workspace.door.act(request_in(workspace), run)
    assert "abandoned" in caught.value.why
    assert undone == [1]
    assert [(phase, result) for phase, _, _, result in life.entries(workspace)] == [
        ("intent", ""), ("outcome", "abandoned"),
    ]  # fmt: skip


def test_opening_records_what_was_abandoned_with_what_the_intent_said(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        leave_open(workspace)
        assert len(workspace.leases.running()) == 1
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(life.entries(workspace)) == 1  # its lease has not expired: it may still run
        expire(workspace)
    with Workspace.open(tmp_path / "w") as workspace:
        begun, ended = life.entries(workspace)
        assert (begun[1:3], ended[1:]) == (ended[1:3], (begun[1], begun[2], "abandoned"))
        keys = [
            decode_entry(data)["unmapped"]["stanch"]["credential"]["key_id"]
            for _, data in workspace.ledger.reader().tail()
        ]
        assert keys == [workspace.people.session.key_id] * 2
        assert workspace.leases.running() == ()
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(life.entries(workspace)) == 2


def test_a_lease_of_an_act_that_never_was_stops_nobody(workspace):
    with workspace.tables.write() as connection:
        workspace.leases.begin(connection, "01900000-0000-7000-8000-000000000000")
    leave_open(workspace)
    expire(workspace)
    assert len(record_abandoned(workspace.ledger, workspace.leases, workspace.door.clock)) == 1


def test_one_of_many_openers_records_an_abandoned_act(workspace):
    leave_open(workspace)
    expire(workspace)
    found, barrier = [], threading.Barrier(8)

    def look():
        barrier.wait()
        found.extend(record_abandoned(workspace.ledger, workspace.leases, workspace.door.clock))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert len(life.entries(workspace)) == 2


def test_a_log_that_takes_no_entries_keeps_the_lease_for_the_next_opener(workspace, monkeypatch):
    leave_open(workspace)
    expire(workspace)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append_nowait", lambda *_, **__: (_ for _ in ()).throw(LedgerUnavailable("full")))
        assert record_abandoned(workspace.ledger, workspace.leases, workspace.door.clock) == ()
    assert len(record_abandoned(workspace.ledger, workspace.leases, workspace.door.clock)) == 1


def test_a_lease_that_is_gone_cannot_be_ended_or_taken(workspace):
    for change in (workspace.leases.end, workspace.leases.take):
        with pytest.raises(Conflict), workspace.tables.write() as connection:
            change(connection, "019b76da-a800-7000-8000-000000000000")


KILLED = """
import os, sys
from pathlib import Path
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.verbs_access import workspace_ref
with Workspace.open(Path(sys.argv[1])) as workspace:
    workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), lambda _: os.kill(os.getpid(), 9))
"""


def test_an_act_whose_process_was_killed_is_found(tmp_path):
    folder = tmp_path / "w"
    Workspace.init(folder).close()
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, timeout=300)
    assert done.returncode == -9
    later = time.time() + LEASE_SECONDS + 1
    with contextlib.closing(Workspace.open(folder, clock=lambda: later)) as workspace:
        assert [(phase, result) for phase, _, _, result in life.entries(workspace)] == [
            ("intent", ""), ("outcome", "abandoned"),
        ]  # fmt: skip
