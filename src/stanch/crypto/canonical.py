"""Canonical JSON (RFC 8785) and a strict reader for JSON from outside.

Numbers: integers within ±(2^53 − 1), and finite floats in the ECMAScript form that RFC 8785 section 3.2.2.3 demands.
"""

import json
import math
import re
from json.encoder import encode_basestring
from typing import Any, NoReturn

import msgspec

from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_MAX_INTEGER = 2**53 - 1
_MAX_DEPTH = 64
_ENCODER = msgspec.json.Encoder(order="deterministic")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def canonical_json(value: JsonValue) -> bytes:
    """Serialise ``value`` as RFC 8785 says: keys sorted by UTF-16 code units, no spaces, shortest numbers.

    Raises:
        InvalidInput: A number out of range or not finite, a key that is no string, a lone surrogate, or another type.
    """
    try:
        return _ENCODER.encode(value) if _is_simple(value, 0) else _write(value, 0).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("cannot write canonical JSON: a string holds a lone surrogate") from error


def _is_simple(value: object, depth: int) -> bool:
    """Say whether a value is one of which msgspec writes the same: of plain types, ASCII keys and no floats."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -_MAX_INTEGER <= value <= _MAX_INTEGER  # type: ignore[operator]  # kind says that it is an int
    if depth >= _MAX_DEPTH:
        return False  # what it holds may be too deep
    if kind is dict:
        # ASCII text has the same order in code points, which msgspec sorts by, and in UTF-16.
        return all(
            type(key) is str and key.isascii() and _is_simple(item, depth + 1)
            for key, item in value.items()  # type: ignore[attr-defined]  # kind says that it is a dict
        )
    return kind is list and all(_is_simple(item, depth + 1) for item in value)  # type: ignore[attr-defined]  # same


def _write(value: Any, depth: int) -> str:  # noqa: ANN401, C901 - walks any JSON value; one case a type
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"cannot write canonical JSON: nested deeper than {_MAX_DEPTH}")
    match value:
        case str():
            return encode_basestring(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            if abs(value) > _MAX_INTEGER:
                raise InvalidInput("cannot write canonical JSON: an integer is outside ±(2^53 − 1)")
            return str(int(value))
        case float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise InvalidInput("cannot write canonical JSON: a key is not a string")
            items = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
            return "{" + ",".join(f"{encode_basestring(key)}:{_write(item, depth + 1)}" for key, item in items) + "}"
    raise InvalidInput(f"cannot write canonical JSON: a value is of type {type(value).__name__}")


def _number(value: float) -> str:
    """Return the ECMAScript ``Number::toString`` of a finite float (ECMA-262, section 6.1.6.1.20)."""
    if not math.isfinite(value):
        raise InvalidInput("cannot write canonical JSON: a number is not finite")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python's repr gives the same shortest digits; only their layout differs. value = 0.<digits> · 10^point.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    padded = whole + fraction
    digits = padded.strip("0")
    point = len(whole) + int(exponent or 0) - (len(padded) - len(padded.lstrip("0")))
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + power


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int | float:
    """Read an integer; beyond 2^53 − 1 only the canonical form of a float is one without loss."""
    if len(text) <= 22:  # the canonical form of a float has at most 21 digits and a sign; longer ones have an exponent
        value = int(text)
        if abs(value) <= _MAX_INTEGER:
            return value
        if _number(float(value)) == text:
            return float(value)
    raise ValueError("an integer is outside ±(2^53 − 1)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def parse_json(data: bytes, *, what: str, max_bytes: int = 16 << 20, allow_halves: bool = False) -> JsonValue:
    """Read JSON from outside, strictly: Unicode, no duplicate keys, finite numbers, bounded size and depth.

    Args:
        data: The bytes.
        what: How to call them in an error message, usually the file's name.
        max_bytes: Largest accepted size.
        allow_halves: Whether an escape may write half a surrogate pair, which no UTF-8 can say: models do, and streams
            cut pairs in two.

    Raises:
        InvalidInput: The bytes are not such JSON. The message never quotes them.
    """
    if len(data) > max_bytes:
        raise InvalidInput(f"{what}: expected at most {max_bytes} bytes of JSON, found {len(data)}")
    try:
        value: JsonValue = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer
        )
        _check_values(value, what)
        if not allow_halves and _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise InvalidInput(f"{what}: JSON is nested too deeply") from error
    except ValueError as error:
        position = f" at byte {_byte(error)}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInput(f"{what}: not valid JSON{position}", why=_reason(error)) from error
    return value


def _byte(error: json.JSONDecodeError) -> int:
    """Return the byte where parsing failed; the decoder counts characters."""
    return len(error.doc[: error.pos].encode())


def _reason(error: ValueError) -> str:
    """Return why parsing failed, without any of the parsed bytes."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    if isinstance(error, UnicodeEncodeError):
        return "a text holds half a surrogate pair"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _check_values(value: JsonValue, what: str, depth: int = 0) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{what}: a number of JSON is too large")
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"{what}: JSON is nested deeper than {_MAX_DEPTH}")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _check_values(child, what, depth + 1)
