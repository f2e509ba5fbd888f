"""Every verb: permitted and recorded, or refused and recorded, and never done without a record."""

import ast
import importlib
import inspect
import itertools
import pkgutil
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import life
import pytest
from sqlalchemy import select
from verb_table import BY_THE_GATEWAY, NOT_ACTS, VERBS, WITHOUT_WORKSPACE

from stanch import workspace as package
from stanch.access.policy import default_policies
from stanch.errors import LedgerUnavailable, NotPermitted, OutcomeNotRecorded, StoreError
from stanch.ledger import Ledger
from stanch.mark import embed
from stanch.store import Tables
from stanch.store.schema import METADATA
from stanch.tune import TunedModel
from stanch.workspace import (
    verbs_hunt,
    verbs_log,
    verbs_model,
    verbs_release,
)
from stanch.workspace.kinds import KINDS
from stanch.workspace.release_state import ReleaseState


def verb_modules():
    """Return every module of verbs: whatever is called so in the package."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name.startswith("verbs_")]
    return [importlib.import_module(f"stanch.workspace.{name}") for name in names]


def test_every_public_verb_is_walked():
    found = {
        name
        for module in verb_modules()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and "workspace" in inspect.signature(function).parameters
    }
    assert found == {verb.name for verb in VERBS} | set(NOT_ACTS)


def requests_in(module):
    """Yield ``(kind, action)`` of every request that a module writes down."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Request":
            yield tuple(argument.value for argument in node.args[:2])


def test_every_kind_of_act_is_declared_with_an_action_of_the_policies():
    asked = {pair for module in verb_modules() for pair in requests_in(module)}
    asked |= {(name, KINDS[name].action) for name in BY_THE_GATEWAY}
    assert asked == {(name, kind.action) for name, kind in KINDS.items()}
    assert {verb.kind for verb in VERBS} | set(WITHOUT_WORKSPACE) | set(BY_THE_GATEWAY) == set(KINDS)
    assert {kind.action for kind in KINDS.values()} <= default_policies().actions


@pytest.fixture(scope="module")
def approved(proposed, ground, tmp_path_factory):
    """The team with bolt's copy, which two approved, and the id of a grant."""
    folder = ground.copy(proposed.folder, tmp_path_factory.mktemp("approved") / "w")
    with life.acting(folder, "rolf") as workspace:
        proposed.create(workspace, folder.parent / "copy", recipient="bolt")
        for name in life.APPROVERS:
            life.acting_in(workspace, name, lambda acting: proposed.approve(acting, recipient="bolt"))
    with life.acting(folder, "nina") as workspace:
        facts = workspace.people.directory.facts_of(workspace.people.find("ada"))
    return SimpleNamespace(folder=folder, grant=facts.grants[0].id, copy=folder.parent / "copy")


@pytest.fixture(scope="module")
def stolen(proposed, tmp_path_factory):
    """acme's marked copy, in plain: the simplest suspect that must be traced."""
    with life.acting(proposed.folder, "ines") as workspace:
        state = ReleaseState.load(verbs_release.release_folder(workspace, "r1"))
        plan = state.mark_plan()
        return embed(state.model, tmp_path_factory.mktemp("stolen") / "copy", plan, state.copy_key(plan, "acme")).path


@pytest.fixture(scope="module")
def prepared(verb, approved, proposed, ground, stolen, tmp_path_factory):
    """What all tests of a verb begin with: whoever may did, once, what must have been done before it."""
    if verb.before is None:
        yield SimpleNamespace(team=approved, start=approved.folder, place=approved.folder.with_name("scene"), kept={})
        return
    here = tmp_path_factory.mktemp("prepared")
    place = ground.copy(approved.folder, here / "scene")
    scene = SimpleNamespace(folder=place, material=proposed.material, copy=approved.copy, stolen=stolen, kept={})
    with life.acting(place, verb.person) as workspace:
        verb.before(workspace, scene)
    # What is kept names files at this place: each test finds them there again.
    yield SimpleNamespace(team=approved, start=place.rename(here / "start"), place=place, kept=scene.kept)
    shutil.rmtree(here)


@pytest.fixture
def scene(prepared, proposed, ground, stolen, tmp_path, monkeypatch):
    """A copy of what was prepared, and the stages that need a model replaced by their results."""
    case = replace(proposed, folder=ground.copy(prepared.start, prepared.place))
    tuned = TunedModel(case.material.model, None, SimpleNamespace(guarantee="none", epsilon=None))
    monkeypatch.setattr(verbs_model, "tune", lambda *_, **__: tuned)
    monkeypatch.setattr(verbs_model, "audit", lambda *_, **__: case.material.result)
    monkeypatch.setattr(verbs_hunt, "Chat", lambda *_: SimpleNamespace(ask=lambda _question: None, asked=24))
    out = tmp_path / "out"
    out.mkdir()
    yield SimpleNamespace(
        folder=case.folder, material=case.material, certificate=case.certificate, acting=case.acting,
        proposal=case.proposal, grant=prepared.team.grant, out=out, stolen=stolen,
        copy=prepared.team.copy, kept=dict(prepared.kept),
    )  # fmt: skip
    shutil.rmtree(case.folder)


def spy(monkeypatch, verb, error=None):
    """Count the calls of a verb's stage, or let it raise ``error``."""
    owner, name = verb.stage
    original, calls = inspect.getattr_static(owner, name), []

    def wrapped(*arguments, **options):
        calls.append(1)
        if error is not None:
            raise error
        if isinstance(original, classmethod):
            return original.__func__(owner, *arguments, **options)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def fail_append(monkeypatch, *, after):
    """Let the log take ``after`` more entries and then none."""
    original, taken = Ledger.append_nowait, []

    def append(self, entry, *, within=None):
        if len(taken) >= after:
            raise LedgerUnavailable("the disk is full")
        taken.append(1)
        return original(self, entry, within=within)

    monkeypatch.setattr(Ledger, "append_nowait", append)


def fail_write(monkeypatch, number):
    """Let the ``number``-th writing transaction of an act fail at its commit; the publisher's do not count."""
    original, counter, failed = Tables.write, itertools.count(), []

    @contextmanager
    def write(self):
        turn = -1 if threading.current_thread().name == "stanch-publisher" else next(counter)
        with original(self) as connection:
            yield connection
            if turn == number:
                failed.append(1)
                raise StoreError("the disk is full")

    monkeypatch.setattr(Tables, "write", write)
    return failed


def walk(function, verbs=VERBS):
    """Run a test for each verb; by module, so that what was prepared for a verb serves all its tests."""
    return pytest.mark.parametrize("verb", verbs, ids=lambda verb: verb.name, scope="module")(function)


@walk
def test_nobody_is_refused_and_the_refusal_is_recorded(verb, scene, monkeypatch):
    calls = spy(monkeypatch, verb)
    with scene.acting("nina") as workspace:
        start = workspace.ledger.reader().size()
        with pytest.raises(NotPermitted):
            verb.call(workspace, scene, scene.out)
        assert [entry[:2] for entry in life.entries(workspace, start)] == [("denied", verb.kind)]
        assert not calls
    assert life.tree(scene.out) == []


ONE_A_MODULE = tuple({verb.function.__module__: replace(verb) for verb in VERBS}.values())
"""Verbs of their own, so that pytest does not run them among the others, between which nothing is on servers."""


@pytest.mark.parametrize("ground", ["servers"], indirect=True, scope="session")
@partial(walk, verbs=ONE_A_MODULE)
def test_a_verb_of_each_module_does_so_on_postgresql_and_s3(verb, scene, monkeypatch):
    test_whoever_may_leaves_one_intent_and_one_outcome(verb, scene, monkeypatch)


@walk
def test_whoever_may_leaves_one_intent_and_one_outcome(verb, scene, monkeypatch):
    calls = spy(monkeypatch, verb)
    with scene.acting(verb.person) as workspace:
        start = workspace.ledger.reader().size()
        verb.call(workspace, scene, scene.out)
        begun, done = life.entries(workspace, start)
        assert begun[:2] == ("intent", verb.kind)
        assert (done[:2], done[3]) == (("outcome", verb.kind), "done")
        assert begun[2] == done[2]
        assert calls
        assert verbs_log.verify_log(workspace).intents_open == ()


@walk
def test_nothing_happens_when_the_log_takes_no_entry(verb, scene, monkeypatch):
    calls = spy(monkeypatch, verb)
    fail_append(monkeypatch, after=0)
    before = life.tree(scene.folder / ".stanch" / "keys"), life.tree(scene.out)
    with scene.acting(verb.person) as workspace:
        start = workspace.ledger.reader().size()
        with pytest.raises(LedgerUnavailable):
            verb.call(workspace, scene, scene.out)
        assert workspace.ledger.reader().size() == start
        assert not calls
    assert (life.tree(scene.folder / ".stanch" / "keys"), life.tree(scene.out)) == before


@walk
@pytest.mark.slow
def test_nothing_happens_whichever_store_call_before_the_intent_fails(verb, scene, monkeypatch):
    calls = spy(monkeypatch, verb)
    with scene.acting(verb.person) as workspace:
        for number in itertools.count():
            start = workspace.ledger.reader().size()
            with monkeypatch.context() as context:
                failed = fail_write(context, number)
                try:
                    verb.call(workspace, scene, scene.out)
                except StoreError:
                    assert failed
            found = life.entries(workspace, start)
            if calls or found:
                break  # the intent became durable: from here on other tests speak
            assert failed
            assert life.tree(scene.out) == []
        assert next(entry[:2] for entry in found) == ("intent", verb.kind)


UNTOUCHED = {"act_lease", "approval.consumed_by", "console_token", "outbox"}
"""What an act writes with its intent; a link that nobody was told; what was sent already."""
ERASES = "log.erase"
"""What was erased does not come back."""


def rows_of_rights(workspace):
    """Return all rows but those of the log itself, without what an intent writes."""
    with workspace.tables.read() as connection:
        return {
            table.name: sorted(
                repr([row[column.name] for column in table.columns if f"{table.name}.{column.name}" not in UNTOUCHED])
                for row in connection.execute(select(table)).mappings()
            )
            for table in METADATA.sorted_tables
            if not table.name.startswith("ledger_") and table.name not in UNTOUCHED
        }


@walk
def test_a_result_without_recorded_outcome_is_withheld(verb, scene, monkeypatch):
    with scene.acting(verb.person) as workspace:
        start, before = workspace.ledger.reader().size(), rows_of_rights(workspace)
        keys = life.tree(scene.folder / ".stanch" / "keys")
        fail_append(monkeypatch, after=1)
        with pytest.raises(OutcomeNotRecorded) as caught:
            verb.call(workspace, scene, scene.out)
        assert "the disk is full" in caught.value.why
        assert [entry[:2] for entry in life.entries(workspace, start)] == [("intent", verb.kind)]
        assert len(verbs_log.verify_log(workspace).intents_open) == 1
        if verb.kind != ERASES:
            assert rows_of_rights(workspace) == before
        assert life.tree(scene.folder / ".stanch" / "keys") == keys
        # What gives weights or a verdict away is destroyed.
        assert not (scene.out / "copy").exists()
        assert not (scene.out / "report").exists()
        assert not (scene.out / "evidence.zip").exists()


@walk
@pytest.mark.parametrize(
    ("error", "result"), [(RuntimeError("boom"), "failed"), (KeyboardInterrupt(), "cancelled")], ids=["fails", "ctrl-c"]
)
def test_an_act_that_fails_or_is_interrupted_is_recorded_so(verb, scene, monkeypatch, error, result):
    calls = spy(monkeypatch, verb, error)
    with scene.acting(verb.person) as workspace:
        start = workspace.ledger.reader().size()
        with pytest.raises(type(error)):
            verb.call(workspace, scene, scene.out)
        found = life.entries(workspace, start)
        monkeypatch.undo()
    assert calls
    assert [(phase, kind) for phase, kind, _, _ in found] == [("intent", verb.kind), ("outcome", verb.kind)]
    assert found[1][3] == result
    assert life.tree(scene.out) == []
