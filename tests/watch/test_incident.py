"""Incidents: the clock of 72 hours, its reminders, and what is kept of one."""

import contextlib

import pytest

from stanch.errors import Conflict, InvalidInput, NotFound
from stanch.store import open_tables
from stanch.watch import Containment
from stanch.watch.incident import (
    HOUR_MS,
    IncidentState,
    Notice,
    Told,
    close_incident,
    contain,
    extend,
    new_incident,
    notify,
    reminders_due,
    waive_notice,
)
from stanch.watch.incident_book import add_incident, list_incidents, load_incident, save_incident

NOW = 1_000 * HOUR_MS


def incident(hours_ago=0):
    return new_incident(NOW - hours_ago * HOUR_MS, by="p_x", at_ms=NOW, rng=bytes)


def notice(at_ms=NOW, to=Told.AUTHORITY, what="", entry=3):
    return Notice(entry=entry, to=to, at_ms=at_ms, what=what)


def test_the_clock_starts_at_the_discovery_and_not_when_it_was_typed():
    made = incident(hours_ago=30)
    assert (made.discovered_ms, made.opened_ms) == (NOW - 30 * HOUR_MS, NOW)
    assert made.deadline_ms == NOW + 42 * HOUR_MS
    for future in (NOW + 1, -1):
        with pytest.raises(InvalidInput, match="future"):
            new_incident(future, by="p_x", at_ms=NOW)


@pytest.mark.parametrize(
    ("hours", "reminded", "due"),
    [(23, 0, ()), (24, 0, (24,)), (47, 1, ()), (48, 1, (48,)), (66, 0, (24, 48, 66)), (66, 2, (66,)), (500, 3, ())],
)
def test_reminders(hours, reminded, due):
    from msgspec.structs import replace  # noqa: PLC0415 - used here alone

    made = replace(incident(), reminded=reminded)
    assert reminders_due(made, NOW + hours * HOUR_MS) == due
    assert reminders_due(notify(made, notice(), NOW), NOW + hours * HOUR_MS) == ()
    assert reminders_due(waive_notice(made, "no risk to anybody"), NOW + hours * HOUR_MS) == ()


def test_an_incident_is_closed_only_with_a_notice_or_a_reason_for_none():
    with pytest.raises(InvalidInput, match="nobody was notified"):
        close_incident(incident())
    assert close_incident(waive_notice(incident(), "encrypted")).state is IncidentState.CLOSED
    closed = close_incident(notify(incident(), notice(), NOW))
    steps = (
        close_incident,
        lambda one: extend(one, entries=[1]),
        lambda one: notify(one, notice(), NOW),
        lambda one: contain(one, Containment.REVOKE_KEY, "k", 1),
        lambda one: waive_notice(one, "x"),
    )
    for step in steps:
        with pytest.raises(InvalidInput, match="closed"):
            step(closed)


def test_a_notice_lies_between_discovery_and_now_and_the_first_stops_the_clock():
    for wrong in (NOW - HOUR_MS - 1, NOW + 1):
        with pytest.raises(InvalidInput, match="before the discovery or in the future"):
            notify(incident(1), notice(wrong), NOW)
    told = notify(incident(1), notice(NOW - HOUR_MS), NOW)
    assert (told.state, told.ticking) == (IncidentState.NOTIFIED, False)
    more = notify(told, notice(NOW), NOW)
    assert (more.notified_ms, [one.at_ms for one in more.notices]) == (NOW - HOUR_MS, [NOW - HOUR_MS, NOW])
    with pytest.raises(InvalidInput, match="settled"):
        waive_notice(told, "x")
    with pytest.raises(InvalidInput, match="reason"):
        waive_notice(incident(), "  ")


def test_a_late_notice_gives_its_reason_and_no_other_does():
    assert notify(incident(72), notice(), NOW).notices[0].what == ""
    with pytest.raises(InvalidInput, match="later than 72 hours after the discovery, without a reason"):
        notify(incident(73), notice(), NOW)
    late = notify(incident(73), notice(what=" the bucket's owner was away "), NOW)
    assert (late.notified_ms, late.notices[0].what) == (NOW, "the bucket's owner was away")
    assert notify(late, notice(), NOW).notices[1].what == ""
    for made, wrong in ((incident(72), notice(what="x")), (incident(90), notice(what="x", to=Told.PEOPLE))):
        with pytest.raises(InvalidInput, match="for a late one only"):
            notify(made, wrong, NOW)


def test_telling_the_people_concerned_leaves_the_clock_of_the_authority():
    told = notify(incident(90), notice(to=Told.PEOPLE), NOW)
    assert (told.state, told.ticking, told.notified_ms) == (IncidentState.OPEN, True, None)
    assert [one.to for one in told.notices] == [Told.PEOPLE]


def test_the_timeline_holds_each_entry_once_in_order():
    made = contain(extend(incident(), entries=[9, 4], alerts=["a", "a"]), Containment.QUARANTINE_MODEL, "m", 7)
    assert (made.entries, made.alerts, made.state) == ((4, 7, 9), ("a",), IncidentState.CONTAINED)
    assert contain(notify(made, notice(), NOW), Containment.REVOKE_KEY, "k", 7).state is IncidentState.NOTIFIED


def test_what_others_are_told_holds_no_words_of_a_person():
    assert "kept by us" not in str(waive_notice(incident(), "kept by us").summary())
    assert "kept by us" not in str(notify(incident(80), notice(what="kept by us"), NOW).summary())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_incident_comes_back_as_it_was(kind, request, tmp_path):
    uri = "sqlite:a.db" if kind == "sqlite" else request.getfixturevalue("postgresql").database()
    with contextlib.closing(open_tables(uri, base=tmp_path, create=True)) as tables:
        made = incident()
        after = contain(made, Containment.LOWER_BUDGET, "p_a", 3)
        with tables.write() as connection:
            add_incident(connection, made)
            save_incident(connection, made, after)
            with pytest.raises(Conflict):
                save_incident(connection, made, made)
            with pytest.raises(NotFound):
                load_incident(connection, "i_x")
        with tables.read() as connection:
            assert load_incident(connection, made.id) == after
            assert list_incidents(connection) == (after,)
