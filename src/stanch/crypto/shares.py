"""Secret sharing over GF(256): any m of n shares give the secret, fewer say nothing about it.

Shamir's scheme (Communications of the ACM 22(11), 1979), byte by byte in the field of AES (FIPS 197, section 4:
polynomial 0x11B). All bytes of a secret are worked on at once, as the 8-bit lanes of one integer. There is no table and
no branch on secret bits; Python's integers promise nothing more about time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stanch.crypto.prf import RandomBytes, random_bytes
from stanch.errors import InvalidInput, QuorumNotMet

MAX_SHARES = 255
"""The field has as many non-zero points."""


@dataclass(frozen=True, slots=True)
class Share:
    """One share: the point ``x`` (1 to 255, public) and the values ``y`` there, as many bytes as the secret has."""

    x: int
    y: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.x <= MAX_SHARES or not self.y:
            raise InvalidInput(f"share: expected a point of 1 to {MAX_SHARES} and at least one byte")


def multiply(scalar: int, lanes: int, count: int) -> int:
    """Return ``scalar`` times each of the ``count`` bytes of ``lanes``, in eight masked steps."""
    ones = int.from_bytes(b"\x01" * count, "big")
    product = 0
    for bit in range(8):
        product ^= lanes & -(scalar >> bit & 1)
        carry = lanes >> 7 & ones
        lanes = (lanes & ones * 0x7F) << 1 ^ carry * 0x1B
    return product


def inverse(scalar: int) -> int:
    """Return ``scalar`` to the 254th power, which is its inverse (0 for 0)."""
    result, power = 1, scalar
    for _ in range(7):  # 254 = 2 + 4 + ... + 128
        power = multiply(power, power, 1)
        result = multiply(power, result, 1)
    return result


def split_secret(secret: bytes, m: int, n: int, *, rng: RandomBytes = random_bytes) -> tuple[Share, ...]:
    """Split ``secret`` into ``n`` shares at the points 1 to n, of which any ``m`` join to it.

    Raises:
        InvalidInput: Not 2 <= m <= n <= 255, or the secret is empty.
    """
    if not 2 <= m <= n <= MAX_SHARES or not secret:
        raise InvalidInput(f"shares: expected 2 <= m <= n <= {MAX_SHARES} and a secret, found m = {m}, n = {n}")
    count = len(secret)
    coefficients = [int.from_bytes(part, "big") for part in (secret, *(rng(count) for _ in range(m - 1)))]
    return tuple(Share(x, _evaluate(coefficients, x, count).to_bytes(count, "big")) for x in range(1, n + 1))


def _evaluate(coefficients: Sequence[int], x: int, count: int) -> int:
    """Return the values at ``x`` (Horner's rule; the constant term comes first in ``coefficients``)."""
    values = 0
    for coefficient in reversed(coefficients):
        values = multiply(x, values, count) ^ coefficient
    return values


def join_secret(shares: Sequence[Share], m: int) -> bytes:
    """Return the secret of which ``shares`` are at least ``m`` shares: the value at 0 of the polynomial through them.

    Wrong shares give a wrong secret; only who knows more about the secret can tell.

    Raises:
        QuorumNotMet: Fewer than ``m`` shares.
        InvalidInput: Two shares of one point, or of different lengths.
    """
    if len(shares) < m:
        raise QuorumNotMet(f"shares: expected at least {m}, found {len(shares)}")
    points = [share.x for share in shares]
    lengths = {len(share.y) for share in shares}
    if len(set(points)) != len(points) or len(lengths) != 1:
        raise InvalidInput("shares: expected different points and one length")
    count = lengths.pop()
    secret = 0
    for share in shares:
        weight = 1
        for other in points:
            if other != share.x:  # points are public
                weight = multiply(multiply(other, inverse(other ^ share.x), 1), weight, 1)
        secret ^= multiply(weight, int.from_bytes(share.y, "big"), count)
    return secret.to_bytes(count, "big")
