"""The published stanzas open: ``tests/vectors/seal/stanzas.json``."""

import hashlib
import json
from pathlib import Path

import pytest

import servers
from stanch.crypto.identity import load_identity
from stanch.crypto.stanza import Stanza, WrapContext
from stanch.errors import DecryptionFailed

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "seal" / "stanzas.json").read_text())
CASES = {case["name"]: case for case in VECTOR["cases"]}
CONTEXT = WrapContext(
    bytes.fromhex(VECTOR["bundle_id"]), hashlib.sha256(VECTOR["manifest"].encode()).digest(), VECTOR["not_after"]
)


@pytest.fixture
def identity_of(tmp_path):
    def read(case):
        path = tmp_path / "identity"
        path.touch(0o600)
        path.write_text(case["identity"])
        return load_identity(path)

    return read


def check(case, key):
    stanza = Stanza.from_json(case["stanza"])
    assert hashlib.sha256(CONTEXT.info(stanza.type, stanza.key_id)).hexdigest() == case["info_sha256"]
    assert (key.describe().recipient, key.describe().key_id) == (case["recipient"], stanza.key_id)
    assert key.unwrap(stanza, CONTEXT).hex() == VECTOR["root"]
    with pytest.raises(DecryptionFailed):
        key.unwrap(stanza, WrapContext(CONTEXT.bundle_id, CONTEXT.manifest_sha256, None))


@pytest.mark.parametrize("name", ["x25519", "hybrid", "age"])
def test_the_stanza_opens(name, identity_of):
    if name == "age":
        pytest.importorskip("pyrage", reason="pyrage is not installed")
    check(CASES[name], identity_of(CASES[name]))


def test_the_stanza_of_a_token_opens(softhsm, identity_of, monkeypatch):
    import pkcs11  # noqa: PLC0415 - a part that may be missing

    case = CASES["pkcs11"]
    monkeypatch.setenv("STANCH_PKCS11_MODULE", str(servers.SOFTHSM_MODULE))
    monkeypatch.setenv("STANCH_PKCS11_PIN_FILE", str(softhsm.pin_file))
    attribute = pkcs11.Attribute
    with softhsm.open() as session:
        key = session.create_object(
            {
                attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, attribute.KEY_TYPE: pkcs11.KeyType.AES,
                attribute.VALUE: bytes.fromhex(case["aes_key"]), attribute.LABEL: "vector", attribute.ID: b"\x00\xff",
                attribute.TOKEN: True, attribute.SENSITIVE: True, attribute.EXTRACTABLE: False,
                attribute.ENCRYPT: True, attribute.DECRYPT: True,
            }
        )  # fmt: skip
        check(case, identity_of(case))
        key.destroy()


def test_what_kms_is_told_is_the_published_context(kms, identity_of, monkeypatch):
    case, asked = CASES["aws-kms"], {}
    assert kms.environment["AWS_REGION"] in case["recipient"]
    key = identity_of(case)
    monkeypatch.setattr(key, "_call", lambda verb, **told: asked.update(told, verb=verb) or {"CiphertextBlob": b"x"})
    stanza = key.wrap(bytes.fromhex(VECTOR["root"]), CONTEXT)
    assert (stanza.key_id, stanza.fields["key_arn"]) == (case["key_id"], case["recipient"])
    assert asked["EncryptionContext"] == case["encryption_context"]
    assert asked["EncryptionContext"]["stanch:info"] == case["info_sha256"]
    assert (asked["verb"], asked["KeyId"], asked["Plaintext"].hex()) == ("encrypt", case["recipient"], VECTOR["root"])
