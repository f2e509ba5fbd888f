"""The endpoints beside chat and completions on a real workspace: what they need, what they cost, what is recorded."""

import asyncio
import json

import pytest
import serving
from answers import ROW, cut, leaks
from saying import ASKED, SAY, said_whole
from serving import entries, http, key_of

from stanch.gateway.budgets import Limits
from stanch.gateway.exchange import LEAF

JSON = "application/json"
MANY = 10**9


@pytest.fixture(scope="module")
def place(ground):
    return ground, key_of(ground, "program")


@pytest.fixture(scope="module")
def ask(place, guard):
    """Return a function that asks a gateway, the server answering with given bytes."""

    def run(path, body, *answers, limits=None, key=place[1], **scope):
        async def main():
            async with serving.serving(place[0], guard, key, limits=limits) as (client, server):
                server.answers += answers
                return await client.ask(body, f"/v1/{path}", **scope), server.asked

        return asyncio.run(main())

    return run


def embedded(*vectors):
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
    return http(json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 3}}).encode(), JSON)


def test_embeddings_are_given_recorded_and_charged(ask, place):
    workspace, _ = place
    body = {"model": "bot", "input": [ROW, "b"]}
    key = key_of(workspace, "embeds")
    limits = Limits(10, MANY, 10, 5)
    for _ in range(2):
        answer, asked = ask("embeddings", body, embedded([1, 2, 3, 4], [0, 0, 0, 1]), key=key, limits=limits)
        assert [one["embedding"] for one in answer.json["data"]] == [[1, 2, 3, 4], [0, 0, 0, 1]]
        assert asked == [body | {"model": "inner"}]
    (_, _, intent), (_, result, outcome) = entries(workspace, "gateway.embed")[-2:]
    assert (intent["dialect"], intent["reserved"]["vectors"]) == ("embeddings", 2)
    assert (result, outcome["vectors"], outcome["prompt_tokens"]) == ("done", 2, 3)
    assert ROW[:20] not in json.dumps([intent, outcome])
    answer, asked = ask("embeddings", body, key=key, limits=limits)
    assert (answer.status, answer.code, asked) == (429, "budget_exhausted", [])
    assert ask("embeddings", body | {"input": "x"}, embedded([1, 2, 3, 4]), key=key, limits=limits)[0].status == 200


def test_embeddings_that_fail_are_not_charged_and_give_nothing_out(ask, place):
    key, limits = key_of(place[0], "fails"), Limits(10, MANY, 10, 1)
    body = {"model": "bot", "input": "x"}
    for wrong in (embedded([1, 2, 3]), embedded([1, 2, 3, 4], [1, 2, 3, 4]), http(b"{}", JSON), http(b"", "text/html")):
        answer, _ = ask("embeddings", body, wrong, key=key, limits=limits)
        assert (answer.status, answer.code) == (502, "upstream_protocol")
    assert entries(place[0], "gateway.embed")[-1][:2] == ("outcome", "failed")
    assert ask("embeddings", body, embedded([1, 2, 3, 4]), key=key, limits=limits)[0].status == 200


def test_fewer_dimensions_must_come_when_they_were_asked_for(ask):
    body = {"model": "bot", "input": "x", "dimensions": 2}
    assert ask("embeddings", body, embedded([1, 2]))[0].json["data"][0]["embedding"] == [1, 2]
    assert ask("embeddings", body, embedded([1, 2, 3, 4]))[0].status == 502


def test_embeddings_need_their_own_permission(ask, place):
    key = key_of(place[0], "no-vectors", actions=("model:infer",))
    answer, asked = ask("embeddings", {"model": "bot", "input": "x"}, key=key)
    assert (answer.status, asked) == (403, [])
    assert entries(place[0], "gateway.embed")[-1][0] == "denied"


def test_a_key_may_come_in_the_header_of_the_anthropic_api_and_two_are_refused(ask, place):
    media, key = (b"content-type", b"application/json"), place[1].encode()
    body = {"model": "bot", "input": "x"}
    own, usual = (b"x-api-key", key), (b"authorization", b"Bearer " + key)
    assert ask("embeddings", body, embedded([1, 2, 3, 4]), headers=[media, own])[0].status == 200
    for wrong in ([own, usual], [own, own], [(b"x-api-key", b"Bearer " + key)], [(b"x-api-key", b"")]):
        assert ask("embeddings", body, headers=[media, *wrong])[0].status == 401
    assert ask("embeddings", body, headers=[media, usual], **{LEAF: b"a certificate"})[0].status == 401


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", ["responses", "messages"])
def test_the_newer_dialects_are_recorded_like_the_others(ask, place, dialect, stream):
    channel = "output_text" if dialect == "responses" else "text"
    events = SAY[dialect](channel, cut(f"Well. {ROW[70:]} So.", 9), "")
    stream_of = b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events
    )
    whole = json.dumps(said_whole(dialect, channel, ROW)).encode()
    answer, _ = ask(dialect, ASKED[dialect] | {"stream": stream}, http(stream_of) if stream else http(whole, JSON))
    assert not leaks(answer.body.decode())
    (_, _, intent), (_, result, outcome) = entries(place[0])[-2:]
    assert (intent["dialect"], intent["stream"]) == (dialect, stream)
    assert (result, outcome["verdict"], outcome["drawn"]) == ("done", "block", int(stream))
    assert outcome["incident"] in answer.body.decode()


def test_what_a_server_kept_of_the_prompt_is_charged_too(ask, place):
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4000, "cache_creation_input_tokens": 500, "output_tokens": 2}
    answer = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "ok"}],
              "stop_reason": "end_turn", "usage": usage}  # fmt: skip
    body = {"model": "bot", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    told, _ = ask("messages", body, http(json.dumps(answer).encode(), "application/json"))
    assert told.json["usage"] == {"input_tokens": 4503, "output_tokens": 2}
    assert entries(place[0])[-1][2]["used"]["tokens"] == 4505
