"""Frozen dataclasses to plain JSON values and back, with no field lost, invented or silently converted."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from stanch.errors import InvalidInput
from stanch.terms import JsonValue

T = TypeVar("T")


def to_json(value: object) -> dict[str, JsonValue]:
    """Return a dataclass as JSON objects, lists, strings and numbers."""
    plain = _plain(msgspec.to_builtins(value, str_keys=True))
    if not isinstance(plain, dict):
        raise InvalidInput(f"not a JSON object: {type(value).__name__}")
    return plain


def _plain(value: Any) -> JsonValue:  # noqa: ANN401 - what msgspec.to_builtins gives: JSON values, and tuples
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    scalar: JsonValue = value
    return scalar


def from_json(kind: type[T], value: Mapping[str, JsonValue], *, what: str) -> T:
    """Read a dataclass strictly: right types, no unknown field, no missing one, numbers finite.

    Raises:
        InvalidInput: Names the first field that is wrong.
    """
    try:
        result = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what}: {error}") from error
    difference = first_difference(to_json(result), dict(value))
    if difference is not None:
        raise InvalidInput(f"{what}: field {difference} is unknown, missing or not in its normal form")
    return result


def first_difference(mine: JsonValue, other: JsonValue, *, tolerance: float = 0.0, path: str = "") -> str | None:
    """Return the dotted path of the first place where two JSON values differ, or None.

    Args:
        mine: One value.
        other: The other value.
        tolerance: Largest difference of two numbers that counts as equal, absolute below 1 and relative above.
        path: Where the two values stand.
    """
    if isinstance(mine, dict) and isinstance(other, dict):
        for name in [*mine, *(name for name in other if name not in mine)]:
            here = f"{path}.{name}" if path else name
            if name not in mine or name not in other:
                return here
            found = first_difference(mine[name], other[name], tolerance=tolerance, path=here)
            if found is not None:
                return found
        return None
    if isinstance(mine, list) and isinstance(other, list):
        if len(mine) != len(other):
            return f"{path}[{min(len(mine), len(other))}]"
        found_all = (
            first_difference(a, b, tolerance=tolerance, path=f"{path}[{index}]")
            for index, (a, b) in enumerate(zip(mine, other, strict=True))
        )
        return next((found for found in found_all if found is not None), None)
    return None if _same_scalar(mine, other, tolerance) else path or "(whole value)"


def _same_scalar(mine: JsonValue, other: JsonValue, tolerance: float) -> bool:
    if isinstance(mine, bool) or isinstance(other, bool):
        return mine is other
    if isinstance(mine, int | float) and isinstance(other, int | float):
        return math.isfinite(mine) and abs(mine - other) <= tolerance * max(1.0, abs(mine))
    return mine == other
