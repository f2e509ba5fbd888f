"""Texts that are known beforehand, found in the ``squeezed`` view: case, spacing, punctuation and look-alikes aside."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from stanch.scan.engine import EngineMaker, Pattern
from stanch.scan.fold import GAP, SEPARATOR, Folder, fold_text
from stanch.scan.found import Found
from stanch.scan.hold import LiteralPrefixes
from stanch.terms import Severity

_SLACK, _SHORT, _REMEMBERED = 4096, 24, 1 << 15
_AT_ONCE = GAP // 2  # shorter than a gap, so that text in which no literal ends need not be folded word by word
_SEPARATORS = "".join(chr(code) for code in range(128) if not chr(code).isalnum())


class LiteralSearch:
    """All literals of a policy, forwards and reversed. Nothing of them is ever written to disk."""

    def __init__(self, literals: Sequence[str], make: EngineMaker, *, kind: str, severity: Severity) -> None:
        squeezed = [fold_text(literal, "squeezed") for literal in literals]
        backwards = [literal.decode()[::-1].encode() for literal in squeezed]
        self._literals = tuple(dict.fromkeys(squeezed + backwards))
        self._kind, self._severity = kind, severity
        patterns = [
            Pattern(f"literal {number}", b"".join(b"\\x%02x" % byte for byte in literal), caseless=False)
            for number, literal in enumerate(self._literals)
        ]
        self.engine = make(patterns, cached=False)
        self.prefixes = LiteralPrefixes(self._literals)
        self.quiet = _Quiet(self.prefixes)

    @property
    def present(self) -> bool:
        """Whether there is anything to search for."""
        return bool(self._literals)

    def suspects(self, texts: Sequence[str]) -> set[int]:
        """Return the numbers of the texts that hold a literal, after one call of the engine for all of them."""
        squeezed = [fold_text(text, "squeezed") for text in texts] if self._literals else []
        ends = list(accumulate(len(text) + 1 for text in squeezed))
        return {bisect_left(ends, end) for end, _ in self.engine.scan(bytes([SEPARATOR]).join(squeezed))}

    def find(self, text: str) -> list[Found]:
        """Return the literals in a whole text."""
        folder = Folder("squeezed", gap=GAP)
        hits = self.engine.scan(folder.push(text))
        return self.found([(end, len(self._literals[index])) for end, index in hits], folder)

    def found(self, ends: Iterable[tuple[int, int]], folder: Folder) -> list[Found]:
        """Return what stands for ends of literals, each with its length, in the text that ``folder`` folds."""
        return [
            Found(*folder.offsets.span(end - size, end), self._kind, self._severity, 1.0, "literal", 1, "literal")
            for end, size in ends
        ]


class _Quiet(dict[tuple[int, str], tuple[int, int, int] | None]):
    """Short ASCII texts in which no literal ends, after a state of the automaton; None for another text.

    The value is how much of the text need not be held, how many separators that ends with, and the state after all of
    it. Remembered in memory only.
    """

    def __init__(self, prefixes: LiteralPrefixes) -> None:
        super().__init__()
        self._prefixes = prefixes

    def __missing__(self, place: tuple[int, str]) -> tuple[int, int, int] | None:
        state, text = place
        quiet = self._read(state, text) if len(text) <= GAP and text.isascii() else None
        if len(text) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[place] = quiet
        return quiet

    def _read(self, state: int, text: str) -> tuple[int, int, int] | None:
        state, ends = self._prefixes.walk(state, fold_text(text, "squeezed"))
        held, size = self._prefixes.held(state), len(text)
        letters = [at for at, character in enumerate(text) if character.isalnum()]
        if ends or held > len(letters):
            return None
        free = letters[-held] if held else size
        return free, free - len(text[:free].rstrip(_SEPARATORS)), state


class LiteralLane:
    """The literals' part of a stream: folds, finds, and says from where on text must be held."""

    def __init__(self, search: LiteralSearch) -> None:
        self._search = search
        self._folder = Folder("squeezed", gap=GAP)
        self._prefix = 0
        self._full = _SLACK  # folded bytes at which the way back is shortened
        self._final = False

    def feed(self, text: str) -> list[Found]:
        """Take the next piece of text and return the literals that end in it."""
        if len(text) <= _AT_ONCE:
            return self._feed(text)
        return [one for at in range(0, len(text), _AT_ONCE) for one in self._feed(text[at : at + _AT_ONCE])]

    def _feed(self, text: str) -> list[Found]:
        folder, search = self._folder, self._search
        if (quiet := search.quiet[self._prefix, text]) is not None and folder.skip(*quiet[:2]):
            free, _, self._prefix = quiet
            if free < len(text):
                folder.push(text[free:])
                self._trim()
            return []
        data = folder.push(text)
        if not data:
            return []
        self._prefix, ends = search.prefixes.walk(self._prefix, data)
        before = folder.folded - len(data)
        found = search.found([(before + end, size) for end, size in ends], folder) if ends else []
        self._trim()
        return found

    @property
    def state(self) -> int:
        """The state of the automaton."""
        return self._prefix

    @property
    def silent(self) -> int | None:
        """Code points since the last letter or digit; None before there is one."""
        return self._folder.silent if self._folder.folded else None

    def skip(self, text: str, state: int) -> None:
        """Take ASCII text in which no literal ends and which has no gap; ``state`` is that after it."""
        self._prefix = state
        held, free = self._search.prefixes.held(state), len(text)
        while held and free:
            free -= 1
            held -= text[free].isalnum()
        if free:
            self._folder.jump(free, free - len(text[:free].rstrip(_SEPARATORS)))
        self._folder.push(text[free:])
        self._trim()

    def _trim(self) -> None:
        """Forget the way back from where no literal to come can start."""
        folder = self._folder
        if folder.folded >= self._full:
            self._full = folder.folded + _SLACK
            folder.offsets.forget(folder.folded - self._search.prefixes.longest - 1)

    def finish(self) -> list[Found]:
        """Say that the text ends; a literal is complete when its last byte is there, so nothing more comes."""
        self._final = True
        return []

    def floor(self) -> int:
        """Return the code point before which no literal still to come can start."""
        folder = self._folder
        held = 0 if self._final else self._search.prefixes.held(self._prefix)
        return folder.offsets.start(folder.folded - held) if held else folder.code_points
