"""Strict reading of a model server's JSON: each leaf is taken by name and type, and what nobody takes is dropped."""

import math
from collections import Counter
from collections.abc import Iterator

from stanch.crypto import parse_json
from stanch.errors import InvalidInput
from stanch.gateway.problem import UpstreamProtocol
from stanch.terms import JsonValue

MAX_COUNT = 2**31


class Fields:
    """One JSON object of an answer. What is left when it is closed is counted under its path, and goes nowhere.

    Names of unknown fields are the model server's text, so they are never kept: a path is one that this code wrote.
    """

    def __init__(self, value: JsonValue, path: str, dropped: Counter[str]) -> None:
        if not isinstance(value, dict):
            raise unexpected(path)
        self._left = {name: item for name, item in value.items() if item is not None}
        self._path = path
        self._dropped = dropped

    def has(self, name: str) -> bool:
        """Say whether a field is there and not null."""
        return name in self._left

    def skip(self, *names: str) -> None:
        """Leave out known fields that the gateway writes itself."""
        for name in names:
            self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """Take a string."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise unexpected(f"{self._path}.{name}")
        return value

    def closed(self, name: str, allowed: frozenset[str]) -> str | None:
        """Take a member of a closed set; nothing between the quotes is none, as some servers write it."""
        value = self.text(name) or None
        if value is not None and value not in allowed:
            raise unexpected(f"{self._path}.{name}")
        return value

    def count(self, name: str, *, below: int = MAX_COUNT) -> int | None:
        """Take an integer from 0 up to but without ``below``."""
        value = self._left.pop(name, None)
        if value is not None and (type(value) is not int or not 0 <= value < below):
            raise unexpected(f"{self._path}.{name}")
        return value

    def number(self, name: str) -> float | None:
        """Take a finite number."""
        return _number(self._left.pop(name, None), f"{self._path}.{name}")

    def texts(self, name: str, *, most: int) -> list[str]:
        """Take a list of strings; a missing one is empty."""
        values = self._list(name, most)
        if not all(isinstance(value, str) for value in values):
            raise unexpected(f"{self._path}.{name}")
        return [str(value) for value in values]

    def numbers(self, name: str, *, most: int) -> list[float | None]:
        """Take a list of finite numbers and nulls; a missing one is empty."""
        return [_number(value, f"{self._path}.{name}") for value in self._list(name, most)]

    def tables(self, name: str, *, most: int) -> list[dict[str, float]]:
        """Take a list of objects that give numbers to strings; a missing one and a null are empty."""
        tables = []
        for value in self._list(name, most):
            if not isinstance(value, dict | None):
                raise unexpected(f"{self._path}.{name}")
            numbers = {key: _number(item, f"{self._path}.{name}") for key, item in (value or {}).items()}
            tables.append({key: number for key, number in numbers.items() if number is not None})
        return tables

    def value(self, name: str) -> JsonValue:
        """Take whatever is there, for a caller that checks it."""
        return self._left.pop(name, None)

    def object(self, name: str) -> "Fields | None":
        """Take an object."""
        value = self._left.pop(name, None)
        return None if value is None else Fields(value, f"{self._path}.{name}", self._dropped)

    def objects(self, name: str, *, most: int) -> Iterator["Fields"]:
        """Take a list of objects; a missing one is empty."""
        return (Fields(item, f"{self._path}.{name}", self._dropped) for item in self._list(name, most))

    def text_or_parts(self, name: str) -> str | None:
        """Take a string, or the strings of a list of text parts, joined."""
        if not isinstance(self._left.get(name), list):
            return self.text(name)
        texts = []
        for part in self.objects(name, most=256):
            if part.closed("type", frozenset({"text"})) is None or (text := part.text("text")) is None:
                raise unexpected(f"{self._path}.{name}")
            part.close()
            texts.append(text)
        return "".join(texts)

    def _list(self, name: str, most: int) -> list[JsonValue]:
        value = self._left.pop(name, [])
        if not isinstance(value, list) or len(value) > most:
            raise unexpected(f"{self._path}.{name}")
        return value

    def close(self) -> None:
        """Count what nobody took."""
        if self._left:
            self._dropped[self._path] += len(self._left)


def read_fields(text: str, dropped: Counter[str]) -> Fields:
    """Read the JSON text of an answer or of one event: RFC 8259, with duplicate keys refused.

    Raises:
        UpstreamProtocol: It is no such JSON object.
    """
    try:
        value = parse_json(text.encode(), what="answer", allow_halves=True)
    except (InvalidInput, UnicodeEncodeError):
        raise UpstreamProtocol("the model's server sent something that is not strict JSON") from None
    return Fields(value, "$", dropped)


def _number(value: JsonValue, path: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise unexpected(path)
    return float(value)


def unexpected(path: str) -> UpstreamProtocol:
    """Return the error for a value that is not what its place in an answer says; it shows the place alone."""
    return UpstreamProtocol("the model's server sent an unexpected value", why=f"at {path}")
