"""Break-glass: the order of alarm and rights, their end, and their review; and sessions of browsers."""

import dataclasses
import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode
from contextlib import contextmanager

import pytest

from stanch.access import Glasses
from stanch.access.glass import Glass, GlassAlarm, take_alarm
from stanch.access.revision import read_revision
from stanch.access.sessions import Sessions
from stanch.crypto import frame
from stanch.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, SeparationOfDuties, StoreError
from stanch.store import Tables

HOUR = 3600


@pytest.fixture
def glasses(people):
    return Glasses(people.tables, clock=people.clock)


@pytest.fixture
def anna(people):
    return people.add("anna")


def break_it(glasses, principal, minutes=15):
    return glasses.open_glass(principal, act="act-1", reason_commitment="c", minutes=minutes)


def alarms(people):
    with people.tables.read() as connection:
        rows = connection.exec_driver_sql("SELECT id, kind, severity, principal, act, taken_ms FROM alarm_outbox")
        return [tuple(row) for row in rows]


def test_rights_last_for_their_minutes_and_leave_an_alarm(people, glasses, anna):
    glass = break_it(glasses, anna)
    assert glasses.open_of(anna) == glass
    assert alarms(people) == [(glass.id, "access.break-glass", 5, anna, "act-1", None)]
    people.clock.seconds += 15 * 60 - 0.001
    assert glasses.open_of(anna) == glass
    people.clock.seconds += 0.001
    assert glasses.open_of(anna) is None


def test_what_the_alarm_and_the_rights_say(people, glasses, anna):
    before = revision(people)
    glass = break_it(glasses, anna)
    start = people.now_ms
    assert re.fullmatch("gl_[a-z2-7]{16}", glass.id)
    until, due = start + 15 * 60_000, start + 72 * HOUR * 1000
    assert glass == Glass(glass.id, anna, "act-1", "c", start, until, due, None, None)
    assert glasses.untold() == (GlassAlarm(glass.id, anna, "act-1", start),)
    with people.tables.read() as connection:
        payload = connection.exec_driver_sql("SELECT payload FROM alarm_outbox").scalar()
    assert json.loads(payload) == {"glass": glass.id, "until_ms": until, "review_due_ms": due}
    assert payload == json.dumps(json.loads(payload), sort_keys=True)
    assert revision(people) == before + 1


def revision(people):
    with people.tables.read() as connection:
        return read_revision(connection).facts


def test_an_alarm_is_taken_once(people, glasses, anna):
    first = break_it(glasses, anna)
    people.clock.seconds += 1
    second = break_it(glasses, people.add("ben"))
    alarm, waiting = glasses.untold()
    assert [alarm.glass, waiting.glass] == [first.id, second.id]
    with people.tables.write() as connection:
        take_alarm(connection, alarm, people.now_ms)
    assert glasses.untold() == (waiting,)
    assert [row[-1] for row in sorted(alarms(people), key=lambda row: row[0] == second.id)] == [people.now_ms, None]
    with pytest.raises(Conflict, match="taken already"), people.tables.write() as connection:
        take_alarm(connection, alarm, people.now_ms)


def test_whose_rights_are_open_now(people, glasses, anna):
    ben = people.add("ben")
    one, two = break_it(glasses, anna, 1), break_it(glasses, ben, 2)
    assert glasses.open_now() == {anna: one.id, ben: two.id}
    people.clock.seconds += 60
    assert glasses.open_now() == {ben: two.id}
    people.clock.seconds -= 60.001
    assert glasses.open_now() == {}
    assert glasses.open_of(anna) is None


@pytest.mark.parametrize(("change", "is_open"), [("until_ms + 1", False), ("until_ms", True)])
def test_a_row_that_lasts_longer_than_an_hour_opens_nothing(people, glasses, anna, change, is_open):
    break_it(glasses, anna, 60)
    with people.tables.write() as connection:
        connection.exec_driver_sql(f"UPDATE glass SET until_ms = {change}")  # noqa: S608 - of this file
    assert (glasses.open_of(anna) is not None) is is_open
    assert bool(glasses.open_now()) is is_open


def test_of_two_that_are_open_the_one_that_lasts_longer_counts(people, glasses, anna):
    break_it(glasses, anna, 10)
    with people.tables.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO glass SELECT 'gl_0', principal, act, reason_commitment, from_ms, until_ms + 1, review_due_ms,"
            " reviewed_by, reviewed_ms FROM glass"
        )
    assert glasses.open_of(anna).id == "gl_0"
    assert glasses.open_now() == {anna: "gl_0"}


@pytest.mark.parametrize("failing", [0, 1])
def test_there_are_no_rights_without_an_alarm(people, glasses, anna, monkeypatch, failing):
    original, turns = Tables.write, []

    @contextmanager
    def write(self):
        turns.append(1)
        with original(self) as connection:
            yield connection
            if len(turns) - 1 == failing:
                raise StoreError("the disk is full")

    monkeypatch.setattr(Tables, "write", write)
    with pytest.raises(StoreError):
        break_it(glasses, anna)
    monkeypatch.undo()
    assert glasses.open_of(anna) is None
    assert len(alarms(people)) == failing


@pytest.mark.parametrize("minutes", [0, -1, 61])
def test_at_most_an_hour(glasses, anna, minutes):
    with pytest.raises(InvalidInput):
        break_it(glasses, anna, minutes)
    break_it(glasses, anna, 60)


def test_one_at_a_time(glasses, anna, people):
    break_it(glasses, anna)
    with pytest.raises(InvalidInput, match="open already"):
        break_it(glasses, anna)
    break_it(glasses, people.add("ben"))


def test_a_review_may_come_at_the_moment_that_the_rights_end(people, glasses, anna):
    glass = break_it(glasses, anna)
    people.clock.seconds += 15 * 60
    assert glasses.review(glass.id, by=people.add("ben")).reviewed_ms == glass.until_ms


def test_another_reviews_within_three_days(people, glasses, anna):
    glass, ben = break_it(glasses, anna), people.add("ben")
    with pytest.raises(InvalidInput, match="still open"):
        glasses.review(glass.id, by=ben)
    people.clock.seconds += 15 * 60 - 0.001
    with pytest.raises(InvalidInput, match="still open"):
        glasses.review(glass.id, by=ben)
    people.clock.seconds += 0.001
    with pytest.raises(SeparationOfDuties):
        glasses.review(glass.id, by=anna)
    assert glasses.unreviewed() == (glass,)
    due = int(glass.from_ms + 72 * HOUR * 1000)
    assert (glass.overdue(due - 1), glass.overdue(due)) == (False, True)
    people.clock.seconds += 1
    later = break_it(glasses, anna)
    assert glasses.unreviewed() == (glass, later)  # the most urgent first
    done = dataclasses.replace(glass, reviewed_by=ben, reviewed_ms=people.now_ms)
    assert glasses.review(glass.id, by=ben) == done
    assert not done.overdue(due)
    assert glasses.unreviewed() == (later,)
    for name in (glass.id, "gl_nothing"):
        with pytest.raises(NotFound):
            glasses.review(name, by=ben)


@pytest.fixture
def sessions(people):
    return Sessions(people.tables, bytes(range(32)), clock=people.clock)


def opened(people, sessions, principal, **options):
    return sessions.open_session(people.sign_in(principal, **options))


def gone(sessions, cookie):
    with pytest.raises(NotAuthenticated) as caught:
        sessions.resume(cookie)
    return str(caught.value)


def test_a_session_ends_when_idle_and_in_any_case(people, sessions, anna):
    first, second = opened(people, sessions, anna), opened(people, sessions, anna)
    for _ in range(16):
        people.clock.seconds += 30 * 60 - 1
        if people.clock.seconds < 1_767_225_600 + 8 * HOUR:
            sessions.resume(first.cookie)
    people.clock.seconds = 1_767_225_600 + 8 * HOUR
    assert {gone(sessions, first.cookie), gone(sessions, second.cookie)} == {"not authenticated"}


def test_half_an_hour_without_use_is_the_end(people, sessions, anna):
    one = opened(people, sessions, anna)
    people.clock.seconds += 30 * 60 - 0.001
    sessions.resume(one.cookie)
    people.clock.seconds += 30 * 60
    gone(sessions, one.cookie)


def test_a_second_factor_counts_for_ten_minutes(people, sessions, anna):
    one = opened(people, sessions, anna, mfa=True)
    assert sessions.resume(one.cookie).mfa
    people.clock.seconds += 599.999
    assert sessions.resume(one.cookie).mfa
    people.clock.seconds += 0.001
    assert not sessions.resume(one.cookie).mfa
    with pytest.raises(NotAuthenticated):
        sessions.step_up(one.cookie, people.sign_in(anna))
    with pytest.raises(NotAuthenticated):
        sessions.step_up(one.cookie, people.sign_in(people.add("ben"), mfa=True))
    assert sessions.step_up(one.cookie, people.sign_in(anna, mfa=True)).mfa
    assert sessions.resume(one.cookie).mfa
    other = opened(people, sessions, anna)
    assert not sessions.resume(other.cookie).mfa
    with pytest.raises(NotAuthenticated):
        sessions.step_up("A" * 43, people.sign_in(anna, mfa=True))


def test_a_second_factor_shown_later_than_now_does_not_count(people, sessions, anna):
    one = opened(people, sessions, anna, mfa=True)
    people.clock.seconds -= 0.001
    assert not sessions.resume(one.cookie).mfa
    people.clock.seconds += 600
    assert sessions.resume(one.cookie).mfa


def test_a_session_says_whose_it_is_and_until_when(people, sessions, anna):
    one = opened(people, sessions, anna)
    assert (one.session.principal, one.session.kind, one.session.mfa) == (anna, "browser", False)
    assert re.fullmatch("bs_[0-9a-f]{20}", one.session.key_id)
    assert one.session.expires_ms - one.session.started_ms == 8 * HOUR * 1000
    people.clock.seconds += 60
    assert sessions.resume(one.cookie) == one.session
    assert len(one.cookie) == 43
    assert one.cookie not in repr(one)
    short = Sessions(people.tables, bytes(32), minutes=5, clock=people.clock).open_session(people.sign_in(anna))
    assert short.session.expires_ms - short.session.started_ms == 5 * 60_000


def test_the_table_holds_no_cookie(people, sessions, anna):
    one = opened(people, sessions, anna)
    with people.tables.read() as connection:
        row = connection.exec_driver_sql("SELECT mac, credential FROM session_").one()
    assert one.cookie not in str(tuple(row)) + repr(one)
    parts = frame(b"stanch/access/v1/session-id", urlsafe_b64decode(one.cookie + "="))
    assert row.mac == hmac.digest(bytes(range(32)), parts, hashlib.sha256).hex()
    gone(sessions, row.mac)
    gone(Sessions(people.tables, bytes(32), clock=people.clock), one.cookie)


@pytest.mark.parametrize(
    "change", [lambda _: "", lambda c: c[:-1], lambda c: c + "=", lambda c: c + "A", lambda _: "ä"]
)
def test_what_is_no_cookie(people, sessions, anna, change):
    gone(sessions, change(opened(people, sessions, anna).cookie))


def test_ending_a_session_ends_its_facts(people, sessions, anna):
    one, two = opened(people, sessions, anna), opened(people, sessions, anna)
    people.directory.facts(one.session)
    sessions.end(one.cookie)
    gone(sessions, one.cookie)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(one.session)
    sessions.end(two.cookie)
    gone(sessions, two.cookie)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(dataclasses.replace(two.session, principal=people.add("ben")))
    sessions.end(one.cookie)  # ending one that is gone does nothing
    with people.tables.read() as connection:
        ended = connection.exec_driver_sql("SELECT ended_ms FROM session_ WHERE credential = ?", (one.session.key_id,))
        assert ended.scalar() == people.now_ms


def test_the_facts_of_a_browser_are_its_sessions_own(people, sessions, anna):
    one = opened(people, sessions, anna)
    people.clock.seconds += 1
    sessions.end(opened(people, sessions, anna).cookie)
    assert people.directory.facts(one.session).principal.id == anna
    for session in (dataclasses.replace(one.session, key_id="bs_"), dataclasses.replace(one.session, principal="p_x")):
        with pytest.raises(NotAuthenticated):
            people.directory.facts(session)
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE session_ SET expires_ms = ?", (people.now_ms,))
    with pytest.raises(NotAuthenticated):
        people.directory.facts(one.session)
    gone(sessions, one.cookie)


@pytest.mark.parametrize(
    ("ago", "since"), [(0, 0), (599, 599), (600, 600), (8 * HOUR, 8 * HOUR), (None, "never"), (-60, 0), (-61, "never")]
)
def test_what_was_proven_elsewhere_is_as_old_as_it_says(people, sessions, anna, ago, since):
    """An issuer that knows the person from this morning asks for nothing: its token says when it did."""
    now = int(people.clock.seconds * 1000)
    auth_ms = 0 if ago is None else now - ago * 1000
    one = sessions.open_session(people.sign_in(anna, mfa=True), auth_ms)
    assert one.session.started_ms == (0 if since == "never" else now - since * 1000)
    assert one.session.mfa is (since != "never" and since < 600)
    assert sessions.resume(one.cookie) == one.session
    assert one.session.expires_ms == now + 8 * HOUR * 1000
