"""What the servers of models do that is legal and odd: their words for an end, refusals, calls that end early."""

import asyncio
import contextlib
import json
import ssl
import time
from ipaddress import ip_address

import pytest
import serving
from answers import CLEAN, chunk, sse, whole
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from saying import asked, play, rebuilt
from serving import entries, http, key_of
from test_serve import Authority

from stanch.config import GatewayModelSection
from stanch.errors import InvalidInput
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.upstream import Papers, Patience, Upstream, read_whole
from stanch.workspace import Workspace

JSON = "application/json"
ASK = {"model": "bot", "messages": [{"role": "user", "content": "Well?"}]}
STREAM = ASK | {"stream": True}


def called(position, **function):
    return {"tool_calls": [{"index": position, "type": "function", "id": "u", "function": function}]}


FILTERS = {"hate": {"filtered": False, "severity": "safe"}}
SERVERS = {
    "text-generation-inference": [
        {"object": "text_completion", "id": "", "system_fingerprint": "3.0", "choices": chunk({"role": "assistant", "content": "Well."})["choices"]},  # noqa: E501 - a row of data
        chunk({"role": "assistant", "content": ""}, "eos_token"),
    ],
    "Azure OpenAI with an asynchronous filter": [
        {"object": "", "model": "", "id": "", "created": 0, "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERS}]},  # noqa: E501 - a row of data
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Well."}),
        {"object": "", "id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": FILTERS, "content_filter_offsets": {"check_offset": 0, "start_offset": 0, "end_offset": 5}}]},  # noqa: E501 - a row of data
        chunk({}, "stop"),
        {"object": "", "id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": FILTERS}]},
    ],
    "OpenRouter": [
        chunk({"role": "assistant", "content": "Well."}),
        chunk({"role": "assistant", "content": ""}, "stop", native_finish_reason="end_turn"),
        chunk({"role": "assistant", "content": ""}, usage={"prompt_tokens": 5, "completion_tokens": 2, "cost": 1e-5}),
    ],
    "one that leaves fields empty": [
        chunk({"role": "assistant", "content": "Well."}, ""),
        chunk({"role": "", "content": ""}, "stop_sequence"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_server_writes_is_read(guard, server):
    played = play(guard, "chat", SERVERS[server])
    assert (played.texts()[0], played.is_done) == ("Well.", True)
    assert played.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_later_pieces_of_a_call_need_not_name_it_again(guard):
    pieces = [
        called(0, name="search", arguments=""),
        called(0, name="", arguments='{"q":'),
        called(0, name="", arguments="1}"),
    ]
    played = play(guard, "chat", [*map(chunk, pieces), chunk({}, "tool_calls")])
    assert played.texts()[0] == '{"q":1}'


def test_text_behind_the_end_of_its_choice_is_still_refused(guard):
    with pytest.raises(Exception, match="unexpected value"):
        play(guard, "chat", [chunk({"content": "Well."}, "stop"), chunk({"content": "And?"})])


@pytest.mark.parametrize("told", ["eos_token", "stop_sequence"])
def test_another_word_for_an_end_is_the_usual_one(guard, told):
    body, _ = rebuilt(guard, "chat", whole({"content": "Well."}, told, object="text_completion"), asked("chat"))
    assert body["choices"][0]["finish_reason"] == "stop"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("servers") / "w") as workspace:
        yield workspace, key_of(workspace, "program")


def run(place, guard, main, **settings):
    async def serve():
        async with serving.serving(place[0], guard, place[1], **settings) as (client, server):
            return await main(client, server)

    return asyncio.run(serve())


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("400 Bad Request", (400, "upstream_refused", None)), ("413 Too Large", (400, "upstream_refused", None)),
        ("422 Unprocessable", (400, "upstream_refused", None)), ("429 Too Many", (503, "upstream_busy", "1")),
        ("503 Overloaded", (503, "upstream_busy", "1")), ("500 Oh", (502, "upstream_failed", None)),
        ("401 Who", (502, "upstream_failed", None)), ("404 What", (502, "upstream_failed", None)),
    ],
)  # fmt: skip
def test_a_client_is_told_whether_asking_again_may_help(place, guard, body, status, told):
    told, code, retry = told

    async def main(client, server):
        server.answers.append(http(CLEAN.encode(), JSON, status))
        return await client.ask(body)

    answer = run(place, guard, main)
    assert (answer.status, answer.code, answer.headers.get("retry-after")) == (told, code, retry)
    assert CLEAN[:10] not in answer.body.decode()


def used(workspace):
    """Return the result of the last request, what it reserved and what it was charged."""
    (_, _, intent), (_, result, outcome) = entries(workspace)[-2:]
    return result, intent["reserved"]["tokens"], outcome["used"]["tokens"]


async def _silence(_writer):
    await asyncio.sleep(2)


def test_a_whole_answer_that_nobody_waits_for_costs_what_was_reserved(place, guard):
    async def main(client, server):
        server.answers.append(_silence)
        leave = asyncio.Event()
        asking = asyncio.create_task(client.ask(ASK, leave=leave))
        while not server.asked:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        leave.set()
        await asking

    run(place, guard, main)
    result, reserved, charged = used(place[0])
    assert (result, charged) == ("cancelled", reserved)


def test_a_whole_answer_that_does_not_come_in_time_costs_what_was_reserved_and_a_refused_one_nothing(place, guard):
    async def main(client, server):
        found = []
        for answer in (_silence, http(b"", JSON, "500 Oh"), http(json.dumps(whole({"content": "x"})).encode(), JSON)):
            server.answers.append(answer)
            await client.ask(ASK)
            found.append(used(place[0]))
        return found

    late, refused, good = run(place, guard, main, patience=Patience(5, 1, 20))
    assert late[1] == late[2]
    assert refused[2] == refused[1] - 4096
    assert good[2] == refused[2] + 1


def test_ready_is_who_can_answer_for_one_model(place, guard):
    from dataclasses import replace  # noqa: PLC0415 - used here alone

    async def main(client, _server):
        app, looks = client.app, []
        (good,) = app.models.values()
        down = replace(good, name="down", upstream="http://127.0.0.1:1")
        for models in ({"bot": good, "down": down}, {"down": down}):
            app.models, app._readiness = models, None
            looks.append((await client.ask(b"", "/readyz", method="GET")).status)
        return looks, app.desk.metrics.page().decode()

    looks, page = run(place, guard, main)
    assert looks == [200, 503]
    assert 'stanch_gateway_model_ready{model="bot"} 1.0' in page
    assert 'stanch_gateway_model_ready{model="down"} 0.0' in page


def test_a_long_call_keeps_no_other_stream_waiting(place, guard):
    """Its arguments are judged as they come, and not all at its end."""
    piece, count = "the quick brown fox jumps over a lazy dog and on it goes, " * 40, 220
    tools = [{"type": "function", "function": {"name": "search"}}]

    async def long_call(writer):
        writer.write(http(sse(chunk(called(0, name="search", arguments='{"q": "')), done=False)))
        said = sse(chunk(called(0, arguments=piece)), done=False)
        for _ in range(count):
            writer.write(said)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(sse(chunk(called(0, arguments='"}')), chunk({}, "tool_calls")))
        await writer.drain()

    async def main(client, server):
        server.answers.append(long_call)
        asking = asyncio.create_task(client.ask(STREAM | {"tools": tools}))
        gaps, at = [], time.process_time()
        while not asking.done():
            await asyncio.sleep(0)
            gaps.append(time.process_time() - at)
            at = time.process_time()
        return (await asking), max(gaps), sum(gaps)

    answer, longest, total = run(place, guard, main)
    assert len(answer.body) > 500_000
    assert longest < total / 5


def section(**more):
    return GatewayModelSection(name="bot", digest="sha256:" + "0" * 64, upstream="https://127.0.0.1", **more)


@pytest.fixture
def guarded_server(tmp_path):
    """A server that demands a bearer and a certificate; and the settings that satisfy it."""
    made = Authority(tmp_path)
    server = made.issue("server.pem", x509.IPAddress(ip_address("127.0.0.1")), ExtendedKeyUsageOID.SERVER_AUTH)
    made.issue("client.pem", x509.UniformResourceIdentifier("spiffe://x/gateway"), ExtendedKeyUsageOID.CLIENT_AUTH)
    (tmp_path / "key").write_text("open sesame\n")
    (tmp_path / "key").chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context, {
        "upstream_key": "file:key", "upstream_authority": "ca.pem", "upstream_certificate": "client.pem"
    }  # fmt: skip


@pytest.mark.parametrize("missing", [None, "upstream_key", "upstream_authority", "upstream_certificate"])
def test_a_server_is_shown_a_key_and_a_certificate(tmp_path, guarded_server, missing):
    context, settings = guarded_server
    papers = Papers.of(tmp_path, section(**{name: one for name, one in settings.items() if name != missing}))

    async def accept(reader, writer):
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                status = "200 OK" if "\r\nauthorization: bearer open sesame\r\n" in head else "401 Who"
                writer.write(http(b"{}", JSON, status))
                await writer.drain()
                await asyncio.sleep(0.05)
        finally:
            writer.transport.abort()

    async def main():
        async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
            url, upstream = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", Upstream(Patience(5, 5, 20))
            try:
                await upstream.probe(url, papers)
                async with upstream.ask(url, b"{}", media=JSON, papers=papers) as pieces:
                    return await read_whole(pieces)
            finally:
                upstream.close()
                await asyncio.sleep(0.2)  # until the server has ended, too

    if missing is None:
        assert asyncio.run(main()) == "{}"
    else:
        with pytest.raises(UpstreamFailed):
            asyncio.run(main())


@pytest.mark.usefixtures("guarded_server")
@pytest.mark.parametrize(
    "wrong",
    [{"upstream_key": "env:STANCH_NO_SUCH"}, {"upstream_key": "file:no"}, {"upstream_authority": "no.pem"},
     {"upstream_certificate": "ca.pem"}, {"upstream_certificate": "client.pem", "upstream_private_key": "server.pem"}],
)  # fmt: skip
def test_papers_that_cannot_be_used_do_not_start(tmp_path, wrong):
    with pytest.raises(InvalidInput, match=r"upstream_|/no: cannot"):
        Papers.of(tmp_path, section(**wrong))


def test_two_models_of_one_server_share_no_connection_under_other_papers(tmp_path, monkeypatch):
    monkeypatch.setenv("STANCH_ONE", "first")
    seen = []

    async def accept(reader, writer):
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                    seen.append((id(writer), "authorization" in head))
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        finally:
            writer.close()

    async def main():
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            url, upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Upstream(Patience(5, 5, 20))
            papers = Papers.of(tmp_path, section(upstream_key="env:STANCH_ONE"))
            for shown in ((papers,), (), (papers,)):
                await upstream.probe(url, *shown)
            upstream.close()

    asyncio.run(main())
    (one, first), (other, second), (again, third) = seen
    assert (first, second, third) == (True, False, True)
    assert one == again != other
