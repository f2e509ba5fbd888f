"""Secret sharing: the published values, two other implementations, and that m - 1 shares say nothing."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.crypto.shares import Share, inverse, join_secret, multiply, split_secret
from stanch.errors import InvalidInput, QuorumNotMet

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "crypto" / "shares.json").read_text())
SECRET = bytes.fromhex(VECTOR["secret"])


def replay(*parts):
    """Return a source of randomness that gives ``parts`` in turn."""
    remaining = iter(parts)

    def rng(count):
        part = next(remaining)
        assert len(part) == count
        return part

    return rng


def slow_product(a, b):
    """Multiply in GF(256) by long division of polynomials."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << bit - 8
    return product


def test_the_field_is_that_of_aes():
    table = {(a, b): slow_product(a, b) for a in range(256) for b in range(256)}
    every = int.from_bytes(bytes(range(256)), "big")
    for a in range(256):
        assert multiply(a, every, 256).to_bytes(256, "big") == bytes(table[a, b] for b in range(256))
    assert [table[a, inverse(a)] for a in range(1, 256)] == [1] * 255
    assert inverse(0) == 0
    assert f"{multiply(0x57, 0x83, 1):02x}" == VECTOR["field"]["product_of_57_and_83"]
    assert f"{inverse(0x53):02x}" == VECTOR["field"]["inverse_of_53"]


def test_the_published_shares():
    rng = replay(bytes((7 * k + 1) % 256 for k in range(32)), bytes((13 * k + 5) % 256 for k in range(32)))
    shares = split_secret(SECRET, VECTOR["m"], VECTOR["n"], rng=rng)
    assert [share.x for share in shares] == [1, 2, 3, 4, 5]
    assert {str(share.x): share.y.hex() for share in shares if share.x % 2} == VECTOR["shares"]
    for chosen in itertools.combinations(shares, 3):
        assert join_secret(chosen, 3) == SECRET


@given(st.binary(min_size=1, max_size=40), st.integers(2, 16), st.data())
@settings(max_examples=40, deadline=None)
def test_any_m_of_n_join_in_any_order(secret, n, data):
    m = data.draw(st.integers(2, n))
    shares = split_secret(secret, m, n)
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(m, n))]
    assert join_secret(chosen, m) == secret
    with pytest.raises(QuorumNotMet):
        join_secret(chosen[: m - 1], m)


def test_fewer_shares_than_m_say_nothing():
    """One byte, 3 of 3, exhaustively: each secret gives each pair of values in exactly one of its 65,536 polynomials.

    So whoever sees two shares finds every secret equally likely.
    """
    low, high = (np.repeat(np.arange(256, dtype=np.uint8), 256), np.tile(np.arange(256, dtype=np.uint8), 256))
    for secret in range(256):
        shares = split_secret(bytes([secret]) * 65536, 3, 3, rng=replay(low.tobytes(), high.tobytes()))
        values = [np.frombuffer(share.y, np.uint8).astype(np.intp) for share in shares]
        for first, second in itertools.combinations(values, 2):
            assert np.all(np.bincount(first * 256 + second, minlength=65536) == 1)


def test_one_share_of_two_fits_every_secret_equally():
    for x in range(3):
        counts = {}
        for secret in range(256):
            shares = split_secret(bytes([secret]) * 256, 2, 3, rng=replay(bytes(range(256))))
            for value in shares[x].y:
                counts[value, secret] = counts.get((value, secret), 0) + 1
        assert counts == dict.fromkeys(itertools.product(range(256), range(256)), 1)


def test_all_255_points_are_used():
    shares = split_secret(SECRET, 2, 255)
    assert [share.x for share in shares] == list(range(1, 256))
    assert join_secret((shares[0], shares[254]), 2) == SECRET


def test_each_split_is_fresh():
    assert split_secret(SECRET, 2, 2) != split_secret(SECRET, 2, 2)


def test_pyshamir_joins_ours_and_we_join_theirs():
    pyshamir = pytest.importorskip("pyshamir")
    for chosen in itertools.combinations(split_secret(SECRET, 3, 5), 3):
        assert pyshamir.combine([bytearray(share.y + bytes([share.x])) for share in chosen]) == SECRET
    theirs = [Share(part[-1], bytes(part[:-1])) for part in pyshamir.split(SECRET, 5, 3)]
    for chosen in itertools.combinations(theirs, 3):
        assert join_secret(chosen, 3) == SECRET


def test_the_interpolation_of_slip_39_agrees():
    shamir = pytest.importorskip("shamir_mnemonic.shamir")
    shares = split_secret(SECRET, 4, 7)
    for chosen in itertools.combinations(shares, 4):
        raw = [shamir.RawShare(share.x, share.y) for share in chosen]
        assert shamir._interpolate(raw, 0) == SECRET
        assert shamir._interpolate(raw, 7) == shares[6].y


@pytest.mark.parametrize(("m", "n", "secret"), [(1, 2, b"s"), (0, 0, b"s"), (3, 2, b"s"), (2, 256, b"s"), (2, 2, b"")])
def test_what_cannot_be_split_is_refused(m, n, secret):
    with pytest.raises(InvalidInput):
        split_secret(secret, m, n)


def test_what_cannot_be_joined_is_refused():
    one, two = split_secret(b"secret", 2, 2)
    for shares in ([one, one], [one, Share(2, two.y[:-1])], [one, two, Share(1, two.y)]):
        with pytest.raises(InvalidInput):
            join_secret(shares, 2)
    for x, y in ((0, b"y"), (256, b"y"), (-1, b"y"), (1, b"")):
        with pytest.raises(InvalidInput):
            Share(x, y)
    with pytest.raises(QuorumNotMet):
        join_secret([], 2)


def test_a_share_never_shows_its_values():
    assert repr(Share(3, b"secret")) == "Share(x=3)"
