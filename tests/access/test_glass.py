"""Break-glass: the order of alarm and rights, their end, and their review; and sessions of browsers."""

import dataclasses
import re
from contextlib import contextmanager

import pytest

from stanch.access import Glasses
from stanch.access.sessions import Sessions
from stanch.errors import InvalidInput, NotAuthenticated, NotFound, SeparationOfDuties, StoreError
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


def test_another_reviews_within_three_days(people, glasses, anna):
    glass, ben = break_it(glasses, anna), people.add("ben")
    with pytest.raises(InvalidInput, match="still open"):
        glasses.review(glass.id, by=ben)
    people.clock.seconds += HOUR
    with pytest.raises(SeparationOfDuties):
        glasses.review(glass.id, by=anna)
    assert glasses.unreviewed() == (glass,)
    due = int(glass.from_ms + 72 * HOUR * 1000)
    assert (glass.overdue(due - 1), glass.overdue(due)) == (False, True)
    assert glasses.review(glass.id, by=ben).reviewed_by == ben
    assert glasses.unreviewed() == ()
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
    people.clock.seconds += 600
    assert not sessions.resume(one.cookie).mfa
    with pytest.raises(NotAuthenticated):
        sessions.step_up(one.cookie, people.sign_in(anna))
    with pytest.raises(NotAuthenticated):
        sessions.step_up(one.cookie, people.sign_in(people.add("ben"), mfa=True))
    assert sessions.step_up(one.cookie, people.sign_in(anna, mfa=True)).mfa
    assert sessions.resume(one.cookie).mfa


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


@pytest.mark.parametrize(
    ("ago", "since"), [(0, 0), (599, 599), (600, 600), (8 * HOUR, 8 * HOUR), (None, "never"), (-30, 0), (-61, "never")]
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
