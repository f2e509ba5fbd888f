"""The verifier's own primitives against published vectors and against stanch's."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto import (
    SigningKey,
    aes_ecb_blocks,
    frame,
    inclusion_path,
    leaf_hash,
    merkle_root,
)
from stanch.mark.signature import gaussian_table, signature_values
from stanch.trace.verifier import primitives, verify
from stanch.trace.verifier.alignment import assign

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "trace" / "primitives.json").read_text())
PRIME_ORDER = 2**252 + 27742317777372353535851937790883648493
bytes32 = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", VECTORS["ed25519"], ids=lambda v: v["source"])
def test_ed25519_follows_rfc_8032(vector):
    public, message, signature = (bytes.fromhex(vector[name]) for name in ("public", "message", "signature"))
    assert verify.ed25519_holds(public, message, signature)
    assert not verify.ed25519_holds(public, message + b"x", signature)
    assert not verify.ed25519_holds(public, message, signature[:-1])
    # The same signature with S + L is one that a careless verifier accepts.
    s = int.from_bytes(signature[32:], "little") + PRIME_ORDER
    assert not verify.ed25519_holds(public, message, signature[:32] + s.to_bytes(32, "little"))
    for byte in range(0, 64, 7):
        changed = bytearray(signature)
        changed[byte] ^= 1
        assert not verify.ed25519_holds(public, message, bytes(changed))


@given(bytes32, st.binary(max_size=80), st.integers(0, 511))
def test_ed25519_agrees_with_stanch(seed, message, bit):
    key = SigningKey.from_seed(seed)
    signature = key.sign(message)
    assert verify.ed25519_holds(key.public.raw, message, signature)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify.ed25519_holds(key.public.raw, message, bytes(changed))


def test_points_outside_the_field_or_the_curve_are_none():
    assert primitives.decode_point((2**255 - 19).to_bytes(32, "little")) is None
    assert primitives.decode_point((2**255 - 1).to_bytes(32, "little")) is None
    assert primitives.decode_point((1 | 1 << 255).to_bytes(32, "little")) is None
    assert primitives.decode_point((2).to_bytes(32, "little")) is None


@pytest.mark.parametrize("vector", VECTORS["aes256"], ids=lambda v: v["source"])
def test_aes_follows_its_standard(vector):
    block = np.frombuffer(bytes.fromhex(vector["plaintext"]), np.uint8).reshape(1, 16)
    assert primitives.encrypt_blocks(bytes.fromhex(vector["key"]), block).tobytes().hex() == vector["ciphertext"]


@given(bytes32, st.binary(min_size=16, max_size=96))
def test_aes_agrees_with_stanch(key, data):
    data = data[: len(data) // 16 * 16]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, 16)
    assert primitives.encrypt_blocks(key, blocks).tobytes() == aes_ecb_blocks(key, data)


@given(bytes32, st.integers(0, 2**40), st.integers(1, 60))
def test_values_agree_with_the_mark(stream, start, count):
    coordinates = np.arange(start, start + count, dtype=np.uint64)
    found = verify.signature_values(stream, coordinates, gaussian_table())
    assert np.array_equal(found, signature_values(stream, start, count))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_trees_agree_with_stanch(entries, data):
    hashes = [leaf_hash(entry) for entry in entries]
    root = merkle_root(hashes)
    assert verify.tree_root(hashes) == root
    index = data.draw(st.integers(0, len(entries) - 1))
    path = list(inclusion_path(hashes, index))
    assert verify.inclusion_root(hashes[index], index, len(hashes), path) == root
    for wrong in ([*path, bytes(32)], path[1:] if path else [bytes(32)]):
        with pytest.raises(verify.Failed):
            verify.inclusion_root(hashes[index], index, len(hashes), wrong)
    with pytest.raises(verify.Failed):
        verify.inclusion_root(hashes[index], len(hashes), len(hashes), path)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_fields_are_framed_as_stanch_frames_them(fields):
    assert verify.lp("label", *fields) == frame(b"label", *fields)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_best_assignment_is_found_without_scipy(rows, columns, seed):
    """Whole numbers make ties; where rows want one column the best of each is no assignment."""
    likeness = np.random.default_rng(seed).integers(0, 6, (rows, columns)).astype(np.float32)
    own, other = assign(likeness)
    truth = scipy.optimize.linear_sum_assignment(likeness, maximize=True)
    assert len(own) == len(set(own.tolist())) == len(set(other.tolist())) == min(rows, columns)
    assert np.array_equal(own, np.sort(own))
    assert likeness[own, other].sum() == likeness[truth].sum()
