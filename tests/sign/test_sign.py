"""Statements, bundles and policies: what holds, and every way in which it must not."""

import base64
import json
from dataclasses import replace

import pytest

from stanch.crypto import SigningKey
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation
from stanch.sign import (
    Bundle,
    HasSubject,
    PredicateType,
    Statement,
    Subject,
    TrustedKeys,
    all_of,
    sign_manifest,
    sign_statement,
    verify_bundle,
    verify_manifest,
)
from stanch.sign.bundle import pre_authentication
from stanch.terms import Digest

KEY = SigningKey.from_seed(bytes(range(32)))
OTHER = SigningKey.generate("p256")
WEIGHTS = Digest.sha256(b"weights")
STATEMENT = Statement((Subject("weights", WEIGHTS),), "urn:test:v1", {"ok": True})
TRUSTED = TrustedKeys((KEY.public,))
MANIFEST = json.dumps({"lineage": "acme/bot", "release_number": 3, "bundle_id": "ab" * 32}).encode()


def test_what_is_signed_follows_the_dsse_specification():
    # DSSE v1, protocol.md: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
    assert pre_authentication(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


SIGNERS = [KEY, OTHER, *map(SigningKey.generate, ("p384", "p521", "mldsa65"))]


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.kind)
def test_a_signed_statement_comes_back_verified(signer):
    bundle = Bundle.parse(sign_statement(STATEMENT, signer).to_bytes())
    verified = verify_bundle(bundle, TrustedKeys(tuple(key.public for key in SIGNERS)))
    assert verified.statement == STATEMENT
    assert verified.signer_key_ids == (signer.key_id,)


def test_further_signers_sign_the_same_envelope_and_each_counts_once():
    first, *others = SIGNERS
    bundle = Bundle.parse(sign_statement(STATEMENT, first, *others).to_bytes())
    assert len(bundle.further) == len(others)
    everybody = tuple(key.public for key in SIGNERS)
    verified = verify_bundle(bundle, TrustedKeys(everybody, threshold=len(SIGNERS)))
    assert verified.signer_key_ids == tuple(sorted(key.key_id for key in SIGNERS))
    for key in SIGNERS:
        assert verify_bundle(bundle, TrustedKeys((key.public,))).signer_key_ids == (key.key_id,)
    repeated = Bundle.parse(replace(bundle, further=(bundle.signature,) * 7).to_bytes())
    with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
        verify_bundle(repeated, TrustedKeys(everybody, threshold=2))
    with pytest.raises(InvalidInput):
        Bundle.parse(replace(bundle, further=(bundle.signature,) * 8).to_bytes())
    with pytest.raises(InvalidInput, match="different signing keys"):
        sign_statement(STATEMENT, first, OTHER, OTHER)


def test_a_manifest_signed_before_and_after_quantum_computers_needs_both_keys():
    classical, later = SIGNERS[1], SIGNERS[4]
    both = TrustedKeys((classical.public, later.public), threshold=2)
    bundle = sign_manifest(MANIFEST, classical, later)
    assert verify_manifest(MANIFEST, bundle, both).signer_key_ids == (later.key_id, classical.key_id)
    for signature in (bundle.signature, bundle.further[0]):
        with pytest.raises(NoTrustedSignature, match="expected 2, found 1"):
            verify_manifest(MANIFEST, replace(bundle, signature=signature, further=()), both)


def test_every_flipped_byte_of_payload_and_signature_is_refused():
    bundle = sign_statement(STATEMENT, KEY)
    for field in ("payload", "signature"):
        value = getattr(bundle, field)
        for position in range(len(value)):
            changed = value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]
            forged = Bundle(**{"payload": bundle.payload, "signature": bundle.signature, "hint": "", field: changed})
            with pytest.raises((NoTrustedSignature, InvalidInput)):
                verify_bundle(forged, TRUSTED)


def test_a_stranger_who_names_our_hint_is_not_trusted():
    forged = sign_statement(STATEMENT, OTHER)
    with pytest.raises(NoTrustedSignature):
        verify_bundle(Bundle(forged.payload, forged.signature, sign_statement(STATEMENT, KEY).hint), TRUSTED)


def test_policies_compose_and_name_what_fails():
    bundle = sign_statement(STATEMENT, KEY)
    verify_bundle(bundle, all_of(TRUSTED, PredicateType("urn:test:v1"), HasSubject("weights", WEIGHTS)))
    with pytest.raises(PolicyViolation, match="urn:other:v1"):
        verify_bundle(bundle, all_of(TRUSTED, PredicateType("urn:other:v1")))
    with pytest.raises(PolicyViolation, match="no such name"):
        verify_bundle(bundle, all_of(TRUSTED, HasSubject("tokenizer", WEIGHTS)))


def test_a_policy_without_keys_accepts_nothing():
    with pytest.raises(NoTrustedSignature):
        verify_bundle(sign_statement(STATEMENT, KEY), PredicateType("urn:test:v1"))
    with pytest.raises(InvalidInput):
        TrustedKeys(())
    with pytest.raises(InvalidInput):
        all_of()


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": [{"name": "a", "digest": {"sha1": "00" * 20}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "00"}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "00" * 32}}] * 2},
        {"subject": [{"name": "a", "digest": {"sha256": "00" * 32, "sha512": "00" * 64}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "00" * 32}, "uri": "file:a"}]},
        {"subject": [{"name": 1, "digest": {"sha256": "00" * 32}}]},
        {"predicate": []},
        {"extra": 1},
    ],
)
def test_a_statement_that_breaks_the_form_is_refused(change):
    with pytest.raises(InvalidInput):
        Statement.parse(json.dumps(json.loads(STATEMENT.to_bytes()) | change).encode())


def test_a_statement_has_at_most_65_536_subjects():
    subjects = tuple(Subject(str(n), WEIGHTS) for n in range(65_537))
    assert len(Statement(subjects[1:], "urn:test:v1", {}).subjects) == 65_536
    with pytest.raises(InvalidInput, match="1 to 65536"):
        Statement(subjects, "urn:test:v1", {})


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/json"},
        {"verificationMaterial": {"certificate": {}}},
        {"dsseEnvelope": {"payload": "!", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": ""}]}},
        {"dsseEnvelope": {"payload": "é", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": ""}]}},
        {"dsseEnvelope": {"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": []}},
        {"dsseEnvelope": {"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": 1}]}},
    ],
)
def test_a_bundle_that_breaks_the_form_is_refused(change):
    with pytest.raises(InvalidInput):
        Bundle.parse(json.dumps(json.loads(sign_statement(STATEMENT, KEY).to_bytes()) | change).encode())


def test_a_bundle_carries_at_most_sixteen_time_stamps():
    stamped = replace(sign_statement(STATEMENT, KEY), timestamps=(b"one", b"two") * 8)
    assert Bundle.parse(stamped.to_bytes()) == stamped
    with pytest.raises(InvalidInput, match="at most 16"):
        Bundle.parse(replace(stamped, timestamps=(b"x",) * 17).to_bytes())
    fields = json.loads(stamped.to_bytes())
    for items in (["x"], [{}], [{"signedTimestamp": 1}], [{"signedTimestamp": "!"}], {}, None):
        fields["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": items}
        with pytest.raises(InvalidInput):
            Bundle.parse(json.dumps(fields).encode())


def test_at_most_eight_keys_sign_together():
    keys = [SigningKey.from_seed(bytes([n]) * 32) for n in range(9)]
    bundle = sign_statement(STATEMENT, *keys[:8])
    assert len(verify_bundle(bundle, TrustedKeys(tuple(k.public for k in keys), threshold=8)).signer_key_ids) == 8
    with pytest.raises(InvalidInput, match="1 to 8"):
        sign_statement(STATEMENT, *keys)


def test_the_hint_is_the_digest_of_the_public_key():
    assert sign_statement(STATEMENT, KEY).hint == Digest.sha256(KEY.public.to_pem()).hex


def test_the_manifest_signature_binds_line_and_number():
    bundle = sign_manifest(MANIFEST, KEY)
    verified = verify_manifest(MANIFEST, bundle, TRUSTED)
    assert verified.sha256 == Digest.sha256(MANIFEST).value
    assert (verified.signer_key_ids, verified.signed_at) == ((KEY.key_id,), None)
    with pytest.raises(PolicyViolation, match="other bytes"):
        verify_manifest(MANIFEST.replace(b"3", b"2"), bundle, TRUSTED)
    moved = Statement(
        (Subject("manifest.json", Digest.sha256(MANIFEST)),), "urn:stanch:sealed-bundle:v1", {"lineage": "x"}
    )
    with pytest.raises(PolicyViolation, match="another line"):
        verify_manifest(MANIFEST, sign_statement(moved, KEY), TRUSTED)
    with pytest.raises(PolicyViolation, match="another type"):
        verify_manifest(MANIFEST, sign_statement(Statement(moved.subjects, "urn:x", {}), KEY), TRUSTED)


@pytest.mark.parametrize("left_out", ["lineage", "release_number", "bundle_id"])
def test_a_manifest_without_a_field_that_the_signature_names_is_refused(left_out):
    fields = {name: value for name, value in json.loads(MANIFEST).items() if name != left_out}
    for manifest in (json.dumps(fields).encode(), json.dumps(list(json.loads(MANIFEST))).encode()):
        with pytest.raises(InvalidInput, match="expected the fields"):
            sign_manifest(manifest, KEY)
        with pytest.raises(InvalidInput, match="expected the fields"):
            verify_manifest(manifest, sign_manifest(MANIFEST, KEY), TRUSTED)


def test_the_bundle_is_what_sigstore_calls_one():
    fields = json.loads(sign_statement(STATEMENT, KEY).to_bytes())
    assert fields["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    (signature,) = fields["dsseEnvelope"]["signatures"]
    assert signature.keys() == {"sig", "keyid"}
    assert signature["keyid"] == ""  # the key is named by the hint
    assert json.loads(base64.b64decode(fields["dsseEnvelope"]["payload"]))["_type"] == "https://in-toto.io/Statement/v1"
