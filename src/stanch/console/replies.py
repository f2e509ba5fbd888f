"""Answers that are given again: a program that repeats a request with the same ``Idempotency-Key`` does it once."""

import contextlib
import time
from collections.abc import Callable, Iterator

from sqlalchemy import delete, insert, select, update

from stanch.crypto import frame, sha256
from stanch.errors import InvalidInput
from stanch.store import Tables
from stanch.store.schema import console as schema
from stanch.terms import Digest

KEEP_MS = 24 * 3_600_000
_LABEL = b"stanch/console/v1/idempotency"
_MOST = 255


class Reply:
    """The answer under one key: None until it was given."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body

    def give(self, body: bytes) -> None:
        """Set the answer."""
        self.body = body


class Replies:
    """The answers of a day."""

    def __init__(self, tables: Tables, *, clock: Callable[[], float] = time.time) -> None:
        self._tables = tables
        self._clock = clock

    def name(self, principal: str, route: str, key: str) -> str:
        """Return under which name an answer is kept.

        Raises:
            InvalidInput: The key is too long, or no printable ASCII.
        """
        if len(key) > _MOST or not key.isascii() or not key.isprintable():
            raise InvalidInput(f"Idempotency-Key: expected at most {_MOST} printable characters")
        return sha256(frame(_LABEL, principal.encode(), route.encode(), key.encode())).hex()

    @contextlib.contextmanager
    def once(self, name: str, request: bytes) -> Iterator[Reply]:
        """Yield the answer of a request, or an empty one that the block fills; an error is no answer.

        Raises:
            InvalidInput: The key was used for another request, or its first request is still running.
        """
        table, now_ms, digest = schema.console_reply, int(self._clock() * 1000), str(Digest.sha256(request))
        with self._tables.write() as connection:
            connection.execute(delete(table).where(table.c.created_ms <= now_ms - KEEP_MS))
            row = connection.execute(select(table).where(table.c.key == name)).one_or_none()
            if row is None:
                connection.execute(insert(table).values(key=name, request=digest, status=0, created_ms=now_ms))
        if row is not None:
            if row.request != digest:
                raise InvalidInput("Idempotency-Key: was used for another request", next_step="choose a new key")
            if row.body is None and row.status:
                raise InvalidInput(
                    "Idempotency-Key: its request was done, and its answer was forgotten when somebody was erased",
                    next_step="look at what it made; for another request choose a new key",
                )
            if row.body is None:
                raise InvalidInput("Idempotency-Key: its first request has not ended", next_step="try again later")
            yield Reply(row.body)
            return
        mine = table.c.key == name
        reply = Reply(None)
        try:
            yield reply
        except BaseException:
            with self._tables.write() as connection:
                connection.execute(delete(table).where(mine))
            raise
        with self._tables.write() as connection:
            connection.execute(update(table).where(mine).values(body=reply.body, status=200))
