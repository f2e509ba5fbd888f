"""The allow-list: what is taken, what is dropped, what ends an answer, and that no channel leaks."""

import json
from collections import Counter

import pytest
from answers import CANARY, CLEAN, ROW, chunk, cut, leaks, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import hmac_prf
from stanch.errors import InvalidInput
from stanch.gateway.dialect import Header, Usage
from stanch.gateway.dialect_openai import ChatWriter, CompletionsWriter, OpenAiReader
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.rebuild import Stream, rebuild_whole
from stanch.gateway.request import ChatRequest, CompletionRequest, forwarded, read_request
from stanch.gateway.sse import Event, EventParser
from stanch.guard import Action

TOOLS = [{"type": "function", "function": {"name": "search"}}]
ASKED = {"model": "bot", "messages": [{"role": "user", "content": "hello"}], "tools": TOOLS, "n": 2}

HEADER = Header("A" * 22, 5, "bot")


def request(**changes):
    return read_request(json.dumps(ASKED | changes).encode(), ChatRequest)


def completion(**changes):
    return read_request(json.dumps({"model": "bot", "prompt": "x"} | changes).encode(), CompletionRequest)


def opened(guard, asked=None):
    asked = asked or request()
    is_chat = isinstance(asked, ChatRequest)
    writer = (ChatWriter if is_chat else CompletionsWriter)(HEADER, asked)
    return Stream(guard, OpenAiReader(asked, is_chat=is_chat), writer, b"k" * 32)


def rebuilt(guard, answer, asked=None):
    """Return the gateway's whole answer as an object, and the tally."""
    asked = asked or request()
    is_chat = isinstance(asked, ChatRequest)
    reader = OpenAiReader(asked, is_chat=is_chat)
    taken = reader.read_whole(json.dumps(answer))
    writer = (ChatWriter if is_chat else CompletionsWriter)(HEADER, asked)
    body, tally = rebuild_whole(guard, reader, taken, writer, "inc_1", 0, budget_key=b"k" * 32)
    return json.loads(body), tally


def play(guard, objects, asked=None):
    """Return the frames of an answer, tail included, as objects; the stream, too."""
    stream = opened(guard, asked)
    frames = []
    for one in objects:
        stream.take(Event("", json.dumps(one)))
        frames += stream.frames()
        if stream.is_blocked:
            break
    stream.take(Event("", "[DONE]"))
    frames += stream.frames()
    events = EventParser().feed(b"".join([*frames, *stream.tail("inc_1", Usage(0, 0))]))
    assert events.pop().data == "[DONE]"
    return [json.loads(one.data) for one in events], stream


def said(frames, name="content", choice=0):
    deltas = [one["delta"] for frame in frames for one in frame["choices"] if one["index"] == choice]
    if name == "arguments":
        return "".join(c["function"].get("arguments", "") for d in deltas for c in d.get("tool_calls", []))
    return "".join(delta.get(name, "") for delta in deltas)


def ends(frames):
    return {one["index"]: one["finish_reason"] for f in frames for one in f["choices"] if one["finish_reason"]}


def call(arguments, name="search", **more):
    return {
        "tool_calls": [
            {"index": 0, "type": "function", "id": "x", "function": {"name": name, "arguments": arguments}} | more
        ]
    }


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "refusal"])
def test_a_clean_text_comes_out_as_it_was_in_its_own_field(guard, name, size):
    frames, stream = play(guard, [*(chunk({name: piece}) for piece in cut(CLEAN, size)), chunk({}, "stop")])
    assert said(frames, name) == CLEAN
    assert ends(frames) == {0: "stop"}
    assert stream.tally.action == Action.ALLOW
    assert all(set(one["delta"]) <= {name, "role"} for frame in frames for one in frame["choices"])


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize("secret", [ROW, CANARY])
@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "refusal"])
def test_no_field_leaks_and_the_answer_ends(guard, name, secret, size):
    text = f"Well. {secret} That is it."
    frames, stream = play(guard, [*(chunk({name: piece}) for piece in cut(text, size)), chunk({}, "stop")])
    assert not leaks(json.dumps(frames))
    assert stream.tally.action == Action.BLOCK
    assert ends(frames) == {0: "content_filter"}
    assert frames[-1]["stanch"] == {"incident": "inc_1"}


@pytest.mark.parametrize("text", [CANARY, ROW, json.dumps({"q": CANARY}), "".join(f"\\u{ord(c):04x}" for c in CANARY)])
@pytest.mark.parametrize("is_whole", [True, False])
def test_arguments_leak_neither_as_written_nor_as_read(guard, text, is_whole):
    if is_whole:
        frames, tally = rebuilt(guard, whole(call(text), "tool_calls"))
    else:
        frames, stream = play(guard, [chunk(call("")), *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": p}}]})  # noqa: E501 - a row of data
                              for p in cut(text, 5)), chunk({}, "tool_calls")])  # fmt: skip
        tally = stream.tally
        assert said(frames, "arguments") == ""
    assert not leaks(json.dumps(frames))
    assert tally.action == Action.BLOCK


def test_a_clean_call_comes_out_under_an_id_of_the_gateway(guard):
    text = '{"q":"caf\\u00e9 \\"au lait\\""}'
    frames, _ = play(guard, [chunk(call("")), chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
                             chunk({}, "tool_calls")])  # fmt: skip
    assert said(frames, "arguments") == text
    begun = frames[0]["choices"][0]["delta"]["tool_calls"][0]
    assert (begun["function"]["name"], begun["id"]) == ("search", "call_" + "A" * 22 + "00")


def test_a_block_in_one_choice_ends_all_of_them(guard):
    objects = [chunk({"content": "fine. "}, choice=1), chunk({"content": f"{CANARY} "}, "stop")]
    frames, _ = play(guard, [*objects, chunk({"content": "more"}, choice=1)])
    assert ends(frames) == {0: "content_filter", 1: "content_filter"}
    assert "more" not in json.dumps(frames)


def test_personal_data_is_replaced_and_the_answer_goes_on(guard):
    frames, stream = play(guard, [chunk({"content": "Ask ana.diaz@example.org please."}), chunk({}, "stop")])
    assert said(frames) == "Ask <EMAIL> please."
    assert stream.tally.action == Action.REDACT
    assert stream.tally.findings == Counter(email=1)


def test_nothing_of_the_server_passes_that_is_not_listed(guard):
    marked = "LEAK"
    objects = [
        chunk({"content": "Hi ", "audio": {"data": marked}, marked: marked}, id=marked, model=marked, created=7,
              system_fingerprint=marked, x=[marked], service_tier=marked),
        chunk({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, marked: marked}),
    ]  # fmt: skip
    objects[0]["choices"][0]["logprobs"] = {"content": [{"token": marked, "logprob": -1, "bytes": [76]}]}
    frames, stream = play(guard, objects)
    assert said(frames) == "Hi "
    assert marked not in json.dumps(frames)
    assert stream._reader.dropped == {"$.choices.delta": 2, "$.choices": 1, "$": 2, "$.usage": 1}
    assert marked not in str(stream._reader.dropped)


@pytest.mark.parametrize(
    "value",
    [
        chunk({"content": 5}), chunk({"content": ["x"]}), chunk({"role": ROW}), chunk({}, ROW), chunk({}, choice=2),
        chunk({}, choice=-1), chunk({}, choice=True), chunk({}) | {"object": ROW}, chunk({}) | {"choices": {}}, [],
        chunk(call("{}", name=ROW)), chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({}) | {"choices": [{"delta": []}]}, chunk({"content": [{"type": "image_url", "text": "x"}]}),
        chunk({}) | {"usage": {"prompt_tokens": -1}}, chunk({}) | {"usage": {"prompt_tokens": 1.5}}, "x",
    ],
)  # fmt: skip
def test_an_unexpected_value_ends_the_answer_and_is_not_quoted(guard, value):
    with pytest.raises(UpstreamProtocol) as raised:
        opened(guard).take(Event("", json.dumps(value)))
    assert ROW not in str(raised.value) + raised.value.why


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', "{", "NaN", '{"a":NaN}', "", "[" * 4000, '{"choices":[]} x', "\ufeff{}"]
)
def test_only_strict_json_is_read(guard, text):
    with pytest.raises(UpstreamProtocol):
        opened(guard).take(Event("", text))


def test_an_error_of_the_server_is_a_failure(guard):
    with pytest.raises(UpstreamFailed) as raised:
        opened(guard).take(Event("", json.dumps({"error": {"message": ROW}})))
    assert ROW not in repr(raised.value)


@pytest.mark.parametrize(
    "objects",
    [[], [chunk({"content": "Hi"})], [chunk({"content": "Hi"}, "stop"), chunk({"content": "x"}, choice=1)],
     [chunk(call("{}"))]],
)  # fmt: skip
def test_an_answer_without_its_end_is_no_answer(guard, objects):
    with pytest.raises(UpstreamProtocol):
        play(guard, objects)


@pytest.mark.parametrize("after", [{"content": "x"}, call("{}")])
def test_nothing_comes_after_the_end_of_a_choice(guard, after):
    with pytest.raises(UpstreamProtocol):
        play(guard, [chunk({}, "stop"), chunk(after)])


def test_halves_of_a_pair_in_two_events_are_joined_and_a_lone_one_is_replaced(guard):
    frames, _ = play(guard, [chunk({"content": "a\ud83d"}), chunk({"content": "\ude00 \ud83d"}), chunk({}, "stop")])
    assert said(frames) == "a😀 \ufffd"


def test_the_digest_of_an_answer_is_of_its_text_by_channel_however_it_was_cut(guard):
    def digest(*deltas, key=b"k"):
        _, stream = play(guard, [*(chunk(delta) for delta in deltas), chunk({}, "stop")])
        return stream.tally.digest(hmac_prf(key * 32))

    uncut = digest({"content": CLEAN})
    assert digest(*({"content": piece} for piece in cut(CLEAN, 7))) == uncut
    for other in (digest({"content": CLEAN[1:]}), digest({"refusal": CLEAN}), digest({"content": CLEAN}, key=b"j")):
        assert other != uncut
    assert digest({"content": "", "refusal": CLEAN}) == digest({"refusal": CLEAN})


def test_completions_have_one_channel(guard):
    pieces = [
        {"object": "text_completion", "choices": [{"index": 0, "text": p, "finish_reason": None}]} for p in cut(ROW, 6)
    ]
    frames, _ = play(guard, pieces, completion())
    assert not leaks("".join(one["text"] for frame in frames for one in frame["choices"]))
    with pytest.raises(UpstreamProtocol):
        play(
            guard,
            [{"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}], "object": "chat.completion"}],
            completion(),
        )


@pytest.mark.parametrize("message", [{"content": f"So: {ROW}"}, {"content": [{"type": "text", "text": ROW[:90]},
                                     {"type": "text", "text": ROW[90:]}]}, {"content": "x", "refusal": CANARY}])  # fmt: skip  # noqa: E501 - a row of data
def test_a_whole_answer_is_judged_before_its_first_byte(guard, message):
    answer, tally = rebuilt(guard, whole(message))
    assert answer["choices"] == [{"index": 0, "message": {"role": "assistant", "content": ""}, "logprobs": None,
                                  "finish_reason": "content_filter"}]  # fmt: skip
    assert tally.released == 0
    assert answer["stanch"] == {"incident": "inc_1"}


def test_a_clean_whole_answer_is_itself(guard):
    message = {"content": CLEAN, "reasoning_content": "hm"}
    answer, tally = rebuilt(guard, whole(message, usage={"prompt_tokens": 1, "completion_tokens": 90}))
    assert answer["choices"][0]["message"] == {"role": "assistant", **message}
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 90, "total_tokens": 91}
    assert tally.completion_tokens() == 90


def test_the_server_cannot_undercount(guard):
    answer = whole({"content": "x" * 41}, usage={"prompt_tokens": 0, "completion_tokens": 0})
    assert rebuilt(guard, answer)[1].completion_tokens() == 11


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["stop", "assistant", "search", "text"]),  # noqa: E501 - a row of data
    lambda below: st.lists(below, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "message", "content", "index", "tool_calls", "function", "name", "arguments", "usage",
             "finish_reason", "role", "type", "text", "object", "error", "prompt_tokens"]
        ) | st.text(max_size=3),
        below, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(json_values, st.booleans())
def test_any_json_is_taken_or_refused_with_the_one_error(guard, value, is_whole):
    reader = OpenAiReader(request(logprobs=True), is_chat=True)
    text = json.dumps(value)
    try:
        taken = reader.read_whole(text) if is_whole else reader.read_events([Event("", text)])[0]
    except (UpstreamProtocol, UpstreamFailed):
        return
    if is_whole and taken.finished:
        for part in taken.parts:
            taken.finished.setdefault(part.channel.choice, "stop")
        json.loads(rebuild_whole(guard, reader, taken, ChatWriter(HEADER, request()), "", 0, budget_key=b"k" * 32)[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, len(ROW) + 20), max_size=8), st.sampled_from([ROW, CANARY, CLEAN]))
def test_no_cut_lets_a_secret_out_and_none_changes_a_clean_text(guard, sizes, text):
    stated, at, pieces = f"Now: {text} Bye.", 0, []
    for size in sizes:
        pieces.append(stated[at : at + size])
        at += size
    frames, _ = play(guard, [*(chunk({"content": piece}) for piece in [*pieces, stated[at:]]), chunk({}, "stop")])
    assert not leaks(said(frames))
    assert text != CLEAN or said(frames) == stated


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"top_logprobs": 1}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"), ({"echo": True}, "echo"), ({"audio": {}}, "audio"), ({"store": True}, "store"),  # noqa: E501 - a row of data
        ({"n": 9}, "$.n"), ({"messages": []}, "$.messages"), ({"stream_options": {"x": 1}}, "`x`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        ({"stream_options": {}}, "stream_options"), ({"max_tokens": 0}, "max_tokens"), ({"logit_bias": {}}, "logit_bias"),  # noqa: E501 - a row of data
    ],
)  # fmt: skip
def test_an_unknown_or_wrong_field_is_named(changes, named):
    with pytest.raises(InvalidInput) as raised:
        request(**changes)
    assert named in raised.value.what


def test_what_is_forwarded_was_read_and_has_a_limit():
    sent = json.loads(forwarded(request(user="ana", temperature=0.5), "inner"))
    assert sent == {**ASKED, "model": "inner", "max_tokens": 4096, "temperature": 0.5}
    assert json.loads(forwarded(request(max_completion_tokens=7), "inner"))["max_tokens"] == 7


def test_events_that_come_together_are_judged_together_and_say_the_same(guard):
    events = [Event("", json.dumps(chunk({"content": piece}))) for piece in cut(CLEAN, 3)]
    end, wrong = Event("", json.dumps(chunk({}, "stop"))), Event("", "{")
    for limit in (1, 4, len(events)):
        stream, frames = opened(guard), []
        for at in range(0, len(events), limit):
            stream.take(*events[at : at + limit])
            frames += stream.frames()
        stream.take(end)
        frames += stream.frames()
        assert len(frames) <= len(events) // limit + 2
        read = [json.loads(event.data) for event in EventParser().feed(b"".join(frames))]
        assert said(read) == CLEAN
    stream = opened(guard)
    with pytest.raises(UpstreamProtocol):
        stream.take(*events, wrong)
    read = [json.loads(event.data) for event in EventParser().feed(b"".join(stream.frames()))]
    assert CLEAN.startswith(said(read))
    assert len(said(read)) > len(CLEAN) // 2
