"""The roll: everybody who is registered, a page at a time or in groups, in few statements however many there are."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from stanch.access.alike import Likeness
from stanch.access.facts import Facts, Grant
from stanch.access.grant import grant_of, in_force, ordered
from stanch.access.principal import principal_of
from stanch.store.schema import access as schema
from stanch.store.statement import run

_PIECE = 500
_EVERYBODY = "SELECT id, kind, clearance, suspended FROM principal ORDER BY id"
_HELD = (
    "SELECT principal, role, scope FROM grant_"
    " WHERE not_before_ms <= ? AND (expires_ms IS NULL OR expires_ms > ?) AND revoked_ms IS NULL"
)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Everybody who is registered, in groups that policies cannot tell apart on any resource.

    Attributes:
        group_of: The number of each principal's group, by ids in their order.
        groups: The facts of one principal of each group.
    """

    group_of: dict[str, int]
    groups: tuple[Facts, ...]


def names_of(connection: Connection, principals: Iterable[str]) -> dict[str, str]:
    """Return what each of some principals is shown as; an erased one by its id, an unknown one not at all."""
    table, wanted, found = schema.principal.c, list(set(principals)), dict[str, str]()
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
    return connection.scalars(select(func.count()).select_from(schema.principal)).one()


def facts_after(connection: Connection, now_ms: int, *, after: str, limit: int) -> tuple[Facts, ...]:
    """Return the facts of the first of those whose ids follow ``after``, in the order of their ids."""
    key = schema.principal.c.id
    return facts_of(connection, connection.scalars(select(key).where(key > after).order_by(key).limit(limit)), now_ms)


def facts_of(connection: Connection, principals: Iterable[str], now_ms: int) -> tuple[Facts, ...]:
    """Return the facts of those of some principals who are registered, in the order of their ids."""
    person, grant = schema.principal, schema.grant
    wanted, found = sorted(set(principals)), list[Facts]()
    for start in range(0, len(wanted), _PIECE):
        some = wanted[start : start + _PIECE]
        held = defaultdict[str, list[Grant]](list)
        for row in connection.execute(select(grant).where(grant.c.principal.in_(some), in_force(now_ms))):
            held[row.principal].append(grant_of(row))
        rows = connection.execute(select(person).where(person.c.id.in_(some)).order_by(person.c.id))
        found += [Facts(one, ordered(held[one.id])) for one in map(principal_of, rows)]
    return tuple(found)


def read_crowd(connection: Connection, now_ms: int, likeness: Likeness) -> Crowd:
    """Return everybody in groups; only what tells them apart is read of all."""
    held, spelled = defaultdict[str, list[tuple[str, str]]](list), likeness.spelled_names
    for principal, role, scope in run(connection, _HELD, (now_ms, now_ms)):
        held[principal].append((role, scope))
    numbers, first, group_of = dict[Hashable, int](), list[str](), dict[str, int]()
    for key, kind, clearance, suspended in run(connection, _EVERYBODY):
        alike = kind, clearance, suspended, tuple(sorted(held.get(key, ()))), key if key in spelled else ""
        number = numbers.setdefault(alike, len(first))
        if number == len(first):
            first.append(key)
        group_of[key] = number
    return Crowd(group_of, facts_of(connection, first, now_ms))


def holders(
    connection: Connection, role: str, scopes: Collection[str], now_ms: int, *, limit: int
) -> tuple[tuple[str, ...], int]:
    """Return the first names of those who hold a role now in one of these scopes, and how many they are."""
    person, grant = schema.principal.c, schema.grant.c
    held = select(grant.principal).where(grant.role == role, grant.scope.in_(scopes), in_force(now_ms))
    shown = func.coalesce(person.display, person.id)
    names = connection.scalars(select(shown).where(person.id.in_(held)).order_by(shown).limit(limit))
    count = select(func.count()).select_from(schema.principal).where(person.id.in_(held))
    return tuple(names), connection.scalars(count).one()
