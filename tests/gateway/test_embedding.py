"""Vectors: of the right number and size, finite, cut to 32 bits, and nothing beside them."""

import base64
import json
import struct
from collections import Counter

import numpy as np
import pytest
from answers import ROW
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.gateway.embedding import read_vectors, write_vectors
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.request import EmbeddingsRequest, forwarded, read_request

SHAPE = (2, 3)
ONE, TWO = [0.5, -1.25, 3], [0.1, 0, 1e-3]


def request(**changes):
    return read_request(json.dumps({"model": "bot", "input": ["a", "b"]} | changes).encode(), EmbeddingsRequest)


def packed(values):
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def answer(*vectors, **more):
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(vectors)]
    return {"object": "list", "data": data, "model": ROW, "usage": {"prompt_tokens": 7, "total_tokens": 7}} | more


def read(value):
    return read_vectors(json.dumps(value), SHAPE, Counter())


@pytest.mark.parametrize("upstream", ["float", "base64"])
@pytest.mark.parametrize("wanted", ["float", "base64"])
def test_vectors_come_out_in_the_form_that_was_asked_for(upstream, wanted):
    given = answer(ONE, TWO) if upstream == "float" else answer(packed(ONE), packed(TWO))
    vectors, tokens = read(given)
    body = json.loads(write_vectors(vectors, request(encoding_format=wanted), tokens))
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert body["model"] == "bot"
    for item, expected in zip(body["data"], (ONE, TWO), strict=True):
        assert set(item) == {"object", "index", "embedding"}
        shown = item["embedding"]
        assert shown == (packed(expected) if wanted == "base64" else expected)  # the shortest text of a float32


def test_vectors_may_come_in_any_order():
    given = answer(ONE, TWO)
    given["data"].reverse()
    assert read(given)[0].tolist() == read(answer(ONE, TWO))[0].tolist()


def test_numbers_hold_no_more_than_thirty_two_bits():
    body = write_vectors(read(answer([0.1234567890123456, 1, 1], TWO))[0], request(), 7)
    assert json.loads(body)["data"][0]["embedding"][0] == 0.12345679


@pytest.mark.parametrize(
    "value",
    [
        answer(ONE), answer(ONE, TWO, ONE), answer(ONE, TWO[:2]), answer(ONE, [*TWO, 1]), answer(ONE, [1, 2, 1e39]),
        answer(ONE, [1, 2, True]), answer(ONE, [1, 2, None]), answer(ONE, [1, 2, "3"]), answer(ONE, ROW),
        answer(ONE, packed(TWO)[:-1]), answer(ONE, packed(TWO) + "\n"), answer(ONE, packed([*TWO, 1])),
        answer(ONE, packed([1, 2, float("nan")])), answer(ONE, packed([1, float("inf"), 2])), answer(ONE, {"0": 1}),
        answer(ONE, None), answer(ONE, TWO, object=ROW), answer(ONE, TWO, usage={"prompt_tokens": -1}), [],
        answer(ONE, TWO, data={}), {"object": "list"},
        answer() | {"data": [{"index": 0, "embedding": ONE}, {"index": 0, "embedding": TWO}]},
        answer() | {"data": [{"index": 2, "embedding": ONE}, {"index": 0, "embedding": TWO}]},
        answer() | {"data": [{"embedding": ONE}, {"index": 1, "embedding": TWO}]},
    ],
)  # fmt: skip
def test_another_answer_is_refused_and_not_quoted(value):
    with pytest.raises(UpstreamProtocol) as raised:
        read(value)
    assert ROW not in str(raised.value) + raised.value.why


def test_an_error_of_the_server_is_a_failure():
    with pytest.raises(UpstreamFailed):
        read({"error": {"message": ROW}})


def test_what_is_not_listed_is_dropped_and_counted():
    dropped = Counter()
    given = answer(ONE, TWO, note=ROW)
    given["data"][0]["text"] = ROW
    vectors, tokens = read_vectors(json.dumps(given), SHAPE, dropped)
    assert dropped == {"$": 1, "$.data": 1}
    assert ROW not in write_vectors(vectors, request(), tokens).decode()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32), min_size=3, max_size=3), st.booleans())
def test_any_three_numbers_are_taken_bit_by_bit_or_refused(values, is_packed):
    given = answer(packed(values), TWO) if is_packed else answer(values, TWO)
    try:
        vectors, _ = read(given)
    except UpstreamProtocol:
        assert not np.isfinite(values).all()
    else:
        assert vectors[0].tobytes() == struct.pack("=3f", *values)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"input": [1, 2]}, "input"), ({"input": []}, "input"), ({"encoding_format": "x"}, "encoding_format"),
     ({"dimensions": 0}, "dimensions"), ({"prompt": "x"}, "prompt"), ({"input": ["x"] * 513}, "input")],
)  # fmt: skip
def test_an_unknown_or_wrong_field_of_a_request_is_named(changes, named):
    with pytest.raises(InvalidInput) as raised:
        request(**changes)
    assert named in raised.value.what


def test_who_the_user_is_stays_here():
    assert json.loads(forwarded(request(user="ana"), "inner")) == {"model": "inner", "input": ["a", "b"]}
