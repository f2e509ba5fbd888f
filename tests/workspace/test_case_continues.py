"""A case goes on from wherever it was killed, under the plan that the log holds, which is spent once."""

import os
import signal

import life
import pytest

from stanch.errors import Conflict, CustodyBroken, InvalidInput, NotFound
from stanch.ledger import EntryQuery
from stanch.trace import Case, examination
from stanch.trace import case as case_module
from stanch.workspace import case_log, verbs_trace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_release import release_folder


def suspect(workspace, path):
    return verbs_trace.Suspect(
        path=path, case="c-1", description="found", received_from="a host", discovered=workspace.now()
    )  # fmt: skip


def go_on(workspace, path):
    """Do what somebody does after a crash: open the case if it is not there, and go on with it otherwise."""
    if verbs_trace.find_case(workspace, "c-1") is None:
        return verbs_trace.trace_suspect(workspace, suspect(workspace, path), "r1")
    return verbs_trace.continue_case(workspace, "c-1", "r1")


def kill(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(original):
    def run(*arguments, **options):
        original(*arguments, **options)
        kill()

    return run


def die(case, path, owner, name, *, after):
    """Let a process of its own do it, and kill it before or after one of its steps."""
    child = os.fork()
    if child == 0:
        try:
            setattr(owner, name, killed_after(getattr(owner, name)) if after else kill)
            with case.acting("ines") as workspace:
                go_on(workspace, path)
        finally:
            os._exit(3)  # it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), (name, after, status)


STEPS = (
    (verbs_trace, "open_case", False, None),
    (case_module, "extend_custody", False, None),
    (verbs_trace, "open_case", True, "acquired"),
    (verbs_trace, "fix_plan", True, "acquired"),
    (verbs_trace, "write_atomic", False, "planned"),
    (verbs_trace, "examine_case", False, "planned"),
    (examination, "detect", False, "planned"),
    (examination, "_save", False, "planned"),
    (examination, "_save", True, "planned"),
)
"""Where the process is killed, whether after that step, and how the case then stands."""


def test_a_case_that_is_killed_at_every_step_ends_under_one_plan_that_is_spent_once(case, stolen):
    for owner, name, after, state in STEPS:
        die(case, stolen, owner, name, after=after)
        with case.acting("ines") as workspace:
            standing = case_log.standings(workspace.ledger.reader()).get("c-1")
            is_there = verbs_trace.find_case(workspace, "c-1") is not None
            assert (is_there, standing.state if is_there else None) == (state is not None, state), name
            with pytest.raises((InvalidInput, NotFound)):
                verbs_trace.load_case(workspace, "c-1")  # no verdict is in the log, so none is handed out
    with case.acting("ines") as workspace:
        traced = verbs_trace.continue_case(workspace, "c-1")
        assert [who.recipient for who in traced.decision.recipients] == ["acme"]
        reader = workspace.ledger.reader()
        assert case_log.spent(reader) == ("1e-9",)
        (plan,) = reader.query(EntryQuery(kind="trace.plan", phase="intent"))
        assert traced.examination.plan.entry == plan
        assert case_log.find_plan(reader, "c-1", traced.examination.plan.plan.digest) == plan
        # Each examination that came to its end has a line, and all of them are under the plan.
        notes = [line.note for line in traced.case.custody().lines if line.action == "examined"]
        assert len(notes) == 3
        assert set(notes) == {f"examined under plan {traced.examination.plan.plan.digest}, log entry {plan.index}"}
        assert verbs_trace.load_case(workspace, "c-1").decision == traced.decision


@pytest.fixture
def failed(case, stolen):
    """A case whose examination failed once."""
    with case.acting("ines") as workspace, pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbs_trace, "examine", lambda *_, **__: (_ for _ in ()).throw(OSError("no memory")))
        with pytest.raises(OSError, match="no memory"):
            verbs_trace.trace_suspect(workspace, suspect(workspace, stolen), "r1")
    return case


def test_an_examination_that_failed_is_repeated_and_only_it(failed):
    with failed.acting("ines") as workspace:
        start = workspace.ledger.reader().size()
        traced = verbs_trace.continue_case(workspace, "c-1")
        assert [entry[:2] for entry in life.entries(workspace, start)] == [
            ("intent", "trace.examine"), ("outcome", "trace.examine")
        ]  # fmt: skip
        with pytest.raises(InvalidInput, match="decided already"):
            verbs_trace.continue_case(workspace, "c-1")
        with pytest.raises(InvalidInput, match="exists already"):
            verbs_trace.trace_suspect(workspace, suspect(workspace, traced.case.suspect_folder), "r1")
        assert verbs_trace.load_case(workspace, "c-1").decision == traced.decision


def test_the_plan_of_a_case_is_not_changed(failed):
    with failed.acting("ines") as workspace:
        with pytest.raises(InvalidInput, match="about release r1, and is not changed"):
            verbs_trace.continue_case(workspace, "c-1", "r2")
        plan = verbs_trace.find_case(workspace, "c-1") / "plan.json"
        kept = plan.read_bytes()
        plan.write_bytes(kept.replace(b'"rounds":2', b'"rounds":9'))
        with pytest.raises(InvalidInput, match="has no plan yet"):  # none that the log holds
            verbs_trace.continue_case(workspace, "c-1")
        traced = verbs_trace.continue_case(workspace, "c-1", "r1")
        assert traced.examination.plan.plan.to_bytes() == kept
        assert case_log.spent(workspace.ledger.reader()) == ("1e-9",)


def test_two_who_plan_at_once_spend_once(case, stolen, monkeypatch):
    with case.acting("ines") as workspace:
        record = verbs_trace.release_record(workspace, ReleaseState.load(release_folder(workspace, "r1")))
        opened = verbs_trace.take_suspect(workspace, suspect(workspace, stolen))
        fix = verbs_trace.fix_plan

        def overtaken(*arguments, **options):
            plan = fix(*arguments, **options)
            find = case_log.find_plan
            monkeypatch.setattr(verbs_trace, "fix_plan", fix)
            # The other one looks, and logs its plan, after this one looked and before it logs its own.
            monkeypatch.setattr(case_log, "find_plan", lambda *_: monkeypatch.setattr(case_log, "find_plan", find))
            others.append(verbs_trace.plan_case(workspace, opened, record))
            monkeypatch.setattr(case_log, "find_plan", lambda *_: monkeypatch.setattr(case_log, "find_plan", find))
            return plan

        others = []
        monkeypatch.setattr(verbs_trace, "fix_plan", overtaken)
        with pytest.raises(Conflict, match="another process planned it"):
            verbs_trace.plan_case(workspace, opened, record)
        assert case_log.spent(workspace.ledger.reader()) == ("1e-9",)
        assert verbs_trace.plan_case(workspace, opened, record) == others[0]


def test_two_who_examine_at_once_are_one(failed):
    with failed.acting("ines") as workspace:
        folder = verbs_trace.find_case(workspace, "c-1")
        with Case.load(folder).held(), pytest.raises(Conflict, match="another process examines it"):
            verbs_trace.continue_case(workspace, "c-1")
        assert len(Case.load(folder).custody().lines) == 1
        assert verbs_trace.continue_case(workspace, "c-1").decision.recipients


def test_a_suspect_that_changed_meanwhile_is_not_examined(failed):
    with failed.acting("ines") as workspace:
        config = verbs_trace.find_case(workspace, "c-1") / "suspect" / "adapter_config.json"
        config.chmod(0o600)
        config.write_bytes(config.read_bytes() + b" ")
        with pytest.raises(CustodyBroken):
            verbs_trace.continue_case(workspace, "c-1")


@pytest.mark.parametrize("name", ["c-2", "../releases/r1", "c-1.partial", "", "C-1"])
def test_what_is_no_case_does_not_go_on(failed, name):
    with failed.acting("ines") as workspace, pytest.raises(InvalidInput, match="there is no case"):
        verbs_trace.continue_case(workspace, name)
