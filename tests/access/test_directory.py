"""Registration, sign-in, sessions and grants."""

import dataclasses
import re

import pytest
from sqlalchemy import insert

from stanch.access import ROLES, Directory, Grant, sign_session
from stanch.access.credential import LocalKey, local_keys
from stanch.access.directory import BOOTSTRAP, Proof
from stanch.access.grant import check_grant, insert_grant
from stanch.access.principal import MAX_CLEARANCE
from stanch.access.revision import read_revision
from stanch.access.session import LocalLogin, Session, session_message
from stanch.access.sessions import Sessions
from stanch.access.strangers import note, read
from stanch.crypto import SigningKey, VerifyKey
from stanch.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, SeparationOfDuties
from stanch.store.schema import access as schema

DAY = 86_400


def test_golden_session_statement(load):
    golden = load("session.json")
    key = SigningKey.from_seed(bytes.fromhex(golden["seed"]))
    nonce = bytes.fromhex(golden["nonce"])
    login = sign_session(key, golden["origin"], nonce, golden["time_ms"])
    assert session_message(golden["origin"], nonce, golden["time_ms"]).hex() == golden["message"]
    assert (login.key_id, login.signature.hex()) == (golden["key_id"], golden["signature"])


def test_principal_ids_say_nothing(people):
    first, second = people.add("anna"), people.add("ben")
    assert first != second
    assert re.fullmatch("p_[a-z2-7]{26}", first)
    shown = repr(people.directory.principals())
    for name in ("anna", "ed25519", people.directory.origin):
        assert name not in shown


def test_principals_are_listed(people):
    anna, bot = people.add("anna", clearance=3), people.add("bot", kind="service")
    listed = {p.id: (p.kind, p.display, p.clearance, p.suspended) for p in people.directory.principals()}
    assert listed == {anna: ("user", "anna", 3, False), bot: ("service", "bot", 0, False)}


def test_every_change_is_a_change_of_facts(people):
    def revision():
        with people.tables.read() as connection:
            return read_revision(connection).facts

    directory, anna = people.directory, people.add("anna")
    key, seen = people.keys[anna].key_id, revision()
    grant = directory.grant(anna, "ml_engineer", granted_by="p_x", team=True)
    for change in (
        lambda: directory.revoke(grant.id),
        lambda: directory.grant(anna, "auditor", granted_by="p_x", team=True),
        lambda: directory.register_subject(URL, "ben", display="ben"),
        lambda: directory.suspend(anna),
        lambda: directory.clear(anna, 3),
        lambda: directory.replace_key(key, SigningKey.generate("ed25519").public),
        lambda: people.add("eve"),
    ):
        assert revision() > seen
        seen = revision()
        change()
    assert revision() > seen


def test_a_key_is_registered_once_and_is_ed25519(people):
    people.add("anna")
    with pytest.raises(Conflict):
        people.add("anna")
    with pytest.raises(InvalidInput):
        people.directory.register(SigningKey.generate("p256").public, display="x")
    assert len(people.directory.principals()) == 1


URL = "https://issuer.example"


def test_somebody_for_whom_an_issuer_vouches_is_registered_once_by_that_name(people):
    directory = people.directory
    for issuer, subject in (("", "s"), (URL, ""), ("i" * 513, "s"), (URL, "s" * 513)):
        with pytest.raises(InvalidInput):
            directory.register_subject(issuer, subject, display="x")
        with pytest.raises(InvalidInput):
            directory.require_unknown(issuer, subject)
        with pytest.raises(InvalidInput):
            directory.register(SigningKey.generate("ed25519").public, display="x", name=(issuer, subject))
    longest = "i" * 512, "s" * 512
    directory.require_unknown(*longest)
    found = directory.register_subject(*longest, display="x", kind="service", clearance=3)
    assert directory.principals() == (found,)
    assert (found.issuer, found.subject, found.display, found.kind) == (*longest, "x", "service")
    assert (found.clearance, found.suspended) == (3, False)
    for act in (directory.require_unknown, lambda *name: directory.register_subject(*name, display="y")):
        with pytest.raises(Conflict):
            act(*longest)
    plain = directory.register_subject(longest[0], "u", display="u")
    assert (plain.kind, plain.clearance) == ("user", 0)
    directory.require_unknown(longest[0], "t")
    directory.require_unknown(URL, longest[1])


def proof(people, **changes):
    return Proof(
        **({"kind": "oidc", "credential": "jti:1", "mfa": True, "expires_ms": people.now_ms + 60_000} | changes)
    )


def test_an_issuers_proof_opens_a_session_of_whoever_is_registered_by_that_name(people):
    key = SigningKey.from_seed(bytes(32))
    anna = people.directory.register(key.public, display="anna", name=(URL, "anna"))
    people.keys[anna.id] = key
    session = people.directory.vouched((URL, "anna"), proof(people))
    assert session == Session(anna.id, "jti:1", True, people.now_ms, people.now_ms + 60_000, "oidc")
    assert people.sign_in(anna.id).principal == anna.id  # her key leads to the same principal
    long = people.directory.vouched((URL, "anna"), proof(people, expires_ms=2**50, mfa=False, kind="mtls"))
    assert (long.expires_ms, long.mfa, long.kind) == (people.now_ms + 480 * 60_000, False, "mtls")


def strangers(people):
    with people.tables.read() as connection:
        return [(one.subject, one.first_ms, one.last_ms, one.attempts) for one in read(connection)]


def test_who_is_unknown_is_listed_until_they_are_registered(people):
    start = people.now_ms
    for subject in ("eve", "mal", "eve"):
        people.clock.seconds += 1
        for issuer in (URL, "https://other.example"):
            with pytest.raises(NotAuthenticated, match="not authenticated"):
                people.directory.vouched((issuer, subject), proof(people))
    eve, mal = ("eve", start + 1000, start + 3000, 2), ("mal", start + 2000, start + 2000, 1)
    assert strangers(people) == [eve, eve, mal, mal]
    people.directory.register_subject(URL, "eve", display="Eve")
    people.directory.register(SigningKey.from_seed(bytes(32)).public, display="Mal", name=(URL, "mal"))
    assert strangers(people) == [eve, mal]
    with people.tables.read() as connection:
        shown = repr(read(connection))
        assert "eve" not in shown
        assert "example" not in shown


def test_a_stranger_is_found_again_by_the_next_release(people):
    with people.tables.write() as connection:
        note(connection, URL, "eve", 1)
        (found,) = connection.exec_driver_sql("SELECT id FROM stranger").scalars()
    assert found == "03edaeccf40812b8951393fe570a691e77d89a98f4110c86047f061a702b3616"


def test_a_thousand_strangers_are_listed_and_no_more(people):
    rows = [
        {"id": str(n), "issuer": URL, "subject": str(n), "first_ms": n, "last_ms": 1000 + n, "attempts": 1}
        for n in range(1, 1000)
    ]
    with people.tables.write() as connection:
        note(connection, URL, "0", 1000)
        connection.execute(insert(schema.stranger), rows)
        note(connection, URL, "0", 5000)
        assert len(read(connection)) == 1000
        note(connection, URL, "new", 6000)
        seen = [one.subject for one in read(connection)]
    assert seen[:3] == ["new", "0", "999"]
    assert len(seen) == 1000
    assert "1" not in seen  # it was seen longest ago


@pytest.mark.parametrize(("team", "roles"), [(False, sorted(ROLES - {"server"})), (True, ["platform_admin"])])
def test_the_first_person_can_begin_and_stays_able_to(people, team, roles):
    key = SigningKey.from_seed(bytes(32))
    first = people.directory.register_first(key.public, display="anna", team=team)
    assert (first.kind, first.clearance) == ("user", MAX_CLEARANCE)
    assert (first.issuer, first.subject) == (f"local:{people.directory.origin}", key.key_id)
    people.clock.seconds += 4000 * DAY
    grants = people.directory.facts_of(first.id).grants
    assert [grant.role for grant in grants] == roles
    assert {(grant.expires_ms, grant.granted_by) for grant in grants} == {(None, "bootstrap")}


def test_nobody_is_first_twice(people):
    people.add("anna")
    with pytest.raises(Conflict):
        people.directory.register_first(SigningKey.from_seed(bytes(32)).public, display="eve", team=False)


def test_signing_a_challenge_opens_a_session(people):
    anna = people.add("anna")
    session = people.sign_in(anna, mfa=True)
    assert (session.principal, session.key_id, session.mfa) == (anna, people.keys[anna].key_id, True)
    assert session.expires_ms == session.started_ms + 480 * 60_000
    assert people.sign_in(anna).mfa is False
    assert len(people.directory.challenge()) == 32
    assert people.directory.facts(session).principal.id == anna


def refused(people, login):
    with pytest.raises(NotAuthenticated) as caught:
        people.directory.session(login)
    error = caught.value
    return error.what, error.why, error.next_step


def test_every_failed_sign_in_says_the_same(people):
    anna = people.add("anna")
    key = people.keys[anna]
    stranger = SigningKey.from_seed(bytes(32))
    origin, challenge, now_ms = people.directory.origin, people.directory.challenge, people.now_ms
    good = sign_session(key, origin, challenge(), now_ms)
    messages = {
        refused(people, sign_session(stranger, origin, challenge(), now_ms)),
        refused(people, sign_session(key, origin, bytes(32), now_ms)),
        refused(people, sign_session(key, "example.com/other", challenge(), now_ms)),
        refused(people, sign_session(key, origin, challenge(), now_ms - 60_001)),
        refused(people, sign_session(key, origin, challenge(), now_ms + 60_001)),
        refused(people, dataclasses.replace(sign_session(key, origin, challenge(), now_ms), time_ms=now_ms + 1)),
        refused(people, dataclasses.replace(good, signature=b"")),
        refused(people, LocalLogin(key.key_id, challenge(), -1, bytes(64))),
    }
    forged = sign_session(stranger, origin, challenge(), now_ms)
    messages.add(refused(people, dataclasses.replace(forged, key_id=key.key_id)))
    people.replace_key(key.key_id)
    messages.add(refused(people, sign_session(key, origin, challenge(), now_ms)))
    assert len(messages) == 1


def test_a_signed_statement_opens_one_session_only(people):
    anna = people.add("anna")
    login = sign_session(people.keys[anna], people.directory.origin, people.directory.challenge(), people.now_ms)
    people.directory.session(login)
    refused(people, login)


def test_a_statement_for_another_directory_is_refused(people):
    anna = people.add("anna")
    other = Directory(people.tables, origin=people.directory.origin, clock=people.clock)
    login = sign_session(people.keys[anna], people.directory.origin, other.challenge(), people.now_ms)
    refused(people, login)


@pytest.mark.parametrize("seconds", [60, -60])
def test_a_challenge_lasts_a_minute(people, seconds):
    anna, origin = people.add("anna"), people.directory.origin
    people.clock.seconds += 100
    first, second = people.directory.challenge(), people.directory.challenge()
    people.clock.seconds += seconds
    people.directory.session(sign_session(people.keys[anna], origin, first, people.now_ms))
    people.clock.seconds += 0.001 if seconds > 0 else -0.001
    refused(people, sign_session(people.keys[anna], origin, second, people.now_ms))


@pytest.mark.parametrize("seconds", [60, -60])
def test_a_signed_time_may_be_a_minute_away(people, seconds):
    anna, nonce = people.add("anna"), people.directory.challenge()
    login = sign_session(people.keys[anna], people.directory.origin, nonce, people.now_ms + seconds * 1000)
    assert people.directory.session(login).principal == anna


def test_challenges_are_bounded_and_expire(people):
    for _ in range(1024):
        people.directory.challenge()
    people.clock.seconds += 60
    with pytest.raises(NotAuthenticated, match="too many"):
        people.directory.challenge()
    people.clock.seconds += 0.001
    people.directory.challenge()


@pytest.mark.parametrize("minutes", [480, 481])
def test_a_session_ends(people, minutes):
    session = people.sign_in(people.add("anna"))
    people.clock.seconds += 60 * minutes - 1
    if minutes == 480:
        people.directory.facts(session)
        people.clock.seconds += 1
    with pytest.raises(NotAuthenticated):
        people.directory.facts(session)


def test_a_session_ends_with_its_key(people):
    anna = people.add("anna")
    session = people.sign_in(anna)
    people.replace_key(session.key_id)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(session)
    with pytest.raises(NotFound):
        people.replace_key(session.key_id)


def test_a_session_of_somebody_elses_key_is_refused(people):
    anna, ben = people.add("anna"), people.add("ben")
    with pytest.raises(NotAuthenticated):
        people.directory.facts(dataclasses.replace(people.sign_in(anna), principal=ben))


def test_a_session_begins_a_minute_early_at_most(people):
    anna = people.add("anna")
    people.clock.seconds += 100
    session = people.sign_in(anna)
    people.clock.seconds -= 60
    people.directory.facts(session)
    people.clock.seconds -= 0.001
    with pytest.raises(NotAuthenticated, match="has ended"):
        people.directory.facts(session)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ("UPDATE credential SET kind = 'other'", False),
        ("UPDATE credential SET not_before_ms = 1767225600001", False),
        ("UPDATE credential SET not_before_ms = 1767225600000", True),
        ("UPDATE credential SET expires_ms = 1767225600000", False),
        ("UPDATE credential SET expires_ms = 1767225600001", True),
        ("UPDATE credential SET revoked_ms = 1", False),
        ("UPDATE principal SET issuer = NULL", False),
    ],
)
def test_a_local_key_signs_in_while_its_row_says_so(people, change, valid):
    anna = people.add("anna")
    session = people.sign_in(anna)
    with people.tables.write() as connection:
        connection.exec_driver_sql(change)
    for act in (lambda: people.sign_in(anna), lambda: people.directory.facts(session)):
        if valid:
            act()
        else:
            with pytest.raises(NotAuthenticated):
                act()


@pytest.mark.parametrize("kind", ["oidc", "mtls"])
@pytest.mark.parametrize("gone", ["issuer", "subject"])
def test_a_proof_is_good_while_its_principal_is_known_by_that_name(people, kind, gone):
    people.directory.register_subject(URL, "bot", display="bot", kind="service")
    session = people.directory.vouched((URL, "bot"), proof(people, kind=kind))
    people.directory.facts(session)
    with people.tables.write() as connection:
        connection.exec_driver_sql(f"UPDATE principal SET {gone} = NULL")  # noqa: S608 - a column
    with pytest.raises(NotAuthenticated, match="no longer valid"):
        people.directory.facts(session)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(dataclasses.replace(session, principal="p_nobody"))


def browser(people, principal):
    return Sessions(people.tables, bytes(32), clock=people.clock).open_session(people.sign_in(principal)).session


@pytest.mark.parametrize(("expires_ms", "valid"), [(1_767_225_600_000, False), (1_767_225_600_001, True)])
def test_a_browser_is_signed_in_until_its_row_ends(people, expires_ms, valid):
    session = browser(people, people.add("anna"))
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE session_ SET expires_ms = ?", (expires_ms,))
    if valid:
        people.directory.facts(session)
    else:
        with pytest.raises(NotAuthenticated, match="no longer valid"):
            people.directory.facts(session)


def test_suspension_ends_all_but_the_trace_of_who_asks(people):
    """A local key still says who asks, so that the refusal is in the log."""
    anna, ben = people.add("anna"), people.add("ben")
    bot = people.directory.register_subject(URL, "bot", display="bot", kind="service").id
    opened, other, local = browser(people, anna), browser(people, ben), people.sign_in(anna)
    token = people.directory.vouched((URL, "bot"), proof(people))
    people.directory.suspend(anna)
    people.directory.suspend(bot)
    assert people.directory.facts(local).principal.suspended
    with pytest.raises(NotAuthenticated, match="no longer valid"):
        people.directory.facts(opened)
    with pytest.raises(NotAuthenticated, match="suspended"):
        people.directory.facts(token)
    people.directory.facts(other)
    for one in (anna, bot):
        people.directory.suspend(one, suspended=False)
    people.directory.facts(token)
    with pytest.raises(NotAuthenticated):
        people.directory.facts(opened)


def test_lifting_a_suspension_ends_no_session(people):
    anna = people.add("anna")
    opened = browser(people, anna)
    people.directory.suspend(anna, suspended=False)
    assert people.directory.facts(opened).principal.id == anna


def test_a_new_key_takes_the_place_of_the_earlier_one(people):
    anna, ben = people.add("anna"), people.add("ben")
    opened, other, old, new = (
        browser(people, anna),
        browser(people, ben),
        people.keys[anna],
        SigningKey.generate("ed25519"),
    )
    people.clock.seconds += 5
    assert people.directory.local_key_of(anna) == old.key_id
    assert people.directory.replace_key(old.key_id, new.public) == anna
    assert people.directory.local_key_of(anna) == new.key_id
    with people.tables.read() as connection:
        started = people.now_ms - 5000
        assert local_keys(connection, anna) == (
            LocalKey(old.key_id, started, None, people.now_ms), LocalKey(new.key_id, people.now_ms, None, None),
        )  # fmt: skip
    with pytest.raises(NotAuthenticated):
        people.directory.facts(opened)
    people.directory.facts(other)
    with pytest.raises(NotFound):
        people.directory.replace_key(old.key_id, SigningKey.generate("ed25519").public)
    with pytest.raises(Conflict):
        people.directory.replace_key(new.key_id, people.keys[ben].public)
    with pytest.raises(InvalidInput):
        people.directory.replace_key(new.key_id, SigningKey.generate("p256").public)
    people.keys[anna] = new
    assert people.sign_in(anna).key_id == new.key_id


def test_who_has_no_local_key_signs_in_with_none(people):
    bot = people.directory.register_subject(URL, "bot", display="bot", kind="service").id
    for one in (bot, "p_nobody"):
        with pytest.raises(NotFound):
            people.directory.local_key_of(one)


def test_the_first_of_some_keys_is_the_founders_or_else_the_oldest_persons(people):
    late = people.add("late")
    people.clock.seconds -= 5
    early = people.add("early")
    twins = [people.keys[one].key_id for one in sorted([people.add("a"), people.add("b")])]
    keys = [people.keys[one].key_id for one in (late, early)]
    first = people.directory.first_key
    assert first(keys) == keys[1]
    assert first(keys[:1]) == keys[0]
    assert first(twins) == twins[0]
    assert first([]) == first(["ed25519:none"]) == ""
    with people.tables.write() as connection:
        insert_grant(connection, Grant("g_1", late, "auditor", "workspace", None, BOOTSTRAP), now_ms=people.now_ms)
        insert_grant(connection, Grant("g_2", early, "auditor", "workspace", None, "p_x"), now_ms=people.now_ms)
    assert first(keys) == keys[0]
    people.replace_key(keys[0])
    assert first(keys) == keys[1]
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE principal SET issuer = NULL WHERE id = ?", (early,))
    assert first(keys) == ""


def test_clearance_is_raised_and_lowered(people):
    anna = people.add("anna", clearance=3)
    people.directory.clear(anna, 7)
    assert people.directory.facts_of(anna).principal.clearance == 7
    with pytest.raises(NotFound):
        people.directory.clear("p_nobody", 7)


def test_facts_are_of_now(people):
    anna, admin = people.add("anna"), people.add("admin")
    session = people.sign_in(anna)
    assert people.directory.facts(session).grants == ()
    grant = people.directory.grant(anna, "ml_engineer", granted_by=admin, team=True)
    assert people.directory.facts(session).grants == (grant,)
    people.directory.suspend(anna)
    assert people.directory.facts(session).principal.suspended
    people.directory.suspend(anna, suspended=False)
    assert not people.directory.facts(session).principal.suspended
    people.directory.revoke(grant.id)
    assert people.directory.facts(session).grants == ()
    with pytest.raises(NotFound):
        people.directory.revoke(grant.id)


def test_an_expired_grant_is_not_loaded(people):
    anna = people.add("anna")
    people.directory.grant(anna, "ml_engineer", granted_by="p_x", team=True, days=1)
    people.clock.seconds += DAY - 0.001
    assert len(people.directory.facts_of(anna).grants) == 1
    people.clock.seconds += 0.001
    assert people.directory.facts_of(anna).grants == ()


def test_a_grant_counts_from_its_beginning(people):
    anna = people.add("anna")
    people.directory.grant(anna, "ml_engineer", granted_by="p_x", team=True)
    people.clock.seconds -= 1
    assert people.directory.facts_of(anna).grants == ()


@pytest.mark.parametrize(
    "gone",
    [
        "DELETE FROM grant_ WHERE id = 'g_2'",
        "UPDATE grant_ SET role = 'auditor' WHERE id = 'g_2'",
        "UPDATE grant_ SET scope = 'Model:m' WHERE id = 'g_2'",
        "UPDATE grant_ SET expires_ms = not_before_ms WHERE id = 'g_2'",
        "UPDATE grant_ SET not_before_ms = not_before_ms + 1 WHERE id = 'g_2'",
        "UPDATE grant_ SET revoked_ms = 1 WHERE id = 'g_2'",
        "UPDATE principal SET suspended = 1",
        "UPDATE principal SET issuer = NULL",
        "",
    ],
)
def test_the_last_administrator_stays(people, gone):
    anna, ben = people.add("anna"), people.add("ben")
    with people.tables.write() as connection:
        for name, who in (("g_1", anna), ("g_2", ben)):
            grant = Grant(name, who, "platform_admin", "workspace", None, BOOTSTRAP)
            insert_grant(connection, grant, now_ms=people.now_ms)
        if gone:
            connection.exec_driver_sql(gone)
    if not gone:
        assert people.directory.revoke("g_1") == anna
        return
    with pytest.raises(InvalidInput, match="last platform_admin"):
        people.directory.revoke("g_1")
    assert [grant.id for grant in people.directory.facts_of(anna).grants] == ["g_1"]


def test_a_grant_that_makes_nobody_an_administrator_can_always_end(people):
    anna = people.add("anna")
    for role, scope in (("platform_admin", "Model:m"), ("auditor", "workspace")):
        grant = people.directory.grant(anna, role, granted_by="p_x", team=False, scope=scope)
        assert people.directory.revoke(grant.id) == anna


def test_grants_are_told_by_role_scope_and_id(people):
    anna = people.add("anna")
    wanted = [("auditor", "workspace"), ("consumer", "Model:a"), ("consumer", "Model:b"), ("consumer", "Model:b")]
    made = [
        people.directory.grant(anna, role, granted_by="p_x", team=False, scope=scope, days=2)
        for role, scope in reversed(wanted)
    ]
    assert people.directory.facts_of(anna).grants == tuple(sorted(made, key=lambda g: (g.role, g.scope, g.id)))
    for grant in made[:2]:
        people.directory.revoke(grant.id)
    assert people.directory.facts_of(anna).grants == (made[3], made[2])
    one = made[-1]
    assert one == Grant(one.id, anna, "auditor", "workspace", people.now_ms + 2 * DAY * 1000, "p_x", people.now_ms)
    assert re.fullmatch("g_[a-z2-7]{16}", one.id)
    plain = people.directory.grant(anna, "auditor", granted_by="p_x", team=False)
    assert plain.expires_ms == people.now_ms + 30 * DAY * 1000


def test_no_grant_but_the_first_persons_is_for_good(people):
    with people.tables.read() as connection, pytest.raises(InvalidInput, match="within 180 days"):
        check_grant(connection, Grant("g_1", "p_x", "auditor", "workspace", None, "p_y"), team=False, now_ms=0)


@pytest.mark.parametrize("days", [0, -1, 181])
def test_grants_are_bounded_in_time(people, days):
    anna = people.add("anna")
    with pytest.raises(InvalidInput):
        people.directory.grant(anna, "ml_engineer", granted_by="p_x", team=False, days=days)
    people.directory.grant(anna, "ml_engineer", granted_by="p_x", team=False, days=180)


@pytest.mark.parametrize("role", ["", "root", "Auditor"])
def test_only_roles_that_exist_are_granted(people, role):
    with pytest.raises(InvalidInput):
        people.directory.grant(people.add("anna"), role, granted_by="p_x", team=False)


def test_a_grant_needs_somebody(people):
    with pytest.raises(NotFound):
        people.directory.grant("p_nobody", "auditor", granted_by="p_x", team=False)
    with pytest.raises(NotFound):
        people.directory.suspend("p_nobody")


def test_nobody_grants_to_themselves_in_a_team(people):
    anna = people.add("anna")
    with pytest.raises(SeparationOfDuties):
        people.directory.grant(anna, "ml_engineer", granted_by=anna, team=True)
    people.directory.grant(anna, "ml_engineer", granted_by=anna, team=False)


def test_the_roles():
    assert sorted(ROLES) == [
        "auditor", "break_glass", "consumer", "data_steward", "incident_lead", "legal_reader", "ml_engineer",
        "platform_admin", "release_manager", "security_analyst", "server",
    ]  # fmt: skip


APART = {frozenset({"platform_admin", other}) for other in ("data_steward", "release_manager", "auditor")} | {
    frozenset({"auditor", other}) for other in ROLES - {"auditor", "legal_reader"}
}


def test_every_pair_of_roles_is_allowed_or_kept_apart(people):
    for number, first in enumerate(sorted(ROLES)):
        for second in sorted(ROLES):
            person = people.add(f"{number}-{second}")
            people.directory.grant(person, first, granted_by="p_x", team=True)
            if frozenset({first, second}) in APART:
                with pytest.raises(SeparationOfDuties):
                    people.directory.grant(person, second, granted_by="p_x", team=True)
                people.directory.grant(person, second, granted_by="p_x", team=False)
            else:
                people.directory.grant(person, second, granted_by="p_x", team=True)


def test_separation_looks_at_grants_for_single_resources_too(people):
    anna = people.add("anna")
    people.directory.grant(anna, "release_manager", granted_by="p_x", team=True, scope="Model:m")
    with pytest.raises(SeparationOfDuties):
        people.directory.grant(anna, "platform_admin", granted_by="p_x", team=True)


def test_separation_forgets_what_has_ended(people):
    anna = people.add("anna")
    grant = people.directory.grant(anna, "auditor", granted_by="p_x", team=True)
    people.directory.revoke(grant.id)
    people.directory.grant(anna, "release_manager", granted_by="p_x", team=True)


def test_a_public_key_of_another_length_in_the_table_never_signs_in(people):
    anna = people.add("anna")
    with people.tables.write() as connection:
        connection.exec_driver_sql("UPDATE credential SET public = x'00'")
    with pytest.raises((NotAuthenticated, InvalidInput)):
        people.sign_in(anna)
    assert VerifyKey.from_raw_ed25519(people.keys[anna].public.raw) == people.keys[anna].public
