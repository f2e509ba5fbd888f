"""API keys: their text, what they are bound to, and that every refusal looks the same."""

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.access import WORKSPACE, ApiKeyOrder, ApiKeys, Context, ResourceFacts, apikey, decide, default_policies
from stanch.access.apikey import ApiKeyRecord, format_key, key_mac, parse_key
from stanch.access.revision import read_revision
from stanch.crypto import hmac_prf
from stanch.errors import InvalidInput, NotAuthenticated, NotFound

DAY = 86_400
MODEL = "sha256:" + "ab" * 32
PEPPERS = {1: bytes(range(32))}


@pytest.fixture
def keys(people):
    return ApiKeys(people.tables, PEPPERS, clock=people.clock)


@pytest.fixture
def bot(people):
    return people.add("bot", kind="service")


def order(principal, **changes):
    return ApiKeyOrder(**({"principal": principal, "models": (MODEL,), "networks": ("10.0.0.0/8",)} | changes))


def issue(keys, principal, **changes):
    return keys.issue_key(order(principal, **changes), issued_by="p_admin")


def refused(keys, text, address="10.1.2.3"):
    with pytest.raises(NotAuthenticated) as caught:
        keys.authenticate(text, address=address)
    return caught.value.what, caught.value.why, caught.value.next_step


def test_golden_key(load):
    golden = load("api-key.json")
    key_id, secret, pepper = (bytes.fromhex(golden[name]) for name in ("id", "secret", "pepper"))
    assert format_key(key_id, secret) == golden["key"]
    assert len(golden["key"]) == 80
    assert parse_key(golden["key"]) == (golden["key_id"], secret)
    assert key_mac(hmac_prf(pepper), golden["key_id"], secret).hex() == golden["mac"]


@pytest.mark.parametrize(
    "case", json.loads((Path(__file__).parents[1] / "vectors/access/api-key-invalid.json").read_text())
)
def test_what_is_no_key(case):
    with pytest.raises(NotAuthenticated):
        parse_key(case["text"])


@given(st.text(max_size=100) | st.from_regex(r"stk_[a-z2-7]{16}_[a-z2-7]{59}", fullmatch=True))
def test_any_text_is_refused_or_is_the_one_text_of_its_key(text):
    try:
        key_id, secret = parse_key(text)
    except NotAuthenticated:
        return
    assert text.startswith(f"stk_{key_id}_")
    assert len(secret) == 32


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=32, max_size=32))
def test_round_trip(key_id, secret):
    assert parse_key(format_key(key_id, secret))[1] == secret


def test_a_key_opens_a_session_of_its_service(people, keys, bot):
    record, secret = issue(keys, bot)
    session = keys.authenticate(secret.text, address="10.1.2.3")
    assert (session.principal, session.key_id, session.kind, session.mfa) == (bot, record.id, "api-key", False)
    assert session.expires_ms - session.started_ms == 60_000
    facts = people.directory.facts(session)
    assert facts.bounds.models == {MODEL}
    assert facts.bounds.actions == {"model:infer"}


def test_the_secret_is_nowhere_in_the_database_nor_in_a_repr(people, keys, bot):
    record, secret = issue(keys, bot)
    assert secret.text not in repr(secret) + repr(record)
    name = secret.text.split("_")[2][:52].encode()
    with people.tables.read() as connection:
        path = Path(connection.exec_driver_sql("PRAGMA database_list").fetchone()[2])
    data = b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    assert record.id.encode() in data
    assert name not in data
    assert parse_key(secret.text)[1] not in data


def test_the_bounds_hold_whatever_the_service_may_do(people, keys, bot):
    people.directory.grant(bot, "consumer", granted_by="p_x", team=True)
    people.directory.grant(bot, "incident_lead", granted_by="p_x", team=True)
    _, secret = issue(keys, bot)
    facts = people.directory.facts(keys.authenticate(secret.text, address="10.1.2.3"))
    context, policies = Context(team=True), default_policies()

    def ask(action, resource):
        return decide(facts, action, resource, context, policies)

    assert ask("model:infer", ResourceFacts("Model", f"m@{MODEL}")).allowed
    for action, resource in (
        ("model:embed", ResourceFacts("Model", f"m@{MODEL}")),
        ("model:infer", ResourceFacts("Model", "m@sha256:" + "00" * 32)),
        ("log:read", WORKSPACE),
    ):
        refusal = ask(action, resource)
        assert not refusal.allowed
        assert refusal.reasons == ("credential-bounds",)


def test_a_key_for_the_workspace_itself_is_good_for_acts_on_no_single_artifact(people, keys, bot):
    people.directory.grant(bot, "incident_lead", granted_by="p_x", team=True)
    _, secret = issue(keys, bot, models=("workspace",), actions=("log:read",))
    facts = people.directory.facts(keys.authenticate(secret.text, address="10.1.2.3"))
    assert decide(facts, "log:read", WORKSPACE, Context(team=True), default_policies()).allowed


def test_a_session_ends_with_its_key(people, keys, bot):
    _, secret = issue(keys, bot, days=1)
    people.clock.seconds += DAY - 30
    session = keys.authenticate(secret.text, address="10.1.2.3")
    assert session.expires_ms == session.started_ms + 30_000


def test_a_key_is_good_from_its_first_to_its_last_millisecond(people, keys, bot):
    _, secret = issue(keys, bot, days=1)
    people.clock.seconds -= 0.001
    refused(keys, secret.text)
    people.clock.seconds += DAY
    keys.authenticate(secret.text, address="10.1.2.3")
    people.clock.seconds += 0.001
    refused(keys, secret.text)


def test_a_row_under_a_pepper_that_is_not_here_opens_nothing(people, keys, bot):
    """The dummy for unknown keys is known to everybody, so a row that was written with it must not count."""
    record, secret = issue(keys, bot)
    mac = key_mac(hmac_prf(bytes(32)), record.id, parse_key(secret.text)[1])
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE api_key SET pepper = 9, mac = ?", (mac,))
    refused(keys, secret.text)


def test_the_key_of_somebody_erased_or_suspended_is_good_for_nothing(people, keys, bot):
    _, secret = issue(keys, bot)
    people.directory.suspend(bot)
    session = keys.authenticate(secret.text, address="10.1.2.3")
    with pytest.raises(NotAuthenticated, match="suspended"):
        people.directory.facts(session)
    people.directory.suspend(bot, suspended=False)
    people.directory.facts(session)
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE principal SET issuer = NULL, subject = NULL, display = NULL")
    with pytest.raises(NotAuthenticated, match="erased"):
        people.directory.facts(session)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ("UPDATE api_key SET not_before_ms = 1767225600001", False),
        ("UPDATE api_key SET not_before_ms = 1767225600000", True),
        ("UPDATE api_key SET expires_ms = 1767225600000", False),
        ("UPDATE api_key SET expires_ms = 1767225600001", True),
        ("UPDATE api_key SET revoked_ms = 1", False),
        ("DELETE FROM api_key", False),
    ],
)
def test_a_session_is_good_while_the_row_of_its_key_says_so(people, keys, bot, change, valid):
    _, secret = issue(keys, bot)
    issue(keys, bot)
    session = keys.authenticate(secret.text, address="10.1.2.3")
    with people.tables.write() as connection:
        connection.exec_driver_sql(change)
    if valid:
        people.directory.facts(session)
        keys.authenticate(secret.text, address="10.1.2.3")
    else:
        with pytest.raises(NotAuthenticated, match="no longer valid"):
            people.directory.facts(session)
        refused(keys, secret.text)


def test_issuing_and_revoking_are_changes_of_facts(people, keys, bot):
    def revision():
        with people.tables.read() as connection:
            return read_revision(connection).facts

    before = revision()
    record, _ = issue(keys, bot)
    assert revision() == before + 1
    keys.revoke_key(record.id)
    assert revision() == before + 2


def test_what_is_kept_of_a_key(people, keys, bot):
    record, _ = issue(keys, bot, days=366, actions=("model:infer", "model:embed"))
    now, end = people.now_ms, people.now_ms + 366 * DAY * 1000
    assert record == ApiKeyRecord(
        record.id, bot, (MODEL,), ("10.0.0.0/8",), ("model:infer", "model:embed"), now, end, None, "p_admin"
    )
    assert keys.keys() == (record,)
    keys.revoke_key(record.id)
    assert keys.keys() == (dataclasses.replace(record, revoked_ms=now),)
    plain = issue(keys, bot)[0]
    assert (plain.actions, plain.expires_ms) == (("model:infer",), now + 90 * DAY * 1000)


def test_without_a_pepper_no_key_is_made(people, bot):
    with pytest.raises(InvalidInput, match="no pepper"):
        issue(ApiKeys(people.tables, {}, clock=people.clock), bot)


def test_every_refusal_is_the_same(people, keys, bot):
    _, secret = issue(keys, bot, days=1)
    stranger = format_key(bytes(10), bytes(32))
    wrong = format_key(b"\xff" * 10, parse_key(secret.text)[1])
    other = format_key(base64.b32decode(secret.text[4:20].upper()), bytes(32))
    damaged = secret.text[:-1] + ("i" if secret.text.endswith("a") else "a")
    messages = {refused(keys, text) for text in ("", "stk_", stranger, wrong, other, damaged)}
    messages |= {refused(keys, secret.text, address) for address in ("11.0.0.1", "::1", "", "not an address")}
    people.clock.seconds += DAY
    messages.add(refused(keys, secret.text))
    assert len(messages) == 1


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_network_holds_for_mapped_addresses_too(keys, bot, address):
    _, secret = issue(keys, bot)
    keys.authenticate(secret.text, address=address)


def test_revocation_ends_the_key_and_its_sessions(people, keys, bot):
    record, secret = issue(keys, bot)
    session = keys.authenticate(secret.text, address="10.1.2.3")
    keys.revoke_key(record.id)
    refused(keys, secret.text)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(session)
    with pytest.raises(NotFound):
        keys.revoke_key(record.id)


def test_peppers_have_versions(people, keys, bot):
    _, old = issue(keys, bot)
    both = ApiKeys(people.tables, PEPPERS | {2: bytes(32)}, clock=people.clock)
    _, new = issue(both, bot)
    for text in (old.text, new.text):
        both.authenticate(text, address="10.1.2.3")
    only_new = ApiKeys(people.tables, {2: bytes(32)}, clock=people.clock)
    only_new.authenticate(new.text, address="10.1.2.3")
    refused(only_new, old.text)
    refused(keys, new.text)


def test_the_mac_of_nobody_is_as_long_as_any_and_a_kept_one_is_not_shown(keys, bot):
    record, _ = issue(keys, bot)
    mac = key_mac(hmac_prf(bytes(32)), record.id, bytes(32))
    assert len(apikey._NOBODY[1]) == len(mac)
    assert repr(mac) not in repr(apikey._Kept(1, mac, record))


def test_an_unknown_id_costs_a_mac_as_well(keys, bot, monkeypatch):
    _, secret = issue(keys, bot)
    calls = []
    monkeypatch.setattr("stanch.access.apikey.key_mac", lambda *a: calls.append(1) or key_mac(*a))
    refused(keys, format_key(bytes(10), bytes(32)))
    keys.authenticate(secret.text, address="10.1.2.3")
    assert len(calls) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ()}, {"models": ("sha256:00",)}, {"models": (MODEL, MODEL)}, {"networks": ()},
        {"networks": ("10.0.0.1/8",)}, {"networks": ("x",)}, {"actions": ()}, {"days": 0}, {"days": 367},
        {"networks": ("::1",) * 2}, {"actions": ("model:infer",) * 2}, {"actions": ("model:fly",)},
        {"networks": tuple(f"10.0.0.{n}" for n in range(65))},
    ],
)  # fmt: skip
def test_malformed_orders(keys, bot, changes):
    with pytest.raises(InvalidInput):
        issue(keys, bot, **changes)


def test_keys_are_for_services(people, keys):
    with pytest.raises(InvalidInput):
        issue(keys, people.add("anna"))
    with pytest.raises(NotFound):
        issue(keys, "p_nobody")


def test_a_key_has_64_networks_at_most(keys, bot):
    _, secret = issue(keys, bot, networks=tuple(f"10.0.0.{n}" for n in range(64)))
    keys.authenticate(secret.text, address="10.0.0.63")
    refused(keys, secret.text, "10.0.0.64")


def test_keys_are_listed(people, keys, bot):
    record, _ = issue(keys, bot, days=2)
    first, _ = issue(keys, bot, days=1)
    other, _ = issue(keys, people.add("other", kind="service"), days=1)
    pair = sorted([first, other], key=lambda one: one.id)
    assert keys.keys() == (*pair, record)
    assert keys.keys(bot) == (first, record)
    assert keys.keys("p_nobody") == ()


def test_a_key_that_was_seen_just_now_is_recognised_and_no_other(people, bot):
    now = [0.0]
    keys = ApiKeys(people.tables, PEPPERS, clock=people.clock, monotonic=lambda: now[0])
    record, secret = issue(keys, bot)
    text, inside = secret.text, "10.1.2.3"
    forged, other = format_key(base64.b32decode(record.id.upper()), b"z" * 32), format_key(b"x" * 10, b"y" * 32)
    for key in (text, other, forged):
        assert keys.recognise(key, address=inside) is None
    session = keys.authenticate(text, address=inside)
    assert keys.recognise(text, address=inside) == session
    for key, address in ((forged, inside), (other, inside), (text, "11.1.1.1")):
        assert keys.recognise(key, address=address) is None
    with pytest.raises(NotAuthenticated):
        keys.recognise("stk_nothing", address=inside)
    now[0] = 0.5  # one is told nothing, and reads the key for the others
    assert [keys.recognise(text, address=inside) for _ in range(3)] == [None, session, session]
    now[0] = 1.0
    assert [keys.recognise(text, address=inside) for _ in range(2)] == [None, None]
    keys.authenticate(text, address=inside)
    now[0] = 1.49
    assert keys.recognise(text, address=inside) == session
    now[0] = 1.5  # again after half a second
    assert [keys.recognise(text, address=inside) for _ in range(2)] == [None, session]
    keys.forget()
    assert keys.recognise(text, address=inside) is None


def test_so_many_keys_are_remembered_and_then_all_are_read_again(people, bot, monkeypatch):
    monkeypatch.setattr("stanch.access.apikey._MOST_SEEN", 2)
    keys = ApiKeys(people.tables, PEPPERS, clock=people.clock, monotonic=lambda: 0.0)
    texts = [issue(keys, bot)[1].text for _ in range(3)]

    def known():
        return [keys.recognise(text, address="10.1.2.3") is not None for text in texts]

    for text, remembered in zip(texts, ([True, False, False], [True, True, False], [False, False, True]), strict=True):
        keys.authenticate(text, address="10.1.2.3")
        assert known() == remembered


def test_a_key_that_was_seen_just_now_still_expires(people, bot):
    keys = ApiKeys(people.tables, PEPPERS, clock=people.clock, monotonic=lambda: 0.0)
    text = issue(keys, bot, days=1)[1].text
    keys.authenticate(text, address="10.1.2.3")
    people.clock.seconds += DAY
    assert keys.recognise(text, address="10.1.2.3") is None
