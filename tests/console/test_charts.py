"""Charts: their sentence, their SVG without a script or an outside address, and their limits."""

import re
import time

import pytest
import watching
from sqlalchemy import insert

from stanch.console import charts
from stanch.console.counts import Day
from stanch.errors import ExternalError
from stanch.store.schema.watch import watch_state
from stanch.watch.esr import rate_detector

DAYS = (Day(0, done=3, refused=1), Day(86_400_000), Day(2 * 86_400_000, done=5, failed=1))


def test_the_sentence_says_what_the_chart_shows():
    assert charts.tell_activity(DAYS) == (
        "10 acts in 3 days, most of them (6) on 1970-01-03; 1 were refused and 1 failed."
    )
    assert charts.tell_activity((Day(0),)) == "No act was recorded in 1 days."


def test_a_chart_is_its_own_file_without_anything_active(seated):
    client = seated.browser("ada")
    pictures = [client.get(f"/charts/activity.svg?theme={theme}") for theme in ("light", "dark")]
    for picture in pictures:
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
        assert "<script" not in picture.text
        assert "<style" not in picture.text
        assert not re.search(r"\son\w+=", picture.text)
        assert set(re.findall(r"https?://[^\"' )]+", picture.text)) <= {
            "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
        }  # fmt: skip
    assert pictures[0].text != pictures[1].text
    assert client.get("/charts/activity.svg?theme=blue").status_code == 400
    page = client.get("/").text
    assert '<img src="/charts/activity.svg?theme=light" alt="' in page
    assert "As a table" in page


def test_a_principal_is_shown_beside_what_is_usual_of_it(seat):
    workspace, client, ada = seat.workspace, seat.browser("ada"), seat.workspace.people.find("ada")
    page = f"/principals/{ada}"
    assert "There is no baseline yet" in client.get(page).text
    now_ms = int(workspace.door.clock() * 1000)
    hour = now_ms // 3_600_000
    rows = [(at, who) for at in range(hour - 240, hour + 1) for who in (ada, "p_other") for _ in range(4)]
    events = [event for at, who in rows for event in watching.request(0, at * 3600, who)]
    state, _ = rate_detector().step(b"", events)
    with workspace.tables.write() as connection:
        values = {"origin": workspace.ledger.origin, "detector": "D2", "next_idx": 1, "state": state}
        connection.execute(insert(watch_state).values(**values))
    for number in range(40):
        for entry in watching.infer_entries(number, now_ms // 1000, principal=ada):
            workspace.ledger.append(entry)
    text = client.get(page).text
    assert "40 requests to models in a week, where " in text
    assert "; 1 of 168 hours lie above the band of what is usual." in text
    assert text.count(">above<") == 1
    pictures = [client.get(f"{page}/rate.svg?theme={theme}") for theme in ("light", "dark")]
    assert [picture.headers["content-type"] for picture in pictures] == ["image/svg+xml"] * 2
    assert "<script" not in pictures[0].text
    assert pictures[0].text != pictures[1].text
    assert client.get("/principals/p_nobody/rate.svg").status_code == 404
    assert seat.browser("nina").get(f"{page}/rate.svg").status_code == 404


def test_a_chart_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(charts, "SECONDS", 0.05)
    with pytest.raises(ExternalError, match="too long"):
        charts._RENDERER.render(lambda: time.sleep(0.3) or {}, b"late")
