"""Figures: what they count, that they name nobody, and who may read them."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
import serving
from answers import CLEAN, ROW, chunk, cut, sse, whole
from serving import MODEL, entries, http, key_of

from stanch.errors import InvalidInput
from stanch.gateway.budgets import Limits
from stanch.gateway.metrics import Metrics
from stanch.gateway.monitor import monitor_server
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardError
from stanch.workspace import Workspace

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
ASK = {"model": "bot", "messages": [{"role": "user", "content": ROW}], "stream": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("metrics") / "w") as workspace:
        yield workspace, key_of(workspace, "program")


def stream(said, **more):
    return http(sse(*(chunk({"content": piece} | more) for piece in cut(said, 5)), chunk({}, "stop")))


def values(page):
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line[:1] != "#"}


def test_figures_count_and_name_nobody(place, guard):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers += [stream(CLEAN, extra="dropped"), stream(ROW), http(b"", status="500 No")]
            for _ in range(3):
                await client.ask(ASK)
            client.app.limits["bot"] = Limits(1000, 1, 8)
            await client.ask(ASK)
            await client.ask(ASK, "/v1/" + "x" * 50)
            for _ in range(2):
                assert (await client.ask(b"", "/readyz", method="GET")).status == 200
            return client.app.desk.metrics.page().decode()

    page = asyncio.run(main())
    found = values(page)
    name = "stanch_gateway_"
    chat = "POST /v1/chat/completions"
    for label, count in (("200", 2), ("502", 1), ("429", 1)):
        assert found[f'{name}requests_total{{endpoint="{chat}",status="{label}"}}'] == count
    assert found[f'{name}requests_total{{endpoint="other",status="404"}}'] == 1
    assert found[f'{name}verdicts_total{{kind="training-text",verdict="block"}}'] == 1
    assert found[f'{name}verdicts_total{{kind="none",verdict="allow"}}'] == 2
    assert found[f'{name}budget_refusals_total{{budget="tokens/day"}}'] == 1
    assert found[f'{name}fields_dropped_total{{dialect="chat"}}'] > 10
    assert found[f"{name}ttft_seconds_count"] == 1  # the row begins with a name, and was cut before any of it left
    assert found[f"{name}intent_commit_seconds_count"] == found[f"{name}guard_seconds_count"] == 3
    assert found[f'{name}held_chars_bucket{{le="+Inf"}}'] == 3
    assert found[f"{name}active_streams"] == found[f"{name}queue_depth"] == 0
    assert key not in page
    assert not re.search(r"p_[a-z0-9]{8}|program|Maria", page)


def test_what_the_log_says_of_a_prompt_and_its_answer(place, guard):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers += [stream(f"{ROW[:40]} and then nothing of it."), http(
                json.dumps(whole({"content": ROW[:40] + " and more"})).encode(), "application/json")]  # fmt: skip
            await client.ask(ASK)
            await client.ask(ASK | {"stream": False})

    asyncio.run(main())
    (_, _, intent), (_, _, streamed), _, (_, _, at_once) = entries(workspace)[-4:]
    assert intent["probe"] == {"quotes": True, "repeats": False, "near_equal": False}
    for outcome in (streamed, at_once):
        assert (outcome["drawn"], outcome["attempted"], outcome["lone"]) == (0, 0, 1)
        assert 40 < outcome["folded_chars"] <= 65


def test_windows_are_told_at_the_end_and_kept_while_the_log_takes_nothing(place, guard, monkeypatch):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key) as (client, _server):
            desk = client.app.desk
            for at in range(100):
                desk.windows.add("p_someone", str(MODEL.digest), f"question {at}")
            return desk

    desk = asyncio.run(main())
    with monkeypatch.context() as patch:
        patch.setattr("stanch.gateway.desk.note", lambda *_: (_ for _ in ()).throw(InvalidInput("no")))
        with pytest.raises(InvalidInput):
            desk.flush(is_last=True)
    desk.flush()
    ((_, _, told),) = entries(workspace, "gateway.window")
    assert (told["principal"], told["count"], len(told["mean"])) == ("p_someone", 100, 1368)


@pytest.mark.parametrize(("percent", "cap"), [(50, 2), (100, 1)])
def test_half_and_all_of_the_protected_windows_are_told(place, guard, percent, cap):
    workspace, _ = place
    key = key_of(workspace, f"drawing{percent}")

    async def main():
        async with serving.serving(workspace, guard, key, limits=Limits(99, 10**9, cap)) as (client, server):
            server.answers.append(stream(ROW[70:]))
            await client.ask(ASK)

    asyncio.run(main())
    told = entries(workspace, "gateway.drawn")[-1][2]
    assert (told["percent"], told["used"], told["limit"]) == (percent, 1, cap)


def test_a_server_that_is_not_well_is_not_ready():
    async def main(answer):
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            await Upstream().probe(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    asyncio.run(main(http(b"")))
    asyncio.run(main(http(b"", status="404 Not Found")))
    for answer, error in (
        (http(b"", status="503 Loading"), UpstreamFailed), (b"", UpstreamFailed), (b"\x00\r\n\r\n", UpstreamProtocol),
    ):  # fmt: skip
        with pytest.raises(error):
            asyncio.run(main(answer))


class Settings:
    def __init__(self, listen):
        self.config = self
        self.gateway = self
        self.metrics_listen = listen


@pytest.mark.parametrize(("listen", "why"), [("0.0.0.0:1", "this machine"), ("127.0.0.1:70000", "port")])
def test_figures_are_for_this_machine_alone(listen, why):
    with pytest.raises(InvalidInput, match=why):
        monitor_server(Settings(listen), Metrics())


def test_the_second_listener_shows_figures_and_nothing_else():
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")

    async def main():
        server = monitor_server(Settings("127.0.0.1:0"), Metrics())
        serving_ = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient() as client:
            answers = [await client.get(url + path) for path in ("/metrics", "/", "/v1/models")]
        server.should_exit = True
        await serving_
        return answers

    page, *others = asyncio.run(main())
    assert "stanch_gateway_active_streams 0.0" in page.text
    assert [one.status_code for one in others] == [404, 404]
    assert monitor_server(Settings(""), Metrics()) is None


def test_which_guard_stands_before_a_model_is_told(guard):
    metrics = Metrics()
    metrics.tell_guard("bot", "sha256:00", guard.policy)
    keys = guard.policy.index.header.keys
    labels = f'canaries="1",digest="sha256:00",model="bot",terms="0",windows="{keys}"'
    assert values(metrics.page().decode())[f"stanch_gateway_guard{{{labels}}}"] == 1


def test_a_guard_that_does_not_work_makes_the_server_not_ready(place, guard):
    class Broken(Guard):
        def open(self, after=""):  # noqa: ARG002 - as its base
            raise GuardError("no")

    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key) as (client, _):
            client.app.models = {"bot": replace(client.app.models["bot"], guard=Broken(guard.policy))}
            return await client.ask(b"", "/readyz", method="GET")

    answer = asyncio.run(main())
    assert (answer.status, answer.code) == (503, "not_ready")
