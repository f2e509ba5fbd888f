"""Texts in which anchors match, one beside the other and torn: dense in digits and in what parts them."""

import random
import re._constants as sre
import re._parser as parser
from collections.abc import Iterator, Sequence

from stanch.scan.anchor import parse_byte_set
from stanch.scan.engine import Pattern

BETWEEN = [
    b" ", b"-", b".", b"0", b"07", b"1", b"9", b"12", b"000", b"(", b")", b"/", b"+", b":", b",", b"_", b"=", b"\n",
    b"a", b"Z", b"Ab", b"word", b"In the ", b"\xc3\xa9", b"x",
]  # fmt: skip


class Maker:
    """Makes texts of some patterns; the same seed makes the same."""

    def __init__(self, patterns: Sequence[Pattern], seed: int) -> None:
        self._rng = random.Random(seed)
        self._patterns = [(pattern.caseless, parser.parse(pattern.expression)) for pattern in patterns]

    def text(self) -> bytes:
        """Return up to six matches, whole or torn, with up to twenty small pieces between two."""
        rng, parts = self._rng, []
        for _ in range(rng.randint(1, 6)):
            parts += rng.choices(BETWEEN, k=rng.choice((0, 1, 3, 20)))
            caseless, parsed = rng.choice(self._patterns)
            match = self._match(parsed)
            match = rng.choice((match, match.upper(), match.lower())) if caseless else match
            parts.append(match if rng.random() < 0.9 else match[rng.randint(0, len(match)) :])
        return b"".join(parts + rng.choices(BETWEEN, k=rng.choice((0, 2, 10))))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Cut data into pieces: most are tokens, some are sentences."""
        at = 0
        while at < len(data):
            size = self._rng.choice((1, 2, 3, 5, 17, 33, 64, 200)) + self._rng.randint(0, 16)
            yield data[at : at + size]
            at += size

    def _match(self, parsed: Sequence[tuple[object, object]]) -> bytes:
        rng, made = self._rng, b""
        for operator, argument in parsed:
            if operator is sre.LITERAL:
                made += bytes([argument])
            elif operator is sre.MAX_REPEAT:
                low, high, inner = argument
                made += b"".join(self._match(inner) for _ in range(rng.randint(low, high)))
            elif operator is sre.SUBPATTERN:
                made += self._match(argument[3])
            elif operator is sre.BRANCH:
                made += self._match(rng.choice(argument[1]))
            else:
                made += bytes([rng.choice(_members(operator, argument))])
        return made


def _members(operator: object, argument: object) -> bytes:
    """Return the bytes of a class."""
    if operator is sre.NOT_LITERAL:
        return bytes(set(range(0xF5)) - {argument, 0x1E})
    assert operator is sre.IN, operator
    found = set[int]()
    for kind, value in argument:
        if kind is sre.LITERAL:
            found.add(value)
        elif kind is sre.RANGE:
            found |= set(range(value[0], value[1] + 1))
        elif kind is sre.CATEGORY:
            found |= set(parse_byte_set({sre.CATEGORY_DIGIT: r"[\d]", sre.CATEGORY_SPACE: r"[\s]"}[value]))
    negated = argument[0][0] is sre.NEGATE
    return bytes(set(range(0xF5)) - found - {0x1E} if negated else found - set(range(0xF5, 0x100)))


def random_pattern(rng: random.Random, name: str) -> Pattern:
    """Return an anchor of the shape that the accelerator for pairs of bytes is used for: few bytes, then a repeat."""

    def few() -> str:
        return "[" + "".join(f"\\x{byte:02x}" for byte in rng.sample(b"ab01. -x", rng.choice((1, 1, 1, 2, 3)))) + "]"

    def many() -> str:
        return rng.choice(("[0-9]", "[0-4]", "[0-9a-j]", "[ab01]"))

    head = "".join(rng.choice((few(), many(), many() + "?", many() + "{1,3}")) for _ in range(rng.choice((0, 0, 1, 2))))
    second, body = rng.choice(("", few())), many()
    middle = f"{body}{rng.choice(('', '{1,3}', '{3,12}'))}"
    between = rng.choice(("[ ./)-]", "[.]", "[ -]", few())) + rng.choice(("?", "{0,2}"))
    expression = f"{head}{few()}{second}{middle}(?:{between}{body}){{{rng.randint(3, 6)}}}"
    lead = rng.choice((b"", b"", b"0123456789", b"0123456789_abcdefghijklmnopqrstuvwxyz", bytes(range(0x40, 0x100))))
    return Pattern(name, expression.encode(), caseless=False, lead=lead, trail=rng.choice((b"", b"0123456789abx")))
