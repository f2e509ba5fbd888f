"""Forged and misused tokens, each refused for its own reason and all with one message; and the rules of key sets."""

import base64
import hmac
import json
import warnings
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from stanch.access.issuer import Client, Issuer, Providers, read_object
from stanch.access.token import Tokens
from stanch.errors import ExternalError, InvalidInput, NotAuthenticated

URL = "https://issuer.example"
AUDIENCE = "example.com/stanch"
NOW = 1_767_225_600
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
PUBLIC = {"EC": EC.as_dict(private=False), "ED": ED.as_dict(private=False)}
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
CLAIMS = {
    "iss": URL, "sub": "bot", "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, "jti": "t1", "client_id": "c",
}  # fmt: skip


@cache
def rsa():
    return RSAKey.generate_key(2048, {"kid": "rsa"})


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

    def __call__(self, method, url, *, headers, body):
        assert (method, headers, body) == ("GET", {"Accept": "application/json"}, b"")
        self.asked += url.endswith("openid-configuration")
        if not self.up:
            raise ExternalError("no route")
        answers = {f"{URL}/.well-known/openid-configuration": self.metadata, f"{URL}/jwks": {"keys": self.keys}}
        return 200, json.dumps(answers[url]).encode()


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


def untyped(claims=CLAIMS):
    return jws.serialize_compact({"alg": "ES256", "kid": "ec"}, json.dumps(claims), EC)


def raw(header, claims, signature=b""):
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def issuer(**changes):
    return Issuer(**({"url": URL, "kind": "rfc9068", "audience": AUDIENCE} | changes))


def tokens(*issuers, web=None, clock=None):
    clock = clock or Clock()
    providers = Providers(web or Web(EC, ED), clock=clock)
    return Tokens(issuers or [issuer()], providers, clock=clock)


@pytest.mark.parametrize(("key", "alg"), [(rsa, "RS256"), (rsa, "PS256"), (lambda: EC, "ES256"), (lambda: ED, "EdDSA")])
def test_each_accepted_algorithm(key, alg):
    found = tokens(web=Web(key())).bearer(sign(key=key(), alg=alg))
    assert found.name == (URL, "bot")
    assert found.proof.kind == "oidc"
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
    "algorithms in a list": (raw({"alg": ["ES256"], "typ": "at+jwt", "kid": "ec"}, CLAIMS), "algorithm"),
    "another key": (sign(key=STRANGER), "signature"),
    "the algorithm of another key": (
        raw({"alg": "RS256", "typ": "at+jwt", "kid": "ec"}, CLAIMS, b"x" * 256),
        "signature",
    ),
    "claims changed": (joined(sign(), sign({"sub": "root"}), sign()), "signature"),
    "no signature": (sign().rpartition(".")[0] + ".", "signature"),
    "unknown kid": (sign(kid="other"), None),
    "no kid": (sign(kid=""), "header"),
    "kid as a number": (raw({"alg": "ES256", "typ": "at+jwt", "kid": 7}, CLAIMS), "header"),
    "critical extension": (raw(CRITICAL, CLAIMS), "header"),
    "an ID token": (sign(typ="JWT"), "another kind"),
    "no typ": (untyped(), "another kind"),
    "bound to a certificate": (sign({"cnf": {"x5t#S256": "A" * 43}}), "bound to a key"),
    "another issuer": (sign({"iss": "https://evil.example"}), "unknown issuer"),
    "an issuer with a slash": (sign({"iss": URL + "/"}), "unknown issuer"),
    "another audience": (sign({"aud": "somebody"}), "another audience"),
    "part of the audience": (sign({"aud": AUDIENCE[:-1]}), "another audience"),
    "no audience": (without("aud"), "without an audience"),
    "audience of numbers": (sign({"aud": [1]}), "without an audience"),
    "audience of a number too": (sign({"aud": [AUDIENCE, 1]}), "without an audience"),
    "audience of nobody": (sign({"aud": []}), "without an audience"),
    "audience as an object": (sign({"aud": {AUDIENCE: 1}}), "without an audience"),
    "expired": (sign({"exp": NOW - 60, "iat": NOW - 400}), "expired"),
    "no exp": (without("exp"), "without exp"),
    "exp as text": (sign({"exp": "9999999999"}), "without exp"),
    "exp true": (sign({"exp": True}), "without exp"),
    "exp beyond all time": (sign({"exp": 1 << 40}), "without exp"),
    "nbf before 1970": (sign({"nbf": -1}), "without nbf"),
    "not valid yet": (sign({"nbf": NOW + 61}), "not valid yet"),
    "issued in the future": (sign({"iat": NOW + 61, "exp": NOW + 400}), "not valid yet"),
    "no iat": (without("iat"), "without iat"),
    "valid for more than a day": (sign({"exp": NOW + 86_401}), "too long"),
    "valid for no time": (sign({"exp": NOW}), "too long"),
    "no subject": (without("sub"), "without a subject"),
    "empty subject": (sign({"sub": ""}), "without a subject"),
    "subject as a number": (sign({"sub": 7}), "without a subject"),
    "subject too long": (sign({"sub": "b" * 513}), "without a subject"),
    "no jti": (without("jti"), "without jti"),
    "empty jti": (sign({"jti": ""}), "without jti"),
    "jti as a number": (sign({"jti": 7}), "without jti"),
    "no client_id": (without("client_id"), "without client_id"),
    "another party": (sign({"azp": "other"}), "another authorised party"),
    "too long": ("a" * 16_385, "not a signed token"),
    "no token": ("", "not a signed token"),
    "four parts": (sign() + ".", "not a signed token"),
    "two parts": (sign().rpartition(".")[0], "not a signed token"),
    "a list for a header": (f"W10.{sign().partition('.')[2]}", "not a signed token"),
    "two names for one claim": (joined(sign(), f".{TWICE}.", sign()), "not a signed token"),
    "line breaks in the signature": (sign() + "\n" * 4, "signature"),
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
    tokens().bearer(sign({"nbf": 0}))
    tokens().bearer(sign({"exp": NOW + 1}))
    assert tokens().bearer(sign({"exp": NOW + 300.9})).proof.expires_ms == (NOW + 300) * 1000


def test_the_longest_token_has_16384_characters():
    room = [sign({"sub": "b", "x": "x" * n}, key=rsa(), alg="RS256") for n in range(11_830, 11_860)]
    longest = next(token for token in room if len(token) == 16_384)
    both = tokens(web=Web(rsa()))
    assert both.bearer(longest).subject == "b"
    with pytest.raises(NotAuthenticated) as caught:
        both.bearer(longest + "A")
    assert str(caught.value.__cause__) == "not a signed token"


def test_a_subject_has_512_characters_at_most():
    assert tokens().bearer(sign({"sub": "b" * 512})).subject == "b" * 512


@pytest.mark.parametrize("typ", ["AT+JWT", "application/at+jwt"])
def test_an_access_token_says_so_in_two_ways(typ):
    assert tokens().bearer(sign(typ=typ)).subject == "bot"


def test_the_party_that_asked_may_be_named_twice():
    assert tokens().bearer(sign({"azp": "c"})).subject == "bot"


@pytest.mark.parametrize(
    ("when", "ms"), [(None, 0), (True, 0), ("1", 0), (1.5, 0), (0, 0), (-1, 0), (1, 1000), (NOW, NOW * 1000)]
)
def test_when_a_person_signed_in_is_a_whole_number_or_unknown(when, ms):
    assert tokens().bearer(sign({} if when is None else {"auth_time": when})).auth_ms == ms


WORKLOAD = {"kind": "workload", "claims": {"sub": "bot"}}


@pytest.mark.parametrize(
    ("jti", "credential"),
    [
        (None, "token"), ("", "token"), (7, "token"), ("é", "token"), ("a\nb", "token"), ("j" * 129, "token"),
        ("j" * 128, "jti:" + "j" * 128), ("j", "jti:j"),
    ],
)  # fmt: skip
def test_the_log_names_a_token_by_its_id_if_that_can_be_written_there(jti, credential):
    assert tokens(issuer(**WORKLOAD)).bearer(sign({"jti": jti}, typ="JWT")).proof.credential == credential


def test_a_workload_need_not_say_of_which_kind_its_token_is():
    for token in (untyped(), sign(typ="")):
        assert tokens(issuer(**WORKLOAD)).bearer(token).subject == "bot"


@pytest.mark.parametrize(("alg", "accepted"), [("PS256", True), ("RS256", False)])
def test_a_key_that_names_its_algorithm_is_for_no_other(alg, accepted):
    web = Web()
    web.keys = [rsa().as_dict(private=False) | {"alg": "PS256"}]
    token = sign(key=rsa(), alg=alg)
    if accepted:
        assert tokens(web=web).bearer(token).subject == "bot"
    else:
        with pytest.raises(NotAuthenticated) as caught:
            tokens(web=web).bearer(token)
        assert str(caught.value.__cause__) == "a key of another algorithm"


def test_a_signature_of_another_curve_does_not_hold():
    """It would verify: ES256 is P-256 and nothing else."""
    key = ECKey.generate_key("P-384", {"kid": "ec"})
    signed = raw({"alg": "ES256", "typ": "at+jwt", "kid": "ec"}, CLAIMS).rpartition(".")[0]
    signature = jws.JWSRegistry.algorithms["ES256"].sign(signed.encode(), key)
    token = f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    with pytest.raises(NotAuthenticated) as caught:
        tokens(web=Web(key)).bearer(token)
    assert str(caught.value.__cause__) == "the signature does not hold"


def test_a_second_factor_is_what_the_issuer_says():
    assert tokens().bearer(sign({"amr": ["pwd", "mfa"]})).proof.mfa
    assert not tokens().bearer(sign({"amr": "mfa"})).proof.mfa
    assert not tokens().bearer(sign({"amr": ["pwd"]})).proof.mfa
    assert not tokens().bearer(sign({"acr": "gold"})).proof.mfa
    assert not tokens(issuer(acr=frozenset({"gold"}))).bearer(sign({"acr": ["gold"]})).proof.mfa
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
    for token in (sign(claims, typ="JWT"), untyped(CLAIMS | claims)):
        assert both.id_token(token, ours, nonce="n").subject == "bot"
    assert both.id_token(sign(claims | {"aud": ["console", "x"], "azp": "console"}, typ="JWT"), ours, nonce="n")
    for bad in ({"nonce": "m"}, {"aud": "other"}, {"azp": "other"}, {"aud": ["console", "x"]}, {"nonce": None}):
        with pytest.raises(NotAuthenticated):
            both.id_token(sign(claims | bad, typ="JWT"), ours, nonce="n")
    with pytest.raises(NotAuthenticated):
        both.id_token(sign(claims), ours, nonce="n")  # an access token
    with pytest.raises(NotAuthenticated):
        both.id_token(sign(claims | {"iat": NOW - 400, "exp": NOW - 60}, typ="JWT"), ours, nonce="n")
    with pytest.raises(NotAuthenticated):
        both.id_token(sign(claims, typ="JWT", kid="unknown"), ours, nonce="n")
    with pytest.raises(NotAuthenticated):
        tokens().id_token(sign(claims, typ="JWT"), issuer(), nonce="n")  # nobody signs in there
    with pytest.raises(NotAuthenticated):
        both.id_token(sign(claims, typ="JWT"), issuer(url="https://other.example", client=client), nonce="n")


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
    clock.seconds += 59.999
    with pytest.raises(ExternalError):
        providers.key(issuer(), "new")
    assert web.asked == 1
    clock.seconds += 0.001
    web.keys.append(PUBLIC["ED"] | {"kid": "new"})
    providers.key(issuer(), "new")
    assert web.asked == 2


def test_an_issuer_that_cannot_be_reached_is_asked_once_a_minute_too():
    web, clock = Web(EC), Clock()
    web.up = False
    providers = Providers(web, clock=clock)
    for wait in (0, 59, 1, -30):  # a clock that was set back puts nothing off
        clock.seconds += wait
        with pytest.raises(ExternalError, match="cannot be had") as caught:
            providers.provider(issuer())
    assert web.asked == 3
    assert "no route" in str(caught.value.__cause__)


def test_an_issuer_whose_name_ends_with_a_slash_is_asked_at_the_same_place():
    web, ours = Web(EC), issuer(url=URL + "/")
    web.metadata["issuer"] = ours.url
    assert set(Providers(web, clock=Clock()).provider(ours).keys) == {"ec"}


def test_what_is_no_signature_key_is_left_out():
    web = Web(EC)
    web.keys += [
        {"kty": "oct", "kid": "secret", "k": "AAAA"}, {"kty": "EC", "kid": "broken"}, "x", {"kid": "no kind"},
        PUBLIC["EC"] | {"kid": "enc", "use": "enc"}, STRANGER.as_dict(private=False) | {"kid": "ec"},
        PUBLIC["EC"] | {"kid": ""}, PUBLIC["EC"] | {"kid": 7}, EC.as_dict(private=True) | {"kid": "private"},
        PUBLIC["EC"] | {"kid": "curve", "crv": "P-1"}, PUBLIC["EC"] | {"kid": "point", "x": PUBLIC["EC"]["y"]},
        PUBLIC["EC"] | {"kid": "letters", "x": "é"}, PUBLIC["ED"] | {"kid": "short", "x": "AAAA"},
        PUBLIC["ED"] | {"kid": "signs", "use": "sig", "x5c": ["AAAA"]},
    ]  # fmt: skip
    keys = Providers(web, clock=Clock()).provider(issuer()).keys
    assert set(keys) == {"ec", "signs"}
    assert keys["ec"].as_dict()["x"] == PUBLIC["EC"]["x"]  # the first of a name


@pytest.mark.parametrize("size", [512, 2040, 2047, 2048])
def test_an_rsa_key_has_2048_bits_however_long_it_is_written(size):
    modulus = ((1 << size) - 1).to_bytes(300, "big")
    web = Web(EC)
    web.keys.append({"kty": "RSA", "kid": "rsa", "e": "AQAB", "n": base64.urlsafe_b64encode(modulus).decode()})
    assert ("rsa" in Providers(web, clock=Clock()).provider(issuer()).keys) is (size >= 2048)


def test_a_key_set_holds_64_keys_at_most():
    web = Web()
    web.keys = [PUBLIC["EC"] | {"kid": str(n)} for n in range(64)]
    assert len(Providers(web, clock=Clock()).provider(issuer()).keys) == 64
    for keys in ([*web.keys, PUBLIC["EC"]], None, {"keys": []}):
        web.keys = keys
        with pytest.raises(ExternalError):
            Providers(web, clock=Clock()).provider(issuer())


def test_an_answer_is_an_object_of_at_most_a_mebibyte():
    assert read_object(200, b"{}".ljust(1 << 20), URL) == {}
    for status, body in ((200, b"{}".ljust((1 << 20) + 1)), (200, b"[]"), (200, b"<html>"), (404, b"{}"), (201, b"{}")):
        with pytest.raises(ExternalError):
            read_object(status, body, URL)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"}, {"jwks_uri": "http://issuer.example/jwks"}, {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": "https://evil@issuer.example/jwks"},
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
        {"audience": ""}, {"url": "issuer.example"}, {"url": "https://"}, {"url": f"{URL}#part"}, {"url": "ftp://localhost"},
        {"client": Client(id="c", secret="", redirect_uri="http://console.example")},
    ],
)  # fmt: skip
def test_an_issuer_is_trusted_only_safely(changes):
    with pytest.raises(InvalidInput):
        issuer(**changes)


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:9"])
def test_this_very_machine_needs_no_tls(url):
    assert issuer(url=url).url == url


def test_a_client_keeps_its_secret_to_itself():
    assert "hush" not in repr(issuer(client=Client(id="c", secret="hush", redirect_uri=URL)))


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
