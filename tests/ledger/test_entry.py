"""Entries: golden bytes, every refusal, and the builders."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from stanch import __version__
from stanch.crypto import canonical_json, leaf_hash
from stanch.errors import EntryTooLarge, InvalidInput
from stanch.ledger import (
    UNKNOWN_PRINCIPAL,
    Act,
    Credential,
    Entry,
    Opening,
    decode_entry,
    denied,
    intent,
    new_act_id,
    noted,
    ocsf,
    outcome,
)
from stanch.ledger.entry import read_event, subjects_text
from stanch.ledger.ocsf import class_of
from stanch.terms import ArtifactRef, Digest

ORIGIN = "example.com/stanch/log"
VECTORS = Path(__file__).parent.parent / "vectors" / "ledger"
INVALID = json.loads((VECTORS / "invalid_entries.json").read_text())
REASONS = {
    "not JSON": "not JSON",
    "a lone surrogate": "not JSON",
    "an array": r"\$ is not as the profile",
    "a float": r"\$\.time is not",
    "an integral float": r"\$\.time is not",
    "an exponent": r"\$\.severity_id is not",
    "an integer above 2^53": "an integer of its payload",
    "a float in the payload": "holds a float",
    "a key that is not ASCII in the payload": "a key of its payload",
    "an unknown field": r"\$ is not as the profile",
    "an unknown field of ours": r"\$\.unmapped\.stanch is not",
    "an unknown phase": r"\$\.unmapped\.stanch\.phase is not",
    "another version of ours": r"\$\.unmapped\.stanch\.v is not",
    "another OCSF version": r"\$\.metadata\.version is not",
    "a class of another category": "do not belong together",
    "a wrong type_uid": "do not belong together",
    "an activity outside its class": "do not belong together",
    "an unknown class": "do not belong together",
    "a missing src_endpoint": "src_endpoint is missing, which class 6003 demands",
    "a missing actor": r"\$ is not as the profile",
    "a name for a principal": r"\$\.actor\.user\.uid is not",
    "an act id of UUID version 4": r"\$\.metadata\.correlation_uid is not",
    "a boolean for an integer": r"\$\.activity_id is not",
    "a negative time": r"\$\.time is not",
}
OTHER = "p_" + "b" * 26
ACT = Act(kind="release.create", id="019b76da-a800-7000-8000-000000000000", principal="p_aaaqeayeaudaocajbifqydiob4")


def test_golden_entry(load):
    golden = load("ledger/entry.json")
    data = golden["entry"].encode()
    assert len(data) == 579
    assert canonical_json(decode_entry(data)) == data
    assert hashlib.sha256(data).hexdigest() == golden["fingerprint"]
    assert leaf_hash(data).hex() == golden["leaf"]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case["name"])
def test_every_invalid_entry_is_refused(case):
    with pytest.raises(InvalidInput, match=REASONS.get(case["name"], "not in canonical form")):
        decode_entry(case["entry"].encode())


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"activity_name":"\xff"}'])
def test_bytes_that_are_no_text_are_refused(data):
    with pytest.raises(InvalidInput, match="not JSON"):
        decode_entry(data)


def test_a_refusal_names_the_field_and_not_what_is_in_it():
    opening = Opening.make("Who - at `$.secret`", "alice")
    with pytest.raises(InvalidInput, match=r"^entry: \$\.unmapped\.stanch\.commitments is not as the profile demands$"):
        noted(ACT, time_ms=1, openings=(opening,)).encode(ORIGIN)
    with pytest.raises(InvalidInput, match=r"^entry: \$ is not as the profile demands$"):
        decode_entry(b'{"Who - at ":1}')


def test_the_golden_entry_is_written_byte_for_byte(load):
    golden = decode_entry(load("ledger/entry.json")["entry"].encode())
    act = replace(ACT, kind="audit.add")  # the golden entry says neither kind nor profile
    event = decode_entry(intent(act, time_ms=golden["time"]).encode(ORIGIN))
    assert event["unmapped"]["stanch"] == {"kind": "audit.add", "phase": "intent", "profile": "team", "v": 1}
    golden["api"]["operation"], golden["unmapped"] = "audit.add", event["unmapped"]
    golden["metadata"]["product"]["version"] = __version__
    assert event == golden


@pytest.mark.parametrize(
    ("kind", "target", "objects"),
    [
        ("tune.run", "", {"api": {"operation": "tune.run"}, "src_endpoint": {"name": "local"}}),
        ("access.login", "", {"service": {"name": "stanch"}, "user": {"uid": ACT.principal}}),
        ("access.login", OTHER, {"service": {"name": "stanch"}, "user": {"uid": OTHER}}),
        ("access.grant", "", {"user": {"uid": "unknown"}}),
        ("access.grant", OTHER, {"user": {"uid": OTHER}}),
        ("key.rotate", "", {"entity": {"name": "key"}}),
        ("watch.incident.open", "", {"finding_info_list": [{"title": "watch.incident.open", "uid": ACT.id}]}),
        ("watch.alarm", "", {"finding_info": {"title": "watch.alarm", "uid": ACT.id}}),
        ("guard.finding", "", {"finding_info": {"title": "guard.finding", "uid": ACT.id}}),
    ],
)
def test_each_class_has_the_objects_that_it_demands(kind, target, objects):
    data = noted(replace(ACT, kind=kind, target=target), time_ms=1).encode(ORIGIN)
    found = decode_entry(data)
    of_class = {"api", "src_endpoint", "service", "user", "entity", "finding_info", "finding_info_list"}
    assert {name: found[name] for name in of_class & found.keys()} == objects
    for name in objects:
        with pytest.raises(InvalidInput, match=f"{name} is missing, which class {found['class_uid']} demands"):
            ocsf.check_class(replace(read_event(data), **{name: UNSET}))


def test_each_class_has_its_activities_and_no_others():
    event = read_event(noted(ACT, time_ms=1).encode(ORIGIN))
    of_class = ("api", "src_endpoint", "service", "user", "entity", "finding_info", "finding_info_list")
    event = replace(event, **dict.fromkeys(of_class, ()))  # as if every object were there
    allowed = {
        6003: {1, 2, 3, 4, 99}, 3002: {1, 2, 99}, 3007: {1, 2, 3, 4, 5, 14, 15, 16, 17, 99}, 3004: {1, 2, 3, 4, 99},
        2004: {1, 2, 3, 99}, 2005: {1, 2, 3, 99}, 2006: {1, 2, 3, 99},
    }  # fmt: skip
    for uid, activity in itertools.product([2003, 2007, 6004, *allowed], range(102)):
        one = replace(
            event, class_uid=uid, category_uid=uid // 1000, activity_id=activity, type_uid=100 * uid + activity
        )
        if activity in allowed.get(uid, ()):
            ocsf.check_class(one)
        else:
            with pytest.raises(InvalidInput, match="do not belong together"):
                ocsf.check_class(one)


def test_every_verb_has_its_activity():
    verbs = {
        1: "create add init new register plan",
        2: "read show list open fetch export verify",
        3: "write update approve revoke quarantine restore rotate rekey clear classify hold lift",
        4: "delete erase",
        99: "run serve",
    }
    for activity, words in verbs.items():
        for verb in words.split():
            assert class_of(f"data.{verb}") == class_of(f"data.row.{verb}") == (6003, activity)
            assert {class_of(f"{entity}.{verb}") for entity in ("policy", "key", "config", "ledger")} == {
                (3004, activity)
            }
    for what, uid in {"finding": 2006, "alarm": 2004, "alert": 2004, "incident": 2005}.items():
        assert class_of(f"watch.{what}") == (uid, 1)
        steps = [class_of(f"watch.{what}.{verb}") for verb in ("open", "create", "update", "close", "show")]
        assert steps == [(uid, 1), (uid, 1), (uid, 2), (uid, 3), (uid, 99)]


def test_who_acts_is_a_user_or_a_service():
    for kind, type_id in {"user": 1, "service": 4}.items():
        entry = noted(replace(ACT, principal_kind=kind), time_ms=1)
        assert decode_entry(entry.encode(ORIGIN))["actor"]["user"] == {"type_id": type_id, "uid": ACT.principal}


def test_what_an_act_was_given_is_written():
    signed = Credential(kind="local", key_id="ed25519:" + "0" * 32, sig="A" * 86 + "==")
    act = replace(ACT, kind="access.break-glass", credential=signed, glass="g_1", profile="solo")
    event = decode_entry(intent(act, time_ms=1).encode(ORIGIN))
    assert event["severity_id"] == 5
    assert event["activity_name"] == "break-glass"
    assert event["unmapped"]["stanch"]["credential"] == {"key_id": signed.key_id, "kind": "local", "sig": signed.sig}
    assert (event["unmapped"]["stanch"]["glass"], event["unmapped"]["stanch"]["profile"]) == ("g_1", "solo")
    for make, standing in {intent: (99, 1), outcome: (1, 1), denied: (2, 3), noted: (1, 1)}.items():
        event = read_event(make(ACT, time_ms=1, payload={"n": 1}).encode(ORIGIN))
        assert (event.status_id, event.severity_id) == standing
        assert event.unmapped.stanch.payload == {"n": 1}
    opening = Opening.make("actor.user.name", "alice")
    assert read_event(intent(ACT, time_ms=1, openings=(opening,)).encode(ORIGIN)).unmapped.stanch.commitments


def test_subjects_are_told_as_the_entry_writes_them():
    model = ArtifactRef("model", "m", Digest.sha256(b"weights"))
    event = read_event(noted(replace(ACT, subject=(model,)), time_ms=1).encode(ORIGIN))
    assert subjects_text(event) == f'[{{"digest":"{model.digest}","kind":"model","name":"m"}}]'
    assert subjects_text(read_event(noted(ACT, time_ms=1).encode(ORIGIN))) == ""


def test_an_intent_says_who_what_and_why():
    model = ArtifactRef("model", "support-bot", Digest.sha256(b"weights"))
    act = replace(
        ACT,
        subject=(model,),
        policy=str(Digest.sha256(b"policy")),
        decision=("role-release_manager",),
        credential=Credential(kind="local", key_id="ed25519:" + "0" * 32),
    )
    event = decode_entry(intent(act, time_ms=7, payload={"recipient": "acme", "copies": 2}).encode(ORIGIN))
    assert event["actor"] == {"user": {"type_id": 1, "uid": ACT.principal}}
    assert (event["class_uid"], event["activity_id"], event["type_uid"]) == (6003, 1, 600301)
    assert (event["status_id"], event["severity_id"], event["time"]) == (99, 1, 7)
    assert event["metadata"]["correlation_uid"] == ACT.id
    assert event["unmapped"]["stanch"] == {
        "v": 1,
        "kind": "release.create",
        "phase": "intent",
        "profile": "team",
        "subject": [{"digest": str(model.digest), "kind": "model", "name": "support-bot"}],
        "policy": act.policy,
        "decision": ["role-release_manager"],
        "payload": {"recipient": "acme", "copies": 2},
        "credential": {"kind": "local", "key_id": "ed25519:" + "0" * 32},
    }


@pytest.mark.parametrize(
    ("entry", "phase", "status", "severity", "result"),
    [
        (intent(ACT, time_ms=1), "intent", 99, 1, None),
        (outcome(ACT, time_ms=1), "outcome", 1, 1, "done"),
        (outcome(ACT, time_ms=1, result="failed"), "outcome", 2, 1, "failed"),
        (outcome(ACT, time_ms=1, result="cancelled"), "outcome", 2, 1, "cancelled"),
        (outcome(ACT, time_ms=1, result="abandoned"), "outcome", 99, 1, "abandoned"),
        (denied(ACT, time_ms=1), "denied", 2, 3, None),
        (noted(ACT, time_ms=1), "note", 1, 1, None),
    ],
)
def test_each_phase_has_its_status(entry, phase, status, severity, result):
    event = decode_entry(entry.encode(ORIGIN))
    ours = event["unmapped"]["stanch"]
    assert (ours["phase"], event["status_id"], event["severity_id"], ours.get("result")) == (
        phase,
        status,
        severity,
        result,
    )


def test_egress_of_zero_bytes_is_recorded_and_none_is_not():
    ours = decode_entry(outcome(ACT, time_ms=1, egress_bytes=0).encode(ORIGIN))["unmapped"]["stanch"]
    assert ours["egress_bytes"] == 0
    assert "egress_bytes" not in decode_entry(outcome(ACT, time_ms=1).encode(ORIGIN))["unmapped"]["stanch"]


@pytest.mark.parametrize(
    ("kind", "class_uid", "activity"),
    [
        ("release.create", 6003, 1),
        ("data.add", 6003, 1),
        ("log.export", 6003, 2),
        ("release.revoke", 6003, 3),
        ("log.erase", 6003, 4),
        ("tune.run", 6003, 99),
        ("gateway.intent", 6003, 99),
        ("access.login", 3002, 1),
        ("access.add", 3007, 1),
        ("access.register", 3007, 1),
        ("access.grant", 3007, 16),
        ("access.revoke", 3007, 17),
        ("access.suspend", 3007, 5),
        ("policy.write", 3004, 3),
        ("key.new", 3004, 1),
        ("ledger.recover", 3004, 99),
        ("audit.finding", 2006, 1),
    ],
)
def test_kinds_belong_to_their_ocsf_class(kind, class_uid, activity):
    assert class_of(kind) == (class_uid, activity)
    event = decode_entry(noted(replace(ACT, kind=kind), time_ms=1).encode(ORIGIN))
    assert event["type_uid"] == 100 * class_uid + activity
    assert ("activity_name" in event) == (activity == 99)


@pytest.mark.parametrize("kind", ["", "release", "Release.create", "release.", ".create", "release create", "a.b\n"])
def test_a_kind_is_words_with_dots(kind):
    with pytest.raises(InvalidInput):
        noted(replace(ACT, kind=kind), time_ms=1).encode(ORIGIN)


def test_personal_values_enter_as_commitments_only():
    opening = Opening.make("actor.user.email_addr", "alice@example.com")
    data = noted(ACT, time_ms=1, openings=(opening,)).encode(ORIGIN)
    assert b"alice" not in data
    assert decode_entry(data)["unmapped"]["stanch"]["commitments"] == {opening.field: opening.commitment}
    assert "alice" not in repr(opening)


def test_every_text_of_an_entry_says_how_it_is_exposed():
    exposures = {"public", "pseudonym", "commit"}
    for record in (Act, Entry, Credential):
        for name, kind in record.__annotations__.items():
            exposed = any(meta.extra["exposure"] in exposures for meta in getattr(kind, "__metadata__", ()))
            is_number = all(isinstance(value, int) for value in get_args(kind)) and get_origin(kind) is Literal
            assert exposed or is_number or kind in {int, int | None, Act}, f"{record.__name__}.{name}"


def test_the_fields_of_the_profile_stand_in_the_order_of_their_names():
    profiles = [cls for cls in vars(ocsf).values() if isinstance(cls, type) and issubclass(cls, ocsf.Profile)]
    assert len(profiles) > 10
    for profile in profiles:
        assert list(profile.__struct_fields__) == sorted(profile.__struct_fields__), profile.__name__


@pytest.mark.parametrize("principal", ["alice", "", "p_short", "p_" + "A" * 26, "p_" + "a" * 26 + "\n"])
def test_only_pseudonyms_name_a_principal(principal):
    with pytest.raises(InvalidInput):
        noted(replace(ACT, principal=principal), time_ms=1).encode(ORIGIN)


def test_somebody_unknown_can_be_denied():
    entry = denied(replace(ACT, principal=UNKNOWN_PRINCIPAL), time_ms=1)
    assert decode_entry(entry.encode(ORIGIN))["actor"]["user"] == {"type_id": 0, "uid": "unknown"}


@pytest.mark.parametrize("value", [0.5, 1.0, float("nan"), 2**53, -(2**53), "\ud800", b"bytes", (1,), {1: 2}, {"é": 1}])
def test_values_that_may_not_stand_in_an_entry(value):
    with pytest.raises(InvalidInput):
        noted(ACT, time_ms=1, payload={"value": value}).encode(ORIGIN)


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"x":', "}")])
def test_the_depth_limit_is_exact(start, end):
    shallow = noted(ACT, time_ms=1, payload={"x": "here"}).encode(ORIGIN)
    within, beyond = (start * depth + "1" + end * depth for depth in (32, 33))
    data = noted(ACT, time_ms=1, payload={"x": json.loads(within)}).encode(ORIGIN)
    assert data == shallow.replace(b'"here"', within.encode())
    decode_entry(data)
    with pytest.raises(InvalidInput, match="deeper than 32"):
        noted(ACT, time_ms=1, payload={"x": json.loads(beyond)}).encode(ORIGIN)
    with pytest.raises(InvalidInput, match="deeper than 32"):
        decode_entry(shallow.replace(b'"here"', beyond.encode()))


def test_the_largest_integers_may_stand_in_an_entry():
    payload = {"most": 2**53 - 1, "least": -(2**53) + 1, "yes": True, "no": False, "nothing": None, "text": "é"}
    assert (
        decode_entry(noted(ACT, time_ms=1, payload=payload).encode(ORIGIN))["unmapped"]["stanch"]["payload"] == payload
    )


def test_the_size_limit_is_exact():
    room = 65_535 - len(noted(ACT, time_ms=1, payload={"x": ""}).encode(ORIGIN))
    assert len(noted(ACT, time_ms=1, payload={"x": "y" * room}).encode(ORIGIN)) == 65_535
    with pytest.raises(EntryTooLarge):
        noted(ACT, time_ms=1, payload={"x": "y" * (room + 1)}).encode(ORIGIN)
    with pytest.raises(EntryTooLarge):
        decode_entry(b"x" * 65_536)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=6), children, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=6), JSON, max_size=5))
def test_encoding_is_rfc_8785_and_a_fixed_point(payload):
    data = noted(ACT, time_ms=1, payload=payload).encode(ORIGIN)
    event = decode_entry(data)
    assert canonical_json(event) == data
    assert event["unmapped"]["stanch"].get("payload", {}) == payload


def test_the_example_of_rfc_9562_is_made():
    # Appendix A.6; the version and the variant take the place of six bits, four more are not used.
    drawn = {10: bytes.fromhex("cc318c4dc0c0c07398f0")}
    assert new_act_id(0x017F22E279B0, rng=drawn.get) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert new_act_id(0x017F22E279B0 + 2**48, rng=drawn.get) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    made = [new_act_id(0, rng=lambda count, n=n: bytes([0, n]) + bytes(count - 2)) for n in range(16)]
    assert "".join(act[19] for act in made) == 4 * "89ab"


def test_act_ids_are_version_7_and_sort_by_time():
    first, second = new_act_id(1_767_225_600_000, rng=bytes), new_act_id(1_767_225_600_001, rng=bytes)
    assert first == "019b76da-a800-7000-8000-000000000000"
    assert first < second
    full = new_act_id(2**48 - 1, rng=lambda count: b"\xff" * count)
    assert full == "ffffffff-ffff-7fff-bfff-ffffffffffff"
    noted(replace(ACT, id=full), time_ms=1).encode(ORIGIN)
