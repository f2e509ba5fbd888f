import importlib.util
from pathlib import Path

import pytest

from stanch.crypto.hpke import OVERHEAD, hpke_decrypt, hpke_encrypt, hpke_public
from stanch.errors import DecryptionFailed, InvalidInput

SPEC = importlib.util.spec_from_file_location("hpke_oracle", Path(__file__).parents[1] / "seal" / "oracle.py")
oracle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(oracle)

SECRET, INFO = bytes(range(1, 33)), b"what it is bound to"

# RFC 9180, appendix A.1 (base mode): values of the receiver and of the encapsulation.
RFC = {
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    "secret": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
    "public": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
    "shared": "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
    "key": "4531685d41d65f03dc48f6b8302c05b0",
    "nonce": "56d890e5accaaf011cff4b7d",
}


def test_the_oracle_agrees_with_the_rfc():
    value = {name: bytes.fromhex(text) for name, text in RFC.items()}
    key, nonce, shared = oracle.hpke_context(value["secret"], value["enc"], value["info"], aead_id=1)
    assert (key, nonce, shared) == (value["key"], value["nonce"], value["shared"])


def test_public_keys_agree_with_the_rfc():
    assert hpke_public(bytes.fromhex(RFC["secret"])).hex() == RFC["public"]


def test_the_oracle_opens_what_we_encrypt():
    for length in (0, 1, 32, 1000):
        message = bytes(length)
        wrapped = hpke_encrypt(hpke_public(SECRET), message, info=INFO)
        assert len(wrapped) == len(message) + OVERHEAD
        assert oracle.hpke_open(SECRET, wrapped, INFO) == message
        assert hpke_decrypt(SECRET, wrapped, info=INFO) == message


def test_every_bit_info_and_key_count():
    wrapped = hpke_encrypt(hpke_public(SECRET), bytes(32), info=INFO)
    for index in range(8 * len(wrapped)):
        changed = bytearray(wrapped)
        changed[index // 8] ^= 1 << index % 8
        with pytest.raises(DecryptionFailed):
            hpke_decrypt(SECRET, bytes(changed), info=INFO)
    with pytest.raises(DecryptionFailed):
        hpke_decrypt(SECRET, wrapped, info=INFO + b"\x00")
    with pytest.raises(DecryptionFailed):
        hpke_decrypt(bytes(range(2, 34)), wrapped, info=INFO)


@pytest.mark.parametrize("length", [0, 10, 32, 47, 79, 81])
def test_wrong_lengths_are_refused_with_the_same_error(length):
    wrapped = (hpke_encrypt(hpke_public(SECRET), bytes(32), info=INFO) + b"\x00")[:length]
    with pytest.raises(DecryptionFailed):
        hpke_decrypt(SECRET, wrapped, info=INFO)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes(31), bytes(33)])
def test_unusable_public_keys_are_refused(public):
    with pytest.raises(InvalidInput):
        hpke_encrypt(public, b"x", info=INFO)


def test_two_wraps_of_one_message_differ():
    public = hpke_public(SECRET)
    first, second = (hpke_encrypt(public, bytes(32), info=INFO) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]
