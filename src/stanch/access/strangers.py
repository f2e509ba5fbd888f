"""Strangers: subjects whom a trusted issuer vouches for but who are not registered, listed for an administrator."""

from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, insert, select, update

from stanch.crypto import frame, sha256
from stanch.store.schema import access as schema

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who asked to come in. Its repr shows no name."""

    issuer: str = field(repr=False)
    subject: str = field(repr=False)
    first_ms: int
    last_ms: int
    attempts: int


def note(connection: Connection, issuer: str, subject: str, now_ms: int) -> None:
    """Note an attempt; of more than a thousand strangers the one seen longest ago is forgotten."""
    table, known = schema.stranger, _id(issuer, subject)
    again = update(table).where(table.c.id == known).values(last_ms=now_ms, attempts=table.c.attempts + 1)
    if connection.execute(again).rowcount:
        return
    if connection.execute(select(func.count()).select_from(table)).scalar_one() >= _MOST:
        oldest = select(table.c.id).order_by(table.c.last_ms).limit(1).scalar_subquery()
        connection.execute(delete(table).where(table.c.id == oldest))
    connection.execute(
        insert(table).values(id=known, issuer=issuer, subject=subject, first_ms=now_ms, last_ms=now_ms, attempts=1)
    )


def forget(connection: Connection, issuer: str, subject: str) -> None:
    """Take somebody off the list, because they are registered now."""
    connection.execute(delete(schema.stranger).where(schema.stranger.c.id == _id(issuer, subject)))


def read(connection: Connection) -> tuple[Stranger, ...]:
    """Return the list, the latest first."""
    rows = connection.execute(select(schema.stranger).order_by(schema.stranger.c.last_ms.desc()))
    return tuple(Stranger(row.issuer, row.subject, row.first_ms, row.last_ms, row.attempts) for row in rows)


def _id(issuer: str, subject: str) -> str:
    return sha256(frame(b"stanch/access/v1/stranger", issuer.encode(), subject.encode())).hex()
