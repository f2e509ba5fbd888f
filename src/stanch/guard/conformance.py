"""Proof from outside that a gateway lets nothing out: play the server behind it, and read what its clients get.

The reader of the answers shares no code with the guard. It undoes the disguises of the matrix in its own way: Unicode
compatibility forms, look-alikes, invisible characters, case, spacing, base64, JSON escapes and order.
"""

import base64
import binascii
import http.client
import json
import re
import ssl
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from stanch.errors import ExternalError, InvalidInput
from stanch.guard.leaking import PATHS, LeakingServer, Said, request_body
from stanch.guard.matrix import ROWS, WHOLE, Cell, Dialect, Phrase, Row
from stanch.terms import JsonValue

Verdict: TypeAlias = Literal["held", "leak", "unclaimed leak"]

CLEAN = "Chest pain has many causes. Ask a doctor: only an examination can tell what it is, and how urgent that is."
_MAX_ANSWER = 8 << 20
_PATIENCE = 60
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_FOUR_DIGITS = re.compile(r"\\u([0-9a-fA-F]{4})")
_BETWEEN = re.compile(r"[\W_]+")
_PLAIN = str.maketrans("аеорсхі", "aeopcxi")


@dataclass(frozen=True, slots=True)
class Target:
    """The gateway that is tested.

    Attributes:
        url: Where it listens, without a path of the API.
        model: A model of it whose server is the one that this run plays.
        key: What it knows its client by.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client of the target read: bytes, and the strings in them, each put together from its pieces."""

    status: int
    raw: str = field(repr=False)
    strings: tuple[str, ...] = field(repr=False)
    is_well_formed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What came of the matrix.

    Attributes:
        outcomes: Each cell and what became of it.
        changed: Places and cuts (row, stream, chunk) in which a clean text did not come out as it was.
        malformed: Cells whose answers a client could not read.
        not_offered: Dialects that the target does not answer.
    """

    outcomes: tuple[tuple[Cell, Verdict], ...]
    changed: tuple[tuple[Row, bool, int], ...]
    malformed: tuple[Cell, ...]
    not_offered: tuple[str, ...]

    @property
    def leaks(self) -> int:
        """How many cells leaked that should not."""
        return sum(verdict == "leak" for _, verdict in self.outcomes)

    @property
    def is_passed(self) -> bool:
        """Whether no cell leaked, every answer could be read, and clean texts came out."""
        return not (self.leaks or self.changed or self.malformed) and bool(self.outcomes)

    def to_json(self) -> dict[str, JsonValue]:
        """Return counts by place and by disguise, and each cell that leaked; never a phrase."""
        places: defaultdict[str, Counter[str]] = defaultdict(Counter)
        disguises: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for cell, verdict in self.outcomes:
            places[cell.row.title][verdict] += 1
            if cell.row.is_channel:
                disguises[f"{cell.phrase.kind} {cell.transform}"][verdict] += 1
        leaked: list[JsonValue] = [_name(cell) for cell, verdict in self.outcomes if verdict == "leak"]
        changed: list[JsonValue] = [_place(*one) for one in self.changed]
        malformed: list[JsonValue] = [_name(cell) for cell in self.malformed]
        return {
            "passed": self.is_passed, "cells": len(self.outcomes), "leaks": self.leaks,
            "unclaimed_leaks": sum(verdict == "unclaimed leak" for _, verdict in self.outcomes),
            "places": {name: dict(count) for name, count in places.items()},
            "disguises": {name: dict(count) for name, count in disguises.items()},
            "leaked": leaked, "changed": changed, "malformed": malformed, "not_offered": [*self.not_offered],
        }  # fmt: skip


def run_matrix(
    target: Target,
    upstream: LeakingServer,
    made: Sequence[Cell],
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Ask the target for cells of the matrix and judge what comes out.

    Raises:
        InvalidInput: The target's URL is none.
        ExternalError: The target cannot be reached, or does not ask the server that this run plays.
    """
    asking = _Asking(target, upstream)
    dialects = dict.fromkeys(cell.row.dialect for cell in made)
    offered = [dialect for dialect in dialects if asking.offers(dialect)]
    asked = [cell for cell in made if cell.row.dialect in offered]
    if not asked:
        raise ExternalError("the target does not answer", next_step="check its URL, the name of the model and the key")
    changed = tuple(asking.changed(asked))
    if upstream.asked == 0:
        raise ExternalError(
            "the target never asked the server that this run plays",
            next_step="set the model's upstream to the address of --upstream-listen",
        )
    outcomes: list[tuple[Cell, Verdict]] = []
    malformed: list[Cell] = []
    for cell in asked:
        answer = asking.ask(Said(cell.row, cell.said, cell.stream, cell.chunk))
        if cell.row.is_channel and not answer.is_well_formed:
            malformed.append(cell)
        shows = holds(answer, cell.phrase)
        outcomes.append((cell, "held" if not shows else "leak" if cell.is_claimed else "unclaimed leak"))
        progress(len(outcomes), len(asked))
    return Report(tuple(outcomes), changed, tuple(malformed), tuple(sorted(dialects.keys() - set(offered))))


class _Asking:
    """Asks the target, one question at a time: what the server says next belongs to the question."""

    def __init__(self, target: Target, upstream: LeakingServer) -> None:
        self._target = target
        self._upstream = upstream
        self._place = urlsplit(target.url.removesuffix("/").removesuffix("/v1"))
        if self._place.scheme not in {"http", "https"} or not self._place.hostname:
            raise InvalidInput("the target is no http or https URL")

    def offers(self, dialect: Dialect) -> bool:
        """Say whether the target answers a clean question in a dialect."""
        row = next(row for row in ROWS if row.dialect == dialect)
        return self.ask(Said(row, CLEAN, stream=False, chunk=WHOLE)).status not in {404, 405}

    def changed(self, made: Sequence[Cell]) -> Iterator[tuple[Row, bool, int]]:
        """Yield where a clean text does not come out as it is."""
        for row, stream, chunk in dict.fromkeys((cell.row, cell.stream, cell.chunk) for cell in made):
            if row.is_channel and CLEAN not in self.ask(Said(row, CLEAN, stream, chunk)).strings:
                yield row, stream, chunk

    def ask(self, said: Said) -> Answer:
        """Return what the target answers when the server behind it says this."""
        self._upstream.said = said
        body = json.dumps(request_body(said.row, self._target.model, stream=said.stream)).encode()
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._target.key:
            headers["Authorization"] = f"Bearer {self._target.key}"
        connection = self._connection()
        try:
            connection.request("POST", self._place.path + PATHS[said.row.dialect], body, headers)
            response = connection.getresponse()
            try:
                data = response.read(_MAX_ANSWER)
            except http.client.IncompleteRead as error:
                data = error.partial
            heads = "\n".join(f"{name}: {value}" for name, value in response.getheaders())
        except (OSError, http.client.HTTPException) as error:
            raise ExternalError("the target does not answer", why=type(error).__name__) from error
        finally:
            connection.close()
        heads = heads.encode("latin-1", "replace").decode("utf-8", "replace")
        return read_answer(response.status, heads, data.decode("utf-8", "replace"))

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._place.hostname or "", self._place.port
        if self._place.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=_PATIENCE)


def read_answer(status: int, heads: str, body: str) -> Answer:
    """Read the bytes of an answer, an event stream or one JSON object, as far as they can be read."""
    joined: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    values, is_well_formed = [], True
    is_stream = "text/event-stream" in heads.lower()
    parts = re.findall(r"^data: ?(.*)$", body, re.MULTILINE) if is_stream else [body]
    for part in parts:
        if part.strip() == "[DONE]":
            continue
        try:
            values.append(json.loads(part))
        except ValueError:
            is_well_formed = False
    for value in values:
        kind = value.get("type", "") if isinstance(value, dict) else ""
        for path, text in _strings(value, (str(kind),)):
            joined[path].append(text)
            if any(map(str.isdigit, path)):  # what stands in several places of a list is put together, too
                joined[tuple(name for name in path if not name.isdigit())].append(text)
    texts = ["".join(pieces) for pieces in joined.values()]
    inner = [text for whole in texts if whole.startswith("{") for text in _inner(whole)]
    is_ended = not is_stream or "[DONE]" in body or '"message_stop"' in body or re.search(
        r'"response\.(completed|incomplete)"', body
    ) is not None  # fmt: skip
    return Answer(status, f"{heads}\n{body}", (*texts, *inner), is_well_formed and is_ended and status == 200)


def _strings(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every string and every key of a JSON value, with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield (*path, "key"), str(name)
            yield from _strings(item, (*path, str(name)))
    elif isinstance(value, list):
        if value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
            yield path, bytes(value).decode("utf-8", "replace")
        for at, item in enumerate(value):
            yield from _strings(item, (*path, str(at)))


def holds(answer: Answer, phrase: Phrase) -> bool:
    """Tell whether more of a phrase shows in an answer than may, in any of the disguises."""
    wanted = squeeze(phrase.text)
    size = phrase.most + 1
    if len(wanted) < size:
        raise InvalidInput(f"a phrase of kind {phrase.kind}: more than {phrase.most} letters and digits are needed")
    windows = {wanted[at : at + size] for at in range(len(wanted) - size + 1)}
    texts = [answer.raw, *answer.strings]
    texts += [_FOUR_DIGITS.sub(lambda match: chr(int(match[1], 16)), text) for text in texts if "\\u" in text]
    texts += [decoded for text in texts for run in _BASE64.findall(text) if (decoded := _decoded(run))]
    seen = [squeeze(text) for text in texts]
    return any(window in one for one in (*seen, *(text[::-1] for text in seen)) for window in windows)


def squeeze(text: str) -> str:
    """Return the letters and digits of a text without what tells disguises apart."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_PLAIN)
    return _BETWEEN.sub("", folded)


def _inner(text: str) -> list[str]:
    """Return the strings of JSON text that a channel carries."""
    try:
        return [found for _, found in _strings(json.loads(text), ())]
    except ValueError:
        return []


def _decoded(run: str) -> str:
    whole = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(whole[: len(whole) // 4 * 4]).decode("utf-8", "ignore")
    except (binascii.Error, ValueError):
        return ""


def _place(row: Row, stream: bool, chunk: int) -> str:  # noqa: FBT001 - a coordinate of the matrix
    cut = f"stream by {chunk or 'all'}" if stream else "whole"
    return f"{row.title}, {cut}"


def _name(cell: Cell) -> str:
    return f"{_place(cell.row, cell.stream, cell.chunk)}, {cell.phrase.kind}, {cell.transform}"
