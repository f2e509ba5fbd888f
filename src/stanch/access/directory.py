"""The directory: who is registered, with which key, and which roles they hold; and the way in."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, insert, select, update

from stanch.access import strangers
from stanch.access.clock import Clock, milliseconds
from stanch.access.credential import local_key_owner, local_keys, require_valid
from stanch.access.facts import WORKSPACE_SCOPE, Bounds, Facts, Grant
from stanch.access.grant import (
    DAY_MS,
    DEFAULT_DAYS,
    check_grant,
    grants_in_force,
    insert_grant,
    new_grant_id,
    revoke_grant,
)
from stanch.access.principal import MAX_CLEARANCE, Principal, PrincipalKind, new_principal_id, principal_of
from stanch.access.revision import advance_facts
from stanch.access.roles import first_roles
from stanch.access.session import LEEWAY_MS, CredentialKind, LocalLogin, Session, session_message
from stanch.crypto import RandomBytes, VerifyKey, random_bytes
from stanch.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, NoTrustedSignature
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.store.statement import run
from stanch.store.tables import column_names

BOOTSTRAP = "bootstrap"
_SESSION_MINUTES = 480
_MAX_CHALLENGES = 1024


MAX_NAME = 512
"""Most characters of an issuer or a subject."""


def not_authenticated() -> NotAuthenticated:
    """Return the one error of every failed sign-in: it never says what was wrong."""
    return NotAuthenticated(
        "not authenticated",
        why="the credential is not registered here, or is not valid now",
        next_step="sign in with a registered credential",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A verified token or certificate.

    Attributes:
        kind: What it is.
        credential: Its public name for the log: the id of a token, the digest of a certificate.
        mfa: Whether the issuer says that a second factor was used.
        expires_ms: From when on it is refused.
    """

    kind: CredentialKind
    credential: str
    mfa: bool
    expires_ms: int


class Directory:
    """Principals, their keys and their grants in one workspace.

    Example:
        >>> login = sign_session(key, directory.origin, directory.challenge(), now_ms)     # doctest: +SKIP
        >>> session = directory.session(login)                                             # doctest: +SKIP
        >>> decide(directory.facts(session), "data:read", dataset, context, policies).require()  # doctest: +SKIP
    """

    def __init__(
        self,
        tables: Tables,
        *,
        origin: str,
        session_minutes: int = _SESSION_MINUTES,
        clock: Clock = time.time,
        rng: RandomBytes = random_bytes,
    ) -> None:
        self.origin = origin
        self._tables = tables
        self._session_ms = session_minutes * 60_000
        self._now = milliseconds(clock)
        self._rng = rng
        self._challenges: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def register(
        self,
        key: VerifyKey,
        *,
        display: str,
        kind: PrincipalKind = "user",
        clearance: int = 0,
        name: tuple[str, str] | None = None,
    ) -> Principal:
        """Register a person or service with its local Ed25519 key. It holds no role yet.

        Args:
            key: What its signatures verify with.
            display: What it is shown as.
            kind: ``user`` or ``service``.
            clearance: Highest sensitivity of a model that it may use.
            name: Issuer and subject, for somebody who also signs in at an issuer; then both ways lead to one principal.

        Raises:
            InvalidInput: The key is of another kind, or issuer or subject is empty or too long.
            Conflict: The key or the subject is registered already.
        """
        if name is not None:
            _check_name(*name)
        with self._tables.write() as connection:
            if name is not None:
                strangers.forget(connection, *name)
            return self._register(connection, key, display=display, kind=kind, clearance=clearance, name=name)

    def register_subject(
        self, issuer: str, subject: str, *, display: str, kind: PrincipalKind = "user", clearance: int = 0
    ) -> Principal:
        """Register somebody for whom an issuer vouches: an OpenID provider, a certificate authority. It holds no role.

        Raises:
            InvalidInput: Issuer or subject is empty or too long.
            Conflict: The subject is registered already.
        """
        _check_name(issuer, subject)
        with self._tables.write() as connection:
            strangers.forget(connection, issuer, subject)
            return self._insert(connection, (issuer, subject), display=display, kind=kind, clearance=clearance)

    def require_unknown(self, issuer: str, subject: str) -> None:
        """Refuse a subject that cannot be registered.

        Raises:
            InvalidInput: Issuer or subject is empty or too long.
            Conflict: The subject is registered already.
        """
        _check_name(issuer, subject)
        table = schema.principal
        known = select(table.c.id).where(table.c.issuer == issuer, table.c.subject == subject)
        with self._tables.read() as connection:
            if connection.execute(known).first():
                raise Conflict("principal: this subject of the issuer is registered already")

    def register_first(self, key: VerifyKey, *, display: str, team: bool) -> Principal:
        """Register the first person of a workspace, who holds all roles (solo) or ``platform_admin`` (team).

        These grants alone have no expiry: with them gone nobody could grant anything.

        Raises:
            InvalidInput: The key is of another kind.
            Conflict: Somebody is registered already.
        """
        now_ms = self._now()
        with self._tables.write() as connection:
            if connection.execute(select(func.count()).select_from(schema.principal)).scalar_one():
                raise Conflict("directory: somebody is registered already", next_step="ask them to grant you a role")
            principal = self._register(connection, key, display=display, kind="user", clearance=MAX_CLEARANCE)
            for role in sorted(first_roles(team=team)):
                grant = Grant(new_grant_id(self._rng), principal.id, role, WORKSPACE_SCOPE, None, BOOTSTRAP)
                insert_grant(connection, grant, now_ms=now_ms)
        return principal

    def challenge(self) -> bytes:
        """Return a fresh nonce for one sign-in with this directory, good for a minute."""
        nonce, now_ms = self._rng(32), self._now()
        with self._lock:
            self._challenges = {n: t for n, t in self._challenges.items() if abs(now_ms - t) <= LEEWAY_MS}
            if len(self._challenges) >= _MAX_CHALLENGES:
                raise NotAuthenticated("sign-in: too many are under way", next_step="try again in a minute")
            self._challenges[nonce] = now_ms
        return nonce

    def session(self, login: LocalLogin, *, mfa: bool = False) -> Session:
        """Open a session for whoever signed a challenge of this directory with a registered key.

        Args:
            login: The signed statement.
            mfa: Whether the caller checked a second factor beside the key.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        now_ms = self._now()
        try:
            principal = self._verify_login(login, now_ms)
        except (NotAuthenticated, NotFound, NoTrustedSignature) as error:
            raise not_authenticated() from error
        return Session(principal, login.key_id, mfa, now_ms, now_ms + self._session_ms)

    def _verify_login(self, login: LocalLogin, now_ms: int) -> str:
        """Return the principal whose key signed one of our challenges, which is thereby used up."""
        with self._lock:
            issued_ms = self._challenges.pop(login.nonce, None)
        if issued_ms is None or max(abs(now_ms - issued_ms), abs(now_ms - login.time_ms)) > LEEWAY_MS:
            raise NotAuthenticated("not an answer to a challenge of the last minute")
        with self._tables.read() as connection:
            principal, public = local_key_owner(connection, login.key_id, now_ms)
        public.verify(login.signature, session_message(self.origin, login.nonce, login.time_ms))
        return principal

    def vouched(self, name: tuple[str, str], proof: Proof) -> Session:
        """Open a session for a subject whose issuer's proof was verified.

        Nobody is registered by this: an unknown subject is refused, and listed for an administrator.

        Args:
            name: Issuer and subject.
            proof: What was verified.

        Raises:
            NotAuthenticated: The subject is not registered here.
        """
        now_ms = self._now()
        table = schema.principal
        with self._tables.read() as connection:
            found = connection.execute(
                select(table.c.id).where(table.c.issuer == name[0], table.c.subject == name[1])
            ).scalar()
        if found is None:
            with self._tables.write() as connection:
                strangers.note(connection, name[0], name[1], now_ms)
            raise not_authenticated()
        return Session(
            found, proof.credential, proof.mfa, now_ms, min(proof.expires_ms, now_ms + self._session_ms), proof.kind
        )

    def facts(self, session: Session) -> Facts:
        """Return what is known now of the principal of a session.

        While a principal is suspended its sessions, API keys, tokens and certificates are good for nothing. A local key
        still says who asks: the decision refuses, so that the attempt is in the log.

        Raises:
            NotAuthenticated: The session has ended, its key was revoked, or its principal was erased or suspended.
        """
        now_ms = self._now()
        with self._tables.read() as connection:
            bounds = require_valid(connection, session, now_ms)
            facts = self._facts(connection, session.principal, now_ms, bounds)
        if facts.principal.issuer is None:
            raise NotAuthenticated("the session's principal was erased")
        if facts.principal.suspended and session.kind != "local":
            raise NotAuthenticated("the session's principal is suspended", next_step="ask a platform administrator")
        return facts

    def facts_of(self, principal: str) -> Facts:
        """Return what is known now of any principal, for explanations.

        Raises:
            NotFound: Nobody of that id is registered.
        """
        with self._tables.read() as connection:
            return self._facts(connection, principal, self._now())

    def local_key_of(self, principal: str) -> str:
        """Return the id of the local key that a principal signs in with.

        Raises:
            NotFound: There is none.
        """
        with self._tables.read() as connection:
            standing = [key.id for key in local_keys(connection, principal) if key.revoked_ms is None]
        if not standing:
            raise NotFound(f"principal {principal[:40]}: signs in with no local key")
        return standing[-1]

    def first_key(self, keys: Collection[str]) -> str:
        """Return which of some local keys is the valid one of whoever was registered first; empty if none is."""
        person, key, grant = schema.principal.c, schema.credential.c, schema.grant.c
        founded = exists().where(grant.principal == person.id, grant.granted_by == BOOTSTRAP)
        found = (
            select(key.id)
            .join(schema.principal, person.id == key.principal)
            .where(key.id.in_(keys), key.revoked_ms.is_(None), person.issuer.is_not(None))
            .order_by(founded.desc(), person.created_ms, person.id)
            .limit(1)
        )
        with self._tables.read() as connection:
            return str(connection.execute(found).scalar() or "")

    def principals(self) -> tuple[Principal, ...]:
        """Return everybody who is registered, in the order of their ids."""
        with self._tables.read() as connection:
            rows = connection.execute(select(schema.principal).order_by(schema.principal.c.id)).all()
        return tuple(principal_of(row) for row in rows)

    def grant(
        self,
        principal: str,
        role: str,
        *,
        granted_by: str,
        team: bool,
        scope: str = WORKSPACE_SCOPE,
        days: int = DEFAULT_DAYS,
    ) -> Grant:
        """Grant a role for some days, in the workspace or for the one resource ``scope`` names.

        Raises:
            InvalidInput: No such role, or not 1 to 180 days.
            NotFound: Nobody of that id is registered.
            SeparationOfDuties: In a team: to oneself, or beside a role that another person must hold.
        """
        now_ms = self._now()
        wanted = Grant(new_grant_id(self._rng), principal, role, scope, now_ms + days * DAY_MS, granted_by, now_ms)
        with self._tables.write() as connection:
            self._facts(connection, principal, now_ms)
            check_grant(connection, wanted, team=team, now_ms=now_ms)
            insert_grant(connection, wanted, now_ms=now_ms)
            advance_facts(connection)
        return wanted

    def revoke(self, grant_id: str) -> str:
        """End a grant now and return whose it was, or raise :class:`stanch.errors.NotFound`."""
        with self._tables.write() as connection:
            principal = revoke_grant(connection, grant_id, now_ms=self._now())
            advance_facts(connection)
        return principal

    def suspend(self, principal: str, *, suspended: bool = True) -> None:
        """Forbid a principal everything and end its browser sessions, or lift that again; the sessions stay ended.

        Raises:
            NotFound: Nobody of that id is registered.
        """
        with self._tables.write() as connection:
            _change(connection, principal, suspended=int(suspended))
            if suspended:
                _end_sessions(connection, principal, self._now())

    def clear(self, principal: str, clearance: int) -> None:
        """Let a principal use models up to a sensitivity, or raise :class:`stanch.errors.NotFound`."""
        with self._tables.write() as connection:
            _change(connection, principal, clearance=clearance)

    def replace_key(self, key_id: str, key: VerifyKey) -> str:
        """Let whoever signs in with a local key sign in with another one from now on, and return whose they are.

        Browser sessions end: one may have been opened with the earlier key.

        Raises:
            InvalidInput: The new key is of another kind.
            NotFound: The earlier key is not registered or was revoked already.
            Conflict: The new key is registered already.
        """
        table, now_ms = schema.credential, self._now()
        with self._tables.write() as connection:
            principal: str | None = connection.execute(
                update(table)
                .where(table.c.id == key_id, table.c.revoked_ms.is_(None))
                .values(revoked_ms=now_ms)
                .returning(table.c.principal)
            ).scalar()
            if principal is None:
                raise NotFound(f"key {key_id[:60]}: is not registered or was revoked already")
            _insert_key(connection, key, principal, now_ms)
            _end_sessions(connection, principal, now_ms)
            advance_facts(connection)
        return principal

    def _register(
        self,
        connection: Connection,
        key: VerifyKey,
        *,
        display: str,
        kind: PrincipalKind,
        clearance: int,
        name: tuple[str, str] | None = None,
    ) -> Principal:
        name = name or (f"local:{self.origin}", key.key_id)
        principal = self._insert(connection, name, display=display, kind=kind, clearance=clearance)
        _insert_key(connection, key, principal.id, self._now())
        return principal

    def _insert(
        self, connection: Connection, name: tuple[str, str], *, display: str, kind: PrincipalKind, clearance: int
    ) -> Principal:
        principal = Principal(
            id=new_principal_id(rng=self._rng),
            kind=kind,
            issuer=name[0],
            subject=name[1],
            display=display,
            clearance=clearance,
            suspended=False,
        )
        connection.execute(
            insert(schema.principal).values(
                id=principal.id,
                kind=kind,
                issuer=principal.issuer,
                subject=principal.subject,
                display=display,
                clearance=clearance,
                suspended=0,
                created_ms=self._now(),
            )
        )
        advance_facts(connection)
        return principal

    def _facts(self, connection: Connection, principal: str, now_ms: int, bounds: Bounds | None = None) -> Facts:
        rows = run(connection, _PRINCIPAL, (principal,))
        if not rows:
            raise NotFound(f"principal {principal[:40]}: is not registered")
        return Facts(principal_of(rows[0]), grants_in_force(connection, principal, now_ms), bounds)


_PRINCIPAL = f"SELECT {column_names(schema.principal)} FROM principal WHERE id = ?"  # noqa: S608 - own words


def _end_sessions(connection: Connection, principal: str, now_ms: int) -> None:
    table = schema.session
    alive = update(table).where(table.c.principal == principal, table.c.ended_ms.is_(None))
    connection.execute(alive.values(ended_ms=now_ms))


def _change(connection: Connection, principal: str, **facts: int) -> None:
    done = connection.execute(update(schema.principal).where(schema.principal.c.id == principal).values(**facts))
    if not done.rowcount:
        raise NotFound(f"principal {principal[:40]}: is not registered")
    advance_facts(connection)


def _insert_key(connection: Connection, key: VerifyKey, principal: str, now_ms: int) -> None:
    if key.kind != "ed25519":
        raise InvalidInput(f"local key: expected Ed25519, found {key.kind}")
    connection.execute(
        insert(schema.credential).values(
            id=key.key_id, principal=principal, kind="local", public=key.raw, not_before_ms=now_ms
        )
    )


def _check_name(issuer: str, subject: str) -> None:
    if not issuer or not subject or max(len(issuer), len(subject)) > MAX_NAME:
        raise InvalidInput(f"principal: expected an issuer and a subject of 1 to {MAX_NAME} characters")
