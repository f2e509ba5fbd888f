"""The dialect of ``/v1/responses``: items with parts, and snapshots that are written again from what was released."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec
import orjson

from stanch.gateway.dialect import ARGUMENTS, Channel, Ending, Header, Made, Opened, Part, Taken, Usage
from stanch.gateway.fields import Fields, read_fields, unexpected
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.request_responses import ResponsesRequest
from stanch.gateway.sse import Event, write_event
from stanch.terms import JsonValue

Json = dict[str, JsonValue]
MESSAGE, REASONING, CALL = "message", "reasoning", "function_call"
_MAX_ITEMS, _MAX_PARTS = 128, 256
_ENDS = frozenset({"completed", "incomplete"})
_WHY = frozenset({"max_output_tokens", "content_filter"})
_STATUSES = frozenset({"in_progress", "completed", "incomplete"})


@dataclass(frozen=True, slots=True)
class PartKind:
    """A kind of text in an item.

    Attributes:
        item: The kind of the item.
        event: The events of the text have this name, and ``.delta`` or ``.done`` behind it.
        part: The events of the part as a whole, likewise with ``.added`` or ``.done``.
        index: What the place in the item is called.
        holder: The list that the part stands in.
        text: The field of the part that holds the text.
    """

    item: str
    event: str
    part: str
    index: str
    holder: str
    text: str = "text"


PARTS = {
    "output_text": PartKind(MESSAGE, "response.output_text", "response.content_part", "content_index", "content"),
    "refusal": PartKind(MESSAGE, "response.refusal", "response.content_part", "content_index", "content", "refusal"),
    "reasoning_text": PartKind(
        REASONING, "response.reasoning_text", "response.content_part", "content_index", "content"
    ),
    "summary_text": PartKind(
        REASONING, "response.reasoning_summary_text", "response.reasoning_summary_part", "summary_index", "summary"
    ),
}
ARGUMENTS_EVENT = "response.function_call_arguments"
DELTAS = {f"{kind.event}.delta": name for name, kind in PARTS.items()} | {f"{ARGUMENTS_EVENT}.delta": ARGUMENTS}
SNAPSHOTS = frozenset(
    {"response.created", "response.in_progress", "response.reasoning_part.added", "response.reasoning_part.done"}
    | {"response.output_text.annotation.added", f"{ARGUMENTS_EVENT}.done"}
    | {f"{kind.event}.done" for kind in PARTS.values()}
    | {f"{kind.part}.{end}" for kind in PARTS.values() for end in ("added", "done")}
)
"""Events that repeat what was streamed, or announce what is written here when its text is released."""
ITEM_ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"
LASTS = frozenset({"response.completed", "response.incomplete"})
FAILURES = frozenset({"response.failed", "error"})
TYPES = frozenset(DELTAS) | SNAPSHOTS | LASTS | FAILURES | {ITEM_ADDED, ITEM_DONE}


class ResponsesReader:
    """Reads responses; see :class:`stanch.gateway.dialect.Reader`."""

    has_choices: ClassVar = False

    def __init__(self, request: ResponsesRequest) -> None:
        self.expected: Collection[int] = ()
        self._request = request
        self._items: list[str] = []
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
        if kind in FAILURES:
            raise UpstreamFailed("the model's server answered with an error")
        fields.skip("sequence_number", "item_id")
        if kind in SNAPSHOTS:
            return taken
        if kind in LASTS:
            self._read_last(fields, kind, taken)
        elif kind == ITEM_ADDED:
            self._open(fields, taken)
        else:
            self._read_in_item(fields, kind, taken)
        fields.close()
        return taken

    def read_whole(self, data: str) -> Taken:
        """Read a whole answer."""
        fields, taken = read_fields(data, self.dropped), Taken(is_last=True)
        for index, item in enumerate(fields.objects("output", most=_MAX_ITEMS)):
            self._read_item(index, item, taken)
        self._read_response(fields, taken)
        return taken

    def _open(self, fields: Fields, taken: Taken) -> None:
        index, item = fields.count("output_index", below=_MAX_ITEMS), fields.object("item")
        if index != len(self._items) or item is None:
            raise unexpected("$.output_index")
        taken.opened.append(self._read_head(index, item))
        item.skip("content", "summary", "arguments")
        item.close()

    def _read_head(self, index: int, item: Fields) -> Opened:
        """Read what an item is; its texts are read elsewhere."""
        kind = item.closed("type", frozenset({MESSAGE, REASONING, CALL}))
        item.closed("role", frozenset({"assistant"}))
        item.closed("status", _STATUSES)
        item.skip("id", "call_id")
        name = item.closed("name", self._request.tool_names)
        if kind is None or (kind == CALL) != (name is not None):
            raise unexpected("$.output.type")
        self._items.append(kind)
        return Opened(index, 0, kind, name or "")

    def _read_in_item(self, fields: Fields, kind: str, taken: Taken) -> None:
        index = fields.count("output_index", below=_MAX_ITEMS)
        if index is None or index >= len(self._items):
            raise unexpected("$.output_index")
        if kind == ITEM_DONE:
            fields.skip("item")
            taken.finished[index] = "completed"
            return
        name = DELTAS[kind]
        of_item, at = (CALL, "") if name == ARGUMENTS else (PARTS[name].item, PARTS[name].index)
        part = fields.count(at, below=_MAX_PARTS) if at else 0
        text = fields.text("delta")
        if self._items[index] != of_item or part is None or text is None:
            raise unexpected("$.delta")
        taken.parts.append(Part(Channel(index, name, part), text))

    def _read_item(self, index: int, item: Fields, taken: Taken) -> None:
        opened = self._read_head(index, item)
        taken.opened.append(opened)
        taken.finished[index] = "completed"
        for holder in ("content", "summary"):
            kinds = frozenset(name for name, kind in PARTS.items() if (kind.item, kind.holder) == (opened.kind, holder))
            for at, part in enumerate(item.objects(holder, most=_MAX_PARTS)):
                name = part.closed("type", kinds)
                text = None if name is None else part.text(PARTS[name].text)
                if name is None or text is None:
                    raise unexpected("$.output.content")
                taken.parts.append(Part(Channel(index, name, at), text))
                part.close()
        if opened.kind == CALL and (text := item.text("arguments")) is not None:
            taken.parts.append(Part(Channel(index, ARGUMENTS), text))
        item.close()

    def _read_last(self, fields: Fields, kind: str, taken: Taken) -> None:
        taken.is_last = True
        response = fields.object("response")
        if response is None:
            raise unexpected("$.response")
        response.skip("output")  # a snapshot of all that was streamed
        self._read_response(response, taken)
        if f"response.{taken.end.partition(':')[0]}" != kind:
            raise unexpected("$.response.status")

    @staticmethod
    def _read_response(response: Fields, taken: Taken) -> None:
        if response.has("error"):
            raise UpstreamFailed("the model's server answered with an error")
        response.closed("object", frozenset({"response"}))
        response.skip("id", "created_at", "model")
        status, why = response.closed("status", _ENDS), None
        if (details := response.object("incomplete_details")) is not None:
            why = details.closed("reason", _WHY)
            details.close()
        if status is None or (status == "incomplete") != (why is not None):
            raise unexpected("$.status")
        taken.end = status if why is None else f"{status}:{why}"
        if (usage := response.object("usage")) is not None:
            prompt, completion = usage.count("input_tokens"), usage.count("output_tokens")
            usage.count("total_tokens")
            usage.close()
            taken.usage = Usage(prompt or 0, completion or 0)
        response.close()


@dataclass(slots=True)
class _Item:
    """An item that was opened, and what of it was released: channels in the order of their first text."""

    opened: Opened
    texts: dict[Channel, str] = field(default_factory=dict, repr=False)
    status: str = "in_progress"

    def place(self, channel: Channel) -> int:
        """Return where a part stands among those of the same list that were released."""
        holder = PARTS[channel.field].holder
        return [known for known in self.texts if PARTS[known.field].holder == holder].index(channel)


class ResponsesWriter:
    """Writes responses."""

    def __init__(self, header: Header, request: ResponsesRequest) -> None:
        self._header = header
        self._request = request
        self._items: dict[int, _Item] = {}
        self._number = -1

    def frames(self, made: Made) -> list[bytes]:
        """Return the events of what was opened, released and ended."""
        frames = self._begin()
        for opened in made.opened:
            self._items[opened.choice] = item = _Item(opened)
            place: Json = {"output_index": opened.choice}
            frames.append(self._event(ITEM_ADDED, place | {"item": self._item(item)}))
        for channel, text in made.texts.items():
            frames += self._release(self._items[channel.choice], channel, text)
        for index in made.ended:
            frames += self._finish(self._items[index], "completed")
        return frames

    def tail(self, ending: Ending) -> list[bytes]:
        """Return the event that ends the stream; after a block, before it, those that end what is open."""
        frames = self._begin()
        for item in self._items.values():
            if item.status == "in_progress":
                frames += self._finish(item, "incomplete")
        status, _, why = _end(ending).partition(":")
        body: Json = {"response": self._response(status, why, ending.usage), **_incident(ending)}
        return [*frames, self._event(f"response.{status}", body)]

    def whole(self, made: Made, ending: Ending) -> bytes:
        """Return the body of a whole answer."""
        for opened in made.opened:
            self._items[opened.choice] = _Item(opened, made.of(opened.choice), "completed")
        status, _, why = _end(ending).partition(":")
        return orjson.dumps(self._response(status, why, ending.usage) | _incident(ending))

    def _begin(self) -> list[bytes]:
        if self._number >= 0:
            return []
        body: Json = {"response": self._response("in_progress", "", None)}
        return [self._event("response.created", body), self._event("response.in_progress", body)]

    def _release(self, item: _Item, channel: Channel, text: str) -> list[bytes]:
        is_new = channel not in item.texts
        item.texts[channel] = item.texts.get(channel, "") + text
        if channel.field == ARGUMENTS:
            return [self._event(f"{ARGUMENTS_EVENT}.delta", self._at(item) | {"delta": text})]
        kind, place = PARTS[channel.field], self._at(item, channel)
        frames = []
        if is_new:
            frames.append(self._event(f"{kind.part}.added", place | {"part": _part(channel, "")}))
        logprobs: Json = {"logprobs": []} if channel.field == "output_text" else {}
        return [*frames, self._event(f"{kind.event}.delta", place | {"delta": text} | logprobs)]

    def _finish(self, item: _Item, status: str) -> list[bytes]:
        """Return the snapshots that end an item, all of released text."""
        frames: list[bytes] = []
        item.status = status
        for channel, text in item.texts.items():
            if channel.field == ARGUMENTS:
                more: Json = {"arguments": text, "name": item.opened.name}
                frames.append(self._event(f"{ARGUMENTS_EVENT}.done", self._at(item) | more))
                continue
            kind, place = PARTS[channel.field], self._at(item, channel)
            logprobs: Json = {"logprobs": []} if channel.field == "output_text" else {}
            frames.append(self._event(f"{kind.event}.done", place | {kind.text: text} | logprobs))
            frames.append(self._event(f"{kind.part}.done", place | {"part": _part(channel, text)}))
        done: Json = {"output_index": item.opened.choice, "item": self._item(item)}
        return [*frames, self._event(ITEM_DONE, done)]

    def _at(self, item: _Item, channel: Channel | None = None) -> Json:
        place: Json = {"item_id": self._id(item.opened), "output_index": item.opened.choice}
        return place | ({PARTS[channel.field].index: item.place(channel)} if channel is not None else {})

    def _item(self, item: _Item) -> Json:
        opened = item.opened
        head: Json = {"id": self._id(opened), "type": opened.kind, "status": item.status}
        if opened.kind == CALL:
            call = f"call_{self._header.id}{opened.choice:x}"
            text = item.texts.get(Channel(opened.choice, ARGUMENTS), "")
            return head | {"call_id": call, "name": opened.name, "arguments": text}
        lists: dict[str, list[JsonValue]] = {"content": [], "summary": []}
        for channel, text in item.texts.items():
            lists[PARTS[channel.field].holder].append(_part(channel, text))
        if opened.kind == MESSAGE:
            return head | {"role": "assistant", "content": lists["content"]}
        return head | {**lists}

    def _id(self, opened: Opened) -> str:
        prefix = {MESSAGE: "msg", REASONING: "rs", CALL: "fc"}[opened.kind]
        return f"{prefix}_{self._header.id}{opened.choice:x}"

    def _response(self, status: str, why: str, usage: Usage | None) -> Json:
        own, asked = self._header, self._request
        output: list[JsonValue] = []
        if status != "in_progress":
            output = [self._item(item) for _, item in sorted(self._items.items())]
        return {
            "id": f"resp_{own.id}", "object": "response", "created_at": own.created, "status": status,
            "model": own.model, "output": output, "error": None,
            "incomplete_details": {"reason": why} if why else None, "store": False,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "tool_choice": msgspec.to_builtins(asked.tool_choice or "auto"),
            "tools": msgspec.to_builtins(asked.tools or []), "usage": _written(usage),
        }  # fmt: skip

    def _event(self, kind: str, body: Json) -> bytes:
        self._number += 1
        return write_event(orjson.dumps({"type": kind, "sequence_number": self._number} | body), kind)


def _part(channel: Channel, text: str) -> Json:
    part: Json = {"type": channel.field, PARTS[channel.field].text: text}
    return part | ({"annotations": [], "logprobs": []} if channel.field == "output_text" else {})


def _written(usage: Usage | None) -> JsonValue:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": usage.prompt + usage.completion,
    }  # fmt: skip


def _end(ending: Ending) -> str:
    return "incomplete:content_filter" if ending.incident else ending.end


def _incident(ending: Ending) -> Json:
    return {"stanch": {"incident": ending.incident}} if ending.incident else {}
