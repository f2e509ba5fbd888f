"""What a witness remembers, in a database: compare and store in one transaction, durable before the answer."""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from stanch.crypto import sha256
from stanch.errors import InvalidInput, NotFound
from stanch.ledger.checkpoint import Checkpoint
from stanch.ledger.note import ED25519, Cosigner, NoteVerifier
from stanch.ledger.witness import WitnessReply, WitnessState, add_checkpoint
from stanch.store import Tables
from stanch.store.schema.ledger import witness_evidence, witness_log

_MAX_EVIDENCE = 1000


class WitnessStore:
    """A witness on a database of its own. Threads and processes may share it."""

    def __init__(
        self,
        tables: Tables,
        cosigner: Cosigner,
        logs: Sequence[NoteVerifier],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Watch the logs with the given keys.

        Raises:
            InvalidInput: There is none, or one of the keys is a witness's.
        """
        if not logs or any(key.kind != ED25519 for key in logs):
            raise InvalidInput("witness: expected keys of logs, of type 01", next_step="stanch init shows a log's key")
        self._tables = tables
        self._cosigner = cosigner
        self._logs = tuple(logs)
        self._clock = clock

    def add_checkpoint(self, body: bytes) -> WitnessReply:
        """Answer a request; see :func:`stanch.ledger.witness.add_checkpoint`. A cosignature is durable when returned.

        Raises:
            StoreError: The database failed; nothing was cosigned.
        """
        with self._tables.write() as connection:
            reply = add_checkpoint(WitnessState(self._cosigner, self._logs, _cosigned(connection)), body, self._clock)
            if reply.record is not None:
                self._record(connection, reply.record.checkpoint, reply.record.note)
            if reply.evidence:
                self._keep(connection, body)
        return reply

    def note(self, origin_digest: str) -> bytes:
        """Return the last cosigned note of a log, by the hex SHA-256 of its origin.

        Raises:
            NotFound: Nothing was cosigned of such a log.
        """
        origins = [key.name for key in self._logs if sha256(key.name.encode()).hex() == origin_digest]
        with self._tables.read() as connection:
            note: bytes | None = connection.scalar(select(witness_log.c.note).where(witness_log.c.origin.in_(origins)))
        if note is None:
            raise NotFound("witness: nothing was cosigned of that log")
        return note

    def evidence(self, origin: str) -> list[bytes]:
        """Return the refused requests that prove something against a log, oldest first."""
        table = witness_evidence.c
        query = select(table.request).where(table.origin == origin).order_by(table.received_ms, table.digest)
        with self._tables.read() as connection:
            return list(connection.scalars(query))

    def _record(self, connection: Connection, checkpoint: Checkpoint, note: bytes) -> None:
        vkeys = " ".join(key.vkey for key in self._logs if key.name == checkpoint.origin)
        connection.execute(delete(witness_log).where(witness_log.c.origin == checkpoint.origin))
        connection.execute(insert(witness_log).values(
            origin=checkpoint.origin, vkeys=vkeys, size=checkpoint.size, root=checkpoint.root, note=note,
        ))  # fmt: skip

    def _keep(self, connection: Connection, body: bytes) -> None:
        """Keep a refused request; whoever holds the log's key cannot fill the disk with them."""
        origin = body.partition(b"\n\n")[2].partition(b"\n")[0].decode()
        digest = sha256(body).hex()
        table = witness_evidence.c
        known = connection.scalar(select(func.count()).where(table.origin == origin, table.digest == digest))
        if known or (connection.scalar(select(func.count()).where(table.origin == origin)) or 0) >= _MAX_EVIDENCE:
            return
        cosigned = connection.scalar(select(witness_log.c.note).where(witness_log.c.origin == origin))
        connection.execute(insert(witness_evidence).values(
            origin=origin, digest=digest, request=body, cosigned=cosigned or b"", received_ms=int(self._clock() * 1000),
        ))  # fmt: skip


def _cosigned(connection: Connection) -> dict[str, Checkpoint]:
    rows = connection.execute(select(witness_log.c.origin, witness_log.c.size, witness_log.c.root))
    return {origin: Checkpoint(origin, size, root) for origin, size, root in rows}
