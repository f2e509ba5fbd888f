"""The keys of one log: the present one signs, and one that it replaced signs beside it for thirty days.

So whoever trusts the old key has that long to learn of the new one. Notes that an old key signed stay valid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from sqlalchemy import Connection

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NotFound
from stanch.ledger.note import NoteSigner, NoteVerifier, check_name
from stanch.store import Tables

OVERLAP_MS = 30 * 24 * 3600 * 1000
"""How long a replaced key signs beside its successor."""


@dataclass(frozen=True)
class LogKeys:
    """The keys of the log ``origin``.

    Attributes:
        origin: The log's name, which is its keys' name too.
        keys: The present key, then those before it, the newest first.
        replaced_ms: When keys were replaced, by their ids.
    """

    origin: str
    keys: tuple[SigningKey, ...]
    replaced_ms: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.origin)
        for key in self.keys:
            if key.kind != "ed25519":
                raise InvalidInput(f"log {self.origin}: expected an Ed25519 key, found {key.kind}")

    @classmethod
    def read(cls, tables: Tables, origin: str, keys: Sequence[SigningKey]) -> Self:
        """Return which of the given keys, the newest first, the database says are the log's.

        Raises:
            NotFound: The database holds no such log.
            InvalidInput: The log's present key is not among them.
        """
        with tables.read() as connection:
            present = connection.exec_driver_sql("SELECT key_id FROM ledger_log WHERE origin = ?", (origin,)).scalar()
            replaced = connection.exec_driver_sql(
                "SELECT key_id, replaced_ms FROM ledger_key WHERE origin = ?", (origin,)
            ).all()
        if present is None:
            raise NotFound(f"log {origin}: is not in this database")
        ids = [key.key_id for key in keys]
        if present not in ids:
            raise InvalidInput(f"log {origin}: expected its key {present}, found {', '.join(ids)}")
        # A newer key than the present one was made by a rotation that did not come to its end.
        return cls(origin, tuple(keys[ids.index(present) :]), dict(replaced))

    @cached_property
    def verifiers(self) -> tuple[NoteVerifier, ...]:
        """The public halves of all keys that signed this log's checkpoints; the present one first."""
        return tuple(NoteSigner(self.origin, key).verifier for key in self.keys)

    def signers(self, now_ms: int) -> tuple[NoteSigner, ...]:
        """Return the keys that sign a checkpoint now, the present one first."""
        still = [key for key in self.keys[1:] if now_ms - self.replaced_ms.get(key.key_id, 0) < OVERLAP_MS]
        return tuple(NoteSigner(self.origin, key) for key in (self.keys[0], *still))

    def replace(self, key: SigningKey, connection: Connection, now_ms: int) -> None:
        """Make ``key`` the log's present key, in the caller's transaction; :meth:`read` gives the keys after it.

        Raises:
            InvalidInput: It is not an Ed25519 key, or was this log's before.
        """
        if key.kind != "ed25519":
            raise InvalidInput(f"log {self.origin}: expected an Ed25519 key, found {key.kind}")
        if key.key_id in {known.key_id for known in self.keys}:
            raise InvalidInput(f"log {self.origin}: {key.key_id} is, or was before, its key")
        old = self.keys[0].key_id
        connection.exec_driver_sql(
            "INSERT INTO ledger_key (origin, key_id, replaced_ms) VALUES (?, ?, ?)", (self.origin, old, now_ms)
        )
        connection.exec_driver_sql("UPDATE ledger_log SET key_id = ? WHERE origin = ?", (key.key_id, self.origin))
