"""The budget journal: charges every step before it is applied, in a file that only grows.

Each line is the canonical JSON of one event and names the hash of the line before it, so an edit or a cut inside is
visible; a cut at the end is visible to whoever kept a later head (``anchor``).
"""

import fcntl
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from stanch.crypto import canonical_json, frame, parse_json, sha256, sync_folder
from stanch.errors import InvalidInput, StoreError, Tampered
from stanch.terms import JsonValue
from stanch.tune.plan import PrivacyPlan
from stanch.tune.refusals import BudgetBusy, BudgetExhausted, BudgetRolledBack, ProgressLost

NAME = "budget.jsonl"
TORN_NAME = "budget.torn"
EVENTS = ("open", "charge", "resume", "torn", "close")
CHARGING = frozenset({"charge", "torn"})
_GENESIS = "0" * 64
_FIELDS = {"at", "charged", "event", "n", "plan", "prev", "process", "step"}
_HEAD_TEXT = re.compile(r"([0-9]{1,9}):([0-9a-f]{64}):([0-9]{1,9})")
_MAX_LINE = 1024
_MAX_FILE = 1 << 30

Clock: TypeAlias = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class JournalHead:
    """What to keep of a journal elsewhere: its number of lines, its head hash (hex) and the steps charged.

    As text: ``LINES:HASH:CHARGED``.
    """

    lines: int
    hash: str
    charged: int

    def __str__(self) -> str:
        return f"{self.lines}:{self.hash}:{self.charged}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a head from its text.

        Raises:
            InvalidInput: It is none.
        """
        found = _HEAD_TEXT.fullmatch(text)
        if found is None:
            raise InvalidInput(
                f"journal head: expected LINES:HASH:CHARGED, found {text[:100]!r}",
                next_step="take what `stanch tune verify` shows",
            )
        return cls(int(found[1]), found[2], int(found[3]))


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One event. ``charged`` includes it; ``step`` counts the model's updates before it (0 in open, resume, torn)."""

    at: str
    charged: int
    event: str
    n: int
    plan: str
    prev: str
    process: str
    step: int

    def to_bytes(self) -> bytes:
        """Return the line without its newline."""
        values: dict[str, JsonValue] = {name: getattr(self, name) for name in sorted(_FIELDS)}
        return canonical_json(values)

    @property
    def hash(self) -> str:
        """The head after this line, in hexadecimal."""
        return _hash(self.to_bytes())

    @property
    def head(self) -> JournalHead:
        """The journal's head after this line."""
        return JournalHead(self.n + 1, self.hash, self.charged)


@dataclass(frozen=True, slots=True)
class JournalReading:
    """A journal whose chain holds: its lines, and the bytes of an unfinished last line."""

    lines: tuple[JournalLine, ...]
    torn: bytes

    @property
    def head(self) -> JournalHead:
        """The head after the last whole line."""
        last = self.lines[-1] if self.lines else None
        return last.head if last else JournalHead(0, _GENESIS, 0)

    def contains(self, head: JournalHead) -> bool:
        """Whether ``head`` was once this journal's head."""
        return 0 < head.lines <= len(self.lines) and self.lines[head.lines - 1].head == head


def read_journal(data: bytes, plan: PrivacyPlan) -> JournalReading:
    """Check the chain, the counts and the plan of every line.

    Raises:
        Tampered: A line is not canonical, breaks the chain or the count, or belongs to another plan.
    """
    if len(data) > _MAX_FILE:
        raise Tampered(f"{NAME}: larger than {_MAX_FILE} bytes")
    *whole, torn = data.split(b"\n")
    lines: list[JournalLine] = []
    digest = plan.digest.hex
    for number, raw in enumerate(whole):
        line = _parse_line(raw, number)
        previous = lines[-1] if lines else None
        charged = (previous.charged if previous else 0) + (line.event in CHARGING)
        expected = (number, previous.hash if previous else _GENESIS, digest, charged, line.event == "open")
        found = (line.n, line.prev, line.plan, line.charged, number == 0)
        if expected != found:
            raise Tampered(
                f"{NAME}: line {number + 1} does not follow from the line before it",
                why="a line was edited, removed or taken from another run",
            )
        lines.append(line)
    if not lines:
        raise Tampered(f"{NAME}: expected an opening line, found none")
    return JournalReading(tuple(lines), torn)


def _parse_line(raw: bytes, number: int) -> JournalLine:
    what = f"{NAME}: line {number + 1}"
    try:
        value = parse_json(raw, what=what, max_bytes=_MAX_LINE)
    except InvalidInput as error:
        raise Tampered(error.what, why=error.why) from error
    if not isinstance(value, dict) or set(value) != _FIELDS or canonical_json(value) != raw:
        raise Tampered(f"{what} is not a canonical journal line")
    counts = [value[name] for name in ("charged", "n", "step")]
    texts = [value[name] for name in ("at", "event", "plan", "prev", "process")]
    if any(type(count) is not int for count in counts) or any(not isinstance(text, str) for text in texts):
        raise Tampered(f"{what} has a field of another type")
    known: dict[str, Any] = dict(value)
    line = JournalLine(**known)
    if line.event not in EVENTS:
        raise Tampered(f"{what} names an unknown event")
    return line


class BudgetJournal:
    """The one writer of a journal file; holds an exclusive lock until :meth:`close` or :meth:`release`."""

    def __init__(self, path: Path, plan: PrivacyPlan, *, clock: Clock | None = None) -> None:
        self._path = path
        self._plan = plan
        self._digest = plan.digest.hex
        self._clock = clock or _utc_now
        self._process = secrets.token_hex(16)
        self._handle = -1
        self._at = ""
        self._head = JournalHead(0, _GENESIS, 0)
        self._heads: list[JournalHead] = []
        self._on_head: Callable[[JournalHead], None] = _ignore

    @classmethod
    def create(
        cls,
        path: Path,
        plan: PrivacyPlan,
        *,
        on_head: Callable[[JournalHead], None] | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Start a journal; the file must not exist."""
        journal = cls(path, plan, clock=clock)
        try:
            journal._lock(os.O_CREAT | os.O_EXCL)
        except FileExistsError as error:
            raise InvalidInput(
                f"{path}: exists already", next_step="resume that run, or choose another place"
            ) from error
        journal._start("open", on_head)
        return journal

    @classmethod
    def open(
        cls,
        path: Path,
        plan: PrivacyPlan,
        *,
        anchor: JournalHead | None = None,
        on_head: Callable[[JournalHead], None] | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Continue a journal.

        An unfinished last line was never acknowledged, but its step may have been: its bytes go to ``budget.torn``,
        the tail is cut, and a ``torn`` record that counts as a charge is appended.

        Raises:
            BudgetRolledBack: The journal is missing, or lacks the anchor.
            Tampered: Its chain does not hold, or it belongs to another plan.
            BudgetBusy: Another process writes it.
        """
        journal = cls(path, plan, clock=clock)
        try:
            journal._lock(0)
        except FileNotFoundError as error:
            raise BudgetRolledBack(
                f"{path}: the budget journal is missing",
                why="without it nobody knows how much privacy was spent",
                next_step="bring the file back; otherwise start a new run",
            ) from error
        try:
            reading = read_journal(path.read_bytes(), plan)
            check_anchor(reading, anchor)
            journal._head = reading.head
            journal._heads = [line.head for line in reading.lines]
            if reading.torn:
                journal._cut(reading.torn)
            journal._start("resume", on_head)
        except BaseException:
            journal.release()
            raise
        return journal

    @property
    def head(self) -> JournalHead:
        """The head after the last durable line."""
        return self._head

    @property
    def charged(self) -> int:
        """Steps charged so far."""
        return self._head.charged

    def require(self, head: JournalHead | None, *, checkpoint: str) -> None:
        """Raise :class:`BudgetRolledBack` unless ``head``, with which ``checkpoint`` was made, was once the head."""
        if head is None or not (0 < head.lines <= len(self._heads) and self._heads[head.lines - 1] == head):
            raise BudgetRolledBack(
                f"{checkpoint}: the journal does not hold the line that this checkpoint was made at",
                why="charges were removed or rewritten",
                next_step="bring the journal back; otherwise start a new run",
            )

    def require_untouched(self) -> None:
        """Raise :class:`ProgressLost` where steps are charged: a run without checkpoints would begin untrained."""
        if self.charged:
            raise ProgressLost(
                f"{self._path}: {self.charged} of {self._plan.steps} steps are charged, and no checkpoint holds what "
                "they taught",
                why="the resumed run would begin with the untrained model and the few steps that are left",
                next_step="start a new run in other folders, with checkpoints more often; if somebody saw the weights "
                "of this one, its steps count too",
            )

    def charge(self, step: int) -> int:
        """Charge the step that follows ``step`` updates; durable when it returns. Returns all charges so far.

        Raises:
            BudgetExhausted: Every planned step is charged.
        """
        if self.charged >= self._plan.steps:
            raise BudgetExhausted(
                f"all {self._plan.steps} planned steps are charged",
                why="one more would exceed the planned epsilon",
                next_step="use the model as it is, or plan a new run",
            )
        self._append("charge", step)
        return self.charged

    def announce(self) -> None:
        """Hand the head to ``on_head``, so that somebody else keeps it."""
        self._on_head(self._head)

    def close(self, step: int) -> None:
        """Write the closing line, announce the head, and give up the lock."""
        self._append("close", step)
        self.announce()
        self.release()

    def release(self) -> None:
        """Give up the lock without a closing line, as a crash would."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, flags: int) -> None:
        self._handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise BudgetBusy(
                f"{self._path}: another process holds the budget journal", next_step="wait until that run has ended"
            ) from error

    def _start(self, event: str, on_head: Callable[[JournalHead], None] | None) -> None:
        self._on_head = on_head or _ignore
        self._append(event, 0)
        sync_folder(self._path.parent)
        self.announce()

    def _cut(self, torn: bytes) -> None:
        with (self._path.parent / TORN_NAME).open("ab") as file:
            file.write(torn + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(self._handle, os.fstat(self._handle).st_size - len(torn))
        self._append("torn", 0)

    def _append(self, event: str, step: int) -> None:
        charged = self.charged + (event in CHARGING)
        # How long a step takes tells how much text its units have: a charge repeats the time of the line before it.
        at = self._at if event == "charge" else self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = JournalLine(at, charged, event, self._head.lines, self._digest, self._head.hash, self._process, step)
        try:
            _write_all(self._handle, line.to_bytes() + b"\n")
            os.fsync(self._handle)
        except OSError as error:
            self.release()
            raise StoreError(
                f"{self._path}: the charge could not be made durable",
                why=os.strerror(error.errno or 0),
                next_step="make room or repair the disk, then resume; no step was taken",
            ) from error
        self._at, self._head = at, line.head
        self._heads.append(self._head)


def journal_name(folder: Path) -> str | None:
    """Return the hash of the first line of the journal in ``folder``, by which others know it; None without one."""
    try:
        with (folder / NAME).open("rb") as file:
            line = file.readline(_MAX_LINE)
    except FileNotFoundError:
        return None
    return _hash(line.removesuffix(b"\n"))


def check_anchor(reading: JournalReading, anchor: JournalHead | None) -> None:
    """Raise :class:`BudgetRolledBack` unless ``anchor``, if there is one, was once the journal's head."""
    if anchor is not None and not reading.contains(anchor):
        raise BudgetRolledBack(
            f"{NAME}: line {anchor.lines} is not the one that was seen before; it has {len(reading.lines)} lines",
            why="charges were removed or rewritten",
            next_step="bring the journal back; otherwise start a new run",
        )


def _hash(line: bytes) -> str:
    return sha256(frame(b"stanch/tune/v1/journal", line)).hex()


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _ignore(_head: JournalHead) -> None:
    """Keep no head elsewhere."""


def _utc_now() -> datetime:
    return datetime.now(UTC)
