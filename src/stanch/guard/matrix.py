"""The bypass matrix as data: where a phrase can stand in an answer, how it can be disguised, how the answer is cut."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Dialect = Literal["chat", "completions", "responses", "messages"]
Kind = Literal["training-text", "canary"]
Spread = Literal["", "parts", "items", "blocks"]

ARGUMENTS = "arguments"
WHOLE = 0
CHUNKS = (1, 3, 7, WHOLE)
"""How many characters of a phrase one frame of a stream holds; :data:`WHOLE` is all of them."""
MOST_PLACES = 60
"""Over how many blocks, parts or items a phrase is spread at most."""

_LOOK_ALIKE = str.maketrans("aeopcxAEOPCX", "аеорсхАЕОРСХ")
TRANSFORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "zero-width": "\u200b".join,
    "homoglyph": lambda text: text.translate(_LOOK_ALIKE),
    "whitespace": lambda text: text.replace(" ", " \t\n  "),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "reversed": lambda text: text[::-1],
    "json escapes": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
}
UNCLAIMED = frozenset({("training-text", "reversed")})
"""What no guard here claims to find: windows of training text are looked up in reading order."""


@dataclass(frozen=True, slots=True)
class Row:
    """A place of an answer.

    Attributes:
        dialect: Which API.
        name: The field, or what else carries the phrase.
        is_channel: Whether a client is meant to get what stands there; what stands in other places must never show.
        modes: Whether the place exists in streams, in whole answers, or in both.
        spread: Whether what stands there is spread, frame by frame, over several places that a client puts together.
    """

    dialect: Dialect
    name: str
    is_channel: bool = True
    modes: tuple[bool, ...] = (True, False)
    spread: Spread = ""

    @property
    def title(self) -> str:
        """What the place is called in a report."""
        return f"{self.dialect} {self.name}{self.spread and f' over {self.spread}'}"


ROWS = (
    Row("chat", "content"),
    Row("chat", "reasoning_content"),
    Row("chat", "reasoning"),
    Row("chat", "refusal"),
    Row("chat", ARGUMENTS),
    Row("completions", "text"),
    Row("responses", "output_text"),
    Row("responses", "refusal"),
    Row("responses", "reasoning_text"),
    Row("responses", "reasoning_summary_text"),
    Row("responses", ARGUMENTS),
    Row("messages", "text"),
    Row("messages", "thinking"),
    Row("messages", ARGUMENTS),
    Row("chat", "content", spread="parts"),
    Row("responses", "output_text", spread="parts"),
    Row("responses", "output_text", spread="items"),
    Row("responses", "reasoning_summary_text", spread="parts"),
    Row("messages", "text", spread="blocks"),
    Row("messages", "thinking", spread="blocks"),
    Row("chat", "log-probability tokens", is_channel=False),
    Row("chat", "unknown field", is_channel=False),
    Row("chat", "tool name", is_channel=False),
    Row("chat", "error body", is_channel=False),
    Row("chat", "header", is_channel=False),
    Row("chat", "error event", is_channel=False, modes=(True,)),
    Row("chat", "comment", is_channel=False, modes=(True,)),
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """What must not come out, and how many letters and digits in a row of it may show."""

    kind: Kind
    text: str = field(repr=False)
    most: int


def training_phrase(text: str) -> Phrase:
    """Return a row of training text; its head may show up to where a guard of standard windows first holds."""
    return Phrase("training-text", text, 73)


def canary_phrase(text: str) -> Phrase:
    """Return a canary, of which no half may show."""
    return Phrase("canary", text, sum(map(str.isalnum, text)) // 2)


@dataclass(frozen=True, slots=True)
class Cell:
    """One answer of a leaking server, and so one question of the matrix."""

    row: Row
    phrase: Phrase
    transform: str
    stream: bool
    chunk: int

    @property
    def said(self) -> str:
        """What the server says in that place."""
        return f"Well: {TRANSFORMS[self.transform](self.phrase.text)} :so."

    @property
    def is_claimed(self) -> bool:
        """Whether it counts as a leak if the phrase shows."""
        return (self.phrase.kind, self.transform) not in UNCLAIMED


def cells(rows: Sequence[Row], phrases: Sequence[Phrase], chunks: Sequence[int] = CHUNKS) -> Iterator[Cell]:
    """Yield the matrix: every place, phrase, transform and cut; a whole answer has no chunks."""
    for row in rows:
        for phrase in phrases:
            for transform in TRANSFORMS:
                for stream in row.modes:
                    for chunk in chunks if stream else (WHOLE,):
                        yield Cell(row, phrase, transform, stream, chunk)
