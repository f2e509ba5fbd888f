"""Pages of a busy workspace: what they ask of the database does not grow with the log or with who is registered."""

import contextlib
from dataclasses import dataclass

import crowd
import pytest
from sqlalchemy import Engine, event
from test_routes import GETS, at, places  # noqa: F401 - a fixture

from stanch.errors import StoreError
from stanch.ledger import LedgerReader

ENTRIES, PRINCIPALS = 2500, 1000
MORE = ("/log?kind=gateway.infer", "/log?kind=tune.run", "/log?phase=note", "/log?principal=dana", "/alerts?limit=1",
        "/access/who?action=model:infer", "/log/9")  # fmt: skip
LEEWAY = 400
"""Decisions are kept for a second: a slow machine asks again. One row for each new entry would be 2,500."""
MOST_STATEMENTS = 400
"""Far fewer than there are principals: one for each of them would be found."""


@dataclass
class Work:
    """What was asked of the database: statements, and rows that were read of their answers."""

    statements: int = 0
    rows: int = 0


@contextlib.contextmanager
def counted():
    work = Work()

    def read(_cursor, row):
        work.rows += 1
        return row

    def before(_connection, cursor, *_rest):
        work.statements += 1
        cursor.row_factory = read

    event.listen(Engine, "before_cursor_execute", before)
    try:
        yield work
    finally:
        event.remove(Engine, "before_cursor_execute", before)


def grow(seat, names, requests):
    now_ms = int(seat.workspace.door.clock() * 1000)
    crowd.append(seat.workspace.ledger, crowd.make_history(names, ENTRIES, now_ms - 30_000, now_ms, requests=requests))
    seat.workspace.ledger.publish()  # or the log does so beside the pages, and reads what it publishes


def work_of(client, paths):
    found = {}
    for path in paths:
        assert client.get(path).status_code == 200, path  # brings indexes and counts up to date
        with counted() as found[path]:
            client.get(path)
    return found


@pytest.fixture
def paths(places):  # noqa: F811 - the fixture
    return [*(at(route, places) for route in GETS if route.name != "log.entry"), *MORE]


def test_a_page_asks_no_more_of_a_longer_log(seat, paths):
    client, names = seat.browser("ada"), crowd.names_of(PRINCIPALS)
    crowd.add_crowd(seat.workspace.tables, names, int(seat.workspace.door.clock() * 1000))
    grow(seat, names, 0.7)
    before = work_of(client, paths)
    assert all(0 < work.statements < MOST_STATEMENTS for work in before.values()), before
    grow(seat, names, 1.0)
    for path, work in work_of(client, paths).items():
        assert work.statements <= before[path].statements + LEEWAY, (path, before[path], work)
        assert work.rows <= before[path].rows + LEEWAY, (path, before[path], work)


def test_a_page_that_reads_every_entry_would_be_found(seat):
    grow(seat, crowd.names_of(1), 1.0)
    reader = seat.workspace.ledger.reader()
    with counted() as few:
        list(reader.tail(0, 20))
    with counted() as many:
        list(reader.tail())
    assert many.rows >= few.rows + LEEWAY


def test_what_pages_keep_of_the_log_is_read_before_the_first_is_asked_for(seat, monkeypatch):
    grow(seat, crowd.names_of(1), 1.0)
    desk, size, queries = seat.app.desk, seat.workspace.ledger.reader().size(), []
    desk.read_ahead()
    select = LedgerReader.select
    monkeypatch.setattr(LedgerReader, "select", lambda *args: queries.append(args[1]) or select(*args))
    assert seat.browser("ada").get("/transparency").status_code == 200
    assert [query.first for query in queries if query.holds] == [size]
    monkeypatch.setattr(desk.workspace.tables, "read", lambda: (_ for _ in ()).throw(StoreError("gone")))
    desk.read_ahead()  # the page that asks says so
