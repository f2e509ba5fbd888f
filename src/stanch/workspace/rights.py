"""Who may do what, as the log says it, held against the database: whoever edits rows without an act is found out.

Compared are principals (kind, clearance, suspension), their local keys, grants and policies. Names and subjects are
personal and not in the log. The entries themselves are what ``stanch log verify`` checks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from stanch.access.directory import BOOTSTRAP
from stanch.access.facts import WORKSPACE_SCOPE
from stanch.access.roles import ROLES
from stanch.crypto import VerifyKey
from stanch.errors import Inconclusive, InvalidInput
from stanch.ledger import LedgerReader, decode_entry
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.terms import Digest

_MADE_BY = ("access.add", "access.register")
_GRANTED_BY = "access.grant"
_REVOKED_BY = "access.revoke"
_SUSPENDED_BY = {"access.suspend": True, "access.resume": False}
_POLICY_BY = ("policy.write", "policy.rollback")
_WANTED = tuple(
    f'"kind":"{kind}"'.encode() for kind in (*_MADE_BY, *_SUSPENDED_BY, _GRANTED_BY, _REVOKED_BY, *_POLICY_BY)
)

_Facts = dict[str, Any]
_Rows = dict[str, _Facts]


@dataclass(slots=True)
class _Side:
    """One side of the comparison: by name, what each principal, key, grant and policy version is."""

    rows: dict[str, _Rows] = field(default_factory=lambda: {"principal": {}, "key": {}, "grant": {}, "policy": {}})
    entry_of: dict[str, int] = field(default_factory=dict)
    owner: str = ""
    first_roles: set[str] = field(default_factory=set)


def compare_rights(tables: Tables, reader: LedgerReader) -> Iterator[str]:
    """Yield each difference: the row, the entry, and what both say.

    An act that is between its rows and its outcome at this moment, or died there, differs as well. A log without an
    act says nothing of rights yet.

    Raises:
        Inconclusive: Entries of an older release do not say what they gave.
        StoreError: The database failed.
    """
    # The rows first: what becomes durable meanwhile is then in the log as well.
    with tables.read() as connection:
        stored = _stored(connection)
    recorded = _recorded(reader)
    if not recorded.owner:
        return
    yield from _first_grants(stored, recorded)
    for what, rows in stored.rows.items():
        entries = recorded.rows[what]
        for name in sorted(rows.keys() | entries.keys()):
            place = f"{what} {name}"
            index = recorded.entry_of.get(place)
            if name not in entries:
                yield f"{place}: the database holds it, but no entry of the log made it"
            elif name not in rows:
                yield f"{place}: entry {index} made it, but the database does not hold it"
            elif differing := _differing(rows[name], entries[name]):
                yield f"{place}: {differing} (entry {index})"


def _first_grants(stored: _Side, recorded: _Side) -> Iterator[str]:
    """Take one grant of each role that the first principal got with the workspace, before there was an entry."""
    missing, recorded_grants = set(recorded.first_roles), recorded.rows["grant"]
    first = {"principal": recorded.owner, "scope": WORKSPACE_SCOPE, "expires_ms": None, "granted_by": BOOTSTRAP}
    for name, row in sorted(stored.rows["grant"].items(), key=lambda item: item[0] not in recorded_grants):
        if row["role"] in missing and all(row[key] == value for key, value in first.items()):
            missing.discard(row["role"])
            recorded_grants[name] = {"revoked": False} | recorded_grants.get(name, {})
            recorded.entry_of.setdefault(f"grant {name}", 0)
    for role in sorted(missing):
        yield f"grant of {role} to {recorded.owner}: was made with the workspace, but the database does not hold it"


def _differing(row: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} is {row[name]} in the database, {entry[name]} in the log" for name in entry if row[name] != entry[name]
    )


def _stored(connection: Connection) -> _Side:
    side = _Side()
    for row in connection.execute(select(schema.principal)):
        side.rows["principal"][row.id] = {
            "kind": row.kind, "clearance": row.clearance, "suspended": bool(row.suspended),
        }  # fmt: skip
    for row in connection.execute(select(schema.credential)):
        side.rows["key"][row.id] = {
            "principal": row.principal, "public half": _key_id(row.public), "revoked": row.revoked_ms is not None,
        }  # fmt: skip
    for row in connection.execute(select(schema.grant)):
        side.rows["grant"][row.id] = {
            "principal": row.principal, "role": row.role, "scope": row.scope, "expires_ms": row.expires_ms,
            "granted_by": row.granted_by, "revoked": row.revoked_ms is not None,
        }  # fmt: skip
    for row in connection.execute(select(schema.policy)):
        side.rows["policy"][str(row.version)] = {
            "policy": str(Digest.sha256(row.text.encode())), "activated_by": row.activated_by, "state": row.state,
        }  # fmt: skip
    return side


def _key_id(public: bytes) -> str:
    try:
        return VerifyKey.from_raw_ed25519(public).key_id
    except InvalidInput:
        return "malformed"


def _recorded(reader: LedgerReader) -> _Side:
    """Return what the entries made. They are read one by one: the query index is rows that could be edited as well."""
    side = _Side()
    for index, data in reader.tail():
        if side.owner and not (b'"phase":"outcome"' in data and any(kind in data for kind in _WANTED)):
            continue
        event = decode_entry(data)
        ours, by = event["unmapped"]["stanch"], event["actor"]["user"]["uid"]
        if not side.owner and by.startswith("p_"):
            side.owner = by
            side.first_roles = {"platform_admin"} if ours["profile"] == "team" else set(ROLES)
            _record_owner(side, index, by, ours["credential"]["key_id"])
        if ours["phase"] == "outcome" and ours.get("result") == "done":
            _record(side, index, ours.get("kind", ""), ours.get("payload", {}), by)
    return side


def _record_owner(side: _Side, index: int, owner: str, key: str) -> None:
    """Note the first principal: registered before the log has an entry, and whoever acts in the first one."""
    _note(side, index, "principal", owner, {"kind": "user", "suspended": False})
    _note(side, index, "key", key, {"principal": owner, "public half": key, "revoked": False})


def _record(side: _Side, index: int, kind: str, payload: Mapping[str, Any], by: str) -> None:
    if (kind in _MADE_BY and "grants" not in payload) or (kind == _GRANTED_BY and "scope" not in payload):
        raise Inconclusive(
            f"entry {index}: {kind} does not say what it gave",
            why="an older release wrote it",
            next_step="compare by hand: stanch access who, beside stanch log query",
        )
    if kind in _MADE_BY:
        made = payload["principal"]
        facts = {"kind": payload["kind"], "clearance": payload["clearance"], "suspended": False}
        _note(side, index, "principal", made, facts)
        if key := payload.get("key"):
            _note(side, index, "key", key, {"principal": made, "public half": key, "revoked": False})
        for granted in payload["grants"]:
            _record_grant(side, index, made, granted, by)
    elif kind == _GRANTED_BY:
        _record_grant(side, index, payload["to"], payload, by)
    elif kind == _REVOKED_BY:
        _note(side, index, "grant", payload["grant"], side.rows["grant"].get(payload["grant"], {}) | {"revoked": True})
    elif kind in _SUSPENDED_BY:
        name = payload["principal"]
        known = side.rows["principal"].get(name, {})
        _note(side, index, "principal", name, known | {"suspended": _SUSPENDED_BY[kind]})
    elif kind in _POLICY_BY:
        for retired in side.rows["policy"].values():
            retired["state"] = "retired"
        facts = {"policy": payload["policy"], "activated_by": by, "state": "active"}
        _note(side, index, "policy", str(payload["version"]), facts)


def _record_grant(side: _Side, index: int, principal: str, granted: Mapping[str, Any], by: str) -> None:
    facts = {name: granted[name] for name in ("role", "scope", "expires_ms")}
    facts |= {"principal": principal, "granted_by": by, "revoked": False}
    _note(side, index, "grant", granted["grant"], facts)


def _note(side: _Side, index: int, what: str, name: str, facts: _Facts) -> None:
    side.rows[what][name] = facts
    side.entry_of[f"{what} {name}"] = index
