"""The pages of cases: what they show, to whom, a part at a time, and with every word escaped."""

import json
import shutil

import pytest
from seating import DESCRIBED
from test_api import key_of, with_key

from stanch.console.route import API
from stanch.workspace.verbs_access import add_person


def test_the_list_and_the_case_say_how_far_it_came_and_escape_what_was_said(seated):
    client = seated.browser("ada")
    listed = client.get("/cases").text
    shown = client.get("/cases/theft").text
    for page in (listed, shown):
        assert DESCRIBED not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; a file on a share" in page
    assert ">somebody accused</span>" in listed
    assert ">acquired</span>" in listed
    assert listed.index('href="/cases/waiting"') < listed.index('href="/cases/theft"')  # the newest first
    assert "The suspect was made from the copy sealed to acme. It does not say who did it." in shown
    waiting = client.get("/cases/waiting").text
    assert "stanch trace run waiting --release NAME" in waiting
    assert "accused" not in waiting.partition("<main")[2]


def test_the_list_comes_a_part_at_a_time(seated):
    client = seated.browser("ada")
    first = client.get("/cases?limit=1").text
    assert ("waiting" in first, "theft" in first, 'href="/cases?after=waiting"' in first) == (True, False, True)
    second = client.get("/cases?after=waiting&limit=1").text
    assert "/cases/theft" in second
    assert "Next part" not in second
    assert "/cases/" not in client.get("/cases?after=gone").text.partition("<main")[2]
    assert client.get("/cases?limit=0").status_code == 400


@pytest.mark.parametrize("name", ["none", "%2e%2e", "%2e%2e%2freleases%2fr1", "theft.partial", "THEFT", "x" * 200])
def test_what_is_no_case_is_not_found(seated, name):
    assert seated.browser("ada").get(f"/cases/{name}").status_code == 404


def test_a_legal_reader_sees_cases_and_cannot_open_the_log(seat):
    add_person(seat.workspace, "lea", ("legal_reader",))
    client = seat.browser("lea")
    page = client.get("/cases/theft").text
    assert "acme" in page
    assert "/log/" not in page
    assert client.get("/cases").status_code == 200
    assert client.get("/log").status_code == 403
    assert "/log/" in seat.browser("ines").get("/cases/theft").text


def test_a_program_gets_the_same_and_a_case_that_was_changed_is_not_shown(seat):
    client, cases = seat.browser("ada"), seat.workspace.state / "cases"
    program = with_key(seat, key_of(seat, actions=("case:read",)))
    answer = program.get(f"{API}/cases/theft").json()
    assert (answer["case"]["verdict"], [who["recipient"] for who in answer["accused"]]) == ("accused", ["acme"])
    examination = cases / "theft" / "examination.json"
    fields = json.loads(examination.read_bytes())
    for score in fields["detection"]["scores"]:
        score["accused"] = False
    examination.write_text(json.dumps(fields))
    changed = client.get("/cases/theft")
    assert changed.status_code >= 400
    assert "acme" not in changed.text.partition("<main")[2]
    (cases / "theft" / "case.json").write_text("{}")
    listed = client.get("/cases")
    assert (listed.status_code, "unreadable" in listed.text) == (200, True)
    shutil.rmtree(cases)
    assert "No case was opened" in client.get("/cases").text
