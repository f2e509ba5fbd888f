"""The code flow, without a browser: what is asked of a provider, and each answer that is refused."""

import base64
import hashlib
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from stanch.access.issuer import Client, Issuer, Providers
from stanch.access.oidc import CodeFlow
from stanch.errors import ExternalError, InvalidInput, NotAuthenticated

URL = "https://issuer.example"
OTHER = "https://other.example"
NOW = 1_767_225_600
KEY = ECKey.generate_key("P-256", {"kid": "k"})
SECRET = Client(id="a b", secret="s:é", redirect_uri="https://console.example/back")
PUBLIC = replace(SECRET, secret="")


class Clock:
    def __init__(self):
        self.seconds = float(NOW)

    def __call__(self):
        return self.seconds


class World:
    """A provider, the clock, and what its token endpoint was sent."""

    def __init__(self, client=SECRET, **issuer):
        self.clock, self.sent, self.claims, self.status = Clock(), [], {"sub": "anna"}, 200
        self.metadata = {
            "issuer": URL, "jwks_uri": f"{URL}/jwks", "authorization_endpoint": f"{URL}/auth",
            "token_endpoint": f"{URL}/token",
        }  # fmt: skip
        self.issuer = Issuer(url=URL, kind="rfc9068", audience="w", client=client, **issuer)
        self.drawn = iter(range(256))
        providers = Providers(self.fetch, clock=self.clock)
        self.flow = CodeFlow(self.issuer, providers, self.fetch, clock=self.clock, rng=self.draw)

    def draw(self, size):
        return bytes([next(self.drawn)]) * size

    def fetch(self, method, url, *, headers, body):
        if url != f"{URL}/token":
            shown = {"keys": [KEY.as_dict(private=False)]} if url == f"{URL}/jwks" else self.metadata
            return 200, json.dumps(shown).encode()
        self.sent.append((method, headers, {name: value for name, (value,) in parse_qs(body.decode()).items()}))
        claims = {"iss": URL, "aud": self.issuer.client.id, "iat": NOW, "exp": NOW + 300} | self.claims
        token = jwt.encode({"alg": "ES256", "kid": "k"}, claims, KEY)
        return self.status, json.dumps({"id_token": token}).encode()

    def begin(self, **options):
        url, attempt = self.flow.begin(**options)
        self.claims["nonce"] = attempt.nonce
        return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}, attempt

    def finish(self, attempt, **changes):
        returned = {"state": attempt.state, "code": "c", "iss": URL} | changes
        return self.flow.finish(attempt, {name: value for name, value in returned.items() if value is not None})

    def refused(self, attempt, **changes):
        """Return why; from outside every refusal is the same."""
        with pytest.raises(NotAuthenticated) as caught:
            self.finish(attempt, **changes)
        assert str(caught.value) == "not authenticated"
        return str(caught.value.__cause__)


def text(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_what_the_browser_is_sent_with():
    world = World(acr=frozenset({"gold", "silver", "iron", "tin", "lead", "zinc"}))
    asked, attempt = world.begin()
    state, nonce, verifier = (text(bytes([n]) * 32) for n in range(3))
    assert (attempt.issuer, attempt.state, attempt.nonce, attempt.verifier) == (URL, state, nonce, verifier)
    assert (attempt.begun_ms, attempt.step_up) == (NOW * 1000, False)
    assert not {state, nonce, verifier} & set(repr(attempt).split("'"))
    assert world.flow.begin()[0].startswith(f"{URL}/auth?")
    assert asked == {
        "response_type": "code", "client_id": "a b", "redirect_uri": SECRET.redirect_uri, "scope": "openid",
        "state": state, "nonce": nonce, "code_challenge": text(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256", "max_age": "28800",
    }  # fmt: skip
    again, attempt = world.begin(step_up=True)
    assert attempt.step_up
    assert {name: again.get(name) for name in again.keys() - asked.keys() | {"max_age"}} == {
        "prompt": "login", "max_age": "0", "acr_values": "gold iron lead silver tin zinc",
    }  # fmt: skip
    assert "acr_values" not in World().begin(step_up=True)[0]


@pytest.mark.parametrize("supported", [True, False, "yes"])
def test_the_time_of_the_sign_in_is_asked_for_where_the_provider_takes_that(supported):
    world = World()
    world.metadata["claims_parameter_supported"] = supported
    asked, _ = world.begin()
    wanted = {"id_token": {"auth_time": {"essential": True}}}
    assert json.loads(asked.get("claims", "null")) == (wanted if supported is True else None)


def test_a_client_with_a_secret_shows_it_in_a_header_alone():
    world = World()
    _, attempt = world.begin()
    assert world.finish(attempt).name == (URL, "anna")
    ((method, headers, form),) = world.sent
    assert method == "POST"
    assert headers == {
        "Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json",
        "Authorization": f"Basic {base64.b64encode(b'a+b:s%3A%C3%A9').decode()}",
    }  # fmt: skip
    assert form == {
        "grant_type": "authorization_code", "code": "c", "redirect_uri": SECRET.redirect_uri,
        "code_verifier": attempt.verifier,
    }  # fmt: skip


def test_a_public_client_names_itself():
    world = World(PUBLIC)
    world.finish(world.begin()[1])
    ((_, headers, form),) = world.sent
    assert "Authorization" not in headers
    assert form["client_id"] == "a b"


def test_an_attempt_is_over_after_ten_minutes():
    world = World()
    _, attempt = world.begin()
    world.clock.seconds = NOW + 599.999
    world.claims |= {"iat": NOW + 600, "exp": NOW + 900}
    world.finish(attempt)
    for seconds in (600, -0.001):
        world.clock.seconds = NOW + seconds
        assert "attempt is over" in world.refused(attempt)


def test_what_comes_back_is_for_this_attempt_at_this_issuer():
    world = World()
    _, attempt = world.begin()
    assert "another issuer" in world.refused(replace(attempt, issuer=OTHER))
    for state in ("x", "", None, "é"):
        assert "another browser" in world.refused(attempt, state=state)
    assert "another issuer" in world.refused(attempt, iss=OTHER)
    for changes in ({"error": "access_denied"}, {"error": ""}, {"code": ""}, {"code": None}):
        assert "the provider refused" in world.refused(attempt, **changes)
    assert world.sent == []
    assert world.finish(attempt, iss=None).subject == "anna"


@pytest.mark.parametrize("named", [True, False, "yes"])
def test_a_provider_that_always_names_itself_has_to(named):
    world = World()
    world.metadata["authorization_response_iss_parameter_supported"] = named
    _, attempt = world.begin()
    if named is True:
        assert "another issuer" in world.refused(attempt, iss=None)
    else:
        assert world.finish(attempt, iss=None).subject == "anna"
    assert world.finish(attempt).subject == "anna"


def test_the_token_is_of_this_sign_in():
    world = World()
    _, attempt = world.begin()
    world.status = 400
    assert "status 400" in world.refused(attempt)
    world.status = 200
    world.claims["nonce"] = world.begin()[1].state
    assert "another sign-in" in world.refused(attempt)


def test_a_step_up_is_a_sign_in_since_it_began():
    """A minute of leeway: the clocks of two machines."""
    world = World()
    _, attempt = world.begin(step_up=True)
    with pytest.raises(ExternalError, match="do not say when"):
        world.finish(attempt)
    world.claims["auth_time"] = NOW - 60
    assert world.finish(attempt).subject == "anna"
    world.clock.seconds += 1
    assert world.refused(replace(attempt, begun_ms=attempt.begun_ms + 1)) == "None"  # the code was good
    world.claims["auth_time"] = NOW - 61
    assert world.refused(attempt) == "None"
    assert world.finish(replace(attempt, step_up=False)).subject == "anna"


def test_an_issuer_without_a_client_is_for_programs():
    world = World()
    issuer = replace(world.issuer, client=None)
    with pytest.raises(InvalidInput, match="has no client"):
        CodeFlow(issuer, Providers(world.fetch), world.fetch)


def test_a_provider_without_an_endpoint_is_of_no_use():
    world = World()
    del world.metadata["authorization_endpoint"]
    with pytest.raises(ExternalError, match="authorization_endpoint"):
        world.flow.begin()
