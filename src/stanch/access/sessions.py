"""Sessions of browsers: a random id that the browser keeps, and its MAC that the table keeps.

Whoever reads the table cannot act with what it holds. A session ends after half an hour without use, after eight hours
in any case, and when it is ended. A second factor counts for ten minutes after it was shown (step-up), at the issuer if
it was shown there.
"""

import time
from dataclasses import dataclass, field, replace

from sqlalchemy import insert, select, update

from stanch.access import opaque
from stanch.access.clock import Clock, milliseconds
from stanch.access.directory import not_authenticated
from stanch.access.session import LEEWAY_MS, Session
from stanch.crypto import RandomBytes, frame, hmac_sha256, random_bytes
from stanch.store import Tables
from stanch.store.schema import access as schema

IDLE_MS = 30 * 60_000
STEP_UP_MS = 10 * 60_000
_LABEL = b"stanch/access/v1/session-id"


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """An opened session as the browser gets it: the id for a cookie."""

    session: Session
    cookie: str = field(repr=False)


class Sessions:
    """The browser sessions of one workspace.

    Args:
        tables: Where they are kept.
        key: Secret of 32 bytes for the MAC of the ids.
        minutes: Longest life of a session.
        clock: Seconds since 1970.
        rng: Source of randomness.
    """

    def __init__(
        self,
        tables: Tables,
        key: bytes,
        *,
        minutes: int = 480,
        clock: Clock = time.time,
        rng: RandomBytes = random_bytes,
    ) -> None:
        self._tables = tables
        self._key = key
        self._life_ms = minutes * 60_000
        self._now = milliseconds(clock)
        self._rng = rng

    def open_session(self, proven: Session, auth_ms: int | None = None) -> BrowserSession:
        """Open a browser session.

        Args:
            proven: Who it is for.
            auth_ms: When they signed in where their credential comes from, which may be long ago; a time ahead of our
                clock by a minute is now, one further ahead is not believed. None: just now.
        """
        secret, now_ms = self._rng(opaque.SIZE), self._now()
        mac = self._mac(secret)
        since = now_ms if auth_ms is None else auth_ms if auth_ms <= now_ms + LEEWAY_MS else 0
        since = min(since, now_ms)
        mfa_ms = since if proven.mfa else None
        session = Session(
            proven.principal, f"bs_{mac[:20]}", _counts(mfa_ms, now_ms), since, now_ms + self._life_ms, kind="browser"
        )
        with self._tables.write() as connection:
            # The column csrf is an earlier release's; forms carry the console's own tokens.
            connection.execute(
                insert(schema.session).values(
                    mac=mac, principal=proven.principal, credential=session.key_id, auth_ms=since,
                    mfa_ms=mfa_ms, seen_ms=now_ms, expires_ms=session.expires_ms, csrf=b"",
                )
            )  # fmt: skip
        return BrowserSession(session, opaque.write(secret))

    def resume(self, cookie: str) -> Session:
        """Return the session of a cookie and note that it was used; ``mfa`` holds only while step-up does.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        mac, now_ms, table = self._mac(opaque.read(cookie)), self._now(), schema.session
        with self._tables.write() as connection:
            alive = update(table).where(
                table.c.mac == mac,
                table.c.ended_ms.is_(None),
                table.c.seen_ms > now_ms - IDLE_MS,
                table.c.expires_ms > now_ms,
            )
            if not connection.execute(alive.values(seen_ms=now_ms)).rowcount:
                raise not_authenticated()
            row = connection.execute(select(table).where(table.c.mac == mac)).one()
        mfa = _counts(row.mfa_ms, now_ms)
        return Session(row.principal, row.credential, mfa, row.auth_ms, row.expires_ms, kind="browser")

    def step_up(self, cookie: str, proven: Session) -> Session:
        """Let a second factor count again: the principal proved it to the issuer just now.

        Raises:
            NotAuthenticated: The session is gone, or the proof is another principal's or has no second factor.
        """
        session, now_ms = self.resume(cookie), self._now()
        if proven.principal != session.principal or not proven.mfa:
            raise not_authenticated()
        table = schema.session
        with self._tables.write() as connection:
            connection.execute(update(table).where(table.c.mac == self._mac(opaque.read(cookie))).values(mfa_ms=now_ms))
        return replace(session, mfa=True)

    def end(self, cookie: str) -> None:
        """End a session now; ending one that is gone does nothing."""
        table = schema.session
        with self._tables.write() as connection:
            ended = update(table).where(table.c.mac == self._mac(opaque.read(cookie)), table.c.ended_ms.is_(None))
            connection.execute(ended.values(ended_ms=self._now()))

    def _mac(self, secret: bytes) -> str:
        return hmac_sha256(self._key, frame(_LABEL, secret)).hex()


def _counts(mfa_ms: int | None, now_ms: int) -> bool:
    return mfa_ms is not None and 0 <= now_ms - mfa_ms < STEP_UP_MS
