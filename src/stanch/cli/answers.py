"""Answers of a model in a file: JSON objects with "text", or plain lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stanch.errors import InvalidInput

_MAX_LINE = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the line it stands in."""

    line: int
    text: str
    is_json: bool

    def written(self, released: str) -> bytes:
        """Return a line of the file's form that holds what was released of the answer."""
        # In JSON, the escape that stands for a lone surrogate is just what the error handler writes.
        line = json.dumps({"text": released}, ensure_ascii=False) if self.is_json else released
        return line.encode(errors="backslashreplace") + b"\n"


def read_answers(file: BinaryIO, source: str) -> Iterator[Answer]:
    """Yield the answers of the lines that are not blank."""
    is_json: bool | None = None
    number = 0
    while line := file.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise InvalidInput(f"{source}: line {number} has more than {_MAX_LINE} bytes")
        if not line.strip():
            continue
        if is_json is None:
            is_json = line.lstrip().startswith(b"{")
        what = f"{source}: line {number}"
        yield Answer(number, _json_text(line, what) if is_json else _plain_text(line, what), is_json)


def _json_text(line: bytes, what: str) -> str:
    from stanch.crypto import parse_json  # noqa: PLC0415 - keeps `stanch --help` light

    row = parse_json(line, what=what, allow_halves=True)
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise InvalidInput(f'{what}: expected an object with a string "text"')
    return text


def _plain_text(line: bytes, what: str) -> str:
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{what}: not UTF-8") from None
