"""Keccak-256 as Ethereum uses it, and the check that the capitals of an address carry.

It is the sponge of FIPS 202 with the padding of the original submission, which no library that stanch depends on has.
"""

from stanch.scan.validators.verdict import ABSTAIN, REJECT, Verdict

_RATE, _ROUNDS, _MASK = 136, 24, (1 << 64) - 1
_Lanes = list[list[int]]


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 digest of ``data`` (https://keccak.team/keccak_specs_summary.html)."""
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % _RATE)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for block in range(0, len(padded), _RATE):
        for place in range(_RATE // 8):
            at = block + 8 * place
            lanes[place % 5][place // 5] ^= int.from_bytes(padded[at : at + 8], "little")
        _permute(lanes)
    return b"".join(lanes[x][0].to_bytes(8, "little") for x in range(4))


def _rotated(lane: int, by: int) -> int:
    return (lane << by | lane >> (64 - by)) & _MASK


def _permute(lanes: _Lanes) -> None:
    """Apply the 24 rounds of Keccak-f[1600]; a linear register of eight bits makes their constants."""
    register = 1
    for _ in range(_ROUNDS):
        columns = [a ^ b ^ c ^ d ^ e for a, b, c, d, e in lanes]
        for x in range(5):
            change = columns[x - 1] ^ _rotated(columns[(x + 1) % 5], 1)
            lanes[x] = [lane ^ change for lane in lanes[x]]
        x, y, moved = 1, 0, lanes[1][0]
        for step in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            moved, lanes[x][y] = lanes[x][y], _rotated(moved, (step + 1) * (step + 2) // 2 % 64)
        for y in range(5):
            row = [lanes[x][y] for x in range(5)]
            for x in range(5):
                lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5])
        for bit in range(7):
            register = (register << 1 ^ (register >> 7) * 0x171) & 0xFF
            if register & 2:
                lanes[0][0] ^= 1 << ((1 << bit) - 1)


def ethereum_address(value: bytes, _left: str) -> Verdict:
    """Judge an address: in mixed case its capitals must be those of EIP-55; in one case nothing can be checked."""
    digits = value[2:].decode("ascii")
    if digits in {digits.lower(), digits.upper()}:
        return ABSTAIN
    check = keccak256(digits.lower().encode()).hex()
    signs = zip(digits, check, strict=False)  # the digest is longer
    right = all(sign.isdigit() or sign.isupper() == (nibble >= "8") for sign, nibble in signs)
    return ABSTAIN if right else REJECT
