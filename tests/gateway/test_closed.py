"""What closes the gateway: each thing that is broken here lets not one byte of an answer out."""

import asyncio
import contextlib
import json
import os
import time

import hosts
import pytest
import serving
from answers import CLEAN, chunk, sse
from serving import http, key_of
from sqlalchemy import text, update
from test_serve import make, running, settings

from stanch.crypto import passphrase
from stanch.errors import StanchError
from stanch.gateway.serve import build_gateway
from stanch.gateway.sse import EventParser
from stanch.store.schema.ledger import ledger_log
from stanch.workspace import Workspace

ASK = {"model": "bot", "messages": [{"role": "user", "content": "Well?"}]}
STREAM = ASK | {"stream": True}
ANSWER = http(sse(chunk({"content": CLEAN}), chunk({}, "stop")))


@pytest.fixture
def place(tmp_path):
    with Workspace.init(tmp_path / "w") as workspace:
        yield workspace, key_of(workspace, "program")


def asked(workspace, guard, key, broken=lambda: None):
    """Ask once to see that all is well, break something, and ask again; return that answer, and who was asked then."""

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers += [ANSWER, ANSWER]
            assert CLEAN[:20] in (await client.ask(STREAM)).body.decode()
            server.asked.clear()
            broken()
            return await client.ask(STREAM), server.asked

    return asyncio.run(main())


def nothing_leaves(answer):
    return answer.status in {403, 500, 503} and set(answer.json) == {"error"} and CLEAN[:5] not in answer.body.decode()


def run_sql(workspace, statement):
    with workspace.tables.write() as connection:
        connection.execute(statement)


@pytest.mark.parametrize("table", ["budget_use", "budget_window", "budget_reset", "budget_lowered", "act_lease"])
def test_a_table_that_is_gone(place, guard, table):
    workspace, key = place
    answer, reached = asked(workspace, guard, key, lambda: run_sql(workspace, text(f"DROP TABLE {table}")))
    assert nothing_leaves(answer)
    assert reached == []


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_a_database_server_that_loses_the_database(tmp_path, postgresql, guard, monkeypatch, when):
    folder, uri = tmp_path / "w", postgresql.database()
    folder.mkdir()
    profile = '[ledger]\norigin = "example.com/shared"\n\n[access]\nprofile = "team"\n'
    (folder / "stanch.toml").write_text(f'[workspace]\ntables = "{uri}"\n\n{profile}')
    monkeypatch.setattr("stanch.crypto.passphrase._COSTS", passphrase._COSTS)  # put back what as_olga changes here

    def lose():
        postgresql.run(f"DROP DATABASE {uri.rpartition('/')[2]} WITH (FORCE)")

    async def half(writer):
        writer.write(http(sse(chunk({"content": CLEAN}), done=False)))
        await writer.drain()
        await asyncio.to_thread(lose)
        writer.write(sse(chunk({}, "stop")))

    async def in_the_middle(workspace, key):
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers.append(half)
            return await client.ask(STREAM)

    workspace = Workspace.init(folder, profile="team", owner="olga", passphrase=hosts.as_olga()["unlock"]())
    with contextlib.suppress(StanchError), workspace:  # its own end cannot be recorded
        key = key_of(workspace, "program")
        if when == "before":
            answer, reached = asked(workspace, guard, key, lose)
            assert nothing_leaves(answer)
            assert reached == []
        else:
            answer = asyncio.run(in_the_middle(workspace, key))
            assert (answer.status, answer.is_ended) == (200, True)
            assert b"[DONE]" not in answer.body
            assert b'"stop"' not in answer.body
            assert EventParser().feed(answer.body)[-1].data.startswith('{"error":')


def test_a_clock_that_went_back(place, guard):
    workspace, key = place
    future = int((time.time() + 90) * 1000)
    change = update(ledger_log).values(updated_ms=future)
    answer, reached = asked(workspace, guard, key, lambda: run_sql(workspace, change))
    assert nothing_leaves(answer)
    assert reached == []


def test_policies_that_nobody_could_confirm_for_a_minute(tmp_path, guard):
    ahead = [0]
    with Workspace.init(tmp_path / "w", clock=lambda: time.time() + ahead[0]) as workspace:

        def broken():
            ahead[0] = 61
            run_sql(workspace, text("ALTER TABLE access_revision RENAME TO gone"))

        answer, reached = asked(workspace, guard, key_of(workspace, "program"), broken)
        assert nothing_leaves(answer)
        assert reached == []


def test_a_full_disk(make_disk, guard):
    folder = make_disk(16)
    with Workspace.init(folder / "w") as workspace:
        key = key_of(workspace, "program")

        def broken():
            with (folder / "filler").open("wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                except OSError:
                    pass

        answer, reached = asked(workspace, guard, key, broken)
        (folder / "filler").unlink()
    assert nothing_leaves(answer)
    assert reached == []


@pytest.mark.parametrize("lost", ["train.index", "plan.json", "key"])
def test_a_guard_that_cannot_be_made_does_not_start(tmp_path, lost):
    make(tmp_path / "w", settings("http://127.0.0.1:9"))
    if lost == "key":
        for path in (tmp_path / "w" / ".stanch" / "keys").glob("index*"):
            path.unlink()
    else:
        path = tmp_path / "w" / lost
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StanchError), Workspace.open(tmp_path / "w") as workspace:
        build_gateway(workspace)


CONNECTIONS = int(os.environ.get("STANCH_CONNECTIONS", "2000"))


def test_thousands_of_connections_are_held_and_each_is_answered(tmp_path):
    resource = pytest.importorskip("resource", reason="there are no limits on open files to be raised here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CONNECTIONS + 500  # both ends are in this process
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this process may open {hard} files alone")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    make(tmp_path / "w", settings("http://127.0.0.1:9"))
    body = json.dumps(ASK).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    whole = head + b"authorization: Bearer stk_x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def main(url):
        host, port = url.removeprefix("http://").split(":")
        gate = asyncio.Semaphore(200)  # the kernel keeps a short queue of connections that nobody took yet

        async def connect():
            async with gate:
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(whole[:70])
                await writer.drain()
                return reader, writer

        async def finish(reader, writer):
            writer.write(whole[70:])
            await writer.drain()
            answer = await reader.read()
            writer.close()
            return answer

        opened = await asyncio.gather(*(connect() for _ in range(CONNECTIONS)))
        return await asyncio.gather(*(finish(*one) for one in opened))

    try:
        with Workspace.open(tmp_path / "w") as workspace:
            with running(workspace) as url:
                answers = asyncio.run(main(url))
            size = workspace.ledger.reader().size()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(answers) == CONNECTIONS
    assert all(answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 503")) for answer in answers)
    assert sum(answer.startswith(b"HTTP/1.1 401") for answer in answers) >= min(CONNECTIONS, 1000) / 2
    assert size < 30  # a flood of strangers is counted, and costs no entry each
