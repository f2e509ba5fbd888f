"""The matcher of choice: Hyperscan databases over all anchors, for blocks and for streams.

Compiled databases are cached on disk, because compiling takes much longer than loading; only patterns are in them.
Compiled objects do not survive ``fork``: a child makes its own.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import hyperscan

from stanch.crypto import frame, write_atomic
from stanch.errors import InvalidInput, StanchError
from stanch.scan.anchor import outside, read_anchor, without_separator
from stanch.scan.engine import Hit, Pattern
from stanch.scan.gate import Gate, gate_of

_CACHE_VARIABLE = "STANCH_CACHE_DIR"
_LARGE = 1 << 14
"""Bytes of a block from which on to look where anchors may stand costs less than it saves."""

_BEGIN, _END = b"\x1e\x1e", b"\x1e"
"""What stands around each text: the separator on both sides, and a byte before that for :data:`_BEFORE`."""

_BEFORE = rb"[^\xf5-\xff]"
"""Stands before each expression, and is any byte that UTF-8 has: what is searched, folded text, has no other.

Vectorscan 5.4.12, which the binding holds, skips bytes by twos where an expression may begin with few pairs of bytes. A
byte that begins such a pair is lost if it is the last of a piece: of a chunk of a stream, or, within a block, of the
stretch up to a match of another expression (VectorCamp/vectorscan#325, #358, #402). After a byte that may be nearly any
there are no few pairs. A class of all bytes, or of more than 250, would not do: the compiler takes it out again.
"""

_OPERATORS = frozenset(b"[({?|")
_MODES = {"block": hyperscan.HS_MODE_BLOCK, "stream": hyperscan.HS_MODE_STREAM}


def cache_dir() -> Path:
    """Return the folder of compiled databases: ``STANCH_CACHE_DIR``, else below the user's cache directory."""
    named = os.environ.get(_CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stanch"


class HyperscanEngine:
    """Finds where anchors end. Safe to use from several threads: each has its own databases and scratch space.

    A large block is not searched whole for anchors that ask for many digits or a long run: see :mod:`stanch.scan.gate`.
    """

    name = "hyperscan"

    def __init__(self, patterns: Sequence[Pattern], *, cached: bool) -> None:
        """Compile the patterns, or load them; see :class:`stanch.scan.engine.EngineMaker`."""
        self._patterns = tuple(enumerate(patterns))
        self._cached = cached
        self._whole = Databases(self._patterns, cached=cached)
        self._whole.database("block")

    def scan(self, data: bytes) -> list[Hit]:
        """Return all hits in one block, sorted by end."""
        if len(data) < _LARGE:
            return sorted(set(self._whole.scan(data)))
        everywhere, gated = self._parts
        hits = everywhere.scan(data)
        for gate, (reach, databases) in gated.items():
            slices = gate(data, reach)
            hits += slices.placed(databases.scan(slices.data))
        return sorted(set(hits))

    def open_stream(self) -> "HyperscanStream":
        """Start a stream."""
        return self._whole.open_stream()

    @cached_property
    def _parts(self) -> tuple["Databases", dict[Gate, tuple[int, "Databases"]]]:
        """The patterns that are searched for everywhere, and by gate the others, and how far these reach."""
        everywhere, gated = list[tuple[int, Pattern]](), dict[Gate, tuple[int, list[tuple[int, Pattern]]]]()
        for index, pattern in self._patterns:
            # An expression without a class is a literal.
            shape = read_anchor(pattern.expression.decode("latin-1")) if b"[" in pattern.expression else None
            if shape is None or (gate := gate_of(shape)) is None:
                everywhere.append((index, pattern))
            else:
                reach, others = gated.get(gate, (0, []))
                gated[gate] = max(reach, shape.longest), [*others, (index, pattern)]
        return Databases(everywhere, cached=self._cached), {
            gate: (reach, Databases(others, cached=self._cached)) for gate, (reach, others) in gated.items()
        }


class Databases:
    """Compiled patterns, each with its index."""

    def __init__(self, patterns: Sequence[tuple[int, Pattern]], *, cached: bool) -> None:
        self._patterns = tuple(pattern for _, pattern in patterns)
        self._indexes = [index for index, _ in patterns]
        # A hit is reported by where it ends in the text alone.
        self._shift = {index: len(_BEGIN) + bool(pattern.trail) for index, pattern in patterns}
        self._cached = cached
        self._local = threading.local()
        self._owner = os.getpid()

    def scan(self, data: bytes) -> list[Hit]:
        """Return the hits in a block, in any order, some of them twice."""
        database = self.database("block")
        hits: list[Hit] = []
        if database is not None:
            shift = self._shift
            database.scan(
                _BEGIN + data + _END,
                match_event_handler=lambda index, _start, end, _flags, _context: hits.append(
                    (end - shift[index], index)
                ),
            )
        return hits

    def open_stream(self) -> "HyperscanStream":
        """Start a stream."""
        database = self.database("stream")
        return HyperscanStream(database, self._shift, self._local.scratches if database is not None else deque())

    def database(self, mode: str) -> "hyperscan.Database | None":
        """Return this thread's database, or None where there are no patterns."""
        if os.getpid() != self._owner:
            self._local, self._owner = threading.local(), os.getpid()
        found = getattr(self._local, mode, None)
        if found is None and self._patterns:
            found = self._load(mode)
            # Without scratch of its own, a stream shares freed memory and crashes the interpreter after a while.
            found.scratch = hyperscan.Scratch(found)
            setattr(self._local, mode, found)
            if mode == "stream":
                self._local.scratches = deque()
        return found

    def _load(self, mode: str) -> "hyperscan.Database":
        path = cache_dir() / f"{self._fingerprint(mode)}.hsdb" if self._cached else None
        if path is not None and (serialised := _read_cache(path)) is not None:
            try:
                return hyperscan.loadb(serialised, _MODES[mode])
            except hyperscan.HyperscanError:
                path.unlink(missing_ok=True)
        database = self._compile(mode)
        if path is not None:
            _write_cache(path, hyperscan.dumpb(database))
        return database

    def _compile(self, mode: str) -> "hyperscan.Database":
        database = hyperscan.Database(mode=_MODES[mode])
        try:
            database.compile(
                expressions=[_bounded(pattern) for pattern in self._patterns],
                ids=self._indexes,
                flags=[hyperscan.HS_FLAG_CASELESS if pattern.caseless else 0 for pattern in self._patterns],
            )
        except hyperscan.HyperscanError as error:
            raise InvalidInput(f"anchor of {self._culprit()} does not compile", why=str(error)[:200]) from error
        return database

    def _culprit(self) -> str:
        for pattern in self._patterns:
            try:
                hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK).compile(
                    expressions=[_bounded(pattern)],
                    ids=[0],
                    flags=[hyperscan.HS_FLAG_CASELESS if pattern.caseless else 0],
                )
            except hyperscan.HyperscanError:
                return pattern.name
        return "the whole pack"

    def _fingerprint(self, mode: str) -> str:
        """Name the compiled form: patterns and flags, mode, binding, library version and processor features."""
        probe = hyperscan.Database(mode=_MODES[mode])
        probe.compile(expressions=[b"a"], ids=[0], flags=[0])
        parts: list[bytes] = [
            mode.encode(),
            version("hyperscan").encode(),
            str(probe.info()).encode(),
            os.uname().machine.encode(),
        ]
        for index, pattern in zip(self._indexes, self._patterns, strict=True):
            parts += [str(index).encode(), _bounded(pattern), b"i" if pattern.caseless else b""]
        return hashlib.sha256(frame(*parts)).hexdigest()


class HyperscanStream:
    """One stream over the anchors; offsets count from its first byte. One caller at a time, in whatever thread."""

    def __init__(
        self, database: "hyperscan.Database | None", shift: Mapping[int, int], scratches: "deque[hyperscan.Scratch]"
    ) -> None:
        self._hits: list[Hit] = []
        self._scratches = scratches  # of streams that have ended; to make one takes longer than to search a sentence
        self._stream: hyperscan.Stream | None = None
        if database is not None:
            # The binding keeps no reference to a stream's database, callback and scratch space: they are kept here.
            self._database = database
            try:
                self._scratch = scratches.pop()
            except IndexError:
                self._scratch = hyperscan.Scratch(database)
            self._collect = lambda index, _start, end, _flags, _context: self._hits.append((end - shift[index], index))
            self._stream = database.stream(match_event_handler=self._collect)
            self._stream.__enter__()
            self._stream.scan(_BEGIN, scratch=self._scratch)

    def feed(self, data: bytes) -> list[Hit]:
        """Take the next bytes and return the hits that they decide, sorted by end."""
        if self._stream is None or not data:
            return []
        self._stream.scan(data, 0, self._scratch)  # by name the arguments cost a third more
        if not self._hits:
            return []
        hits = sorted(set(self._hits))
        self._hits.clear()
        return hits

    def close(self) -> list[Hit]:
        """End the text, return the hits that its end decides, and free the stream's state."""
        hits = self.feed(b"\x1e")
        self._free()
        return hits

    def _free(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            # Without arguments: the binding misreads ``scratch`` here. It closes under the interpreter's lock, so that
            # the database's own scratch space, which nothing else uses, is safe.
            stream.close()
            self._scratches.append(self._scratch)

    def __del__(self) -> None:
        # The binding frees the native state only when it is told to.
        self._free()


def _bounded(pattern: Pattern) -> bytes:
    """Return a pattern's expression with the byte on each side that it asks about, and :data:`_BEFORE`.

    A plain string is searched for as such, and thousands of them compile in no time only if nothing is added.
    """
    inner = without_separator(pattern.expression)
    if not (pattern.lead or pattern.trail) and _OPERATORS.isdisjoint(inner):
        return inner
    return b"%b%b(?:%b)%b" % (_BEFORE, outside(pattern.lead), inner, outside(pattern.trail))


def _read_cache(path: Path) -> bytes | None:
    """Return the payload of a whole cache file that only its owner can write, else None."""
    try:
        status = path.lstat()
        data = path.read_bytes()
    except OSError:
        return None
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        return None
    payload = data[32:]
    return payload if hashlib.sha256(payload).digest() == data[:32] else None


def _write_cache(path: Path, payload: bytes) -> None:
    """Keep the payload if the folder allows it; a cache that cannot be written costs time only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, hashlib.sha256(payload).digest() + payload, mode=0o600)
    except (OSError, StanchError):
        return
