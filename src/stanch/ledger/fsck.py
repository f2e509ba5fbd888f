"""Re-derivation of a whole log: rows, bundles, tiles, frontier, roots and signatures, each from the one before.

The first difference is raised with its place. What nobody outside remembers cannot be found: a tail that was cut off
before a checkpoint was signed over it, and a history that was rewritten with the log's own key.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Literal

from stanch.crypto import Frontier
from stanch.errors import LogRolledBack, NotFound
from stanch.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.fsck_rows import PAGE, Openings, Rows, check_cosignatures, check_page, stored_anchors
from stanch.ledger.fsck_tile import CheckedTile, Rules, read_tile
from stanch.ledger.hashes import TileHashes
from stanch.ledger.policy import NO_QUORUM, TrustPolicy
from stanch.ledger.read import LedgerReader, LogPlace
from stanch.ledger.tiles import CHECKPOINT_KEY, TILE_WIDTH, tile_key, tile_width

_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What was checked, all of it without a difference.

    Attributes:
        origin: The log.
        size: Entries in the rows.
        published: Entries that the published checkpoint covers.
        root: Root hash over all rows, hex.
        compared: Names of the checkpoints that the rows lead to; the log's own and those given as anchors.
        cosignatures: How many stored cosignatures of the policy's witnesses verify.
        witnesses: Who of the policy's witnesses cosigned the published checkpoint.
        quorum: ``met``, or ``none`` if the policy asks for none.
        openings: How many openings open a commitment of the log.
        signed_acts: How many intents carry the verified signature of their principal.
        intents_open: Acts with an intent and no outcome.
        conclusion: What the rows are consistent with; ``self-consistent only`` where nobody outside was asked.
    """

    origin: str
    size: int
    published: int
    root: str
    compared: tuple[str, ...]
    cosignatures: int
    witnesses: tuple[str, ...]
    quorum: Literal["met", "none"]
    openings: int
    signed_acts: int
    intents_open: tuple[str, ...]
    conclusion: str


def fsck(
    reader: LedgerReader,
    policy: TrustPolicy,
    *,
    anchors: Sequence[bytes] = (),
    place: LogPlace | None = None,
    jobs: int = 1,
) -> FsckReport:
    """Re-derive the log and compare every part.

    Args:
        reader: The log.
        policy: The keys that may have signed its checkpoints, and the witnesses that must have cosigned the last.
        anchors: Signed checkpoints (whole notes) that were kept elsewhere. Only they, and cosignatures, can show a
            rewritten history.
        place: Where other processes find the log; without it this process works alone.
        jobs: How many processes share the work; each reads its own rows, and holds a few tiles.

    Raises:
        LogDamaged: The first difference, with its place.
        LogRolledBack: The log is shorter than a checkpoint signed over it.
        QuorumUnmet: All parts fit, but too few witnesses cosigned the published checkpoint.
        VerificationError: A checkpoint's signature does not verify.
    """
    check = _Check(reader, policy)
    checkpoints = check.checkpoints(anchors)
    cosignatures = check_cosignatures(reader, policy)
    openings = Openings.check(reader)
    check.root()
    for tile in _share(check, place, jobs):
        check.tile(tile)
        openings.found(tile.commitments)
    check.upper_tiles()
    check.frontier_row()
    openings.require_all()
    witnesses = check.quorum()
    return FsckReport(
        origin=reader.origin,
        size=check.size,
        published=check.published.checkpoint.size,
        root=check.frontier.root().hex(),
        compared=tuple(name for name, _ in checkpoints),
        cosignatures=cosignatures,
        witnesses=witnesses,
        quorum="none" if policy.quorum == NO_QUORUM else "met",
        openings=openings.count,
        signed_acts=check.signed_acts,
        intents_open=tuple(check.open_intents),
        conclusion=_conclude(anchors=bool(anchors), witnesses=bool(witnesses)),
    )


def _conclude(*, anchors: bool, witnesses: bool) -> str:
    asked = ["the given anchors"] * anchors + ["its witnesses"] * witnesses
    return f"consistent with {' and '.join(asked)}" if asked else "self-consistent only"


def _share(check: "_Check", place: LogPlace | None, jobs: int) -> Iterator[CheckedTile]:
    """Yield what each tile says, in order; several processes work ahead of the reader."""
    rules, pages = check.rules(), [range(check.size)[first : first + PAGE] for first in range(0, check.size, PAGE)]
    if place is None or jobs == 1:
        for page in pages:
            yield from check_page(check.reader, rules, page)
        return
    # A fresh process: one that was forked would share this one's database connections and locks.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending: deque[Future[list[CheckedTile]]] = deque()
        try:
            for page in pages:
                pending.append(pool.submit(_check_page_at, place, rules, page))
                if len(pending) > jobs * _AHEAD:
                    yield from pending.popleft().result()
            for future in pending:
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check_page_at(place: LogPlace, rules: Rules, page: range) -> list[CheckedTile]:
    return check_page(_open(place), rules, page)


@cache
def _open(place: LogPlace) -> LedgerReader:
    """Open the log once in a process of its own, for as long as that lives."""
    return place.open()


class _Check:
    """The state of one run; holds one tile a level and the open intents, never the whole log."""

    def __init__(self, reader: LedgerReader, policy: TrustPolicy) -> None:
        self.reader = reader
        self.policy = policy
        self.rows = Rows.of(reader)
        self.size = self.rows.size
        self.published = SignedCheckpoint(Checkpoint(reader.origin, 0, Frontier().root()), b"")
        self.full_tiles = Frontier()
        self.frontier = Frontier()
        self.levels: list[list[bytes]] = []
        self.by_size: dict[int, list[tuple[str, Checkpoint]]] = {}
        self.sizes: list[int] = []
        self.open_intents: dict[str, tuple[str, str]] = {}
        self.signed_acts = 0
        self.hashes = TileHashes(reader.blobs, 0)

    def checkpoints(self, anchors: Sequence[bytes]) -> list[tuple[str, Checkpoint]]:
        """Return every checkpoint with its name, after its signature was verified, smallest first."""
        notes = [(f"anchor {number}", note) for number, note in enumerate(anchors)]
        try:
            notes.append((CHECKPOINT_KEY, self.reader.blobs.get(CHECKPOINT_KEY)))
            self.published = open_checkpoint(notes[-1][1], self.policy.keys)
        except NotFound:
            self._need_unpublished()
        notes += stored_anchors(self.reader)
        with self.reader.tables.read() as connection:
            stored = connection.exec_driver_sql(
                "SELECT size, root, note FROM ledger_checkpoint WHERE origin = ?", (self.reader.origin,)
            ).all()
        notes += [(f"stored checkpoint {size}", note) for size, _, note in stored]
        opened = [(name, open_checkpoint(note, self.policy.logs).checkpoint) for name, note in notes]
        for name, checkpoint in opened:
            self._check_checkpoint(name, checkpoint)
        for (size, root, _), (name, checkpoint) in zip(stored, opened[len(opened) - len(stored) :], strict=True):
            if (size, root) != (checkpoint.size, checkpoint.root):
                raise LogDamaged(name, None, expected="the size and root of its own note", found="others")
        self.hashes = TileHashes(self.reader.blobs, self.published.checkpoint.size)
        opened.sort(key=lambda item: item[1].size)
        for name, checkpoint in opened:
            self.by_size.setdefault(checkpoint.size, []).append((name, checkpoint))
        self.sizes = list(self.by_size)
        return opened

    def _need_unpublished(self) -> None:
        with self.reader.tables.read() as connection:
            published = connection.exec_driver_sql(
                "SELECT max(size) FROM ledger_checkpoint WHERE origin = ? AND published = 1", (self.reader.origin,)
            ).scalar()
        if published is not None:
            raise LogDamaged(CHECKPOINT_KEY, None, expected=f"a checkpoint of {published} entries", found="none")

    def _check_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        if checkpoint.origin != self.reader.origin:
            raise LogDamaged(name, None, expected=f"log {self.reader.origin}", found=f"log {checkpoint.origin}")
        if checkpoint.size > self.size:
            raise LogRolledBack(
                f"log: was rolled back: expected {checkpoint.size} entries as {name} says, found {self.size}",
                why=f"entries {self.size} to {checkpoint.size - 1} were cut off",
                next_step="restore the newest database, or: stanch log recover",
            )

    def quorum(self) -> tuple[str, ...]:
        """Return who of the policy's witnesses cosigned the published checkpoint; refuse too few."""
        self.policy.require_quorum(self.published.cosignatures)
        present = {(signature.name, signature.key_id) for signature in self.published.cosignatures}
        return tuple(w.name for w in self.policy.witnesses if (w.key.name, w.key.key_id) in present)

    def rules(self) -> Rules:
        """Return what every entry is held against."""
        inside = frozenset(size // TILE_WIDTH for size in self.sizes if size % TILE_WIDTH)
        return Rules(self.reader.origin, self.rows.keys, self.published.checkpoint.size, inside)

    def tile(self, checked: CheckedTile) -> None:
        """Take up to 256 rows into the tree."""
        for ending in checked.closed:
            ending.require_begun(self.open_intents.pop(ending.act, None))
        self.open_intents |= checked.opened
        self.signed_acts += checked.signed
        self._grow(checked)
        number = checked.first // TILE_WIDTH
        if tile_width(self.published.checkpoint.size, 0, number) == TILE_WIDTH:
            self._rise(0, number, checked.root)

    def _grow(self, checked: CheckedTile) -> None:
        """Append the leaves; stop at each checkpoint's size to compare its root."""
        first, end = checked.first, checked.first + checked.count
        # Full tiles are perfect subtrees: the frontier over them is that of their number.
        before = Frontier(first, self.full_tiles.hashes)
        for size in self.sizes[bisect_right(self.sizes, first) : bisect_left(self.sizes, end)]:
            self.frontier = before.append(checked.leaves[: size - first])
            self.root()
        if checked.root:
            self.full_tiles = self.full_tiles.append([checked.root])
            self.frontier = Frontier(end, self.full_tiles.hashes)
        else:
            self.frontier = before.append(checked.leaves)
        self.root()

    def root(self) -> None:
        """Compare the present root with the checkpoints of this size."""
        for name, checkpoint in self.by_size.get(self.frontier.size, ()):
            if checkpoint.root != self.frontier.root():
                raise LogDamaged(
                    f"entries before {checkpoint.size}, against {name}",
                    None,
                    expected=f"root {checkpoint.root.hex()}",
                    found=self.frontier.root().hex(),
                )

    def _rise(self, level: int, number: int, root: bytes) -> None:
        """Take a full tile's hash into the level above; compare the tile there once it is full."""
        if len(self.levels) == level:
            self.levels.append([])
        self.levels[level].append(root)
        if len(self.levels[level]) == TILE_WIDTH:
            above = number // TILE_WIDTH
            self._compare(level + 1, above, self.levels[level])
            self._rise(level + 1, above, Frontier().append(self.levels[level]).root())
            self.levels[level] = []

    def upper_tiles(self) -> None:
        """Compare the partial tiles above the entries."""
        for level, hashes in enumerate(self.levels, start=1):
            if hashes:
                self._compare(level, (self.published.checkpoint.size >> 8 * level) // TILE_WIDTH, hashes)

    def _compare(self, level: int, number: int, hashes: list[bytes]) -> None:
        place = f"tile {tile_key(level, number, len(hashes))}"
        found = read_tile(place, lambda: self.hashes.tile(level, number))
        for offset, (expected, actual) in enumerate(zip(hashes, found, strict=True)):
            if expected != actual:
                raise LogDamaged(f"{place}, hash", offset, expected=expected.hex(), found=actual.hex())

    def frontier_row(self) -> None:
        """Compare the stored frontier, and refuse rows that lie outside the log."""
        stored = self.rows.frontier
        if self.frontier.to_bytes() != stored:
            raise LogDamaged("frontier", None, expected=self.frontier.to_bytes().hex()[:64], found=stored.hex()[:64])
        extra = self.rows.outside()
        if extra is not None:
            raise LogDamaged("entry", extra, expected="no row outside the log", found="one")
