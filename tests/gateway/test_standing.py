"""What is remembered between requests: nothing is waited for, and no change is missed."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import serving
from answers import whole
from serving import MODEL, entries, http, key_of

from stanch.access.authenticator import Bearer
from stanch.gateway.desk import Desk
from stanch.gateway.standing import Known, Stale, judge_of
from stanch.store.schema.workspace import resource
from stanch.workspace import Request, Workspace
from stanch.workspace.people import People
from stanch.workspace.verbs_access import revoke_key

ASK = {"model": "bot", "messages": [{"role": "user", "content": "a question"}]}
REQUEST = Request("gateway.infer", "model:infer", MODEL)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("standing") / "w") as opened:
        yield opened


def asks(workspace, guard, key, *between):
    """Ask, do something, ask again, and so on, of one gateway; return the statuses, and how many reached the server."""

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            answers = []
            for change in (*between, None):
                server.answers.append(http(json.dumps(whole({"content": "x"})).encode(), "application/json"))
                answers.append((await client.ask(ASK)).status)
                if change is not None:
                    await asyncio.to_thread(change)
            return answers, len(server.asked)

    return asyncio.run(main())


def test_what_is_remembered_needs_no_reading(workspace, guard, monkeypatch):
    key = key_of(workspace, "remembered")
    read = []
    for owner, name in ((Desk, "authenticate"), (Known, "read")):
        whole_one = getattr(owner, name)

        def counted(self, *args, of=whole_one, name=name):
            read.append(name)
            return of(self, *args)

        monkeypatch.setattr(owner, name, counted)
    monkeypatch.setattr("stanch.gateway.standing._KNOWN_SECONDS", 60)
    monkeypatch.setattr("stanch.access.apikey._SEEN_SECONDS", 60)
    assert asks(workspace, guard, key, lambda: None, lambda: None) == ([200] * 3, 3)
    assert read == ["authenticate", "read"]


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_key_that_is_revoked_meanwhile_ends_at_once(workspace, guard, monkeypatch, seconds):
    monkeypatch.setattr("stanch.gateway.standing._KNOWN_SECONDS", seconds)
    monkeypatch.setattr("stanch.access.apikey._SEEN_SECONDS", 60)
    key = key_of(workspace, f"revoked {seconds}")
    answers, reached = asks(workspace, guard, key, lambda: revoke_key(workspace, key.split("_")[1]), lambda: None)
    assert (answers, reached) == ([200, 401, 401], 1)


def test_a_quarantine_is_seen_at_once_and_a_change_of_something_else_harms_nobody(workspace, guard, monkeypatch):
    monkeypatch.setattr("stanch.gateway.standing._KNOWN_SECONDS", 60)
    key = key_of(workspace, "quarantined")
    before = len(entries(workspace))
    changes = (lambda: key_of(workspace, "another"), lambda: workspace.people.remember_bytes(MODEL, {"quarantined": 1}))
    try:
        assert asks(workspace, guard, key, *changes) == ([200, 200, 403], 2)
    finally:
        with workspace.tables.write() as connection:
            connection.execute(resource.delete())
    phases = [phase for phase, *_ in entries(workspace)[before:]]
    assert phases.count("denied") == 1
    assert phases.count("intent") - phases.count("outcome") == 0


def test_a_judge_confirms_what_it_was_told_and_nothing_else(workspace):
    desk = Desk.of(workspace)
    key = key_of(workspace, "confirmed")
    session = desk.authenticate(Bearer(key, "127.0.0.1"))
    desk.authority.refresh()
    judge = judge_of(session, workspace, desk.authority, desk.known, "model:infer")
    judge.recall(MODEL)
    assert not judge.is_quick
    assert judge.decide(REQUEST).allowed
    with workspace.tables.write() as connection:
        judge.confirm(connection)
    later = desk.judge(session, MODEL, ("model:infer",))
    assert later.is_quick
    assert later.decide(REQUEST) == judge.decide(REQUEST)
    assert not desk.judge(session, MODEL, ("model:embed",)).is_quick
    key_of(workspace, "one more")
    with workspace.tables.write() as connection, pytest.raises(Stale):
        later.confirm(connection)
    desk.forget()
    assert not desk.judge(session, MODEL, ("model:infer",)).is_quick


def test_what_is_old_is_read_again(workspace):
    now = [0.0]
    desk = Desk.of(workspace)
    known = Known(monotonic=lambda: now[0])
    session = desk.authenticate(Bearer(key_of(workspace, "old"), "127.0.0.1"))
    judge_of(session, workspace, desk.authority, known, "model:infer").decide(REQUEST)
    for at, is_known in ((0.49, True), (0.5, False), (0.5, True), (0.99, True), (1.0, False), (1.0, False)):
        now[0] = at  # after half a second one is told nothing: it reads for the others
        assert (known.find(session, MODEL) is not None) == is_known
    judge_of(session, workspace, desk.authority, known, "model:infer").decide(REQUEST)
    assert known.find(session, MODEL) is not None


def test_of_many_who_need_it_at_once_one_reads_and_what_is_read_before_a_change_is_not_kept(workspace, monkeypatch):
    desk, reads, read = Desk.of(workspace), [], People.context
    session = desk.authenticate(Bearer(key_of(workspace, "many"), "127.0.0.1"))
    desk.authority.refresh()

    def slow(self, *args):
        reads.append(1)
        time.sleep(0.05)
        if changes:
            desk.forget()
        return read(self, *args)

    monkeypatch.setattr(People, "context", slow)
    monkeypatch.setattr("stanch.gateway.standing._KNOWN_SECONDS", 60)
    for changes in (False, True):
        desk.forget()
        reads.clear()
        judges = [desk.judge(session, MODEL, ("model:infer",)) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            decided = list(pool.map(lambda judge: judge.decide(REQUEST), judges))
        assert all(decision.allowed for decision in decided)
        assert (len(reads) == 1) != changes
        assert (desk.known.find(session, MODEL) is None) == changes


def test_a_refusal_is_never_remembered(workspace):
    desk = Desk.of(workspace)
    session = desk.authenticate(Bearer(key_of(workspace, "stranger", roles=()), "127.0.0.1"))
    for _ in range(2):
        judge = desk.judge(session, MODEL, ("model:infer",))
        assert not judge.is_quick
        assert not judge.decide(REQUEST).allowed
