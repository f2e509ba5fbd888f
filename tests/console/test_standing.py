"""How models stand: verdicts and coverage on the overview, and of one model its lineage, watermark and guard."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from test_acts import HOSTILE, call_of
from test_api import key_of, with_key

from stanch.config import load_config
from stanch.console.certificates import Certificates
from stanch.console.keys import keys_of
from stanch.console.lineage import Copied, draw_up
from stanch.console.lineage_picture import render_lineage
from stanch.console.pages.budgets import list_budgets, uses_of
from stanch.console.pages.log import Search, Standing, Watching, search_log
from stanch.console.pages.overview import SECTIONS, show_overview
from stanch.console.pages.paging import Paged
from stanch.console.records import Origin, Records
from stanch.console.route import API, Nothing
from stanch.crypto import SigningKey
from stanch.errors import VerificationError
from stanch.gateway.budgets import Amounts, Budgets, Charge, Limits
from stanch.ledger import Act, Cosigner, TrustPolicy, Witness, intent, new_act_id, outcome
from stanch.ledger.tiles import CHECKPOINT_KEY
from stanch.sign import TrustedKeys
from stanch.store import REPLACE
from stanch.store.schema.gateway import budget_lowered
from stanch.terms import ArtifactRef, Digest
from stanch.trace import TextRoot
from stanch.watch import detectors
from stanch.watch.runner import catch_up
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_origin import state_origin

DAY_MS = 86_400_000
MERGED, OLD = ArtifactRef("model", "merged", Digest.sha256(b"1")), ArtifactRef("model", "old", Digest.sha256(b"2"))


def note(seat, kind, ref, *, result="done", **payload):
    """Append an act as whoever runs it would; return the entry of its outcome."""
    now_ms = int(seat.workspace.door.clock() * 1000)
    act = Act(kind=kind, id=new_act_id(now_ms), principal=seat.workspace.people.find("dana"), subject=(ref,))
    seat.workspace.ledger.append(intent(act, time_ms=now_ms))
    return seat.workspace.ledger.append(outcome(act, time_ms=now_ms, result=result, payload=payload)).index


def later(seat, monkeypatch, **time):
    """Let the console's clock be so much later."""
    now = seat.workspace.door.clock() + timedelta(**time).total_seconds()
    monkeypatch.setattr("stanch.console.desk.Call.now_ms", int(now * 1000))


def overview(seat):
    return {part.name: msgspec.to_builtins(part.holds) for part in show_overview(call_of(seat, "ada"), Nothing()).parts}


def state_of(seat):
    return ReleaseState.load(seat.workspace.state / "releases" / "r1")


def served(seat, **changes):
    """Let the settings name the released model with a guard, as a gateway that serves it has them."""
    digest = state_of(seat).facts.digest
    fields = {"name": "bot", "digest": digest, "upstream": "http://127.0.0.1:8000"} | changes
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    settings = seat.case.folder / "stanch.toml"
    settings.write_text(settings.read_text() + "\n[[gateway.models]]\n" + "\n".join(lines) + "\n")
    return digest


def test_models_are_counted_by_verdict_and_coverage(seat, monkeypatch):
    counts = overview(seat)["coverage"]
    verdict = counts["verdicts"]
    assert (counts["models"], counts["gate"], counts["certificate"], counts["marks"], counts["sealed"]) == (1,) * 5
    assert sum(verdict.values()) == 1
    page = seat.browser("ada").get("/").text
    assert "<dt>Certificate in force</dt><dd>1 of 1 (100 %)</dd>" in page
    for ref in (MERGED, OLD):
        seat.workspace.people.set_gate(ref, "failed")
    assert overview(seat)["coverage"]["verdicts"] == verdict | {"none": 2}
    note(seat, "audit.run", MERGED, verdict="LEAK PROVEN")
    note(seat, "audit.run", OLD, verdict="NO LEAK DETECTED")
    note(seat, "audit.run", OLD, result="failed", verdict="INCONCLUSIVE")  # which it is not: it did not end
    counts = overview(seat)["coverage"]
    assert counts["verdicts"] == verdict | {"proven": 1, "clean": verdict["clean"] + 1}
    assert (counts["models"], counts["gate"], counts["certificate"], counts["marks"]) == (3, 1, 1, 1)
    note(seat, "audit.run", MERGED, verdict="INCONCLUSIVE")  # the newest counts
    inconclusive = verdict["inconclusive"] + 1
    assert overview(seat)["coverage"]["verdicts"] == verdict | {
        "inconclusive": inconclusive,
        "clean": verdict["clean"] + 1,
    }
    page = seat.browser("ada").get("/").text
    assert "<dt>Certificate in force</dt><dd>1 of 3 (33 %)</dd>" in page
    later(seat, monkeypatch, days=90)
    assert overview(seat)["coverage"]["verdicts"]["expired"] == 3
    assert "part-coverage" not in seat.browser("rita").get("/").text


def test_a_certificate_that_expired_or_was_changed_covers_nothing(seat, monkeypatch):
    before = overview(seat)["coverage"]["verdicts"]
    with monkeypatch.context() as patch:
        later(seat, patch, days=91)
        counts = overview(seat)["coverage"]
        assert (counts["verdicts"]["expired"], counts["certificate"]) == (1, 0)
    assert overview(seat)["coverage"]["verdicts"] == before
    with pytest.raises(VerificationError, match="another model"):
        Certificates().read(
            Path(state_of(seat).facts.certificate), MERGED.digest,
            TrustedKeys(seat.workspace.keys.publics("publisher")),
        )  # fmt: skip
    path = seat.case.folder.parent / "changed.json"
    shutil.copy(state_of(seat).facts.certificate, path)
    path.write_bytes(path.read_bytes().replace(b'"payload":"', b'"payload":"x', 1))
    facts = seat.workspace.state / "releases" / "r1" / "release.json"
    facts.write_text(facts.read_text().replace(state_of(seat).facts.certificate, str(path)))
    counts = overview(seat)["coverage"]
    assert (counts["verdicts"]["unreadable"], counts["certificate"]) == (1, 0)
    assert "1 not verified" in seat.browser("ada").get("/").text


def test_a_detector_runs_while_nothing_old_is_unread(seat, monkeypatch):
    section = next(one for one in SECTIONS if one.name == "detectors")
    call, known = call_of(seat, "ada"), [one for one in detectors() if one.name in {"D1", "D2"}]
    reader = seat.workspace.ledger.reader()
    catch_up(reader, seat.workspace.tables, known, deliver=lambda _alarms, save: _save(seat, save))
    later(seat, monkeypatch, hours=1)
    rows = section.read(call).detectors
    assert [row.name for row in rows] == [one.name for one in detectors()]
    assert {row.name: row.behind for row in rows if row.runs} == {"D1": 0, "D2": 0}
    assert {row.behind for row in rows if not row.runs} == {reader.size()}
    assert "stanch watch serve" in seat.browser("ada").get("/").text
    monkeypatch.undo()
    note(seat, "audit.run", OLD, verdict="INCONCLUSIVE")
    assert {"D1", "D2"} <= {row.name for row in section.read(call).detectors if row.runs}  # unread, but no minute old


def _save(seat, save):
    with seat.workspace.tables.write() as connection:
        save(connection)


def test_lineage_goes_from_data_and_base_over_what_was_merged_to_the_copies(seat):
    digest = state_of(seat).facts.digest
    data = ArtifactRef("dataset", "rows.jsonl", Digest.sha256(b"d"))
    tuned = note(seat, "tune.run", data, model=digest)
    model = seat.case.material.model
    assert str(ArtifactRef("model", model.name, Digest.parse(digest)).digest) == digest
    with seat.case.acting("dana") as dana:
        made = state_origin(dana, seat.case.material.base, model, "merged")
        assert made.digest != Digest.parse(digest)
        with pytest.raises(Exception, match="same model"):
            state_origin(dana, model, model, "quantised")
        with pytest.raises(Exception, match="may not model:audit"):
            state_origin(dana.acting_as("nina"), seat.case.material.base, model, "merged")
    client = seat.browser("ada")
    page = client.get(f"/models/{digest}").text
    assert f'<a href="/log/{tuned}">entry {tuned}</a>' in page
    for said in (
        "tuned from base model",
        "tuned on from data set rows.jsonl",
        "copies for acme, bolt",
        "made from it:",
    ):
        assert said in page, said
    pictures = [client.get(f"/models/{digest}/lineage.svg?theme={theme}") for theme in ("light", "dark")]
    assert {one.headers["content-type"] for one in pictures} == {"image/svg+xml"}
    assert pictures[0].text != pictures[1].text
    root = ET.fromstring(pictures[0].content)  # noqa: S314 - our own
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"data set", "base model", "sealed copy", "copy, not made yet", "merged", "rows.jsonl"} <= set(words)
    assert root.find("{http://www.w3.org/2000/svg}desc").text in page.replace("&#39;", "'")
    assert client.get("/models/sha256:" + "0" * 64 + "/lineage.svg").status_code == 404
    assert seat.browser("nina").get(f"/models/{digest}/lineage.svg").status_code == 404


def test_a_graph_has_columns_by_descent_ends_where_statements_go_in_circles_and_stays_small():
    records = Records()
    for made, source, entry in (("b", "a", 1), ("c", "b", 2), ("a", "c", 3), ("b", "a", 4)):
        records.origins[made].append(Origin("model", source, source, "merged", entry))
        records.made[source].append(made)
    copies = {"b": [Copied("r1", HOSTILE, 9, made=True)]}
    graph = draw_up("b", {"b": "bee", "c": HOSTILE}, {"b": {"/x/base"}}, records, lambda model: copies.get(model, ()))
    columns = {node.id: node.column for node in graph.nodes}
    (base,) = (node for node in graph.nodes if node.kind == "base model")
    assert (base.name, "/x" in repr(graph)) == ("base", False)
    assert base.column < columns["b"] < columns["copy:r1:" + HOSTILE]
    assert len(graph.nodes) == 5
    records.origins["b"].append(Origin("model", "a", "a", "quantised", 7))
    told = draw_up("a", {}, {}, records, lambda _: ()).edges
    assert {(one.how, one.entry) for one in told if (one.source, one.target) == ("a", "b")} == {
        ("merged", 4), ("quantised", 7)
    }  # fmt: skip
    picture = render_lineage(graph, "b", "dark")
    assert "<script>" not in picture
    assert "<img" not in picture
    ET.fromstring(picture)  # noqa: S314 - our own
    many = draw_up("b", {}, {}, Records(), lambda _: [Copied("r1", str(at), 9, made=False) for at in range(50)])
    assert (len(many.nodes), many.left_out) == (40, 11)


def test_the_guard_and_the_watermark_of_a_served_model(seat):
    root = TextRoot.generate()
    root.save(seat.case.folder / "text.root")
    digest = served(
        seat, index="train.index", dialects=["chat", "responses"], text_root="text.root", tenants=["acme", HOSTILE]
    )
    config = load_config(seat.case.folder / "stanch.toml", environ={}, user_file=None)
    seat.app.serving.desk = replace(seat.app.desk, workspace=replace(seat.workspace, config=config))
    client = seat.browser("ada")
    page = client.get(f"/models/{digest}").text
    assert '<tr><th scope="row">bot</th><td>chat, responses</td><td><code>train.index</code></td>' in page
    assert '<span class="badge warn">no plan</span></td><td><span class="badge">not required</span>' in page
    assert "on, as the settings say" in page
    assert f"<td><code>{root.key_id('acme')}</code></td>" in page
    assert root.key_id("acme") != root.key_id(HOSTILE)
    assert "<script>alert" not in page
    assert not any(str(key) in page for key in root.keys("acme"))
    assert root.secret.hex() not in page
    assert "No request to it was recorded yet." in page
    ref = ArtifactRef("model", "bot", Digest.parse(digest))
    now_ms = int(seat.workspace.door.clock() * 1000)
    act = Act(kind="gateway.infer", id=new_act_id(now_ms), principal=seat.workspace.people.find("dana"), subject=(ref,))
    asked = seat.workspace.ledger.append(intent(act, time_ms=now_ms, payload={"watermark": "asserted"})).index
    page = client.get(f"/models/{digest}").text
    assert f'<a href="/log/{asked}">entry {asked}</a>, was recorded with watermark <code>asserted</code>.' in page
    done = outcome(act, time_ms=now_ms, payload={"watermark": "embedded"})
    told = seat.workspace.ledger.append(done).index
    page = client.get(f"/models/{digest}").text
    assert f'<a href="/log/{told}">entry {told}</a>, was recorded with watermark <code>embedded</code>.' in page
    (seat.case.folder / "text.root").unlink()
    page = client.get(f"/models/{digest}").text
    assert "the text root that the settings name cannot be used" in page
    assert "text.root" not in page
    assert "on, as the settings say" not in page


def test_a_model_that_is_not_served_has_no_guard_and_no_watermark(seated):
    page = seated.browser("ada").get(f"/models/{state_of(seated).facts.digest}").text
    assert "At the gateway" not in page
    assert "No tenant&#39;s watermark" in page or "No tenant's watermark" in page


def test_keys_are_shown_with_their_last_use_and_state(seat):
    key = key_of(seat, actions=("log:read",), name="robot")
    client, robot = seat.browser("ada"), seat.workspace.people.find("robot")
    row = f"<code>{key[4:20]}</code>"
    assert row in client.get(f"/principals/{robot}").text
    assert "not among the last acts" in client.get(f"/principals/{robot}").text
    assert with_key(seat, key).get(f"{API}/log?limit=1").status_code == 200
    page = client.get(f"/principals/{robot}").text
    assert "not among the last acts" not in page
    assert "made here; a secret is shown once" in page
    used = seat.workspace.ledger.reader()
    assert key[21:] not in page
    program = with_key(seat, key_of(seat, actions=("policy:read", "log:read"), name="reader"))
    (shown,) = program.get(f"{API}/principals/{robot}").json()["keys"]
    assert (shown["kind"], shown["state"]) == ("api", "in force")
    assert shown["used_ms"] >= shown["created_ms"] > shown["expires_ms"] - 91 * DAY_MS
    assert robot.encode() in used.entry(shown["used_entry"])
    blind = with_key(seat, key_of(seat, actions=("policy:read",), name="blind"))
    assert blind.get(f"{API}/principals/{robot}").json()["keys"][0]["used_ms"] is None
    person = program.get(f"{API}/principals/{seat.workspace.people.find('rolf')}").json()["keys"]
    assert [(one["kind"], one["state"], one["expires_ms"]) for one in person] == [("local", "in force", 0)]
    assert person[0]["used_ms"] > 0  # rolf made a copy with it
    with seat.workspace.tables.write() as connection:
        connection.exec_driver_sql("UPDATE api_key SET expires_ms = ?", (person[0]["created_ms"],))
        connection.exec_driver_sql("UPDATE credential SET revoked_ms = ?", (person[0]["created_ms"],))
    call = call_of(seat, "ada")
    states = {row.state for name in ("robot", "rolf") for row in keys_of(call, seat.workspace.people.find(name))}
    assert states == {"expired", "revoked"}


def test_the_log_shows_its_checkpoint_and_who_outside_knows_it(seat):
    ledger, call, seen_s = seat.workspace.ledger, call_of(seat, "ada"), 1_800_000_000
    key = Cosigner("example.com/w", SigningKey.from_seed(bytes(32)))
    signed = ledger.publish()

    def standing():
        return search_log(call, Search()).standing

    root = signed.checkpoint.root.hex()
    (anchor,) = anchors = standing().anchors
    assert (anchor.outside, 0 < anchor.last_ms <= call.now_ms) == (False, True)
    assert standing() == Standing(signed.checkpoint.size, root, (), anchors)
    ledger.policy = TrustPolicy.of([one.vkey for one in ledger.verifiers], [Witness("w", key.verifier, "")])
    assert standing() == Standing(signed.checkpoint.size, root, (Watching("w", 0),), anchors)
    note = signed.note + key.cosign(signed.checkpoint.text(), seen_s).encode()
    seat.workspace.blobs.put(CHECKPOINT_KEY, note, mode=REPLACE)
    assert standing() == Standing(signed.checkpoint.size, root, (Watching("w", 1000 * seen_s),), anchors, quorum=True)
    page = seat.browser("ada").get("/log").text
    assert "cosigned by the quorum" in page
    assert root in page
    forged = note.replace(signed.note[-20:-10], b"AAAAAAAAAA")
    seat.workspace.blobs.put(CHECKPOINT_KEY, forged, mode=REPLACE)
    found = standing()
    seat.workspace.blobs.put(CHECKPOINT_KEY, signed.note, mode=REPLACE)
    assert "does not verify" in found.trouble
    assert found.root == ""


def test_older_entries_about_an_artifact_stay_about_it(seat):
    note(seat, "audit.run", OLD)
    about = str(OLD.digest)
    page = seat.browser("ada").get(f"/log?subject={about}&limit=1").text
    assert f"&amp;subject={about}" in page
    assert f'value="{about}"' in page


def test_budgets_that_the_gateway_charged_stand_beside_their_limits(seat):
    """What it charged three hours ago is over for the minute, and still counts for the day and in total."""
    call, limits = call_of(seat, "olga"), Limits(bits_per_day=0, requests_in_total=70, vectors_per_day=None)
    who, budgets = seat.workspace.people.find("dana"), Budgets(seat.workspace.tables)
    for ago in (3 * 3_600_000, 0):
        charge = Charge(who, str(MERGED.digest), Amounts(requests=3, tokens=400_000), call.now_ms - ago)
        with seat.workspace.tables.write() as connection:
            budgets.reserve(connection, charge, limits)
    day = 400_000 if call.now_ms % DAY_MS < 3 * 3_600_000 else 800_000
    shown = {use.budget: (use.used, use.limit, use.percent) for use in uses_of(call, who)}
    assert shown == {
        "requests/minute": (3, 60, 5), "requests/total": (6, None, 0),
        "tokens/day": (day, 1_000_000, day // 10_000),
    }  # fmt: skip
    with seat.workspace.tables.write() as connection:
        seat.workspace.tables.insert(connection, budget_lowered, [(who, str(MERGED.digest), 0, 10**9)])
    shown = {use.budget: (use.limit, use.percent) for use in list_budgets(call, Paged()).uses if use.principal == who}
    assert shown["requests/minute"] == (0, 100)
    assert shown["tokens/day"][0] == 1_000_000
    page = seat.browser("ines").get("/budgets").text
    assert page.count("used up") == 1
