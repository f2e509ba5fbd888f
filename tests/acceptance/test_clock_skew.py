"""What happens on a machine whose clock is a day wrong, or a month?

Keys, grants and releases end by the clock of whoever looks. The log's order is by its indexes and by no clock.
"""

import pytest
from scene import change, done, get, open_as, team, verify_log

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]


def test_the_clock_is_a_day_behind(here, later):
    """Keys are not valid yet. Those of people who were here for long are: then the log refuses, and no act happens."""
    refused = later.team(-1, "ines", "--json log show")
    assert (refused.code, refused.slug) == (3, "not-authenticated"), refused
    for table in ("credential", "grant_"):
        change(f"UPDATE {table} SET not_before_ms = 1")  # noqa: S608 - own words
    for name, line in (("ines", "log show"), ("dana", "data split material/train.jsonl --members m --held-out h")):
        refused = later.team(-1, name, line)
        assert (refused.code, "s before the last recorded one" in refused.err) == (4, True), refused
        assert "next:  set the clock of this machine" in refused.err
    assert not (here / "m").exists()
    assert done(verify_log()).data["intents_open"] == 0


def test_the_clock_is_a_day_ahead_and_then_right_again(later):
    """What it wrote stays, and verifies. The log then waits until the true time has come, and says how long."""
    done(later.team(1, "ines", "log show"))
    assert verify_log().code == 0
    refused = team("ines", "log show")
    assert (refused.code, "next:  set the clock of this machine" in refused.err) == (4, True), refused
    seconds = int(refused.err.split("its time is ")[1].split(" s ")[0])
    assert 86_000 < seconds <= 86_400
    done(later.team(1, "ines", "log show"))
    times = [e["event"]["time"] for e in done(later.team(1, "ada", "--json log query --kind log.read")).data["entries"]]
    assert times == sorted(times)
    found = done(team("olga", "--json log recover")).data
    assert 86_000_000 < found["ahead_ms"] <= 86_400_000
    done(team("ines", "log show"))
    assert verify_log().code == 0


def test_the_clock_is_a_month_ahead(later):
    """Roles have ended there, early: the wrong clock takes rights away and gives none."""
    for name, line, why in (
        ("dana", "data manifest material/train.jsonl", "no role that it holds permits this"),
        ("rita", "release deliver acme.sealed file:store", "forbidden by two-people"),  # nor do approvals count there
    ):
        refused = later.team(31, name, line)
        assert (refused.code, why in refused.err) == (3, True), refused


def test_the_recipients_clock(later):
    """The limit: the end of a release binds who has the true time. A clock turned back opens what has ended."""
    get("acme")
    line = "--json release open got --identity acme.key --trust pub.pem"
    for days in (-1, 1, 89):
        done(later(days, line))
    refused = later(91, line)
    assert (refused.code, refused.slug) == (3, "grant-expired"), refused
    done(open_as("acme"))
