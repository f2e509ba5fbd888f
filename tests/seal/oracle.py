"""A second reader of sealed bundles, written from the specification: the standard library, AES-GCM and BLAKE3 only.

It shares no code with the package. It reads whole bundles into memory and raises ``ValueError`` for every fault.
"""

import base64
import hashlib
import hmac
import json
import re

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEGMENT, PLAIN = 1 << 20, (1 << 20) - 32
P = 2**255 - 19


def need(condition, what):
    if not condition:
        raise ValueError(what)


def frame(*parts):
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def u(value, size):
    return value.to_bytes(size, "big")


def expand(hash_name, key, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([counter]), hash_name)
        out, counter = out + block, counter + 1
    return out[:length]


def extract(hash_name, salt, key):
    return hmac.digest(salt or bytes(hashlib.new(hash_name).digest_size), key, hash_name)


def gcm_open(key, nonce, data, aad):
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except InvalidTag:
        raise ValueError("does not decrypt") from None


def x25519(scalar, point):
    """RFC 7748, section 5."""
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def hpke_context(secret, enc, info, aead_id):
    """RFC 9180, base mode: return the AEAD key, the base nonce and the shared secret."""
    public = x25519(secret, u(9, 1) + bytes(31))
    kem_suite = b"KEM" + u(0x20, 2)
    eae = extract("sha256", b"", b"HPKE-v1" + kem_suite + b"eae_prk" + x25519(secret, enc))
    label = u(32, 2) + b"HPKE-v1" + kem_suite + b"shared_secret" + enc + public
    shared = expand("sha256", eae, label, 32)
    return *hpke_schedule(shared, info, 0x20, aead_id), shared


def hpke_schedule(shared, info, kem_id, aead_id):
    """RFC 9180, section 5.1, with HKDF-SHA256: return the AEAD key and the base nonce."""
    suite = b"HPKE" + u(kem_id, 2) + u(1, 2) + u(aead_id, 2)
    psk_id = extract("sha256", b"", b"HPKE-v1" + suite + b"psk_id_hash")
    info_hash = extract("sha256", b"", b"HPKE-v1" + suite + b"info_hash" + info)
    context = b"\x00" + psk_id + info_hash
    prk = extract("sha256", shared, b"HPKE-v1" + suite + b"secret")
    size = {1: 16, 2: 32}[aead_id]
    key = expand("sha256", prk, u(size, 2) + b"HPKE-v1" + suite + b"key" + context, size)
    nonce = expand("sha256", prk, u(12, 2) + b"HPKE-v1" + suite + b"base_nonce" + context, 12)
    return key, nonce


def hpke_open(secret, data, info):
    key, nonce, _ = hpke_context(secret, data[:32], info, 2)
    return gcm_open(key, nonce, data[32:], b"")


def floe_open(key, aad, stored, size, segment=SEGMENT):
    """Return the ``size`` plaintext bytes of a stored stream."""
    params = bytes(2) + u(segment, 4) + u(32, 4)
    header, iv = stored[:74], stored[10:42]

    def kdf(k, purpose, n):
        return expand("sha384", k, params + iv + purpose + aad, n)

    need(header == params + iv + kdf(key, b"HEADER_TAG:", 32), "header")
    message_key, room = kdf(key, b"MESSAGE_KEY:", 48), segment - 32
    count = max(1, -(-size // room))
    need(len(stored) == 74 + size + 32 * count, "stored size")
    plain = b""
    for position in range(count):
        last = position == count - 1
        part = stored[74 + position * segment :][: segment if not last else None]
        need(part[:4] == (u(len(part), 4) if last else b"\xff" * 4), "length field")
        dek = kdf(message_key, b"DEK:" + u(position >> 20 << 20, 8), 32)
        plain += gcm_open(dek, part[4:16], part[16:], u(position, 8) + bytes([last]))
    return plain


def canonical(data):
    value = json.loads(data)
    need(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data, "canonical")
    return value


def digest(name, data):
    return blake3.blake3(data).digest() if name == "blake3" else hashlib.sha256(data).digest()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def open_sealed(path, secret, manifest_sha256, *, key_id):
    """Return ``{file path: bytes}`` of the bundle at ``path`` for the X25519 ``secret`` that ``key_id`` names."""
    raw = (path / "manifest.json").read_bytes()
    need(hashlib.sha256(raw).digest() == manifest_sha256, "manifest")
    manifest = canonical(raw)
    need(manifest["format"] == "stanch/sealed-bundle/v1", "format")
    need(manifest["cipher"] == {"name": "FLOE-AES256GCM-HKDF384", "segment": SEGMENT}, "cipher")
    bundle_id = bytes.fromhex(manifest["bundle_id"])
    find = unwrap if manifest["quorum"] is None else unwrap_redeemed
    root = find(canonical((path / "recipients.json").read_bytes()), secret, manifest_sha256, bundle_id, key_id)
    prk = extract("sha384", bundle_id, root)
    commitment = expand("sha384", prk, b"stanch/seal/v1/root-commitment\x00", 32)
    need(commitment.hex() == manifest["root_commitment"], "root")
    digests, start, plain = (path / "digests.bin").read_bytes(), 0, []
    for n, stream in enumerate(manifest["streams"]):
        part = digests[start : start + 32 * stream["entries"]]
        start += len(part)
        signed = hashlib.sha256(frame(b"stanch/seal/v1/digests", bundle_id, u(n, 4), part)).hexdigest()
        need(signed == stream["digests"] and stream["n"] == n, "digests")
        stored = (path / "body" / f"{n:05d}.floe").read_bytes()
        need(len(stored) == stream["stored"], "stored")
        pieces = [stored[:74], *(stored[i : i + SEGMENT] for i in range(74, len(stored), SEGMENT))]
        need(b"".join(digest(manifest["segment_hash"], piece) for piece in pieces) == part, "segment digest")
        role = b"body" if n else b"index"
        aad = hashlib.sha256(frame(b"stanch/seal/v1/stream-aad", bundle_id, u(n, 4), role, u(stream["size"], 8)))
        key = expand("sha384", prk, b"stanch/seal/v1/dek\x00" + u(n, 4), 32)
        plain.append(floe_open(key, aad.digest(), stored, stream["size"]))
    need(start == len(digests), "digests length")
    return files(canonical(plain[0]), plain)


def unwrap(recipients, secret, manifest_sha256, bundle_id, key_id):
    need(recipients["format"] == "stanch/recipients/v1", "recipients")
    need(recipients["manifest_sha256"] == manifest_sha256.hex() and recipients["bundle_id"] == bundle_id.hex(), "other")
    for stanza in recipients["stanzas"]:
        if (stanza["type"], stanza["key_id"]) == ("hpke-x25519", key_id):
            end = (stanza["not_after"] or "").encode()
            info = frame(b"stanch/seal/v1/wrap", bundle_id, manifest_sha256, b"hpke-x25519", key_id.encode(), end)
            return hpke_open(secret, unb64(stanza["ct"]), info)
    raise ValueError("no stanza")


def unwrap_redeemed(recipients, secret, manifest_sha256, bundle_id, key_id):
    need(recipients["manifest_sha256"] == manifest_sha256.hex() and recipients["bundle_id"] == bundle_id.hex(), "other")
    for stanza in recipients["stanzas"]:
        if (stanza["type"], stanza.get("kind"), stanza["key_id"]) == ("quorum-share", "hpke-x25519", key_id):
            values = unb64(stanza["request"]), unb64(stanza["approvals"])
            context = bundle_id, manifest_sha256, stanza["not_after"]
            return open_bound(stanza, secret, b"stanch/quorum/v1/redeemed", values, context)
    raise ValueError("no stanza")


def open_bound(stanza, secret, label, values, context):
    bundle_id, manifest_sha256, end = context
    key_id = stanza["key_id"].encode()
    plain = frame(b"stanch/seal/v1/wrap", bundle_id, manifest_sha256, b"hpke-x25519", key_id, end.encode())
    return hpke_open(secret, unb64(stanza["ct"]), frame(label, *values, plain))


def open_share(stanza, x, secret, record, label):
    """Return the values of share ``x`` of a quorum record's predicate, compared with their digest."""
    request = record["request"]
    q = request_digest(request)
    context = (
        bytes.fromhex(request["bundle_id"]),
        bytes.fromhex(request["manifest_sha256"]),
        request["release"]["not_after"],
    )
    y = open_bound(stanza, secret, label, (q, u(x, 1)), context)
    found = hashlib.sha256(frame(b"stanch/quorum/v1/share", q, u(x, 1), y)).hexdigest()
    need(found == record["shares"][x - 1]["digest"], "share")
    return y


def request_digest(request):
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


def payload(signed):
    return json.loads(base64.b64decode(json.loads(signed)["dsseEnvelope"]["payload"]))


def released_root(record, approvals, secret):
    """Return the root that the approvals of a quorum record join to; signatures are not looked at."""
    predicate = payload(record)["predicate"]
    subject = [{"name": "quorum-request", "digest": {"sha256": request_digest(predicate["request"]).hex()}}]
    shares = {}
    for approval in map(payload, approvals):
        need(approval["subject"] == subject, "other request")
        x, stanza = approval["predicate"]["x"], approval["predicate"]["stanza"]
        shares[x] = open_share(stanza, x, secret, predicate, b"stanch/quorum/v1/share-to-recipient")
    need(len(shares) >= predicate["request"]["m"], "quorum")
    return bytes(value_at_zero({x: y[k] for x, y in shares.items()}) for k in range(32))


def value_at_zero(points):
    total = 0
    for x, y in points.items():
        for other in points:
            if other != x:
                y = gf_product(y, gf_product(other, gf_power(other ^ x, 254)))  # noqa: PLW2901 - a running product
        total ^= y
    return total


def gf_product(a, b):
    product = 0
    while b:
        product, a, b = product ^ a * (b & 1), a << 1 ^ (0x11B if a & 0x80 else 0), b >> 1
    return product


def gf_power(a, exponent):
    return 1 if exponent == 0 else gf_product(a, gf_power(a, exponent - 1))


def files(index, plain):
    need(index["format"] == "stanch/sealed-index/v1", "index")
    need([n for file in index["files"] for n in file["streams"]] == list(range(1, len(plain))), "streams")
    result = {}
    for file in index["files"]:
        data = b"".join(plain[n] for n in file["streams"])
        need(not re.search(r"(^|/)(\.{0,2})(/|$)|\\", file["path"]), "path")
        need(len(data) == file["size"] and blake3.blake3(data).hexdigest() == file["blake3"], "file")
        result[file["path"]] = data
    return result
