"""One-time links into the console: a secret of 256 bits that opens one browser session within a quarter of an hour.

The table keeps its MAC alone. Whoever redeems it acts as the principal who made it, as long as that key is still good.
"""

import time
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select, update

from stanch.access import opaque
from stanch.access.clock import Clock, milliseconds
from stanch.access.credential import require_valid
from stanch.access.directory import not_authenticated
from stanch.access.session import Session
from stanch.crypto import RandomBytes, frame, hmac_sha256, random_bytes
from stanch.errors import NotAuthenticated
from stanch.store import Tables
from stanch.store.schema import console as schema

LIFE_MS = 15 * 60_000
_LABEL = b"stanch/access/v1/bootstrap"


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """The secret of a link, shown once, and until when it is good."""

    text: str = field(repr=False)
    expires_ms: int


class Bootstrap:
    """The one-time links of one workspace.

    Args:
        tables: Where their MACs are kept.
        key: Secret of 32 bytes for the MACs.
        clock: Seconds since 1970.
        rng: Source of randomness.
    """

    def __init__(
        self,
        tables: Tables,
        key: bytes,
        *,
        clock: Clock = time.time,
        rng: RandomBytes = random_bytes,
    ) -> None:
        self._tables = tables
        self._key = key
        self._now = milliseconds(clock)
        self._rng = rng

    def issue(self, session: Session) -> BootstrapToken:
        """Make a link for whoever has signed in with a local key; links that are over are forgotten."""
        secret, now_ms, table = self._rng(opaque.SIZE), self._now(), schema.console_token
        with self._tables.write() as connection:
            connection.execute(delete(table).where(table.c.created_ms <= now_ms - LIFE_MS))
            connection.execute(insert(table).values(
                mac=self._mac(secret), principal=session.principal, credential=session.key_id, mfa=int(session.mfa),
                created_ms=now_ms,
            ))  # fmt: skip
        return BootstrapToken(opaque.write(secret), now_ms + LIFE_MS)

    def redeem(self, text: str) -> Session:
        """Return the session that a link stands for; it is thereby used up.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        mac, now_ms, table = self._mac(opaque.read(text)), self._now(), schema.console_token
        with self._tables.write() as connection:
            alive = (table.c.mac == mac) & table.c.used_ms.is_(None) & (table.c.created_ms > now_ms - LIFE_MS)
            if not connection.execute(update(table).where(alive).values(used_ms=now_ms)).rowcount:
                raise not_authenticated()
            row = connection.execute(select(table).where(table.c.mac == mac)).one()
        session = Session(row.principal, row.credential, bool(row.mfa), now_ms, now_ms + LIFE_MS)
        with self._tables.read() as connection:
            try:
                require_valid(connection, session, now_ms)
            except NotAuthenticated as error:
                raise not_authenticated() from error
        return session

    def _mac(self, secret: bytes) -> str:
        return hmac_sha256(self._key, frame(_LABEL, secret)).hex()
