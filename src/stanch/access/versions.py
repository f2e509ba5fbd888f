"""Versions of the policies: each activation makes a new one; the one before stays, so that it can come back.

Version 0 is the set that stanch comes with. Nothing here asks for permission or writes to the log; the workspace does.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from stanch.access.policy import ActivePolicies, default_policies, default_text, parse_policies, schema_digest
from stanch.access.revision import set_policy
from stanch.crypto import canonical_json
from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.terms import Digest

SHIPPED = 0


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of the policies.

    Attributes:
        version: Its number; 0 is the set that stanch comes with.
        text: The policies in Cedar's syntax.
        without: Forbids of the default set that this version was allowed to lack or to change.
        state: ``active`` or ``retired``.
        before: The version that a rollback from this one returns to.
        activated_by: Pseudonymous id of who put it in force; empty for version 0.
        activated_ms: When.
    """

    version: int
    text: str
    without: tuple[str, ...] = ()
    state: Literal["active", "retired"] = "active"
    before: int = SHIPPED
    activated_by: str = ""
    activated_ms: int = 0

    @property
    def digest(self) -> Digest:
        """SHA-256 of the text."""
        return Digest.sha256(self.text.encode())

    def parse(self) -> ActivePolicies:
        """Return the evaluable policies, validated again.

        Raises:
            InvalidInput: They are not valid under the schema of this release.
        """
        return default_policies() if self.text == default_text() else parse_policies(self.text, without=self.without)


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A change of the policies as people approve it: which text, after which version, without which forbids."""

    origin: str
    text: str
    without: tuple[str, ...]
    after: PolicyVersion

    @property
    def digest(self) -> Digest:
        """The request that an approval names; a change of anything gives another one."""
        return Digest.sha256(
            canonical_json(
                {
                    "type": "urn:stanch:policy-change:v1",
                    "origin": self.origin,
                    "policy": str(Digest.sha256(self.text.encode())),
                    "schema": str(schema_digest()),
                    "without": [*sorted(self.without)],
                    "after": {"version": self.after.version, "policy": str(self.after.digest)},
                }
            )
        )


class PolicyVersions:
    """The versions of one workspace."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def active(self) -> PolicyVersion:
        """Return the version in force.

        Raises:
            InvalidInput: The stored text is not the one whose digest was stored with it.
        """
        with self._tables.read() as connection:
            return _active(connection)

    def history(self) -> tuple[PolicyVersion, ...]:
        """Return all activated versions, oldest first."""
        with self._tables.read() as connection:
            rows = connection.execute(select(schema.policy).order_by(schema.policy.c.version)).all()
        return tuple(_version(row) for row in rows)

    def activate(self, change: PolicyChange, *, by: str, now_ms: int) -> PolicyVersion:
        """Put a validated change in force.

        Raises:
            InvalidInput: The text is not valid.
            Conflict: Another version came into force since the change was proposed.
        """
        parse_policies(change.text, without=change.without)
        with self._tables.write() as connection:
            current = _active(connection)
            if current != change.after:
                raise Conflict(
                    f"policies: version {current.version} is in force, the change is one of {change.after.version}",
                    next_step="check and approve the change again",
                )
            return _insert(connection, change.text, change.without, current.version, by, now_ms)

    def rollback(self, *, by: str, now_ms: int) -> PolicyVersion:
        """Put the version before the one in force back, as a version of its own.

        Rolling back again goes further back, never forth to the version that was left.

        Raises:
            NotFound: The set that stanch comes with is in force, and nothing is before it.
        """
        table = schema.policy
        with self._tables.write() as connection:
            # The row in force is not checked: a rollback has to work just when something is wrong with it.
            row = connection.execute(
                select(table.c.before, table.c.text).where(table.c.state == "active")
            ).one_or_none()
            if row is None or (row.before, row.text) == (SHIPPED, default_text()):
                raise NotFound("policies: the set that stanch comes with is in force; there is none before it")
            target = _numbered(connection, row.before)
            return _insert(connection, target.text, target.without, target.before, by, now_ms)


def versions_by_digest(connection: Connection) -> dict[str, PolicyVersion]:
    """Return the stored versions by the digest of their text, whatever the column for it says."""
    rows = connection.execute(select(schema.policy).order_by(schema.policy.c.version))
    found = (
        PolicyVersion(row.version, row.text, tuple(json.loads(row.without)), row.state, row.before) for row in rows
    )
    return {str(version.digest): version for version in found}


def _insert(
    connection: Connection, text: str, without: tuple[str, ...], before: int, by: str, now_ms: int
) -> PolicyVersion:
    table = schema.policy
    version = int(connection.execute(select(func.coalesce(func.max(table.c.version), SHIPPED))).scalar_one()) + 1
    connection.execute(update(table).where(table.c.state == "active").values(state="retired"))
    made = PolicyVersion(version, text, tuple(sorted(without)), "active", before, by, now_ms)
    connection.execute(
        insert(table).values(
            version=version,
            text=text,
            digest=str(made.digest),
            schema_digest=str(schema_digest()),
            without=json.dumps(list(made.without)),
            state="active",
            before=before,
            activated_by=by,
            activated_ms=now_ms,
        )
    )
    set_policy(connection, version)
    return made


def _active(connection: Connection) -> PolicyVersion:
    row = connection.execute(select(schema.policy).where(schema.policy.c.state == "active")).one_or_none()
    return PolicyVersion(SHIPPED, default_text()) if row is None else _version(row)


def _numbered(connection: Connection, version: int) -> PolicyVersion:
    if version == SHIPPED:
        return PolicyVersion(SHIPPED, default_text())
    return _version(connection.execute(select(schema.policy).where(schema.policy.c.version == version)).one())


def _version(row: Row[Any]) -> PolicyVersion:
    found = PolicyVersion(
        row.version,
        row.text,
        tuple(json.loads(row.without)),
        row.state,
        row.before,
        row.activated_by,
        row.activated_ms,
    )
    if str(found.digest) != row.digest:
        raise InvalidInput(
            f"policies: the stored text of version {row.version} is not the one that was activated",
            next_step="stanch access policy rollback",
        )
    return found
