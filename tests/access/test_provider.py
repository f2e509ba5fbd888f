"""The code flow and bearer tokens against a real OpenID provider (npm oidc-provider), on loopback."""

import html
import json
import re
import time
from dataclasses import replace
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from oidc_provider import NEEDED, access_token, exchange, running_provider

from stanch.access.authenticator import Authenticator, Bearer
from stanch.access.issuer import Client, Issuer, Providers
from stanch.access.oidc import CodeFlow
from stanch.access.sessions import Sessions
from stanch.access.strangers import read
from stanch.access.token import Tokens, VerifiedToken
from stanch.errors import ExternalError, NotAuthenticated

REDIRECT = "http://127.0.0.1:9/callback"
AUDIENCE = "urn:stanch:test-workspace"

pytestmark = NEEDED


def fetch(method, url, *, headers, body):
    status, _, answer = exchange(method, url, headers=dict(headers), body=body)
    return status, answer


@pytest.fixture(scope="module")
def url():
    with running_provider(REDIRECT) as address:
        yield address


class Browser:
    """Cookies and redirects, and nothing else of a browser."""

    def __init__(self):
        self.cookies = {}

    def go(self, url, form=None):
        """Follow redirects until a page or the redirect URI, and return both."""
        for _ in range(20):
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
            body = b""
            if form is not None:
                headers["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(form).encode()
            status, answer, page = exchange("POST" if form is not None else "GET", url, headers=headers, body=body)
            for line in answer.get_all("Set-Cookie") or ():
                for name, morsel in SimpleCookie(line).items():
                    self.cookies[name] = morsel.value
            if status not in {302, 303}:
                return url, page.decode()
            location, form = answer["Location"], None
            if location.startswith(REDIRECT):
                return location, ""
            base = urlsplit(url)
            url = location if "://" in location else f"{base.scheme}://{base.netloc}{location}"
        raise AssertionError("too many redirects")

    def submit(self, url, page, **fields):
        """Send the one form of a page."""
        action = html.unescape(re.search(r'<form[^>]*action="([^"]+)"', page)[1])
        form = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page)) | fields
        base = urlsplit(url)
        return self.go(action if "://" in action else f"{base.scheme}://{base.netloc}{action}", form)

    def sign_in(self, url, name):
        """Sign in as anybody and consent; return the parameters that come back."""
        where, page = self.go(url)
        where, page = self.submit(where, page, login=name, password="anything")
        while not where.startswith(REDIRECT):
            where, page = self.submit(where, page)
        return {key: values[0] for key, values in parse_qs(urlsplit(where).query).items()}


@pytest.fixture
def issuer(url):
    client = Client(id="console", secret="a secret of the tests", redirect_uri=REDIRECT)
    return Issuer(url=url, kind="rfc9068", audience=AUDIENCE, client=client)


@pytest.fixture
def flow(issuer):
    return CodeFlow(issuer, Providers(fetch), fetch)


def test_a_person_signs_in_with_a_browser(flow, issuer, people):
    people.clock.seconds = time.time()
    anna = people.directory.register_subject(issuer.url, "anna", display="Anna")
    url, attempt = flow.begin()
    token = flow.finish(attempt, Browser().sign_in(url, "anna"))
    assert token.name == (issuer.url, "anna")
    session = people.directory.vouched(token.name, token.proof)
    assert (session.principal, session.kind, session.mfa) == (anna.id, "oidc", False)
    opened = Sessions(people.tables, bytes(32), clock=people.clock).open_session(session)
    assert people.directory.facts(opened.session).principal.id == anna.id


def test_somebody_unknown_is_refused_and_listed(flow, issuer, people):
    url, attempt = flow.begin()
    token = flow.finish(attempt, Browser().sign_in(url, "eve"))
    with pytest.raises(NotAuthenticated):
        people.directory.vouched(token.name, token.proof)
    with people.tables.read() as connection:
        assert [(one.issuer, one.subject) for one in read(connection)] == [(issuer.url, "eve")]


def test_a_code_is_good_once_and_for_its_own_attempt(flow):
    url, attempt = flow.begin()
    returned = Browser().sign_in(url, "anna")
    _, other = flow.begin()
    with pytest.raises(NotAuthenticated):
        flow.finish(other, returned)  # another state
    with pytest.raises(NotAuthenticated):
        flow.finish(other, returned | {"state": other.state})  # another PKCE verifier
    assert flow.finish(attempt, returned).subject == "anna"
    with pytest.raises(NotAuthenticated):
        flow.finish(attempt, returned)  # the code is used up


def test_the_answer_of_another_issuer_is_refused(flow):
    url, attempt = flow.begin()
    returned = Browser().sign_in(url, "anna")
    assert returned["iss"]
    for change in ({"iss": "https://evil.example"}, {"code": ""}, {"error": "access_denied"}):
        with pytest.raises(NotAuthenticated):
            flow.finish(attempt, returned | change)
    with pytest.raises(NotAuthenticated):
        flow.finish(attempt, {key: value for key, value in returned.items() if key != "iss"})
    assert flow.finish(attempt, returned).subject == "anna"


def test_a_step_up_without_second_factor_is_a_fresh_sign_in_without_one(flow):
    url, attempt = flow.begin(step_up=True)
    token = flow.finish(attempt, Browser().sign_in(url, "anna"))
    assert not token.proof.mfa
    assert token.auth_ms >= attempt.begun_ms - 60_000


def test_a_step_up_needs_a_sign_in_since_it_began_and_an_issuer_that_says_so(flow, monkeypatch):
    url, attempt = flow.begin(step_up=True)
    later = replace(attempt, begun_ms=attempt.begun_ms + 61_000)
    monkeypatch.setattr(flow, "_now", lambda: later.begun_ms)
    with pytest.raises(NotAuthenticated):
        flow.finish(later, Browser().sign_in(url, "anna"))
    monkeypatch.undo()
    url, attempt = flow.begin(step_up=True)
    monkeypatch.setattr(VerifiedToken, "auth_ms", 0)
    with pytest.raises(ExternalError, match="do not say when a person signed in"):
        flow.finish(attempt, Browser().sign_in(url, "anna"))


def test_when_the_person_signed_in_is_asked_for_as_a_claim_where_the_issuer_takes_that(flow, monkeypatch):
    assert "claims=" not in flow.begin()[0]
    taking = {**flow._providers.provider(flow._issuer).metadata, "claims_parameter_supported": True}
    provider = replace(flow._providers.provider(flow._issuer), metadata=taking)
    monkeypatch.setattr(flow._providers, "provider", lambda _issuer: provider)
    (asked,) = parse_qs(urlsplit(flow.begin()[0]).query)["claims"]
    assert json.loads(asked) == {"id_token": {"auth_time": {"essential": True}}}


def test_a_service_comes_in_with_an_access_token(url, issuer, people):
    people.clock.seconds = time.time()
    bot = people.directory.register_subject(url, "service", display="bot", kind="service")
    authenticator = Authenticator(people.directory, tokens=Tokens([issuer], Providers(fetch)))
    session = authenticator.authenticate(Bearer(access_token(url, AUDIENCE), "127.0.0.1"))
    assert (session.principal, session.kind) == (bot.id, "oidc")
    assert session.key_id.startswith("jti:")
    assert people.directory.facts(session).principal.id == bot.id


def test_an_id_token_is_no_access_token_and_the_other_way_round(flow, issuer, url):
    begun, attempt = flow.begin()
    caught = {}

    def listen(method, where, *, headers, body):
        status, answer = fetch(method, where, headers=headers, body=body)
        if where.endswith("/token"):
            caught["id_token"] = re.search(rb'"id_token":"([^"]+)"', answer)[1].decode()
        return status, answer

    providers = Providers(fetch)
    CodeFlow(issuer, providers, listen).finish(attempt, Browser().sign_in(begun, "anna"))
    tokens = Tokens([issuer], providers)
    with pytest.raises(NotAuthenticated):
        tokens.bearer(caught["id_token"])
    with pytest.raises(NotAuthenticated):
        tokens.id_token(access_token(url, AUDIENCE), issuer, nonce=attempt.nonce)
