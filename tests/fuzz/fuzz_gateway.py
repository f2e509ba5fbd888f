"""Targets of the gateway: what clients ask, and what a model's server answers."""

import json
from collections import Counter
from collections.abc import Callable

from fuzz_harness import Target, text_of

from stanch.errors import InvalidInput
from stanch.gateway.dialect import Part, Reader, Taken
from stanch.gateway.dialect_messages import MessagesReader
from stanch.gateway.dialect_openai import OpenAiReader
from stanch.gateway.dialect_responses import ResponsesReader
from stanch.gateway.embedding import read_vectors
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.request import ChatRequest, CompletionRequest, EmbeddingsRequest, forwarded, read_request
from stanch.gateway.request_messages import MessagesRequest
from stanch.gateway.request_responses import ResponsesRequest
from stanch.gateway.sse import EventParser, write_event

USER = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "name": "search"}
CHAT = {
    "model": "bot", "messages": USER, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": ["a", "b"],
    "tools": [{"type": "function", "function": {"name": "search"}}],
}  # fmt: skip
COMPLETION = {"model": "bot", "prompt": "hello", "logprobs": 1, "temperature": 0.5, "seed": 7}
RESPONSES = {"model": "bot", "input": "hello", "tools": [TOOL], "max_output_tokens": 12}
MESSAGES = {"model": "bot", "messages": USER, "max_tokens": 99, "tools": [{"name": "search", "input_schema": {}}]}
EMBEDDINGS = {"model": "bot", "input": ["a", "b"], "dimensions": 2}
REFUSED, ANSWERED = (InvalidInput,), (UpstreamProtocol, UpstreamFailed)

LOGPROBS = {"content": [{"token": "h", "logprob": -0.5, "top_logprobs": [{"token": "h", "logprob": -0.5}]}]}
CHUNKS = [
    {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "h"}, "logprobs": LOGPROBS}],
    },
    {"object": "chat.completion.chunk", "choices": [{"index": 1, "delta": {"content": "he said"}}]},
    {"object": "chat.completion.chunk", "choices": [{"index": 1, "delta": {"content": "he went \u00e9"}}]},
    {
        "object": "chat.completion.chunk",
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {"index": 0, "id": "u", "type": "function", "function": {"name": "search", "arguments": "{"}}
                    ]
                },
                "finish_reason": "tool_calls",
            }
        ],
    },
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}},
]
WHOLE = {
    "object": "chat.completion",
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9},
}
TEXT = {
    "object": "text_completion",
    "choices": [
        {
            "index": 0,
            "text": "hi",
            "logprobs": {
                "tokens": ["h", "i"],
                "token_logprobs": [None, -1.5],
                "top_logprobs": [None, {"i": -1.5}],
                "text_offset": [0, 1],
            },
            "finish_reason": "stop",
        }
    ],
}
ITEM = {
    "type": "message",
    "id": "u",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hi"}],
}
RESPONSE = {
    "id": "u",
    "object": "response",
    "status": "completed",
    "output": [ITEM],
    "usage": {"input_tokens": 9, "output_tokens": 4},
}
RESPONSE_EVENTS = [
    {"type": "response.created", "response": RESPONSE},
    {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "u", "delta": "hi"},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": RESPONSE},
]
MESSAGE = {
    "id": "u",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}, {"type": "tool_use", "id": "u", "name": "search", "input": {"q": 1}}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 4},
}
MESSAGE_EVENTS = [
    {"type": "message_start", "message": MESSAGE | {"content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]
VECTORS = {
    "object": "list",
    "data": [
        {"object": "embedding", "index": 0, "embedding": [0.5, -1]},
        {"object": "embedding", "index": 1, "embedding": "AAAAAAAAgD8="},
    ],
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}


def _bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def _asked(name: str, kind: type, body: dict[str, object]) -> Target:
    def run(data: bytes) -> object:
        request = read_request(data, kind)
        again = read_request(forwarded(request, request.model), kind)
        assert again == request.sent_as(request.model), "what is forwarded reads as another request"
        return again

    return Target(
        name=f"ask-{name}", parser="stanch.gateway.request.read_request", reads=f"a request: {name}", kind="plain",
        run=run, refuses=REFUSED, make=lambda: [_bytes(body)],
    )  # fmt: skip


def _events(data: bytes) -> object:
    """Parse a stream whole, and again in pieces; both say the same."""
    events = EventParser().feed(data)
    for size in (1, 3):
        parser, again = EventParser(), []
        for at in range(0, len(data), size):
            again += parser.feed(data[at : at + size])
        assert again == events, "cut in pieces, a stream has other events"
    return events


def _stream(*objects: dict[str, object]) -> bytes:
    return b"".join(write_event(_bytes(one), str(one.get("type", ""))) for one in objects)


def _answered(
    name: str, make: Callable[[], Reader], events: list[dict[str, object]], whole: dict[str, object]
) -> tuple[Target, Target]:
    def read_stream(data: bytes) -> object:
        reader, events, count = make(), EventParser().feed(data), 0
        while events:
            taken, read = reader.read_events(events)
            parts = [taken] if isinstance(taken, Part) else taken.parts
            if isinstance(reader, OpenAiReader) and (isinstance(taken, Part) or _is_text(taken)):
                # What is read by its likeness to an event before says what strict reading says.
                alone = [make().read_events([event])[0] for event in events[:read]]
                texts = [part.text for one in alone for part in ([one] if isinstance(one, Part) else one.parts)]
                assert "".join(texts) == "".join(part.text for part in parts), "events say something else read alone"
            events, count = events[read:], count + 1
        return count

    def read_whole(data: bytes) -> object:
        return len(make().read_whole(data.decode("utf-8", "replace")).parts)

    return (
        Target(name=f"stream-{name}", parser="stanch.gateway.dialect.Reader.read_events",
               reads=f"a server's stream: {name}", kind="plain", run=read_stream, refuses=ANSWERED,
               make=lambda: [_stream(*events)]),
        Target(name=f"answer-{name}", parser="stanch.gateway.dialect.Reader.read_whole",
               reads=f"a server's answer: {name}", kind="plain", run=read_whole, refuses=ANSWERED,
               make=lambda: [_bytes(whole)]),
    )  # fmt: skip


def _is_text(taken: Taken) -> bool:
    """Tell whether an event has text alone: calls of tools depend on the events before."""
    return bool(taken.parts) and not taken.opened and all(part.channel.field != "arguments" for part in taken.parts)


def _chat() -> OpenAiReader:
    return OpenAiReader(read_request(_bytes(CHAT), ChatRequest), is_chat=True)


def _completions() -> OpenAiReader:
    return OpenAiReader(read_request(_bytes(COMPLETION), CompletionRequest), is_chat=False)


def _responses() -> ResponsesReader:
    return ResponsesReader(read_request(_bytes(RESPONSES), ResponsesRequest))


def _messages() -> MessagesReader:
    return MessagesReader(read_request(_bytes(MESSAGES), MessagesRequest))


TARGETS = (
    _asked("chat", ChatRequest, CHAT),
    _asked("completion", CompletionRequest, COMPLETION),
    _asked("responses", ResponsesRequest, RESPONSES),
    _asked("messages", MessagesRequest, MESSAGES),
    _asked("embeddings", EmbeddingsRequest, EMBEDDINGS),
    Target(name="events", parser="stanch.gateway.sse.EventParser", reads="an event stream", kind="plain", run=_events,
           refuses=ANSWERED,
           make=lambda: [_stream(*CHUNKS), b"\xef\xbb\xbf: hi\r\ndata: a\r\ndata: b\r\revent: x\ndata\n\n"]),
    *_answered("chat", _chat, CHUNKS, WHOLE),
    *_answered("completions", _completions, [TEXT, TEXT], TEXT),
    *_answered("responses", _responses, RESPONSE_EVENTS, RESPONSE),
    *_answered("messages", _messages, MESSAGE_EVENTS, MESSAGE),
    Target(name="vectors", parser="stanch.gateway.embedding.read_vectors", reads="a server's embeddings", kind="plain",
           refuses=ANSWERED, run=lambda data: read_vectors(text_of(data), (2, 2), Counter())[0].tolist(),
           make=lambda: [_bytes(VECTORS)]),
)  # fmt: skip
