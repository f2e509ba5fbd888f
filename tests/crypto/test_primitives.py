"""Key derivation, key streams, signatures and private files."""

import hmac
import os
import shutil
import stat
import subprocess
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto import (
    Hasher,
    SigningKey,
    VerifyKey,
    aes_ctr_into,
    aes_ecb_blocks,
    frame,
    hash_bytes,
    hkdf_expand_sha384,
    hkdf_sha256,
    hkdf_sha384,
    hmac_prf,
    read_private,
    write_atomic,
    write_private,
)
from stanch.crypto.signing import KEY_ID
from stanch.errors import InvalidInput, NoTrustedSignature


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_no_two_lists_frame_alike(one, other):
    assert (frame(*one) == frame(*other)) == (one == other)


@given(st.binary(max_size=130), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_one_prf_is_hmac_of_every_message(key, messages):
    prf = hmac_prf(key)
    assert [prf(message) for message in messages] == [hmac.digest(key, message, "sha256") for message in messages]


def test_hkdf_sha256_matches_rfc_5869_case_1():
    okm = hkdf_sha256(bytes([11] * 22), info=bytes(range(0xF0, 0xFA)), length=42, salt=bytes(range(13)))
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_hkdf_sha256_matches_rfc_5869_case_3_without_salt():
    okm = hkdf_sha256(bytes([11] * 22), info=b"", length=42)
    assert okm.hex() == ("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")


def test_expand_is_the_second_half_of_hkdf():
    extracted = hmac.digest(b"salt", b"key", "sha384")
    assert hkdf_expand_sha384(extracted, info=b"i", length=48) == hkdf_sha384(
        b"key", info=b"i", length=48, salt=b"salt"
    )


def test_the_key_stream_matches_sp_800_38a():
    # NIST SP 800-38A, F.5.5 (CTR-AES256): first output block.
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    out = bytearray(b"\xaa" * 32)
    aes_ctr_into(key, counter, out)
    assert out[:16].hex() == "0bdf7df1591716335e9a8b15c860c502"
    following = (int.from_bytes(counter, "big") + 1).to_bytes(16, "big")
    assert aes_ecb_blocks(key, counter + following) == bytes(out)


def test_hashes_by_name():
    hasher = Hasher("blake3")
    hasher.update(b"sta")
    hasher.update(memoryview(b"nch"))
    assert hasher.digest() == hash_bytes("blake3", b"stanch")
    assert hash_bytes("sha256", b"").hex().startswith("e3b0c442")
    with pytest.raises(InvalidInput):
        Hasher("md5")


KINDS = ["p256", "p384", "p521", "ed25519", "mldsa65"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_holds_for_its_message_and_key_only(kind):
    key = SigningKey.generate(kind)
    signature = key.sign(b"message")
    public = VerifyKey.from_pem(key.public.to_pem())
    public.verify(signature, b"message")
    assert public == key.public
    assert public.key_id == key.key_id
    for wrong_signature, wrong_message in ((signature, b"messagE"), (b"", b"message"), (signature[:-1], b"message")):
        with pytest.raises(NoTrustedSignature):
            public.verify(wrong_signature, wrong_message)
    with pytest.raises(NoTrustedSignature):
        SigningKey.generate(kind).public.verify(signature, b"message")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_each_kind_lives_in_a_file_and_has_its_own_name(kind, tmp_path):
    key = SigningKey.generate(kind)
    key.save(tmp_path / "key.pem")
    loaded = SigningKey.load(tmp_path / "key.pem")
    assert (loaded.kind, loaded.public) == (kind, key.public)
    assert KEY_ID.fullmatch(key.key_id)
    assert key.key_id.startswith(f"{kind}:")
    lengths = {"p256": 65, "p384": 97, "p521": 133, "ed25519": 32, "mldsa65": 1952}
    assert len(key.public.raw) == lengths[kind]
    key.public.verify(loaded.sign(b"message"), b"message")


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_of_one_kind_says_nothing_to_a_key_of_another(kind):
    signature = SigningKey.generate(kind).sign(b"message")
    for other in KINDS:
        with pytest.raises(NoTrustedSignature):
            SigningKey.generate(other).public.verify(signature, b"message")


@pytest.mark.parametrize(("kind", "name"), [("p256", "sha256"), ("p384", "sha384"), ("p521", "sha512")])
def test_openssl_agrees_on_the_hash_of_each_curve(kind, name, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = SigningKey.generate(kind)
    key.save(tmp_path / "key.pem")
    (tmp_path / "public.pem").write_bytes(key.public.to_pem())
    (tmp_path / "message").write_bytes(b"message")
    (tmp_path / "ours").write_bytes(key.sign(b"message"))
    run = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    run(["openssl", "dgst", f"-{name}", "-verify", "public.pem", "-signature", "ours", "message"])
    run(["openssl", "dgst", f"-{name}", "-sign", "key.pem", "-out", "theirs", "message"])
    key.public.verify((tmp_path / "theirs").read_bytes(), b"message")
    run(["openssl", "dgst", "-sha1", "-sign", "key.pem", "-out", "other", "message"])
    with pytest.raises(NoTrustedSignature):
        key.public.verify((tmp_path / "other").read_bytes(), b"message")


def test_ml_dsa_signs_the_message_itself_with_an_empty_context():
    # FIPS 204, section 5.2: the context is part of what is signed. The seed is RFC 9881's example: 00 to 1f.
    private = mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(range(32)))
    key = SigningKey(private)
    private.public_key().verify(key.sign(b"message"), b"message", b"")
    with pytest.raises(NoTrustedSignature):
        key.public.verify(private.sign(b"message", b"context"), b"message")
    assert bytes(range(32)).hex() not in repr(key)
    for other in (mldsa.MLDSA44PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(InvalidInput, match="expected a key of"):
            SigningKey(other)


def test_ed25519_matches_rfc_8032_test_1():
    key = SigningKey.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")
    assert VerifyKey.from_raw_ed25519(key.public.raw) == key.public


def test_a_key_file_is_private_and_never_replaced(tmp_path):
    path = tmp_path / "key.pem"
    key = SigningKey.generate("p256")
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).public == key.public
    with pytest.raises(InvalidInput, match="exists already"):
        SigningKey.generate("p256").save(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="others may read"):
        SigningKey.load(path)
    path.chmod(0o600)
    link = tmp_path / "link.pem"
    link.symlink_to(path)
    with pytest.raises(InvalidInput):
        read_private(link)


def test_no_repr_shows_a_private_key():
    key = SigningKey.from_seed(bytes(range(32)))
    assert bytes(range(32)).hex() not in repr(key)
    assert key.public.key_id in repr(key)


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(pem, tmp_path):
    with pytest.raises(InvalidInput):
        VerifyKey.from_pem(pem)
    (tmp_path / "k").write_bytes(pem)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(InvalidInput):
        SigningKey.load(tmp_path / "k")


def test_an_atomic_write_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_atomic(target, b"old")
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(InvalidInput):
        write_private(tmp_path / "missing" / "key", b"x")
