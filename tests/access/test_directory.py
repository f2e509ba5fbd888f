"""Registration, sign-in, sessions and grants."""

import dataclasses

import pytest

from stanch.access import ROLES, Directory, sign_session
from stanch.access.session import LocalLogin, session_message
from stanch.crypto import SigningKey, VerifyKey
from stanch.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, SeparationOfDuties

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
    assert len(first) == 28
    assert first.startswith("p_")
    shown = repr(people.directory.principals())
    assert "anna" not in shown
    assert "ed25519" not in shown


def test_principals_are_listed(people):
    anna, bot = people.add("anna", clearance=3), people.add("bot", kind="service")
    listed = {p.id: (p.kind, p.display, p.clearance, p.suspended) for p in people.directory.principals()}
    assert listed == {anna: ("user", "anna", 3, False), bot: ("service", "bot", 0, False)}


def test_a_key_is_registered_once_and_is_ed25519(people):
    people.add("anna")
    with pytest.raises(Conflict):
        people.add("anna")
    with pytest.raises(InvalidInput):
        people.directory.register(SigningKey.generate("p256").public, display="x")
    assert len(people.directory.principals()) == 1


@pytest.mark.parametrize(("team", "roles"), [(False, sorted(ROLES - {"server"})), (True, ["platform_admin"])])
def test_the_first_person_can_begin_and_stays_able_to(people, team, roles):
    key = SigningKey.from_seed(bytes(32))
    first = people.directory.register_first(key.public, display="anna", team=team)
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


def test_a_challenge_lasts_a_minute(people):
    anna = people.add("anna")
    nonce = people.directory.challenge()
    people.clock.seconds += 61
    refused(people, sign_session(people.keys[anna], people.directory.origin, nonce, people.now_ms))


def test_challenges_are_bounded_and_expire(people):
    for _ in range(1024):
        people.directory.challenge()
    with pytest.raises(NotAuthenticated):
        people.directory.challenge()
    people.clock.seconds += 61
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
