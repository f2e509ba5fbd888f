"""The two older dialects of the OpenAI API: chat completions and completions."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar

import orjson

from stanch.gateway.dialect import ARGUMENTS, Channel, Ending, Entry, Header, Made, Opened, Part, Taken, Usage
from stanch.gateway.fields import Fields, read_fields, unexpected
from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol
from stanch.gateway.repeated import RepeatedEvent
from stanch.gateway.request import GenerateRequest
from stanch.gateway.sse import DONE, Event, write_event
from stanch.terms import JsonValue

FILTERED = "content_filter"
CONTENT, TEXT = "content", "text"
_FINISHES = {one: one for one in ("stop", "length", "tool_calls", "function_call", FILTERED)}
_FINISHES |= {"eos_token": "stop", "stop_sequence": "stop"}  # as text-generation-inference says it
_TEXT_KIND = "text_completion"
_ROLES = frozenset({"assistant"})
_TEXTS = ("reasoning_content", "reasoning", "refusal")
_MAX_CALLS = 128
_MAX_TOKENS = 1 << 17
_MAX_ALTERNATIVES = 32
Json = dict[str, JsonValue]


class OpenAiReader:
    """Reads chat completions, or completions; see :class:`stanch.gateway.dialect.Reader`."""

    has_choices: ClassVar = True

    def __init__(self, request: GenerateRequest, *, is_chat: bool) -> None:
        self.expected: Collection[int] = range(request.choices)
        self._request = request
        self._is_chat = is_chat
        self._called: dict[tuple[int, int], str] = {}
        self._repeated = RepeatedEvent()
        self.dropped: Counter[str] = Counter()

    def read_events(self, events: Sequence[Event]) -> tuple[Taken | Part, int]:
        """Read one event, or several that only go on one text."""
        part, count = self._repeated.read(events)
        return (part, count) if part is not None else (self._read_event(events[0]), 1)

    def _read_event(self, event: Event) -> Taken:
        if event.name not in {"", "message"}:
            raise UpstreamProtocol("the model's server sent an event of another kind")
        if event.data == "[DONE]":
            return Taken(is_last=True)
        dropped = self.dropped.total()
        taken = self._read(event.data, "chat.completion.chunk", "delta")
        if (only := taken.only_part) is not None and self.dropped.total() == dropped:
            self._repeated.learn(event, only)
        return taken

    def read_whole(self, data: str) -> Taken:
        """Read a whole answer."""
        return self._read(data, "chat.completion", "message")

    def _read(self, data: str, kind: str, holder: str) -> Taken:
        fields, taken = read_fields(data, self.dropped), Taken()
        if fields.has("error"):
            raise UpstreamFailed("the model's server answered with an error")
        # text-generation-inference calls a chat by the other name, too.
        fields.closed("object", frozenset({kind, _TEXT_KIND} if self._is_chat else {_TEXT_KIND}))
        fields.skip("id", "created", "model", "system_fingerprint")
        for choice in fields.objects("choices", most=self._request.choices):
            self._read_choice(choice, holder, taken)
        if (usage := fields.object("usage")) is not None:
            taken.usage = _usage(usage)
        fields.close()
        return taken

    def _read_choice(self, choice: Fields, holder: str, taken: Taken) -> None:
        index = choice.count("index", below=self._request.choices) or 0
        if self._is_chat:
            if (message := choice.object(holder)) is not None:
                taken.parts += self._read_message(index, message, taken)
        elif (text := choice.text("text")) is not None:
            taken.parts.append(Part(Channel(index, TEXT), text))
        if (finish := choice.closed("finish_reason", frozenset(_FINISHES))) is not None:
            taken.finished[index] = _FINISHES[finish]
        most = self._request.alternatives
        if most is not None:
            entries = taken.entries.setdefault(Channel(index, CONTENT if self._is_chat else TEXT), [])
            if (logprobs := choice.object("logprobs")) is not None:
                read = self._read_entries if self._is_chat else self._read_columns
                entries += read(logprobs, most)
                logprobs.close()
        choice.close()

    def _read_message(self, index: int, message: Fields, taken: Taken) -> Iterator[Part]:
        message.closed("role", _ROLES)
        for name in _TEXTS:
            if (text := message.text(name)) is not None:
                yield Part(Channel(index, name), text)
        if (text := message.text_or_parts(CONTENT)) is not None:
            yield Part(Channel(index, CONTENT), text)
        for position, call in enumerate(message.objects("tool_calls", most=_MAX_CALLS)):
            yield from self._read_call(index, position, call, taken)
        message.close()

    def _read_call(self, index: int, position: int, call: Fields, taken: Taken) -> Iterator[Part]:
        number = call.count("index", below=_MAX_CALLS)
        number = position if number is None else number
        call.closed("type", frozenset({"function"}))
        call.skip("id")
        if (function := call.object("function")) is not None:
            if (name := function.closed("name", self._request.tool_names)) is not None:
                if self._called.setdefault((index, number), name) != name:
                    raise unexpected("$.choices.tool_calls.function.name")
                if not any(known[:2] == (index, number) for known in taken.opened):
                    taken.opened.append(Opened(index, number, "function", name))
            if (text := function.text("arguments")) is not None:
                if (index, number) not in self._called:
                    raise unexpected("$.choices.tool_calls.function.name")
                yield Part(Channel(index, ARGUMENTS, number), text)
            function.close()
        call.close()

    def _read_entries(self, logprobs: Fields, most: int) -> Iterator[Entry]:
        """Read the list of chat; ``bytes`` and token ids are left out, and so is what stands for a refusal."""
        for item in logprobs.objects(CONTENT, most=_MAX_TOKENS):
            others = list(item.objects("top_logprobs", most=_MAX_ALTERNATIVES))
            entry, alternatives = _entry(item), [_entry(other) for other in others]
            for one in (item, *others):
                one.close()
            yield Entry(*entry, tuple(alternatives[:most]))

    def _read_columns(self, logprobs: Fields, most: int) -> Iterator[Entry]:
        """Read the columns of completions; a token without a number is left out by the gate, since it has none."""
        tokens = logprobs.texts("tokens", most=_MAX_TOKENS)
        numbers = logprobs.numbers("token_logprobs", most=_MAX_TOKENS)
        tables = logprobs.tables("top_logprobs", most=_MAX_TOKENS) or [{} for _ in tokens]
        logprobs.skip("text_offset")
        if not len(tokens) == len(numbers) == len(tables):
            raise unexpected("$.choices.logprobs")
        for token, number, table in zip(tokens, numbers, tables, strict=True):
            best = sorted(table.items(), key=lambda item: -item[1])[:most]
            yield Entry(token, float("nan") if number is None else number, tuple(best))


class ChatWriter:
    """Writes chat completions."""

    def __init__(self, header: Header, request: GenerateRequest) -> None:
        self._header = header
        self._request = request
        self._begun: set[int] = set()
        self._around: dict[Channel, tuple[bytes, bytes]] = {}

    def frames(self, made: Made) -> list[bytes]:
        """Return at most one frame for each choice."""
        if len(made.texts) == 1 and not made.opened and not made.entries:
            ((channel, text),) = made.texts.items()
            if channel.field != ARGUMENTS and channel.choice in self._begun:
                return [self._text_frame(channel, text)]
        deltas: dict[int, Json] = {}
        calls: dict[int, list[JsonValue]] = {}
        for opened in made.opened:
            calls.setdefault(opened.choice, []).append({"index": opened.call} | self._call(opened, ""))
        for channel, text in made.texts.items():
            if channel.field == ARGUMENTS:
                call: Json = {"index": channel.call, "function": {"arguments": text}}
                calls.setdefault(channel.choice, []).append(call)
            else:
                deltas.setdefault(channel.choice, {})[channel.field] = text
        for choice, made_calls in calls.items():
            deltas.setdefault(choice, {})["tool_calls"] = made_calls
        return [
            self._frame([self._choice(choice, self._with_role(choice, delta), None, _listed(made, choice))])
            for choice, delta in deltas.items()
        ]

    def tail(self, ending: Ending) -> list[bytes]:
        """Return why each choice ended, the usage if it is wanted, and the mark that ends the stream."""
        finished = dict(ending.finished)
        if ending.incident:
            finished = dict.fromkeys(self._begun | finished.keys() | {0}, FILTERED)
        more = _incident(ending)
        frames = [self._frame([self._choice(index, {}, why)], more) for index, why in sorted(finished.items())]
        if self._request.with_usage:
            frames.append(self._frame([], {"usage": _written(ending.usage)}))
        return [*frames, DONE]

    def whole(self, made: Made, ending: Ending) -> bytes:
        """Return the body of a whole answer."""
        finished = dict.fromkeys(ending.finished, FILTERED) if ending.incident else ending.finished
        choices = [self._whole_choice(made, index, why) for index, why in sorted(finished.items())]
        more: Json = {"usage": _written(ending.usage), **_incident(ending)}
        return orjson.dumps(self._head("chat.completion", choices) | more)

    def _whole_choice(self, made: Made, index: int, why: str) -> JsonValue:
        own = made.of(index)
        message: Json = {"role": "assistant", CONTENT: None if why != FILTERED else ""}
        message |= {channel.field: text for channel, text in own.items() if channel.field != ARGUMENTS}
        calls: list[JsonValue] = [
            self._call(opened, own.get(Channel(index, ARGUMENTS, opened.call), ""))
            for opened in made.opened
            if opened.choice == index and why != FILTERED
        ]
        if calls:
            message["tool_calls"] = calls
        return {"index": index, "message": message, "logprobs": _listed(made, index), "finish_reason": why}

    def _call(self, opened: Opened, arguments: str) -> Json:
        """Return a tool call; its name is one of the request's."""
        function: Json = {"name": opened.name, "arguments": arguments}
        own = f"call_{self._header.id}{opened.choice:x}{opened.call:x}"
        return {"id": own, "type": "function", "function": function}

    def _with_role(self, choice: int, delta: Json) -> Json:
        if choice in self._begun:
            return delta
        self._begun.add(choice)
        return {"role": "assistant", **delta}

    def _text_frame(self, channel: Channel, text: str) -> bytes:
        """Return the frame of one text; what stands around it is the same each time."""
        if channel not in self._around:
            frame, _, after = self._frame([self._choice(channel.choice, {channel.field: ""}, None)]).partition(b'""')
            self._around[channel] = (frame, after)
        before, after = self._around[channel]
        return before + orjson.dumps(text) + after

    @staticmethod
    def _choice(index: int, delta: Json, why: str | None, logprobs: JsonValue = None) -> JsonValue:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": why}

    def _head(self, kind: str, choices: list[JsonValue]) -> Json:
        own = self._header
        return {"id": f"chatcmpl-{own.id}", "object": kind, "created": own.created, "model": own.model,
                "choices": choices}  # fmt: skip

    def _frame(self, choices: list[JsonValue], more: Json | None = None) -> bytes:
        return write_event(orjson.dumps(self._head("chat.completion.chunk", choices) | (more or {})))


class CompletionsWriter:
    """Writes completions."""

    def __init__(self, header: Header, request: GenerateRequest) -> None:
        self._header = header
        self._request = request
        self._begun: set[int] = set()

    def frames(self, made: Made) -> list[bytes]:
        """Return at most one frame for each choice."""
        self._begun |= {channel.choice for channel in made.texts}
        return [
            write_event(self._body([self._choice(channel.choice, text, None, _columns(made, channel.choice))]))
            for channel, text in made.texts.items()
        ]

    def tail(self, ending: Ending) -> list[bytes]:
        """Return why each choice ended, the usage if it is wanted, and the mark that ends the stream."""
        finished = dict(ending.finished)
        if ending.incident:
            finished = dict.fromkeys(self._begun | finished.keys() | {0}, FILTERED)
        more = _incident(ending)
        frames = [self._body([self._choice(index, "", why)], more) for index, why in sorted(finished.items())]
        if self._request.with_usage:
            frames.append(self._body([], {"usage": _written(ending.usage)}))
        return [*map(write_event, frames), DONE]

    def whole(self, made: Made, ending: Ending) -> bytes:
        """Return the body of a whole answer."""
        finished = dict.fromkeys(ending.finished, FILTERED) if ending.incident else ending.finished
        choices = [
            self._choice(index, made.texts.get(Channel(index, TEXT), ""), why, _columns(made, index))
            for index, why in sorted(finished.items())
        ]
        return self._body(choices, {"usage": _written(ending.usage), **_incident(ending)})

    @staticmethod
    def _choice(index: int, text: str, why: str | None, logprobs: JsonValue = None) -> JsonValue:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": why}

    def _body(self, choices: list[JsonValue], more: Json | None = None) -> bytes:
        own = self._header
        head: Json = {"id": f"cmpl-{own.id}", "object": "text_completion", "created": own.created, "model": own.model}
        return orjson.dumps(head | {"choices": choices} | (more or {}))


def _entry(fields: Fields) -> tuple[str, float]:
    token, number = fields.text("token"), fields.number("logprob")
    if token is None or number is None:
        raise unexpected("$.choices.logprobs.content")
    return token, number


def _usage(usage: Fields) -> Usage:
    prompt, completion = usage.count("prompt_tokens"), usage.count("completion_tokens")
    usage.count("total_tokens")
    usage.close()
    return Usage(prompt or 0, completion or 0)


def _written(usage: Usage) -> Json:
    total = usage.prompt + usage.completion
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": total}


def _incident(ending: Ending) -> Json:
    return {"stanch": {"incident": ending.incident}} if ending.incident else {}


def _listed(made: Made, choice: int) -> JsonValue:
    """Return the log-probabilities of a choice as chat writes them."""
    entries = made.entries.get(Channel(choice, CONTENT))
    if not entries:
        return None
    listed: list[JsonValue] = [
        {
            "token": entry.token, "logprob": entry.logprob, "bytes": None,
            "top_logprobs": [
                {"token": token, "logprob": number, "bytes": None} for token, number in entry.alternatives
            ],
        }
        for entry in entries
    ]  # fmt: skip
    return {"content": listed, "refusal": None}


def _columns(made: Made, choice: int) -> JsonValue:
    """Return the log-probabilities of a choice as completions write them."""
    entries = made.entries.get(Channel(choice, TEXT))
    if not entries:
        return None
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [dict(entry.alternatives) for entry in entries],
        "text_offset": [entry.at for entry in entries],
    }
