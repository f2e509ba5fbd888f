"""Shredding: only when every key can be destroyed, only the right keys, and then nothing opens."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stanch.crypto import canonical_json
from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.stanza import KeyDestroyed, KeyUnavailable
from stanch.errors import DecryptionFailed, InvalidInput, Tampered
from stanch.seal import Recipients, ShreddingDefeated, diagnose, rekey, shred
from stanch.terms import VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def clock():
    return NOW


@pytest.fixture
def token_key(softhsm):
    return parse_recipient(softhsm.key())


@pytest.fixture
def both(make_sealed, token_key, kms):
    """A bundle for a key on a token and a key of KMS."""
    kms_key = parse_recipient(kms.key())
    sealed = make_sealed({"f": b"x" * 100}, recipients=[token_key, kms_key])
    return sealed._replace(identity=None), token_key, kms_key


def opens(sealed, key):
    return sealed.read_all(identities=[key]) == sealed.files


def test_nothing_opens_after_shredding(both, tmp_path):
    sealed, token_key, kms_key = both
    copy = sealed._replace(path=shutil.copytree(sealed.path, tmp_path / "copy.sealed"))
    assert opens(sealed, token_key)
    assert opens(sealed, kms_key)
    done = shred(sealed.path, sealed.publisher, [kms_key, token_key], clock=clock)
    for bundle in (sealed, copy):
        for key in (token_key, kms_key):
            with pytest.raises(KeyDestroyed):
                bundle.open(identities=[key])
    assert [(key.type, key.state) for key in done.keys] == [("pkcs11-aes-gcm", "destroyed"), ("aws-kms", "scheduled")]
    record = json.loads(canonical_json(done.to_json()))
    assert record["format"] == "stanch/destruction-record/v1"
    assert record["manifest_sha256"] == sealed.publisher.sha256.hex()
    assert record["at"] == "2026-06-01T12:00:00Z"
    assert [key["key"] for key in record["keys"]] == [str(token_key), str(kms_key)]


def test_shredding_that_broke_off_is_finished_by_repeating_it(both, monkeypatch):
    sealed, token_key, kms_key = both

    def fail(key):
        raise KeyUnavailable(f"{key}: fails")

    with monkeypatch.context() as patch:
        patch.setattr(type(kms_key), "destroy", fail)
        with pytest.raises(KeyUnavailable, match="fails"):
            shred(sealed.path, sealed.publisher, [token_key, kms_key], clock=clock)
    assert opens(sealed, kms_key)
    done = shred(sealed.path, sealed.publisher, [token_key, kms_key], clock=clock)
    assert [key.state for key in done.keys] == ["absent", "scheduled"]


@pytest.mark.parametrize("other", ["identity", "passphrase"])
def test_a_key_that_lives_on_defeats_it_and_nothing_is_destroyed(make_sealed, token_key, other):
    beside = generate_identity().recipient if other == "identity" else Passphrase("a passphrase")
    sealed = make_sealed({"f": b"x"}, recipients=[token_key, beside])
    with pytest.raises(ShreddingDefeated, match="would still open"):
        shred(sealed.path, sealed.publisher, [token_key], clock=clock)
    assert opens(sealed, token_key)
    found = diagnose(sealed.path, clock=clock)
    assert not found.shreddable
    assert found.defeats[0].startswith(found.openers[1].key_id)


def test_a_recipient_that_was_taken_off_the_unsigned_list_defeats_it_if_somebody_remembers(make_sealed, token_key):
    identity = generate_identity()
    sealed = make_sealed({"f": b"x"}, recipients=[token_key, identity.recipient])
    path, named = sealed.path / "recipients.json", {token_key.key_id, identity.recipient.key_id}
    recipients = Recipients.parse(path.read_bytes())
    path.write_bytes(replace(recipients, stanzas=recipients.stanzas[:1]).to_bytes())
    with pytest.raises(ShreddingDefeated, match="was sealed for it") as caught:
        shred(sealed.path, sealed.publisher, [token_key], sealed_for=named, clock=clock)
    assert caught.value.what.startswith(identity.recipient.key_id)
    assert opens(sealed, token_key)
    assert "nobody signs" in " ".join(diagnose(sealed.path, clock=clock).defeats)
    assert shred(sealed.path, sealed.publisher, [token_key], sealed_for={token_key.key_id}, clock=clock).epoch == 0


def test_a_key_with_replicas_defeats_it(make_sealed, kms):
    key = parse_recipient(kms.admin.create_key(MultiRegion=True)["KeyMetadata"]["Arn"])
    sealed = make_sealed({"f": b"x"}, recipients=[key])
    assert not diagnose(sealed.path, clock=clock).shreddable
    with pytest.raises(ShreddingDefeated, match="other regions"):
        shred(sealed.path, sealed.publisher, [key], clock=clock)
    assert opens(sealed, key)


def test_only_exactly_the_keys_of_the_bundle_are_destroyed(both, softhsm):
    sealed, token_key, kms_key = both
    stranger = parse_recipient(softhsm.key())
    for keys, error in (
        ([token_key], ShreddingDefeated),
        ([], ShreddingDefeated),
        ([token_key, kms_key, stranger], InvalidInput),
        ([token_key, token_key, kms_key], InvalidInput),
    ):
        with pytest.raises(error):
            shred(sealed.path, sealed.publisher, keys, clock=clock)
    assert opens(sealed, token_key)
    assert opens(sealed, kms_key)
    stranger.wrap(bytes(32), _context())


def _context():
    from stanch.crypto.stanza import WrapContext  # noqa: PLC0415 - used here alone

    return WrapContext(bytes(32), bytes(32), None)


def test_an_edited_stanza_destroys_no_other_key(both, softhsm):
    sealed, token_key, kms_key = both
    victim = parse_recipient(softhsm.key())
    path = sealed.path / "recipients.json"
    recipients = Recipients.parse(path.read_bytes())
    forged = victim.wrap(bytes(32), _context())
    path.write_bytes(
        Recipients(
            recipients.bundle_id, recipients.manifest_sha256, recipients.epoch, (forged, recipients.stanzas[1])
        ).to_bytes()
    )
    with pytest.raises(DecryptionFailed):
        shred(sealed.path, sealed.publisher, [victim, kms_key], clock=clock)
    assert len(victim.wrap(bytes(32), _context()).fields["ct"]) == 64
    assert token_key.wrap(bytes(32), _context())


def test_the_bundle_must_be_the_signed_one(both):
    sealed, token_key, kms_key = both
    with pytest.raises(Tampered):
        shred(sealed.path, VerifiedDigest(bytes(32), ("k",), None), [token_key, kms_key], clock=clock)
    assert opens(sealed, token_key)


def test_an_ended_release_can_be_shredded(make_sealed, token_key):
    sealed = make_sealed({"f": b"x"}, recipients=[token_key], not_after=NOW + timedelta(days=1))
    later = NOW + timedelta(days=2)
    assert [opener.ended for opener in diagnose(sealed.path, clock=lambda: later).openers] == [True]
    assert [opener.ended for opener in diagnose(sealed.path, clock=clock).openers] == [False]
    assert shred(sealed.path, sealed.publisher, [token_key], clock=lambda: later).keys[0].state == "destroyed"


def test_a_diagnosis_says_what_is_left_open(both):
    sealed, token_key, kms_key = both
    found = diagnose(sealed.path, clock=clock)
    assert found.shreddable
    assert [opener.type for opener in found.openers] == ["pkcs11-aes-gcm", "aws-kms"]
    assert [word in " ".join(found.defeats) for word in ("backup", "waiting period", "opened", "never changed")] == [
        True, True, True, True,
    ]  # fmt: skip
    rekey(sealed.path, sealed.publisher, token_key, remove=[kms_key.key_id], clock=clock)
    found = diagnose(sealed.path, clock=clock)
    assert found.epoch == 1
    assert "changed 1 times" in found.defeats[0]
    assert shred(sealed.path, sealed.publisher, [token_key], clock=clock).epoch == 1
