"""The customer's own terms as keyed hashes: found in any text, and readable from no file (``docs/spec/dictionary.md``).

A term is compared word by word in the view ``index`` of :mod:`stanch.scan.fold`: case, punctuation, spacing and
look-alike letters do not matter. It is found where a word starts and another ends, also written backwards, run together
to one word, or inside a run of base64. A stream and a whole text go through the same state machine.
"""

import base64
import hashlib
import hmac
import itertools
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import msgspec

from stanch.crypto import canonical_json, hkdf_sha256, parse_json, write_atomic
from stanch.errors import InvalidInput, VerificationError
from stanch.scan.fold import FOLD, fold_text, may_have_gap
from stanch.scan.found import Found
from stanch.scan.stems import Stems, build_filter, stems_of
from stanch.scan.words import Known, Rows, WordMatcher
from stanch.terms import JsonValue, Severity

MAGIC = b"STXDICT\2"
KEY_SIZE = 32
_PERSON = b"stanch/dict/v1"
_HASH, _MAC, _HEAD = 16, 32, 12
_MOST_STEMS = 4  # of a term: two, forwards and backwards
_MAX_HEADER, _MAX_TERMS = 1 << 16, 4 << 20
_SHORTEST, _LONGEST, _MAX_WORDS = 4, 4096, 8
_LABEL = re.compile(r"[a-z][a-z0-9-]{0,39}")
_REMEMBERED = 1 << 15
_SHORTEST_RUN, _LONGEST_RUN = 24, 1024
_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_WHOLE_RUN = re.compile(rf"[A-Za-z0-9+/_-]{{{_SHORTEST_RUN},}}")


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says about itself; every field is required and no other is allowed."""

    count: int
    fold: str
    key_id: str
    label: str
    lengths: tuple[int, ...]
    stems: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class Dictionary:
    """Keyed hashes of terms. Whoever holds both the file and its key can test guesses, so the two are kept apart.

    Attributes:
        label: The kind of its findings.
        words: Of how many words a term can consist; run together it is one.
        lengths: How many bytes a term can have in the ``squeezed`` view.
        digests: BLAKE2b of each term under the key.
        stems: What its terms begin with, as a keyed filter (:mod:`stanch.scan.stems`); empty if all have one word.
        severity: Of its findings.
    """

    label: str
    words: frozenset[int]
    lengths: frozenset[int]
    digests: frozenset[bytes] = field(repr=False)
    stems: bytes = field(repr=False)
    key: bytes = field(repr=False)
    severity: Severity = Severity.HIGH

    @classmethod
    def build(cls, terms: Iterable[str], *, key: bytes, label: str, severity: Severity = Severity.HIGH) -> Self:
        """Hash terms under a key of 32 bytes.

        Raises:
            InvalidInput: A term is too short, too long or has too many words; its number is named, counted from 1.
        """
        _check_key(key)
        _check_label(label)
        words, lengths, digests, stems = {1}, set[int](), set[bytes](), set[bytes]()
        for number, term in enumerate(terms, start=1):
            count, squeezed = len(fold_text(term, "index").split()), fold_text(term, "squeezed")
            if len(squeezed.decode()) < _SHORTEST or len(squeezed) > _LONGEST or count > _MAX_WORDS:
                raise InvalidInput(
                    f"term {number}: expected {_SHORTEST} to {_LONGEST} letters and digits, at most {_MAX_WORDS} words",
                    why="a shorter term would be found everywhere",
                )
            words.add(count)
            lengths.add(len(squeezed))
            digests.add(term_digest(key, squeezed))
            stems |= stems_of(squeezed)
        if not 1 <= len(digests) <= _MAX_TERMS:
            raise InvalidInput(f"dictionary: expected 1 to {_MAX_TERMS} terms, found {len(digests)}")
        begun = build_filter(stems, key) if max(words) > 1 else b""  # one word alone never waits for another
        return cls(label, frozenset(words), frozenset(lengths), frozenset(digests), begun, key, severity)

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def most(self) -> int:
        """Words that a term has at most."""
        return max(self.words)

    @cached_property
    def longest(self) -> int:
        """Bytes that a term has at most in the ``squeezed`` view."""
        return max(self.lengths)

    @property
    def key_id(self) -> str:
        """The public name of the key."""
        return hmac.digest(self.key, b"stanch/dict-key-id/v1", "sha256")[:8].hex()

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only; it appears whole or not at all.

        Raises:
            InvalidInput: The folder cannot be written.
        """
        document: JsonValue = msgspec.to_builtins(
            _Header(
                len(self), FOLD, self.key_id, self.label,
                tuple(sorted(self.lengths)), len(self.stems), tuple(sorted(self.words)),
            )
        )  # fmt: skip
        header = canonical_json(document)
        body = MAGIC + len(header).to_bytes(4, "little") + header + b"".join(sorted(self.digests)) + self.stems
        write_atomic(path, body + _code(self.key, body), mode=0o600)

    @classmethod
    def load(cls, path: Path, *, key: bytes, severity: Severity = Severity.HIGH) -> Self:
        """Read a file and verify all of it before anything is used.

        Raises:
            InvalidInput: The file cannot be read.
            VerificationError: Another form, another key, or changed bytes.
        """
        limit = _HEAD + _MAX_HEADER + (_HASH + _MOST_STEMS) * _MAX_TERMS + _MAC
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
        return cls.parse(data, what=str(path), key=key, severity=severity)

    @classmethod
    def parse(cls, data: bytes, *, what: str, key: bytes, severity: Severity = Severity.HIGH) -> Self:
        """Read the content of a dictionary file; see :meth:`load`."""
        _check_key(key)
        size = int.from_bytes(data[8:_HEAD], "little")
        if data[:8] != MAGIC or size > _MAX_HEADER or len(data) < _HEAD + size + _MAC:
            raise VerificationError(
                f"{what}: not a dictionary of version 2, or cut short", next_step="build it from the terms"
            )
        body, code = data[:-_MAC], data[-_MAC:]
        if not hmac.compare_digest(_code(key, body), code):
            raise VerificationError(
                f"{what}: made with another key, or changed after it was written",
                next_step="use the key it was made with",
            )
        rest = body[_HEAD + size :]
        try:
            header = msgspec.convert(parse_json(body[_HEAD : _HEAD + size], what=what), type=_Header, strict=True)
            _check_label(header.label)
        except (InvalidInput, msgspec.ValidationError) as error:
            raise VerificationError(f"{what}: the header is malformed", why=str(error)[:200]) from error
        if header.fold != FOLD:
            raise VerificationError(
                f"{what}: made with another version of folding than {FOLD}",
                why="texts are folded otherwise now, and terms would not be found",
                next_step="build the dictionary again from the terms",
            )
        place = _HASH * header.count
        sound = 1 <= header.count <= _MAX_TERMS and len(rest) == place + header.stems
        sound = sound and 0 <= header.stems <= _MOST_STEMS * header.count
        for numbers, most in ((header.words, _MAX_WORDS), (header.lengths, _LONGEST)):
            sound = sound and bool(numbers) and min(numbers) >= 1 and max(numbers) <= most
        if not sound or (header.stems > 0) != (max(header.words) > 1):
            raise VerificationError(f"{what}: the header is malformed", why="its numbers do not fit")
        split = frozenset(rest[at : at + _HASH] for at in range(0, place, _HASH))
        words, lengths = frozenset(header.words), frozenset(header.lengths)
        return cls(header.label, words, lengths, split, rest[place:], key, severity)

    def find(self, text: str) -> list[Found]:
        """Return the terms in a whole text."""
        if not self._may_hold(text):
            return []
        lane = DictionaryLane(self)
        return lane.feed(text) + lane.finish()

    def _may_hold(self, text: str) -> bool:
        decoded = (decode_run(run[:_LONGEST_RUN]) for run in _WHOLE_RUN.findall(text))
        # Only the lane knows where a long gap cuts a word in two; a gap between words takes terms away, and adds none.
        return any(may_have_gap(part) or self._holds(fold_text(part, "index").split()) for part in (text, *decoded))

    def _holds(self, words: list[bytes]) -> bool:
        ends = [0, *itertools.accumulate(map(len, words))]
        for count in self.words:
            fitting = map(self.lengths.__contains__, map(operator.sub, ends[count:], ends))
            starts = itertools.compress(range(len(words)), fitting)
            candidates = {b"".join(words[start : start + count]) for start in starts}
            if any(map(self.has, candidates - self._strange)):
                return True
        return False

    @cached_property
    def _strange(self) -> set[bytes]:
        """Words and groups of words that are no terms: the same ones come again and again. Never copied or written."""
        return set()

    @cached_property
    def begun(self) -> Stems:
        """The filter of what terms begin with."""
        return Stems(self.stems, self.key)

    @cached_property
    def rows(self) -> Rows:
        """What short texts are made of. Never copied or written."""
        return Rows(self.known)

    @cached_property
    def known(self) -> Known:
        """What is known of words. Never copied or written."""
        return Known(self)

    @cached_property
    def _keyed(self) -> "hashlib.blake2b":
        return _keyed_hash(self.key)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what only this object may know, and what cannot be copied."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def may_be(self, squeezed: bytes) -> bool:
        """Tell whether a term, or one written backwards, is this text or begins with it; no false negatives."""
        return not self.stems or self.begun.may_be(squeezed)

    def has(self, squeezed: bytes) -> bool:
        """Tell whether a text in the view ``squeezed`` is a term, or one written backwards."""
        if squeezed in self._strange or not self.may_be(squeezed):
            return False
        backwards = squeezed[::-1] if squeezed.isascii() else squeezed.decode()[::-1].encode()
        # The filter knows both ends of a term, and asking it about an end that was seen before costs no hash.
        if not self.may_be(backwards):
            return False
        if self._digest(squeezed) in self.digests or self._digest(backwards) in self.digests:
            return True
        if len(self._strange) >= _REMEMBERED:
            self._strange.clear()
        self._strange.add(squeezed)
        return False

    def _digest(self, squeezed: bytes) -> bytes:
        """Do as :func:`term_digest`, in half the time."""
        keyed = self._keyed.copy()
        keyed.update(squeezed)
        return keyed.digest()


class DictionaryLane:
    """A dictionary's part of a stream, and of a whole text: words, and runs of base64.

    Attributes:
        words: What finds the terms that stand as words.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self.words = WordMatcher(dictionary)
        self._run = ""
        self._run_start = 0
        self._dead = False
        self._position = 0
        self._final = False

    def feed(self, text: str) -> list[Found]:
        """Take the next piece of text and return the terms that are now certain."""
        size = len(text)
        rows = self._dictionary.rows
        row = rows[text] if size < _SHORTEST_RUN else None if _WHOLE_RUN.search(text) else rows.read(text)
        if row is not None and len(self._run) + row.head < _SHORTEST_RUN:
            spans = self.words.skim(row, size)
            if spans is not None:
                # No run that ends here is long enough to be decoded.
                self._run, self._dead = text[size - row.tail :], False
                self._position += size
                self._run_start = self._position - row.tail
                return self._found(spans) if spans else []
        spans = self.words.feed(text)
        place = 0
        for match in _RUN.finditer(text):
            if match.start() > place:
                spans += self._close()
            if not self._run and not self._dead:
                self._run_start = self._position + match.start()
            spans += self._extend(match[0])
            place = match.end()
        if place < len(text):
            spans += self._close()
        self._position += len(text)
        return self._found(spans)

    @property
    def rests(self) -> bool:
        """Whether no run of base64 goes on."""
        return not (self._run or self._dead or self._final)

    def skip(self, text: str) -> None:
        """Take ASCII text for which the words were followed, with no run of base64 at its end or long enough."""
        self.words.skip(text)
        self._position += len(text)

    def finish(self) -> list[Found]:
        """Say that the text ends here and return what that decides."""
        self._final = True
        return self._found(self.words.finish() + self._close())

    def floor(self) -> int:
        """Return the code point before which no term still to come can start."""
        if self._final:
            return self._position
        first = self.words.floor()
        return min(first, self._run_start) if self._run else first

    def _extend(self, piece: str) -> list[tuple[int, int]]:
        """Carry the run on; of a long one only the first 1,024 characters are decoded."""
        if self._dead:
            return []
        self._run = (self._run + piece)[:_LONGEST_RUN]
        if len(self._run) < _LONGEST_RUN:
            return []
        spans = self._decoded()
        self._run, self._dead = "", True
        return spans

    def _close(self) -> list[tuple[int, int]]:
        spans = self._decoded()
        self._run, self._dead = "", False
        return spans

    def _decoded(self) -> list[tuple[int, int]]:
        if len(self._run) < _SHORTEST_RUN:
            return []
        matcher = WordMatcher(self._dictionary)
        hits = matcher.feed(decode_run(self._run)) + matcher.finish()
        return [(self._run_start, self._run_start + len(self._run))] if hits else []

    def _found(self, spans: list[tuple[int, int]]) -> list[Found]:
        dictionary = self._dictionary
        return [
            Found(start, end, dictionary.label, dictionary.severity, 1.0, "dictionary", 1, "term of a dictionary")
            for start, end in spans
        ]


def term_digest(key: bytes, squeezed: bytes) -> bytes:
    """Return the 16 bytes of BLAKE2b (RFC 7693) that stand for a term in the ``squeezed`` view."""
    keyed = _keyed_hash(key)
    keyed.update(squeezed)
    return keyed.digest()


def _keyed_hash(key: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=_HASH, key=key, person=_PERSON)


def decode_run(run: str) -> str:
    """Return the text that a run of base64 encodes, in either alphabet; what is no UTF-8 becomes U+FFFD."""
    whole = run[: len(run) - (len(run) % 4 == 1)].replace("-", "+").replace("_", "/")
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("utf-8", "replace")


def _code(key: bytes, body: bytes) -> bytes:
    return hmac.digest(hkdf_sha256(key, info=b"stanch/dict-mac/v1", length=32), body, "sha256")


def _check_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise InvalidInput(f"dictionary key: expected {KEY_SIZE} bytes, found {len(key)}")


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise InvalidInput("dictionary label: expected 1 to 40 of a-z, 0-9 and '-', the first a letter")
