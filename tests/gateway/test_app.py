"""The life of a request: what is answered, what is recorded, and that each failure lets nothing of an answer out."""

import asyncio
import json
import sqlite3
import threading

import pytest
import serving
from answers import CANARY, CLEAN, ROW, chunk, cut, event, leaks, sse, whole
from serving import MODEL, entries, http, key_of

from stanch.errors import LedgerUnavailable
from stanch.gateway import answering
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk, Refusals, network_of
from stanch.gateway.sse import EventParser
from stanch.gateway.upstream import Patience
from stanch.guard import Guard, GuardPolicy
from stanch.ledger import Ledger
from stanch.store.schema.workspace import resource
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import resume_principal, revoke_key, suspend_principal

ASK = {"model": "bot", "messages": [{"role": "user", "content": "my secret question"}]}
DEEP = [{"type": "function", "function": {"name": "f", "parameters": {"a": json.loads("[" * 70 + "]" * 70)}}}]
STREAM = ASK | {"stream": True}
JSON = "application/json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("gateway") / "w") as workspace:
        yield workspace, key_of(workspace, "program")


@pytest.fixture
def workspace(place):
    return place[0]


@pytest.fixture
def ask(place, guard):
    """Return a function that answers a request through a gateway, the server answering with given bytes."""

    def run(body, *answers, limits=None, patience=None, key=place[1], **scope):
        async def main():
            async with serving.serving(place[0], guard, key, limits=limits, patience=patience) as (client, server):
                server.answers += answers
                return await client.ask(body, **scope), server.asked

        return asyncio.run(main())

    return run


def frames(answer):
    events = EventParser().feed(answer.body)
    assert events.pop().data == "[DONE]"
    return [json.loads(one.data) for one in events]


def text(answer):
    return "".join(c["delta"].get("content", "") for f in frames(answer) for c in f["choices"])


def stream_of(said, size=5):
    return sse(*(chunk({"content": piece}) for piece in cut(said, size)), chunk({}, "stop"),
               {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 40}})  # fmt: skip


def test_a_clean_stream_comes_out_whole_and_is_recorded_without_its_text(ask, workspace):
    answer, asked = ask(STREAM | {"stream_options": {"include_usage": True}, "user": "ana"}, http(stream_of(CLEAN)))
    assert (answer.status, text(answer), answer.is_ended) == (200, CLEAN, True)
    assert frames(answer)[-1]["usage"] == {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
    (sent,) = asked
    assert (sent["model"], "user" in sent, sent["max_tokens"]) == ("inner", False, 4096)
    (phase, _, intent), (_, result, outcome) = entries(workspace)[-2:]
    assert (phase, result) == ("intent", "done")
    assert intent["request"] == outcome["request"] == answer.headers["x-stanch-request"]
    assert (outcome["verdict"], outcome["released"], outcome["completion_tokens"]) == ("allow", len(CLEAN), 40)
    logged = json.dumps([intent, outcome])
    assert "secret question" not in logged
    assert CLEAN[:20] not in logged


def test_a_clean_whole_answer_comes_out(ask):
    answer, _ = ask(ASK, http(json.dumps(whole({"content": CLEAN})).encode(), JSON))
    assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": CLEAN}
    assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize(("secret", "counts"), [(ROW, (0, 2)), (ROW[70:], (1, 1)), (CANARY, (0, 0))])
def test_a_leaking_stream_is_ended_and_recorded(ask, workspace, secret, counts):
    answer, _ = ask(STREAM, http(stream_of(f"Well: {secret} and on it goes.")))
    assert not leaks(text(answer))
    last = frames(answer)[-1]
    assert last["choices"][0]["finish_reason"] == "content_filter"
    _, result, outcome = entries(workspace)[-1]
    assert (result, outcome["verdict"], outcome["incident"]) == ("done", "block", last["stanch"]["incident"])
    # Of the first window all but one character was out, of the second (32 − 25) / 32; the name at the beginning of the
    # whole row was held by the second stage, so nothing of that was out.
    assert (outcome["drawn"], outcome["attempted"]) == counts
    assert sum(outcome["findings"].values()) == 1


def test_a_leaking_whole_answer_is_empty(ask, workspace):
    answer, _ = ask(ASK, http(json.dumps(whole({"content": ROW})).encode(), JSON))
    assert answer.json["choices"][0]["message"]["content"] == ""
    outcome = entries(workspace)[-1][2]
    assert (outcome["verdict"], outcome["drawn"], outcome["released"]) == ("block", 0, 0)
    assert outcome["attempted"] == 2


async def _stall(writer):
    writer.write(http(sse(chunk({"content": f"Some words {ROW[:40]}"}), done=False)))
    await writer.drain()
    await asyncio.sleep(3)


async def _silence(_writer):
    await asyncio.sleep(3)


GOOD = sse(chunk({"content": "Some good words. "}), done=False)
FAILURES = {
    "dies in the middle": (STREAM, http(GOOD), 200, "upstream_failed"),
    "dies in an event": (STREAM, http(GOOD + b"data: {"), 200, "upstream_failed"),
    "breaks its chunked framing": (
        STREAM, http(b"ffff\r\n" + GOOD, more="transfer-encoding: chunked\r\n"), 200, "upstream_failed"),
    "says nothing": (STREAM, b"", 502, "upstream_failed"),
    "is no HTTP server": (STREAM, b"\x00\xff\r\n\r\n", 502, "upstream_protocol"),
    "refuses": (STREAM, http(ROW.encode(), status="500 Bad"), 502, "upstream_failed"),
    "redirects": (STREAM, http(b"", status="302 Found", more="location: http://127.0.0.1/\r\n"), 502, "upstream_failed"),  # noqa: E501 - a row of data
    "answers in HTML": (STREAM, http(ROW.encode(), "text/html"), 502, "upstream_protocol"),
    "compresses": (STREAM, http(GOOD, more="content-encoding: gzip\r\n"), 502, "upstream_protocol"),
    "streams what was not asked for": (ASK, http(GOOD), 502, "upstream_protocol"),
    "sends garbage": (STREAM, http(GOOD + b"data: garbage " + ROW.encode() + b"\n\n"), 200, "upstream_protocol"),
    "sends an error": (STREAM, http(GOOD + event({"error": {"message": ROW}})), 200, "upstream_failed"),
    "sends another event": (STREAM, http(GOOD + b"event: x\n" + event(chunk({}, "stop"))), 200, "upstream_protocol"),
    "ends without a reason": (STREAM, http(GOOD + b"data: [DONE]\n\n"), 200, "upstream_protocol"),
    "sends too long an event": (STREAM, http(GOOD + b"data: " + b"x" * (1 << 20)), 200, "upstream_protocol"),
    "sends half a whole answer": (ASK, http(json.dumps(whole({"content": ROW})).encode()[:-9], JSON), 502, "upstream_protocol"),  # noqa: E501 - a row of data
    "is not UTF-8": (ASK, http(b'{"a":"\xff"}', JSON), 502, "upstream_protocol"),
    "stalls": (STREAM, _stall, 200, "upstream_timeout"),
    "never begins": (STREAM, _silence, 503, "upstream_timeout"),
}  # fmt: skip


@pytest.mark.parametrize("how", FAILURES)
def test_a_server_that_fails_gives_an_answer_without_an_end_and_a_recorded_failure(ask, workspace, how):
    body, given, status, code = FAILURES[how]
    # Whoever waits for what never comes waits a second; for anything else, as long as a busy machine takes.
    answer, _ = ask(body, given, patience=Patience(20, 1 if code == "upstream_timeout" else 20, 60))
    assert (answer.status, answer.is_ended) == (status, True)
    assert not leaks(answer.body.decode())
    assert ROW[:30] not in answer.body.decode() or how == "stalls"
    problem = answer.json if status != 200 else json.loads(EventParser().feed(answer.body)[-1].data)
    assert problem["error"]["code"] == code
    assert b"[DONE]" not in answer.body
    assert entries(workspace)[-1][:2] == ("outcome", "failed")


def test_an_answer_that_takes_too_long_in_all_is_ended(ask, workspace):
    answer, _ = ask(STREAM, _stall, patience=Patience(5, 5, 1))
    assert json.loads(EventParser().feed(answer.body)[-1].data)["error"]["code"] == "upstream_timeout"
    assert entries(workspace)[-1][:2] == ("outcome", "cancelled")


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"key": ""}, 401, "unauthenticated"), ({"key": "stk_x"}, 401, "unauthenticated"),
        ({"key": "a.b.c"}, 401, "unauthenticated"), ({"client": ("10.0.0.9", 1)}, 401, "unauthenticated"),
        ({"client": None}, 401, "unauthenticated"), ({"path": "/v1/audio/speech"}, 404, "not_found"),
        ({"path": "/v1/chat/completions/"}, 404, "not_found"), ({"method": "PUT"}, 404, "not_found"),
        ({"query_string": b"x=1"}, 400, "invalid_request"), ({"body": b"{"}, 400, "invalid_request"),
        ({"body": ASK | {"echo": True}}, 400, "invalid_request"), ({"body": ASK | {"model": "x"}}, 404, "not_found"),
        ({"body": ASK | {"tools": DEEP}}, 400, "invalid_request"),
        ({"body": b" " * (2 << 20)}, 413, "too_large"), ({"headers": [(b"x", b"y" * 20_000)]}, 413, "too_large"),
        ({"headers": []}, 401, "unauthenticated"), ({"body": ASK | {"n": "\ud800"}}, 400, "invalid_request"),
    ],
)  # fmt: skip
def test_what_is_refused_reaches_no_server(ask, workspace, given, status, code):
    before = len(entries(workspace))
    answer, asked = ask(given.pop("body", ASK), **given)
    assert (answer.status, answer.code, asked) == (status, code, [])
    assert len(entries(workspace)) == before
    assert answer.headers["x-stanch-request"] == answer.json["error"]["incident"]


def test_a_body_that_is_not_declared_json_is_refused(ask, place):
    headers = [(b"authorization", b"Bearer " + place[1].encode()), (b"content-type", b"text/plain")]
    assert ask(ASK, headers=headers)[0].status == 415
    assert ask(ASK, headers=[*headers[:1], *headers])[0].status == 401


def test_refusals_of_unknown_people_are_counted_and_not_one_entry_each(workspace):
    refusals = Refusals(workspace)
    for at in range(500):
        refusals.note("unauthenticated", f"10.0.{at % 2}.{at % 250}")
    refusals.note("not_found", "::1")
    refusals.flush()
    refusals.flush()
    (found,) = [one[2]["refused"] for one in entries(workspace, "gateway.refused")][-1:]
    assert [(row["network"], row["count"]) for row in found] == [
        ("10.0.0.0/24", 250),
        ("10.0.1.0/24", 250),
        ("::/56", 1),
    ]


def test_more_kinds_of_refusals_than_are_kept_are_counted_together(workspace):
    refusals = Refusals(workspace)
    for at in range(3000):
        refusals.note("unauthenticated", f"10.{at % 250}.{at // 250}.1")
    assert len(refusals._counts) == 1025
    assert sum(refusals._counts.values()) == 3000


@pytest.mark.parametrize(
    ("address", "network"), [("::ffff:10.1.2.3", "10.1.2.0/24"), ("2001:db8::1", "2001:db8::/56"), ("x", "unknown")]
)
def test_an_address_stands_in_the_log_as_its_network(address, network):
    assert network_of(address) == network


def test_who_may_not_use_the_model_is_refused_and_that_is_recorded(ask, workspace):
    stranger = key_of(workspace, "stranger", roles=("auditor",))
    answer, asked = ask(ASK, key=stranger)
    assert (answer.status, answer.code, asked) == (403, "not_permitted", [])
    assert entries(workspace)[-1][0] == "denied"


@pytest.mark.parametrize("actions", [("model:infer",), ("model:embed",)])
def test_a_long_request_is_read_elsewhere_and_only_for_who_may_ask(ask, workspace, monkeypatch, actions):
    read, threads = answering.texts_of, []
    monkeypatch.setattr(answering, "texts_of", lambda one: threads.append(threading.current_thread()) or read(one))
    body = ASK | {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 90}] * 90}]}
    answer, _ = ask(body, http(stream_of(CLEAN)), key=key_of(workspace, f"long-{actions[0]}", actions=actions))
    if actions == ("model:embed",):
        assert (answer.status, threads) == (403, [])
        assert entries(workspace)[-1][0] == "denied"
    else:
        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()


def test_a_revoked_key_ends_at_once(ask, workspace):
    key = key_of(workspace, "revoked")
    assert ask(ASK, http(json.dumps(whole({"content": "x"})).encode(), JSON), key=key)[0].status == 200
    revoke_key(workspace, key.split("_")[1])
    assert ask(ASK, key=key)[0].status == 401


def test_a_suspended_service_is_refused_at_once_until_it_is_resumed(ask, workspace):
    key, good = key_of(workspace, "paused"), http(json.dumps(whole({"content": "x"})).encode(), JSON)
    assert ask(ASK, good, key=key)[0].status == 200
    suspend_principal(workspace, "paused")
    answer, asked = ask(ASK, key=key)
    assert (answer.status, asked, entries(workspace)[-1][0]) == (401, [], "denied")
    assert ask(b"", path="/v1/models", method="GET", key=key)[0].status == 401
    resume_principal(workspace, "paused")
    assert ask(ASK, good, key=key)[0].status == 200


def test_a_quarantined_digest_is_refused_under_whatever_name(ask, workspace):
    values = {"kind": "model", "name": "its-folder", "digest": str(MODEL.digest), "sensitivity": 0, "quarantined": 1,
              "gate": "", "legal_hold": 0, "made_by": ""}  # fmt: skip
    with workspace.tables.write() as connection:
        connection.execute(resource.insert().values(**values))
    try:
        assert ask(ASK)[0].code == "not_permitted"
        assert ask(b"", path="/v1/models", method="GET")[0].json["data"] == []
    finally:
        with workspace.tables.write() as connection:
            connection.execute(resource.delete())


def test_models_are_those_that_whoever_asks_may_use(ask, workspace):
    listed = ask(b"", path="/v1/models", method="GET")[0].json
    assert [one["id"] for one in listed["data"]] == ["bot"]
    assert ask(b"", path="/v1/models/bot", method="GET")[0].json["id"] == "bot"
    assert ask(b"", path="/v1/models/other", method="GET")[0].status == 404
    assert (
        ask(b"", path="/v1/models", method="GET", key=key_of(workspace, "m", roles=("auditor",)))[0].json["data"] == []
    )


def test_health_needs_nobody(ask):
    assert ask(b"", path="/healthz", method="GET", key="")[0].status == 200
    assert ask(b"", path="/readyz", method="GET", key="")[0].status == 200


@pytest.mark.parametrize("status", [200, 503])
def test_however_many_ask_for_readiness_one_looks(place, guard, monkeypatch, status):
    looks = []

    def look(_desk):
        looks.append(1)
        if status == 503:
            raise LedgerUnavailable("no")

    monkeypatch.setattr(Desk, "check_writable", look)

    async def main():
        async with serving.serving(place[0], guard) as (client, _):
            asks = [client.ask(b"", path="/readyz", method="GET") for _ in range(30)]
            first = await asyncio.gather(*asks)
            return [*first, await client.ask(b"", path="/readyz", method="GET")]

    assert {answer.status for answer in asyncio.run(main())} == {status}
    assert len(looks) == 1


@pytest.mark.parametrize("limits", [Limits(1, 10**9, 10), Limits(9, 4200, 10), Limits(9, 10**9, 0)])
def test_a_used_up_budget_is_refused_and_recorded(ask, workspace, limits):
    key = key_of(workspace, "b" + str(hash(limits))[-9:].strip("-"))
    answers = [http(json.dumps(whole({"content": "x" * 800})).encode(), JSON)] * 2
    statuses = [ask(ASK, one, limits=limits, key=key)[0].status for one in answers]
    assert statuses[-1] == 429
    assert entries(workspace)[-1][0] == "denied"


def test_a_failed_request_is_charged_what_it_used(ask, workspace):
    key = key_of(workspace, "failing")
    for _ in range(3):
        assert ask(ASK, http(GOOD), limits=Limits(10, 4500, 10), key=key)[0].status == 502


@pytest.mark.parametrize("number", [1, 2])
def test_without_a_durable_entry_there_is_no_answer(ask, monkeypatch, number):
    original, count = Ledger.append_nowait, []

    def append_nowait(self, entry, *, within=None):
        count.append(1)
        if len(count) >= number:
            raise LedgerUnavailable("the disk is full")
        return original(self, entry, within=within)

    monkeypatch.setattr(Ledger, "append_nowait", append_nowait)
    good = http(json.dumps(whole({"content": CLEAN})).encode(), JSON)
    answer, asked = ask(ASK, good)
    assert (answer.status, answer.code, len(asked)) == (503, "not_ready", number - 1)
    count.clear()
    answer, _ = ask(STREAM, http(stream_of(CLEAN)))
    assert b"[DONE]" not in answer.body
    assert b'finish_reason":"stop' not in answer.body


def test_an_intent_that_is_not_durable_in_time_is_given_up(place, guard):
    workspace, key = place
    before = len(entries(workspace))

    async def main():
        async with serving.serving(workspace, guard, key, intent_seconds=0.6) as (client, server):
            # Another process writes, so the intent has to wait.
            other = sqlite3.connect(workspace.folder / ".stanch" / "stanch.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                answer = await client.ask(ASK)
            finally:
                other.execute("ROLLBACK")
                other.close()
            return answer, server.asked

    answer, asked = asyncio.run(main())
    assert (answer.status, answer.code, asked) == (503, "not_ready", [])
    # An intent that had reached the queue became durable later, and is followed by what became of it.
    assert [one[:2] for one in entries(workspace)[before:]] in ([], [("intent", ""), ("outcome", "cancelled")])


def test_policies_that_cannot_be_read_let_nobody_in(ask, monkeypatch):
    def stale(_self):
        raise LedgerUnavailable("no policies")

    monkeypatch.setattr("stanch.access.Authority._current", stale)
    answer, asked = ask(ASK)
    assert (answer.status, asked) == (503, [])
    assert ask(b"", path="/readyz", method="GET")[0].status == 503


def test_a_guard_that_fails_releases_nothing(ask, workspace, monkeypatch):
    def broken(_self, _chunk):
        raise ValueError(ROW)

    monkeypatch.setattr("stanch.guard.spans.SpanGate.feed", broken)
    answer, _ = ask(STREAM, http(stream_of(CLEAN)))
    assert (answer.status, answer.code) == (502, "guard_failed")
    assert CLEAN[:5] not in answer.body.decode()
    assert entries(workspace)[-1][:2] == ("outcome", "failed")


def test_a_client_that_leaves_ends_the_work_and_is_recorded(place, guard):
    workspace, key = place
    ended = []

    async def endless(writer):
        writer.write(http(b""))
        try:
            while True:
                writer.write(sse(chunk({"content": "and so on "}), done=False))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            ended.append(1)

    async def main():
        leave = asyncio.Event()

        async def pause(_message):
            leave.set()

        async with serving.serving(workspace, guard, key) as (client, server):
            server.answers.append(endless)
            async with asyncio.timeout(30):
                await client.ask(STREAM, leave=leave, pause=pause)
                while not ended:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    assert ended
    assert entries(workspace)[-1][:2] == ("outcome", "cancelled")


def test_a_slow_client_slows_the_server_down(place, guard):
    workspace, key = place
    sent = []

    async def eager(writer):
        writer.write(http(b""))
        piece = sse(chunk({"content": "word " * 20_000}), done=False)
        for _ in range(400):
            writer.write(piece)
            await writer.drain()
            sent.append(1)

    async def main():
        stuck = asyncio.Event()

        async def pause(_message):
            await stuck.wait()

        async with serving.serving(workspace, guard, key, patience=Patience(5, 5, 0.7)) as (client, server):
            server.answers.append(eager)
            asking = asyncio.create_task(client.ask(STREAM, pause=pause))
            await asyncio.sleep(0.6)
            reached = len(sent)
            stuck.set()
            await asking
            return reached

    # A socket's buffers hold some of it; without back-pressure all 400 pieces, 40 MB, would have been read.
    assert asyncio.run(main()) < 399


def test_too_many_at_once_are_told_to_come_again(place, guard):
    workspace, key = place
    free = asyncio.Event()

    async def held(writer):
        await free.wait()
        writer.write(http(stream_of(CLEAN)))

    async def main():
        async with serving.serving(workspace, guard, key, most_streams=1) as (client, server):
            server.answers += [held, http(stream_of(CLEAN))]
            first = asyncio.create_task(client.ask(STREAM))
            while not server.asked:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
            second = await client.ask(STREAM)
            free.set()
            await first
            return second, await client.ask(STREAM)

    second, third = asyncio.run(main())
    assert (second.status, second.headers["retry-after"], text(third)) == (503, "1", CLEAN)


def test_bodies_that_do_not_come_keep_nobody_waiting_and_end(place, guard):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key, most_streams=1, most_each=3, body_seconds=2.0) as (
            client,
            server,
        ):
            server.answers += [http(stream_of(CLEAN))]
            other = serving.Client(client.app, key_of(workspace, "slow"))
            never = asyncio.Event()
            slow = [asyncio.create_task(other.ask(STREAM, before=never)) for _ in range(3)]
            while sum(client.app._each.values()) < 3:  # noqa: ASYNC110 - nobody tells when all have begun
                await asyncio.sleep(0.01)
            answered, refused = await client.ask(STREAM), await other.ask(STREAM)
            return answered, refused, await asyncio.gather(*slow), client.app

    answered, refused, slow, app = asyncio.run(main())
    assert text(answered) == CLEAN
    assert (refused.status, refused.code) == (503, "not_ready")
    assert {(answer.status, answer.code) for answer in slow} == {(408, "too_slow")}
    assert (app._running, app._each) == (0, {})


def test_many_at_once_get_their_own_answers(place, guard):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, guard, key) as (client, server):
            texts = [f"Answer number {at} of many. {CLEAN}" for at in range(20)]

            def answer(one):
                async def write(writer):
                    writer.write(http(stream_of(texts[int(one)])))
                    await writer.drain()

                return write

            async def serve(reader, writer):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = json.loads(await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0])))
                await answer(body["messages"][0]["content"])(writer)

            server.serve = serve
            asks = [STREAM | {"messages": [{"role": "user", "content": str(at)}]} for at in range(20)]
            found = await asyncio.gather(*(client.ask(one) for one in asks))
            return [text(one) for one in found], texts

    found, texts = asyncio.run(main())
    assert found == texts


def test_a_guard_without_an_index_still_looks_for_canaries(place):
    workspace, key = place

    async def main():
        async with serving.serving(workspace, Guard(GuardPolicy(canaries=(CANARY,))), key) as (client, server):
            server.answers.append(http(stream_of(CANARY)))
            return await client.ask(STREAM)

    assert not leaks(text(asyncio.run(main())))


def test_a_stream_without_its_last_line_is_whole_if_every_choice_said_why_it_ended(ask, workspace):
    """As transformers serve ends it."""
    answer, _ = ask(STREAM, http(sse(chunk({"content": "All is well."}), chunk({}, "stop"), done=False)))
    assert answer.is_ended
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert entries(workspace)[-1][:2] == ("outcome", "done")


def test_a_stream_that_breaks_off_before_each_choice_has_ended_is_not_whole(ask, workspace):
    said = [chunk({"content": "All is well."}), chunk({}, "stop")]
    answer, _ = ask(STREAM | {"n": 2}, http(sse(*said, done=False)))
    assert b"[DONE]" not in answer.body
    assert entries(workspace)[-1][:2] == ("outcome", "failed")


def charged(workspace):
    """Return the tokens that the last request was charged."""
    return entries(workspace)[-1][2]["used"]["tokens"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("wanted", [True, False])
def test_every_stream_is_asked_what_it_used_and_tells_who_wants_to_know(ask, workspace, path, wanted):
    is_chat = path.startswith("/v1/chat")
    body = STREAM if is_chat else {"model": "bot", "prompt": "hi", "stream": True}
    end = {"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 70}}
    piece = {"index": 0, "text": "Hello.", "finish_reason": "stop"}
    first = chunk({"content": "Hello."}, "stop") if is_chat else {"object": "text_completion", "choices": [piece]}
    more = {"stream_options": {"include_usage": True}} if wanted else {}
    answer, asked = ask(body | more, http(sse(first, end)), path=path)
    assert asked[0]["stream_options"] == {"include_usage": True}
    assert (b'"usage"' in answer.body) is wanted
    assert charged(workspace) == 970


def test_what_nobody_counted_is_charged_by_the_character_up_to_what_was_reserved(ask, workspace):
    chinese = [sse(chunk({"content": "\u4e2d" * size}), chunk({}, "stop")) for size in (400, 4000)]
    counted = {"choices": [], "usage": {"completion_tokens": 1}}
    broken = sse(chunk({"content": "x" * 500}), counted, done=False)
    for said, expected in ((chinese[0], 400), (chinese[1], 1000), (broken, 500)):
        ask(STREAM | {"max_tokens": 1000}, http(said))
        prompt = entries(workspace)[-2][2]["reserved"]["tokens"] - 1000
        assert charged(workspace) == prompt + expected


def test_the_server_cannot_undercount_the_prompt(ask, workspace):
    body = ASK | {"messages": [{"role": "user", "content": "word " * 4000}]}
    answer = whole({"content": "x"}, usage={"prompt_tokens": 1, "completion_tokens": 1})
    ask(body, http(json.dumps(answer).encode(), JSON))
    assert 5000 < charged(workspace) < 5100
