"""Re-derivation of a whole log: rows, bundles, tiles, frontier, roots and signatures, each from the one before.

The first difference is raised with its place. What nobody outside remembers cannot be found: a tail that was cut off
before a checkpoint was signed over it, and a history that was rewritten with the log's own key.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Literal

from stanch.crypto import Frontier
from stanch.ledger.damage import LogDamaged
from stanch.ledger.fsck_notes import Checkpoints
from stanch.ledger.fsck_rows import PAGE, Openings, Rows, check_page
from stanch.ledger.fsck_tile import CheckedTile, Rules, read_tile
from stanch.ledger.hashes import TileHashes
from stanch.ledger.policy import NO_QUORUM, TrustPolicy
from stanch.ledger.read import LedgerReader, LogPlace
from stanch.ledger.tiles import TILE_WIDTH, tile_key, tile_width

_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """What was checked, all of it without a difference.

    Attributes:
        origin: The log.
        size: Entries in the rows.
        published: Entries that the published checkpoint covers.
        root: Root hash over all rows, hex.
        checkpoints: How many signed checkpoints the rows lead to: the log's own and those given as anchors.
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
    checkpoints: int
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
    # Notes and openings are read before the rows: a log in use grows meanwhile, and they are never ahead of its rows.
    checkpoints = Checkpoints(reader, policy, anchors)
    openings = Openings.check(reader)
    check = _Check(Rows.of(reader), checkpoints)
    for tile in _share(check, place, jobs):
        check.tile(tile)
        openings.found(tile.commitments)
    check.upper_tiles()
    check.frontier_row()
    openings.require_all()
    witnesses = _require_quorum(policy, checkpoints)
    return FsckReport(
        origin=reader.origin,
        size=check.size,
        published=checkpoints.published.checkpoint.size,
        root=check.frontier.root().hex(),
        checkpoints=checkpoints.count,
        cosignatures=checkpoints.cosignatures,
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


def _require_quorum(policy: TrustPolicy, checkpoints: Checkpoints) -> tuple[str, ...]:
    """Return who of the policy's witnesses cosigned the published checkpoint; refuse too few."""
    policy.require_quorum(checkpoints.published.cosignatures)
    present = {(signature.name, signature.key_id) for signature in checkpoints.published.cosignatures}
    return tuple(w.name for w in policy.witnesses if (w.key.name, w.key.key_id) in present)


def _share(check: "_Check", place: LogPlace | None, jobs: int) -> Iterator[CheckedTile]:
    """Yield what each tile says, in order; several processes work ahead of the reader."""
    pages = (range(check.size)[first : first + PAGE] for first in range(0, check.size, PAGE))
    if place is None or jobs == 1:
        for page in pages:
            yield from check_page(check.rows.reader, check.rules(page), page)
        return
    # A fresh process: one that was forked would share this one's database connections and locks.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending: deque[Future[list[CheckedTile]]] = deque()
        try:
            for page in pages:
                pending.append(pool.submit(_check_page_at, place, check.rules(page), page))
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

    def __init__(self, rows: Rows, checkpoints: Checkpoints) -> None:
        checkpoints.require_rows(rows.size)
        self.rows = rows
        self.size = rows.size
        self.checkpoints = checkpoints
        self.published = checkpoints.published.checkpoint.size
        self.full_tiles = Frontier()
        self.frontier = Frontier()
        self.levels: list[list[bytes]] = []
        self.open_intents: dict[str, tuple[str, str]] = {}
        self.signed_acts = 0
        self.hashes = TileHashes(rows.reader.blobs, self.published)
        checkpoints.load(0)
        checkpoints.compare(self.frontier)

    def rules(self, page: range) -> Rules:
        """Load the checkpoints that end in a page, and return what its entries are held against."""
        self.checkpoints.load(page.stop)
        return Rules(self.rows.reader.origin, self.rows.keys, self.published, self.checkpoints.tiles(page))

    def tile(self, checked: CheckedTile) -> None:
        """Take up to 256 rows into the tree."""
        for ending in checked.closed:
            ending.require_begun(self.open_intents.pop(ending.act, None))
        self.open_intents |= checked.opened
        self.signed_acts += checked.signed
        self._grow(checked)
        number = checked.first // TILE_WIDTH
        if tile_width(self.published, 0, number) == TILE_WIDTH:
            self._rise(0, number, checked.root)

    def _grow(self, checked: CheckedTile) -> None:
        """Append the leaves; stop at each checkpoint's size to compare its root."""
        first, end = checked.first, checked.first + checked.count
        # Full tiles are perfect subtrees: the frontier over them is that of their number.
        before = Frontier(first, self.full_tiles.hashes)
        for size in self.checkpoints.inside(range(first, end)):
            self.checkpoints.compare(before.append(checked.leaves[: size - first]))
        if checked.root:
            self.full_tiles = self.full_tiles.append([checked.root])
            self.frontier = Frontier(end, self.full_tiles.hashes)
        else:
            self.frontier = before.append(checked.leaves)
        self.checkpoints.compare(self.frontier)

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
                self._compare(level, (self.published >> 8 * level) // TILE_WIDTH, hashes)

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
