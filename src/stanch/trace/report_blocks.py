"""What a report is made of, whatever it is written as: sections of paragraphs, lists, tables and charts."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from stanch.audit.plot import Plot
from stanch.terms import JsonValue

Row: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A digest or a command, to be read letter by letter; ``label`` stands before it."""

    text: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list without an order."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; int and float stand right. ``title`` names it where a section holds more than one thing."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, the sentence that describes it, and its numbers."""

    plot: Plot
    caption: str
    numbers: Table


Block: TypeAlias = Paragraph | Code | Bullets | Table | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report.

    Attributes:
        title: What the document is called.
        question: Its headline.
        about: One line under it.
        finding: What was found, in a few words, for a box at the top.
        sentence: The finding in full.
        made_at: ``YYYY-MM-DDTHH:MM:SSZ``, from the case.
        result: ``stanch/trace-result/v1``: the decision for machines.
        sections: The rest.
        tone: How the box is coloured: ``bad`` where somebody is accused, ``open`` where nobody is.
    """

    title: str
    question: str
    about: str
    finding: str
    sentence: str
    made_at: str
    result: JsonValue
    sections: tuple[Section, ...]
    tone: Literal["bad", "open"] = "bad"
