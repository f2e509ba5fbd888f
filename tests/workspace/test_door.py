"""The door alone: what is recorded when something fails at a bad moment."""

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import life
import pytest

from stanch.crypto import canonical_json
from stanch.errors import (
    ApprovalsMissing,
    CommitUnknown,
    LedgerUnavailable,
    NotAuthenticated,
    NotPermitted,
    OutcomeNotRecorded,
    QuorumUnmet,
    StoreError,
)
from stanch.ledger import Ledger, decode_entry
from stanch.ledger.committer import Committer
from stanch.store import Tables
from stanch.terms import Digest
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.act import ApprovalNeed
from stanch.workspace.door import DECISION_SECONDS, WITNESS_SECONDS, Witnessing
from stanch.workspace.verbs_access import workspace_ref


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        yield workspace


def request_in(workspace, **fields):
    return Request("log.read", "log:read", workspace_ref(workspace), **fields)


def phases(workspace):
    return [(phase, result) for phase, _, _, result in life.entries(workspace)]


def ours(workspace, index):
    return decode_entry(workspace.ledger.reader().entry(index))["unmapped"]["stanch"]


class Judge:
    """The workspace's own judge, with a history: it answers each time as the test says."""

    def __init__(self, workspace, *, versions=(), refuse_from=99):
        self.judge, self.versions, self.refuse_from = workspace.door.judge, list(versions), refuse_from
        self.asked = []

    def decide(self, request, act=""):
        self.asked.append(act)
        decision = self.judge.decide(request, act)
        return decision if len(self.asked) < self.refuse_from else replace(decision, allowed=False, reasons=("gone",))

    def policy(self):
        return self.versions.pop(0) if self.versions else self.judge.policy()

    def approvals_digest(self, request):
        return self.judge.approvals_digest(request)


def test_the_value_comes_back_after_its_outcome(workspace):
    seen = []

    def run(ref):
        seen.append((ref.index, phases(workspace)))
        return Done("value", {"count": 1})

    assert workspace.door.act(request_in(workspace), run) == "value"
    assert seen == [(0, [("intent", "")])]
    assert phases(workspace) == [("intent", ""), ("outcome", "done")]


@pytest.mark.parametrize(("stays", "undone"), [(False, [1]), (True, [])])
def test_what_nobody_knows_is_recorded_is_destroyed_unless_it_stays(workspace, monkeypatch, stays, undone):
    found = []

    def run(_ref):
        monkeypatch.setattr(Ledger, "append_nowait", lost)
        return Done(1, undo=lambda: found.append(1), stays=stays)

    def lost(*_, **__):
        raise CommitUnknown("nobody answers")

    with pytest.raises(OutcomeNotRecorded, match="what it made stays" if stays else "withheld"):
        workspace.door.act(request_in(workspace), run)
    assert found == undone


@pytest.mark.parametrize("payload", [{"text": "x" * 70_000}, {"number": 0.5}])
def test_an_outcome_that_no_entry_can_hold_undoes_the_result(workspace, payload):
    undone = []
    with pytest.raises(OutcomeNotRecorded):
        workspace.door.act(request_in(workspace), lambda _: Done(1, payload, undo=lambda: undone.append(1)))
    assert undone == [1]


def test_an_interruption_before_the_outcome_is_durable_undoes_the_result(workspace, monkeypatch):
    undone = []

    def run(_ref):
        monkeypatch.setattr(Ledger, "append_nowait", interrupt)
        return Done(1, undo=lambda: undone.append(1))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.door.act(request_in(workspace), run)
    monkeypatch.undo()
    assert undone == [1]


@pytest.mark.parametrize(
    ("phase", "ran", "recorded"),
    [("intent", 0, [("intent", ""), ("outcome", "cancelled")]), ("outcome", 1, [("intent", ""), ("outcome", "done")])],
)
def test_after_ctrl_c_in_a_commit_the_log_and_the_act_agree(workspace, monkeypatch, phase, ran, recorded):
    done, undone, original = [], [], Committer._write

    def write(self, batch):
        if any(f'"phase":"{phase}"'.encode() in item.entry.data for item in batch) and not struck:
            struck.append(1)
            while sys._current_frames()[threading.main_thread().ident].f_code.co_name != "wait":
                time.sleep(0.001)  # the act does not wait for the commit yet
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # so that it strikes before the commit
        original(self, batch)

    struck = []
    monkeypatch.setattr(Committer, "_write", write)

    def run(_ref):
        done.append(1)
        return Done(1, undo=lambda: undone.append(1))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            workspace.door.act(request_in(workspace), run)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (len(done), undone) == (ran, [])
    assert phases(workspace) == recorded
    assert workspace.leases.running() == ()


def test_a_failure_that_cannot_be_recorded_is_still_the_failure(workspace, monkeypatch):
    def run(_ref):
        monkeypatch.setattr(Ledger, "append_nowait", refuse)
        raise RuntimeError("boom")

    def refuse(*_, **__):
        raise LedgerUnavailable("the disk is full")

    with pytest.raises(RuntimeError, match="boom") as caught:
        workspace.door.act(request_in(workspace), run)
    assert "the disk is full" in caught.value.__notes__[0]


def test_a_refusal_that_cannot_be_recorded_is_still_a_refusal(case, monkeypatch):
    with case.acting("nina") as workspace:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "append_nowait", lambda *_, **__: (_ for _ in ()).throw(LedgerUnavailable("full")))
            with pytest.raises(NotPermitted, match="refused") as caught:
                workspace.door.act(request_in(workspace), lambda _: Done(1))
        assert "could not be recorded: full" in caught.value.why


def test_approvals_that_another_act_used_up_meanwhile_are_a_recorded_refusal(workspace):
    def gone(_connection, _act):
        raise ApprovalsMissing("used up")

    need = ApprovalNeed(workspace_ref(workspace).digest, "p_somebody", gone, "access:grant")
    with pytest.raises(ApprovalsMissing):
        workspace.door.act(request_in(workspace, approval=need), lambda _: pytest.fail("ran"))
    assert phases(workspace) == [("denied", "")]


def test_the_entry_names_policy_key_and_person_but_no_name(workspace):
    workspace.door.act(request_in(workspace), lambda _: Done(1))
    entry = workspace.ledger.reader().entry(0).decode()
    session = workspace.people.session
    facts = SimpleNamespace(principal=session.principal, key=session.key_id)
    assert facts.principal in entry
    assert facts.key in entry
    assert "owner" not in entry


def test_the_intent_holds_the_digest_of_its_parameters(workspace):
    payload = {"n": 3, "name": "x"}
    workspace.door.act(request_in(workspace, payload=payload), lambda _: Done(1))
    assert ours(workspace, 0)["payload"] == payload | {"params_digest": str(Digest.sha256(canonical_json(payload)))}


def test_an_ended_session_is_a_recorded_refusal(workspace):
    late = replace(workspace.people.session, expires_ms=0)
    judge = replace(workspace.door.judge, people=replace(workspace.people, session=late))
    with pytest.raises(NotAuthenticated):
        replace(workspace.door, judge=judge).act(request_in(workspace), lambda _: pytest.fail("ran"))
    assert phases(workspace) == [("denied", "")]


def test_a_fresh_decision_is_not_asked_for_again(workspace):
    judge = Judge(workspace)
    replace(workspace.door, judge=judge).act(request_in(workspace), lambda _: Done(1))
    assert judge.asked == [""]


@pytest.mark.parametrize("why", ["policies changed", "time passed"])
def test_an_old_decision_is_asked_for_again_and_its_refusal_is_recorded(workspace, why):
    judge = Judge(workspace, versions=["sha256:" + "0" * 64] if why == "policies changed" else (), refuse_from=2)
    start = workspace.door.clock()
    times = itertools.count(start, DECISION_SECONDS if why == "time passed" else 0)
    door = replace(workspace.door, judge=judge, clock=lambda: next(times))
    with pytest.raises(NotPermitted):
        door.act(request_in(workspace), lambda _: pytest.fail("ran"))
    assert judge.asked[1] == life.entries(workspace)[0][2]
    assert phases(workspace) == [("intent", ""), ("outcome", "failed")]
    assert ours(workspace, 1)["payload"] == {"error": "not-permitted"}


def test_permission_is_asked_for_once_more_before_weights_are_handed_out(workspace):
    judge, undone = Judge(workspace, refuse_from=2), []
    door = replace(workspace.door, judge=judge)
    with pytest.raises(NotPermitted):
        door.act(request_in(workspace), lambda _: Done(1, egress_bytes=5, undo=lambda: undone.append(1)))
    assert (len(judge.asked), undone) == (2, [1])
    assert phases(workspace) == [("intent", ""), ("outcome", "failed")]


def test_a_clock_that_was_set_back_makes_no_decision_fresh(workspace):
    judge, undone = Judge(workspace, refuse_from=2), []
    start = workspace.door.clock()
    times = itertools.chain([start], itertools.repeat(start - 1))
    door = replace(workspace.door, judge=judge, clock=lambda: next(times))
    with pytest.raises(NotPermitted):
        door.act(request_in(workspace), lambda _: Done(1, egress_bytes=5, undo=lambda: undone.append(1)))
    assert len(judge.asked) == 2


def test_an_act_that_witnesses_must_see_waits_for_them(workspace):
    waited = []
    watching = Witnessing(("log",), lambda ref, seconds: waited.append((ref.index, seconds)))
    door = replace(workspace.door, witnessing=watching)
    assert door.act(request_in(workspace), lambda _: Done(len(waited))) == 1
    assert waited == [(0, WITNESS_SECONDS)]
    others = replace(watching, kinds=("lo", "log.reading", "release"))
    replace(door, witnessing=others).act(request_in(workspace), lambda _: Done(1))
    assert len(waited) == 1


def test_without_its_witnesses_an_act_does_not_run(workspace):
    def wait(_ref, _seconds):
        raise QuorumUnmet("0 of 1 witnesses")

    door = replace(workspace.door, witnessing=Witnessing(("log.read",), wait))
    with pytest.raises(QuorumUnmet):
        door.act(request_in(workspace), lambda _: pytest.fail("ran"))
    assert phases(workspace) == [("intent", ""), ("outcome", "failed")]
    assert ours(workspace, 1)["payload"] == {"error": "quorum-unmet"}


def test_an_outcome_too_large_is_recorded_as_a_failure(workspace):
    with pytest.raises(OutcomeNotRecorded):
        workspace.door.act(request_in(workspace), lambda _: Done(1, {"text": "x" * 70_000}))
    assert phases(workspace) == [("intent", ""), ("outcome", "failed")]
    assert workspace.leases.running() == ()


def test_an_interruption_while_the_intent_is_written_ends_it(workspace, monkeypatch):
    original, interrupted = Ledger.append_nowait, []

    def append(self, entry, *, within=None):
        ref = original(self, entry, within=within)
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        return ref

    monkeypatch.setattr(Ledger, "append_nowait", append)
    with pytest.raises(KeyboardInterrupt):
        workspace.door.act(request_in(workspace), lambda _: pytest.fail("ran"))
    assert phases(workspace) == [("intent", ""), ("outcome", "cancelled")]


def test_an_interruption_before_the_intent_is_written_leaves_nothing(workspace, monkeypatch):
    original, interrupted = Ledger.append_nowait, []

    def append(self, entry, *, within=None):
        if not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        return original(self, entry, within=within)

    monkeypatch.setattr(Ledger, "append_nowait", append)
    with pytest.raises(KeyboardInterrupt):
        workspace.door.act(request_in(workspace), lambda _: pytest.fail("ran"))
    assert phases(workspace) == []


@contextlib.contextmanager
def failing_store(monkeypatch, number, moment):
    """Let the ``number``-th transaction fail as it begins or as it commits; the publisher's do not count."""
    counter, failed = itertools.count(), []

    def patch(original):
        @contextlib.contextmanager
        def transaction(self):
            turn = -1 if threading.current_thread().name == "stanch-publisher" else next(counter)
            if turn == number and moment == "begin":
                failed.append(1)
                raise StoreError("the disk is full")
            with original(self) as connection:
                yield connection
                if turn == number and moment == "commit":
                    failed.append(1)
                    raise StoreError("the disk is full")

        return transaction

    with monkeypatch.context() as context:
        context.setattr(Tables, "write", patch(Tables.write))
        context.setattr(Tables, "read", patch(Tables.read))
        yield failed


@pytest.mark.parametrize("moment", ["begin", "commit"])
def test_no_act_runs_without_a_durable_intent_whichever_store_call_fails(workspace, monkeypatch, moment):
    for number in itertools.count():
        start, ran = workspace.ledger.reader().size(), []
        with failing_store(monkeypatch, number, moment) as failed, contextlib.suppress(StoreError):
            workspace.door.act(request_in(workspace), lambda _, ran=ran: Done(ran.append(1)))
        found = [entry[0] for entry in life.entries(workspace, start)]
        assert found in ([], ["intent"], ["intent", "outcome"])
        assert not ran or found
        assert failed or (ran, found) == ([1], ["intent", "outcome"])
        if not failed:
            break
    assert number >= 3  # facts, intent, outcome
