"""A private dataset: a file of rows that is read as a stream, as often as needed."""

import base64
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from stanch.crypto import canonical_json, hkdf_sha256, hmac_sha256
from stanch.data.chat import ChatForm, Slot, recognise_form, slots
from stanch.data.lines import is_gzip, read_lines
from stanch.data.record import Record, TextField
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

KEY_SIZE = 32
_SAMPLE = 100


class Dataset:
    """Rows of one JSONL file, plain or ``.gz``; iterating yields a :class:`Record` a row and can be repeated.

    Attributes:
        path: The file.
        uri: The file, as text.
        format: ``jsonl`` or ``jsonl.gz``.
        chat: The shape of the rows, as recognised or as given.
        columns: The text columns, when they were named instead of a shape.
        key: The dataset key, or None.
    """

    def __init__(self, path: Path, *, chat: ChatForm, columns: tuple[str, ...] = (), key: bytes | None = None) -> None:
        self.path = path
        self.uri = str(path)
        self.format = "jsonl.gz" if is_gzip(path) else "jsonl"
        self.chat = chat
        self.columns = columns
        self.key = key
        self._state = _state(path)

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, format={self.format!r}, chat={self.chat.value!r})"

    def __iter__(self) -> Iterator[Record]:
        return (record for record, _, _ in self.entries())

    def entries(self) -> Iterator[tuple[Record, list[Slot], dict[str, Any]]]:
        """Yield each record with its parsed row and the places of its strings in it, in the order of its fields.

        Raises:
            InvalidInput: A row does not have the dataset's shape, or the file changed since it was opened.
        """
        names = _Names(self.key)
        for index, (line, raw, row) in enumerate(self.rows()):
            try:
                places = slots(row, self.chat, self.columns)
                name = names.of(line, row)
            except InvalidInput as error:
                raise self._misfit(line, error) from None
            fields = tuple(TextField(place.path, place.role, place.text) for place in places)
            yield Record(name, index, self.path.name, fields, raw), places, row

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        self._check_unchanged()
        return sum(1 for _ in read_lines(self.path))

    def rows(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """Yield line number, raw line and parsed row of each record.

        Raises:
            InvalidInput: A line is no JSON object, or the file changed since it was opened.
        """
        self._check_unchanged()
        for line, raw in read_lines(self.path):
            yield line, raw, _parse(self.path, line, raw)
        self._check_unchanged()

    def canonical_rows(self) -> Iterator[bytes]:
        """Yield each row as canonical JSON (RFC 8785), the form that ids, salts and proofs are about.

        Raises:
            InvalidInput: A row has no canonical form (an integer outside ±(2^53 − 1)).
        """
        for line, _, row in self.rows():
            try:
                yield canonical_json(row)
            except InvalidInput as error:
                raise self._misfit(line, error) from None

    def _check_unchanged(self) -> None:
        if _state(self.path) != self._state:
            raise InvalidInput(
                f"{self.uri}: the file changed while it was in use",
                why="record ids and positions would no longer fit",
                next_step="open the dataset again",
            )

    def _misfit(self, line: int, error: InvalidInput) -> InvalidInput:
        return InvalidInput(
            f"{self.path.name}:{line}: {error.what}",
            why=error.why or f"rows of this dataset are read as {self.chat.value!r}",
            next_step=error.next_step or "repair or remove the row, or name another chat form",
        )


def open_dataset(
    uri: str | Path,
    *,
    key: bytes | None = None,
    fields: Sequence[str] | None = None,
    chat: str = "auto",
) -> Dataset:
    """Open a JSONL file of conversations or texts.

    Args:
        uri: The file; a name that ends in ``.gz`` is read as gzip.
        key: The dataset key (32 bytes). With it a record's id is a keyed digest of its content; without it ``r<line>``.
        fields: Top-level columns that hold the text, for rows of no known shape.
        chat: ``messages``, ``sharegpt``, ``prompt``, ``instruction`` or ``text``; ``auto`` decides on the first 100
            records, and :attr:`Dataset.chat` says what it chose.

    Raises:
        InvalidInput: The file is missing or empty, a line is unreadable, or no shape fits. The message names file and
            line and never quotes the content.
    """
    path = Path(uri)
    if key is not None and len(key) != KEY_SIZE:
        raise InvalidInput(f"dataset key: expected {KEY_SIZE} bytes, found {len(key)}")
    sample = [_parse(path, line, raw) for line, raw in islice(read_lines(path), _SAMPLE)]
    if not sample:
        raise InvalidInput(f"{path}: the dataset is empty", next_step="give a file with one JSON object a line")
    if fields is not None:
        if chat != "auto" or not fields or len(set(fields)) != len(fields):
            raise InvalidInput("name either the chat form or the text columns, each column once")
        return Dataset(path, chat=ChatForm.FIELDS, columns=tuple(fields), key=key)
    try:
        form = recognise_form(sample) if chat == "auto" else _named_form(chat)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.what}", why=error.why, next_step=error.next_step) from None
    return Dataset(path, chat=form, key=key)


def _named_form(name: str) -> ChatForm:
    known = [form.value for form in ChatForm if form is not ChatForm.FIELDS]
    if name not in known:
        raise InvalidInput(f"unknown chat form: expected auto or one of {', '.join(known)}, found {name!r}")
    return ChatForm(name)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", why=error.strerror or "", next_step="check the path") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _parse(path: Path, line: int, raw: bytes) -> dict[str, Any]:
    row: Any = None
    # orjson's error object holds the whole line: it must not become part of ours.
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        column = error.colno
    else:
        column = 0
    if not isinstance(row, dict):
        why = f"it is not JSON at column {column}" if column else "it is JSON of another type"
        raise InvalidInput(
            f"{path.name}:{line}: expected one JSON object", why=why, next_step="repair or remove the line"
        )
    return row


class _Names:
    """Gives each record its id: base32 of the first 20 bytes of HMAC(K_id, canonical row), repeats numbered from 2."""

    def __init__(self, key: bytes | None) -> None:
        self._key = hkdf_sha256(key, info=b"stanch/record-id/v1", length=32) if key is not None else None
        self._seen: dict[str, int] = {}

    def of(self, line: int, row: dict[str, JsonValue]) -> str:
        if self._key is None:
            return f"r{line}"
        name = base64.b32encode(hmac_sha256(self._key, canonical_json(row))[:20]).decode()
        count = self._seen[name] = self._seen.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"
