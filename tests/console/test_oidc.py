"""Signing in with a real OpenID provider (npm oidc-provider), on loopback."""

import base64
import html
import http.client
import re
import sys
import time
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from seating import ADDRESS
from test_login import ELSEWHERE

sys.path.insert(0, str(Path(__file__).parents[1] / "access"))  # the test folders are no packages

from oidc_provider import NEEDED, running_provider

from stanch.access.directory import Proof
from stanch.access.issuer import Client, Issuer, Providers
from stanch.access.oidc import ATTEMPT_MS, CodeFlow
from stanch.access.token import VerifiedToken
from stanch.console.app import build_app
from stanch.console.login import cookie_name
from stanch.errors import NotAuthenticated
from stanch.workspace.incoming import fetch_web
from stanch.workspace.verbs_access import Newcomer, register_newcomer

CALLBACK = f"{ADDRESS}/callback"

pytestmark = NEEDED


@pytest.fixture(scope="module")
def provider():
    with running_provider(CALLBACK) as address:
        yield address


def sign_in_there(url, name):
    """Do at the provider what a person does; return the address to which the browser is sent back."""
    cookies, form = {}, None
    for _ in range(20):
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)
        headers = {"Cookie": "; ".join(f"{key}={value}" for key, value in cookies.items())}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(form) if form is not None else None
        connection.request("POST" if body else "GET", f"{parts.path}?{parts.query}", body, headers)
        answer = connection.getresponse()
        page = answer.read().decode()
        connection.close()
        for line in answer.headers.get_all("Set-Cookie") or ():
            cookies |= {key: morsel.value for key, morsel in SimpleCookie(line).items()}
        if answer.status in {302, 303}:
            url, form = answer.headers["Location"], None
            if url.startswith(CALLBACK):
                return url
        else:
            url = html.unescape(re.search(r'<form[^>]*action="([^"]+)"', page)[1])
            form = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page))
            form |= {"login": name, "password": "anything"}
        if "://" not in url:
            url = f"{parts.scheme}://{parts.netloc}{url}"
    raise AssertionError("too many pages")


@pytest.fixture
def there(seat, provider):
    """The seat with that provider as a way in, and anna registered."""
    seat.app = build_app(seat.workspace, address=ADDRESS)
    client = Client(id="console", secret="a secret of the tests", redirect_uri=CALLBACK)
    issuer = Issuer(url=provider, kind="rfc9068", audience="urn:x", client=client)
    flow = CodeFlow(issuer, Providers(fetch_web), fetch_web)
    seat.app.serving.desk = replace(seat.app.desk, flows={provider: flow})
    register_newcomer(seat.workspace, Newcomer(name="Anna", kind="user", issuer=provider, subject="anna"))
    return seat


def begin(client, provider, target="/"):
    answer = client.post("/login", data={"issuer": provider, "next": target}, headers={"Origin": ADDRESS})
    assert answer.status_code == 200
    return onward(answer.text)


def onward(page):
    """Return where a page goes on to by itself, which is where its link leads."""
    goes_on = re.search(r'content="0;url=([^"]+)"', page)[1]
    assert f'<a href="{goes_on}">Go on' in page
    return html.unescape(goes_on)


def come_back(client, url):
    return client.get(url.removeprefix(ADDRESS))


def test_a_person_signs_in_at_the_issuer(there, provider):
    client = there.client()
    url = begin(client, provider, "/access?action=log%3Aread")
    assert "code_challenge_method=S256" in url
    assert "max_age=28800" in url
    answer = come_back(client, sign_in_there(url, "anna"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/access?action=log%3Aread")
    assert "Anna" in client.get("/").text
    assert abs(signed_in(there) - 1000 * time.time()) < 60_000, "the provider says when"


def signed_in(there):
    with there.workspace.tables.read() as connection:
        return connection.exec_driver_sql("SELECT max(auth_ms) FROM session_").scalar()


@pytest.mark.parametrize(("ago", "is_fresh"), [(8 * 3600, False), (None, False), (60, True)])
def test_who_signed_in_there_this_morning_did_not_just_now(there, provider, monkeypatch, ago, is_fresh):
    claims = {} if ago is None else {"auth_time": int(time.time()) - ago}
    issued = VerifiedToken(provider, "anna", Proof(kind="oidc", credential="t", mfa=True, expires_ms=2**53), claims)
    monkeypatch.setattr(CodeFlow, "finish", lambda *_: issued)
    client = there.client()
    begin(client, provider)
    assert come_back(client, CALLBACK).status_code == 303
    assert signed_in(there) == 1000 * claims.get("auth_time", 0)
    cookie = client.cookies[cookie_name(there.app.desk)]
    assert there.app.desk.sessions.resume(cookie).mfa is is_fresh


def test_a_sign_in_lands_on_the_page_that_was_asked_for_and_nowhere_else(there, provider, monkeypatch):
    issued = VerifiedToken(provider, "anna", Proof(kind="oidc", credential="t", mfa=True, expires_ms=2**53), {})
    monkeypatch.setattr(CodeFlow, "finish", lambda *_: issued)
    client = there.client()
    for target in ("/log?kind=tune.run&principal=a%20b", *ELSEWHERE):
        wanted = "/" if target in ELSEWHERE else target
        url = begin(client, provider, target)
        assert not re.search("evil|tune", url)  # the address stays here
        assert come_back(client, CALLBACK).headers["location"] == wanted
        client.cookies.clear()
        begin(client, provider)
        name, attempts = cookie_name(there.app.desk, "attempt"), there.app.desk.attempts
        sealed = attempts.seal(attempts.open(client.cookies[name])[0], target)  # sealed by us, and yet no way out
        client.cookies.clear()
        client.cookies[name] = sealed
        assert come_back(client, CALLBACK).headers["location"] == wanted


def test_another_browser_cannot_bring_the_code_back(there, provider):
    """Otherwise somebody could sign a victim's browser in as himself (login forgery)."""
    back = sign_in_there(begin(there.client(), provider), "anna")
    assert come_back(there.client(), back).status_code == 401
    third = there.client()
    begin(third, provider)
    assert come_back(third, back).status_code == 401


def test_somebody_unknown_is_refused_and_a_code_is_good_once(there, provider):
    client = there.client()
    assert come_back(client, sign_in_there(begin(client, provider), "eve")).status_code == 401
    other = there.client()
    back = sign_in_there(begin(other, provider), "anna")
    assert come_back(other, back).status_code == 303
    assert come_back(other, back).status_code == 401


def test_a_sign_in_that_is_under_way_is_sealed_for_the_browser_that_began_it(there, provider):
    attempts = there.app.desk.attempts
    _, attempt = there.app.desk.flows[provider].begin()
    sealed = attempts.seal(attempt, "/log")
    assert attempts.open(sealed) == (attempt, "/log")
    assert attempt.state not in base64.urlsafe_b64decode(sealed).decode("latin-1")
    for bad in ("", "x", sealed[:-4], sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:], "A" * 5000, "ü"):
        with pytest.raises(NotAuthenticated):
            attempts.open(bad)
    stale = attempts.seal(replace(attempt, begun_ms=attempt.begun_ms - ATTEMPT_MS), "/")
    client = there.client()
    client.cookies[cookie_name(there.app.desk, "attempt")] = stale
    assert come_back(client, f"{CALLBACK}?code=x&state={attempt.state}").status_code == 401


@pytest.mark.parametrize("name", ["anna", "bert"])
def test_a_step_up_without_a_second_factor_is_a_new_sign_in_of_the_same_person(there, provider, name):
    if name == "bert":
        register_newcomer(there.workspace, Newcomer(name="Bert", kind="user", issuer=provider, subject="bert"))
    client = there.client()
    assert come_back(client, sign_in_there(begin(client, provider), "anna")).status_code == 303
    before = client.cookies[cookie_name(there.app.desk)]
    with there.workspace.tables.write() as connection:  # an hour ago
        connection.exec_driver_sql("UPDATE session_ SET auth_ms = auth_ms - 3600000")
    answer = client.post(
        "/login", data={"issuer": provider, "next": "/log", "step_up": "1"}, headers={"Origin": ADDRESS}
    )
    url = onward(answer.text)
    assert "prompt=login" in url
    answer = come_back(client, sign_in_there(url, name))
    if name == "bert":
        assert answer.status_code == 401
        return
    assert (answer.status_code, answer.headers["location"]) == (303, "/log")
    after = client.cookies[cookie_name(there.app.desk)]
    assert after != before
    session = there.app.desk.sessions.resume(after)
    assert not session.mfa
    assert abs(session.started_ms - 1000 * time.time()) < 60_000
    with pytest.raises(NotAuthenticated):
        there.app.desk.sessions.resume(before)
