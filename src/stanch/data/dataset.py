"""A private dataset: rows that are read as a stream, as often as needed."""

import base64
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import re2

from stanch.crypto import canonical_json, hkdf_sha256, hmac_sha256
from stanch.data.chat import ChatForm, Slot, check_shape, recognise_form, slots
from stanch.data.lines import plain_suffix
from stanch.data.readers import Csv, JsonLines, Paragraphs
from stanch.data.readers_arrow import Choice, Table, open_table
from stanch.data.readers_json import JsonArray, holds_array
from stanch.data.record import Record, TextField
from stanch.data.rows import BadRow, Range, Row, RowFile
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

KEY_SIZE = 32
_SAMPLE = 100
_BYTES = re2.Options()
_BYTES.encoding = re2.Options.Encoding.LATIN1
_UNSURE = re2.compile(rb"[:,[]-?[0-9]+[.eE]|[0-9]{16}|[\xf0-\xf4]", _BYTES)

Entry = tuple[Record, list[Slot], dict[str, Any]]


class Dataset:
    """The rows of a file or folder; iterating yields a :class:`Record` a row and can be repeated.

    Attributes:
        path: The file or folder.
        uri: The same, as text.
        format: ``jsonl``, ``json``, ``csv``, ``tsv`` or ``text``, each also with ``.gz``, ``parquet``, ``arrow``,
            ``arrow-stream`` or ``saved-folder``.
        chat: The shape of the rows, as recognised or as given.
        columns: The text columns, when they were named instead of a shape.
        key: The dataset key, or None.
        skip_bad: Whether a row that cannot be read is left out; otherwise it ends the reading with an error.
        file: The reader.
    """

    def __init__(
        self,
        path: Path,
        *,
        chat: ChatForm,
        columns: tuple[str, ...] = (),
        key: bytes | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.path = path
        self.uri = str(path)
        self.file = open_rows(path)
        self.format = self.file.format
        self.chat = chat
        self.columns = columns
        self.key = key
        self.skip_bad = skip_bad
        self._state = self._status()

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, format={self.format!r}, chat={self.chat.value!r})"

    def __iter__(self) -> Iterator[Record]:
        return (record for record, _, _ in self.entries())

    def entries(self, part: Range | None = None, *, skipped: dict[int, str] | None = None) -> Iterator[Entry]:
        """Yield each record with its parsed row and the places of its strings in it, in the order of its fields.

        Args:
            part: The part to read; all by default. With a part, repeats of keyed ids are counted in it alone.
            skipped: Takes a line for each row that was left out, by its number.

        Raises:
            InvalidInput: A row cannot be read or does not have the dataset's shape, or the file changed since it was
                opened.
        """
        return self.entries_of(self.read(part, skipped=skipped), skipped=skipped)

    def entries_of(
        self,
        rows: Iterable[Row],
        *,
        clean: Container[int] = (),
        skipped: dict[int, str] | None = None,
        loose: bool = False,
    ) -> Iterator[Entry]:
        """As :meth:`entries`, for rows that are read already; those numbered in ``clean`` come without their strings.

        A clean row must be nested no deeper than 64. ``loose``: a row that does not have the form is taken as of none.
        """
        for index, (row, places, name) in enumerate(self._named(rows, clean, skipped, loose=loose)):
            fields = tuple(TextField(place.path, place.role, place.text) for place in places)
            yield Record(name, index, self.path.name, fields, row.raw), places, row.values

    def read(
        self, part: Range | None = None, *, skipped: dict[int, str] | None = None, choose: Choice | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a part, or all, before their shape is looked at; of a table, those that ``choose`` chooses.

        Raises:
            InvalidInput: A row cannot be read, or the file changed since it was opened.
        """
        self._check_unchanged()
        chosen = self.file.read(part, choose=choose) if isinstance(self.file, Table) else self.file.read(part)
        for row in chosen:
            if isinstance(row, BadRow):
                self._refuse(row.number, _bad_row(self.path, row), skipped)
            else:
                yield row
        self._check_unchanged()

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        self._check_unchanged()
        # What is left out is known only after reading.
        return sum(1 for _ in self.entries()) if self.skip_bad else self.file.count()

    @property
    def size(self) -> int:
        """Size of the files in bytes."""
        return sum(size for _, size, _ in self._state)

    def key_check(self) -> str:
        """Return what tells without the dataset key whether two holders have the same one; empty without a key."""
        return hmac_sha256(self.key, b"stanch/dataset-key/v1").hex() if self.key is not None else ""

    def rows(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """Yield line number, raw line and parsed row of each record.

        Raises:
            InvalidInput: A row cannot be read, or the file changed since it was opened.
        """
        rows: Iterable[Row] = self.read()
        if self.skip_bad:
            rows = (row for row, _, _ in self._named(rows, (), None, loose=False))
        return ((row.number, row.raw, row.values) for row in rows)

    def canonical_rows(self) -> Iterator[bytes]:
        """Yield each row as canonical JSON (RFC 8785), the form that ids, salts and proofs are about.

        Raises:
            InvalidInput: A row has no canonical form (an integer outside ±(2^53 − 1)).
        """
        for line, _, row in self.rows():
            try:
                yield canonical_row(row)
            except InvalidInput as error:
                raise self._misfit(line, error) from None

    def _named(
        self, rows: Iterable[Row], clean: Container[int], skipped: dict[int, str] | None, *, loose: bool
    ) -> Iterator[tuple[Row, list[Slot], str]]:
        names = _Names(self.key)
        for row in rows:
            try:
                if row.number not in clean:
                    places = self._slots(row, loose=loose)
                else:
                    places = []
                    if not loose:
                        check_shape(row.values, self.chat, self.columns)
                named = row, places, names.of(row.number, row.values)
            except InvalidInput as error:
                self._refuse(row.number, self._misfit(row.number, error), skipped)
            else:
                yield named

    def _slots(self, row: Row, *, loose: bool) -> list[Slot]:
        try:
            return slots(row.values, self.chat, self.columns)
        except InvalidInput:
            if not loose:
                raise
            return slots(row.values, ChatForm.ANY)

    def _refuse(self, number: int, error: InvalidInput, skipped: dict[int, str] | None) -> None:
        if not self.skip_bad:
            raise error from None
        if skipped is not None:
            skipped[number] = f"{error.what} ({error.why})" if error.why else error.what

    def _status(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_state(path) for path in self.file.files)

    def _check_unchanged(self) -> None:
        if self._status() != self._state:
            raise InvalidInput(
                f"{self.uri}: the file changed while it was in use",
                why="record ids and positions would no longer fit",
                next_step="open the dataset again",
            )

    def _misfit(self, line: int, error: InvalidInput) -> InvalidInput:
        return InvalidInput(
            f"{self.path.name}:{line}: {error.what}",
            why=error.why or f"rows of this dataset are read as {self.chat.value!r}",
            next_step=error.next_step or "repair or remove the row, name another chat form, or skip bad rows",
        )


def open_dataset(
    uri: str | Path,
    *,
    key: bytes | None = None,
    fields: Sequence[str] | None = None,
    chat: str = "auto",
    skip_bad: bool = False,
) -> Dataset:
    """Open conversations or texts.

    The name decides on the format: ``.csv``, ``.tsv``, ``.txt``, each also with ``.gz``; ``.parquet``; ``.arrow``,
    ``.arrows``, ``.feather`` and ``.ipc``; a folder that Hugging Face ``save_to_disk`` wrote; ``.json`` that holds an
    array; any other name is JSONL. JSON is plain or ``.gz``.

    Args:
        uri: The file or folder.
        key: The dataset key (32 bytes). With it a record's id is a keyed digest of its content; without it ``r<line>``.
        fields: Top-level columns that hold the text, for rows of no known shape.
        chat: ``messages``, ``sharegpt``, ``prompt``, ``instruction`` or ``text``; ``auto`` decides on the first 100
            records, and :attr:`Dataset.chat` says what it chose. ``any`` does as well, and takes every string of each
            row where none of them fits: enough to scan by.
        skip_bad: Leave out what cannot be read, instead of ending with an error. A scan reports what was left out.

    Raises:
        InvalidInput: The file is missing or empty, a row is unreadable, or no shape fits. The message names file and
            line and never quotes the content.
        MissingExtraError: The format needs the extra ``arrow``.
    """
    path = Path(uri)
    if key is not None and len(key) != KEY_SIZE:
        raise InvalidInput(f"dataset key: expected {KEY_SIZE} bytes, found {len(key)}")
    sample: list[dict[str, Any]] = []
    for row in islice(open_rows(path).read(), None if skip_bad else _SAMPLE):
        if isinstance(row, Row):
            sample.append(row.values)
        elif not skip_bad:
            raise _bad_row(path, row)
        if len(sample) == _SAMPLE:
            break
    if not sample:
        raise InvalidInput(f"{path}: the dataset is empty", next_step="give a file with one JSON object a line")
    if fields is not None:
        if chat != "auto" or not fields or len(set(fields)) != len(fields):
            raise InvalidInput("name either the chat form or the text columns, each column once")
        return Dataset(path, chat=ChatForm.FIELDS, columns=tuple(fields), key=key, skip_bad=skip_bad)
    try:
        form = _form(sample, chat)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.what}", why=error.why, next_step=error.next_step) from None
    return Dataset(path, chat=form, key=key, skip_bad=skip_bad)


def open_rows(path: Path) -> RowFile:
    """Return the reader that the name of ``path`` asks for.

    Raises:
        InvalidInput: The file is not what its name says.
        MissingExtraError: The format needs the extra ``arrow``.
    """
    ending = plain_suffix(path)
    if ending in {".csv", ".tsv"}:
        return Csv(path, separator="," if ending == ".csv" else "\t")
    if ending == ".txt":
        return Paragraphs(path)
    if ending == ".json" and holds_array(path):
        return JsonArray(path)
    return open_table(path) or JsonLines(path)


def _form(sample: list[dict[str, Any]], name: str) -> ChatForm:
    if name in {"auto", "any"}:
        try:
            return recognise_form(sample)
        except InvalidInput:
            if name == "auto":
                raise
            return ChatForm.ANY
    known = [form.value for form in ChatForm if form not in {ChatForm.FIELDS, ChatForm.ANY}]
    if name not in known:
        raise InvalidInput(f"unknown chat form: expected auto, any or one of {', '.join(known)}, found {name!r}")
    return ChatForm(name)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", why=error.strerror or "", next_step="check the path") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _bad_row(path: Path, row: BadRow) -> InvalidInput:
    return InvalidInput(
        f"{path.name}:{row.number}: expected {row.expected}",
        why=row.why,
        next_step="repair or remove it, or skip bad rows",
    )


def canonical_row(row: dict[str, JsonValue]) -> bytes:
    """Return a row in canonical JSON (RFC 8785).

    orjson with sorted keys writes the same where no float, no integer beyond 2^53 and no character beyond the basic
    plane occurs; where one may occur, the slow way decides.

    Raises:
        InvalidInput: The row has no canonical form.
    """
    try:
        quick = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return canonical_json(row)
    return canonical_json(row) if _UNSURE.search(quick) else quick


class _Names:
    """Gives each record its id: base32 of the first 20 bytes of HMAC(K_id, canonical row), repeats numbered from 2."""

    def __init__(self, key: bytes | None) -> None:
        self._key = hkdf_sha256(key, info=b"stanch/record-id/v1", length=32) if key is not None else None
        self._seen = set[bytes]()
        self._repeats: dict[bytes, int] = {}

    def of(self, line: int, row: dict[str, JsonValue]) -> str:
        if self._key is None:
            return f"r{line}"
        digest = hmac_sha256(self._key, canonical_row(row))[:20]
        name = base64.b32encode(digest).decode()
        if digest not in self._seen:
            self._seen.add(digest)
            return name
        count = self._repeats[digest] = self._repeats.get(digest, 1) + 1
        return f"{name}-{count}"
