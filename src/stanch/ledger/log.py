"""The log as its writers see it: append, publish, read."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from stanch.crypto import Frontier, SigningKey
from stanch.errors import (
    Conflict,
    LedgerUnavailable,
    LogRolledBack,
    NotFound,
    QuorumUnmet,
    StanchError,
    VerificationError,
)
from stanch.ledger.anchor import Anchor, Anchors
from stanch.ledger.checkpoint import SignedCheckpoint
from stanch.ledger.committer import Committer, PreparedEntry, Within
from stanch.ledger.entry import Entry
from stanch.ledger.index import update_index
from stanch.ledger.keys import LogKeys
from stanch.ledger.note import NoteVerifier
from stanch.ledger.policy import TrustPolicy, Witness
from stanch.ledger.publish import Publisher
from stanch.ledger.read import LedgerReader
from stanch.ledger.tiles import CHECKPOINT_KEY
from stanch.ledger.witness_client import WitnessClient
from stanch.store import BlobStore, Tables
from stanch.terms import EntryRef

_QUORUM_POLL_SECONDS = 0.2
_LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParams:
    """How a log is run.

    Attributes:
        highwater: A file of its own, best on another disk, that remembers the largest checkpoint signed here.
        checkpoint_seconds: How often new entries are published; 0 publishes on demand and at close only.
        policy: What readers are told to demand: trusted logs, witnesses and their quorum.
        witnesses: Who is asked to cosign.
        refresh_seconds: A cosignature older than this is asked for again, so that readers see the log is alive.
        anchors: Where whole checkpoints are kept.
        anchor_seconds: How often a checkpoint goes there.
    """

    highwater: Path
    checkpoint_seconds: float = 1.0
    policy: TrustPolicy | None = None
    witnesses: tuple[Witness, ...] = ()
    refresh_seconds: float = 150.0
    anchors: tuple[Anchor, ...] = ()
    anchor_seconds: float = 3600.0


class Ledger:
    """An append-only Merkle log. Use it as a context manager: closing publishes a last checkpoint.

    Any number of threads may append. Several processes may open the same log: on one machine with SQLite, on many hosts
    with PostgreSQL.
    """

    def __init__(
        self,
        tables: Tables,
        blobs: BlobStore,
        keys: LogKeys,
        params: LedgerParams,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.origin = keys.origin
        self._tables = tables
        self._blobs = blobs
        self._committer = Committer(tables, keys.origin)
        self.anchors = Anchors(tables, params.anchors, every_seconds=params.anchor_seconds, clock=clock)
        witnesses = WitnessClient(tables, params.witnesses, clock=clock, refresh_seconds=params.refresh_seconds)
        self._publisher = Publisher(
            tables, blobs, keys, highwater=params.highwater, clock=clock,
            witnesses=witnesses if params.witnesses else None, anchors=self.anchors if params.anchors else None,
        )  # fmt: skip
        self.witnesses = params.witnesses
        self._clock = clock
        self.policy = params.policy or TrustPolicy(keys.verifiers)
        self._closing = threading.Event()
        self._timer: threading.Thread | None = None
        self._seconds = params.checkpoint_seconds

    @classmethod
    def create(
        cls,
        tables: Tables,
        blobs: BlobStore,
        *,
        origin: str,
        signer: SigningKey,
        params: LedgerParams,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Start a new log named ``origin`` and open it.

        Raises:
            Conflict: The database holds this log already.
            LogRolledBack: The blobs or the high-water file remember a log, so this is an old or empty database.
        """
        keys, known = LogKeys(origin, (signer,)), "SELECT 1 FROM ledger_log WHERE origin = ?"
        with tables.read() as connection:
            if connection.exec_driver_sql(known, (origin,)).first():
                raise Conflict(
                    f"log {origin}: the database holds it already",
                    next_step="on a second host, copy stanch.toml and .stanch/keys from the first",
                )
        if params.highwater.exists() or any(blobs.list(CHECKPOINT_KEY)):
            raise LogRolledBack(
                f"log {origin}: checkpoints exist already",
                why="the database that belongs to them is missing",
                next_step="restore the database, or choose an empty folder",
            )
        with tables.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO ledger_log (origin, size, frontier, key_id, updated_ms) VALUES (?, 0, ?, ?, 0)",
                (origin, Frontier().to_bytes(), signer.key_id),
            )
        return cls._open(tables, blobs, keys, params, clock)

    @classmethod
    def open(
        cls,
        tables: Tables,
        blobs: BlobStore,
        *,
        origin: str,
        keys: Sequence[SigningKey],
        params: LedgerParams,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open an existing log for appending.

        Args:
            tables: Where its rows are.
            blobs: Where its tiles are.
            origin: Its name.
            keys: All keys that it ever had, the newest first.
            params: How it is run.
            clock: Seconds since 1970.

        Raises:
            NotFound: The database holds no such log.
            InvalidInput: The log's present key is not among the keys.
            LogRolledBack: The rows are shorter than, or differ from, what this log signed before.
        """
        return cls._open(tables, blobs, LogKeys.read(tables, origin, keys), params, clock)

    @classmethod
    def _open(
        cls, tables: Tables, blobs: BlobStore, keys: LogKeys, params: LedgerParams, clock: Callable[[], float]
    ) -> Self:
        ledger = cls(tables, blobs, keys, params, clock=clock)
        ledger._publisher.guard()
        ledger._start_timer()
        return ledger

    @property
    def verifier(self) -> NoteVerifier:
        """The public half of the present key."""
        return self.verifiers[0]

    @property
    def verifiers(self) -> tuple[NoteVerifier, ...]:
        """The public halves of all keys that signed this log's checkpoints, the present one first."""
        return self._publisher.keys.verifiers

    def replace_key(self, key: SigningKey, connection: Connection) -> None:
        """Make ``key`` the log's, and let the present one sign beside it for thirty days, in the caller's transaction.

        Processes sign with the key that they were opened with, this one until :meth:`use_keys`: open the others again
        within that time.

        Raises:
            InvalidInput: It is not an Ed25519 key, or was this log's before.
        """
        self._publisher.keys.replace(key, connection, int(self._clock() * 1000))

    def use_keys(self, keys: Sequence[SigningKey]) -> None:
        """Sign with those of the keys, the newest first, that the database says are the log's."""
        self._publisher.keys = LogKeys.read(self._tables, self.origin, keys)

    def append(self, entry: Entry, *, within: Within | None = None) -> EntryRef:
        """Append an entry and return when it is durable.

        Args:
            entry: What to record.
            within: Runs in the same transaction, for example to consume approvals. If it raises, the entry is not
                appended and the error comes back from here.

        Raises:
            LedgerUnavailable: It could not be made durable; the act must not happen.
            ClockWentBack: Its time is more than 60 s before the last recorded one.
            ClockAhead: Its time is more than 60 s ahead of the database server's.
            InvalidInput: The entry breaks a rule of its format.
        """
        return self.append_nowait(entry, within=within).result()

    def append_nowait(self, entry: Entry, *, within: Within | None = None) -> Future[EntryRef]:
        """Queue an entry; the future resolves when it is durable. Encoding and hashing happen here."""
        return self._committer.submit(
            PreparedEntry(
                data=entry.encode(self.origin),
                act=entry.act.id,
                principal=entry.act.principal,
                time_ms=entry.time_ms,
                openings=entry.openings,
                within=within,
            )
        )

    def publish(self) -> SignedCheckpoint:
        """Publish a checkpoint over all durable entries; see :meth:`stanch.ledger.publish.Publisher.publish`.

        After a verification error the log refuses further entries.
        """
        # Another host that publishes now spares us the work; if it takes long, both write the same bytes.
        with self._lease(wait_seconds=_LEASE_SECONDS):
            return self._publish()

    def _lease(self, *, wait_seconds: float) -> AbstractContextManager[bool]:
        return self._tables.lease(f"publisher of {self.origin}", wait_seconds=wait_seconds)

    def _publish(self) -> SignedCheckpoint:
        try:
            signed = self._publisher.publish()
        except VerificationError as error:
            self._committer.stop(error)
            raise
        update_index(self._tables, self.origin)
        return signed

    def require_quorum(self, ref: EntryRef, *, timeout_seconds: float = 30.0) -> SignedCheckpoint:
        """Wait until the witnesses' quorum cosigned a checkpoint that covers an entry, and return it.

        Raises:
            QuorumUnmet: The policy's quorum was not reached in time.
            NotFound: This log holds no such entry.
            LogRolledBack: A witness saw a longer log, or another history.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            signed = self.publish()
            if ref.index >= signed.checkpoint.size:
                raise NotFound(f"log {self.origin}: has no entry {ref.index}")
            try:
                self.policy.require_quorum(signed.cosignatures)
            except QuorumUnmet:
                if time.monotonic() > deadline:
                    raise
            else:
                return signed
            time.sleep(_QUORUM_POLL_SECONDS)

    def anchor(self) -> SignedCheckpoint:
        """Publish, and keep the checkpoint at every anchor.

        Raises:
            LogRolledBack: An anchor keeps another checkpoint of this size.
            StoreError: An anchor cannot be reached.
        """
        signed = self.publish()
        self.anchors.keep(signed)
        return signed

    @property
    def waiting(self) -> int:
        """How many entries of this process wait to be written."""
        return self._committer.waiting

    def reader(self) -> LedgerReader:
        """Return the reading side."""
        return LedgerReader(self._tables, self._blobs, verifiers=self.verifiers)

    def close(self) -> None:
        """Write what is queued, publish it, and refuse further entries. Closing again does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._timer is not None:
            self._timer.join()
        self._committer.stop(LedgerUnavailable(f"log {self.origin}: is closed"))
        self.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start_timer(self) -> None:
        if self._seconds > 0:
            self._timer = threading.Thread(target=self._publish_often, name="stanch-publisher", daemon=True)
            self._timer.start()

    def _publish_often(self) -> None:
        published = -1
        while not self._closing.wait(self._seconds):
            try:
                if self.reader().size() != published or self._publisher.due(published):
                    with self._lease(wait_seconds=0) as held:
                        published = self._publish().checkpoint.size if held else published
            except VerificationError:
                return  # _publish() stopped the log; the next append says why
            except StanchError:
                continue  # the store may come back; entries stay durable in the database meanwhile
