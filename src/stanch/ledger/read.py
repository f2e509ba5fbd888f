"""The reading side of a log: entries, queries, checkpoints and proofs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from stanch.errors import InvalidInput, NotFound
from stanch.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from stanch.ledger.hashes import TileHashes
from stanch.ledger.index import EntryQuery, EntryState, query_entries, query_index, query_states
from stanch.ledger.note import NoteVerifier
from stanch.ledger.proof import prove_consistency, prove_inclusion
from stanch.ledger.tiles import CHECKPOINT_KEY
from stanch.ledger.tlogproof import TlogProof
from stanch.store import BlobStore, Tables, open_blobs, open_tables
from stanch.store.schema.ledger import ledger_cosignature, ledger_entry
from stanch.terms import EntryRef

_PAGE = 256


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a log is, in words that another process understands.

    Attributes:
        tables: URI of its database.
        blobs: URI of its tiles.
        base: Folder that relative paths start at.
        vkeys: Its public keys, the present one first.
    """

    tables: str
    blobs: str
    base: Path
    vkeys: tuple[str, ...]

    def open(self) -> "LedgerReader":
        """Open it for reading; the caller closes ``tables`` of what is returned."""
        tables, blobs = open_tables(self.tables, base=self.base), open_blobs(self.blobs, base=self.base)
        return LedgerReader(tables, blobs, verifiers=[NoteVerifier.parse(vkey) for vkey in self.vkeys])


class LedgerReader:
    """Reads one log. It never changes an entry; it may bring the derived query index up to date."""

    def __init__(self, tables: Tables, blobs: BlobStore, *, verifiers: Sequence[NoteVerifier]) -> None:
        """Read the log whose checkpoints the keys ``verifiers`` signed, at least one of one name."""
        self.tables = tables
        self.blobs = blobs
        self.verifiers = tuple(verifiers)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.verifiers[0].name

    def size(self) -> int:
        """Return how many entries are durable, in a checkpoint or not yet."""
        with self.tables.read() as connection:
            size = connection.exec_driver_sql("SELECT size FROM ledger_log WHERE origin = ?", (self.origin,)).scalar()
        if size is None:
            raise NotFound(f"log {self.origin}: is not in this database")
        return int(size)

    def entry(self, index: int) -> bytes:
        """Return the bytes of one entry.

        Raises:
            NotFound: The log is not that long.
        """
        for found, data in self.tail(index, 1):
            if found == index:
                return data
        raise NotFound(f"log {self.origin}: has no entry {index}")

    def entries(self, indexes: Iterable[int]) -> dict[int, bytes]:
        """Return the bytes of several entries by their indexes, in the order that was asked for.

        Raises:
            NotFound: The log is not that long.
        """
        wanted, found = list(dict.fromkeys(indexes)), dict[int, bytes]()
        table = ledger_entry.c
        for start in range(0, len(wanted), _PAGE):
            some = (table.origin == self.origin) & table.idx.in_(wanted[start : start + _PAGE])
            with self.tables.read() as connection:
                found |= {row.idx: row.data for row in connection.execute(select(table.idx, table.data).where(some))}
        if missing := [index for index in wanted if index not in found]:
            raise NotFound(f"log {self.origin}: has no entry {missing[0]}")
        return {index: found[index] for index in wanted}

    def tail(self, start: int = 0, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield (index, bytes) from ``start`` on, at most ``limit`` of them, a page at a time."""
        while limit is None or limit > 0:
            page = _PAGE if limit is None else min(limit, _PAGE)
            with self.tables.read() as connection:
                rows = connection.exec_driver_sql(
                    "SELECT idx, data FROM ledger_entry WHERE origin = ? AND idx >= ? ORDER BY idx LIMIT ?",
                    (self.origin, start, page),
                ).all()
            yield from ((index, data) for index, data in rows)
            if len(rows) < page:
                return
            start = rows[-1][0] + 1
            limit = None if limit is None else limit - page

    def query(self, query: EntryQuery) -> Iterator[EntryRef]:
        """Yield references to the entries that a query asks for; see :class:`stanch.ledger.index.EntryQuery`."""
        return query_index(self.tables, self.origin, query)

    def states(self, query: EntryQuery) -> Iterator[EntryState]:
        """Yield how the entries stand that a query asks for, from the index alone."""
        return query_states(self.tables, self.origin, query)

    def select(self, query: EntryQuery) -> Iterator[tuple[int, bytes]]:
        """Yield (index, bytes) of the entries that a query asks for; all of them are held at once."""
        return query_entries(self.tables, self.origin, query)

    def checkpoint(self, size: int | None = None) -> SignedCheckpoint:
        """Return the published checkpoint, or the stored one of exactly ``size`` entries, with its cosignatures.

        The log's signature is verified; cosignatures are for whoever trusts the witnesses.

        Raises:
            NotFound: There is none.
            VerificationError: It is not signed by this log's key.
        """
        if size is None:
            return open_checkpoint(self.blobs.get(CHECKPOINT_KEY), self.verifiers)
        table = ledger_cosignature.c
        with self.tables.read() as connection:
            stored = connection.exec_driver_sql(
                "SELECT note FROM ledger_checkpoint WHERE origin = ? AND size = ? AND published = 1",
                (self.origin, size),
            ).scalar()
            lines = connection.scalars(select(table.line).where(table.origin == self.origin, table.size == size)).all()
        if stored is None:
            raise NotFound(f"log {self.origin}: no checkpoint was published at size {size}")
        return open_checkpoint(stored + "".join(lines).encode(), self.verifiers)

    def prove(self, index: int, size: int | None = None) -> bytes:
        """Return a C2SP tlog-proof that entry ``index`` is in the log of the (latest) checkpoint.

        Raises:
            InvalidInput: The entry is not in that checkpoint.
            NotFound: There is no such checkpoint, or a tile is missing.
        """
        return next(self.proofs((index,), size))

    def proofs(self, indexes: Iterable[int], size: int | None = None) -> Iterator[bytes]:
        """Yield the proof of each of several entries, as :meth:`prove`; what they share is read once."""
        signed = self.checkpoint(size)
        covered = signed.checkpoint.size
        hashes = TileHashes(self.blobs, covered)
        for index in indexes:
            if not 0 <= index < covered:
                raise InvalidInput(
                    f"log {self.origin}: entry {index} is not in the checkpoint of {covered} entries",
                    next_step="publish a checkpoint first",
                )
            path = prove_inclusion(index, covered, hashes.subtree)
            yield TlogProof(index, tuple(path), signed.note).to_bytes()

    def prove_consistency(self, old_size: int, size: int) -> list[bytes]:
        """Return the RFC 9162 consistency path between two published sizes."""
        return prove_consistency(old_size, size, TileHashes(self.blobs, size).subtree)
