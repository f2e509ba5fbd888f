"""Whether a parsed JSON line holds all that the line says: a parser keeps one of two equal keys, and rounds numbers."""

import json
from decimal import Decimal
from typing import Any, NoReturn

import orjson

_SAME_KEY = "a key stands twice"
_NUMBER = "a number has more digits than 64 bits hold"
_DEEP = "it is nested too deep"
_LONG = b"0" * 19  # the shortest run of digits that can be beyond 64 bits
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 0x80 else 0x20 for byte in range(256))
_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1


def lost_in(line: bytes, values: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return what of a JSON line is not in ``values``, which orjson read from it; empty if nothing is lost.

    A line is read a second time only where its colons do not add up (a key that is lost takes one with it, and none is
    hidden unless one is written as an escape), or where a run of digits is long.
    """
    try:
        written = orjson.dumps(values)
    except TypeError:  # nested deeper than orjson writes
        return _DEEP
    if written == line:
        return ""
    escaped = b"\\" in line and b"\\u003" in line
    if escaped or line.count(b":") != written.count(b":") or _LONG in line.translate(_DIGITS):
        return _lost(line)
    return ""


class _LostError(Exception):
    pass


def _lost(line: bytes) -> str:
    try:
        json.loads(line, object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
    except _LostError as lost:
        return str(lost)
    except RecursionError:
        return _DEEP
    except ArithmeticError:  # an exponent that no decimal has
        return _NUMBER
    return ""


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _LostError(_SAME_KEY)


def _integer(digits: str) -> None:
    if len(digits) > len(str(_HIGHEST)) or not _LOWEST <= int(digits) <= _HIGHEST:
        _refuse(digits)


def _float(digits: str) -> None:
    if sum(digit.isdigit() for digit in digits) >= len(_LONG) and Decimal(repr(float(digits))) != Decimal(digits):
        _refuse(digits)


def _refuse(_digits: str) -> NoReturn:
    raise _LostError(_NUMBER)
