"""The roll: everybody who is registered, a page at a time or all at once, in few statements however many there are."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import Connection, func, select

from stanch.access.facts import Facts, Grant
from stanch.access.grant import grant_of, in_force, ordered
from stanch.access.principal import principal_of
from stanch.store.schema import access as schema
from stanch.store.statement import run

_PIECE = 500
_PEOPLE = (
    "SELECT id, kind, issuer, subject, display, clearance, suspended, created_ms FROM principal WHERE id > ?"
    " ORDER BY id LIMIT ?"
)
_GRANTS = (
    "SELECT id, principal, role, scope, not_before_ms, expires_ms, revoked_ms, granted_by, reason_commitment"
    " FROM grant_ WHERE principal BETWEEN ? AND ?"
    " AND not_before_ms <= ? AND (expires_ms IS NULL OR expires_ms > ?) AND revoked_ms IS NULL"
)
_NO_LIMIT = 2**62


def names_of(connection: Connection, principals: Iterable[str]) -> dict[str, str]:
    """Return what each of some principals is shown as; an erased one by its id, an unknown one not at all."""
    table, wanted, found = schema.principal.c, sorted(set(principals)), dict[str, str]()
    for start in range(0, len(wanted), _PIECE):
        rows = connection.execute(select(table.id, table.display).where(table.id.in_(wanted[start : start + _PIECE])))
        found |= {key: display or key for key, display in rows}
    return found


def ids_called(connection: Connection, name: str) -> tuple[str, ...]:
    """Return the ids of those who have this id or are shown under this name."""
    table = schema.principal.c
    called = select(table.id).where((table.id == name) | (table.display == name)).order_by(table.id)
    return tuple(connection.scalars(called))


def first_names(connection: Connection, count: int) -> tuple[str, ...]:
    """Return so many names, in their order, of those who have one."""
    display = schema.principal.c.display
    return tuple(connection.scalars(select(display).where(display.is_not(None)).order_by(display).limit(count)))


def count_principals(connection: Connection) -> int:
    """Return how many are registered."""
    return int(connection.scalar(select(func.count()).select_from(schema.principal)) or 0)


def facts_after(connection: Connection, now_ms: int, *, after: str = "", limit: int | None = None) -> tuple[Facts, ...]:
    """Return the facts of those whose ids follow ``after``, in the order of their ids; all of them without a limit."""
    rows = run(connection, _PEOPLE, (after, _NO_LIMIT if limit is None else limit))
    if not rows:
        return ()
    held = defaultdict[str, list[Grant]](list)
    for row in run(connection, _GRANTS, (rows[0][0], rows[-1][0], now_ms, now_ms)):
        one = grant_of(row)
        held[one.principal].append(one)
    return tuple(Facts(one, ordered(held[one.id])) for one in map(principal_of, rows))


def holders(
    connection: Connection, role: str, scopes: Collection[str], now_ms: int, *, limit: int
) -> tuple[tuple[str, ...], int]:
    """Return the first names of those who hold a role now in one of these scopes, and how many they are."""
    person, grant = schema.principal.c, schema.grant.c
    held = select(grant.principal).where(grant.role == role, grant.scope.in_(scopes), in_force(now_ms))
    shown = func.coalesce(person.display, person.id)
    names = connection.scalars(select(shown).where(person.id.in_(held)).order_by(shown).limit(limit))
    count = select(func.count()).select_from(schema.principal).where(person.id.in_(held))
    return tuple(names), int(connection.scalar(count) or 0)
