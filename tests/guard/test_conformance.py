"""The bypass matrix over our own gateway: nothing comes out. Over a gateway without a guard everything does."""

import asyncio
import contextlib
import json
import re
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))  # the test folders are no packages

for part in ("httptools", "uvicorn"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway]'")

from answers import CANARY, INDEX_KEY, ROW  # noqa: E402 - after the path is set
from serving import MODEL, key_of  # noqa: E402 - same

from stanch.cli.frame import run  # noqa: E402 - same
from stanch.data import CanarySpec, open_dataset, plan_canaries  # noqa: E402 - same
from stanch.errors import ExternalError, InvalidInput  # noqa: E402 - same
from stanch.gateway.app import Gateway  # noqa: E402 - same
from stanch.gateway.budgets import Limits  # noqa: E402 - same
from stanch.gateway.desk import Desk  # noqa: E402 - same
from stanch.gateway.model import ServedModel  # noqa: E402 - same
from stanch.gateway.serve import run_server  # noqa: E402 - same
from stanch.gateway.upstream import Upstream  # noqa: E402 - same
from stanch.guard import Guard, GuardPolicy  # noqa: E402 - same
from stanch.guard.conformance import CLEAN, Answer, Target, holds, read_answer, run_matrix  # noqa: E402 - same
from stanch.guard.leaking import PATHS, LeakingServer, Said, answer  # noqa: E402 - same
from stanch.guard.matrix import (  # noqa: E402 - same
    CHUNKS,
    ROWS,
    TRANSFORMS,
    WHOLE,
    Row,
    canary_phrase,
    cells,
    training_phrase,
)  # fmt: skip
from stanch.scan import SpanIndex  # noqa: E402 - same
from stanch.workspace import Workspace  # noqa: E402 - same

PHRASES = (training_phrase(ROW), canary_phrase(CANARY))
CHANNELS = [row for row in ROWS if row.is_channel]


@pytest.fixture(scope="module")
def upstream():
    with LeakingServer("127.0.0.1", 0) as server:
        yield server


@pytest.fixture(scope="module")
def place(tmp_path_factory, upstream):
    """Return a function that runs a gateway with a guard, and its target."""
    folder = tmp_path_factory.mktemp("conformance") / "w"
    Workspace.init(folder).close()
    path = folder / "stanch.toml"
    path.write_text(path.read_text() + '\n[gateway]\nlisten = "127.0.0.1:0"\n')

    @contextlib.contextmanager
    def serve(guard, port=upstream.port, dialects=("chat", "completions")):
        with Workspace.open(folder) as workspace:
            url = f"http://127.0.0.1:{port}"
            model = ServedModel("bot", MODEL, url, "inner", dialects, guard, "sha256:" + "a" * 64)
            limits = {"bot": Limits(100_000, 10**10, 100_000)}
            gateway = Gateway(Desk.of(workspace), {"bot": model}, Upstream(), limits)
            stop, known, urls = threading.Event(), threading.Event(), []
            ready = lambda at: (urls.append(at), known.set())  # noqa: E731 - two acts in one
            thread = threading.Thread(
                target=run_server, args=(workspace, gateway), kwargs={"ready": ready, "stop": stop}
            )
            thread.start()
            try:
                assert known.wait(60)
                key = key_of(workspace, f"tester-{id(guard)}")
                yield Target(urls[0], "bot", key)
            finally:
                stop.set()
                thread.join(60)

    return serve


def test_our_gateway_lets_nothing_out(place, upstream):
    """All places plainly, two channels in every disguise; ``tests/gateway/test_places.py`` has the others."""
    made = [
        cell
        for cell in cells(ROWS, PHRASES, (7,))
        if cell.transform == "plain" or (cell.row.title in {"chat content", "chat arguments"} and cell.stream)
    ]
    guard = Guard(GuardPolicy(index=SpanIndex.build([ROW], key=INDEX_KEY), canaries=(CANARY,)))
    with place(guard, dialects=tuple(PATHS)) as target:
        report = run_matrix(target, upstream, made)
    shown = report.to_json()
    assert (report.leaks, report.changed, report.malformed) == (0, (), ()), shown
    assert report.is_passed
    assert not report.not_offered
    assert shown["places"].keys() == {row.title for row in ROWS}
    held = {name for name, counts in shown["disguises"].items() if set(counts) == {"held"}}
    assert {f"canary {name}" for name in TRANSFORMS} <= held
    assert {f"training-text {name}" for name in TRANSFORMS if name != "reversed"} <= held
    assert not any(secret in json.dumps(shown) for secret in (ROW[:30], CANARY))


def test_a_gateway_without_a_guard_fails(place, upstream):
    """Rebuilt frames alone close the other places; in a channel every disguise shows, and the reader sees it."""
    names = {"content": True, "text": False, "unknown field": False, "error body": False}
    made = [
        cell
        for cell in cells(ROWS, PHRASES[1:], (WHOLE,))
        if names.get(cell.row.name) is cell.stream
        and cell.row.dialect in {"chat", "completions"}
        and not cell.row.spread
    ]
    with place(Guard(GuardPolicy())) as target:
        report = run_matrix(target, upstream, made)
    assert not report.is_passed
    assert report.leaks == 2 * len(TRANSFORMS)
    leaked = {(cell.row.name, cell.transform) for cell, verdict in report.outcomes if verdict == "leak"}
    assert leaked == {(name, transform) for name in ("content", "text") for transform in TRANSFORMS}
    assert len(report.to_json()["leaked"]) == report.leaks


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_reader_sees_every_disguise_in_every_place(row):
    """What the leaking server says is read as a client would, without any gateway."""
    for cell in cells([row], PHRASES, (3,)):
        _, headers, body = answer(Said(row, cell.said, cell.stream, cell.chunk))
        heads = "\n".join(f"{name}: {value}" for name, value in headers.items()).encode("latin-1").decode()
        assert holds(read_answer(200, heads, body.decode()), cell.phrase), cell
    if row.is_channel:
        for stream in row.modes:
            said = Said(row, CLEAN, stream, 3)
            _, headers, body = answer(said)
            read = read_answer(200, str(headers), body.decode())
            assert read.is_well_formed
            assert CLEAN in read.strings
            assert not any(holds(read, phrase) for phrase in PHRASES)


def test_the_matrix_holds_every_combination():
    made = list(cells(ROWS, PHRASES))
    assert len(made) == len(set(made)) == sum(
        2 * len(TRANSFORMS) * sum(len(CHUNKS) if stream else 1 for stream in row.modes) for row in ROWS
    )  # fmt: skip
    assert {row.dialect for row in CHANNELS} == {"chat", "completions", "responses", "messages"}


def command(*words, capsys):
    code = run(["guard", "conformance", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_counts_and_exits(place, tmp_path, capsys, monkeypatch):
    """The gateway looks for the row and for no canary: the matrix says so, place by place."""
    monkeypatch.setattr("stanch.guard.matrix.CHUNKS", (WHOLE,))
    monkeypatch.setattr("stanch.guard.matrix.ROWS", (Row("chat", "content"), Row("messages", "text")))
    monkeypatch.setattr("stanch.guard.matrix.cells.__defaults__", ((WHOLE,),))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "short"}) + "\n" + json.dumps({"text": ROW}) + "\n")
    (tmp_path / "data.jsonl").write_text("".join(f'{{"text": "row {at}"}}\n' for at in range(9)))
    plan = plan_canaries(open_dataset(tmp_path / "data.jsonl"), CanarySpec(n=2), preregistration={})
    plan.save(tmp_path / "plan.json")
    guard = Guard(GuardPolicy(index=SpanIndex.build([ROW], key=INDEX_KEY)))
    with LeakingServer("127.0.0.1", 0) as found:
        port = found.port
    with place(guard, port) as target:
        (tmp_path / "key").write_text(target.key + "\n")
        words = ["--target", target.url, "--model", "bot", "--key-file", str(tmp_path / "key")]
        words += ["--upstream-listen", f"127.0.0.1:{port}", "--rows", str(tmp_path / "rows.jsonl")]
        code, out, err = command(*words, capsys=capsys)
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == "answers     16 asked, 0 leaked"
        assert out.splitlines()[-1] == "PASS        nothing came out"
        assert "  training-text reversed             2 unclaimed leak" in out.splitlines()
        code, out, _ = command(*words, "--canaries", str(tmp_path / "plan.json"), "--json", capsys=capsys)
    shown = json.loads(out)["data"]
    assert (code, shown["passed"], shown["leaks"]) == (1, False, 16)
    assert not any(secret in out for secret in (ROW[:30], *plan.tripwires, target.key))


def test_what_may_show_is_no_leak():
    def shows(text):
        return holds(Answer(200, text, (), is_well_formed=True), PHRASES[0])

    flat = [at for at, letter in enumerate(ROW) if letter.isalnum()]
    assert not shows(ROW[: flat[72] + 1])
    assert shows(ROW[: flat[73] + 1])
    assert shows(ROW[flat[5] : flat[78] + 1])


def test_a_target_that_is_none(upstream):
    made = list(cells(ROWS[:1], PHRASES))
    with pytest.raises(InvalidInput, match="no http"):
        run_matrix(Target("ftp://x", "bot"), upstream, made)
    with pytest.raises(ExternalError, match="does not answer"):
        run_matrix(Target("http://127.0.0.1:9", "bot"), upstream, made)
    with pytest.raises(InvalidInput, match="letters and digits"):
        holds(Answer(200, "", (), is_well_formed=True), training_phrase("too short"))


def test_a_port_that_is_taken(upstream):
    with pytest.raises(InvalidInput, match="cannot listen"):
        LeakingServer("127.0.0.1", upstream.port)


def test_a_target_that_answers_by_itself_proves_nothing():
    """It never asks the server behind it, and so is not the gateway that was meant."""
    body = answer(Said(Row("chat", "content"), CLEAN, stream=False, chunk=WHOLE))[2]

    async def scene():
        async def accept(reader, writer):
            asked = await reader.readuntil(b"\r\n\r\n")
            # Closing with a part of the question unread would reset the connection and lose the answer.
            await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", asked)[1]))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
            writer.write(head + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with LeakingServer("127.0.0.1", 0) as silent, pytest.raises(ExternalError, match="never asked"):
            await asyncio.to_thread(
                run_matrix, Target(f"http://127.0.0.1:{port}", "bot"), silent, list(cells(ROWS[:1], PHRASES))
            )
        server.close()
        await server.wait_closed()

    asyncio.run(scene())
