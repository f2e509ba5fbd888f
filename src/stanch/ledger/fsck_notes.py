"""The signed checkpoints that a check holds the rows against, read a page at a time: nothing ever prunes them."""

from collections.abc import Sequence

from stanch.crypto import Frontier
from stanch.errors import LogRolledBack, NotFound
from stanch.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from stanch.ledger.damage import LogDamaged
from stanch.ledger.fsck_rows import check_cosignatures, stored_anchors
from stanch.ledger.policy import TrustPolicy
from stanch.ledger.read import LedgerReader
from stanch.ledger.tiles import CHECKPOINT_KEY, TILE_WIDTH


class Checkpoints:
    """The published checkpoint, those kept elsewhere, and the log's own as far as they were loaded.

    Make it before the rows' size is read: both only grow, and an honest checkpoint is never ahead of its rows. What is
    signed later is not looked at.

    Attributes:
        published: The published checkpoint; of no entries where there is none.
        count: How many were opened.
        cosignatures: How many stored cosignatures of the policy's witnesses verified.
    """

    def __init__(self, reader: LedgerReader, policy: TrustPolicy, anchors: Sequence[bytes]) -> None:
        self.published = SignedCheckpoint(Checkpoint(reader.origin, 0, Frontier().root()), b"")
        self.count = self.cosignatures = 0
        self._reader, self._policy = reader, policy
        self._waiting: dict[int, list[tuple[str, Checkpoint]]] = {}
        self._loaded: int | None = None
        self._newest, published = self._sizes()
        notes = [(f"anchor {number}", note) for number, note in enumerate(anchors)] + stored_anchors(reader)
        try:
            notes.append((CHECKPOINT_KEY, reader.blobs.get(CHECKPOINT_KEY)))
            self.published = open_checkpoint(notes[-1][1], policy.keys)
        except NotFound as error:
            if published is not None:
                expected = f"a checkpoint of {published} entries"
                raise LogDamaged(CHECKPOINT_KEY, None, expected=expected, found="none") from error
        for name, note in notes:
            self._open(name, note)

    def _sizes(self) -> tuple[int | None, int | None]:
        """Return the largest stored size, and the largest that is marked as published."""
        with self._reader.tables.read() as connection:
            newest, published = connection.exec_driver_sql(
                "SELECT max(size), max(CASE WHEN published = 1 THEN size END) FROM ledger_checkpoint WHERE origin = ?",
                (self._reader.origin,),
            ).one()
        return newest, published

    def require_rows(self, size: int) -> None:
        """Refuse a log of fewer entries than one of the checkpoints covers.

        Raises:
            LogRolledBack: It is shorter.
        """
        if self._newest is not None and self._newest > size:
            self._load(self._newest - 1, self._newest)
        for covered in sorted(self._waiting, reverse=True):
            if covered > size:
                raise LogRolledBack(
                    f"log: was rolled back: expected {covered} entries as {self._waiting[covered][0][0]} says, "
                    f"found {size}",
                    why=f"entries {size} to {covered - 1} were cut off",
                    next_step="restore the newest database, or: stanch log recover",
                )

    def load(self, end: int) -> None:
        """Open the log's own checkpoints of up to ``end`` entries, and check their cosignatures.

        Raises:
            LogDamaged: A row says something else than its note, or a cosignature is not one.
            VerificationError: A signature does not verify.
        """
        if self._newest is not None:
            self._load(self._loaded, min(end, self._newest))
        self._loaded = end

    def _load(self, after: int | None, end: int) -> None:
        first = -(2**63) if after is None else after + 1
        with self._reader.tables.read() as connection:
            stored = connection.exec_driver_sql(
                "SELECT size, root, note FROM ledger_checkpoint WHERE origin = ? AND size BETWEEN ? AND ?"
                " ORDER BY size",
                (self._reader.origin, first, end),
            ).all()
        for size, root, note in stored:
            name = f"stored checkpoint {size}"
            found = self._open(name, note)
            if (size, root) != (found.size, found.root):
                raise LogDamaged(name, None, expected="the size and root of its own note", found="others")
        self.cosignatures += check_cosignatures(self._reader, self._policy, first, end)

    def _open(self, name: str, note: bytes) -> Checkpoint:
        checkpoint = open_checkpoint(note, self._policy.logs).checkpoint
        if checkpoint.origin != self._reader.origin:
            raise LogDamaged(name, None, expected=f"log {self._reader.origin}", found=f"log {checkpoint.origin}")
        self._waiting.setdefault(checkpoint.size, []).append((name, checkpoint))
        self.count += 1
        return checkpoint

    def inside(self, rows: range) -> list[int]:
        """Return the sizes of loaded checkpoints that end inside ``rows``, smallest first."""
        return [size for size in rows[1:] if size in self._waiting]

    def tiles(self, rows: range) -> frozenset[int]:
        """Return the numbers of the tiles in ``rows`` inside which a loaded checkpoint ends."""
        return frozenset(size // TILE_WIDTH for size in self.inside(rows) if size % TILE_WIDTH)

    def compare(self, frontier: Frontier) -> None:
        """Compare the root over the first rows with the checkpoints of this size, which are then done with.

        Raises:
            LogDamaged: The rows lead to another root.
        """
        for name, checkpoint in self._waiting.pop(frontier.size, ()):
            if checkpoint.root != frontier.root():
                raise LogDamaged(
                    f"entries before {checkpoint.size}, against {name}",
                    None,
                    expected=f"root {checkpoint.root.hex()}",
                    found=frontier.root().hex(),
                )
