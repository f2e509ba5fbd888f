"""Grants: which roles a principal holds, where, until when, and who gave them."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, update

from stanch.access.facts import WORKSPACE_SCOPE, Grant
from stanch.access.roles import check_role, check_separation
from stanch.crypto import RandomBytes
from stanch.errors import InvalidInput, NotFound, SeparationOfDuties
from stanch.store.schema import access as schema

DEFAULT_DAYS = 30
MAX_DAYS = 180
DAY_MS = 86_400_000


def grants_in_force(connection: Connection, principal: str, now_ms: int) -> tuple[Grant, ...]:
    """Return the grants that count now; an expired or revoked one is simply not among them."""
    table = schema.grant
    rows = connection.execute(select(table).where(table.c.principal == principal, in_force(now_ms)))
    return ordered(map(grant_of, rows))


def in_force(now_ms: int) -> ColumnElement[bool]:
    """Return the condition on the table of grants that one counts now."""
    table = schema.grant.c
    alive = (table.expires_ms.is_(None)) | (table.expires_ms > now_ms)
    return (table.not_before_ms <= now_ms) & alive & table.revoked_ms.is_(None)


def grant_of(row: Sequence[Any]) -> Grant:
    """Return the grant that a whole row of the table is; unpacked, for a row's names cost as much as reading it."""
    key, principal, role, scope, not_before_ms, expires_ms, _revoked_ms, granted_by, _reason = row
    return Grant(key, principal, role, scope, expires_ms, granted_by, not_before_ms)


def ordered(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Return grants as facts hold them: by role, scope and id."""
    found = tuple(grants)
    return found if len(found) < 2 else tuple(sorted(found, key=lambda grant: (grant.role, grant.scope, grant.id)))


def check_grant(connection: Connection, wanted: Grant, *, team: bool, now_ms: int) -> None:
    """Check the rules of a grant: the role exists, the time is bounded and, in a team, duties stay separate.

    Raises:
        InvalidInput: No such role, or an expiry that is past or more than 180 days away.
        SeparationOfDuties: To oneself, or beside a role that another person must hold.
    """
    check_role(wanted.role)
    if wanted.expires_ms is None or not now_ms < wanted.expires_ms <= now_ms + MAX_DAYS * DAY_MS:
        raise InvalidInput(f"grant of {wanted.role}: expected an expiry within {MAX_DAYS} days from now")
    if not team:
        return
    if wanted.granted_by == wanted.principal:
        raise SeparationOfDuties(
            f"grant of {wanted.role}: nobody grants a role to themselves",
            next_step="ask another platform administrator",
        )
    # Of every scope: a role for one resource beside its opposite for another would still join the duties.
    check_separation({grant.role for grant in grants_in_force(connection, wanted.principal, now_ms)}, wanted.role)


def insert_grant(connection: Connection, grant: Grant, *, now_ms: int) -> None:
    """Store a grant that was checked."""
    connection.execute(
        insert(schema.grant).values(
            id=grant.id,
            principal=grant.principal,
            role=grant.role,
            scope=grant.scope,
            not_before_ms=now_ms,
            expires_ms=grant.expires_ms,
            granted_by=grant.granted_by,
        )
    )


def revoke_grant(connection: Connection, grant_id: str, *, now_ms: int) -> str:
    """End a grant now, and return whose it was.

    Raises:
        NotFound: There is no such grant in force.
        InvalidInput: With it nobody would be left who can grant.
    """
    table = schema.grant
    ended = connection.execute(
        update(table)
        .where(table.c.id == grant_id, table.c.revoked_ms.is_(None))
        .values(revoked_ms=now_ms)
        .returning(table.c.principal, table.c.role, table.c.scope)
    ).first()
    if ended is None:
        raise NotFound(f"grant {grant_id[:40]}: does not exist or was revoked already")
    if (ended.role, ended.scope) == ("platform_admin", WORKSPACE_SCOPE):
        _require_administrator(connection, grant_id, now_ms)
    return str(ended.principal)


def _require_administrator(connection: Connection, grant_id: str, now_ms: int) -> None:
    table = schema.grant
    left = select(table.c.id).join(schema.principal).where(
        table.c.role == "platform_admin", table.c.scope == WORKSPACE_SCOPE, in_force(now_ms),
        schema.principal.c.suspended == 0, schema.principal.c.issuer.is_not(None),
    )  # fmt: skip
    if connection.execute(left.limit(1)).first() is None:
        raise InvalidInput(
            f"grant {grant_id[:40]}: is the last platform_admin",
            why="nobody would be left who can grant",
            next_step="grant platform_admin to another person first",
        )


def new_grant_id(rng: RandomBytes) -> str:
    """Return ``g_`` and the base32 of 10 random bytes."""
    return "g_" + base64.b32encode(rng(10)).decode().lower()
