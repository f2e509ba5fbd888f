"""Key derivation, key streams, signatures and private files."""

import hmac
import os
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
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
    hashes,
    hkdf_expand_sha384,
    hkdf_sha256,
    hkdf_sha384,
    hmac_prf,
    hmac_sha256,
    read_private,
    sha256,
    write_atomic,
    write_private,
)
from stanch.crypto.prf import KeyStream
from stanch.crypto.signing import KEY_ID
from stanch.crypto.siv import NONCE_SIZE, decrypt_siv, encrypt_siv
from stanch.errors import DecryptionFailed, InvalidInput, NoTrustedSignature, StoreError


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_no_two_lists_frame_alike(one, other):
    assert (frame(*one) == frame(*other)) == (one == other)


@given(st.binary(max_size=130), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_one_prf_is_hmac_of_every_message(key, messages):
    prf = hmac_prf(key)
    assert [prf(message) for message in messages] == [hmac.digest(key, message, "sha256") for message in messages]


@pytest.mark.parametrize("size", [0, 63, 64, 65])
def test_the_prf_takes_a_key_of_a_whole_block_as_it_is(size):
    key = bytes(range(size))
    assert hmac_prf(key)(b"message") == hmac.digest(key, b"message", "sha256")


def test_a_frame_is_each_length_and_part():
    assert frame() == b""
    assert frame(b"ab", b"", b"c") == b"\0\0\0\2ab\0\0\0\0\0\0\0\1c"


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
    extracted = hmac.digest(bytes(48), b"key", "sha384")
    assert hkdf_expand_sha384(extracted, info=b"i", length=48) == hkdf_sha384(b"key", info=b"i", length=48)


def test_the_key_stream_matches_sp_800_38a():
    # NIST SP 800-38A, F.5.5 (CTR-AES256): first output block.
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    out = bytearray(b"\xaa" * 32)
    aes_ctr_into(key, counter, out)
    assert out[:16].hex() == "0bdf7df1591716335e9a8b15c860c502"
    following = (int.from_bytes(counter, "big") + 1).to_bytes(16, "big")
    assert aes_ecb_blocks(key, counter + following) == bytes(out)


def test_hashes_match_their_standards():
    # FIPS 180-4 and RFC 7693, appendix A, of "abc"; RFC 4231, case 2; the empty input of the BLAKE3 vectors.
    assert hash_bytes("sha256", b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"a", bytearray(b"b"), memoryview(b"c")) == hash_bytes("sha256", b"abc")
    assert hash_bytes("blake3", b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    blake2b = Hasher("blake2b")
    blake2b.update(b"abc")
    assert blake2b.digest().hex().startswith("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1")
    mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?")
    assert mac.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_blake3_uses_all_processors_only_when_asked(monkeypatch):
    threads = []

    def record(*, max_threads):
        threads.append(max_threads)

    record.AUTO = "all"
    monkeypatch.setattr(hashes.blake3, "blake3", record)
    Hasher("blake3")
    Hasher("blake3", parallel=True)
    assert threads == [1, "all"]


def test_values_encrypted_with_siv_match_rfc_8452():
    # Appendix C.2, the first two: no plaintext, and one of eight bytes.
    key, nonce = b"\x01" + bytes(31), b"\x03" + bytes(11)
    for data, box in (
        (b"", "07f5f4169bbf55a8400cd47ea6fd400f"),
        (b"\x01" + bytes(7), "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
    ):
        assert encrypt_siv(key, nonce, data, aad=b"") == nonce + bytes.fromhex(box)
        assert decrypt_siv(key, nonce + bytes.fromhex(box), aad=b"") == data


def test_a_value_encrypted_with_siv_opens_unchanged_only():
    key, nonce = bytes(range(32)), bytes(12)
    box = encrypt_siv(key, nonce, b"value", aad=b"where")
    assert len(box) == len(b"value") + NONCE_SIZE + 16
    for wrong in (
        box[:-1],
        box + b"\x00",
        box[:11],
        b"",
        bytes([box[0] ^ 1]) + box[1:],
        box[:-1] + bytes([box[-1] ^ 1]),
    ):
        with pytest.raises(DecryptionFailed):
            decrypt_siv(key, wrong, aad=b"where")
    for other, aad in ((bytes(32), b"where"), (key, b"elsewhere")):
        with pytest.raises(DecryptionFailed):
            decrypt_siv(other, box, aad=aad)


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
    assert VerifyKey.from_pem(key.public.to_pem().decode()) == public != public.key_id
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
    with pytest.raises(InvalidInput, match="expected 32 bytes, found 31"):
        VerifyKey.from_raw_ed25519(key.public.raw[:-1])
    assert key.seed.hex().startswith("9d61b19d")


@pytest.mark.parametrize("kind", ["p256", "mldsa65"])
def test_only_an_ed25519_key_has_a_seed_of_ours(kind):
    with pytest.raises(InvalidInput, match="only an Ed25519 key"):
        _ = SigningKey.generate(kind).seed


def test_a_keys_name_is_a_digest_of_kind_and_public_bytes():
    key = SigningKey.from_seed(bytes(range(32))).public
    framed = b"\0\0\0\x10stanch/key-id/v1" + b"\0\0\0\x07ed25519" + b"\0\0\0\x20" + key.raw
    assert key.key_id == f"ed25519:{sha256(framed).hex()[:32]}"


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
    assert repr(key) == f"SigningKey({key.key_id})"
    assert repr(key.public) == f"VerifyKey({key.key_id})"


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(pem, tmp_path):
    with pytest.raises(InvalidInput):
        VerifyKey.from_pem(pem)
    (tmp_path / "k").write_bytes(pem)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(InvalidInput):
        SigningKey.load(tmp_path / "k")


def test_a_key_of_another_kind_or_a_locked_one_is_refused_by_its_name(tmp_path):
    other = rsa.generate_private_key(65537, 2048)
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidInput, match=r"ada\.pem: expected a key of P-256"):
        VerifyKey.from_pem(public, what="ada.pem")
    locked = ec.generate_private_key(ec.SECP256R1())
    for key, cipher, words in (
        (other, NoEncryption(), "expected a key of P-256"),
        (locked, BestAvailableEncryption(b"x"), "expected an unencrypted private signing key"),
    ):
        path = tmp_path / f"{key.key_size}.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
        path.chmod(0o600)
        with pytest.raises(InvalidInput, match=rf"{path.name}: {words}"):
            SigningKey.load(path)


def test_keys_are_the_same_by_their_kind_and_bytes():
    one, other = (SigningKey.from_seed(bytes([first]) * 32).public for first in (1, 2))
    assert one == VerifyKey.from_pem(one.to_pem())
    assert one != other
    assert one != one.raw


def test_an_atomic_write_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_atomic(target, b"old")
    monkeypatch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="cannot be written") as caught:
        write_atomic(target, b"new")
    assert (caught.value.exit_code, caught.value.next_step) == (4, "free or mend the disk, then repeat")
    assert caught.value.why == "No space left on device"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(InvalidInput):
        write_private(tmp_path / "missing" / "key", b"x")


def test_of_two_who_make_one_private_file_one_is_refused(tmp_path, monkeypatch):
    path, kept, others = tmp_path / "key", os.fsync, [b"second"]

    def sync(handle):
        kept(handle)
        if others:  # the other one's file is there before this one has its name
            write_private(path, others.pop())

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(InvalidInput, match="exists already"):
        write_private(path, b"first")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_is_durable_before_and_after_its_name(tmp_path, monkeypatch, open_here):
    done, sync, rename = [], os.fsync, Path.replace

    def record(handle):
        done.append((str(Path(f"/proc/self/fd/{handle}").readlink()), os.fstat(handle).st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "replace", lambda path, target: done.append("rename") or rename(path, target))
    write_atomic(tmp_path / "file", b"data")
    assert open_here() == []
    (file, size), renamed, (folder, _) = done
    assert file.startswith(f"{tmp_path}/.file.")
    assert (size, renamed, folder) == (4, "rename", str(tmp_path))


def test_a_file_is_for_all_and_a_private_one_for_its_owner(tmp_path):
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "open", b"x")
        write_private(tmp_path / "private", b"x")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("open", "private")]
    assert modes == [0o644, 0o600]
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="exists already"):
        write_private(tmp_path / "dangling", b"x")


def test_a_private_file_is_read_up_to_its_limit_and_by_its_owner(tmp_path):
    path = tmp_path / "private"
    write_private(path, b"1234")
    assert read_private(path, limit=4) == b"1234"
    with pytest.raises(InvalidInput, match="at most 3 bytes"):
        read_private(path, limit=3)
    os.truncate(path, 16 << 20)
    assert len(read_private(path)) == 16 << 20
    os.truncate(path, (16 << 20) + 1)
    with pytest.raises(InvalidInput, match="at most 16777216 bytes"):
        read_private(path)
    for mode in (0o604, 0o602, 0o601, 0o640, 0o620, 0o610):
        path.chmod(mode)
        with pytest.raises(InvalidInput, match="others may read"):
            read_private(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for special in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(InvalidInput, match="regular file"):
            read_private(special)
    for unreadable in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_private(unreadable)


def test_a_key_stream_goes_to_a_counter_and_on_from_there():
    def from_block(number, size):
        out = bytearray(size)
        aes_ctr_into(bytes(range(32)), number.to_bytes(16, "big"), out)
        return out

    stream, piece = KeyStream(bytes(range(32)), bytes(16)), bytearray(48)
    for number in (0, 7, 2, 1 << 64):
        stream.seek(number.to_bytes(16, "big"))
        stream.fill(piece)
        assert piece == from_block(number, 48)
        stream.fill(piece)
        assert piece == from_block(number + 3, 48)
    assert from_block(0, 3 << 16)[2 << 16 :] == from_block((2 << 16) // 16, 1 << 16)
