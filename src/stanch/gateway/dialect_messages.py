"""The dialect of the Anthropic API: messages of blocks. Signatures of reasoning are left out: they cannot be read."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import ClassVar

import orjson

from stanch.crypto import parse_json
from stanch.errors import InvalidInput
from stanch.gateway.dialect import ARGUMENTS, Channel, Ending, Header, Made, Opened, Part, Taken, Usage
from stanch.gateway.fields import Fields, read_fields, unexpected
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.request_messages import MessagesRequest
from stanch.gateway.sse import Event, write_event
from stanch.guard import GuardError
from stanch.terms import JsonValue

Json = dict[str, JsonValue]
TEXT, THINKING, TOOL = "text", "thinking", "tool_use"
REFUSED = "refusal"
_MAX_BLOCKS = 128
_BLOCKS = frozenset({TEXT, THINKING, TOOL})
_REASONS = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", REFUSED, "model_context_window_exceeded"}
)
_FIELDS = {TEXT: TEXT, THINKING: THINKING, TOOL: ARGUMENTS}
DELTAS = {
    "text_delta": (TEXT, "text"),
    "thinking_delta": (THINKING, "thinking"),
    "input_json_delta": (TOOL, "partial_json"),
}
DROPPED = frozenset({"signature_delta", "citations_delta"})
STARTED, OPENED, PIECE, CLOSED, CHANGED, STOPPED = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
    "message_stop",
)  # fmt: skip
TYPES = frozenset({STARTED, OPENED, PIECE, CLOSED, CHANGED, STOPPED, "ping", "error"})


class MessagesReader:
    """Reads messages; see :class:`stanch.gateway.dialect.Reader`."""

    has_choices: ClassVar = False

    def __init__(self, request: MessagesRequest) -> None:
        self.expected: Collection[int] = ()
        self._request = request
        self._blocks: list[str] = []
        self._prompt = 0
        self._reason = ""
        self.dropped: Counter[str] = Counter()

    def read_events(self, events: Sequence[Event]) -> tuple[Taken, int]:
        """Read one event."""
        return self._read_event(events[0]), 1

    def _read_event(self, event: Event) -> Taken:
        fields, taken = read_fields(event.data, self.dropped), Taken()
        if fields.has("error"):
            raise UpstreamFailed("the model's server answered with an error")
        kind = fields.closed("type", TYPES)
        if kind is None or event.name not in {"", kind}:
            raise unexpected("$.type")
        if kind == "error":
            raise UpstreamFailed("the model's server answered with an error")
        if kind == STARTED:
            self._start(fields, taken)
        elif kind in {OPENED, PIECE, CLOSED}:
            self._read_in_block(fields, kind, taken)
        elif kind == CHANGED:
            if (delta := fields.object("delta")) is not None:
                self._read_reason(delta, taken)
                delta.close()
            self._read_usage(fields, taken)
        elif kind == STOPPED:
            taken.is_last, taken.end = True, self._reason
        fields.close()
        return taken

    def read_whole(self, data: str) -> Taken:
        """Read a whole answer."""
        fields, taken = read_fields(data, self.dropped), Taken(is_last=True)
        if fields.has("error"):
            raise UpstreamFailed("the model's server answered with an error")
        self._read_head(fields)
        for index, block in enumerate(fields.objects("content", most=_MAX_BLOCKS)):
            kind = self._open(index, block, taken)
            taken.finished[index] = CLOSED
            if kind == TOOL:
                taken.parts.append(Part(Channel(index, ARGUMENTS), _json_text(block.value("input"))))
            block.close()
        self._read_reason(fields, taken)
        taken.end = self._reason
        self._read_usage(fields, taken)
        fields.close()
        return taken

    def _start(self, fields: Fields, taken: Taken) -> None:
        message = fields.object("message")
        if message is None or self._blocks or self._reason:
            raise unexpected("$.message")
        self._read_head(message)
        message.skip("content", "stop_reason", "stop_sequence")
        self._read_usage(message, taken)
        message.close()

    @staticmethod
    def _read_head(message: Fields) -> None:
        message.closed("type", frozenset({"message"}))
        message.closed("role", frozenset({"assistant"}))
        message.skip("id", "model")

    def _read_in_block(self, fields: Fields, kind: str, taken: Taken) -> None:
        index = fields.count("index", below=_MAX_BLOCKS)
        if index is None or index > len(self._blocks) or (index == len(self._blocks)) != (kind == OPENED):
            raise unexpected("$.index")
        if kind == CLOSED:
            taken.finished[index] = CLOSED
            return
        inner = fields.object("content_block" if kind == OPENED else "delta")
        if inner is None:
            raise unexpected("$.delta")
        if kind == OPENED:
            self._open(index, inner, taken)
            inner.skip("input")  # empty: it comes in pieces
        else:
            self._read_delta(index, inner, taken)
        inner.close()

    def _open(self, index: int, block: Fields, taken: Taken) -> str:
        """Read the head of a block, and the text that it begins with or has."""
        kind = block.closed("type", _BLOCKS)
        name = block.closed("name", self._request.tool_names)
        block.skip("id", "signature")
        if kind is None or (kind == TOOL) != (name is not None):
            raise unexpected("$.content_block.type")
        self._blocks.append(kind)
        taken.opened.append(Opened(index, 0, kind, name or ""))
        if kind != TOOL and (text := block.text(kind)) is not None:
            taken.parts.append(Part(Channel(index, _FIELDS[kind]), text))
        return kind

    def _read_delta(self, index: int, delta: Fields, taken: Taken) -> None:
        kind = delta.closed("type", frozenset(DELTAS) | DROPPED)
        if kind in DROPPED:
            return
        block, field = DELTAS.get(kind or "", ("", ""))
        text = delta.text(field)
        if self._blocks[index] != block or text is None:
            raise unexpected("$.delta.type")
        taken.parts.append(Part(Channel(index, _FIELDS[block]), text))

    def _read_reason(self, fields: Fields, taken: Taken) -> None:
        """Read why the message ends; the stop sequence must be one of the request's."""
        self._reason = fields.closed("stop_reason", _REASONS) or self._reason
        stop = fields.closed("stop_sequence", frozenset(self._request.stop_sequences or ()))
        if self._reason == "stop_sequence" and stop is not None:
            self._reason = f"stop_sequence:{stop}"
        taken.end = self._reason

    def _read_usage(self, fields: Fields, taken: Taken) -> None:
        if (usage := fields.object("usage")) is None:
            return
        # What the server has read before, or keeps for the next time, it counts apart; it is the prompt all the same.
        parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        self._prompt = sum(usage.count(part) or 0 for part in parts) or self._prompt
        taken.usage = Usage(self._prompt, usage.count("output_tokens") or 0)
        usage.close()


class MessagesWriter:
    """Writes messages."""

    def __init__(self, header: Header, request: MessagesRequest) -> None:
        self._header = header
        self._request = request
        self._open: list[int] = []
        self._has_begun = False

    def frames(self, made: Made) -> list[bytes]:
        """Return the events of what was opened, released and ended."""
        frames = self._begin()
        for opened in made.opened:
            self._open.append(opened.choice)
            frames.append(_event(OPENED, {"index": opened.choice, "content_block": self._block(opened, "")}))
        for channel, text in made.texts.items():
            ((kind, name),) = [
                (kind, name) for kind, (block, name) in DELTAS.items() if _FIELDS[block] == channel.field
            ]
            frames.append(_event(PIECE, {"index": channel.choice, "delta": {"type": kind, name: text}}))
        for index in made.ended:
            self._open.remove(index)
            frames.append(_event(CLOSED, {"index": index}))
        return frames

    def tail(self, ending: Ending) -> list[bytes]:
        """Return the events that end the stream; after a block, before them, those that end what is open."""
        frames = self._begin()
        frames += [_event(CLOSED, {"index": index}) for index in self._open]
        usage: Json = {"input_tokens": ending.usage.prompt, "output_tokens": ending.usage.completion}
        body: Json = {"delta": {**_reason(ending)}, "usage": usage}
        return [*frames, _event(CHANGED, body | _incident(ending)), _event(STOPPED, {})]

    def whole(self, made: Made, ending: Ending) -> bytes:
        """Return the body of a whole answer."""
        texts = {channel.choice: text for channel, text in made.texts.items()}
        blocks: list[JsonValue] = [self._block(opened, texts.get(opened.choice, "")) for opened in made.opened]
        return orjson.dumps(self._message(blocks, ending.usage) | _reason(ending) | _incident(ending))

    def _begin(self) -> list[bytes]:
        if self._has_begun:
            return []
        self._has_begun = True
        message = self._message([], Usage(0, 0)) | {"stop_reason": None, "stop_sequence": None}
        return [_event(STARTED, {"message": message})]

    def _message(self, content: list[JsonValue], usage: Usage) -> Json:
        own = self._header
        used: Json = {"input_tokens": usage.prompt, "output_tokens": usage.completion}
        return {"id": f"msg_{own.id}", "type": "message", "role": "assistant", "model": own.model, "content": content,
                "usage": used}  # fmt: skip

    def _block(self, opened: Opened, text: str) -> Json:
        if opened.kind == TEXT:
            return {"type": TEXT, "text": text}
        if opened.kind == THINKING:
            return {"type": THINKING, "thinking": text, "signature": ""}
        own = f"toolu_{self._header.id}{opened.choice:x}"
        return {"type": TOOL, "id": own, "name": opened.name, "input": _json_value(text)}


def _json_text(value: JsonValue) -> str:
    """Return an object as JSON text, which is how the guard reads it."""
    if not isinstance(value, dict):
        raise unexpected("$.content.input")
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, or a number that is too large
        raise unexpected("$.content.input") from None


def _json_value(text: str) -> JsonValue:
    """Return the object that the released text of a call says.

    Raises:
        GuardError: Something in it was replaced, so that it is JSON no more.
    """
    if not text:
        return {}
    try:
        return parse_json(text.encode(), what="input", allow_halves=True)
    except InvalidInput:
        raise GuardError("what is left of a tool's input is not JSON") from None


def _reason(ending: Ending) -> Json:
    reason, _, sequence = (REFUSED if ending.incident else ending.end).partition(":")
    return {"stop_reason": reason, "stop_sequence": sequence or None}


def _incident(ending: Ending) -> Json:
    return {"stanch": {"incident": ending.incident}} if ending.incident else {}


def _event(kind: str, body: Json) -> bytes:
    return write_event(orjson.dumps({"type": kind} | body), kind)
