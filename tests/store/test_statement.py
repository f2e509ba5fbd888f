"""Hand-written statements: the same transaction and the same errors as SQLAlchemy's, on both dialects."""

import contextlib

import pytest

from stanch.errors import Conflict, StoreError
from stanch.store import open_tables
from stanch.store.statement import run, with_driver_marks

INSERT = "INSERT INTO access_revision (of, value) VALUES (?, ?)"


@pytest.fixture
def tables(tmp_path):
    with_tables = open_tables("sqlite:./a.db", base=tmp_path, create=True)
    yield with_tables
    with_tables.close()


def values(tables):
    with tables.read() as connection:
        return run(connection, "SELECT of, value FROM access_revision ORDER BY of")


def test_rows_come_back_and_a_change_gives_none(tables):
    with tables.write() as connection:
        assert run(connection, INSERT, ("a", 1)) == []
        assert run(connection, "DELETE FROM access_revision WHERE of = ? RETURNING value", ("a",)) == [(1,)]
        run(connection, INSERT, ("b", 2))
    assert values(tables) == [("b", 2)]


def test_an_exception_undoes_it(tables):
    with contextlib.suppress(ZeroDivisionError), tables.write() as connection:
        run(connection, INSERT, ("a", 1))
        raise ZeroDivisionError
    assert values(tables) == []


def test_errors_are_those_of_the_tables_and_show_no_value(tables):
    with tables.write() as connection:
        run(connection, INSERT, ("secret-value", 1))
    with pytest.raises(Conflict) as refused, tables.write() as connection:
        run(connection, INSERT, ("secret-value", 1))
    assert "secret-value" not in f"{refused.value}{refused.value.__cause__}"
    with pytest.raises(StoreError), tables.read() as connection:
        run(connection, INSERT, ("b", 1))
    with pytest.raises(StoreError), tables.write() as connection:
        run(connection, "SELECT nothing FROM nowhere")


def test_marks():
    assert with_driver_marks("SELECT 'a%' WHERE b = ?") == "SELECT 'a%%' WHERE b = %s"
