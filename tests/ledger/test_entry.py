"""Entries: golden bytes, every refusal, and the builders."""

import hashlib
import json
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
from stanch.ledger.ocsf import class_of
from stanch.terms import ArtifactRef, Digest

ORIGIN = "example.com/stanch/log"
VECTORS = Path(__file__).parent.parent / "vectors" / "ledger"
INVALID = json.loads((VECTORS / "invalid_entries.json").read_text())
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
    with pytest.raises(InvalidInput):
        decode_entry(case["entry"].encode())


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


def test_deep_payloads_are_refused():
    value = 1
    for _ in range(40):
        value = [value]
    with pytest.raises(InvalidInput):
        noted(ACT, time_ms=1, payload={"value": value}).encode(ORIGIN)


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


def test_act_ids_are_version_7_and_sort_by_time():
    first, second = new_act_id(1_767_225_600_000, rng=bytes), new_act_id(1_767_225_600_001, rng=bytes)
    assert first == "019b76da-a800-7000-8000-000000000000"
    assert first < second
    full = new_act_id(2**48 - 1, rng=lambda count: b"\xff" * count)
    assert full == "ffffffff-ffff-7fff-bfff-ffffffffffff"
    noted(replace(ACT, id=full), time_ms=1).encode(ORIGIN)
