"""Seeded mutations of valid inputs: of their bytes, of their lines, and of their JSON values, signed payloads too."""

import base64
import contextlib
import json
import random
from collections.abc import Iterator, Sequence

MOST = 1 << 16
"""Bytes of the longest mutated input."""

_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"", b"0", b"-1", b"1e999", b"-0", b"0.1", b"9007199254740993", b"18446744073709551616", b"9" * 400,
    b"9" * 5000, b"NaN", b"null", b"true", b'""', b'"\\ud800"', b"\\u0000", b"\xff\xfe", b"\xed\xa0\x80", b"\x00",
    b"\r", b"\n", b"\r\n", b"\n\n", b" ", b"=", b",", b":", b'"', b"[", b"]", b"{", b"}", b"\xe2\x80\x94 ",
    b"\xef\xbb\xbf", b"--- ", b"!!int ''", b"!!timestamp x", b"? [a]\n: b\n", b"&a *a", b"'''", b"[[x]]\n",
    b"x = 1\n", b"%00", b"/../", b"+", b"~",
)  # fmt: skip
_DEEP = ((b"[", b"]"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"(", b")"), (b"a.", b""), (b"- ", b""))
_VALUES = (
    None, True, False, 0, -1, 1.5, 2**53 - 1, 2**53, 2**63, 2**64, 10**400, float("inf"), "", "0", "-1", "a" * 300,
    "\ud800", "\x00", "sha256:", "é", [], [[]], {}, {"a": {}}, [None], ["a", 1],
)  # fmt: skip
_PAYLOADS = ("payload",)


def mutations(seeds: Sequence[bytes], count: int, *, name: str) -> Iterator[bytes]:
    """Yield ``count`` mutated inputs, none of them a seed; the same ones for the same seeds, count and name."""
    rng = random.Random(f"stanch/fuzz/v1 {name}")
    known, made, tries = set(seeds), 0, 0
    while made < count:
        tries += 1
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = _mutated(data, seeds, rng)
        data = data[:MOST]
        if data not in known or tries > 50 * count:
            made += 1
            yield data


def _mutated(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    value = _json_of(data) if rng.random() < 0.5 else None
    if value is not None:
        return _changed_json(value, rng)
    return rng.choice(_OPERATIONS)(data, seeds, rng)


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 32, 64, 1024)))


def _flip_bit(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    if not data:
        return b"\x00"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_byte(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _truncate(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _drop(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + data[stop:]


def _double(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    start, stop = _piece(data, rng)
    return data[:stop] + data[start:]


def _splice(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(seeds)
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _write_integer(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    width, place = rng.choice((1, 2, 4, 8)), _place(data, rng)
    number = rng.choice(_INTEGERS) & (1 << 8 * width) - 1
    return data[:place] + number.to_bytes(width, rng.choice(("little", "big"))) + data[place + width :]


def _insert_text(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.choice(_TEXTS) + data[place:]


def _replace_number(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    starts = [at for at in range(len(data)) if data[at : at + 1].isdigit() and not data[at - 1 : at].isdigit()]
    if not starts:
        return _insert_text(data, _seeds, rng)
    start = stop = rng.choice(starts)
    while data[stop : stop + 1].isdigit():
        stop += 1
    return data[:start] + rng.choice(_TEXTS[1:10]) + data[stop:]


def _nest(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    opening, closing = rng.choice(_DEEP)
    depth, place = rng.choice((65, 600, 3000, 12_000)), _place(data, rng)
    return data[:place] + opening * depth + b"1" + closing * depth + data[place:]


def _shuffle_lines(data: bytes, _seeds: Sequence[bytes], rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return _drop(data, _seeds, rng)
    at = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            lines.pop(at)
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case _:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


_OPERATIONS = (
    _flip_bit, _flip_bit, _set_byte, _truncate, _drop, _double, _splice, _write_integer, _insert_text, _replace_number,
    _nest, _shuffle_lines,
)  # fmt: skip


def _json_of(data: bytes) -> object:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, dict | list):
            return value
    return None


def _changed_json(value: object, rng: random.Random) -> bytes:
    """Change one value of a JSON document and write it in canonical form, so that it passes the first gate."""
    places = list(_walk(value))
    holder, key = rng.choice(places) if places else ([], None)
    if key is None:
        return b"{}"
    inner = holder[key]
    if key in _PAYLOADS and isinstance(inner, str):
        with contextlib.suppress(ValueError):
            document = _json_of(base64.b64decode(inner, validate=True))
            if document is not None:
                holder[key] = base64.b64encode(_changed_json(document, rng)).decode()
                return _written(value)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[f"{key}x"] = inner
        case 2 if isinstance(holder, list):
            holder.insert(rng.randrange(len(holder)), inner)
        case 3 if isinstance(inner, int) and not isinstance(inner, bool):
            holder[key] = inner + rng.choice((1, -1, 2**32))
        case 4 if isinstance(inner, str) and inner:
            place = rng.randrange(len(inner))
            holder[key] = inner[:place] + rng.choice("0aZ é-_.\n\x00") + inner[place + 1 :]
        case 5:
            other, there = rng.choice(places)
            holder[key] = other[there] if other is not holder else inner
        case _:
            holder[key] = rng.choice(_VALUES)
    return _written(value)


def _walk(value: object) -> Iterator[tuple[object, object]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield value, key
        yield from _walk(item)


def _written(value: object) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()
    except (ValueError, RecursionError):  # a ring, or a lone surrogate
        with contextlib.suppress(ValueError, RecursionError):
            return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return b"{}"
