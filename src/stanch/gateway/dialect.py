"""The two text dialects of the OpenAI API: what is taken out of a model server's answer. This is the allow-list.

Every string of an answer is here a channel's text (:class:`Part`), a member of a closed set, or the name of a tool of
the request. Ids, times and the model's name are the gateway's own; everything else is dropped and counted.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stanch.gateway.fields import Fields, read_fields, unexpected
from stanch.gateway.problem import UpstreamFailed
from stanch.gateway.request import ChatRequest, GenerateRequest

Dialect = Literal["chat", "completions"]
ARGUMENTS = "arguments"
"""The channel of a tool call's arguments, which are JSON text."""

_FINISHES = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
_ROLES = frozenset({"assistant"})
_TEXTS = ("reasoning_content", "reasoning", "refusal")
_MAX_CALLS = 128


class Channel(NamedTuple):
    """One string that the client would put together: a field of a choice, or the arguments of one of its calls."""

    choice: int
    field: str
    call: int = 0


class Part(NamedTuple):
    """Text that joins a channel."""

    channel: Channel
    text: str = ""


class Call(NamedTuple):
    """A tool call that begins."""

    choice: int
    call: int
    name: str


class Usage(NamedTuple):
    """How many tokens the model's server counted."""

    prompt: int
    completion: int


@dataclass(slots=True)
class Taken:
    """What was taken out of one event, or out of a whole answer."""

    parts: list[Part] = field(default_factory=list, repr=False)
    calls: list[Call] = field(default_factory=list)
    finished: dict[int, str] = field(default_factory=dict)
    usage: Usage | None = None


class AnswerReader:
    """Reads the answer to one request.

    Attributes:
        dropped: How many fields were left out, by the place they stood in.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._is_chat = isinstance(request, ChatRequest)
        self._called: dict[tuple[int, int], str] = {}
        self.dropped: Counter[str] = Counter()

    def read_event(self, data: str) -> Taken:
        """Read the data of one event.

        Raises:
            UpstreamProtocol: It is not what the dialect allows.
            UpstreamFailed: The server says that it failed.
        """
        kinds = frozenset({"chat.completion.chunk" if self._is_chat else "text_completion"})
        return self._read(data, kinds, holder="delta")

    def read_whole(self, data: str) -> Taken:
        """Read a whole answer; see :meth:`read_event`."""
        return self._read(data, frozenset({"chat.completion" if self._is_chat else "text_completion"}), "message")

    def _read(self, data: str, kinds: frozenset[str], holder: str) -> Taken:
        fields, taken = read_fields(data, self.dropped), Taken()
        if fields.has("error"):
            raise UpstreamFailed("the model's server answered with an error")
        fields.closed("object", kinds)
        fields.skip("id", "created", "model", "system_fingerprint")
        for choice in fields.objects("choices", most=self._request.n):
            self._read_choice(choice, holder, taken)
        if (usage := fields.object("usage")) is not None:
            taken.usage = _usage(usage)
        fields.close()
        return taken

    def _read_choice(self, choice: Fields, holder: str, taken: Taken) -> None:
        index = choice.count("index", below=self._request.n) or 0
        if self._is_chat:
            if (message := choice.object(holder)) is not None:
                taken.parts += self._read_message(index, message, taken)
        elif (text := choice.text("text")) is not None:
            taken.parts.append(Part(Channel(index, "text"), text))
        if (finish := choice.closed("finish_reason", _FINISHES)) is not None:
            taken.finished[index] = finish
        choice.close()

    def _read_message(self, index: int, message: Fields, taken: Taken) -> Iterator[Part]:
        message.closed("role", _ROLES)
        for name in _TEXTS:
            if (text := message.text(name)) is not None:
                yield Part(Channel(index, name), text)
        if (text := message.text_or_parts("content")) is not None:
            yield Part(Channel(index, "content"), text)
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
                if not any(known[:2] == (index, number) for known in taken.calls):
                    taken.calls.append(Call(index, number, name))
            if (text := function.text("arguments")) is not None:
                if (index, number) not in self._called:
                    raise unexpected("$.choices.tool_calls.function.name")
                yield Part(Channel(index, ARGUMENTS, number), text)
            function.close()
        call.close()


def _usage(usage: Fields) -> Usage:
    prompt, completion = usage.count("prompt_tokens"), usage.count("completion_tokens")
    usage.count("total_tokens")
    usage.close()
    return Usage(prompt or 0, completion or 0)
