"""Charts: their sentence, their SVG without a script or an outside address, and their limits."""

import re
import time

import pytest

from stanch.console import charts
from stanch.console.counts import Day
from stanch.errors import ExternalError

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


def test_a_chart_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(charts, "SECONDS", 0.05)
    with pytest.raises(ExternalError, match="too long"):
        charts._RENDERER.render(lambda: time.sleep(0.3) or {}, b"late")
