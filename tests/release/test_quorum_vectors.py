"""The published example of a quorum record: an independent reader, written from the specification, agrees with us."""

import importlib.util
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stanch.crypto import VerifyKey
from stanch.crypto.identity import Identity
from stanch.errors import QuorumNotMet, StanchError
from stanch.release import read_record, redeem
from stanch.seal import parse_manifest
from stanch.seal.quorum import unfold_redeemed
from stanch.sign import TrustedKeys

TESTS = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("quorum_oracle", TESTS / "seal" / "oracle.py")
oracle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(oracle)
VECTOR = json.loads((TESTS / "vectors" / "release" / "quorum.json").read_text())
TRUSTED = TrustedKeys((VerifyKey.from_pem(VECTOR["publisher"]),))
RECORD, APPROVALS = VECTOR["record"].encode(), [text.encode() for text in VECTOR["approvals"]]
SECRET = bytes.fromhex(VECTOR["recipient_secret"])
MANIFEST = parse_manifest(VECTOR["manifest"].encode())
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_the_request_has_the_published_digest():
    record = read_record(RECORD, TRUSTED)
    assert record.request.digest.hex == VECTOR["request_digest"]
    assert oracle.request_digest(oracle.payload(RECORD)["predicate"]["request"]).hex() == VECTOR["request_digest"]


def test_each_approver_opens_the_published_share():
    predicate = oracle.payload(RECORD)["predicate"]
    for x, (secret, share) in enumerate(zip(VECTOR["approver_secrets"], VECTOR["shares"], strict=True), 1):
        stanza = predicate["shares"][x - 1]["stanza"]
        label = b"stanch/quorum/v1/share-to-approver"
        assert oracle.open_share(stanza, x, bytes.fromhex(secret), predicate, label).hex() == share


def test_both_readers_join_the_published_root():
    for chosen in itertools.chain(itertools.combinations(APPROVALS, 2), [APPROVALS]):
        assert oracle.released_root(RECORD, chosen, SECRET).hex() == VECTOR["root"]
        made = redeem(read_record(RECORD, TRUSTED), chosen, Identity(SECRET), MANIFEST, now=NOW)
        context = read_record(RECORD, TRUSTED).request.context
        assert Identity(SECRET).unwrap(*unfold_redeemed(made.stanza, context)).hex() == VECTOR["root"]
        opened = oracle.unwrap_redeemed(
            {"manifest_sha256": context.manifest_sha256.hex(), "bundle_id": MANIFEST.bundle_id,
             "stanzas": [made.stanza.to_json()]},
            SECRET, context.manifest_sha256, context.bundle_id, made.stanza.key_id,
        )  # fmt: skip
        assert opened.hex() == VECTOR["root"]
    with pytest.raises(QuorumNotMet):
        redeem(read_record(RECORD, TRUSTED), APPROVALS[:1], Identity(SECRET), MANIFEST, now=NOW)
    with pytest.raises(ValueError, match="quorum"):
        oracle.released_root(RECORD, APPROVALS[:1], SECRET)


@pytest.mark.parametrize("case", VECTOR["invalid"], ids=lambda case: case["name"])
def test_each_fault_is_refused_by_its_name(case):
    record = case.get("record", VECTOR["record"]).encode()
    approvals = [text.encode() for text in case.get("approvals", VECTOR["approvals"])]
    with pytest.raises(StanchError) as caught:
        redeem(read_record(record, TRUSTED), approvals, Identity(SECRET), MANIFEST, now=NOW)
    assert type(caught.value).__name__ == case["error"]
