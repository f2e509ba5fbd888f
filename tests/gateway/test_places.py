"""Texts that a server spreads over blocks, parts or items: found as one, written in order, each in its own place."""

import json

import pytest
from answers import CANARY, CLEAN, ROW, chunk, cut, leaks
from saying import asked, parts, play, rebuilt

from stanch.gateway.dialect import Usage
from stanch.gateway.problem import UpstreamProtocol
from stanch.gateway.rebuild import Stream, rebuild_whole
from stanch.gateway.sse import EventParser
from stanch.guard import Action
from stanch.guard.conformance import holds, read_answer
from stanch.guard.leaking import Said, answer
from stanch.guard.matrix import ROWS, canary_phrase, cells, training_phrase

EMAIL = "ana.diaz@example.org"
MESSAGE = {"id": "u", "type": "message", "role": "assistant", "model": "u"}
LAST = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]


def blocks(*said, size=4):
    """Return a stream of messages: pairs of the kind of a block and its text."""
    events = [{"type": "message_start", "message": MESSAGE | {"content": []}}]
    for index, (kind, text) in enumerate(said):
        tool = {"name": "search", "input": {}} if kind == "tool_use" else {kind: ""}
        events.append({"type": "content_block_start", "index": index, "content_block": {"type": kind} | tool})
        delta = {"type": "input_json_delta"} if kind == "tool_use" else {"type": f"{kind}_delta"}
        name = "partial_json" if kind == "tool_use" else kind
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta | {name: piece}} for piece in cut(text, size)
        ]
        events.append({"type": "content_block_stop", "index": index})
    return events + LAST


def message(*said):
    content = [{"type": kind, kind: text} for kind, text in said]
    return MESSAGE | {"content": content, "stop_reason": "end_turn"}


PARTS = {
    "output_text": ("message", "content", "content_index"),
    "refusal": ("message", "content", "content_index"),
    "reasoning_text": ("reasoning", "content", "content_index"),
    "summary_text": ("reasoning", "summary", "summary_index"),
}


def response(channel, texts, *, in_items):
    """Return a whole response whose texts stand in parts of one item, or in items of one part."""
    kind, holder, _ = PARTS[channel]
    parts = [{"type": channel, "refusal" if channel == "refusal" else "text": text} for text in texts]
    output = [{"type": kind, holder: [part]} for part in parts] if in_items else [{"type": kind, holder: parts}]
    return {"object": "response", "status": "completed", "output": output}


def items(channel, texts, *, in_items, size=4):
    """Return it as a stream."""
    kind, _, place = PARTS[channel]
    name = "reasoning_summary_text" if channel == "summary_text" else channel
    events, last = [], len(texts) - 1
    for number, text in enumerate(texts):
        index, part = (number, 0) if in_items else (0, number)
        here = {"output_index": index}
        if number == 0 or in_items:
            events.append({"type": "response.output_item.added", "item": {"type": kind}} | here)
        events += [{"type": f"response.{name}.delta", place: part, "delta": piece} | here for piece in cut(text, size)]
        if number == last or in_items:
            events.append({"type": "response.output_item.done"} | here)
    return [*events, {"type": "response.completed", "response": {"object": "response", "status": "completed"}}]


def spread(dialect, channel, texts, size=4):
    """Yield the streams and the whole answers that say texts in as many places of a field."""
    if dialect == "messages":
        said = [(channel, text) for text in texts]
        yield blocks(*said, size=size), message(*said)
    else:
        for in_items in (True, False):
            yield items(channel, texts, in_items=in_items, size=size), response(channel, texts, in_items=in_items)


def texts_of(answer):
    """Return the texts of a whole answer, place by place."""
    parts = answer.get("content") or [
        part for item in answer["output"] for part in (item.get("content") or []) + item.get("summary", [])
    ]
    return [next(part[name] for name in ("text", "thinking", "refusal") if name in part) for part in parts]


EVERY = [("messages", "text"), ("messages", "thinking"), *(("responses", channel) for channel in PARTS)]


@pytest.mark.parametrize("pieces", [2, 5])
@pytest.mark.parametrize("secret", [ROW, CANARY, EMAIL, CANARY[::-1]])
@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_a_secret_over_several_places_of_a_field_ends_the_answer(guard, dialect, channel, secret, pieces):
    size = -(-len(secret) // pieces)
    for stream, whole in spread(dialect, channel, ["Well. ", *cut(secret, size), " That is it."]):
        played = play(guard, dialect, stream)
        assert played.stream.tally.action is Action.BLOCK
        assert not leaks("".join(played.texts()[0]))
        assert secret == ROW or secret[:6] not in played.texts()[0]
        answer, tally = rebuilt(guard, dialect, whole)
        assert (tally.action, tally.released) == (Action.BLOCK, 0)
        assert "Well" not in json.dumps(answer)


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(("dialect", "channel"), EVERY)
def test_clean_places_come_out_as_they_were(guard, dialect, channel, size):
    texts = [CLEAN[:30], CLEAN[30:37], " ", CLEAN[37:], "And an end"]
    for stream, whole in spread(dialect, channel, texts, size):
        played = play(guard, dialect, stream)
        assert played.texts()[0] == "".join(texts)
        assert played.stream.tally.action is Action.ALLOW
        if dialect == "responses":
            assert texts_of(played.events[-1]["response"]) == texts
        else:
            assert said_in_blocks(played.events) == texts
        assert texts_of(rebuilt(guard, dialect, whole)[0]) == texts


def said_in_blocks(events):
    """Return the texts of the blocks; they begin and end one after the other."""
    texts, is_open = [], False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(texts)
            texts, is_open = [*texts, ""], True
        elif event["type"] == "content_block_delta":
            assert is_open
            assert event["index"] == len(texts) - 1
            texts[-1] += next(text for name, text in event["delta"].items() if name != "type")
        elif event["type"] == "content_block_stop":
            assert is_open
            is_open = False
    assert not is_open
    return texts


def test_a_finding_keeps_its_place(guard):
    texts = ["Ask ", f"{EMAIL}, or", " me."]
    (stream, whole), = spread("messages", "text", texts)  # fmt: skip
    wanted = ["Ask ", "<EMAIL>, or", " me."]
    assert said_in_blocks(play(guard, "messages", stream).events) == wanted
    assert texts_of(rebuilt(guard, "messages", whole)[0]) == wanted


def test_a_place_of_another_kind_releases_what_stood_before_it(guard):
    events = blocks(("thinking", "I think of Ana"), ("text", "Hello to Ana"), ("tool_use", '{"q":"x"}'))
    first = next(at for at, event in enumerate(events) if event.get("index") == 1)
    seen = play(guard, "messages", events[: first + 1]).events
    assert said_in_blocks([event for event in seen if event.get("index") == 0]) == ["I think of Ana"]
    assert [event["type"] for event in seen[-2:]] == ["content_block_stop", "content_block_start"]
    texts = ["I think of Ana", "Hello to Ana", '{"q":"x"}']
    assert said_in_blocks(play(guard, "messages", events).events) == texts


def test_a_canary_is_found_over_a_call_that_stands_between_and_its_rest_does_not_leave(guard):
    events = blocks(("text", "Well, the code of the va"), ("tool_use", '{"q":"x"}'), ("text", "ult is 48151623"))
    played = play(guard, "messages", events)
    assert played.stream.tally.action is Action.BLOCK
    assert said_in_blocks(played.events) == ["Well, the code of the va", '{"q":"x"}', ""]


def test_what_only_began_like_a_canary_comes_out_in_its_own_block(guard):
    for second in ("text", "tool_use"):
        said = [("text", "Well, the code of the va"), (second, '{"q":"x"}'), ("text", "lley. Bye")]
        assert said_in_blocks(play(guard, "messages", blocks(*said)).events) == [text for _, text in said]


@pytest.mark.parametrize("at", [0, 1])
def test_a_place_that_another_followed_gets_no_more_text(guard, at):
    events = items("output_text", ["one", "two"], in_items=False, size=9)
    late = events[1 + at]
    if at:
        assert play(guard, "responses", [*events[:3], late, *events[3:]]).texts()[0] == "onetwotwo"
        return
    with pytest.raises(UpstreamProtocol):
        play(guard, "responses", [*events[:3], late, *events[3:]])


def test_choices_are_answers_of_their_own(guard):
    events = [chunk({"content": CANARY[:12]}, "stop"), chunk({"content": CANARY[12:]}, "stop", choice=1)]
    assert play(guard, "chat", events, asked("chat", n=2)).stream.tally.action is Action.ALLOW


def told(guard, cell):
    """Return what a client reads when the leaking server says a cell of the bypass matrix."""
    said = Said(cell.row, cell.said, cell.stream, cell.chunk)
    request = asked(cell.row.dialect)
    if cell.row.name == "arguments":
        request = asked(cell.row.dialect, tools=NOTES[cell.row.dialect])
    reader, writer = parts(cell.row.dialect, request)
    body = answer(said)[2]
    if not cell.stream:
        taken = reader.read_whole(body.decode())
        return read_answer(
            200, "", rebuild_whole(guard, reader, taken, writer, "inc_1", 0, budget_key=b"k" * 32)[0].decode()
        )
    stream, frames = Stream(guard, reader, writer, b"k" * 32), []
    for event in EventParser().feed(body):
        if not (stream.is_blocked or stream.is_ended):
            stream.take(event)
            frames += stream.frames()
    shown = b"".join([*frames, *stream.tail("inc_1", Usage(0, 0))])
    return read_answer(200, "text/event-stream", shown.decode())


NOTES = {
    "chat": [{"type": "function", "function": {"name": "note"}}],
    "responses": [{"type": "function", "name": "note"}],
    "messages": [{"name": "note", "input_schema": {}}],
}


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_channel], ids=lambda row: row.title)
def test_no_disguise_comes_out_of_a_channel(guard, row):
    seen = 0
    for cell in cells([row], (training_phrase(ROW), canary_phrase(CANARY)), (1, 7)):
        read = told(guard, cell)
        assert read.is_well_formed, cell
        assert not (cell.is_claimed and holds(read, cell.phrase)), cell
        seen += 1
    assert seen == 2 * 8 * 3
