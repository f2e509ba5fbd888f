"""Export: OCSF lines with their fingerprint, syslog lines by RFC 5424, every kind of act by the profile."""

import base64
import hashlib
import json
import re

import pytest
from msgspec.structs import replace

from stanch.crypto import SigningKey, canonical_json
from stanch.errors import InvalidInput, NoTrustedSignature
from stanch.ledger import Act, Credential, decode_entry, denied, intent, new_act_id, noted, outcome, sign_act
from stanch.ledger.entry import read_event
from stanch.ledger.export import export_event, export_line
from stanch.ledger.ocsf import KeyUse, class_of
from stanch.ledger.signature import act_message, check_act
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.kinds import KINDS

ORIGIN = "example.com/stanch/log"
PERSON = "p_aaaqeayeaudaocajbifqydiob4"
NOW = 1_767_225_600_123
OTHERS = ("gateway.chat", "access.login", "guard.finding", "watch.alarm", "watch.incident.open", "watch.incident.close")
SYSLOG = re.compile(
    r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S{1,255}) stanch - (\S{1,32}) - \ufeff(\{.*\})", re.DOTALL
)


def act(kind="release.create", **changes):
    return Act(kind=kind, id=new_act_id(NOW), principal=PERSON, **changes)


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_every_kind_of_act_follows_the_profile_in_every_phase(kind):
    for entry in (
        intent(act(kind), time_ms=NOW),
        outcome(act(kind), time_ms=NOW),
        outcome(act(kind), time_ms=NOW, result="failed"),
        denied(act(kind), time_ms=NOW),
        noted(act(kind), time_ms=NOW),
    ):
        event = decode_entry(entry.encode(ORIGIN))
        assert event["metadata"]["version"] == "1.9.0"
        assert event["metadata"]["profiles"] == ["record_integrity"]
        assert event["attestation"] == {"authority_uid": ORIGIN, "chain_uid": ORIGIN}
        assert event["type_uid"] == 100 * event["class_uid"] + event["activity_id"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("guard.finding", (2006, 1)), ("watch.alarm", (2004, 1)), ("watch.incident.open", (2005, 1)),
        ("watch.incident.update", (2005, 2)), ("watch.incident.close", (2005, 3)), ("watch.finding.close", (2006, 3)),
        ("access.login", (3002, 1)), ("access.logout", (3002, 2)), ("access.suspend", (3007, 5)),
        ("access.resume", (3007, 4)), ("policy.write", (3004, 3)), ("log.erase", (6003, 4)),
    ],
)  # fmt: skip
def test_classes(kind, expected):
    assert class_of(kind) == expected


def test_the_fingerprint_is_that_of_the_event_without_it():
    data = intent(act(), time_ms=NOW).encode(ORIGIN)
    event = json.loads(export_line(data, "jsonl"))
    assert event.pop("fingerprint") == {"algorithm_id": 3, "value": hashlib.sha256(data).hexdigest()}
    assert canonical_json(event) == data


@pytest.mark.parametrize(
    ("entry", "priority"),
    [(intent(act(), time_ms=NOW), 110), (denied(act(), time_ms=NOW), 108),
     (replace(intent(act(), time_ms=NOW), severity=5), 106)],
)  # fmt: skip
def test_syslog_lines(entry, priority):
    data = entry.encode(ORIGIN)
    match = SYSLOG.fullmatch(export_line(data, "syslog"))
    assert match is not None
    assert match.groups()[:4] == (str(priority), "2026-01-01T00:00:00.123Z", ORIGIN, "release.create")
    assert json.loads(match[5]) == export_event(data)


def test_a_syslog_header_keeps_the_limits_of_rfc_5424():
    longest = noted(act("a23456789-123456789-123456789-12.end"), time_ms=NOW).encode("!" + "é~\x7f" + 253 * "h")
    match = SYSLOG.fullmatch(export_line(longest, "syslog"))
    assert match is not None
    assert (match[3], match[4]) == ("!?~?" + 251 * "h", "a23456789-123456789-123456789-12")
    assert json.loads(match[5])["attestation"]["chain_uid"] == "!" + "é~\x7f" + 253 * "h"


def test_an_entry_without_a_kind_has_no_message_id(load):
    line = export_line(load("ledger/entry.json")["entry"].encode(), "syslog")
    assert line.startswith("<110>1 2026-01-01T00:00:00.000Z example.com/stanch/log stanch - - - \ufeff{")


def test_a_line_holds_no_newline_whatever_a_name_holds():
    subject = (ArtifactRef("model", "two\nlines", Digest.sha256(b"")),)
    data = intent(act(subject=subject), time_ms=NOW).encode(ORIGIN)
    assert "\n" not in export_line(data, "syslog") + export_line(data, "jsonl")


# Signatures of acts

KEY = SigningKey.from_seed(bytes(range(32)))


def signed(**changes):
    entry = intent(
        act(
            subject=(ArtifactRef("model", "bot", Digest.sha256(b"w")),),
            credential=Credential(kind="local", key_id=KEY.key_id),
        ),
        time_ms=NOW,
        payload={"n": 1},
    )
    return sign_act(replace(entry, **changes), ORIGIN, KEY)


def test_a_signed_act_verifies_under_its_key_alone():
    event = read_event(signed().encode(ORIGIN))
    check_act(event, KEY.public)
    with pytest.raises(NoTrustedSignature):
        check_act(event, SigningKey.from_seed(bytes(32)).public)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, payload={"n": 2}),
        lambda e: replace(e, time_ms=NOW + 1),
        lambda e: replace(e, act=replace(e.act, kind="release.revoke")),
        lambda e: replace(e, act=replace(e.act, id=new_act_id(NOW))),
        lambda e: replace(e, act=replace(e.act, subject=())),
    ],
)
def test_no_part_of_a_signed_act_can_be_changed(change):
    with pytest.raises(NoTrustedSignature):
        check_act(read_event(change(signed()).encode(ORIGIN)), KEY.public)


def test_an_act_without_payload_and_kind_is_signed_all_the_same(load):
    whole = read_event(load("ledger/entry.json")["entry"].encode())
    sig = KEY.sign(
        act_message(
            act=whole.metadata.correlation_uid, kind="", origin=ORIGIN, subject=[], payload={}, time_ms=whole.time
        )
    )  # fmt: skip
    use = KeyUse(key_id=KEY.key_id, kind="local", sig=base64.b64encode(sig).decode())
    ours = replace(whole.unmapped.stanch, credential=use)
    check_act(replace(whole, unmapped=replace(whole.unmapped, stanch=ours)), KEY.public)


def test_another_log_and_no_signature_are_refused():
    with pytest.raises(NoTrustedSignature):
        check_act(read_event(signed().encode("example.com/other")), KEY.public)
    named = act(credential=Credential(kind="local", key_id=KEY.key_id))
    for unsigned in (act(), named):
        with pytest.raises(NoTrustedSignature, match="not signed"):
            check_act(read_event(intent(unsigned, time_ms=NOW).encode(ORIGIN)), KEY.public)
    for other in (act(), replace(named, credential=Credential(kind="local", key_id="ed25519:" + "0" * 32))):
        with pytest.raises(InvalidInput, match="does not name"):
            sign_act(intent(other, time_ms=NOW), ORIGIN, KEY)


def test_the_message_is_fixed():
    message = act_message(act="a", kind="k", origin="o", subject=["s"], payload={}, time_ms=1)
    empty = hashlib.sha256(b"{}").hexdigest()
    text = f'{{"act":"a","kind":"k","origin":"o","params_digest":"sha256:{empty}","subject":["s"],"time":1}}'.encode()
    label = b"stanch/ledger/v1/act"
    assert message == len(label).to_bytes(4, "big") + label + len(text).to_bytes(4, "big") + text
