"""The index file: round trip, a second reader, and every damage refused."""

import hashlib
import hmac
import json
import stat

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput, VerificationError
from stanch.scan import Layout, SpanIndex, fold_text
from stanch.scan.spans.index_file import MAGIC

KEY = bytes(range(32))
TEXT = (
    "It was a bright cold day in April, and the clocks were striking thirteen; Winston Smith slipped quickly through."
)


@pytest.fixture
def path(tmp_path):
    index = SpanIndex.build([TEXT, TEXT[::-1]], key=KEY, dataset_root="ab" * 32)
    index.save(tmp_path / "spans.idx")
    return tmp_path / "spans.idx"


def test_round_trip(path):
    index = SpanIndex.open(path, KEY)
    assert index.query(TEXT)
    assert (index.header.records, index.header.dataset_root) == (2, "ab" * 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    index.save(path.with_name("again.idx"))
    assert path.with_name("again.idx").read_bytes() == path.read_bytes()


def test_the_file_holds_no_text(path):
    data = path.read_bytes()
    folded = fold_text(TEXT, "index")
    assert not any(folded[at : at + 12] in data for at in range(len(folded) - 12))


def hkdf(key, salt, info, length):
    """RFC 5869 by the standard library."""
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def second_reader(data, key, window):
    """Answer one window from the file's bytes by the specification alone."""
    assert data[:8] == b"STXIDX\x00\x01"
    header = json.loads(data[12 : 12 + int.from_bytes(data[8:12], "little")])
    salt = bytes.fromhex(header["salt"])
    mac = hmac.new(hkdf(key, salt, b"stanch/index-mac/v1", 32), data[:-32], hashlib.sha256).digest()
    assert mac == data[-32:]
    okm = hkdf(key, salt, b"stanch/index/v1", 2088)
    prime = 2**61 - 1
    base = int.from_bytes(okm[32:40], "little") % (prime - 2**32) + 2**32
    table = [int.from_bytes(okm[40 + 8 * c : 48 + 8 * c], "little") % (prime - 1) + 1 for c in range(256)]
    value = sum(table[byte] * pow(base, len(window) - 1 - j, prime) for j, byte in enumerate(window)) % prime
    cipher = Cipher(algorithms.AES(okm[:32]), modes.ECB()).encryptor()  # noqa: S305 - the format's permutation of single blocks
    y = cipher.update(value.to_bytes(8, "little") + bytes(8))
    y0, y1 = int.from_bytes(y[:8], "little"), int.from_bytes(y[8:], "little")
    block = ((y0 >> 32) * header["blocks"]) >> 32
    words = [int.from_bytes(data[4096 + 64 * block + 8 * i : 4104 + 64 * block + 8 * i], "little") for i in range(8)]
    return all(words[i] >> ((y1 >> 6 * i) & 63) & 1 for i in range(8))


def test_a_second_reader_gives_the_same_answers(path):
    data, index = path.read_bytes(), SpanIndex.open(path, KEY)
    text = fold_text(TEXT + " and then something else entirely was said about the weather", "index")
    starts = {hit.start for hit in index.cursor().push(text)}
    for at in range(len(text) - 31):
        assert second_reader(data, KEY, text[at : at + 32]) == (at in starts)


def test_every_flipped_byte_is_refused(path):
    data = path.read_bytes()
    header_end = 12 + int.from_bytes(data[8:12], "little")
    for at in (*range(header_end + 3), 4095, *range(4096, len(data))):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(VerificationError):
            SpanIndex.open(path, KEY)


@pytest.mark.parametrize("size", [0, 7, 100, 4096, 4191, -1, -32, -64])
def test_truncation_is_refused(path, size):
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(VerificationError):
        SpanIndex.open(path, KEY)


def test_more_at_the_end_is_refused(path):
    path.write_bytes(path.read_bytes() + bytes(64))
    with pytest.raises(VerificationError):
        SpanIndex.open(path, KEY)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_other_bytes_are_an_index(data):
    whole = SpanIndex.build([TEXT], key=KEY, layout=Layout(bytes(16), 3)).to_bytes()
    other = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 600) | st.integers(0, len(whole) - 1))
        other[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    anything = data.draw(st.sampled_from([bytes(other), whole[:13] + data.draw(st.binary(max_size=5000))]))
    if anything != whole:
        with pytest.raises(VerificationError):
            SpanIndex.from_buffer(memoryview(anything), KEY)


def test_an_empty_file_is_refused(path):
    path.write_bytes(b"")
    with pytest.raises(VerificationError, match="cut short"):
        SpanIndex.open(path, KEY)


def test_a_buffer_is_used_where_it_is(path):
    data = memoryview(path.read_bytes())
    index = SpanIndex.from_buffer(data, KEY)
    assert np.shares_memory(index._content.filter.words, np.frombuffer(data, np.uint8))
    assert index.to_bytes() == path.read_bytes()


def test_another_key_is_refused(path):
    with pytest.raises(VerificationError, match="another key"):
        SpanIndex.open(path, bytes(32))
    with pytest.raises(InvalidInput):
        SpanIndex.open(path, b"short")


def forge(path, change):
    """Change the header and authenticate the result with the right key."""
    data = path.read_bytes()
    header = json.loads(data[12 : 12 + int.from_bytes(data[8:12], "little")])
    salt = bytes.fromhex(header["salt"])
    change(header)
    raw = canonical_json(header)
    body = (MAGIC + len(raw).to_bytes(4, "little") + raw).ljust(4096, b"\0") + data[4096:-32]
    path.write_bytes(body + hmac.digest(hkdf(KEY, salt, b"stanch/index-mac/v1", 32), body, "sha256"))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(colour="red"),
        lambda header: header.pop("keys"),
        lambda header: header.update(fold="stanch-fold/3"),
        lambda header: header.update(k=8),
        lambda header: header.update(stride=0),
        lambda header: header.update(blocks=0),
        lambda header: header.update(blocks=header["blocks"] + 1),
        lambda header: header.update(salt="00"),
        lambda header: header.update(salt="zz" * 16),
        lambda header: header.update(k="50"),
    ],
)
def test_headers_that_make_no_sense_are_refused_even_if_authentic(path, change):
    forge(path, change)
    with pytest.raises(VerificationError):
        SpanIndex.open(path, KEY)


def test_an_index_of_another_folding_is_refused_with_the_next_step(path):
    forge(path, lambda header: header.update(fold="stanch-fold/1"))
    with pytest.raises(VerificationError, match="another version of folding than stanch-fold/2") as caught:
        SpanIndex.open(path, KEY)
    assert caught.value.next_step == "build the index again from the data set"


def test_a_header_that_is_left_alone_passes_the_forger(path):
    forge(path, lambda header: header)
    assert SpanIndex.open(path, KEY).query(TEXT)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"absent\.idx"):
        SpanIndex.open(tmp_path / "absent.idx", KEY)
