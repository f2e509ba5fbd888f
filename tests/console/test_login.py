"""The ways in and out: one-time links, sessions, forged requests, headers."""

import asyncio
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from seating import ADDRESS, post
from starlette.requests import Request
from starlette.testclient import TestClient

from stanch.console.app import build_app
from stanch.console.login import read_body
from stanch.errors import InvalidInput, NotPermitted
from stanch.ledger import decode_entry
from stanch.workspace.verbs_access import Newcomer, register_newcomer
from stanch.workspace.verbs_console import make_token

OWN = {"Origin": ADDRESS}
ELSEWHERE = (
    "//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nX: y", "", "/ä",
    "///evil.example", "http:/evil.example", "/\t/evil.example", "\\\\evil.example", " //evil.example", "@evil.example",
    ".evil.example", "/" + "a" * 512,
)  # fmt: skip
"""Where no sign-in may lead: other hosts, other schemes, and what a browser could read as one."""


def redeem(client, text, **changes):
    return client.post("/login/link", data={"token": text, "next": "/"}, headers=OWN | changes)


def test_a_link_opens_one_session_as_whoever_made_it(seat):
    token, client = make_token(seat.workspace), seat.client()
    page = client.get("/login", params={"token": token.text})
    assert token.text in page.text
    assert client.get("/").headers["location"] == "/login?next=%2F"
    answer = redeem(client, token.text)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"stanch=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", cookie)
    assert "olga" in client.get("/").text
    assert redeem(seat.client(), token.text).status_code == 401  # it is used up
    last = seat.workspace.ledger.reader()
    kinds = [decode_entry(data)["unmapped"]["stanch"]["kind"] for _, data in last.tail()]
    assert "console.token" in kinds
    assert "access.login" in kinds


def test_a_link_ends_after_a_quarter_of_an_hour_and_leaves_no_secret(seat, monkeypatch):
    token, now = make_token(seat.workspace), seat.workspace.door.clock()
    stored = b"".join(path.read_bytes() for path in seat.workspace.state.glob("stanch.db*"))
    assert token.text.encode() not in stored
    monkeypatch.setattr(seat.app.desk.bootstrap, "_now", lambda: int(now * 1000) + 901_000)
    assert redeem(seat.client(), token.text).status_code == 401


@pytest.mark.parametrize("text", ["", "x", "A" * 43, "A" * 44, "ä" * 43, "A" * 9999])
def test_what_is_no_link_is_refused(seated, text):
    answer = redeem(seated.client(), text)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_link_is_good_on_this_machine_alone(seat):
    token = make_token(seat.workspace)
    assert redeem(seat.client(client=("192.0.2.7", 5)), token.text).status_code == 401
    assert redeem(seat.client(), token.text).status_code == 303


def test_links_are_off_once_an_administrator_signs_in_at_an_issuer(seat, monkeypatch):
    token, workspace = make_token(seat.workspace), seat.workspace
    anna = Newcomer(name="Anna", kind="user", issuer="https://id.example", subject="anna", roles=("platform_admin",))
    register_newcomer(workspace, anna)
    assert redeem(seat.client(), "x").status_code == 401
    access = type(workspace.config.access)
    section = type("Section", (), {"issuer": "https://id.example", "client_id": "console"})()
    monkeypatch.setattr(access, "issuers", (section,))
    assert redeem(seat.client(), token.text).status_code == 401
    with pytest.raises(NotPermitted, match="switched off"):
        make_token(workspace)
    assert "one-time link" not in seat.client().get("/login").text


def test_a_link_of_somebody_suspended_opens_nothing(seat):
    token, workspace = make_token(seat.workspace), seat.workspace
    workspace.people.directory.suspend(workspace.people.find("olga"))
    answer = redeem(seat.client(), token.text)
    assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None)
    with workspace.tables.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM session_ WHERE ended_ms IS NULL").scalar() == 0


def test_only_an_administrator_makes_links(seat):
    with seat.case.acting("ada") as workspace, pytest.raises(NotPermitted):
        make_token(workspace)


def test_a_session_gets_a_new_id_at_each_sign_in_and_the_old_one_ends(seat):
    client = seat.browser("nina")
    old = client.cookies["stanch"]
    assert redeem(client, make_token(seat.workspace).text).status_code == 303
    assert client.cookies.get("stanch", path="/", domain="127.0.0.1") or client.cookies
    other = seat.client()
    other.cookies.set("stanch", old)
    assert other.get("/").status_code == 303


def test_an_id_that_somebody_chose_is_none(seated):
    client = seated.client()
    client.cookies.set("stanch", "A" * 43)
    assert client.get("/").headers["location"].startswith("/login")


def test_signing_out_ends_the_session(seat):
    client = seat.browser("nina")
    assert client.post("/logout", headers=OWN).status_code == 403  # without the token of the form
    assert post(client, "/logout").status_code == 303
    assert client.get("/").status_code == 303
    other = seat.client()
    other.cookies.set("stanch", client.cookies.get("stanch", ""))
    assert other.get("/").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "null"}, {"Origin": "http://evil.example"}, OWN | {"Sec-Fetch-Site": "cross-site"},
     OWN | {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/login", "/login/link", "/logout"])
def test_a_form_of_another_site_is_refused(seated, headers, path):
    client = seated.browser("nina")
    token = client.desk.csrf.token(client.session.key_id, f"POST {path}")
    assert client.post(path, data={"_token": token, "token": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize("target", ELSEWHERE)
def test_after_signing_in_nobody_is_sent_elsewhere(seat, target):
    token = make_token(seat.workspace)
    fields = {"token": token.text, "next": target}
    answer = seat.client().post("/login/link", data=fields, headers=OWN)
    assert answer.headers["location"] == "/"


def test_a_header_cannot_be_smuggled_in(seated):
    answer = seated.client().get("/login?next=/a%0d%0aSet-Cookie:%20x=y")
    assert "x" not in answer.cookies
    again = seated.client().get("/models/%0d%0aSet-Cookie:%20x=y")
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:8403", "localhost:8402", ""])
def test_another_host_is_refused(seated, host):
    assert seated.client().get("/login", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("path", ["/login", "/static/console.css", "/nowhere", "/", "/api/v1/nowhere", "/callback"])
def test_every_answer_has_the_headers(seated, path):
    headers = seated.client().get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
        "connect-src": "'self'", "form-action": "'self'", "frame-ancestors": "'none'", "base-uri": "'none'",
    }  # fmt: skip
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers


def test_under_tls_the_cookie_is_bound_to_the_host(seat):
    seat.app = build_app(seat.workspace, address="https://stanch.example")
    client = TestClient(seat.app, base_url="https://stanch.example", follow_redirects=False, client=("127.0.0.1", 5))
    token = make_token(seat.workspace)
    answer = client.post("/login/link", data={"token": token.text}, headers={"Origin": "https://stanch.example"})
    assert re.fullmatch(
        r"__Host-stanch=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", answer.headers["set-cookie"]
    )
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    client.close()


@pytest.mark.parametrize(
    "path", ["/", "/?x=1", "/log?kind=tune.run&since=2026-01-01", "/models/sha256%3Aab", "/access?who=a%20b&action=x"]
)
def test_a_page_asks_to_sign_in_and_comes_back_to_the_whole_address(seat, path):
    client = seat.client()
    location = client.get(path).headers["location"]
    assert parse_qs(urlsplit(location).query) == {"next": [path]}
    field = re.search(r'name="next" value="([^"]*)"', client.get(location).text)[1]
    fields = {"token": make_token(seat.workspace).text, "next": unescape(field)}
    assert client.post("/login/link", data=fields, headers=OWN).headers["location"] == path


@pytest.mark.parametrize(
    ("referer", "target"),
    [(f"{ADDRESS}/principals/p_x?done=granted", "/principals/p_x?done=granted"), (f"{ADDRESS}//evil.example", "/"),
     ("http://evil.example/", "/"), (f"{ADDRESS}.evil.example/", "/"), ("", "/")],
)  # fmt: skip
def test_a_form_whose_session_has_ended_comes_back_to_its_page(seated, referer, target):
    answer = seated.client().post("/principals/p_x/grants", headers=OWN | {"Referer": referer})
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {"next": [target]}


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("stanch.console.login.BODY_SECONDS", 0.1)
    sent = [{"type": "http.request", "body": b"a=1", "more_body": True}]

    async def receive():
        return sent.pop() if sent else await asyncio.Event().wait()

    asked = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(InvalidInput, match="within"):
        asyncio.run(asyncio.wait_for(read_body(asked), 5))
