import hashlib
import importlib.util
from pathlib import Path

import pytest

from stanch.crypto.hpke import KEM_SIZES, hpke_decrypt, hpke_encrypt, hpke_public
from stanch.errors import DecryptionFailed, InvalidInput

SPEC = importlib.util.spec_from_file_location("hpke_oracle", Path(__file__).parents[1] / "seal" / "oracle.py")
oracle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(oracle)

SECRET, INFO = bytes(range(1, 33)), b"what it is bound to"
HYBRID = bytes(range(64)) + SECRET
SECRETS = {"x25519": SECRET, "hybrid": HYBRID}

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
        assert len(wrapped) == len(message) + KEM_SIZES["x25519"].overhead
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


@pytest.mark.parametrize("kind", ["x25519", "hybrid"])
def test_sizes_are_those_of_keys_and_wraps(kind):
    secret, sizes = SECRETS[kind], KEM_SIZES[kind]
    public = hpke_public(secret, kind)
    wrapped = hpke_encrypt(public, bytes(7), info=INFO, kind=kind)
    assert (len(public), len(secret), len(wrapped) - 7) == (sizes.public, sizes.secret, sizes.overhead)


@pytest.mark.parametrize("kind", ["x25519", "hybrid"])
def test_a_secret_of_another_size_opens_nothing(kind):
    wrapped = hpke_encrypt(hpke_public(SECRETS[kind], kind), bytes(32), info=INFO, kind=kind)
    for secret in (b"", SECRET[:31]):
        with pytest.raises(DecryptionFailed):
            hpke_decrypt(secret, wrapped, info=INFO, kind=kind)


def test_a_share_of_low_order_opens_nothing():
    wrapped = hpke_encrypt(hpke_public(SECRET), bytes(32), info=INFO)
    with pytest.raises(DecryptionFailed):
        hpke_decrypt(SECRET, bytes(32) + wrapped[32:], info=INFO)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes(31), bytes(33)])
def test_unusable_public_keys_are_refused(public):
    with pytest.raises(InvalidInput):
        hpke_encrypt(public, b"x", info=INFO)


def hybrid_open(secret, data, info):
    """Open with ML-KEM from the library and the rest by hand: the joint secret as draft-ietf-hpke-pq makes it."""
    from cryptography.hazmat.primitives.asymmetric import mlkem  # noqa: PLC0415 - only this check names the library

    encapsulated, sealed = data[:1120], data[1120:]
    post = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).decapsulate(encapsulated[:1088])
    share, public = encapsulated[1088:], oracle.x25519(secret[64:], oracle.u(9, 1) + bytes(31))
    classic = oracle.x25519(secret[64:], share)
    shared = hashlib.sha3_256(post + classic + share + public + bytes.fromhex("5c2e2f2f5e5c")).digest()
    key, nonce = oracle.hpke_schedule(shared, info, kem_id=0x647A, aead_id=2)
    return oracle.gcm_open(key, nonce, sealed, b"")


def test_an_independent_reader_opens_a_hybrid_wrap():
    wrapped = hpke_encrypt(hpke_public(HYBRID, "hybrid"), bytes(range(32)), info=INFO, kind="hybrid")
    assert len(wrapped) == 1168
    assert hybrid_open(HYBRID, wrapped, INFO) == bytes(range(32))


def test_both_halves_of_a_hybrid_key_are_needed():
    wrapped = hpke_encrypt(hpke_public(HYBRID, "hybrid"), bytes(32), info=INFO, kind="hybrid")
    assert hpke_decrypt(HYBRID, wrapped, info=INFO, kind="hybrid") == bytes(32)
    for secret in (bytes(64) + SECRET, HYBRID[:64] + bytes(range(2, 34))):
        with pytest.raises(DecryptionFailed):
            hpke_decrypt(secret, wrapped, info=INFO, kind="hybrid")
    for index in (0, 1087, 1088, 1119, 1120, 1167):
        changed = bytearray(wrapped)
        changed[index] ^= 1
        with pytest.raises(DecryptionFailed):
            hpke_decrypt(HYBRID, bytes(changed), info=INFO, kind="hybrid")
    for length in (0, 40, 1119, 1135, 1167):
        with pytest.raises(DecryptionFailed):
            hpke_decrypt(HYBRID, wrapped[:length], info=INFO, kind="hybrid")


def test_unusable_hybrid_keys_are_refused():
    good = hpke_public(HYBRID, "hybrid")
    for public in (good[:-1], good + b"\x00", b"\xff" * 1184 + good[1184:], good[:1184] + bytes(32)):
        with pytest.raises(InvalidInput):
            hpke_encrypt(public, b"x", info=INFO, kind="hybrid")


def test_two_wraps_of_one_message_differ():
    public = hpke_public(SECRET)
    first, second = (hpke_encrypt(public, bytes(32), info=INFO) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]
