"""How tables are written down: one text for both dialects, and a tag on each column that may hold personal data."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.schema import SchemaItem

METADATA = MetaData()
REVISION = 10
"""The revision of the whole schema. It only ever grows; a database of another revision is refused."""

# PostgreSQL compares text as bytes, as SQLite does, so that an order never depends on a server's language.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
# STRICT tables know INTEGER alone, which has 64 bits there and 32 on PostgreSQL.
_INTEGER = BigInteger().with_variant(Integer(), "sqlite")


def text(
    name: str, *, key: bool = False, null: bool = False, personal: bool = False, default: str | None = None
) -> Column[str]:
    """Return a text column; one that a later revision added has a default, for the rows that were there."""
    return Column(name, _TEXT, primary_key=key, nullable=null, server_default=default, info={"personal": personal})


def integer(name: str, *, key: bool = False, null: bool = False) -> Column[int]:
    """Return a 64-bit integer column; times are milliseconds UTC, truth values 0 and 1."""
    return Column(name, _INTEGER, primary_key=key, autoincrement=False, nullable=null, info={"personal": False})


def blob(name: str, *, null: bool = False, personal: bool = False) -> Column[bytes]:
    """Return a column of bytes."""
    return Column(name, LargeBinary, nullable=null, info={"personal": personal})


def table(name: str, *items: SchemaItem, long_rows: bool = False) -> Table:
    """Return a table; on SQLite a STRICT one, without the hidden rowid where rows are short.

    A row of more than a quarter of a page gets pages of its own in a table without rowid: four times the file, and four
    times the work of an insert. Tables that older releases made keep their form.
    """
    return Table(name, METADATA, *items, sqlite_strict=True, sqlite_with_rowid=long_rows)


schema_revision = table("schema_revision", integer("revision", key=True))
