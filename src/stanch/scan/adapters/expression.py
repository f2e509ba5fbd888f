"""Foreign expressions in RE2 syntax: what a match of them looks like, as far as windows and anchors need to know.

RE2 itself has accepted an expression before it is read here, so the reader only follows the syntax
(https://github.com/google/re2/wiki/Syntax). Every match of the expression is described by what :func:`read_expression`
returns; the reverse need not hold.
"""

import re

import re2

from stanch.errors import InvalidInput
from stanch.scan.adapters.factor import ENDLESS, NOTHING, Part, byte_part, either, join, repeat

_MOST_CHARACTERS, _DEEPEST = 20_000, 60
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d{1,4})(?:(,)(\d{0,4}))?\})[?+]?")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAMED = re.compile(r"\(\?P?<(\w+)>")
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_ALL = (1 << 256) - 1


def _mask(*ranges: tuple[str, str] | str) -> int:
    places = (range(ord(r[0]), ord(r[-1]) + 1) for r in ranges)
    return sum(1 << place for part in places for place in part)


_UPPER, _LOWER = _mask("AZ"), _mask("az")
_CLASSES = {"d": _mask("09"), "w": _mask("09", "AZ", "az", "_"), "s": _mask("\t\n", "\f\r", " ")}
_NAMES = {
    "alnum": _mask("09", "AZ", "az"), "alpha": _mask("AZ", "az"), "ascii": _mask("\0\x7f"), "blank": _mask("\t", " "),
    "cntrl": _mask("\0\x1f", "\x7f"), "digit": _mask("09"), "graph": _mask("!~"), "lower": _mask("az"),
    "print": _mask(" ~"), "punct": _mask("!/", ":@", "[`", "{~"), "space": _mask("\t\r", " "), "upper": _mask("AZ"),
    "word": _mask("09", "AZ", "az", "_"), "xdigit": _mask("09", "AF", "af"),
}  # fmt: skip


class Expression:
    """A foreign expression that RE2 has accepted.

    Attributes:
        text: The expression; its group ``v`` is the value where one group was asked for.
        whole: What is known of every match.
    """

    def __init__(self, text: str, group: int = 0) -> None:
        """Read an expression; ``group`` is the number of the group that holds the value, or 0.

        Raises:
            InvalidInput: Not RE2 syntax, not ASCII, too long, or there is no such group.
        """
        if len(text) > _MOST_CHARACTERS or not text.isascii():
            raise InvalidInput(f"an expression has at most {_MOST_CHARACTERS} characters, all of them ASCII")
        compile_foreign(text)
        reader = _Reader(text)
        self.whole = reader.alternatives(0)
        if not 0 <= group <= len(reader.groups):
            raise InvalidInput(f"the expression has no group {group}")
        self.text = text
        if group:
            place = reader.groups[group - 1]
            named = _NAMED.match(text, place)
            self.text = f"{text[:place]}(?P<v>{text[named.end() if named else place + 1 :]}"


def compile_foreign(text: str) -> "re2._Regexp":
    """Compile an expression over bytes, leftmost-first as its authors expect.

    Raises:
        InvalidInput: It is not RE2 syntax.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    try:
        return re2.compile(text.encode("latin-1"), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidInput("the expression is not RE2 syntax", why=str(error)[:200]) from error


class _Reader:
    """Follows one expression from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.groups: list[int] = []
        self._place = 0
        self._flags: frozenset[str] = frozenset()

    def alternatives(self, depth: int) -> Part:
        """Read up to the end of the group or of the expression; the flags set inside end there."""
        if depth > _DEEPEST:
            raise InvalidInput(f"an expression has at most {_DEEPEST} groups inside each other")
        outside = self._flags
        branches: list[Part] = []
        parts: list[Part] = []
        while self._place < len(self.text) and self.text[self._place] != ")":
            if self.text[self._place] == "|":
                self._place += 1
                branches.append(join([NOTHING, *parts]))
                parts = []
            else:
                parts += self._piece(depth)
        self._flags = outside
        return either([*branches, join([NOTHING, *parts])])

    def _piece(self, depth: int) -> list[Part]:
        """Read an atom and its quantifiers."""
        if self.text.startswith("\\Q", self._place):
            return self._quoted()
        part = self._atom(depth)
        pieces = [part]
        while match := _QUANTIFIER.match(self.text, self._place):
            self._place = match.end()
            if match[1]:
                low, high = {"*": (0, ENDLESS), "+": (1, ENDLESS), "?": (0, 1)}[match[1]]
            else:
                low = int(match[2])
                high = low if match[3] is None else int(match[4]) if match[4] else ENDLESS
            # The copies that every match has come first, so that a literal can go on into them.
            further = high if high == ENDLESS else high - low
            pieces = [repeat(part, low, low), repeat(part, 0, further)] if 0 < low < high else [repeat(part, low, high)]
            part = join(pieces)
        return pieces

    def _quoted(self) -> list[Part]:
        stop = self.text.find("\\E", self._place)
        literal = self.text[self._place + 2 : stop if stop >= 0 else None]
        self._place = stop + 2 if stop >= 0 else len(self.text)
        return [self._byte(ord(character)) for character in literal]

    def _atom(self, depth: int) -> Part:
        character = self.text[self._place]
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._cased(self._class())
        if character == "\\":
            return self._escape()
        self._place += 1
        if character in "^$":
            return NOTHING
        if character == ".":
            return byte_part(_ALL if "s" in self._flags else _ALL & ~(1 << 10))
        return self._byte(ord(character))

    def _group(self, depth: int) -> Part:
        if match := _FLAGS.match(self.text, self._place):
            flags = (self._flags | set(match[1])) - set(match[2] or "")
            self._place = match.end()
            if match[3] == ")":
                self._flags = flags
                return NOTHING
            outside, self._flags = self._flags, flags
            part = self.alternatives(depth + 1)
            self._flags = outside
        else:
            self.groups.append(self._place)
            named = _NAMED.match(self.text, self._place)
            self._place = named.end() if named else self._place + 1
            part = self.alternatives(depth + 1)
        self._place += 1
        return part

    def _escape(self) -> Part:
        letter = self.text[self._place + 1]
        if letter in "bBAz":
            self._place += 2
            return NOTHING
        mask = self._escaped()
        return self._byte(mask.bit_length() - 1) if mask.bit_count() == 1 else self._cased(mask)

    def _escaped(self) -> int:
        """Read an escape that stands for one byte of a set."""
        letter = self.text[self._place + 1]
        self._place += 2
        if letter.lower() in _CLASSES:
            mask = _CLASSES[letter.lower()]
            return mask if letter.islower() else _ALL & ~mask
        if letter in "pP":
            stop = self.text.index("}", self._place) if self.text[self._place] == "{" else self._place
            self._place = stop + 1
            return _ALL
        if letter == "C":
            return _ALL
        if letter == "x":
            match = re.compile(r"\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2})").match(self.text, self._place)
            digits = "" if match is None else match[1] or match[2]
            self._place = self._place if match is None else match.end()
            return self._point(int(digits or "0", 16))
        if letter in "01234567":
            match = re.compile(r"[0-7]{1,3}").match(self.text, self._place - 1)
            digits = letter if match is None else match[0]
            self._place += len(digits) - 1
            return self._point(int(digits, 8))
        return self._point(_CONTROL.get(letter, ord(letter)))

    @staticmethod
    def _point(point: int) -> int:
        # Over bytes RE2 matches nothing above 0xFF; the folded text has ASCII quotes and spaces there.
        return 1 << min(point, 256)

    def _class(self) -> int:
        """Read a class in brackets."""
        text, mask = self.text, 0
        self._place += 1
        negated = text.startswith("^", self._place)
        self._place += negated
        first = self._place
        while text[self._place] != "]" or self._place == first:
            if match := _POSIX.match(text, self._place):
                named = _NAMES[match[2]]
                mask |= _ALL & ~named if match[1] else named
                self._place = match.end()
                continue
            start = self._member()
            if start.bit_count() == 1 and text[self._place] == "-" and text[self._place + 1] != "]":
                self._place += 1
                stop = self._member()
                mask |= (stop << 1) - start
            else:
                mask |= start
        self._place += 1
        return self._both_cases(mask, negated=negated)

    def _member(self) -> int:
        if self.text[self._place] == "\\":
            return self._escaped()
        self._place += 1
        return 1 << ord(self.text[self._place - 1])

    def _both_cases(self, mask: int, *, negated: bool) -> int:
        # RE2 closes a class under case before it negates it.
        if "i" in self._flags:
            mask = _swapped(mask)
        return _ALL & (~mask if negated else mask)

    def _cased(self, mask: int) -> Part:
        return byte_part(_swapped(mask) if "i" in self._flags else mask)

    def _byte(self, byte: int) -> Part:
        if "i" in self._flags and byte < 0x80 and chr(byte).isalpha():
            return byte_part(_swapped(1 << byte), caseless=True)
        return byte_part(1 << byte & _ALL)


def _swapped(mask: int) -> int:
    """Return a mask with both cases of each ASCII letter in it."""
    return mask | (mask & _UPPER) << 32 | (mask & _LOWER) >> 32
