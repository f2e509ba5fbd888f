"""What tables promise, on SQLite and on PostgreSQL alike."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import insert, inspect, select

from stanch.errors import Conflict, InvalidInput, NotFound, SchemaTooNew, SchemaTooOld, StoreError
from stanch.store.schema import METADATA, REVISION, access, ledger, workspace
from stanch.store.uri import connect_tables


@pytest.fixture
def tables(place):
    return place.open(create=True)


def lease(act):
    return insert(workspace.act_lease).values(act=act, host="h", pid=1, until_ms=1)


def leases(tables):
    with tables.read() as connection:
        return connection.execute(select(workspace.act_lease.c.act)).scalars().all()


def entry(index, data=b"data"):
    return ("o", index, data, bytes([index % 256]) * 32)


def test_a_value_of_another_type_is_refused(tables):
    with pytest.raises((Conflict, StoreError)), tables.write() as connection:
        connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 'not a number', 1)")


def test_a_transaction_is_whole_or_absent(tables):
    with tables.write() as connection:
        connection.execute(lease("kept"))
    with pytest.raises(ZeroDivisionError), tables.write() as connection:
        connection.execute(lease("lost")).rowcount / 0
    assert leases(tables) == ["kept"]


def test_readers_cannot_write(tables):
    with pytest.raises(StoreError), tables.read() as connection:
        connection.execute(lease("x"))
    assert leases(tables) == []


def test_a_reader_keeps_its_snapshot_while_others_write(tables):
    with tables.read() as reader:
        assert reader.execute(select(workspace.act_lease.c.act)).scalars().all() == []
        with tables.write() as connection:
            connection.execute(lease("x"))
        assert reader.execute(select(workspace.act_lease.c.act)).scalars().all() == []
    assert leases(tables) == ["x"]


def test_writers_of_one_process_take_turns(tables):
    order = []

    def write(name):
        with tables.write() as connection:
            order.append(f"{name} in")
            connection.execute(lease(name))
            order.append(f"{name} out")

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases(tables)) == 8
    assert all(a.split()[0] == b.split()[0] for a, b in zip(order[::2], order[1::2], strict=True))


def test_uniqueness_is_a_conflict_that_shows_no_value(tables):
    row = {"kind": "user", "issuer": "i", "subject": "hunter2", "clearance": 0, "suspended": 0, "created_ms": 0}
    with tables.write() as connection:
        connection.execute(insert(access.principal).values(id="a", **row))
    with pytest.raises(Conflict) as caught, tables.write() as connection:
        connection.execute(insert(access.principal).values(id="b", **row))
    assert "hunter2" not in caught.value.what + caught.value.why


def test_database_errors_show_no_value(tables):
    with pytest.raises(StoreError) as caught, tables.write() as connection:
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (?)", ("hunter2",))
    assert "hunter2" not in caught.value.what + caught.value.why


@pytest.mark.parametrize("value", ["not a number hunter2", None])
def test_refusals_of_a_value_show_no_value(tables, value):
    row = {"kind": "user", "subject": "hunter2", "clearance": value, "suspended": 0, "created_ms": 0}
    with pytest.raises(StoreError) as caught, tables.write() as connection:
        connection.execute(insert(access.principal).values(id="a", **row))
    assert "hunter2" not in caught.value.what + caught.value.why


def test_a_reference_to_nobody_is_a_conflict(tables):
    row = {"principal": "nobody", "kind": "local", "public": b"", "not_before_ms": 0}
    with pytest.raises(Conflict), tables.write() as connection:
        connection.execute(insert(access.credential).values(id="k", **row))


def test_reopening_keeps_the_rows(place):
    with place.open(create=True).write() as connection:
        connection.execute(lease("kept"))
    assert leases(place.open()) == ["kept"]
    assert leases(place.open(create=True)) == ["kept"]


def test_what_is_empty_is_not_opened_without_being_asked_to(place):
    with pytest.raises(NotFound, match=r"empty|no database") as caught:
        place.open()
    assert caught.value.next_step.endswith("stanch init")


@pytest.mark.parametrize(("revision", "error"), [(REVISION - 1, SchemaTooOld), (REVISION + 1, SchemaTooNew)])
def test_another_revision_is_refused(place, tables, revision, error):
    with tables.write() as connection:
        connection.exec_driver_sql("UPDATE schema_revision SET revision = ?", (revision,))
    with pytest.raises(error) as caught:
        place.open()
    assert ("stanch migrate" in caught.value.next_step) == (error is SchemaTooOld)


def test_a_foreign_database_is_refused_and_left_alone(place):
    with closing(connect_tables(place.uri, base=place.base, create=True)) as foreign:
        with foreign.write() as connection:
            connection.exec_driver_sql("CREATE TABLE theirs (x INTEGER)")
        with pytest.raises(InvalidInput, match="not one of stanch"):
            place.open(create=True)
        with foreign.read() as connection:
            assert inspect(connection).get_table_names() == ["theirs"]


def test_every_table_of_the_schema_is_there_and_every_column_tagged(tables):
    with tables.read() as connection:
        assert set(inspect(connection).get_table_names()) == set(METADATA.tables)
    for table in METADATA.tables.values():
        assert all(isinstance(column.info.get("personal"), bool) for column in table.columns)


@pytest.mark.parametrize("count", [1, 63, 64, 300])
def test_whole_rows_are_inserted_as_they_are(tables, count):
    rows = [entry(index, bytes(range(256)) + b"\\.\n\t\\N") for index in range(count)]
    with tables.write() as connection:
        tables.insert(connection, ledger.ledger_entry, rows)
    with tables.read() as connection:
        found = connection.exec_driver_sql("SELECT origin, idx, data, leaf_hash FROM ledger_entry ORDER BY idx").all()
    assert [tuple(row) for row in found] == rows


@pytest.mark.parametrize("count", [2, 300])
def test_of_refused_rows_none_is_inserted(tables, count):
    with pytest.raises(Conflict), tables.write() as connection:
        tables.insert(connection, ledger.ledger_entry, [entry(index) for index in range(count)] + [entry(0)])
    with pytest.raises(Conflict), tables.write() as connection:
        tables.insert(connection, ledger.ledger_entry, [*(entry(i) for i in range(count)), ("o", count, b"", b"short")])
    with tables.write() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger_entry").scalar() == 0


def test_entries_are_append_only(tables):
    with tables.write() as connection:
        tables.insert(connection, ledger.ledger_entry, [entry(0)])
    for statement in ("UPDATE ledger_entry SET data = leaf_hash", "DELETE FROM ledger_entry"):
        with pytest.raises(Conflict, match="refused") as caught, tables.write() as connection:
            connection.exec_driver_sql(statement)
        assert "append only" in caught.value.why
    with tables.read() as connection:
        assert connection.exec_driver_sql("SELECT data FROM ledger_entry").scalar() == b"data"


def test_statements_mark_parameters_alike_and_may_hold_percent_signs(tables):
    with tables.write() as connection:
        connection.execute(lease("100%"))
        connection.execute(lease("other"))
    statement = "SELECT act FROM act_lease WHERE act LIKE '%0%' AND until_ms % 2 = ? AND host = ?"
    with tables.read() as connection:
        assert connection.exec_driver_sql(statement, (1, "h")).scalars().all() == ["100%"]
        like = select(workspace.act_lease.c.act).where(workspace.act_lease.c.act.like("%h_r"))
        assert connection.execute(like).scalars().all() == ["other"]


def test_integers_have_64_bits_and_text_is_ordered_by_its_bytes(tables):
    acts = ["a", "B", "é", "Z", "_", "b"]
    with tables.write() as connection:
        for act in acts:
            connection.execute(lease(act).values(until_ms=2**63 - 1))
    with tables.read() as connection:
        found = connection.exec_driver_sql("SELECT act, until_ms FROM act_lease ORDER BY act").all()
    assert [row[0] for row in found] == sorted(acts, key=str.encode)
    assert {row[1] for row in found} == {2**63 - 1}


def test_what_was_read_in_a_write_still_holds_at_its_commit(place, tables):
    """Two processes each read a number and write one more: as they take turns, none is lost."""
    others = [tables, place.open()]
    with tables.write() as connection:
        connection.execute(lease("n"))

    def add(mine):
        for _ in range(20):
            with mine.write() as connection:
                value = connection.exec_driver_sql("SELECT until_ms FROM act_lease").scalar_one()
                connection.exec_driver_sql("UPDATE act_lease SET until_ms = ?", (value + 1,))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, others))
    with tables.read() as connection:
        assert connection.exec_driver_sql("SELECT until_ms FROM act_lease").scalar() == 41


def test_many_that_begin_at_once_make_one_schema(place):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: place.open(create=True), range(4)))
    with place.open().read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM schema_revision").scalar() == 1


def test_a_lease_is_held_once_and_ends_with_its_block(place):
    first, second = place.open(create=True), place.open()
    with first.lease("a") as held:
        assert held
        with second.lease("a") as also, second.lease("b") as other:
            assert (also, other) == (False, True)
    with second.lease("a") as held:
        assert held
    with pytest.raises(ZeroDivisionError), first.lease("a"):
        raise ZeroDivisionError
    with second.lease("a", wait_seconds=5) as held:
        assert held


def test_a_lease_is_waited_for(place):
    first, second = place.open(create=True), place.open()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with first.lease("a"):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    threading.Timer(0.3, leave.set).start()
    with second.lease("a", wait_seconds=10) as held:
        assert held
    thread.join()
