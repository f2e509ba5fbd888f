"""An index that lies sealed: who opens it, what refuses it, and that none of its plaintext is on a disk."""

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stanch.config import algorithms
from stanch.crypto.identity import Identity
from stanch.errors import Conflict, VerificationError
from stanch.scan import FINE, SpanIndex
from stanch.seal import read_manifest
from stanch.seal.recipients import Recipients
from stanch.workspace import Keyring
from stanch.workspace.indexes import Sealed, open_index, save_index

TEXT = "the quick brown fox of the harbour counts seven copper kettles before the tide comes in again tonight"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keyring.create(tmp_path_factory.mktemp("keys") / "k", algorithms("2026"))


@pytest.fixture(scope="module")
def index(keys):
    return SpanIndex.build([TEXT], key=keys.secret("index"), params=FINE)


@pytest.fixture
def sealed(keys, index, tmp_path):
    save_index(keys, index, Sealed(tmp_path / "train.sealed"))
    return tmp_path / "train.sealed"


def test_either_form_opens_to_the_same_index(keys, index, sealed, tmp_path):
    save_index(keys, index, tmp_path / "train.index")
    (file, by_file), (bundle, by_bundle) = open_index(keys, tmp_path / "train.index"), open_index(keys, sealed)
    assert file.to_bytes() == bundle.to_bytes() == index.to_bytes()
    assert bundle.query(TEXT)
    assert by_file != by_bundle
    assert open_index(keys, sealed)[1] == by_bundle


def test_nothing_of_it_is_on_the_disk(sealed):
    data = b"".join(path.read_bytes() for path in sealed.rglob("*") if path.is_file())
    assert b"STXIDX" not in data
    assert b"fill_fp" not in data


def test_its_recipient_is_the_identity_of_the_specification(keys, sealed):
    secret = HKDF(SHA256(), 96, salt=None, info=b"stanch/index-identity/v1").derive(keys.secret("index"))
    manifest, recipients = read_manifest(sealed), Recipients.parse((sealed / "recipients.json").read_bytes())
    assert [one.key_id for one in recipients.stanzas] == [Identity(secret, "hybrid").recipient.key_id]
    assert (manifest.kind, manifest.lineage) == ("dataset", "stanch/span-index")


def test_it_never_replaces_what_is_there(keys, index, sealed):
    with pytest.raises(Conflict):
        save_index(keys, index, Sealed(sealed))


def test_others_and_changes_are_refused(keys, index, sealed, tmp_path):
    stranger = Keyring.create(tmp_path / "other", algorithms("2026"))
    with pytest.raises(VerificationError):  # not signed by the stranger's publisher
        open_index(stranger, sealed)
    (tmp_path / "other/index.key").unlink()
    (tmp_path / "other/index.key").write_bytes(keys.secret("index"))
    (tmp_path / "other/index.key").chmod(0o600)
    save_index(stranger, index, Sealed(tmp_path / "forged"))
    with pytest.raises(VerificationError):  # by whoever has the index key alone
        open_index(keys, tmp_path / "forged")
    (body,) = sealed.rglob("00001.floe")
    changed = bytearray(body.read_bytes())
    changed[len(changed) // 2] ^= 1
    body.write_bytes(changed)
    with pytest.raises(VerificationError):
        open_index(keys, sealed)
