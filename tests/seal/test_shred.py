"""Shredding: only when every key can be destroyed, only the right keys, and then nothing opens."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stanch.crypto import canonical_json
from stanch.crypto.identity import generate_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.recipient import parse_recipient
from stanch.crypto.stanza import DestroyedKey, KeyDescription, KeyDestroyed, KeyUnavailable, Stanza, WrapContext
from stanch.errors import DecryptionFailed, InvalidInput, Tampered
from stanch.seal import Quorum, Recipients, ShreddingDefeated, diagnose, read_manifest, rekey, shred
from stanch.seal.folder import BundleFolder
from stanch.seal.keys import ReleaseRoot
from stanch.seal.openers import Diagnosis, Opener
from stanch.terms import VerifiedDigest

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def clock():
    return NOW


class ServiceKey:
    """A key that a service keeps, in a process: what it wraps is an ordinary stanza under the type of a token's key."""

    def __init__(self, number=0):
        self.key_id = f"token:{number}"
        self._identity, self.state = generate_identity(), "destroyed"
        self.destroyed = 0

    def describe(self):
        return KeyDescription("pkcs11-aes-gcm", self.key_id, str(self))

    def wrap(self, root, context):
        return replace(self._identity.wrap(root, context), type="pkcs11-aes-gcm", key_id=self.key_id)

    def unwrap(self, stanza, context):
        if self.destroyed:
            raise KeyDestroyed(f"{self.key_id} is gone")
        own = self._identity.describe()
        return self._identity.unwrap(replace(stanza, type=own.type, key_id=own.key_id), context)

    def destroy(self):
        self.destroyed += 1
        return DestroyedKey("pkcs11-aes-gcm", self.key_id, str(self), self.state, NOW)

    def __str__(self):
        return f"service:{self.key_id}"


@pytest.fixture
def kept(make_sealed):
    """A bundle for two keys of a service."""
    keys = [ServiceKey(1), ServiceKey(2)]
    return make_sealed({"f": b"x" * 100}, recipients=keys)._replace(identity=None), *keys


def test_the_record_says_what_was_destroyed_and_of_which_bundle(kept):
    sealed, first, second = kept
    done = shred(sealed.path, sealed.publisher, [second, first], sealed_for=["token:2", "token:1"], clock=clock)
    assert (first.destroyed, second.destroyed) == (1, 1)
    keys = [
        {"type": "pkcs11-aes-gcm", "key_id": f"token:{n}", "key": f"service:token:{n}", "state": "destroyed",
         "gone_at": "2026-06-01T12:00:00Z"} for n in (1, 2)
    ]  # fmt: skip
    assert done.to_json() == {
        "format": "stanch/destruction-record/v1",
        "bundle_id": read_manifest(sealed.path).bundle_id,
        "manifest_sha256": sealed.publisher.sha256.hex(),
        "lineage": "acme/bot",
        "release_number": 1,
        "epoch": 0,
        "at": "2026-06-01T12:00:00Z",
        "keys": keys,
    }
    # Repeated, each key is asked again: its service knows.
    assert len(shred(sealed.path, sealed.publisher, [first, second], clock=clock).keys) == 2


@pytest.mark.parametrize(
    ("chosen", "error"), [([], ShreddingDefeated), ([0], ShreddingDefeated), ([0, 1, 0], InvalidInput),
                          ([0, 1, 2], InvalidInput), ([2], ShreddingDefeated)]
)  # fmt: skip
def test_nothing_is_destroyed_unless_exactly_the_keys_of_the_list_are_given(kept, chosen, error):
    sealed, *keys = kept
    keys.append(ServiceKey(3))
    with pytest.raises(error):
        shred(sealed.path, sealed.publisher, [keys[number] for number in chosen], clock=clock)
    assert [key.destroyed for key in keys] == [0, 0, 0]


def test_a_key_that_does_not_open_the_bundle_is_not_destroyed(kept):
    sealed, first, second = kept
    stranger, path = ServiceKey(1), sealed.path / "recipients.json"
    recipients = Recipients.parse(path.read_bytes())
    context = WrapContext(bytes.fromhex(recipients.bundle_id), sealed.publisher.sha256, None)
    for forged in (stranger.wrap(bytes(32), context), stranger.wrap(bytes(32), _context())):
        path.write_bytes(replace(recipients, stanzas=(forged, recipients.stanzas[1])).to_bytes())
        with pytest.raises(DecryptionFailed):
            shred(sealed.path, sealed.publisher, [stranger, second], clock=clock)
    assert (stranger.destroyed, first.destroyed, second.destroyed) == (0, 0, 0)


def test_no_proof_leaves_a_root_key_in_memory(kept, monkeypatch):
    sealed, first, second = kept
    made = []

    def make(*given):
        made.append(ReleaseRoot(*given))
        return made[-1]

    monkeypatch.setattr(sys.modules["stanch.seal.shred"], "ReleaseRoot", make)
    shred(sealed.path, sealed.publisher, [first, second], clock=clock)
    assert [root._root for root in made] == [bytearray(32)] * 2


@pytest.mark.parametrize("name", ["bundle_id", "manifest_sha256"])
def test_the_list_of_another_bundle_destroys_nothing(kept, name):
    sealed, first, second = kept
    path = sealed.path / "recipients.json"
    path.write_bytes(replace(Recipients.parse(path.read_bytes()), **{name: "00" * 32}).to_bytes())
    with pytest.raises(Tampered, match="another bundle"):
        shred(sealed.path, sealed.publisher, [first, second], clock=clock)
    assert (first.destroyed, second.destroyed) == (0, 0)
    if name == "bundle_id":
        with pytest.raises(Tampered, match="another bundle"):
            diagnose(sealed.path)


def test_somebody_who_was_taken_off_the_list_defeats_it(kept):
    sealed, first, second = kept
    for named in (["token:1", "gone"], ["gone"]):
        with pytest.raises(ShreddingDefeated, match="gone: the bundle was sealed for it"):
            shred(sealed.path, sealed.publisher, [first, second], sealed_for=named, clock=clock)
    assert (first.destroyed, second.destroyed) == (0, 0)


def test_a_key_file_or_a_quorum_defeats_it(make_sealed, kept, monkeypatch):
    sealed, first, second = kept
    manifest = read_manifest(sealed.path)
    quorum = lambda *_: msgspec.structs.replace(manifest, quorum=Quorum(2, 3))  # noqa: E731 - one expression
    monkeypatch.setattr(BundleFolder, "verified_manifest", quorum)
    with pytest.raises(ShreddingDefeated, match="approvers"):
        shred(sealed.path, sealed.publisher, [first, second], clock=clock)
    monkeypatch.undo()
    identity = generate_identity()
    other = make_sealed({"f": b"x"}, name="other", recipients=[first, identity.recipient])
    with pytest.raises(ShreddingDefeated, match="a key file, of which there may be copies") as caught:
        shred(other.path, other.publisher, [first, identity], clock=clock)
    assert "seal anew" in caught.value.next_step
    with pytest.raises(ShreddingDefeated, match=r"token:1.*a key on a token") as caught:
        shred(other.path, other.publisher, [identity], clock=clock)
    assert caught.value.next_step == "give its key too"
    assert (first.destroyed, second.destroyed) == (0, 0)


ARN = "arn:aws:kms:eu-central-1:111122223333:key/"


@pytest.mark.parametrize(
    ("kind", "fields", "kept_by", "shreddable"),
    [
        ("pkcs11-aes-gcm", {}, "a key on a token", True),
        ("aws-kms", {"key_arn": f"{ARN}1234"}, "a key of KMS", True),
        ("aws-kms", {"key_arn": f"{ARN}mrk-1234"}, "a multi-Region key of KMS, which other regions keep too", False),
        ("pkcs11-aes-gcm", {"key_arn": f"{ARN}mrk-1234"}, "a key on a token", True),
        ("hpke-x25519", {}, "a key file, of which there may be copies", False),
        ("age", {}, "a key file, of which there may be copies", False),
        ("passphrase", {}, "a passphrase, which cannot be destroyed", False),
        ("quorum", {}, "approvers, who release it together", False),
        ("quorum-share", {}, "a key file, of which there may be copies", False),
        ("hpke-future", {}, "something unknown to this release", False),
    ],
)
def test_what_keeps_a_key_and_whether_that_can_destroy_it(kind, fields, kept_by, shreddable):
    found = Opener.of(Stanza(kind, "k", "2026-06-01T12:00:00Z", fields), NOW)
    assert (found.type, found.key_id, found.kept_by, found.shreddable) == (kind, "k", kept_by, shreddable)
    assert found.ended
    assert not Opener.of(Stanza(kind, "k", "2026-06-01T12:00:01Z", fields), NOW).ended
    assert not Opener.of(Stanza(kind, "k", None, fields), NOW).ended


def test_what_stands_against_shredding_is_said_in_sentences():
    token = Opener.of(Stanza("pkcs11-aes-gcm", "t", None, {}), NOW)
    file = Opener.of(Stanza("age", "f", None, {}), NOW)
    always = "whoever opened the bundle may have kept its contents or its root key"
    found = Diagnosis((token,), None, 0)
    assert found.shreddable
    assert len(found.defeats) == 3
    assert "it never changed, and nobody signs it" in found.defeats[0]
    assert found.defeats[1:] == ("a backup of the token, if there is one, keeps the key", always)
    for openers, quorum in (((token, file), None), ((), None), ((token,), Quorum(2, 3))):
        assert not Diagnosis(openers, quorum, 0).shreddable
    found = Diagnosis((file,), Quorum(2, 3), 3)
    assert found.defeats[0] == "f is a key file, of which there may be copies"
    assert "approvers' shares" in found.defeats[1]
    assert "it changed 3 times, and nobody" in found.defeats[2]
    assert found.defeats[3:] == (always,)


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
