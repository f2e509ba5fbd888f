"""Who may do what, as the log says it, held against the database: whoever edits rows without an act is found out.

Compared are principals (kind, clearance, suspension), their local keys, grants, policies, emergency rights, API keys,
quarantines, sensitivities, legal holds and passed gates. Names and subjects are personal and not in the log. Where
everything else fits, somebody who writes the database can still add both entries of an act in the name of somebody who
was permitted it and signs in without a key of its own; ``stanch log verify`` checks the entries themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from stanch.access.directory import BOOTSTRAP
from stanch.access.facts import WORKSPACE_SCOPE
from stanch.access.versions import versions_by_digest
from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput
from stanch.ledger import LedgerReader
from stanch.store import Tables
from stanch.store.schema import access as schema
from stanch.store.schema.workspace import resource
from stanch.terms import Digest
from stanch.workspace.rights_held import Held
from stanch.workspace.rights_log import RightsLog
from stanch.workspace.rights_made import Side


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and what was found.

    Attributes:
        differences: Each difference: the row or the entry, and what database and log say.
        acts: How many acts of the log said what should be there; 0 of a log without any.
        silent: The first entry of an older release that does not say what it gave.
        excused: How many people it and others like it are about, whose rows were not compared therefore.
        unsigned: Entries that say so without a signature of whoever acted.
    """

    differences: tuple[str, ...]
    acts: int
    silent: str
    excused: int
    unsigned: tuple[int, ...]


def compare_rights(tables: Tables, reader: LedgerReader) -> Comparison:
    """Hold the rows of rights against the entries that made them; both as they stood at one moment.

    Raises:
        StoreError: The database failed.
    """
    with tables.read() as connection:
        stored, log, size = _stored(connection), _begin(connection, reader.origin), _size(connection, reader.origin)
    log.read_all(reader.tail(0, size))
    found = tuple(log.faults)
    if log.owner:
        found += tuple(_differences(stored, log))
    return Comparison(found, log.acts, log.silent, len(log.excused), tuple(log.unsigned))


def read_rights(tables: Tables, reader: LedgerReader) -> RightsLog:
    """Return what the entries of the log say of rights.

    Raises:
        StoreError: The database failed.
    """
    with tables.read() as connection:
        log, size = _begin(connection, reader.origin), _size(connection, reader.origin)
    log.read_all(reader.tail(0, size))
    return log


def _begin(connection: Connection, origin: str) -> RightsLog:
    """Return a reading of the log with what the log has digests of alone: public halves of keys, texts of policies."""
    keys, grants = connection.execute(select(schema.credential)), schema.grant.c
    first = select(grants.id, grants.role).where(grants.granted_by == BOOTSTRAP)
    made = Side()
    held = Held(made, versions_by_digest(connection), {row.id: row.role for row in connection.execute(first)})
    return RightsLog(origin, {row.id: (row.principal, row.public) for row in keys}, held, made)


def _size(connection: Connection, origin: str) -> int:
    found = connection.exec_driver_sql("SELECT size FROM ledger_log WHERE origin = ?", (origin,))
    return int(found.scalar_one())


def _differences(stored: Side, log: RightsLog) -> Iterator[str]:
    yield from _first_grants(stored, log)
    for what, rows in stored.rows.items():
        entries = log.made.rows[what]
        # A gate that is shut although it was passed lets nobody do more; a model that fails it later shuts it at once.
        for name in sorted(rows.keys() | (entries.keys() if what != "gate" else ())):
            place = f"{what} {name}"
            index = log.made.entry_of.get(place)
            if name not in entries:
                if log.excused and _whose(what, name, rows[name]) in log.excused:
                    continue
                yield f"{place}: the database holds it, but no entry of the log made it"
            elif name not in rows:
                yield f"{place}: entry {index} made it, but the database does not hold it"
            elif differing := _differing(rows[name], entries[name]):
                yield f"{place}: {differing} (entry {index})"


def _whose(what: str, name: str, row: Mapping[str, Any]) -> str:
    """Return whose a row is of those that come with being registered and with roles; empty of any other."""
    owner = {"principal": name}.get(what, row.get("principal") if what in {"key", "grant"} else "")
    return str(owner)


def _first_grants(stored: Side, log: RightsLog) -> Iterator[str]:
    """Take one grant of each role that the first principal got with the workspace, before there was an entry."""
    missing, recorded = set(log.first_roles), log.made.rows["grant"]
    first = {"principal": log.owner, "scope": WORKSPACE_SCOPE, "expires_ms": None, "granted_by": BOOTSTRAP}
    for name, row in sorted(stored.rows["grant"].items(), key=lambda item: item[0] not in recorded):
        if row["role"] in missing and all(row[key] == value for key, value in first.items()):
            missing.discard(row["role"])
            recorded[name] = {"revoked": False} | recorded.get(name, {})
            log.made.entry_of.setdefault(f"grant {name}", 0)
    for role in sorted(missing):
        yield f"grant of {role} to {log.owner}: was made with the workspace, but the database does not hold it"


def _differing(row: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} is {row[name]} in the database, {entry[name]} in the log" for name in entry if row[name] != entry[name]
    )


def _stored(connection: Connection) -> Side:
    side = Side()
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
    for row in connection.execute(select(schema.glass)):
        side.rows["glass"][row.id] = {
            "principal": row.principal, "act": row.act, "until_ms": row.until_ms,
            "review_due_ms": row.review_due_ms, "reviewed_by": row.reviewed_by,
        }  # fmt: skip
    for row in connection.execute(select(schema.api_key)):
        side.rows["API key"][row.id] = {
            "principal": row.principal, "models": json.loads(row.models), "networks": json.loads(row.networks),
            "actions": json.loads(row.actions), "expires_ms": row.expires_ms, "issued_by": row.issued_by,
            "revoked": row.revoked_ms is not None,
        }  # fmt: skip
    _add_artifacts(side, connection)
    return side


def _add_artifacts(side: Side, connection: Connection) -> None:
    for row in connection.execute(select(resource)):
        name = f"{row.kind} {row.digest}"
        if row.quarantined:
            side.rows["quarantine"][name] = {}
        if row.sensitivity:
            side.rows["sensitivity"][name] = {"sensitivity": row.sensitivity}
        if row.legal_hold:
            side.rows["legal hold"][name] = {}
        if row.gate == "passed":
            side.rows["gate"][f"{row.kind} {row.name} {row.digest}"] = {}


def _key_id(public: bytes) -> str:
    try:
        return VerifyKey.from_raw_ed25519(public).key_id
    except InvalidInput:
        return "malformed"
