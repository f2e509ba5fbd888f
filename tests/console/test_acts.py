"""What people do here: approve as two, change policies, grant and revoke; hostile strings; the live stream."""

import asyncio
import json
import re

import life
import pytest
from seating import post
from sqlalchemy import update

from stanch.access import ApiKeyOrder, strangers
from stanch.access.policy import default_text
from stanch.cli.approval import _for_console
from stanch.console import live
from stanch.console.desk import Call
from stanch.console.pages.settings import _hidden
from stanch.crypto import SigningKey
from stanch.errors import NotPermitted
from stanch.release import approve
from stanch.store.schema import access
from stanch.store.schema import workspace as rows
from stanch.terms import Digest
from stanch.trace import sign_receipt
from stanch.workspace.copies import KeptCopy
from stanch.workspace.verbs_access import (
    Newcomer,
    issue_key,
    register_newcomer,
    resume_principal,
    suspend_principal,
)
from stanch.workspace.verbs_approve import load_record
from stanch.workspace.verbs_receipt import expect_receipt, receive
from stanch.workspace.verbs_release import release_folder

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


def signed_elsewhere(seat, name):
    """Return what ``approve-offline --origin`` writes, by the keys of one person."""
    record = load_record(seat.workspace, "r1", "bolt")
    acting = seat.workspace.acting_as(name, unlock=lambda: life.passphrase(name))
    share = approve(record, seat.case.material.identities[name], acting.people.local.key, now=acting.now())
    return _for_console(record.request, acting.people.local.key, share, seat.workspace.ledger.origin).decode()


def hand_in(client, approval, recipient="bolt"):
    fields = {"recipient": recipient, "approval": approval}
    return post(client, "/releases/r1/approvals", route="/releases/{name}/approvals", **fields)


def test_two_people_approve_a_copy(seat):
    rita, rolf = seat.browser("rita"), seat.browser("rolf")
    assert "Your approval of bolt" in rita.get("/releases/r1").text
    assert "No copy waits for you" not in rita.get("/approvals").text
    mine = signed_elsewhere(seat, "rita")
    assert hand_in(rolf, mine).status_code == 404  # rita's own hand must bring it; said as if it were not there
    assert hand_in(rita, mine).headers["location"] == "/releases/r1?done=approved"
    assert "1 of 2 approvals" in rita.get("/releases/r1").text
    assert "Your approval of bolt" not in rita.get("/releases/r1").text
    assert [told in rita.get("/approvals").text for told in ("No copy waits for you", "For others to")] == [True, True]
    changed = json.loads(signed_elsewhere(seat, "rolf"))
    forged = changed | {"signature": json.loads(mine)["signature"]}
    assert hand_in(rolf, json.dumps(forged)).headers["location"].startswith("/login")
    assert hand_in(rolf, json.dumps(changed | {"share": json.loads(mine)["share"]})).status_code == 404
    assert hand_in(rolf, json.dumps(changed)).status_code == 303
    page = rolf.get("/releases/r1").text
    assert ">released<" in page
    assert ">bolt<" not in rolf.get("/approvals").text
    record = load_record(seat.workspace, "r1", "bolt").request
    requester = seat.workspace.people.find("dana")
    assert seat.workspace.people.approvals.count_approvals(record.digest, requester=requester) == 2


def test_a_release_says_what_was_signed_for_and_what_waits(seat):
    workspace, rita = seat.workspace, seat.browser("rita")
    page = rita.get("/releases/r1").text
    assert ">waits<" in page
    assert "stanch release receipt r1 RECEIPT --to bolt" in page
    kept = KeptCopy.newest(release_folder(workspace, "r1"), "bolt")
    expected = expect_receipt(workspace, Digest.parse(f"sha256:{kept.facts.manifest_sha256}"))
    key, rolf = SigningKey.generate("ed25519"), workspace.acting_as("rolf", unlock=lambda: life.passphrase("rolf"))
    signed = sign_receipt(expected, key, received=rolf.now())
    kept.add_receipt(signed)  # a file that nobody took in counts nothing
    assert ">waits<" in rita.get("/releases/r1").text
    at = receive(rolf, "r1", "bolt", signed, key.public).at
    page = rita.get("/releases/r1").text
    entry = re.search(rf'<a href="/log/(\d+)">signed for</a> <time class="fixed" datetime="{at}">', page)[1]
    assert b"release.receive" in workspace.ledger.reader().entry(int(entry))
    assert ">waits<" not in page
    assert '<td class="number">1</td></tr>' in rita.get("/releases").text


def test_emergency_rights_wait_for_their_review(seat):
    glasses, ines = seat.workspace.people.glasses, seat.workspace.people.find("ines")
    glass = glasses.open_glass(ines, act="a", reason_commitment="c", minutes=15)
    page = seat.browser("ada").get("/approvals").text
    assert f"<code>{glass.id}</code>" in page
    assert glass.id not in seat.browser("rita").get("/approvals").text  # who does not read the log


@pytest.mark.parametrize("approval", ["", "x", "{}", "[]", '{"type":"urn:stanch:handed-approval:v1"}', "{" * 5000])
def test_what_is_no_approval_is_refused(seated, approval):
    assert hand_in(seated.browser("rita"), approval).status_code == 400


def test_roles_are_granted_and_revoked(seat):
    client, nina = seat.browser("olga"), seat.workspace.people.find("nina")
    facts = seat.workspace.people.directory.facts_of
    where = f"/principals/{nina}"
    assert post(client, f"{where}/grants", route="/principals/{id}/grants", role="nonsense").status_code == 400
    assert post(client, f"{where}/grants", route="/principals/{id}/grants", role="auditor").status_code == 303
    grant = facts(nina).grants[0].id
    ada = seat.workspace.people.find("ada")
    wrong = post(client, f"/principals/{ada}/grants/{grant}/revoke", route="/principals/{id}/grants/{grant}/revoke")
    assert wrong.status_code == 404
    assert post(client, f"{where}/grants/{grant}/revoke", route="/principals/{id}/grants/{grant}/revoke").is_redirect
    assert facts(nina).grants == ()


def test_a_key_is_shown_once_and_can_be_revoked(seat):
    client = seat.browser("olga")
    assert post(client, "/principals", name="bot", kind="service").is_redirect
    bot = seat.workspace.people.find("bot")
    answer = post(
        client, f"/principals/{bot}/keys", route="/principals/{id}/keys", model="workspace", network="127.0.0.0/8",
        action="log:read",
    )  # fmt: skip
    secret = re.search(r"stk_[a-z2-7_]{70,}", answer.text)[0]
    shown = client.get(f"/principals/{bot}").text
    assert secret not in shown
    assert secret[21:73] not in shown
    key = seat.workspace.people.api_keys.keys()[0].id
    assert "not among the last acts" not in shown  # olga does not read the log, so nothing is said of uses
    ended = post(client, f"/principals/{bot}/keys/{key}/revoke", route="/principals/{id}/keys/{key}/revoke")
    assert ended.is_redirect
    assert "revoked" in client.get(f"/principals/{bot}").text


def suspension(client, principal, what="suspension"):
    return post(client, f"/principals/{principal}/{what}", route=f"/principals/{{id}}/{what}")


def test_a_suspended_person_is_out_at_once_and_signs_in_anew_after_a_resume(seat):
    olga, ada, who = seat.browser("olga"), seat.browser("ada"), seat.workspace.people.find("ada")
    page = f"/principals/{who}"
    assert ada.get("/log").status_code == 200
    assert suspension(olga, who, "resumption").status_code == 400  # she is not suspended
    assert suspension(olga, who).headers["location"] == f"{page}?done=suspended"
    assert all(told in olga.get(page).text for told in (">suspended<", ">Resume<"))
    assert ada.get("/log").headers["location"].startswith("/login")
    assert suspension(olga, who, "resumption").headers["location"] == f"{page}?done=resumed"
    assert ">Suspend<" in olga.get(page).text
    assert ada.get("/log").headers["location"].startswith("/login")  # a session that has ended stays so
    assert seat.browser("ada").get("/log").status_code == 200
    told = [json.loads(data) for _, data in seat.workspace.ledger.reader().tail()]
    acts = [entry for entry in told if entry["unmapped"]["stanch"].get("kind") in {"access.suspend", "access.resume"}]
    assert [entry["unmapped"]["stanch"]["kind"] for entry in acts if entry.get("user", {}).get("uid") == who] == [
        "access.suspend", "access.resume",
    ]  # fmt: skip
    assert {entry["actor"]["user"]["uid"] for entry in acts} == {olga.session.principal}


def test_nobody_suspends_themselves(seated):
    olga = seated.browser("olga")
    assert ">Suspend<" not in olga.get(f"/principals/{olga.session.principal}").text
    assert suspension(olga, olga.session.principal).status_code == 400
    assert olga.get("/principals").status_code == 200


def test_a_suspended_service_is_refused_with_its_key_until_it_is_resumed(seat):
    workspace, client = seat.workspace, seat.client()
    bot = register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("auditor",)))
    order = ApiKeyOrder(principal=bot, models=("workspace",), networks=("127.0.0.0/8",), actions=("log:read",))
    client.headers["Authorization"] = f"Bearer {issue_key(workspace, order)[1].text}"
    assert client.get("/api/v1/log").status_code == 200
    suspend_principal(workspace, bot)
    answers = [client.get(f"/api/v1{path}").status_code for path in ("/log", "/", "/access", "/access?action=log:read")]
    assert answers == [401] * 4
    resume_principal(workspace, bot)
    assert client.get("/api/v1/log").status_code == 200


def test_policies_are_checked_and_need_two_others(seat):
    client = seat.browser("olga")
    text = seat.workspace.people.authority.policies()
    page = client.get("/policies").text
    assert 'id="text"' in page
    changed = default_text() + '\n@id("new")\nforbid (principal, action == Stanch::Action::"log:write", resource);\n'
    answer = post(client, "/policies/check", text=changed.replace("\n", "\r\n"))
    assert "<ins>+ @id(&#34;new&#34;)</ins>" in answer.text
    assert "0 of 2 other people" in answer.text
    assert post(client, "/policies", text=changed).status_code == 403
    assert seat.workspace.people.authority.policies().digest == text.digest
    assert post(client, "/policies/check", text="permit (principal").status_code == 400


def test_hostile_strings_stay_text(seat):
    """Names of people, models, issuers and what is typed: nothing of it becomes markup on any page."""
    workspace = seat.workspace
    register_newcomer(workspace, Newcomer(name=HOSTILE, kind="service"))
    with workspace.tables.write() as connection:
        strangers.note(connection, HOSTILE, HOSTILE, 1)  # whatever an issuer says of whom it lets in
        connection.execute(update(rows.resource).values(name=HOSTILE))
        connection.execute(update(access.principal).where(access.principal.c.display == "dana").values(display=HOSTILE))
    model = workspace.state / "releases" / "r1" / "release.json"
    digest = json.loads(model.read_text())["digest"]
    dana = next(one.id for one in workspace.people.directory.principals() if one.display == HOSTILE)
    client = seat.browser("ada")
    typed = {"who": HOSTILE, "action": HOSTILE, "resource": HOSTILE, "kind": HOSTILE, "principal": HOSTILE}
    for path, names in (
        ("/", ()), ("/models", ()), (f"/models/{digest}", ()), ("/releases", ()), ("/releases/r1", ()),
        ("/recipients", ()), ("/principals", ()), (f"/principals/{dana}", ()), ("/log", ("kind", "principal")),
        ("/access", ("who", "action", "resource")), ("/access/who", ("action", "resource")), ("/budgets", ()),
        ("/transparency", ()), (f"/releases/{HOSTILE}", ()), (f"/log/{HOSTILE}", ()), (f"/nowhere/{HOSTILE}", ()),
    ):  # fmt: skip
        page = client.get(path, params={name: typed[name] for name in names}).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert "49" not in re.findall(r"\{\{|\}\}|>49<", page), path
    assert "&lt;script&gt;" in client.get("/principals").text


def test_a_database_password_is_not_among_the_settings():
    assert _hidden('"postgresql://stanch:secret@db/x"') == '"postgresql://…@db/x"'


class Asked:
    """A request as far as the stream looks at it."""

    def __init__(self, last=""):
        self.headers = {"last-event-id": last} if last else {}


def call_of(seat, name):
    client = seat.browser(name)
    return Call(client.desk, client.session, client.desk.acting(client.session), {})


async def take_events(answer, count):
    found = []
    async for part in answer.body_iterator:
        found += re.findall(rb"id: (\d+)\nevent: entry\ndata: (.*)\n", part)
        if len(found) >= count:
            break
    await answer.body_iterator.aclose()
    return [(int(index), json.loads(data)) for index, data in found]


def test_a_stream_goes_on_where_the_browser_was(seat):
    async def follow():
        answer = await live.stream(call_of(seat, "ada"), Asked("2"))
        return await take_events(answer, 5)

    events = asyncio.run(follow())
    assert [index for index, _ in events[:5]] == [3, 4, 5, 6, 7]
    assert all(told["index"] == index for index, told in events)
    assert set(events[0][1]) == {"index", "size", "kind", "phase", "time_ms"}


def test_a_stream_needs_the_right_to_read_the_log_now_and_later(seat, monkeypatch):
    with pytest.raises(NotPermitted):
        asyncio.run(live.stream(call_of(seat, "nina"), Asked()))
    monkeypatch.setattr(live, "RECHECK_SECONDS", 0.0)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    call = call_of(seat, "ada")

    async def follow():
        answer = await live.stream(call, Asked())
        with seat.workspace.tables.write() as connection:
            connection.execute(update(access.session).values(ended_ms=1))
        return [part async for part in answer.body_iterator]

    assert asyncio.run(asyncio.wait_for(follow(), 20))[0] == b": welcome\n\n"


def test_the_stream_of_somebody_suspended_ends_at_once(seat, monkeypatch):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    call = call_of(seat, "ada")

    async def follow():
        answer = await live.stream(call, Asked())
        parts = [await anext(answer.body_iterator)]
        suspend_principal(seat.workspace, "ada")
        return parts + [part async for part in answer.body_iterator]

    assert asyncio.run(asyncio.wait_for(follow(), 20))[0] == b": welcome\n\n"


def test_a_session_has_at_most_five_streams(seat):
    call = call_of(seat, "ada")

    async def open_many():
        answers = []
        for _ in range(live.MOST_STREAMS):
            answer = await live.stream(call, Asked())
            await anext(answer.body_iterator)
            answers.append(answer)
        with pytest.raises(NotPermitted, match="5 streams"):
            await live.stream(call, Asked())
        for answer in answers:
            await answer.body_iterator.aclose()
        await live.stream(call, Asked())

    asyncio.run(open_many())
