"""The small language of anchors and byte sets, read strictly: what cannot be bounded is refused.

An anchor is a byte regular expression of finite width made of literals, byte sets, groups ``(?:a|b)`` and the
quantifiers ``?``, ``{m}`` and ``{m,n}``. A byte set is written as a class such as ``[0-9A-Za-z_-]``.
"""

import itertools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from stanch.errors import InvalidInput

MAX_WIDTH = 128
_MAX_LITERALS = 4096
_READ = 4096
"""How many anchors and sets are remembered: the rules that are shipped, and as many others as one process sees."""
_BYTES = bytes(range(256))
_DIGITS = frozenset(b"0123456789")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_TOKEN = re.compile(rb"\\.|(\[\^)?(?(1)\]?(?:\\.|[^\]\\])*\]|\[\]?(?:\\.|[^\]\\])*\])", re.DOTALL)
_QUANTIFIER = re.compile(r"\{(\d{1,3})(?:,(\d{1,3}))?\}|\?")
_ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|[^0-9A-WYZa-ce-mo-qu-z]|[dnrstw])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AnchorShape:
    r"""What is known of an anchor.

    Attributes:
        shortest: Its least width in bytes; ``longest`` is its greatest.
        literals: The strings it stands for, if they can be listed.
        mirrored: An expression of the mirrored strings: classes of ``\xhh``, groups and quantifiers.
        members: The bytes that may stand in it; ``inner`` those that may stand before another of them.
        digits: How many digits stand in it at least.
    """

    shortest: int
    longest: int
    literals: tuple[bytes, ...] | None
    mirrored: bytes
    members: frozenset[int]
    inner: frozenset[int]
    digits: int


@lru_cache(_READ)
def parse_byte_set(text: str) -> bytes:
    """Read a class such as ``[0-9A-F]`` and return its bytes in order; the empty text is the empty set.

    Raises:
        InvalidInput: Not a class, or one that holds the separator byte 0x1E.
    """
    if not text:
        return b""
    if _CLASS.fullmatch(text) is None:
        raise InvalidInput(f"not a byte set: {text!r}", next_step="write a class such as [0-9A-Za-z_]")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python may read as an operation on sets one day means two things
            pattern = re.compile(text.encode("latin-1"))
    except (re.error, UnicodeEncodeError, FutureWarning) as error:
        raise InvalidInput(f"not a byte set: {text!r}", why=str(error)) from error
    members = b"".join(pattern.findall(_BYTES))
    if not text.startswith("[^") and b"\x1e" in members:
        raise InvalidInput(f"byte set {text!r} holds the separator byte 0x1E")
    return members.replace(b"\x1e", b"")


def outside(members: bytes) -> bytes:
    """Return an expression of one byte that is none of these, in the syntax of both engines; empty for no bytes."""
    return b"[^" + b"".join(b"\\x%02x" % byte for byte in members) + b"]" if members else b""


def without_separator(expression: bytes) -> bytes:
    """Return an anchor whose negated classes exclude the separator, as :func:`parse_byte_set` reads them."""
    return _TOKEN.sub(lambda match: match[0].replace(b"[^", b"[^\\x1e", 1) if match[1] else match[0], expression)


def parse_anchor(text: str) -> AnchorShape:
    """Read an anchor and return its shape.

    Raises:
        InvalidInput: It uses something outside the language above, or is empty, or wider than 128 bytes.
    """
    shape = read_anchor(text)
    if shape.shortest == 0 or shape.longest > MAX_WIDTH:
        raise InvalidInput(f"anchor {text!r}: expected a width of 1 to {MAX_WIDTH} bytes, found {shape.longest}")
    return shape


@lru_cache(_READ)
def read_anchor(text: str) -> AnchorShape:
    """Read an anchor of any width and return its shape.

    Raises:
        InvalidInput: It uses something outside the language above.
    """
    shape, rest = _alternatives(text, text)
    if rest:
        raise InvalidInput(f"anchor {text!r}: unexpected {rest[:1]!r}")
    return shape


def _alternatives(text: str, whole: str) -> tuple[AnchorShape, str]:
    shapes = []
    while True:
        shape, text = _sequence(text, whole)
        shapes.append(shape)
        if not text.startswith("|"):
            break
        text = text[1:]
    literals = None
    if all(shape.literals is not None for shape in shapes):
        literals = _limited(literal for shape in shapes for literal in shape.literals or ())
    if len(shapes) == 1:
        return shapes[0], text
    mirrored = b"(?:" + b"|".join(shape.mirrored for shape in shapes) + b")"
    members, inner = (
        frozenset[int]().union(*sets) for sets in zip(*((s.members, s.inner) for s in shapes), strict=True)
    )
    shortest, longest = min(shape.shortest for shape in shapes), max(shape.longest for shape in shapes)
    digits = min(shape.digits for shape in shapes)
    return AnchorShape(shortest, longest, literals, mirrored, members, inner, digits), text


def _sequence(text: str, whole: str) -> tuple[AnchorShape, str]:
    shape = AnchorShape(0, 0, (b"",), b"", frozenset(), frozenset(), 0)
    while text and text[0] not in "|)":
        atom, text = _atom(text, whole)
        match = _QUANTIFIER.match(text)
        if match is not None:
            low = 0 if match[0] == "?" else int(match[1])
            high = 1 if match[0] == "?" else int(match[2] or match[1])
            if low > high:
                raise InvalidInput(f"anchor {whole!r}: a quantifier runs backwards")
            atom, text = _repeat(atom, low, high), text[match.end() :]
        shape = _join(shape, atom)
    return shape, text


def _atom(text: str, whole: str) -> tuple[AnchorShape, str]:
    if text.startswith("(?:"):
        shape, rest = _alternatives(text[3:], whole)
        if not rest.startswith(")"):
            raise InvalidInput(f"anchor {whole!r}: a group is not closed")
        return shape, rest[1:]
    if text[0] == "[":
        match = _CLASS.match(text)
        if match is None:
            raise InvalidInput(f"anchor {whole!r}: a class is not closed")
        return _members(parse_byte_set(match[0])), text[match.end() :]
    if text[0] == "\\":
        match = _ESCAPE.match(text)
        if match is None:
            raise InvalidInput(f"anchor {whole!r}: unknown escape {text[:2]!r}")
        return _members(parse_byte_set(f"[{match[0]}]")), text[match.end() :]
    if text[0] in ".^$*+?(){}]" or not text[0].isascii() or text[0] == "\x1e":
        raise InvalidInput(
            f"anchor {whole!r}: {text[0]!r} is not allowed",
            why="an anchor has a finite width and no assertions",
            next_step="use literals, classes, (?:a|b), ?, {m} and {m,n}",
        )
    return _members(text[0].encode()), text[1:]


@lru_cache(_READ)
def _members(members: bytes) -> AnchorShape:
    literals = tuple(bytes([byte]) for byte in members) if len(members) <= 16 else None
    mirrored = b"[" + b"".join(b"\\x%02x" % byte for byte in members) + b"]"
    return AnchorShape(1, 1, literals, mirrored, frozenset(members), frozenset(), int(_DIGITS.issuperset(members)))


def _join(left: AnchorShape, right: AnchorShape) -> AnchorShape:
    literals = None
    if left.literals is not None and right.literals is not None:
        literals = _limited(a + b for a, b in itertools.product(left.literals, right.literals))
    shortest, longest = left.shortest + right.shortest, left.longest + right.longest
    inner = (left.members if right.longest else left.inner) | right.inner
    members, digits = left.members | right.members, left.digits + right.digits
    return AnchorShape(shortest, longest, literals, right.mirrored + left.mirrored, members, inner, digits)


def _repeat(atom: AnchorShape, low: int, high: int) -> AnchorShape:
    literals = None
    if atom.literals is not None and len(atom.literals) ** high <= _MAX_LITERALS:
        counts = (itertools.product(atom.literals, repeat=count) for count in range(low, high + 1))
        literals = _limited(b"".join(parts) for parts in itertools.chain.from_iterable(counts))
    mirrored = b"(?:%b){%d,%d}" % (atom.mirrored, low, high)
    inner = atom.members if high > 1 else atom.inner
    shortest, longest, digits = atom.shortest * low, atom.longest * high, atom.digits * low
    return AnchorShape(shortest, longest, literals, mirrored, atom.members, inner, digits)


def _limited(literals: Iterable[bytes]) -> tuple[bytes, ...] | None:
    """Return the distinct strings, or None where there are too many to list."""
    listed = tuple(itertools.islice(literals, _MAX_LITERALS + 1))
    return tuple(dict.fromkeys(listed)) if len(listed) <= _MAX_LITERALS else None
