"""Alerts, incidents and detectors on pages and over the API: what people do is done, and what is hostile stays text."""

import asyncio
import io
import json
import re
import zipfile

import life
import msgspec
import pytest
from seating import alarm, post
from sqlalchemy import insert
from test_acts import HOSTILE, Asked, call_of
from test_api import key_of, with_key

from stanch.console import live
from stanch.console.route import API
from stanch.ledger import verify_proof
from stanch.store.schema.watch import watch_state
from stanch.watch import Severity
from stanch.watch.alert import AlertState
from stanch.watch.firstseen import ScoredDay, _Saved
from stanch.watch.simulate import SimulationSpec, simulate
from stanch.workspace.verbs_alerts import find_alerts, keep_simulation, raise_alarms
from stanch.workspace.verbs_incident import find_incidents

STEPS, VERDICT, AGAIN = (f"/alerts/{{id}}/{word}" for word in ("steps", "verdict", "reopening"))


def standing(seat, state):
    """Return an alert that stands so."""
    return next(
        one
        for one in find_alerts(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
        if one.state is state
    )


def step(client, key, route, **fields):
    return post(client, route.replace("{id}", key), route=route, **fields)


def test_an_alert_is_taken_on_closed_and_opened_again(seat):
    client, key = seat.browser("ines"), standing(seat, AlertState.OPEN).id
    assert "Take it on" in client.get(f"/alerts/{key}").text
    assert step(client, key, STEPS, to="acknowledged").headers["location"] == f"/alerts/{key}?done=moved"
    page = client.get(f"/alerts/{key}").text
    assert "Take it on" not in page
    assert "Investigate" in page
    assert step(client, key, STEPS, to="acknowledged").status_code == 400  # states go forward only
    assert step(client, key, STEPS, to="closed").status_code == 400  # its own route, which needs a fresh sign-in
    assert step(client, key, VERDICT, verdict="benign").status_code == 303
    page = client.get(f"/alerts/{key}").text
    assert "real and allowed" in page
    assert "watch.alert.state" in page
    assert step(client, key, AGAIN, reason=" ").status_code == 400
    assert step(client, key, AGAIN, reason="it came back").status_code == 303
    assert next(
        one
        for one in find_alerts(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
        if one.id == key
    ).waiting


@pytest.mark.parametrize("key", ["0" * 32, "x", "..%2f..", "A" * 32])
def test_no_such_alert_and_no_such_incident(seated, key):
    client = seated.browser("ines")
    assert client.get(f"/alerts/{key}").status_code == 404
    assert client.get(f"/incidents/{key}").status_code == 404
    assert post(client, f"/alerts/{key}/steps", route=STEPS, to="acknowledged").status_code == 404


def test_whoever_may_only_look_is_offered_nothing(seated):
    client, key = seated.browser("ada"), standing(seated, AlertState.OPEN).id
    assert "<form" not in client.get(f"/alerts/{key}").text.partition("<main")[2]
    assert 'action="/suppressions"' not in client.get("/alerts").text


def test_alarms_are_kept_quiet_for_a_while(seat):
    client = seat.browser("ines")
    fields = {"detector": "D5", "principal": "dana", "reason": "a load test"}
    for until in ("2999-01-01", "2026-13-01", "x", "2020-01-01"):
        assert post(client, "/suppressions", until=until, **fields).status_code == 400
    until = f"{seat.workspace.now():%Y-%m-%dT23:59}"
    assert post(client, "/suppressions", until=until, **fields | {"detector": "delivery"}).status_code == 400
    assert post(client, "/suppressions", until=until, **fields).headers["location"] == "/alerts?done=suppressed"
    page = client.get("/alerts").text
    assert "a load test" in page
    quiet = alarm(9, detector="D5", principal=seat.workspace.people.find("dana"))
    assert raise_alarms(seat.workspace, [quiet])[0].state is AlertState.SUPPRESSED


def test_the_list_of_alerts_comes_in_parts_and_by_state(seated):
    reader = with_key(seated, key_of(seated, actions=("finding:read",), name="watcher"))
    whole = [one["id"] for one in reader.get(f"{API}/alerts").json()["alerts"]]
    assert len(whole) == 5
    parts, after = [], ""
    while not parts or after:
        page = reader.get(f"{API}/alerts", params={"limit": 2, **({"after": after} if after else {})}).json()
        parts += [one["id"] for one in page["alerts"]]
        after = page["next"]
    assert parts == whole
    assert {one["state"] for one in reader.get(f"{API}/alerts?state=open").json()["alerts"]} == {"open"}
    assert reader.get(f"{API}/alerts?state=nonsense").status_code == 400
    assert reader.post(f"{API}/alerts/{whole[0]}/steps", json={"to": "acknowledged"}).status_code == 404  # only reads


def test_an_incident_from_its_discovery_to_its_end(seat):
    client, key = seat.browser("ines"), standing(seat, AlertState.INVESTIGATING).id
    model = standing(seat, AlertState.INVESTIGATING).model
    assert post(client, "/incidents", discovered="2999-01-01T00:00").status_code == 400
    opened = post(client, "/incidents", discovered=f"{seat.workspace.now():%Y-%m-%dT00:00}", alert=key)
    path = opened.headers["location"].partition("?")[0]
    assert re.fullmatch(r"/incidents/i_[0-9a-f]{32}", path)
    shown = client.get(path).text
    assert "hours left" in shown
    # An incident lead may not revoke a key: the page does not offer it, and says who may.
    (choice,) = re.findall(r'<select id="action".*?</select>', shown)
    assert re.findall(r'<option value="([a-z_]+)">', choice) == ["quarantine_model", "lower_budget"]
    assert "stanch access key revoke" in shown
    act = {"route": "/incidents/{id}/containment", "action": "quarantine_model"}
    assert post(client, f"{path}/containment", target="sha256:x", **act).status_code == 400
    assert post(client, f"{path}/containment", target=model, **act).status_code == 303
    assert "in quarantine" in client.get(f"/models/{model}").text
    assert post(client, f"{path}/containment", **act | {"action": "revoke_key"}, target="k").status_code == 404
    assert post(client, f"{path}/end", route="/incidents/{id}/end").status_code == 400  # nobody was told
    now = f"{seat.workspace.now():%Y-%m-%dT%H:%M:%S}"
    assert post(client, f"{path}/notice", route="/incidents/{id}/notice", at=now).status_code == 303
    assert "The authority was told" in client.get(path).text
    told = {"route": "/incidents/{id}/notice", "at": now}
    assert post(client, f"{path}/notice", late_because="in time", **told).status_code == 400
    assert post(client, f"{path}/notice", to="people", **told).status_code == 303
    assert "The people concerned were told" in client.get(path).text
    state = {"route": "/incidents/{id}/statements", "matter": "people"}
    assert post(client, f"{path}/statements", what=HOSTILE, **state).status_code == 303
    assert post(client, f"{path}/statements", what="x", **state | {"matter": "delay"}).status_code == 400
    page = client.get(path).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    join = {"route": "/incidents/{id}/alerts"}
    assert post(client, f"{path}/alerts", alert="a_x", **join).status_code == 404
    assert post(client, f"{path}/alerts", alert=key, **join).headers["location"] == f"{path}?done=joined"
    assert post(client, f"{path}/end", route="/incidents/{id}/end").status_code == 303
    page = client.get(path).text
    assert f'action="{path}/containment"' not in page
    assert "quarantine_model" in page


def test_tasks_and_custody_are_given_shown_and_exported(seat):
    client, (incident,) = (
        seat.browser("ines"),
        find_incidents(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))),
    )
    path, now = f"/incidents/{incident.id}", f"{seat.workspace.now():%Y-%m-%dT%H:%M:%S}"

    def send(word, **fields):
        return post(client, f"{path}/{word}", route=f"/incidents/{{id}}/{word}", **fields).status_code

    assert send("tasks", what=HOSTILE, who="ada", due="2020-01-01") == 400  # before the discovery
    assert send("tasks", what=HOSTILE, who="nobody", due=now) == 400
    assert send("tasks", what=HOSTILE, who="ada", due=now) == 303
    digest = "sha256:" + "7" * 64
    assert send("custody", digest="x", what="the disk", holder="ada", since=now) == 400
    assert send("custody", digest=digest, what=HOSTILE, holder="ada", since=now) == 303
    assert send("custody", digest=digest, what="the disk", holder="ines", since="2020-01-01") == 400  # backwards
    assert send("custody", digest=digest, what="the disk", holder="ines", since=now) == 303
    (found,) = find_incidents(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
    task = found.tasks[0].entry
    page = client.get(path).text
    assert f'action="{path}/tasks/{task}/end"' in page
    assert page.count(' <span class="badge good">now</span>') == 1
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    end = {"route": "/incidents/{id}/tasks/{task}/end"}
    for wrong in ("0", "x", "9" * 30):
        assert post(client, f"{path}/tasks/{wrong}/end", **end).status_code == 404
    assert post(client, f"{path}/tasks/{task}/end", **end).headers["location"] == f"{path}?done=finished"
    assert post(client, f"{path}/tasks/{task}/end", **end).status_code == 400
    (found,) = find_incidents(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
    acts = {task, found.tasks[0].done_entry, *(one.entry for one in found.custody)}
    page = client.get(path).text
    assert f'action="{path}/tasks' not in page.replace(f'action="{path}/tasks"', "")
    assert all(f'<th scope="row"><a href="/log/{entry}">{entry}</a>' in page for entry in acts)  # the timeline
    answer = post(client, f"{path}/export", route="/incidents/{id}/export").content
    told = json.loads(zipfile.ZipFile(io.BytesIO(answer)).read(f"{incident.id}/incident.json"))
    assert acts <= {row["index"] for row in told["timeline"]}
    ada, ines = (seat.workspace.people.find(name) for name in ("ada", "ines"))
    assert [one["holder"] for one in told["incident"]["custody"]] == [ada, ines]
    named = {entry for one in told["facts"] for entry in one["entries"]}
    assert acts <= named
    words = [seat.workspace.ledger.reader().entry(entry) for entry in acts]
    assert not any(b"disk" in data or b"alert(1)" in data for data in words)  # a commitment stands there


def test_a_budget_is_lowered_to_what_was_typed(seat):
    client, (incident,) = (
        seat.browser("ines"),
        find_incidents(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))),
    )
    fields = {"action": "lower_budget", "target": "dana", "model": incident.artifacts[0], "requests": "3"}
    path = f"/incidents/{incident.id}/containment"
    assert post(client, path, route="/incidents/{id}/containment", **fields | {"requests": "-1"}).status_code == 400
    assert post(client, path, route="/incidents/{id}/containment", **fields).status_code == 303
    with seat.workspace.tables.read() as connection:
        row = connection.exec_driver_sql("SELECT requests_per_minute, tokens_per_day FROM budget_lowered").one()
    assert tuple(row) == (3, 0)


def test_an_export_is_checked_against_the_log(seat):
    client, (incident,) = (
        seat.browser("ada"),
        find_incidents(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines"))),
    )
    answer = post(client, f"/incidents/{incident.id}/export", route="/incidents/{id}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="{incident.id}.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    told = json.loads(archive.read(f"{incident.id}/incident.json"))
    assert [row["index"] for row in told["timeline"]] == list(incident.entries)
    reader, policy = seat.workspace.ledger.reader(), seat.workspace.ledger.policy
    for index in incident.entries:
        proof = archive.read(f"{incident.id}/proofs/{index}.tlog-proof")
        assert verify_proof(proof, reader.entry(index), policy).checkpoint_size > index
    program = with_key(seat, key_of(seat, actions=("finding:read",)))
    files = program.post(f"{API}/incidents/{incident.id}/export", json={}).json()["files"]
    assert {f"{incident.id}/{one['path']}" for one in files} == set(archive.namelist())
    asked = {"route": "/incidents/{id}/reports", "audience": "authority"}
    report = post(client, f"/incidents/{incident.id}/reports", **asked)
    packed = zipfile.ZipFile(io.BytesIO(report.content))
    told = json.loads(packed.read(f"{incident.id}-authority/report.json"))
    assert {"report.html", "report.json", *(f"proofs/{row['index']}.tlog-proof" for row in told["records"])} == {
        name.partition("/")[2] for name in packed.namelist()
    }
    assert post(client, f"/incidents/{incident.id}/reports", **asked | {"audience": "all"}).status_code == 400


def test_detectors_show_their_promises_and_what_was_seen(seated):
    client = seated.browser("ada")
    page = client.get("/detectors").text
    assert "one false alarm in 100,000 hours of one signal of one principal, at most" in page
    assert "of 1 closed alert, 1 false, 0 benign, 0 true" in page
    program = with_key(seated, key_of(seated, actions=("finding:read",), name="counter"))
    rows = {one["name"]: one for one in program.get(f"{API}/detectors").json()["detectors"]}
    assert (rows["D3"]["alerts"], rows["D3"]["false"], rows["D2"]["waiting"]) == (1, 1, 2)
    assert "Nobody was judged yet: that begins after 30 days of a principal." in page
    assert [name for name, row in rows.items() if row["reach"]] == ["D3"]


def test_the_fewest_days_from_which_d3_can_report_anybody_stand_beside_its_promise(seat):
    book = _Saved(days=[ScoredDay(day, 40, {}) for day in range(30)])
    with seat.workspace.tables.write() as connection:
        values = {"origin": seat.workspace.ledger.origin, "detector": "D3", "next_idx": 1}
        connection.execute(insert(watch_state).values(state=msgspec.msgpack.encode(book), **values))
    # e-BH reports one of m alone only where its e-value, at most n + 1, reaches m / alpha: 40 / 0.05 = 800.
    wanted = "One of 40 principals can be reported alone from 799 days of calibration on"
    page = seat.browser("ada").get("/detectors").text
    assert wanted in page
    assert "there are 1,200." in page


def test_the_last_simulation_that_was_kept_is_shown(seat):
    for seed in (1, 2):
        found = simulate("D5", SimulationSpec(20, 48), seed=seed)
        keep_simulation(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")), found.to_json())
    row = next(one for one in detectors_of(seat) if one["name"] == "D5")["simulated"]
    assert (row["verdict"], row["observed"]) == (found.verdict, found.to_json()["observed"])
    page = seat.browser("ada").get("/detectors").text
    assert f'href="/log/{row["entry"]}"' in page
    assert "stanch watch simulate --detector D1 --keep" in page


def detectors_of(seat):
    program = with_key(seat, key_of(seat, actions=("finding:read",), name="reader"))
    return program.get(f"{API}/detectors").json()["detectors"]


def test_the_overview_counts_alerts_and_clocks(seated):
    page = seated.browser("ada").get("/").text
    assert '<strong class="figure" id="alerts-open">3</strong>' in page
    assert "the first ends in 21 hours" in page or "the first ends in 22 hours" in page
    assert "alerts-open" not in seated.browser("rita").get("/").text


def test_hostile_strings_of_the_watch_stay_text(seat):
    raise_alarms(seat.workspace, [
        alarm(7, detector=HOSTILE, signal=HOSTILE, principal=HOSTILE, model=HOSTILE, severity=Severity.CRITICAL)
    ])  # fmt: skip
    client = seat.browser("ines")
    until = f"{seat.workspace.now():%Y-%m-%dT23:59}"
    hostile = {"detector": HOSTILE[:80], "model": HOSTILE[:80], "reason": HOSTILE}
    assert post(client, "/suppressions", until=until, **hostile).status_code == 303
    key = next(
        one.id
        for one in find_alerts(seat.workspace.acting_as("ines", unlock=lambda: life.passphrase("ines")))
        if one.detector == HOSTILE
    )
    made = post(client, "/incidents", discovered="2026-01-01", alert=key).headers["location"].partition("?")[0]
    assert step(client, key, VERDICT, verdict="true").status_code == 303
    assert step(client, key, AGAIN, reason=HOSTILE).status_code == 303
    ended = post(client, f"{made}/end", route="/incidents/{id}/end", no_notice=HOSTILE)
    assert ended.status_code == 303
    for path in ("/", "/alerts", f"/alerts/{key}", "/incidents", made, "/detectors", f"/alerts/{HOSTILE}"):
        page = client.get(path).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert ">49<" not in page, path
    assert "&lt;script&gt;" in client.get(made).text
    exported = post(client, f"{made}/export", route="/incidents/{id}/export").content
    page = zipfile.ZipFile(io.BytesIO(exported)).read(f"{made.rpartition('/')[2]}/incident.html").decode()
    assert "<script>alert" not in page


@pytest.mark.parametrize(("name", "told"), [("ines", True), ("olga", False)])
def test_alerts_come_live_to_whom_findings_are_shown(seat, monkeypatch, name, told):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    call = call_of(seat, name)
    if not told:  # somebody who reads the log but no findings
        monkeypatch.setattr(type(call), "may", lambda _self, action: action == "log:read")
        monkeypatch.setattr(live, "look", lambda *_: None)

    async def follow():
        answer = await live.stream(call, Asked())
        found = b""
        await asyncio.to_thread(raise_alarms, seat.workspace, [alarm(8), alarm(9)])
        async for part in answer.body_iterator:
            found += part
            if b'"phase":"outcome"' in part:
                break
        await answer.body_iterator.aclose()
        return found

    found = asyncio.run(asyncio.wait_for(follow(), 20))
    assert (b'event: alerts\ndata: {"open":5}\n\n' in found) == told
