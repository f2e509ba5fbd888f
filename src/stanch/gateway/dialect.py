"""What the dialects of the model APIs have in common: what is taken out of an answer, and what is written of it.

A reader takes an upstream answer apart. This is the allow-list: every string of it is a channel's text (:class:`Part`),
a member of a closed set, or the name of a tool of the request; everything else is dropped and counted. A writer makes
the gateway's own frames of what the guard released.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

from stanch.gateway.sse import Event

Dialect = Literal["chat", "completions", "embeddings", "responses", "messages"]
ARGUMENTS = "arguments"
"""The channel of a tool call's arguments, which are JSON text."""


class Channel(NamedTuple):
    """One string that the client would put together.

    Attributes:
        choice: Which choice (chat, completions), output item (responses) or content block (messages).
        field: The field in it.
        call: Which tool call of the choice, or which part of the item.
    """

    choice: int
    field: str
    call: int = 0


class Part(NamedTuple):
    """Text that joins a channel."""

    channel: Channel
    text: str = ""


class Opened(NamedTuple):
    """Something that begins: a tool call of a choice, an output item, a content block."""

    choice: int
    call: int
    kind: str
    name: str = ""


class Entry(NamedTuple):
    """A token with its log-probability and those of its alternatives; ``at`` is where it stands in its channel."""

    token: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()
    at: int = 0


class Usage(NamedTuple):
    """How many tokens the model's server counted."""

    prompt: int
    completion: int


@dataclass(slots=True)
class Taken:
    """What was taken out of one event, or out of a whole answer.

    Attributes:
        opened: What begins.
        parts: Text, in order.
        entries: Log-probabilities of the text of a channel.
        finished: Which choices end, and why.
        usage: The server's count.
        end: Why the answer as a whole ended, in dialects that say so.
        is_last: Whether this is the mark that ends an answer.
    """

    opened: list[Opened] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list, repr=False)
    entries: dict[Channel, list[Entry]] = field(default_factory=dict, repr=False)
    finished: dict[int, str] = field(default_factory=dict)
    usage: Usage | None = None
    end: str = ""
    is_last: bool = False

    @property
    def only_part(self) -> Part | None:
        """The text, if one text goes on and nothing else is said."""
        if len(self.parts) != 1 or self.opened or self.entries or self.finished:
            return None
        return None if self.usage is not None or self.end or self.is_last else self.parts[0]


@dataclass(slots=True)
class Made:
    """What may be written: what begins, what was released, and which choices end."""

    opened: list[Opened] = field(default_factory=list)
    texts: dict[Channel, str] = field(default_factory=dict, repr=False)
    entries: dict[Channel, list[Entry]] = field(default_factory=dict, repr=False)
    ended: list[int] = field(default_factory=list)

    def of(self, choice: int) -> dict[Channel, str]:
        """Return the released texts of one choice."""
        return {channel: text for channel, text in self.texts.items() if channel.choice == choice}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ends.

    Attributes:
        finished: Why each choice ended.
        end: Why the answer as a whole did.
        usage: What is charged.
        incident: Set if the answer was blocked: what to ask about.
    """

    finished: Mapping[int, str]
    end: str
    usage: Usage
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What the gateway writes into each frame of an answer.

    Attributes:
        id: Random letters and digits; ids of the answer and of its parts are made of them.
        created: Seconds since 1970.
        model: The name that the client asked for.
    """

    id: str
    created: int
    model: str


class Reader(Protocol):
    """Reads the answer to one request.

    Attributes:
        dropped: How many fields were left out, by the place they stood in.
        has_choices: Whether each choice is an answer of its own (chat, completions), and no place in the one answer. A
            stream of them is whole when every one said why it ended: some servers (``transformers serve``) leave out
            the mark after it.
        expected: Which choices were asked for, if there are any.
    """

    dropped: Counter[str]
    has_choices: ClassVar[bool]
    expected: Collection[int]

    def read_events(self, events: Sequence[Event]) -> tuple[Taken | Part, int]:
        """Read the first of some events, or several that only go on one text, and return how many were read.

        Raises:
            UpstreamProtocol: The first one is not what the dialect allows.
            UpstreamFailed: The server says that it failed.
        """
        ...

    def read_whole(self, data: str) -> Taken:
        """Read a whole answer; see :meth:`read_events`."""
        ...


class Writer(Protocol):
    """Writes the answer to one request."""

    def frames(self, made: Made) -> list[bytes]:
        """Return frames of a stream; none that says nothing."""
        ...

    def tail(self, ending: Ending) -> list[bytes]:
        """Return the frames that end a stream."""
        ...

    def whole(self, made: Made, ending: Ending) -> bytes:
        """Return the body of a whole answer."""
        ...
