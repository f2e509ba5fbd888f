"""A model's server that says what it is told to, wherever it is told to: the upstream of the conformance run."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias

from stanch.errors import InvalidInput
from stanch.guard.matrix import ARGUMENTS, MOST_PLACES, WHOLE, Dialect, Row

Json: TypeAlias = dict[str, Any]

TOOL = "note"
_MAX_REQUEST = 1 << 20
_USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
_USED = {"input_tokens": 3, "output_tokens": 9}
_USED_RESPONSE = _USED | {"total_tokens": 12}
PATHS: dict[Dialect, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What the server answers next: a text in a place, in one piece or in frames of so many characters."""

    row: Row
    text: str = field(repr=False)
    stream: bool
    chunk: int

    @property
    def channel(self) -> str:
        """The text as the channel carries it: the arguments of a tool are JSON text."""
        # Escapes that the model wrote are the JSON text's own.
        return json.dumps({"text": self.text}).replace(r"\\u", r"\u") if self.row.name == ARGUMENTS else self.text

    def pieces(self) -> list[str]:
        """Return the frames' texts, or those of the places that the text is spread over."""
        text, size = self.channel, self.chunk
        if self.row.spread:
            size = max(size, -(-len(text) // (MOST_PLACES if size != WHOLE else 2)))
        return [text[at : at + size] for at in range(0, len(text), size)] if size != WHOLE else [text]

    def places(self) -> list[str]:
        """Return the texts of the places; one, unless it is spread."""
        return self.pieces() if self.row.spread else [self.text]


def request_body(row: Row, model: str, *, stream: bool) -> Json:
    """Return a request that makes a place of an answer possible."""
    body: Json = {"model": model, "stream": stream}
    asked = [{"role": "user", "content": "Say it."}]
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    is_call = row.name in {ARGUMENTS, "tool name"}
    if row.dialect == "completions":
        return body | {"prompt": "Say it.", "max_tokens": 2000}
    if row.dialect == "responses":
        tools: list[Json] = [{"type": "function", "name": TOOL, "parameters": schema, "strict": False}]
        return body | {"input": "Say it.", "store": False} | ({"tools": tools} if is_call else {})
    if row.dialect == "messages":
        tools = [{"name": TOOL, "input_schema": schema}]
        return body | {"messages": asked, "max_tokens": 2000} | ({"tools": tools} if is_call else {})
    tools = [{"type": "function", "function": {"name": TOOL, "parameters": schema}}]
    return body | {"messages": asked} | ({"tools": tools} if is_call else {})


def answer(said: Said) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of what the server says."""
    headers = {"Content-Type": "text/event-stream" if said.stream else "application/json"}
    if said.row.name == "header":
        headers["X-Note"] = " ".join(said.text.split()).encode().decode("latin-1")
    if said.row.name == "error body":
        body = {"error": {"message": said.text, "type": said.text, "code": "bad"}}
        return 500, headers | {"Content-Type": "application/json"}, json.dumps(body).encode()
    whole, streamed = _DIALECTS[said.row.dialect]
    return 200, headers, streamed(said) if said.stream else json.dumps(whole(said)).encode()


def _event(value: Json, *, named: bool = False) -> bytes:
    return (f"event: {value['type']}\n" if named else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def _call(name: str, arguments: str) -> Json:
    return {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _message(said: Said, text: str, *others: str) -> Json:
    """Return the part of a chat message that carries a text, or the texts of several parts."""
    name = said.row.name
    if name == ARGUMENTS:
        return {"tool_calls": [_call(TOOL, text)]}
    if name == "tool name":
        return {"tool_calls": [_call(text, "{}")]}
    if name == "unknown field":
        return {"content": "ok", "annotations": [{"note": text}]}
    if said.row.spread:
        return {name: [{"type": "text", "text": part} for part in (text, *others)]}
    return {name: text} if said.row.is_channel else {"content": "ok"}


def _logprobs(said: Said, text: str) -> Json:
    entry = {"token": text, "logprob": -0.1, "bytes": list(text.encode()), "top_logprobs": []}
    return {"logprobs": {"content": [entry]}} if said.row.name.startswith("log-") else {}


def _chat(said: Said) -> Json:
    message = {"role": "assistant", "content": None} | _message(
        said, *(said.places() if said.row.spread else [said.channel])
    )
    finish = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish} | _logprobs(said, said.channel)
    more = {"note": said.text} if said.row.name == "unknown field" else {}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": _USAGE, **more}  # fmt: skip


def _chat_stream(said: Said) -> bytes:
    def chunk(delta: Json, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish} | more
        return _event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                       "choices": [choice]})  # fmt: skip

    if said.row.name == "comment":
        note = "".join(f": {line}\n" for line in said.text.splitlines()).encode()
        return chunk({"content": "ok"}) + note + b"\n" + chunk({}, "stop") + b"data: [DONE]\n\n"
    if said.row.name == "error event":
        return chunk({"content": "ok"}) + _event({"error": {"message": said.text, "type": "bad", "code": said.text}})
    out = chunk({"role": "assistant"})
    if said.row.name == ARGUMENTS:
        out += chunk({"tool_calls": [_call(TOOL, "")]})
        for piece in said.pieces():
            out += chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        for piece in said.pieces() if said.row.name != "tool name" else [said.text]:
            out += chunk(_message(said, piece), **_logprobs(said, piece))
    is_call = said.row.name in {ARGUMENTS, "tool name"}
    return out + chunk({}, "tool_calls" if is_call else "stop") + b"data: [DONE]\n\n"


def _completion(said: Said) -> Json:
    choice = {"index": 0, "text": said.text, "logprobs": None, "finish_reason": "stop"}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice],
            "usage": _USAGE}  # fmt: skip


def _completion_stream(said: Said) -> bytes:
    frames = [_completion(said) | {"choices": [{"index": 0, "text": piece, "logprobs": None, "finish_reason": None}]}
              for piece in said.pieces()]  # fmt: skip
    frames.append(
        _completion(said) | {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    )
    return b"".join(map(_event, frames)) + b"data: [DONE]\n\n"


_PARTS: dict[str, tuple[str, Json, str]] = {
    "output_text": ("content_part", {"type": "output_text", "text": "", "annotations": []}, "text"),
    "refusal": ("content_part", {"type": "refusal", "refusal": ""}, "refusal"),
    "reasoning_text": ("content_part", {"type": "reasoning_text", "text": ""}, "text"),
    "reasoning_summary_text": ("reasoning_summary_part", {"type": "summary_text", "text": ""}, "text"),
}


def _spread(said: Said) -> list[list[str]]:
    """Return the texts of the parts of each output item."""
    return [[place] for place in said.places()] if said.row.spread == "items" else [said.places()]


def _item(said: Said, at: int, *, full: bool) -> Json:
    """Return an output item of a response that carries the text, or the empty one that a stream begins with."""
    name, status = said.row.name, "completed" if full else "in_progress"
    if name == ARGUMENTS:
        return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TOOL, "status": status,
                "arguments": said.channel if full else ""}  # fmt: skip
    parts = [_PARTS[name][1] | {_PARTS[name][2]: text} for text in _spread(said)[at]] if full else []
    if name.startswith("reasoning"):
        is_summary = name == "reasoning_summary_text"
        return {"type": "reasoning", "id": f"rs_{at}", "summary": parts if is_summary else []} | (
            {} if is_summary else {"content": parts}
        )
    return {"type": "message", "id": f"msg_{at}", "role": "assistant", "status": status, "content": parts}


def _response(said: Said, *, full: bool = True) -> Json:
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed" if full else
        "in_progress", "output": [_item(said, at, full=True) for at in range(len(_spread(said)))] if full else [],
        "parallel_tool_calls": True, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
        "tool_choice": "auto", "tools": [], "usage": _USED_RESPONSE if full else None,
    }  # fmt: skip


def _response_stream(said: Said) -> bytes:
    events: list[Json] = [
        {"type": "response.created", "response": _response(said, full=False)},
        {"type": "response.in_progress", "response": _response(said, full=False)},
    ]
    for at, texts in enumerate(_spread(said)):
        item = _item(said, at, full=True)
        events.append({"type": "response.output_item.added", "output_index": at, "item": _item(said, at, full=False)})
        place: Json = {"output_index": at, "item_id": item["id"]}
        if said.row.name == ARGUMENTS:
            kind = "response.function_call_arguments"
            events += [{"type": f"{kind}.delta", **place, "delta": piece} for piece in said.pieces()]
            events.append({"type": f"{kind}.done", **place, "arguments": said.channel})
        else:
            for number, text in enumerate(texts):
                events += _part_events(said, place, number, text)
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": "response.completed", "response": _response(said)})
    return b"".join(_event(one | {"sequence_number": at}, named=True) for at, one in enumerate(events))


def _part_events(said: Said, item: Json, number: int, text: str) -> list[Json]:
    """Return the events of one part of an item."""
    name = said.row.name
    holder, part, key = _PARTS[name]
    place = item | {"summary_index" if name == "reasoning_summary_text" else "content_index": number}
    deltas = [text] if said.row.spread else said.pieces()
    return [
        {"type": f"response.{holder}.added", **place, "part": part},
        *({"type": f"response.{name}.delta", **place, "delta": piece} for piece in deltas),
        {"type": f"response.{name}.done", **place, key: text},
        {"type": f"response.{holder}.done", **place, "part": part | {key: text}},
    ]


def _block(said: Said, text: str) -> Json:
    """Return a content block of a message that carries a text, or the empty one that a stream begins with."""
    if said.row.name == ARGUMENTS:
        return {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": json.loads(text or "{}")}
    return {"type": said.row.name, said.row.name: text} | ({"signature": ""} if said.row.name == "thinking" else {})


def _blocks(said: Said) -> list[str]:
    return [said.channel] if said.row.name == ARGUMENTS else said.places()


def _anthropic(said: Said) -> Json:
    reason = "tool_use" if said.row.name == ARGUMENTS else "end_turn"
    content = [_block(said, text) for text in _blocks(said)]
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": _USED}  # fmt: skip


def _anthropic_stream(said: Said) -> bytes:
    kind, key = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking"),
                 ARGUMENTS: ("input_json_delta", "partial_json")}[said.row.name]  # fmt: skip
    whole = _anthropic(said)
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events: list[Json] = [{"type": "message_start", "message": whole | {"content": [], "stop_reason": None}}]
    for at, text in enumerate(_blocks(said)):
        events.append({"type": "content_block_start", "index": at, "content_block": _block(said, "")})
        deltas = [text] if said.row.spread else said.pieces()
        events += [{"type": "content_block_delta", "index": at, "delta": {"type": kind, key: text}} for text in deltas]
        events.append({"type": "content_block_stop", "index": at})
    events += [{"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]
    return b"".join(_event(one, named=True) for one in events)


_DIALECTS: dict[Dialect, tuple[Callable[[Said], Json], Callable[[Said], bytes]]] = {
    "chat": (_chat, _chat_stream),
    "completions": (_completion, _completion_stream),
    "responses": (_response, _response_stream),
    "messages": (_anthropic, _anthropic_stream),
}


class _Quiet(ThreadingHTTPServer):
    """A server that says nothing of clients that leave: a guard that ends an answer does."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Keep silent: the output belongs to the report."""


class LeakingServer:
    """Listens until the block ends, and answers every request with :attr:`said`.

    Attributes:
        said: What it says next.
        asked: How many requests came.
    """

    def __init__(self, host: str, port: int) -> None:
        self.said: Said | None = None
        self.asked = 0
        try:
            self._server = _Quiet((host, port), self._handler())
        except OSError as error:
            raise InvalidInput(f"{host}:{port}: cannot listen there", why=error.strerror or "") from error
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = min(int(self.headers.get("Content-Length") or 0), _MAX_REQUEST)
                self.rfile.read(size)
                outer.asked += 1
                assert outer.said is not None  # noqa: S101 - set before anything is asked
                status, headers, body = answer(outer.said)
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep silent: the output belongs to the report."""

        return Handler
