"""Approvals: a signed statement by one person that exactly one request may happen.

The request digest binds everything that matters (manifest, certificate, recipient, expiry), so an approval for one
request is worth nothing for another. An approval counts once: the act that uses it consumes it in the same transaction
in which it is recorded.
"""

import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct, ValidationError, convert
from sqlalchemy import Connection, Row, false, insert, select, update

from stanch.access.clock import Clock, milliseconds
from stanch.crypto import SigningKey, VerifyKey, canonical_json, frame, parse_json
from stanch.errors import ApprovalsMissing, Conflict, InvalidInput, NotAuthenticated, NoTrustedSignature
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.terms import Digest

_LABEL = b"stanch/access/v1/approval"
_TYPE = "urn:stanch:approval:v1"
_LEEWAY_MS = 60_000
_MAX_STATEMENT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalStatement:
    """What an approver signs.

    Attributes:
        request: Digest of the request.
        approver: Pseudonymous id of the approver.
        origin: The workspace.
        created_ms: When it was signed.
        expires_ms: From when on it does not count.
    """

    request: Digest
    approver: str
    origin: str
    created_ms: int
    expires_ms: int

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the statement."""
        return canonical_json(
            {
                "type": _TYPE,
                "request": str(self.request),
                "approver": self.approver,
                "origin": self.origin,
                "created_ms": self.created_ms,
                "expires_ms": self.expires_ms,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "ApprovalStatement":
        """Read a statement.

        Raises:
            InvalidInput: It is not one in canonical form.
        """
        try:
            wire = convert(parse_json(data, what="approval", max_bytes=_MAX_STATEMENT), _Wire)
        except ValidationError as error:
            raise InvalidInput(f"approval: expected a statement of type {_TYPE}", why=str(error)[:200]) from error
        statement = cls(
            request=Digest.parse(wire.request),
            approver=wire.approver,
            origin=wire.origin,
            created_ms=wire.created_ms,
            expires_ms=wire.expires_ms,
        )
        if statement.to_bytes() != data:
            raise InvalidInput("approval: not in canonical form")
        return statement


class _Wire(Struct, forbid_unknown_fields=True):
    """The fields of a statement as they are written."""

    type: Literal["urn:stanch:approval:v1"]
    request: str
    approver: str
    origin: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Approval:
    """A statement and a signature over it, as an approver hands them in."""

    statement: bytes
    key_id: str
    signature: bytes


def sign_approval(key: SigningKey, statement: ApprovalStatement) -> Approval:
    """Sign an approval with the approver's own key."""
    data = statement.to_bytes()
    return Approval(data, key.key_id, key.sign(frame(_LABEL, data)))


def approvals_digest(approvals: Collection[Approval]) -> Digest:
    """Return SHA-256 over ``frame`` of the signed statements, in the given order."""
    return Digest.sha256(frame(_LABEL, *(part for one in approvals for part in (one.statement, one.signature))))


class Approvals:
    """The approvals of one workspace."""

    def __init__(self, tables: Tables, *, origin: str, clock: Clock = time.time) -> None:
        self._tables = tables
        self._origin = origin
        self._now = milliseconds(clock)

    def record_approval(self, approval: Approval) -> ApprovalStatement:
        """Check an approval against the registered key of its approver, store it, and return its statement.

        Raises:
            NotAuthenticated: The key is not a valid one of the approver, or the signature does not verify.
            InvalidInput: The statement is malformed, of another workspace, from the future or expired.
            Conflict: The approver's approval of this request was used already.
        """
        now_ms = self._now()
        statement = ApprovalStatement.parse(approval.statement)
        if statement.origin != self._origin or not statement.created_ms - _LEEWAY_MS <= now_ms < statement.expires_ms:
            raise InvalidInput("approval: is of another workspace, from the future or expired")
        with self._tables.write() as connection:
            key = _approver_key(connection, statement.approver, approval.key_id, now_ms)
            if key is None or not _verifies(key, approval.statement, approval.signature):
                raise NotAuthenticated("approval: not signed by a valid key of its approver")
            table = schema.approval
            mine = (table.c.request_digest == str(statement.request)) & (table.c.principal == statement.approver)
            values = {
                "key_id": approval.key_id,
                "statement": approval.statement,
                "signature": approval.signature,
                "expires_ms": statement.expires_ms,
                "created_ms": now_ms,
            }
            if connection.execute(update(table).where(mine, table.c.consumed_by.is_(None)).values(values)).rowcount:
                return statement
            if connection.execute(select(table.c.key_id).where(mine)).one_or_none() is not None:
                raise Conflict("approval: this approver's approval of this request was used already")
            connection.execute(
                insert(table).values(request_digest=str(statement.request), principal=statement.approver, **values)
            )
        return statement

    def key_of(self, principal: str, key_id: str) -> VerifyKey | None:
        """Return a key if it is now a valid local one of this principal, who is a person and not suspended."""
        with self._tables.read() as connection:
            return _approver_key(connection, principal, key_id, self._now())

    def count_approvals(self, request: Digest, *, requester: str, involved: Collection[str] = ()) -> int:
        """Return how many people approve exactly this request now; see :meth:`counted`."""
        return len(self.counted(request, requester=requester, involved=involved))

    def counted(
        self, request: Digest, *, requester: str, involved: Collection[str] = (), act: str = ""
    ) -> tuple[Approval, ...]:
        """Return the approvals that count for exactly this request now, one for each approver, in their order.

        Counted are distinct principals with a valid, unexpired signed statement, who are not suspended; the statement
        is unconsumed, or ``act`` itself consumed it. The requester and those who took part in what is requested are
        not counted.
        """
        with self._tables.read() as connection:
            rows = self._approvals(connection, request, {requester, *involved}, act=act)
        return tuple(Approval(row.statement, row.key_id, row.signature) for row in rows)

    def consume(
        self,
        connection: Connection,
        request: Digest,
        *,
        act: str,
        requester: str,
        needed: int = 2,
        involved: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Use the approvals of a request up for one act, inside the caller's transaction; return the approvers.

        Raises:
            ApprovalsMissing: Fewer than ``needed`` people approve this request; none is consumed.
        """
        approvers = tuple(row.principal for row in self._approvals(connection, request, {requester, *involved}))
        if len(approvers) < needed:
            raise ApprovalsMissing(
                f"approvals for this exact request: expected {needed}, found {len(approvers)}",
                next_step="ask another release manager: stanch release approve",
            )
        used = connection.execute(
            update(schema.approval)
            .where(
                schema.approval.c.request_digest == str(request),
                schema.approval.c.principal.in_(approvers),
                schema.approval.c.consumed_by.is_(None),
            )
            .values(consumed_by=act)
        ).rowcount
        if used != len(approvers):
            raise ApprovalsMissing("approvals for this exact request: another act used them up in this very moment")
        return approvers

    def _approvals(
        self, connection: Connection, request: Digest, excluded: set[str], *, act: str = ""
    ) -> list[Row[Any]]:
        table = schema.approval
        usable = table.c.consumed_by.is_(None) | ((table.c.consumed_by == act) if act else false())
        rows = connection.execute(
            select(table).where(table.c.request_digest == str(request), usable).order_by(table.c.principal)
        ).all()
        now_ms = self._now()
        return [row for row in rows if row.principal not in excluded and self._counts(connection, row, request, now_ms)]

    def _counts(self, connection: Connection, row: Row[Any], request: Digest, now_ms: int) -> bool:
        """Say whether a stored approval still counts; everything is read from what was signed, not from columns."""
        try:
            statement = ApprovalStatement.parse(row.statement)
        except InvalidInput:
            return False
        if (statement.request, statement.approver, statement.origin) != (request, row.principal, self._origin):
            return False
        if not statement.created_ms - _LEEWAY_MS <= now_ms < statement.expires_ms:
            return False
        key = _approver_key(connection, row.principal, row.key_id, now_ms)
        return key is not None and _verifies(key, row.statement, row.signature)


def _verifies(key: VerifyKey, statement: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, frame(_LABEL, statement))
    except NoTrustedSignature:
        return False
    return True


def _approver_key(connection: Connection, principal: str, key_id: str, now_ms: int) -> VerifyKey | None:
    """Return the key if it is a valid local one of this principal, who is a person, not suspended and not erased."""
    row = connection.execute(
        select(schema.credential.c.public)
        .join(schema.principal, schema.principal.c.id == schema.credential.c.principal)
        .where(
            schema.credential.c.id == key_id,
            schema.credential.c.principal == principal,
            schema.credential.c.kind == "local",
            schema.credential.c.not_before_ms <= now_ms,
            (schema.credential.c.expires_ms.is_(None)) | (schema.credential.c.expires_ms > now_ms),
            schema.credential.c.revoked_ms.is_(None),
            schema.principal.c.kind == "user",
            schema.principal.c.suspended == 0,
            schema.principal.c.issuer.is_not(None),
        )
    ).scalar()
    if row is None:
        return None
    key = VerifyKey.from_raw_ed25519(row)
    return key if hmac.compare_digest(key.key_id.encode(), key_id.encode()) else None
