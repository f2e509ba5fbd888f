"""How often something changed: a number that grows in the transaction of each change, so that nodes can see it.

``facts`` counts changes of principals, credentials, grants and resources; ``policy`` is the version in force.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, update

from stanch.store.schema import access as schema
from stanch.store.statement import run

FACTS = "facts"
POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Revision:
    """The two numbers that a remembered decision depends on."""

    facts: int = 0
    policy: int = 0


def read_revision(connection: Connection) -> Revision:
    """Return where both stand; a workspace without any change stands at 0."""
    found = dict[str, int](run(connection, 'SELECT "of", value FROM access_revision'))
    return Revision(found.get(FACTS, 0), found.get(POLICY, 0))


def advance_facts(connection: Connection) -> None:
    """Count a change of facts, inside the transaction that makes it."""
    table = schema.access_revision
    if not connection.execute(update(table).where(table.c.of == FACTS).values(value=table.c.value + 1)).rowcount:
        connection.execute(insert(table).values(of=FACTS, value=1))


def set_policy(connection: Connection, version: int) -> None:
    """Note which version of the policies is in force from now on."""
    table = schema.access_revision
    if not connection.execute(update(table).where(table.c.of == POLICY).values(value=version)).rowcount:
        connection.execute(insert(table).values(of=POLICY, value=version))
