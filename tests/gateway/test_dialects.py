"""Every channel of every dialect: what is clean comes out as it was, and a planted text never does."""

import json

import pytest
from answers import CANARY, CLEAN, ROW, cut, leaks
from hypothesis import given, settings
from hypothesis import strategies as st
from saying import ASKED, EVERY, SAY, asked, parts, play, rebuilt, said_whole

from stanch.errors import InvalidInput
from stanch.gateway.dialect import Channel, Ending, Made, Opened, Usage
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.request import forwarded
from stanch.gateway.sse import Event
from stanch.guard import Action, GuardError

WHOLE = 10_000
NEWER = ("responses", "messages")


@pytest.mark.parametrize("size", [1, 3, WHOLE])
@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_a_canary_leaves_by_no_channel_of_a_stream(guard, dialect, channel, size):
    text = f'{{"q": "{CANARY}"}}' if channel == "arguments" else f"Well, {CANARY}. That is it."
    played = play(guard, dialect, SAY[dialect](channel, cut(text, size), ""))
    assert played.stream.tally.action == Action.BLOCK
    assert "48151623" not in json.dumps(played.events)
    assert not leaks(json.dumps(played.events))


@pytest.mark.parametrize("secret", [CANARY, ROW])
@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_nothing_of_a_planted_text_leaves_by_a_channel_of_a_whole_answer(guard, dialect, channel, secret):
    answer, tally = rebuilt(guard, dialect, said_whole(dialect, channel, f"Well, {secret}"))
    assert (tally.action, tally.released) == (Action.BLOCK, 0)
    assert "Well" not in json.dumps(answer)
    assert secret[:12] not in json.dumps(answer)
    assert answer["stanch"] == {"incident": "inc_1"}


@pytest.mark.parametrize("size", [1, 7, WHOLE])
@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_a_clean_text_comes_out_as_it_was(guard, dialect, channel, size):
    text = '{"q":"caf\\u00e9"}' if channel == "arguments" else CLEAN
    played = play(guard, dialect, SAY[dialect](channel, cut(text, size), ""))
    pieces, snapshots = played.texts()
    assert pieces == text
    assert snapshots == (text if dialect == "responses" else "")
    assert played.stream.tally.action == Action.ALLOW


@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_a_clean_whole_answer_says_the_same(guard, dialect, channel):
    answer, _ = rebuilt(guard, dialect, said_whole(dialect, channel, CLEAN))
    assert CLEAN in json.dumps(answer, ensure_ascii=False)
    assert "stanch" not in answer


@pytest.mark.parametrize(("dialect", "last"), [("responses", "response.incomplete"), ("messages", "message_stop")])
def test_a_block_ends_a_stream_in_the_form_of_its_dialect(guard, dialect, last):
    text = f"Some fine words first. {CANARY} and more"
    played = play(guard, dialect, SAY[dialect]("output_text" if dialect == "responses" else "text", cut(text, 4), ""))
    assert played.events[-1]["type"] == last
    pieces, snapshots = played.texts()
    assert pieces == "Some fine words first. "
    if dialect == "messages":
        changed = played.events[-2]
        assert played.events[-3]["type"] == "content_block_stop"
        assert (changed["delta"]["stop_reason"], changed["stanch"]) == ("refusal", {"incident": "inc_1"})
        return
    assert snapshots == pieces
    response = played.events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    (item,) = response["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", pieces)
    assert played.events[-1]["stanch"] == {"incident": "inc_1"}
    assert [one["sequence_number"] for one in played.events] == list(range(len(played.events)))


@pytest.mark.parametrize(
    ("dialect", "end"),
    [("responses", "completed"), ("responses", "incomplete:max_output_tokens"), ("messages", "max_tokens"),
     ("messages", "stop_sequence:END"), ("messages", "tool_use")],
)  # fmt: skip
def test_why_an_answer_ended_is_told(guard, dialect, end):
    played = play(guard, dialect, SAY[dialect]("arguments", ["{}"], end))
    first, _, second = end.partition(":")
    if dialect == "responses":
        response = played.events[-1]["response"]
        assert (response["status"], (response["incomplete_details"] or {}).get("reason", "")) == (first, second)
        assert response["usage"]["total_tokens"] == 49
        assert response["output"][0]["call_id"] == "call_" + "A" * 26 + "0"
    else:
        delta = played.events[-2]["delta"]
        assert (delta["stop_reason"], delta["stop_sequence"] or "") == (first, second)
        assert played.events[-2]["usage"] == {"input_tokens": 9, "output_tokens": 40}
        assert played.events[1]["content_block"] == {
            "type": "tool_use",
            "id": "toolu_" + "A" * 26 + "0",
            "name": "search",
            "input": {},
        }


def test_several_items_and_parts_keep_their_places(guard):
    item = {"type": "message", "role": "assistant"}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "I think "},
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "Hello there, "},
        {"type": "response.refusal.delta", "output_index": 1, "content_index": 2, "delta": "and "},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "so."},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "you."},
        {"type": "response.output_item.done", "output_index": 0},
        {"type": "response.output_item.done", "output_index": 1},
        {"type": "response.completed", "response": {"object": "response", "status": "completed"}},
    ]
    reasoning, message = play(guard, "responses", events).events[-1]["response"]["output"]
    assert [part["text"] for part in reasoning["summary"]] == ["I think so."]
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["Hello there, you.", "and "]


def test_a_signature_and_whatever_is_not_listed_are_left_out(guard):
    events = SAY["messages"]("thinking", ["hm"], "")
    events[0]["message"]["note"] = events[2]["content_block"]["data"] = "LEAK"
    events[3]["delta"]["LEAK"] = events[-2]["delta"]["container"] = "LEAK"
    played = play(guard, "messages", events)
    assert "LEAK" not in json.dumps(played.events)
    assert played.stream._reader.dropped == {"$.message": 1, "$.content_block": 1, "$.delta": 3}
    answer, _ = rebuilt(guard, "messages", said_whole("messages", "thinking", "LEAK") | {"container": "LEAK"})
    assert answer["content"] == [{"type": "thinking", "thinking": "LEAK", "signature": ""}]


def test_a_tools_input_is_read_as_json_text_and_given_back_as_an_object(guard):
    answer, _ = rebuilt(guard, "messages", said_whole("messages", "arguments", 'say "é" \n 5'))
    assert answer["content"][0]["input"] == {"q": 'say "é" \n 5'}
    mailed = said_whole("messages", "arguments", "to ana.diaz@example.org please")
    answer, tally = rebuilt(guard, "messages", mailed)
    assert (answer["content"][0]["input"], tally.action) == ({"q": "to <EMAIL> please"}, Action.REDACT)
    made = Made([Opened(0, 0, "tool_use", "search")], {Channel(0, "arguments"): '{"a": <NUMBER>}'})
    with pytest.raises(GuardError):
        parts("messages", asked("messages"))[1].whole(made, Ending({0: "x"}, "end_turn", Usage(1, 1)))


WRONG = {
    "responses": [
        {"type": "response.web_search_call.completed"}, {"type": ROW}, {}, {"type": "response.output_item.added"},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "image_generation_call"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call", "name": ROW}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call"}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "x"},
        {"type": "response.output_item.done", "output_index": 0}, {"type": "response.completed", "response": {}},
        {"type": "response.completed"},
        {"type": "response.completed", "response": {"status": "incomplete", "incomplete_details": {"reason": ROW}}},
        {"type": "response.completed", "response": {"status": "incomplete"}},
    ],
    "messages": [
        {"type": ROW}, {}, {"type": "message_stop"}, {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": ROW}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": ROW}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": {"stop_reason": ROW}}, {"type": "message_start"},
        {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": ROW}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": -1}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("dialect", "value"), [(name, one) for name, values in WRONG.items() for one in values])
def test_an_unexpected_event_ends_the_answer_and_is_not_quoted(guard, dialect, value):
    with pytest.raises(UpstreamProtocol) as raised:
        play(guard, dialect, [{"type": ""} | value])
    assert ROW not in str(raised.value) + raised.value.why


@pytest.mark.parametrize("dialect", NEWER)
def test_pieces_belong_to_what_was_opened_and_is_open(guard, dialect):
    events = SAY[dialect]("output_text" if dialect == "responses" else "text", ["one", "two"], "")
    other = SAY[dialect]("arguments", ["x"], "")
    for at, wrong in ((3, other[4] if dialect == "responses" else other[3]), (len(events) - 1, events[-3])):
        with pytest.raises(UpstreamProtocol):
            play(guard, dialect, [*events[:at], wrong | {"index": 0}, *events[at:-1], events[2]])


@pytest.mark.parametrize("dialect", NEWER)
def test_an_event_whose_name_is_not_its_type_is_refused(dialect):
    reader, _ = parts(dialect, asked(dialect))
    with pytest.raises(UpstreamProtocol):
        reader.read_events([Event("ping", json.dumps(SAY[dialect]("arguments", [], "")[0]))])


@pytest.mark.parametrize(
    ("dialect", "value"),
    [("responses", {"type": "error", "message": ROW}), ("responses", {"type": "response.failed", "response": {}}),
     ("messages", {"type": "error", "error": {"message": ROW}}), ("messages", {"type": "error"})],
)  # fmt: skip
def test_an_error_of_the_server_is_a_failure(guard, dialect, value):
    with pytest.raises(UpstreamFailed) as raised:
        play(guard, dialect, [value])
    assert ROW not in repr(raised.value)


@pytest.mark.parametrize("dialect", NEWER)
def test_an_answer_that_breaks_off_has_no_end(guard, dialect):
    events = SAY[dialect]("arguments", ["{}"], "")
    for at in range(len(events)):
        played = play(guard, dialect, events[:at])
        assert not played.is_done
    with pytest.raises(UpstreamProtocol):
        play(
            guard,
            dialect,
            [one for one in events if one["type"] not in {"content_block_stop", "response.output_item.done"}],
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=5) | st.sampled_from(["completed", "message", "search", "text"]),  # noqa: E501 - a row of data
    lambda below: st.lists(below, max_size=3)
    | st.dictionaries(
        st.sampled_from(["output", "content", "index", "output_index", "content_index", "item", "delta", "type", "text",
                         "role", "name", "input", "arguments", "usage", "status", "stop_reason", "content_block",
                         "message", "response", "incomplete_details", "reason"]) | st.text(max_size=3), below, max_size=5,  # noqa: E501 - a row of data
    ),
    max_leaves=20,
)  # fmt: skip
TYPES = sorted({one["type"] for name in NEWER for channel in ("arguments",) for one in SAY[name](channel, ["x"], "")})


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NEWER), st.lists(st.tuples(st.sampled_from(TYPES), json_values), max_size=4), json_values)
def test_any_json_is_taken_or_refused_with_the_one_error(guard, dialect, events, value):
    for run in (
        lambda: play(
            guard, dialect, [{**(one if isinstance(one, dict) else {}), "type": kind} for kind, one in events]
        ),
        lambda: rebuilt(guard, dialect, value),
    ):
        try:
            run()
        except (UpstreamProtocol, UpstreamFailed):
            continue


@pytest.mark.parametrize(
    ("dialect", "changes", "named"),
    [
        ("responses", {"store": True}, "store"), ("responses", {"previous_response_id": "x"}, "previous_response_id"),
        ("responses", {"background": True}, "background"), ("responses", {"tools": [{"type": "web_search"}]}, "tools"),
        ("responses", {"include": ["reasoning.encrypted_content"]}, "include"), ("responses", {"input": []}, "input"),
        ("responses", {"conversation": "x"}, "conversation"), ("responses", {"top_logprobs": 1}, "top_logprobs"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ("messages", {"max_tokens": None}, "max_tokens"), ("messages", {"mcp_servers": []}, "mcp_servers"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages"),
        ("messages", {"container": "x"}, "container"), ("messages", {"temperature": 2}, "temperature"),
    ],
)  # fmt: skip
def test_an_unknown_or_wrong_field_is_named(dialect, changes, named):
    with pytest.raises(InvalidInput) as raised:
        asked(dialect, **changes)
    assert named in raised.value.what


def test_what_is_forwarded_was_read_and_keeps_nothing_at_the_server():
    sent = json.loads(forwarded(asked("responses", user="ana"), "inner"))
    assert sent == ASKED["responses"] | {"model": "inner", "store": False, "max_output_tokens": 4096}
    sent = json.loads(forwarded(asked("messages", metadata={"user_id": "ana"}), "inner"))
    assert sent == ASKED["messages"] | {"model": "inner"}


def test_what_came_out_can_be_sent_again(guard):
    response = play(guard, "responses", SAY["responses"]("output_text", ["Hello."], "")).events[-1]["response"]
    assert asked("responses", input=response["output"]).input[0].content[0].text == "Hello."
    for channel in ("text", "thinking", "arguments"):
        answer, _ = rebuilt(guard, "messages", said_whole("messages", channel, "Hello."))
        again = asked("messages", messages=[{"role": "assistant", "content": answer["content"]}])
        assert json.loads(forwarded(again, "m"))["messages"][0]["content"][0]["type"] == answer["content"][0]["type"]
