"""Log-probabilities: rounded, few, about released text alone, and charged in bits."""

import asyncio
import json
import math

import pytest
import serving
from answers import CANARY, CLEAN, ROW, chunk, cut, sse, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from saying import asked, play, rebuilt
from serving import entries, http, key_of

from stanch.gateway.budgets import Limits
from stanch.gateway.dialect import Entry
from stanch.gateway.logprobs import LEVELS, LogprobGate, bits_of
from stanch.guard import Action

ASK = {"model": "bot", "messages": [{"role": "user", "content": "hello"}], "logprobs": True}


@pytest.mark.parametrize(("k", "bits"), [(0, 10.967), (1, 38.933), (5, 150.799)])
def test_the_information_in_an_entry(k, bits):
    assert bits_of(k, 131_072) == pytest.approx(bits, abs=5e-4)


def chat():
    return asked("chat", logprobs=True, top_logprobs=2)


def listed(tokens, number=-0.5, others=()):
    """Return log-probabilities as a server of chat writes them."""
    best = [{"token": other, "logprob": -1.234, "bytes": [76]} for other in others]
    return {"content": [{"token": token, "logprob": number, "bytes": [1], "top_logprobs": best} for token in tokens]}


def spoken(tokens, finish="stop", **given):
    """Return a stream in which each event holds one token with its number."""
    events = []
    for token in tokens:
        events.append(chunk({"content": token}))
        events[-1]["choices"][0]["logprobs"] = listed([token], **given)
    return [*events, chunk({}, finish)]


def shown(played):
    found = [one["logprobs"] for event in played.events for one in event["choices"] if one["logprobs"]]
    return [entry for one in found for entry in one["content"]]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_every_token_of_a_clean_answer_has_its_number(guard, size):
    tokens = cut(CLEAN, size)
    played = play(guard, "chat", spoken(tokens, others=["a", "b", "c"]), chat())
    found = shown(played)
    assert [one["token"] for one in found] == tokens
    assert found[0]["top_logprobs"] == [
        {"token": "a", "logprob": -1.23, "bytes": None},
        {"token": "b", "logprob": -1.23, "bytes": None},
    ]
    assert played.stream.tally.entries == len(tokens)


def test_a_number_never_comes_before_its_text(guard):
    said, numbered = "", ""
    for event in play(guard, "chat", spoken(cut(CLEAN, 3)), chat()).events:
        for one in event["choices"]:
            said += one["delta"].get("content", "")
            numbered += "".join(entry["token"] for entry in (one["logprobs"] or {"content": []})["content"])
            assert said.startswith(numbered)


@pytest.mark.parametrize("text", [f"Well, {CANARY} it is.", f"Well. {ROW} So.", "Ask ana.diaz@example.org or me."])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_was_not_released_as_it_was_said_has_no_number(guard, text, size):
    played = play(guard, "chat", spoken(cut(text, size)), chat())
    numbered = "".join(one["token"] for one in shown(played))
    said = "".join(one["delta"].get("content", "") for event in played.events for one in event["choices"])
    assert said.startswith(numbered)
    assert text.startswith(numbered)
    assert "ana" not in numbered
    assert played.stream.tally.entries == len(shown(played))


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_alternative_that_is_not_clean_is_dropped(guard, is_whole):
    others = [CANARY, "ana.diaz@example.org", "\ud800"]
    for other in others:
        if is_whole:
            answer = whole({"content": "Hello"})
            answer["choices"][0]["logprobs"] = listed(["Hello"], others=[other, "b"])
            body, _ = rebuilt(guard, "chat", answer, chat())
            found = body["choices"][0]["logprobs"]["content"]
        else:
            found = shown(play(guard, "chat", spoken(["Hello"], others=[other, "b"]), chat()))
        assert [one["token"] for one in found[0]["top_logprobs"]] == ["b"]


def test_tokens_that_are_not_the_text_are_dropped(guard):
    events = spoken(["One ", "two ", "three"])
    events[1]["choices"][0]["logprobs"] = listed([CANARY])
    played = play(guard, "chat", events, chat())
    assert [one["token"] for one in shown(played)] == ["One ", "three"]


def test_without_being_asked_for_nothing_of_them_is_read(guard):
    played = play(guard, "chat", spoken(["One"], number=CANARY))
    assert shown(played) == []
    assert played.stream._reader.dropped["$.choices"] == 1


def test_completions_write_columns(guard):
    request = asked("completions", logprobs=1)
    given = {"tokens": ["Hel", "lo", " you"], "token_logprobs": [None, -0.123, -99.0],
             "top_logprobs": [None, {"lo": -0.123, "xx": -0.001}, {CANARY: -0.5}], "text_offset": [900]}  # fmt: skip
    answer = {"object": "text_completion"}
    answer["choices"] = [{"index": 0, "text": "Hello you", "finish_reason": "stop", "logprobs": given}]
    body, tally = rebuilt(guard, "completions", answer, request)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["lo", " you"],
        "token_logprobs": [-0.12, -20.0],
        "top_logprobs": [{"xx": 0.0}, {}],
        "text_offset": [3, 5],
    }
    assert tally.entries == 2
    answer["choices"][0]["text"] = CANARY
    body, tally = rebuilt(guard, "completions", answer, request)
    assert (body["choices"][0]["logprobs"], tally.entries) == (None, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.floats(-1e6, 1e6)), max_size=12), st.data())
def test_the_gate_gives_numbers_of_few_levels_and_tokens_of_the_released_text(guard, tokens, data):
    text = "".join(token for token, _ in tokens)
    gate = LogprobGate(guard)
    gate.push(text, [Entry(token, number) for token, number in tokens])
    released, found, at = text[: data.draw(st.integers(0, len(text)))], [], 0
    while at < len(released):
        size = data.draw(st.integers(1, 5))
        found += gate.release(released[at : at + size], Action.ALLOW)
        at += size
        assert all(entry.at + len(entry.token) <= at for entry in found)
    for entry in found:
        assert released[entry.at : entry.at + len(entry.token)] == entry.token
        assert -20 <= entry.logprob <= 0
        assert math.isclose(entry.logprob * 100, round(entry.logprob * 100), abs_tol=1e-9)
    assert gate.release("x", Action.REDACT) == []
    assert LEVELS == 2001


GRANTED = ("model:infer", "model:logprobs")


def test_they_need_a_grant_and_a_budget_and_are_charged(ground, guard):
    """10 tokens are reserved at 10.967 bits each; the answer has two."""
    answer = whole({"content": "Hello you"})
    answer["choices"][0]["logprobs"] = listed(["Hello", " you"])
    plain = key_of(ground, "plain")
    granted = key_of(ground, "granted", actions=GRANTED)
    tuner = Limits(10, 10**9, 10, 10, bits_per_day=131, bits_in_total=131)

    def run(key, body, limits, reply=answer):
        async def main():
            async with serving.serving(ground, guard, key, limits=limits) as (client, server):
                server.answers.append(http(json.dumps(reply).encode(), "application/json"))
                return await client.ask(body), server.asked

        return asyncio.run(main())

    body = ASK | {"max_tokens": 10}
    refused, sent = run(plain, body, tuner)
    assert (refused.status, refused.code, sent) == (403, "not_permitted", [])
    assert entries(ground)[-1][0] == "denied"
    assert run(granted, body, Limits(10, 10**9, 10, 10))[0].code == "budget_exhausted"
    first, sent = run(granted, body, tuner)
    assert [one["token"] for one in first.json["choices"][0]["logprobs"]["content"]] == ["Hello", " you"]
    assert sent[0]["logprobs"] is True
    assert (entries(ground)[-2][2]["reserved"]["bits"], entries(ground)[-1][2]["logprob_bits"]) == (110, 22)
    told = -100 * sum(one["logprob"] for one in first.json["choices"][0]["logprobs"]["content"])
    assert [entries(ground)[-1][2][name] for name in ("entries", "surprisal")] == [2, round(told)]
    assert run(granted, body, tuner)[0].code == "budget_exhausted"  # 22 are used, and 110 more are wanted
    assert run(granted, body | {"max_tokens": 9}, tuner)[0].status == 200


def test_they_are_streamed_through_the_whole_gateway(ground, guard):
    key = key_of(ground, "streams", actions=GRANTED)

    async def main():
        limits = Limits(10, 10**9, 10, 10, 10**6, 10**6)
        async with serving.serving(ground, guard, key, limits=limits) as (client, server):
            server.answers.append(http(sse(*spoken(["Hello ", "you"]))))
            return await client.ask(ASK | {"stream": True})

    assert asyncio.run(main()).body.count(b'"token":') == 2
    assert (entries(ground)[-1][2]["logprob_bits"], entries(ground)[-1][2]["entries"]) == (22, 2)
