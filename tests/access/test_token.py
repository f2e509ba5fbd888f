"""Forged and misused tokens, each refused for its own reason and all with one message; and the rules of key sets."""

import base64
import hmac
import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from stanch.access.issuer import Client, Issuer, Providers
from stanch.access.token import Tokens
from stanch.errors import ExternalError, InvalidInput, NotAuthenticated

URL = "https://issuer.example"
AUDIENCE = "example.com/stanch"
NOW = 1_767_225_600
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
WEAK = RSA.as_dict(private=False) | {"kid": "weak", "n": "A" * 171}
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
CLAIMS = {
    "iss": URL, "sub": "bot", "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, "jti": "t1", "client_id": "c",
}  # fmt: skip


class Clock:
    def __init__(self):
        self.seconds = float(NOW)

    def __call__(self):
        return self.seconds


class Web:
    """What an issuer publishes, and how often it was asked."""

    def __init__(self, *keys):
        self.keys = [key.as_dict(private=False) for key in keys]
        self.asked = 0
        self.metadata = {"issuer": URL, "jwks_uri": f"{URL}/jwks"}
        self.up = True

    def __call__(self, _method, url, **_):
        if not self.up:
            raise ExternalError("no route")
        if url.endswith("/jwks"):
            self.asked += 1
            return 200, json.dumps({"keys": self.keys}).encode()
        return 200, json.dumps(self.metadata).encode()


@pytest.fixture(autouse=True)
def _quiet():
    """joserfc warns of the name EdDSA when a test signs with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield


def sign(claims=None, key=EC, alg="ES256", **header):
    return jwt.encode(
        {"alg": alg, "typ": "at+jwt", "kid": key.kid} | header, CLAIMS | (claims or {}), key, algorithms=[alg]
    )


def without(name):
    claims = {key: value for key, value in CLAIMS.items() if key != name}
    return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "ec"}, claims, EC)


def raw(header, claims, signature=b""):
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def issuer(**changes):
    return Issuer(**({"url": URL, "kind": "rfc9068", "audience": AUDIENCE} | changes))


def tokens(*issuers, web=None, clock=None):
    clock = clock or Clock()
    providers = Providers(web or Web(RSA, EC, ED), clock=clock)
    return Tokens(issuers or [issuer()], providers, clock=clock)


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA")])
def test_each_accepted_algorithm(key, alg):
    found = tokens().bearer(sign(key=key, alg=alg))
    assert found.name == (URL, "bot")
    assert (found.proof.credential, found.proof.mfa, found.proof.expires_ms) == ("jti:t1", False, (NOW + 300) * 1000)


def hs256(claims):
    """A token under HMAC with the public key as its secret, as an attacker makes it."""
    unsigned = raw({"alg": "HS256", "typ": "at+jwt", "kid": "ec"}, claims).rpartition(".")[0]
    mac = hmac.digest(EC.as_pem(private=False), unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def joined(*tokens):
    """Header, claims and signature, each of another token."""
    return ".".join(token.split(".")[index] for index, token in enumerate(tokens))


TWICE = base64.urlsafe_b64encode(b'{"iss":"a","iss":"b"}').decode()
CRITICAL = {"alg": "ES256", "typ": "at+jwt", "kid": "ec", "crit": ["b64"], "b64": False}
FORGED = {
    "alg none": (raw({"alg": "none", "typ": "at+jwt", "kid": "ec"}, CLAIMS), "algorithm"),
    "alg None": (raw({"alg": "None", "typ": "at+jwt", "kid": "ec"}, CLAIMS), "algorithm"),
    "HS256 with the public key": (hs256(CLAIMS), "algorithm"),
    "no alg": (raw({"typ": "at+jwt", "kid": "ec"}, CLAIMS), "algorithm"),
    "another key": (sign(key=STRANGER), "signature"),
    "the algorithm of another key": (
        raw({"alg": "RS256", "typ": "at+jwt", "kid": "ec"}, CLAIMS, b"x" * 256),
        "signature",
    ),
    "claims changed": (joined(sign(), sign({"sub": "root"}), sign()), "signature"),
    "no signature": (sign().rpartition(".")[0] + ".", "signature"),
    "unknown kid": (sign(kid="other"), None),
    "no kid": (sign(kid=""), "header"),
    "critical extension": (raw(CRITICAL, CLAIMS), "header"),
    "an ID token": (sign(typ="JWT"), "another kind"),
    "no typ": (jwt.encode({"alg": "ES256", "kid": "ec"}, CLAIMS, EC), "another kind"),
    "bound to a certificate": (sign({"cnf": {"x5t#S256": "A" * 43}}), "bound to a key"),
    "another issuer": (sign({"iss": "https://evil.example"}), "unknown issuer"),
    "an issuer with a slash": (sign({"iss": URL + "/"}), "unknown issuer"),
    "another audience": (sign({"aud": "somebody"}), "another audience"),
    "part of the audience": (sign({"aud": AUDIENCE[:-1]}), "another audience"),
    "no audience": (without("aud"), "without an audience"),
    "audience of numbers": (sign({"aud": [1]}), "without an audience"),
    "expired": (sign({"exp": NOW - 60, "iat": NOW - 400}), "expired"),
    "no exp": (without("exp"), "without exp"),
    "exp as text": (sign({"exp": "9999999999"}), "without exp"),
    "exp true": (sign({"exp": True}), "without exp"),
    "not valid yet": (sign({"nbf": NOW + 61}), "not valid yet"),
    "issued in the future": (sign({"iat": NOW + 61, "exp": NOW + 400}), "not valid yet"),
    "no iat": (without("iat"), "without iat"),
    "valid for more than a day": (sign({"exp": NOW + 86_401}), "too long"),
    "no subject": (without("sub"), "without a subject"),
    "empty subject": (sign({"sub": ""}), "without a subject"),
    "subject as a number": (sign({"sub": 7}), "without a subject"),
    "no jti": (without("jti"), "without jti"),
    "another party": (sign({"azp": "other"}), "another authorised party"),
    "too long": ("a" * 16_385, "not a signed token"),
    "no token": ("", "not a signed token"),
    "two names for one claim": (joined(sign(), f".{TWICE}.", sign()), "not a signed token"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_and_misused_tokens(name):
    token, reason = FORGED[name]
    with pytest.raises(NotAuthenticated) as caught:
        tokens().bearer(token)
    assert str(caught.value) == "not authenticated"
    assert reason is None or reason in str(caught.value.__cause__)


def test_the_edges_of_time():
    clock = Clock()
    both = tokens(clock=clock)
    clock.seconds = NOW + 300 + 59.9
    both.bearer(sign())
    clock.seconds = NOW + 300 + 60
    with pytest.raises(NotAuthenticated):
        both.bearer(sign())
    tokens().bearer(sign({"exp": NOW + 86_400}))
    tokens().bearer(sign({"nbf": NOW + 60}))


def test_a_second_factor_is_what_the_issuer_says():
    assert tokens().bearer(sign({"amr": ["pwd", "mfa"]})).proof.mfa
    assert not tokens().bearer(sign({"amr": "mfa"})).proof.mfa
    assert not tokens().bearer(sign({"acr": "gold"})).proof.mfa
    assert tokens(issuer(acr=frozenset({"gold"}))).bearer(sign({"acr": "gold"})).proof.mfa


def test_a_workload_needs_its_conditions_and_one_audience():
    conditions = {"repository": "acme/app", "kubernetes.io/serviceaccount/name": "bot"}
    strict = tokens(issuer(kind="workload", claims=conditions))
    good = {"repository": "acme/app", "kubernetes.io": {"serviceaccount": {"name": "bot"}}}
    assert strict.bearer(sign(good, typ="JWT")).subject == "bot"
    bad = (
        {}, good | {"repository": "evil/app"}, good | {"kubernetes.io": {"serviceaccount": "bot"}},
        good | {"aud": [AUDIENCE, "other"]},
    )  # fmt: skip
    for claims in bad:
        with pytest.raises(NotAuthenticated):
            strict.bearer(sign(claims, typ="JWT"))
    with pytest.raises(NotAuthenticated):
        strict.bearer(sign(good))  # an access token


def test_an_id_token_belongs_to_its_client_and_its_sign_in():
    client = Client(id="console", secret="", redirect_uri="https://console.example/back")
    ours = issuer(client=client)
    both, claims = tokens(ours), {"aud": "console", "nonce": "n"}
    assert both.id_token(sign(claims, typ="JWT"), ours, nonce="n").subject == "bot"
    assert both.id_token(sign(claims | {"aud": ["console", "x"], "azp": "console"}, typ="JWT"), ours, nonce="n")
    for bad in ({"nonce": "m"}, {"aud": "other"}, {"azp": "other"}, {"aud": ["console", "x"]}, {"nonce": None}):
        with pytest.raises(NotAuthenticated):
            both.id_token(sign(claims | bad, typ="JWT"), ours, nonce="n")
    with pytest.raises(NotAuthenticated):
        both.id_token(sign(claims), ours, nonce="n")  # an access token


def test_a_key_set_is_used_for_five_minutes_and_never_longer_than_a_day():
    web, clock = Web(EC), Clock()
    providers = Providers(web, clock=clock)
    providers.key(issuer(), "ec")
    clock.seconds += 299
    providers.key(issuer(), "ec")
    assert web.asked == 1
    clock.seconds += 1
    providers.key(issuer(), "ec")
    assert web.asked == 2
    web.up = False
    clock.seconds += 86_399
    providers.key(issuer(), "ec")
    clock.seconds += 1
    with pytest.raises(ExternalError):
        providers.key(issuer(), "ec")


def test_an_unknown_key_asks_again_at_most_once_a_minute():
    web, clock = Web(EC), Clock()
    providers = Providers(web, clock=clock)
    for _ in range(5):
        with pytest.raises(ExternalError):
            providers.key(issuer(), "new")
    assert web.asked == 1
    clock.seconds += 60
    web.keys.append(ED.as_dict(private=False) | {"kid": "new"})
    providers.key(issuer(), "new")
    assert web.asked == 2


def test_what_is_no_signature_key_is_left_out():
    web = Web(EC)
    web.keys += [
        {"kty": "oct", "kid": "secret", "k": "AAAA"}, {"kty": "EC", "kid": "broken"}, "x",
        EC.as_dict(private=False) | {"kid": "enc", "use": "enc"}, STRANGER.as_dict(private=False) | {"kid": "ec"},
        EC.as_dict(private=True) | {"kid": "private"}, WEAK,
    ]  # fmt: skip
    providers = Providers(web, clock=Clock())
    assert set(providers.provider(issuer()).keys) == {"ec"}


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"}, {"jwks_uri": "http://issuer.example/jwks"}, {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)  # fmt: skip
def test_an_issuer_that_publishes_something_else_is_not_believed(change):
    web = Web(EC)
    web.metadata |= change
    with pytest.raises(NotAuthenticated):
        tokens(web=web).bearer(sign())


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://issuer.example"}, {"url": "https://user@issuer.example"}, {"kind": "workload"},
        {"algorithms": frozenset()}, {"algorithms": frozenset({"HS256"})}, {"algorithms": frozenset({"none"})},
        {"audience": ""}, {"url": "issuer.example"},
        {"client": Client(id="c", secret="", redirect_uri="http://console.example")},
    ],
)  # fmt: skip
def test_an_issuer_is_trusted_only_safely(changes):
    with pytest.raises(InvalidInput):
        issuer(**changes)


PART = "[A-Za-z0-9_-]{0,40}"
ANY = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.lists(st.text(max_size=3))
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "aud", "exp", "iat", "sub", "nbf", "amr", "azp"])
SHARED = tokens()


@given(st.text(max_size=200) | st.from_regex(rf"{PART}\.{PART}\.{PART}", fullmatch=True))
def test_any_text_is_refused(text):
    with pytest.raises(NotAuthenticated):
        SHARED.bearer(text)


@given(st.dictionaries(NAMES, ANY), st.dictionaries(NAMES, ANY))
def test_any_header_and_claims_are_refused_without_a_signature(header, claims):
    with pytest.raises(NotAuthenticated):
        SHARED.bearer(raw({"alg": "ES256", "kid": "ec"} | header, {"iss": URL} | claims, b"x" * 64))
