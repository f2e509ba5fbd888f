"""The door for an event loop: the same order, and a cancelled task leaves a log that says so."""

import asyncio
import threading

import life
import pytest

from stanch.errors import LedgerUnavailable, NotPermitted
from stanch.ledger import Ledger
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.verbs_access import workspace_ref


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        yield workspace


def request_in(workspace):
    return Request("log.read", "log:read", workspace_ref(workspace))


def phases(workspace):
    return [(phase, result) for phase, _, _, result in life.entries(workspace)]


def hold_appends(monkeypatch, number):
    """Hold the ``number``-th entry back until it is let go; returns the event that it came, and the gate."""
    original, come, gate, count = Ledger.append_nowait, threading.Event(), threading.Event(), []

    def append_nowait(self, entry, *, within=None):
        count.append(1)
        if len(count) != number:
            return original(self, entry, within=within)

        def wait(connection):
            come.set()
            assert gate.wait(60)
            if within is not None:
                within(connection)

        return original(self, entry, within=wait)

    monkeypatch.setattr(Ledger, "append_nowait", append_nowait)
    return come, gate


def test_the_value_comes_back_after_its_outcome(workspace):
    async def run(_ref):
        await asyncio.sleep(0)
        return Done(phases(workspace))

    assert asyncio.run(workspace.door.act_async(request_in(workspace), run)) == [("intent", "")]
    assert phases(workspace) == [("intent", ""), ("outcome", "done")]


def test_many_acts_at_once_share_the_committer(workspace):
    async def run(_ref):
        await asyncio.sleep(0.01)
        return Done(1)

    async def many():
        return await asyncio.gather(*(workspace.door.act_async(request_in(workspace), run) for _ in range(50)))

    assert asyncio.run(many()) == [1] * 50
    found = life.entries(workspace)
    assert len(found) == 100
    assert len({entry[2] for entry in found}) == 50
    assert workspace.leases.running() == ()


def test_a_refusal_is_recorded_and_nothing_runs(case):
    async def run(_ref):
        pytest.fail("ran")

    with case.acting("nina") as workspace:
        start = workspace.ledger.reader().size()
        with pytest.raises(NotPermitted):
            asyncio.run(workspace.door.act_async(request_in(workspace), run))
        assert [entry[0] for entry in life.entries(workspace, start)] == ["denied"]


def test_nothing_runs_when_the_log_takes_no_entry(workspace, monkeypatch):
    def refuse(*_, **__):
        raise LedgerUnavailable("full")

    async def run(_ref):
        pytest.fail("ran")

    monkeypatch.setattr(Ledger, "append_nowait", refuse)
    with pytest.raises(LedgerUnavailable):
        asyncio.run(workspace.door.act_async(request_in(workspace), run))


def test_a_failure_is_recorded(workspace):
    async def run(_ref):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        asyncio.run(workspace.door.act_async(request_in(workspace), run))
    assert phases(workspace) == [("intent", ""), ("outcome", "failed")]


def test_a_task_that_is_cancelled_while_it_runs_is_recorded_so(workspace):
    async def scene():
        started = asyncio.Event()

        async def run(_ref):
            started.set()
            await asyncio.sleep(60)
            return Done(1)

        task = asyncio.create_task(workspace.door.act_async(request_in(workspace), run))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert phases(workspace) == [("intent", ""), ("outcome", "cancelled")]


@pytest.mark.parametrize(("number", "ran", "result"), [(1, 0, "cancelled"), (2, 1, "done")])
def test_a_task_that_is_cancelled_while_an_entry_is_written_agrees_with_the_log(
    workspace, monkeypatch, number, ran, result
):
    come, gate = hold_appends(monkeypatch, number)
    calls, undone = [], []

    async def scene():
        async def run(_ref):
            calls.append(1)
            return Done(1, undo=lambda: undone.append(1))

        task = asyncio.create_task(workspace.door.act_async(request_in(workspace), run))
        await asyncio.to_thread(come.wait, 60)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert phases(workspace) == [("intent", ""), ("outcome", result)]
    assert (len(calls), undone) == (ran, [])
    assert workspace.leases.running() == ()


def test_a_loop_that_is_gone_leaves_the_lease_as_the_evidence(workspace):
    begun = asyncio.Event()

    async def run(_ref):
        begun.set()
        await asyncio.sleep(60)

    async def drive():
        await workspace.door.act_async(request_in(workspace), run)

    loop = asyncio.new_event_loop()
    task = loop.create_task(drive())
    loop.run_until_complete(begun.wait())
    task.get_coro().close()
    task._log_destroy_pending = False
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert phases(workspace) == [("intent", "")]
    assert len(workspace.leases.running()) == 1
