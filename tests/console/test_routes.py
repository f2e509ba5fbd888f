"""Every route: who may see it and who may not, as the policies say; and what a table without actions does."""

from dataclasses import replace

import life
import pytest
from seating import ADDRESS, post

from stanch.access import default_policies
from stanch.console.route import API, Route, check_routes
from stanch.console.routes import MENU, OPEN, PAGES, ROUTES
from stanch.errors import StanchError
from stanch.ledger import EntryQuery, decode_entry
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_alerts import find_alerts
from stanch.workspace.verbs_incident import find_incidents

PEOPLE = ("nina", *(name for name in life.ROLES if name != "nina"), "olga")
GETS = [route for route in PAGES if route.method == "GET" and route.how == "page"]
POSTS = [route for route in PAGES if route.method == "POST"]
FORMS = {
    "release.approve": {"recipient": "bolt", "approval": "{}"},
    "principals.register": {"name": "bot", "kind": "service"},
    "principal.grant": {"role": "consumer"},
    "principal.issue": {"model": "workspace", "network": "127.0.0.0/8", "action": "log:read"},
    "policies.check": {"text": "x"},
    "policies.activate": {"text": "x"},
    "alert.move": {"to": "acknowledged"},
    "alert.close": {"verdict": "true"},
    "alert.reopen": {"reason": "x"},
    "alerts.suppress": {"detector": "D2", "until": "2999-01-01", "reason": "x"},
    "incidents.open": {"discovered": "2026-01-01"},
    "incident.contain": {"action": "quarantine_model", "target": "sha256:" + "0" * 64},
    "incident.task": {"what": "x", "who": "ada", "due": "2999-01-01"},
    "incident.custody": {"digest": "sha256:" + "0" * 64, "what": "x", "holder": "ada", "since": "2026-01-01"},
    "incident.notify": {"at": "2026-01-01"},
    "incident.join": {"alert": "a"},
    "incident.state": {"matter": "people", "what": "x"},
    "incident.report": {"audience": "customer"},
}


@pytest.fixture(scope="module")
def places(seated):
    """An object that is there for each part of an address that changes."""
    with seated.case.acting("ada") as workspace:
        people = workspace.people
        ada = people.directory.facts_of(people.find("ada"))
        state = ReleaseState.load(workspace.state / "releases" / "r1")
        alerts, incidents = find_alerts(workspace), find_incidents(workspace)
    return {
        "digest": state.facts.digest, "name": "r1", "principals": ada.principal.id, "grant": ada.grants[0].id,
        "key": "nokey", "index": "0", "task": "0", "alerts": alerts[0].id, "incidents": incidents[0].id,
        "case": "theft",
    }  # fmt: skip


def at(route, places):
    """Return an address of a route at which something is."""
    found = places | {"id": places[route.path.split("/")[1]]} if "id" in route.words else places
    return route.path.format(**found)


def may(seated, name, actions):
    """Whether the shipped policies let somebody do one of the actions in the workspace, with a second factor."""
    people = seated.workspace.people
    facts = people.directory.facts_of(people.find(name))
    permits = {
        "case:read": {"incident_lead", "auditor", "legal_reader"},
        "finding:read": {"security_analyst", "incident_lead", "auditor"},
        "finding:act": {"security_analyst", "incident_lead"},
        "log:read": {"security_analyst", "incident_lead", "auditor"}, "policy:read": {"platform_admin", "auditor"},
        "release:approve": {"release_manager"}, "access:grant": {"platform_admin"}, "policy:write": {"platform_admin"},
    }  # fmt: skip
    return any(facts.roles & permits[action] for action in actions)


@pytest.mark.parametrize("name", PEOPLE)
def test_a_page_is_shown_to_whom_the_policies_permit_it(seated, places, name):
    client = seated.browser(name)
    for route in GETS:
        answer = client.get(at(route, places))
        refused = 404 if route.words else 403
        wanted = 200 if not route.actions or may(seated, name, route.actions) else refused
        assert (route.name, answer.status_code) == (route.name, wanted), answer.text[-600:]
        if wanted == 200:
            assert "<h1>" in answer.text


@pytest.mark.parametrize("name", PEOPLE)
def test_the_menu_shows_what_may_be_seen(seated, name):
    page = seated.browser(name).get("/").text
    for path, title, actions in MENU:
        shown = f'<a href="{path}"' in page and f">{title}</a>" in page
        assert shown == (not actions or may(seated, name, actions)), title


@pytest.mark.parametrize("name", [name for name in PEOPLE if name != "olga"])
def test_what_changes_something_is_refused_to_others(seated, places, name):
    client, ledger = seated.browser(name), seated.workspace.ledger.reader()
    for route in POSTS:
        if may(seated, name, route.actions):
            continue
        answer = post(client, at(route, places), route=route.path, **FORMS.get(route.name, {}))
        assert answer.status_code in {403, 404}, (route.name, answer.status_code, answer.text[-400:])
    with seated.workspace.tables.read() as connection:
        ended = connection.exec_driver_sql("SELECT count(*) FROM grant_ WHERE revoked_ms IS NOT NULL").scalar()
        suspended = connection.exec_driver_sql("SELECT count(*) FROM principal WHERE suspended = 1").scalar()
    assert (ended, suspended) == (0, 0)
    assert ledger.size() > 0


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.name)
def test_nobody_sees_nothing(seated, places, route):
    client = seated.client()
    answer = client.request(route.method, at(route, places), headers={"Origin": ADDRESS})
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    if route.for_programs:
        answer = client.request(route.method, API + at(route, places))
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.name)
def test_a_form_needs_the_token_of_its_own_route(seated, places, route):
    client, path = seated.browser("olga"), at(route, places)
    fields, headers = FORMS.get(route.name, {}), {"Origin": ADDRESS}
    wrong = client.desk.csrf.token(client.session.key_id, "POST /elsewhere")
    other = client.desk.csrf.token("bs_other", route.key)
    for token in ("", wrong, other):
        answer = client.post(path, data={"_token": token, **fields}, headers=headers)
        assert answer.status_code == 403 or (route.words and answer.status_code == 404)
    good = client.desk.csrf.token(client.session.key_id, route.key)
    assert client.post(path, data={"_token": good, **fields}).status_code in {403, 404}  # without an origin


@pytest.mark.parametrize("route", [route for route in POSTS if route.dangerous], ids=lambda route: route.name)
def test_a_dangerous_act_needs_a_fresh_sign_in(seated, places, route):
    client = seated.browser("olga", mfa=False)
    now = seated.workspace.door.clock()
    with seated.workspace.tables.write() as connection:
        connection.exec_driver_sql(
            "UPDATE session_ SET auth_ms = ? WHERE credential = ?", (int(now * 1000) - 601_000, client.session.key_id)
        )
    answer = post(client, at(route, places), route=route.path, **FORMS.get(route.name, {}))
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2F&step_up=1")


def test_a_look_and_a_refusal_are_recorded(seat):
    seat.browser("ada").get("/log")
    seat.browser("nina").get("/log")
    reader = seat.workspace.ledger.reader()
    newest = [decode_entry(reader.entry(r.index)) for r in reader.query(EntryQuery(newest_first=True, limit=3))]
    told = [(entry["unmapped"]["stanch"]["phase"], entry["unmapped"]["stanch"]["kind"]) for entry in newest]
    assert told == [("denied", "log.read"), ("outcome", "log.read"), ("intent", "log.read")]
    assert newest[2]["unmapped"]["stanch"]["payload"]["page"] == "log"
    assert newest[2]["unmapped"]["stanch"]["credential"]["kind"] == "browser"


def test_what_is_absent_and_what_is_denied_look_alike(seated, places):
    client = seated.browser("nina")
    there = client.get(f"/models/{places['digest']}")
    absent = client.get("/models/sha256:" + "0" * 64)
    assert there.status_code == absent.status_code == 404
    assert there.text == absent.text


def test_a_route_without_an_action_stops_the_start():
    known = default_policies().actions
    good = Route(name="x", method="GET", path="/x", handler=print, actions=("log:read",))
    check_routes([good], known)
    for bad in (replace(good, actions=()), replace(good, actions=("log:reed",)), replace(good, why_none="no")):
        with pytest.raises(StanchError, match="expected a Cedar action"):
            check_routes([bad], known)
    with pytest.raises(StanchError, match="twice"):
        check_routes([good, good], known)


def test_what_is_open_says_why():
    assert all(route.why_none for route in OPEN)
    assert {route.name for route in ROUTES if not route.actions and route.how != "open"} == {"overview", "access.why"}
