"""The endpoints beside chat and completions on a real workspace: what they need, what they cost, what is recorded."""

import asyncio
import json

import pytest
import serving
from answers import ROW
from serving import entries, http, key_of

from stanch.gateway.budgets import Limits
from stanch.workspace import Workspace

JSON = "application/json"
MANY = 10**9


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with Workspace.init(tmp_path_factory.mktemp("endpoints") / "w") as workspace:
        yield workspace, key_of(workspace, "program")


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
    assert (intent["dialect"], intent["reserved_vectors"]) == ("embeddings", 2)
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
