"""Erasure: no byte of the value is left, every proof holds, and a legal hold refuses."""

import pytest
from msgspec.structs import replace

from stanch.errors import InvalidInput, NotFound, NotPermitted, StoreError
from stanch.ledger import Opening, fsck, outcome, verify_proof
from stanch.ledger.erasure import BASIS, Selection, erase
from stanch.store import CREATE
from stanch.store.schema.access import principal as principals
from stanch.store.schema.ledger import ledger_opening
from stanch.store.schema.workspace import resource
from stanch.terms import ArtifactRef, Digest

ALICE = "p_" + "a" * 26
BOB = "p_" + "b" * 26
SECRET = "alice.liddell@wonderland.example"
OTHER = "bob@builder.example"
HELD = ArtifactRef("model", "bot", Digest.sha256(b"weights"))
FREE = ArtifactRef("model", "free", Digest.sha256(b"other weights"))


def record(ground, log, person, value, *, field="actor.user.email_addr", subject=(), **settings):
    """Append an entry of ``person`` that commits to ``value``."""
    entry = ground.entry()
    act = replace(entry.act, principal=person, subject=subject)
    return log.append(replace(entry, act=act, openings=(Opening.make(field, value, **settings),)))


@pytest.fixture
def people(either):
    """A log with two people, published."""
    ground, log = either, either.create()
    with ground.tables.write() as connection:
        for person, name in ((ALICE, SECRET), (BOB, OTHER)):
            row = {"id": person, "kind": "user", "issuer": "local:w", "subject": name, "display": name}
            connection.execute(principals.insert().values(**row, clearance=0, suspended=0, created_ms=0))
    record(ground, log, ALICE, SECRET)
    record(ground, log, BOB, OTHER)
    ground.fill(log, 3)
    log.publish()
    yield ground, log
    log.close()


def occurrences(ground, value):
    """Return the files of the log that hold the value: its own, and those that PostgreSQL keeps rows in."""
    files = [path for path in ground.folder.rglob("*") if path.is_file()]
    if ground.tables.dialect == "postgresql":
        ground.server.run("CHECKPOINT")  # what only memory holds goes to the files
        with ground.tables.read() as connection:
            number = connection.exec_driver_sql("SELECT oid FROM pg_database WHERE datname = current_database()")
            files += (ground.server.folder / "data" / "base" / str(number.scalar())).iterdir()
    return [path.name for path in sorted(files) if value.encode() in path.read_bytes()]


def run(ground, log, *selection, now_ms=0):
    return erase(log.reader(), ground.blobs, Selection(*selection), lambda _connection, _commitments: 0, now_ms=now_ms)


def test_no_byte_of_a_person_is_left_and_every_proof_holds(people):
    ground, log = people
    assert occurrences(ground, SECRET)
    proofs = [(log.reader().entry(index), log.reader().prove(index)) for index in range(5)]
    assert run(ground, log, ALICE) == run_result(openings=1, columns=3)
    assert occurrences(ground, SECRET) == []
    assert occurrences(ground, OTHER)
    for entry, proof in proofs:
        verify_proof(proof, entry, ground.policy)
    report = fsck(log.reader(), ground.policy)
    assert report.openings == 1
    assert run(ground, log, ALICE) == run_result(openings=0, columns=0)


def run_result(**counts):
    from stanch.ledger.erasure import Erased  # noqa: PLC0415 - of this helper alone

    return Erased(**{"openings": 0, "columns": 0, "payloads": 0, "words": 0} | counts)


def test_a_field_is_erased_in_entries_before_a_time(people):
    ground, log = people
    before = int(ground.clock() * 1000) + 1
    ground.clock.seconds += 60
    record(ground, log, BOB, "later@builder.example")
    record(ground, log, BOB, "a name", field="actor.user.name")
    assert run(ground, log, None, "actor.user.email_addr", before) == run_result(openings=2)
    with ground.tables.read() as connection:
        left = {row.value for row in connection.execute(ledger_opening.select())}
    assert left == {'"later@builder.example"', '"a name"'}
    assert occurrences(ground, SECRET)  # the person's row is not a field of an entry


def test_times_are_half_open(people):
    """Before a time is not at it, and a time of retention has passed only after it."""
    ground, log = people
    ground.clock.seconds += 60
    now_ms = int(ground.clock() * 1000)
    record(ground, log, BOB, "at that time")
    record(ground, log, BOB, "kept until now", field="payload", retain_until_ms=now_ms)
    record(ground, log, BOB, "kept until a moment ago", field="payload", retain_until_ms=now_ms - 1)
    assert run(ground, log, None, "actor.user.email_addr", now_ms, now_ms=now_ms).openings == 3
    with ground.tables.read() as connection:
        left = {row.value for row in connection.execute(ledger_opening.select())}
    assert left == {'"at that time"', '"kept until now"'}


def test_the_copies_of_what_is_erased_are_named_to_whoever_holds_them(people):
    ground, log = people
    entry = ground.entry()
    log.append(replace(entry, payload={"commitments": "a word in a payload"}))
    with ground.tables.read() as connection:
        made = {row.value: row.commitment for row in connection.execute(ledger_opening.select())}
    asked = []

    def forget(_connection, commitments):
        asked.append(commitments)
        return 7

    selection = Selection(None, "actor.user.email_addr", 10**15)
    assert erase(log.reader(), ground.blobs, Selection(ALICE), forget, now_ms=0).words == 7
    assert erase(log.reader(), ground.blobs, selection, forget, now_ms=0).openings == 1
    # Of a field all commitments are named, whether their openings are still there or not.
    assert asked == [{made[f'"{SECRET}"']}, set(made.values())]


def test_an_opening_about_another_person_is_that_persons(people):
    ground, log = people
    record(ground, log, BOB, "the new address of Alice", principal=ALICE)
    assert run(ground, log, ALICE).openings == 2
    assert occurrences(ground, "the new address of Alice") == []


def test_payloads_go_with_their_openings_and_when_their_time_has_passed(people):
    ground, log = people
    keys = [f"payload/sha256/{digest[:2]}/{digest}" for digest in ("ab" * 32, "cd" * 32, "ef" * 32)]
    for key in keys:
        ground.blobs.put(key, b"a report that names somebody", mode=CREATE)
    record(ground, log, ALICE, keys[0], field="payload")
    record(ground, log, BOB, keys[1], field="payload", retain_until_ms=1000)
    record(ground, log, BOB, keys[2], field="payload", retain_until_ms=3000)
    ground.blobs.delete(keys[1])  # as an attempt before this one did
    assert run(ground, log, ALICE, now_ms=2000) == run_result(openings=3, columns=3, payloads=1)
    assert [info.key for info in ground.blobs.list("payload/")] == keys[2:]


def test_a_legal_hold_refuses_and_nothing_is_erased(people):
    ground, log = people
    record(ground, log, ALICE, "something else", subject=(HELD,))
    log.publish()
    row = {"kind": "model", "name": "bot", "digest": str(HELD.digest)}
    rest = {"sensitivity": 0, "quarantined": 0, "gate": "", "made_by": ""}
    record(ground, log, BOB, "something free", subject=(FREE,))
    free = {"kind": "model", "name": "free", "digest": str(FREE.digest)}
    with ground.tables.write() as connection:
        connection.execute(resource.insert().values(**row, **rest, legal_hold=1))
        connection.execute(resource.insert().values(**free, **rest, legal_hold=0))
    with pytest.raises(NotPermitted, match=f"{ALICE} acted on bot, which is under legal hold"):
        run(ground, log, ALICE)
    with pytest.raises(NotPermitted, match="legal hold"):
        run(ground, log, None, "actor.user.email_addr", 10**15)
    assert occurrences(ground, SECRET)
    assert run(ground, log, BOB).openings == 2


def test_a_hold_is_kept_also_of_whom_no_opening_tells(people):
    ground, log = people
    entry = ground.entry()
    log.append(replace(entry, act=replace(entry.act, principal=ALICE, subject=(HELD,))))
    assert run(ground, log, None, "actor.user.email_addr", 0) == run_result()
    with ground.tables.write() as connection:
        connection.execute(ledger_opening.delete())
        row = {"kind": "model", "name": "bot", "digest": str(HELD.digest), "legal_hold": 1}
        rest = {"sensitivity": 0, "quarantined": 0, "gate": "", "made_by": ""}
        connection.execute(resource.insert().values(**row, **rest))
    with pytest.raises(NotPermitted, match=f"{ALICE} acted on bot"):
        run(ground, log, ALICE)
    assert occurrences(ground, SECRET)
    assert run(ground, log, BOB).columns == 3


@pytest.mark.parametrize(("result", "is_held"), [("done", True), ("failed", False)])
def test_whoever_tuned_what_is_held_is_not_erased(people, result, is_held):
    ground, log = people
    time_ms = int(ground.clock() * 1000)
    act = replace(ground.entry().act, principal=ALICE)
    other = replace(ground.entry().act, principal=BOB)
    log.append(outcome(act, time_ms=time_ms, result=result, payload={"model": str(HELD.digest)}))
    log.append(outcome(other, time_ms=time_ms))  # which names no model
    row = {"kind": "model", "name": "bot", "digest": str(HELD.digest)}
    rest = {"sensitivity": 0, "quarantined": 0, "gate": "", "made_by": "", "legal_hold": 1}
    with ground.tables.write() as connection:
        connection.execute(resource.insert().values(**row, **rest))
    assert run(ground, log, BOB).openings == 1
    if is_held:
        with pytest.raises(NotPermitted, match=f"{ALICE} acted on bot"):
            run(ground, log, ALICE)
    else:
        assert run(ground, log, ALICE).openings == 1


@pytest.mark.parametrize("code", ["gdpr-17-1-b", "a", "9" * 32])
def test_codes_for_a_legal_basis(code):
    assert BASIS.fullmatch(code)
    assert not BASIS.fullmatch(f"{code}!")
    assert not BASIS.fullmatch(f"-{code}")


def test_a_principal_that_is_not_known_is_said(people):
    ground, log = people
    with pytest.raises(NotFound):
        run(ground, log, "p_" + "c" * 26)


@pytest.mark.parametrize("selection", [(), (ALICE, "f", 1), (None, "f"), (None, None, 1), (ALICE, None, 1)])
def test_half_a_selection_is_refused(selection):
    with pytest.raises(InvalidInput):
        Selection(*selection)


@pytest.mark.parametrize("either", ["ground"], indirect=True)
def test_another_reader_that_keeps_the_old_pages_is_said(people):
    """SQLite alone: PostgreSQL waits for readers."""
    ground, log = people
    tables = ground.open_tables()
    with tables.read() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM ledger_entry").scalar()
        with ground.tables.write() as writer:
            writer.exec_driver_sql("UPDATE ledger_log SET updated_ms = updated_ms")
            writer.exec_driver_sql("PRAGMA busy_timeout = 50")
        with pytest.raises(StoreError, match="older pages"):
            run(ground, log, ALICE)
    run(ground, log, ALICE)
    assert occurrences(ground, SECRET) == []
