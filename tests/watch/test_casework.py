"""Tasks and custody of an incident: what they refuse, and what leaves of them."""

import json

import msgspec
import pytest

from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.store import open_tables
from stanch.store.schema.alerts import incident as rows
from stanch.terms import Digest
from stanch.trace.incident_page import render_export
from stanch.watch.casework import add_statement, add_task, finish_task, hand_over
from stanch.watch.incident import (
    HOUR_MS,
    Matter,
    Notice,
    Told,
    close_incident,
    new_incident,
    notify,
    waive_notice,
)
from stanch.watch.incident_book import add_incident, load_incident, save_incident
from stanch.watch.incident_export import Record, export_json

NOW = 1_000 * HOUR_MS
DISK = Digest.sha256(b"an image of the disk")


def incident():
    return new_incident(NOW - 2 * HOUR_MS, by="p_x", at_ms=NOW, rng=bytes)


def busy():
    """Return an incident with two tasks, of which one is done, and evidence that went through two hands."""
    made = add_task(incident(), "tell the customer", who="p_a", due_ms=NOW + HOUR_MS, entry=5)
    made = add_task(made, "rotate <b>keys</b>", who="p_b", due_ms=NOW, entry=6)
    made = finish_task(made, 6, at_ms=NOW + 1, entry=7)
    made = hand_over(made, DISK, "the disk", holder="p_a", since_ms=NOW - HOUR_MS, at_ms=NOW, entry=8)
    return hand_over(made, DISK, "the disk, sealed", holder="p_b", since_ms=NOW - 9, at_ms=NOW, entry=9)


def record(index, **payload):
    payload = {"incident": incident().id, **payload}
    return Record(index, "watch.incident.update", "intent", NOW, "p_x", "aa", "proof", payload=payload)


def test_a_task_is_done_once_and_only_if_it_is_one():
    made = busy()
    assert [(one.entry, one.who, one.done_ms, one.done_entry) for one in made.tasks] == [
        (5, "p_a", None, None), (6, "p_b", NOW + 1, 7),
    ]  # fmt: skip
    with pytest.raises(NotFound, match="no task 8"):
        finish_task(made, 8, at_ms=NOW, entry=10)
    with pytest.raises(InvalidInput, match="done already"):
        finish_task(made, 6, at_ms=NOW, entry=10)
    with pytest.raises(InvalidInput, match="before the incident was discovered"):
        add_task(made, "x", who="p_a", due_ms=NOW - 3 * HOUR_MS, entry=10)
    with pytest.raises(InvalidInput, match="reason"):
        add_task(made, "  ", who="p_a", due_ms=NOW, entry=10)


def test_evidence_goes_from_hand_to_hand_forwards_in_time():
    made = busy()
    for since in (NOW - 10, NOW + 1):
        with pytest.raises(InvalidInput, match="in the future, or before"):
            hand_over(made, DISK, "the disk", holder="p_c", since_ms=since, at_ms=NOW, entry=10)
    other = Digest.sha256(b"a log")
    assert hand_over(made, other, "a log", holder="p_c", since_ms=0, at_ms=NOW, entry=10).custody[-1].holder == "p_c"


def test_a_closed_incident_takes_neither():
    closed = close_incident(waive_notice(busy(), "encrypted"))
    for step in (
        lambda: add_task(closed, "x", who="p_a", due_ms=NOW, entry=10),
        lambda: finish_task(closed, 5, at_ms=NOW, entry=10),
        lambda: add_statement(closed, Matter.PEOPLE, "x", entry=10),
        lambda: hand_over(closed, DISK, "x", holder="p_a", since_ms=NOW, at_ms=NOW, entry=10),
    ):
        with pytest.raises(InvalidInput, match="closed"):
            step()


def test_what_others_are_told_of_it_holds_no_words_of_a_person():
    told = busy().summary()
    assert told["tasks"] == [
        {"task": 5, "who": "p_a", "due_ms": NOW + HOUR_MS, "done_ms": None},
        {"task": 6, "who": "p_b", "due_ms": NOW, "done_ms": NOW + 1},
    ]  # fmt: skip
    assert [one["holder"] for one in told["custody"]] == ["p_a", "p_b"]
    assert "customer" not in str(told)
    assert "disk" not in str(told)


def test_each_sentence_of_the_export_rests_on_the_entry_that_states_it():
    known = [
        record(5, change="task", who="p_a", due_ms=NOW + HOUR_MS), record(6, change="task", who="p_b", due_ms=NOW),
        record(7, change="task-done", task=6),
        record(8, change="custody", digest=str(DISK), holder="p_a", since_ms=NOW - HOUR_MS),
        record(9, change="custody", digest=str(DISK), holder="p_c", since_ms=NOW - 9),  # not what the incident says
    ]  # fmt: skip
    facts = json.loads(export_json(busy(), known, "log"))["facts"]
    assert [(one["text"].partition(",")[0].partition(" at ")[0][:22], one["entries"]) for one in facts] == [
        ("Task 5", [5]), ("Task 6", [6]), ("Task 6 was done", [7]), ("p_a held sha256:" + DISK.hex[:6], [8]),
    ]  # fmt: skip
    assert json.loads(export_json(busy(), [], "log"))["facts"] == []
    page = render_export(busy(), known, "log")
    assert "rotate &lt;b&gt;keys&lt;/b&gt;" in page


def test_a_statement_and_a_late_notice_are_said_where_the_log_commits_to_them():
    made = add_statement(incident(), Matter.PEOPLE, "about 400 customers", entry=11)
    made = add_statement(made, Matter.CONTACT, "privacy@example.com", entry=12)
    told_ms = made.discovered_ms + 80 * HOUR_MS
    made = notify(made, Notice(entry=13, to=Told.AUTHORITY, at_ms=told_ms, what="found late"), told_ms)
    made = notify(made, Notice(entry=14, to=Told.PEOPLE, at_ms=told_ms), told_ms)
    known = [
        record(11, change="state", matter="people"), record(12, change="state", matter="data"),
        record(13, change="notify", notified_ms=told_ms, to="authority"),
        record(14, change="notify", notified_ms=told_ms, to="people"),
    ]  # fmt: skip
    facts = json.loads(export_json(made, known, "log"))["facts"]
    assert [(one["text"].partition(" at ")[0], one["entries"]) for one in facts if "notice" not in one["text"]] == [
        ("Stated: about 400 customers", [11]), ("The authority was told", [13]),
        ("The people concerned were told", [14]),
    ]  # fmt: skip
    (late,) = (one for one in facts if "notice" in one["text"])
    assert late["text"].endswith("came late, for this reason: found late")
    assert "400" not in str(made.summary())
    with pytest.raises(InvalidInput, match="reason"):
        add_statement(incident(), Matter.DATA, " ", entry=15)


def test_an_incident_of_an_earlier_release_can_still_be_changed(tmp_path):
    tables = open_tables("sqlite:a.db", base=tmp_path, create=True)
    before = incident()
    old = msgspec.to_builtins(before)
    del old["tasks"], old["custody"], old["notices"], old["statements"]
    with tables.write() as connection:
        add_incident(connection, before)
        connection.execute(rows.update().values(document=msgspec.json.encode(old)))
    with tables.write() as connection:
        save_incident(connection, load_incident(connection, before.id), busy())
        assert load_incident(connection, before.id) == busy()
        with pytest.raises(Conflict):
            save_incident(connection, before, busy())
    tables.close()
