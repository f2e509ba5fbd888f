"""The same answer in every dialect: what a model's server would send when it says pieces of text in one channel."""

import json
from dataclasses import dataclass

from answers import chunk

from stanch.gateway.app import ENDPOINTS
from stanch.gateway.dialect import Header, Usage
from stanch.gateway.rebuild import Stream, rebuild_whole
from stanch.gateway.request import read_request
from stanch.gateway.sse import Event, EventParser

USER = [{"role": "user", "content": "hello"}]
FUNCTION = {"type": "function", "name": "search"}
PATHS = {
    "chat": "chat/completions",
    "completions": "completions",
    "responses": "responses",
    "messages": "messages",
}
ASKED = {
    "chat": {"model": "bot", "messages": USER, "tools": [{"type": "function", "function": {"name": "search"}}]},
    "completions": {"model": "bot", "prompt": "hello"},
    "responses": {"model": "bot", "input": "hello", "tools": [FUNCTION]},
    "messages": {
        "model": "bot", "messages": USER, "max_tokens": 99, "tools": [{"name": "search", "input_schema": {}}],
        "stop_sequences": ["END"],
    },
}  # fmt: skip
CHANNELS = {
    "chat": ("content", "reasoning_content", "reasoning", "refusal", "arguments"),
    "completions": ("text",),
    "responses": ("output_text", "refusal", "reasoning_text", "summary_text", "arguments"),
    "messages": ("text", "first", "thinking", "arguments"),
}
EVERY = [(dialect, channel) for dialect, channels in CHANNELS.items() for channel in channels]
USED = {"input_tokens": 9, "output_tokens": 40}


def asked(dialect, **changes):
    body = json.dumps(ASKED[dialect] | changes).encode()
    return read_request(body, ENDPOINTS[f"POST /v1/{PATHS[dialect]}"].request)


def _chat(channel, pieces, end):
    if channel == "arguments":
        made = [{"tool_calls": [{"index": 0, "type": "function", "function": {"name": "search", "arguments": ""}}]}]
        made += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    else:
        made = [{channel: piece} for piece in pieces]
    usage = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
    return [chunk(one) for one in made] + [chunk({}, end or "stop"), {"choices": [], "usage": usage}]


def _completions(_channel, pieces, end):
    made = [{"object": "text_completion", "choices": [{"index": 0, "text": piece}]} for piece in pieces]
    return [*made, {"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": end or "stop"}]}]


def _responses(channel, pieces, end):
    from stanch.gateway.dialect_responses import PARTS  # noqa: PLC0415 - the table under test says the names

    said = "".join(pieces)
    if channel == "arguments":
        name, place = "response.function_call_arguments", {}
        item = {"type": "function_call", "id": "u", "call_id": "u", "name": "search", "arguments": said}
    else:
        kind = PARTS[channel]
        name, place = kind.event, {kind.index: 0}
        part = {"type": channel, kind.text: said}
        item = {"type": kind.item, "id": "u", "status": "completed", kind.holder: [part]}
        item |= {"role": "assistant"} if kind.item == "message" else {}
    response = {"id": "u", "object": "response", "status": "in_progress", "output": []}
    status, _, why = (end or "completed").partition(":")
    last = response | {"status": status, "output": [item], "usage": USED}
    last |= {"incomplete_details": {"reason": why}} if why else {}
    here = {"item_id": "u", "output_index": 0} | place
    events = [{"type": "response.created", "response": response}, {"type": "response.in_progress", "response": last},
              {"type": "response.output_item.added", "output_index": 0, "item": item}]  # fmt: skip
    if place:
        events.append({"type": f"{PARTS[channel].part}.added", "part": part} | here)
    events += [{"type": f"{name}.delta", "delta": piece} | here for piece in pieces]
    events.append({"type": f"{name}.done", "text": said, "arguments": said, "refusal": said} | here)
    if place:
        events.append({"type": f"{PARTS[channel].part}.done", "part": part} | here)
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": f"response.{status}", "response": last})
    return [one | {"sequence_number": at} for at, one in enumerate(events)]


def _messages(channel, pieces, end):
    block = {"type": "text", "text": ""}
    if channel == "arguments":
        block = {"type": "tool_use", "id": "u", "name": "search", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    elif channel == "thinking":
        block = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
        deltas.append({"type": "signature_delta", "signature": "".join(pieces)})
    else:
        first, *pieces = pieces if channel == "first" else ["", *pieces]
        block["text"] = first
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    reason, _, sequence = (end or "end_turn").partition(":")
    message = {
        "id": "u",
        "type": "message",
        "role": "assistant",
        "model": "u",
        "content": [],
        "usage": {"input_tokens": 9},
    }
    return [
        {"type": "message_start", "message": message}, {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence or None}, "usage": {"output_tokens": 40}},  # noqa: E501 - a row of data
        {"type": "message_stop"},
    ]  # fmt: skip


SAY = {"chat": _chat, "completions": _completions, "responses": _responses, "messages": _messages}


def said_whole(dialect, channel, text):
    """Return a whole upstream answer that says a text in a channel."""
    if dialect == "chat":
        field = {channel: text}
        if channel == "arguments":
            field = {"tool_calls": [{"type": "function", "function": {"name": "search", "arguments": text}}]}
        choice = {"index": 0, "message": {"role": "assistant"} | field, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice]}
    if dialect == "completions":
        return {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}
    if dialect == "responses":
        return _responses(channel, [text], "")[-1]["response"]
    block = {"type": "text", "text": text}
    if channel == "arguments":
        block = {"type": "tool_use", "id": "u", "name": "search", "input": {"q": text}}
    elif channel == "thinking":
        block = {"type": "thinking", "thinking": text, "signature": text}
    return {"type": "message", "role": "assistant", "content": [block], "stop_reason": "end_turn", "usage": USED}


@dataclass
class Played:
    """What a client reads of a stream."""

    events: list
    stream: Stream
    is_done: bool

    def texts(self):
        """Return what a client puts together, from pieces alone and from snapshots alone."""
        pieces, snapshots = [], []
        for one in self.events:
            for choice in one.get("choices", []):
                delta = choice.get("delta", {"text": choice.get("text", "")})
                pieces += [text for name, text in delta.items() if name not in {"role", "tool_calls"}]
                pieces += [call["function"]["arguments"] for call in delta.get("tool_calls", [])]
            if str(one.get("type", "")).endswith(".delta"):
                pieces.append(one["delta"])
            elif one.get("type") == "content_block_delta":
                pieces += [text for name, text in one["delta"].items() if name != "type"]
            elif one.get("type") == "content_block_start":
                pieces.append(one["content_block"].get("text", ""))
            elif str(one.get("type", "")).endswith(("text.done", "refusal.done", "arguments.done")):
                snapshots += [one[name] for name in ("text", "refusal", "arguments") if name in one]
        return "".join(pieces), "".join(snapshots)


def parts(dialect, request):
    """Return a reader and a writer."""
    speech = ENDPOINTS[f"POST /v1/{PATHS[dialect]}"].speech
    return speech.reader(request), speech.writer(Header("A" * 26, 5, "bot"), request)


def play(guard, dialect, objects, request=None):
    """Let a gateway read objects as the events of a stream."""
    reader, writer = parts(dialect, request or asked(dialect))
    stream, frames = Stream(guard, reader, writer, b"k" * 32), []
    for one in objects:
        name = one["type"] if dialect in {"responses", "messages"} else ""
        stream.take(Event(name, one if isinstance(one, str) else json.dumps(one)))
        frames += stream.frames()
        if stream.is_blocked:
            break
    if dialect in {"chat", "completions"}:
        stream.take(Event("", "[DONE]"))
    ended = stream.is_ended or stream.is_blocked
    tail = stream.tail("inc_1", Usage(9, stream.tally.completion_tokens())) if ended else []
    events = EventParser().feed(b"".join([*frames, *tail]))
    if dialect in {"chat", "completions"}:
        assert events.pop().data == "[DONE]"
    read = [json.loads(one.data) for one in events]
    assert all(event.name == one.get("type", "") for event, one in zip(events, read, strict=True))
    return Played(read, stream, ended)


def rebuilt(guard, dialect, answer, request=None):
    """Return what the gateway makes of a whole answer, and the tally."""
    reader, writer = parts(dialect, request or asked(dialect))
    body, tally = rebuild_whole(
        guard, reader, reader.read_whole(json.dumps(answer)), writer, "inc_1", 9, budget_key=b"k" * 32
    )
    return json.loads(body), tally
