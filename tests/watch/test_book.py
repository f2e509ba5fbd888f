"""The book of alerts, on both databases: one row an alert, whatever arrives, and no step from a stale state."""

from dataclasses import replace

import pytest

from stanch.errors import Conflict, NotFound
from stanch.store import open_tables
from stanch.watch import Alarm, Containment, Severity
from stanch.watch.alert import AlertState, Conclusion, advance, close_alert
from stanch.watch.book import add_suppression, list_alerts, list_suppressions, load_alert, record_alarm, save_alert
from stanch.watch.suppress import DAY_MS, Suppression

ALARM = Alarm(
    "D2", "requests", "p_a", None, 3600, 3700, Severity.MEDIUM, 1.5e300, 0.1 + 0.2, (4, 5), Containment.REVOKE_KEY
)


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request, tmp_path):
    uri = "sqlite:a.db" if request.param == "sqlite" else request.getfixturevalue("postgresql").database()
    opened = open_tables(uri, base=tmp_path, create=True)
    yield opened
    opened.close()


def test_an_alert_comes_back_as_it_was_and_repeats_are_one_row(tables):
    with tables.write() as connection:
        made = record_alarm(connection, ALARM, 10)
        again = record_alarm(connection, replace(ALARM, at=3800), 20)
        record_alarm(connection, replace(ALARM, principal=None, model="m"), 30)
    assert (made.is_news, again.is_news, again.alert.count) == (True, False, 2)
    with tables.read() as connection:
        assert load_alert(connection, made.alert.id) == again.alert
        assert again.alert.threshold == 0.1 + 0.2
        assert [one.count for one in list_alerts(connection)] == [1, 2]
        assert list_alerts(connection, AlertState.CLOSED) == ()
        with pytest.raises(NotFound):
            load_alert(connection, "0" * 32)


def test_a_step_from_what_is_no_longer_so_changes_nothing(tables):
    with tables.write() as connection:
        alert = record_alarm(connection, ALARM, 10).alert
        taken = advance(alert, AlertState.ACKNOWLEDGED, by="p_x", at_ms=11).alert
        save_alert(connection, alert, taken)
    with pytest.raises(Conflict, match="meanwhile"), tables.write() as connection:
        save_alert(connection, alert, close_alert(alert, Conclusion.TRUE, by="p_y", at_ms=12).alert)
    with tables.write() as connection:
        record_alarm(connection, ALARM, 13)
    with pytest.raises(Conflict), tables.write() as connection:
        save_alert(connection, taken, close_alert(taken, Conclusion.TRUE, by="p_y", at_ms=12).alert)
    with tables.read() as connection:
        assert load_alert(connection, alert.id) == replace(taken, count=2)


def test_what_is_suppressed_is_recorded_all_the_same(tables):
    quiet = Suppression(
        id="s1", detector="D2", principal=None, model=None, owner="p_o", reason="a test", created_ms=0,
        expires_ms=DAY_MS,
    )  # fmt: skip
    with tables.write() as connection:
        add_suppression(connection, quiet)
        assert list_suppressions(connection, 0) == (quiet,)
        assert list_suppressions(connection, DAY_MS) == ()
        assert record_alarm(connection, ALARM, 5).alert.state is AlertState.SUPPRESSED
        critical = replace(ALARM, severity=Severity.CRITICAL, principal="p_b")
        assert record_alarm(connection, critical, 5).alert.state is AlertState.OPEN
        late = replace(ALARM, principal="p_c")
        assert record_alarm(connection, late, DAY_MS).alert.state is AlertState.OPEN


@pytest.mark.parametrize("stood", ["quiet", "closed", "taken on", "open"])
@pytest.mark.parametrize("worse", [True, False], ids=["worse", "as before"])
@pytest.mark.parametrize("covered", [True, False], ids=["covered", "not covered"])
def test_an_alarm_that_comes_again_opens_what_was_done_or_gets_worse(tmp_path, stood, worse, covered):
    quiet = Suppression(
        id="s1", detector="D2", principal=None, model=None, owner="p_o", reason="a test", created_ms=0, expires_ms=20
    )
    opened = open_tables("sqlite:a.db", base=tmp_path, create=True)
    with opened.write() as connection:
        if covered or stood == "quiet":
            add_suppression(connection, replace(quiet, expires_ms=100 if covered else 20))
        made = record_alarm(connection, ALARM, 10).alert
        if stood == "closed":
            save_alert(connection, made, close_alert(made, Conclusion.FALSE, by="p_x", at_ms=11).alert)
        if stood == "taken on":
            save_alert(connection, made, advance(made, AlertState.ACKNOWLEDGED, by="p_x", at_ms=11).alert)
        before = load_alert(connection, made.id)
        again = record_alarm(connection, replace(ALARM, severity=Severity.HIGH if worse else ALARM.severity), 30)
    opened.close()
    if not covered and (worse or stood in {"quiet", "closed"}):
        assert (again.is_news, again.event) == (True, "raised-2")
        found = again.alert
        assert (found.state, found.owner, found.conclusion, found.raised_ms, found.escalations) == (
            AlertState.OPEN, "", None, 30, 0,
        )  # fmt: skip
    else:
        assert (again.is_news, again.alert.state, again.alert.owner) == (False, before.state, before.owner)
    assert (again.alert.count, again.alert.severity) == (2, Severity.HIGH if worse else ALARM.severity)
