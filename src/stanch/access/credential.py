"""Whether a credential is still good, read from its row for every decision: a revocation ends sessions at once."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from stanch.access.facts import Bounds
from stanch.access.session import LEEWAY_MS, Session
from stanch.crypto import VerifyKey
from stanch.errors import NotAuthenticated, NotFound
from stanch.store.schema import access as schema
from stanch.store.statement import run


def local_key_owner(connection: Connection, key_id: str, now_ms: int) -> tuple[str, VerifyKey]:
    """Return the principal and the public key of a local key that is valid now, or raise ``NotFound``.

    Of a principal who was erased no key is valid.
    """
    rows = run(
        connection,
        "SELECT credential.principal, public FROM credential JOIN principal ON principal.id = credential.principal"
        " WHERE issuer IS NOT NULL AND credential.id = ? AND credential.kind = 'local' AND not_before_ms <= ?"
        " AND (expires_ms IS NULL OR expires_ms > ?) AND revoked_ms IS NULL",
        (key_id, now_ms, now_ms),
    )
    if not rows:
        raise NotFound("no such key")
    principal, public = rows[0]
    return principal, VerifyKey.from_raw_ed25519(public)


@dataclass(frozen=True, slots=True)
class LocalKey:
    """What is kept of a local key beside its public half: ``expires_ms`` None: for good."""

    id: str
    not_before_ms: int
    expires_ms: int | None
    revoked_ms: int | None


def local_keys(connection: Connection, principal: str) -> tuple[LocalKey, ...]:
    """Return the local keys of a principal, the oldest first."""
    table = schema.credential
    rows = connection.execute(
        select(table.c.id, table.c.not_before_ms, table.c.expires_ms, table.c.revoked_ms)
        .where(table.c.principal == principal, table.c.kind == "local")
        .order_by(table.c.not_before_ms, table.c.id)
    )
    return tuple(LocalKey(*row) for row in rows)


def require_valid(connection: Connection, session: Session, now_ms: int) -> Bounds | None:
    """Return what the credential of a session is bound to, if the session is still good.

    Raises:
        NotAuthenticated: The session has ended, its credential was revoked, or it is another principal's.
    """
    if not session.started_ms - LEEWAY_MS <= now_ms < session.expires_ms:
        raise NotAuthenticated("the session has ended", next_step="sign in again")
    found = _standing(connection, session, now_ms)
    if found is None or found.principal != session.principal:
        raise NotAuthenticated("the session's credential is no longer valid", next_step="sign in again")
    return found.bounds


@dataclass(frozen=True, slots=True)
class _Standing:
    """Whose a valid credential is, and what it is bound to."""

    principal: str
    bounds: Bounds | None = None


def _standing(connection: Connection, session: Session, now_ms: int) -> _Standing | None:
    match session.kind:
        case "local":
            try:
                return _Standing(local_key_owner(connection, session.key_id, now_ms)[0])
            except NotFound:
                return None
        case "api-key":
            return _api_key(connection, session.key_id, now_ms)
        case "browser":
            return _browser(connection, session, now_ms)
        case "oidc" | "mtls":
            return _vouched(connection, session.principal)


def _api_key(connection: Connection, key_id: str, now_ms: int) -> _Standing | None:
    table = schema.api_key
    row = connection.execute(
        select(table.c.principal, table.c.actions, table.c.models).where(
            table.c.id == key_id,
            table.c.not_before_ms <= now_ms,
            table.c.expires_ms > now_ms,
            table.c.revoked_ms.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    return _Standing(row.principal, Bounds(frozenset(json.loads(row.actions)), frozenset(json.loads(row.models))))


def _browser(connection: Connection, session: Session, now_ms: int) -> _Standing | None:
    table = schema.session
    principal = connection.execute(
        select(table.c.principal).where(
            table.c.credential == session.key_id, table.c.ended_ms.is_(None), table.c.expires_ms > now_ms
        )
    ).scalar()
    return None if principal is None else _Standing(principal)


def _vouched(connection: Connection, principal: str) -> _Standing | None:
    """A token or a certificate is its own proof; its principal must still be known by that name, not erased."""
    table = schema.principal
    row = connection.execute(
        select(table.c.id).where(table.c.id == principal, table.c.issuer.is_not(None), table.c.subject.is_not(None))
    ).one_or_none()
    return None if row is None else _Standing(row.id)
