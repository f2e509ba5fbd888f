"""One-time links into the console; and the one way in for programs."""

import base64
import hashlib
import hmac

import pytest

from stanch.access import ApiKeyOrder, ApiKeys
from stanch.access.authenticator import Authenticator, Bearer, ClientLeaf
from stanch.access.bootstrap import Bootstrap
from stanch.access.directory import Proof
from stanch.access.session import sign_session
from stanch.crypto import frame
from stanch.errors import NotAuthenticated

KEY = bytes(range(32))
QUARTER = 15 * 60


@pytest.fixture
def links(people):
    return Bootstrap(people.tables, KEY, clock=people.clock)


@pytest.fixture
def anna(people):
    return people.add("anna")


def refused(links, text):
    with pytest.raises(NotAuthenticated) as caught:
        links.redeem(text)
    assert str(caught.value) == "not authenticated"


def rows(people, columns):
    with people.tables.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {columns} FROM console_token")]  # noqa: S608


@pytest.mark.parametrize("mfa", [True, False])
def test_a_link_opens_one_session_of_whoever_made_it(people, links, anna, mfa):
    token = links.issue(people.sign_in(anna, mfa=mfa))
    assert token.expires_ms == people.now_ms + QUARTER * 1000
    assert token.text not in repr(token)
    people.clock.seconds += 60
    session = links.redeem(token.text)
    assert (session.principal, session.key_id, session.kind) == (anna, people.keys[anna].key_id, "local")
    assert session.mfa is mfa
    assert (session.started_ms, session.expires_ms) == (people.now_ms, people.now_ms + QUARTER * 1000)
    refused(links, token.text)


def test_a_link_is_good_for_a_quarter_of_an_hour(people, links, anna):
    first, second = (links.issue(people.sign_in(anna)) for _ in range(2))
    people.clock.seconds += QUARTER - 0.001
    links.redeem(first.text)
    people.clock.seconds += 0.001
    refused(links, second.text)


def test_the_table_keeps_a_mac_and_forgets_what_is_over(people, links, anna):
    token = links.issue(people.sign_in(anna))
    secret = base64.urlsafe_b64decode(token.text + "=")
    assert len(secret) == 32
    mac = hmac.digest(KEY, frame(b"stanch/access/v1/bootstrap", secret), hashlib.sha256).hex()
    assert rows(people, "mac, principal, created_ms, used_ms") == [(mac, anna, people.now_ms, None)]
    people.clock.seconds += QUARTER - 0.001
    links.issue(people.sign_in(anna))
    assert len(rows(people, "mac")) == 2
    people.clock.seconds += 0.001
    links.issue(people.sign_in(anna))
    assert len(rows(people, "mac")) == 2


def test_a_link_ends_with_the_key_of_whoever_made_it(people, links, anna):
    token = links.issue(people.sign_in(anna))
    people.replace_key(people.keys[anna].key_id)
    refused(links, token.text)


@pytest.mark.parametrize(
    "change", [lambda _: "", lambda t: t[:-1], lambda t: t + "=", lambda t: t + "A", lambda t: t[:9] + "\n" + t[9:],
               lambda _: "ä" * 43, lambda _: "A" * 43],
)  # fmt: skip
def test_what_is_no_link(people, links, anna, change):
    token = links.issue(people.sign_in(anna))
    refused(links, change(token.text))
    refused(Bootstrap(people.tables, bytes(32), clock=people.clock), token.text)
    links.redeem(token.text)


class Vouching:
    """Tokens and certificates as if each text were good and named its own subject."""

    def bearer(self, text):
        self.name, self.proof = (
            ("https://i.example", text),
            Proof(kind="oidc", credential=text, mfa=False, expires_ms=2**50),
        )
        return self

    def session(self, der, directory):
        proof = Proof(kind="mtls", credential=der.hex(), mfa=False, expires_ms=2**50)
        return directory.vouched(("mtls:x", der.decode()), proof)


@pytest.fixture
def door(people):
    """A door that takes each kind of credential, and one of each, of somebody who is registered."""
    bot = people.add("bot", kind="service")
    keys = ApiKeys(people.tables, {1: bytes(32)}, clock=people.clock)
    order = ApiKeyOrder(principal=bot, models=("workspace",), networks=("10.0.0.0/8",))
    _, secret = keys.issue_key(order, issued_by="p_admin")
    token = people.directory.register_subject("https://i.example", "t", display="t", kind="service").id
    leaf = people.directory.register_subject("mtls:x", "c", display="c", kind="service").id
    anna, challenge = people.add("anna"), people.directory.challenge()
    login = sign_session(people.keys[anna], people.directory.origin, challenge, people.now_ms)
    found = {
        "api-key": (Bearer(secret.text, "10.0.0.1"), bot), "oidc": (Bearer("t", "10.0.0.1"), token),
        "mtls": (ClientLeaf(b"c"), leaf), "local": (login, anna),
    }  # fmt: skip
    return Authenticator(people.directory, keys, Vouching(), Vouching()), found


@pytest.mark.parametrize("kind", ["api-key", "oidc", "mtls", "local"])
def test_each_credential_opens_a_session_of_its_own_kind(door, kind):
    authenticator, found = door
    credential, principal = found[kind]
    session = authenticator.authenticate(credential)
    assert (session.kind, session.principal) == (kind, principal)
    if isinstance(credential, Bearer):
        assert credential.text not in repr(credential)
    assert repr(ClientLeaf(b"leaf")) == "ClientLeaf()"
    remembered = authenticator.recognise(credential)
    assert remembered == (session if kind == "api-key" else None)


@pytest.mark.parametrize("kind", ["api-key", "oidc", "mtls"])
def test_what_a_workspace_has_not_set_up_is_not_accepted(people, door, kind):
    bare, (credential, _) = Authenticator(people.directory), door[1][kind]
    assert bare.recognise(credential) is None
    with pytest.raises(NotAuthenticated, match="not authenticated"):
        bare.authenticate(credential)


def test_an_api_key_is_never_tried_as_a_token(people):
    only_tokens = Authenticator(people.directory, tokens=Vouching())
    with pytest.raises(NotAuthenticated):
        only_tokens.authenticate(Bearer("stk_t", "10.0.0.1"))
    with people.tables.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM stranger").scalar() == 0
