"""The door alone: what is recorded when something fails at a bad moment."""

from types import SimpleNamespace

import life
import pytest

from stanch.errors import ApprovalsMissing, LedgerUnavailable, NotPermitted, OutcomeNotRecorded
from stanch.ledger import Ledger
from stanch.workspace import Done, Request, Workspace
from stanch.workspace.act import ApprovalNeed
from stanch.workspace.verbs_access import workspace_ref


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "solo") as workspace:
        yield workspace


def request_in(workspace, **fields):
    return Request("log.read", "log:read", workspace_ref(workspace), **fields)


def phases(workspace):
    return [(phase, result) for phase, _, _, result in life.entries(workspace)]


def test_the_value_comes_back_after_its_outcome(workspace):
    seen = []

    def run(ref):
        seen.append((ref.index, phases(workspace)))
        return Done("value", {"count": 1})

    assert workspace.door.act(request_in(workspace), run) == "value"
    assert seen == [(0, [("intent", "")])]
    assert phases(workspace) == [("intent", ""), ("outcome", "done")]


@pytest.mark.parametrize("payload", [{"text": "x" * 70_000}, {"number": 0.5}])
def test_an_outcome_that_no_entry_can_hold_undoes_the_result(workspace, payload):
    undone = []
    with pytest.raises(OutcomeNotRecorded):
        workspace.door.act(request_in(workspace), lambda _: Done(1, payload, undo=lambda: undone.append(1)))
    assert undone == [1]


def test_an_interruption_before_the_outcome_is_durable_undoes_the_result(workspace, monkeypatch):
    undone = []

    def run(_ref):
        monkeypatch.setattr(Ledger, "append", interrupt)
        return Done(1, undo=lambda: undone.append(1))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.door.act(request_in(workspace), run)
    monkeypatch.undo()
    assert undone == [1]


def test_a_failure_that_cannot_be_recorded_is_still_the_failure(workspace, monkeypatch):
    def run(_ref):
        monkeypatch.setattr(Ledger, "append", refuse)
        raise RuntimeError("boom")

    def refuse(*_, **__):
        raise LedgerUnavailable("the disk is full")

    with pytest.raises(RuntimeError, match="boom") as caught:
        workspace.door.act(request_in(workspace), run)
    assert "the disk is full" in caught.value.__notes__[0]


def test_a_refusal_that_cannot_be_recorded_is_still_a_refusal(case, monkeypatch):
    with case.acting("nina") as workspace:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "append", lambda *_, **__: (_ for _ in ()).throw(LedgerUnavailable("full")))
            with pytest.raises(NotPermitted, match="refused") as caught:
                workspace.door.act(request_in(workspace), lambda _: Done(1))
        assert "could not be recorded: full" in caught.value.why


def test_approvals_that_another_act_used_up_meanwhile_are_a_recorded_refusal(workspace):
    def gone(_connection, _act):
        raise ApprovalsMissing("used up")

    need = ApprovalNeed(workspace_ref(workspace).digest, "p_somebody", gone)
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
