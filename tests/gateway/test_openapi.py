"""The published OpenAPI document: what it allows is read, and no generated request finds an error of ours."""

import asyncio
import json

import pytest
import schemathesis
import serving
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from serving import key_of

from stanch.errors import InvalidInput
from stanch.gateway.app import ENDPOINTS
from stanch.gateway.budgets import Limits
from stanch.gateway.openapi import describe_endpoints
from stanch.gateway.request import read_request

MANY = Limits(None, None, 10**6, None, None, None)
DOCUMENT = describe_endpoints(ENDPOINTS)
OPERATIONS = [operation.ok() for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)


def generated(examples):
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def written(body):
    """Return a generated body as clients write it: JSON Schema takes 7.0 for an integer, which no client sends."""

    def whole(value):
        if isinstance(value, dict):
            return {name: whole(part) for name, part in value.items()}
        if isinstance(value, list):
            return [whole(part) for part in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return json.dumps(whole(body)).encode()


def validator_of(path):
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator(schema | {"components": DOCUMENT["components"]})


@each
def test_whatever_the_document_allows_is_read(operation):
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @generated(25)
    def run(case):
        assert read_request(written(case.body), ENDPOINTS[operation.label].request).model == case.body["model"]

    run()


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("POST /v1/chat/completions", {"stream_options": {"include_usage": True}}),
        ("POST /v1/chat/completions", {"top_logprobs": 1}),
        ("POST /v1/completions", {"stream_options": {}, "stream": False}),
        ("POST /v1/responses", {"store": True}),
        ("POST /v1/embeddings", {"input": [1, 2]}),
        ("POST /v1/messages", {"max_tokens": 0}),
        ("POST /v1/messages", {"surprise": 1}),
    ],
)
def test_whatever_is_refused_the_document_forbids(target, more):
    least = {"model": "bot", "messages": [{"role": "user", "content": "x"}]}
    bodies = {"/v1/completions": {"prompt": "x"}, "/v1/responses": {"input": "x"}, "/v1/embeddings": {"input": "x"}}
    path = target.partition(" ")[2]
    body = {"model": "bot", **bodies[path]} if path in bodies else least
    body |= {"max_tokens": 5} if path == "/v1/messages" else {}
    validator = validator_of(path)
    assert validator.is_valid(body)
    read_request(json.dumps(body).encode(), ENDPOINTS[target].request)
    assert not validator.is_valid(body | more)
    with pytest.raises(InvalidInput):
        read_request(json.dumps(body | more).encode(), ENDPOINTS[target].request)


@pytest.fixture(scope="module")
def place(ground):
    return ground, key_of(ground, "generated", actions=("model:infer", "model:embed", "model:logprobs"))


@each
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_generated_request_finds_an_error_of_ours(place, guard, operation, mode):
    """The model's server answers all of them with the same stream of chat: to other dialects a protocol error."""
    seen = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @generated(6)
    def run(case):
        async def ask():
            body = {**case.body, "model": "bot"} if isinstance(case.body, dict) else case.body
            sent = body if isinstance(body, bytes) else written(body if isinstance(body, list | dict) else str(body))
            async with serving.serving(place[0], guard, place[1], limits=MANY) as (client, _):
                return await client.ask(sent, operation.path)

        answer = asyncio.run(asyncio.wait_for(ask(), 30))
        seen.add(answer.status)
        assert answer.is_ended
        assert answer.status in {200, 400, 413, 502}, answer.body
        if answer.status != 200:
            assert set(answer.json["error"]) == {"type", "code", "message", "incident"}

    run()
    assert seen & ({200, 502} if mode is GenerationMode.POSITIVE else {400})
