"""Pages: templates that escape everything, and the frame around each page."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from stanch.errors import MissingExtraError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Link:
    """A line of the navigation."""

    path: str
    title: str
    current: bool


@dataclass(frozen=True, slots=True)
class Shell:
    """The frame around a page.

    Attributes:
        title: Heading of the page.
        links: The navigation: what whoever asks may see.
        person: Who is signed in; empty for nobody.
        logout: Token of the form that ends the session.
        token: Makes the token of a form by method and path of its route.
        said: What was just done.
    """

    title: str
    links: tuple[Link, ...] = ()
    person: str = ""
    logout: str = ""
    token: Callable[[str], str] = lambda _route: ""
    said: str = ""


def render(template: str, shell: Shell, view: object) -> bytes:
    """Return a page as UTF-8."""
    text: str = _environment().get_template(template).render(shell=shell, view=view)
    return text.encode()


def load_templates() -> None:
    """Read and compile every template, which takes as long as a page.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    for name in _environment().list_templates():
        _environment().get_template(name)


@cache
def _environment() -> Any:  # noqa: ANN401 - a Jinja environment; an optional part
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - an optional part
    except ImportError as error:
        raise MissingExtraError("console") from error
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"moment": moment, "iso": iso, "day": day, "short": short, "plural": plural}
    return made


def moment(time_ms: int) -> str:
    """Return a time as people read it."""
    return f"{_utc(time_ms):%Y-%m-%d %H:%M:%S} UTC"


def iso(time_ms: int) -> str:
    """Return a time as machines read it."""
    return _utc(time_ms).isoformat(timespec="milliseconds")


def day(time_ms: int) -> str:
    """Return the day of a time."""
    return f"{_utc(time_ms):%Y-%m-%d}"


def short(text: str) -> str:
    """Return the beginning of a digest; the whole stands beside it in the page."""
    kind, colon, rest = text.rpartition(":")
    return f"{kind}{colon}{rest[:12]}…" if len(rest) > 16 else text


def plural(count: int, word: str) -> str:
    """Return ``1 entry`` or ``2 entries``."""
    many = f"{word[:-1]}ies" if word.endswith("y") and word[-2:-1] not in "aeo" else f"{word}s"
    return f"{count:,} {word if count == 1 else many}"


def _utc(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)
