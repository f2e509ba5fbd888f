"""Writers: the rows of a derived dataset in the format that the new file's name asks for."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import orjson

from stanch.data.dataset import Dataset, open_rows
from stanch.data.lines import plain_suffix
from stanch.data.readers import Csv, JsonLines, Paragraphs
from stanch.data.readers_arrow import Table, table_format
from stanch.data.readers_json import JsonArray
from stanch.data.writers_arrow import write_table
from stanch.errors import InvalidInput

Write = Callable[[bytes], object]


def row_writer(out: Path, stream: BinaryIO, source: Dataset) -> AbstractContextManager[Write]:
    """Return a writer of rows (as JSON) to ``stream``; columns, their order and their types are those of ``source``.

    JSONL takes every row. An array is written from an array under its ending, a table from a table, CSV and TSV from
    either, paragraphs from paragraphs.

    Raises:
        InvalidInput: The format cannot hold rows of ``source``.
    """
    rows, kind = source.file, table_format(out)
    if kind is not None and isinstance(rows, Table):
        return write_table(stream, rows, kind)
    target = open_rows(out) if kind is None else None
    if isinstance(target, Csv) and isinstance(rows, Csv):
        return _csv(stream, rows.names, target.separator)
    if isinstance(target, Paragraphs) and isinstance(rows, Paragraphs):
        return nullcontext(lambda line: stream.write(_paragraph(line)))
    if isinstance(rows, JsonArray) and plain_suffix(out) == ".json":
        return _array(stream)
    if isinstance(target, JsonLines | JsonArray):
        return nullcontext(lambda line: stream.write(line + b"\n"))
    raise InvalidInput(
        f"{out}: rows of the format {source.format} cannot be written as this file",
        next_step="use the ending of the file that is read, or .jsonl",
    )


@contextmanager
def _array(stream: BinaryIO) -> Iterator[Write]:
    begun = False

    def write(line: bytes) -> None:
        nonlocal begun
        stream.write((b",\n" if begun else b"[\n") + line)
        begun = True

    yield write
    stream.write(b"\n]\n" if begun else b"[]\n")


@contextmanager
def _csv(stream: BinaryIO, names: tuple[str, ...], separator: str) -> Iterator[Write]:
    stream.write(_record(names, separator))

    def write(line: bytes) -> None:
        row = orjson.loads(line)
        if any(value for name, value in row.items() if name not in names) or not all(
            isinstance(value, str) for value in row.values()
        ):
            raise InvalidInput("a row does not fit the columns of the table", next_step="write to a .jsonl file")
        stream.write(_record(tuple(row.get(name, "") for name in names), separator))

    yield write


def _record(fields: tuple[str, ...], separator: str) -> bytes:
    quoted = [
        '"' + field.replace('"', '""') + '"' if not field or any(c in field for c in f'"\r\n{separator}') else field
        for field in fields
    ]
    return (separator.join(quoted) + "\n").encode()


def _paragraph(line: bytes) -> bytes:
    text: str = orjson.loads(line)["text"]
    if any(not part.strip() or part.endswith(b"\r") for part in text.encode().split(b"\n")):
        raise InvalidInput("a text with a blank line is no paragraph", next_step="write to a .jsonl file")
    return text.encode() + b"\n\n"
