"""Trees, signatures and streams for ``verify.py`` beside it, from the standards, with Python and numpy alone."""

import base64
import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Point = tuple[int, int, int, int]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Coordinates = npt.NDArray[np.uint64]


class Failed(Exception):
    """A step of the verification does not hold; ``step`` names it."""

    step = ""


def need(condition: object, text: str) -> None:
    """Raise :class:`Failed` with ``text`` unless ``condition`` holds."""
    if not condition:
        raise Failed(text)


# --- encodings and trees, RFC 9162 section 2.1 ------------------------------------------------------------------------


def lp(label: str, *fields: bytes) -> bytes:
    """Return the length-prefixed encoding of the mark formats."""
    return b"".join(struct.pack(">I", len(field)) + field for field in (label.encode(), *fields))


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle root of leaf hashes (RFC 9162, 2.1.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(tree_root(leaves[:split]), tree_root(leaves[split:]))


def inclusion_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root to which an inclusion proof leads (RFC 9162, 2.1.3), its path read from the root down."""
    need(0 <= index < size, "inclusion proof: index outside the tree")
    if size == 1:
        need(not path, "inclusion proof: too many hashes")
        return leaf
    need(path, "inclusion proof: too few hashes")
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return node_hash(inclusion_root(leaf, index, split, path[:-1]), path[-1])
    return node_hash(path[-1], inclusion_root(leaf, index - split, size - split, path[:-1]))


def consistency_roots(old: int, size: int, path: Sequence[bytes], known: bytes | None) -> tuple[bytes, bytes]:
    """Return the roots of the old and the new tree to which a consistency proof leads (RFC 9162, 2.1.4)."""
    need(0 < old <= size, "consistency proof: sizes out of order")
    if old == size:
        need(len(path) == (known is None), "consistency proof: wrong number of hashes")
        root = path[0] if known is None else known
        return root, root
    need(path, "consistency proof: too few hashes")
    split = 1 << (size - 1).bit_length() - 1
    if old <= split:
        before, after = consistency_roots(old, split, path[:-1], known)
        return before, node_hash(after, path[-1])
    before, after = consistency_roots(old - split, size - split, path[:-1], None)
    return node_hash(path[-1], before), node_hash(path[-1], after)


# --- Ed25519, RFC 8032 section 5.1: verification only, so no secret is handled and timing does not matter ------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def decode_point(data: bytes) -> Point | None:
    """Read a compressed point into extended coordinates (RFC 8032, 5.1.3), or None."""
    value = int.from_bytes(data, "little")
    y, sign = value & ((1 << 255) - 1), value >> 255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def add(a: Point, b: Point) -> Point:
    """Add two points in extended coordinates (RFC 8032, 5.1.4)."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar: int, point: Point) -> Point:
    """Multiply a point by a scalar."""
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` over ``message`` holds under the 32-byte key ``public``."""
    if (len(public), len(signature)) != (32, 64):
        return False
    a, r, s = decode_point(public), decode_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or BASE is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = multiply(s, BASE), add(r, multiply(h, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


def read_checkpoint(note: bytes, vkey: str) -> tuple[int, bytes]:
    """Check a signed note under the log's vkey and return (size, root)."""
    name, key_hash, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    need(public[:1] == b"\x01" and expected.hex() == key_hash, "the log's key is not a consistent Ed25519 vkey")
    text, _, signatures = note.decode().partition("\n\n")
    lines = text.split("\n")
    need(len(lines) == 3 and lines[0] == name, "the checkpoint is not of this log")
    for line in signatures.splitlines():
        dash, signer, value = line.split(" ")
        raw = base64.b64decode(value, validate=True)
        if dash == "\u2014" and signer == name and raw[:4] == expected:
            need(ed25519_holds(public[1:], f"{text}\n".encode(), raw[4:]), "the checkpoint's signature does not hold")
            return int(lines[1]), base64.b64decode(lines[2], validate=True)
    raise Failed("the log's key did not sign the checkpoint")


# --- AES-256 in counter mode, FIPS 197 -------------------------------------------------------------------------------
def make_sbox() -> Bytes:
    """Return the S-box of FIPS 197 section 5.1.1: inverses in GF(2^8), by powers of 3, then the affine map."""
    powers, box = [1], [0x63] * 256
    for _ in range(254):
        powers.append(powers[-1] ^ (powers[-1] << 1) ^ (0x11B if powers[-1] & 0x80 else 0))
    for power, inverse in zip(powers, (1, *reversed(powers[1:])), strict=True):
        turned = inverse * 0x101
        box[power] = (inverse ^ turned >> 4 ^ turned >> 5 ^ turned >> 6 ^ turned >> 7) & 0xFF ^ 0x63
    return np.array(box, dtype=np.uint8)


SBOX = make_sbox()
DOUBLE = np.array([((n << 1) ^ (0x1B if n & 0x80 else 0)) & 0xFF for n in SBOX.tolist()], dtype=np.uint8)
# SubBytes and MixColumns at once: the four bytes that a byte in row r of a column adds to the new column.
MIXED = [np.roll(np.stack([DOUBLE, SBOX, SBOX, DOUBLE ^ SBOX], 1), r, 1).copy().view("<u4")[:, 0] for r in range(4)]


def expand_key(key: bytes) -> Bytes:
    """Return the 15 round keys of AES-256 (FIPS 197, 5.2) as an array [15, 16]."""
    words = list(np.frombuffer(key, dtype=np.uint8).reshape(8, 4))
    for i in range(8, 60):
        word = words[i - 1]
        if i % 8 == 0:
            word = SBOX[np.roll(word, -1)] ^ np.array([1 << i // 8 - 1, 0, 0, 0], dtype=np.uint8)
        elif i % 8 == 4:
            word = SBOX[word]
        words.append(words[i - 8] ^ word)
    return np.array(words).reshape(15, 16)


def encrypt_blocks(key: bytes, blocks: Bytes) -> Bytes:
    """Encrypt an array [n, 16] of blocks; the state is kept as four columns of n words."""
    keys = expand_key(key)
    state = np.ascontiguousarray((blocks ^ keys[0]).view("<u4").T)
    for words in keys[1:14].view("<u4"):
        rows = state.view(np.uint8).reshape(4, -1, 4)
        state = np.empty_like(state)
        for column in range(4):
            a, b, c, d = (MIXED[row][rows[(column + row) % 4, :, row]] for row in range(4))
            state[column] = a ^ b ^ c ^ d ^ words[column]
    rows = SBOX[state.view(np.uint8)].reshape(4, -1, 4)
    out: Bytes = np.stack([rows[(n // 4 + n) % 4, :, n % 4] for n in range(16)], 1) ^ keys[14]
    return out


def signature_values(stream: bytes, coordinates: Coordinates, table: Floats) -> Floats:
    """Return the values of the key ``stream`` at global ``coordinates``: T[u16 at byte 2j of the AES-CTR stream]."""
    values = np.empty(len(coordinates), dtype=np.float32)
    for start in range(0, len(coordinates), 1 << 18):
        part = coordinates[start : start + (1 << 18)]
        counters, where = np.unique(part >> np.uint64(3), return_inverse=True)
        blocks = np.zeros((len(counters), 16), dtype=np.uint8)
        blocks[:, 8:] = counters.astype(">u8").view(np.uint8).reshape(-1, 8)
        words = np.ascontiguousarray(encrypt_blocks(stream, blocks)).view("<u2")
        values[start : start + len(part)] = table[words[where, (part & np.uint64(7)).astype(np.int64)]]
    return values


# --- which coordinates a pack shows -----------------------------------------------------------------------------------

GROUP, SHOWN_GROUPS = 8, 1 << 17


def shown_coordinates(batch_root: bytes, beacon: bytes, extent: int) -> Coordinates:
    """Return the coordinates that a pack shows: a group of 8 of each of 2^17 equal runs, all where there are no more.

    They follow from what the log fixed before the suspect existed, so that nobody chooses them to suit a key.
    """
    groups = extent // GROUP
    if groups <= SHOWN_GROUPS:
        chosen = np.arange(groups, dtype=np.uint64)
    else:
        starts = np.arange(SHOWN_GROUPS + 1, dtype=np.uint64) * np.uint64(groups) // np.uint64(SHOWN_GROUPS)
        draws = hashlib.shake_256(lp("stanch/mark/v1/shown", batch_root, beacon)).digest(8 * SHOWN_GROUPS)
        chosen = starts[:-1] + np.frombuffer(draws, "<u8") % np.diff(starts)
    wide = chosen[:, np.newaxis] * np.uint64(GROUP) + np.arange(GROUP, dtype=np.uint64)
    return wide.ravel().astype(np.uint64)
