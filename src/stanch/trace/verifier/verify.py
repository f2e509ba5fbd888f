"""Re-check an evidence pack with Python and numpy alone; no part of stanch is used.

    python verify.py PACK.zip --key CASE_KEY.pem --log VKEY

Steps, one line each; the first that fails ends the run with exit code 1:

1. pack        every file has the size and SHA-256 of the manifest, nothing is missing or extra, and the case key signed it
2. log         the commitment's entry is in the log under a checkpoint that the log's key signed
3. commitment  the opened leaves are in the committed batch, and the batch's root is what the entry says
4. plan        the plan was in the log before it was used: its digest is in an entry, after the commitment
5. custody     the chain of custody has no gap, fork or edit, and holds the suspect's digest
6. score       each accused key's score, computed anew, is at least the threshold of the plan, and equals the stated one
7. decoys      keys that were committed but never issued score like noise

Sources: RFC 8032 (Ed25519), FIPS 197 (AES-256), RFC 9162 section 2.1 (Merkle trees), C2SP signed-note and tlog-proof,
DSSE v1. What a valid pack shows: the suspect was made from the copy sealed to the accused recipient, except with the
stated probability over the secret keys. It does not show who did it.
"""

import argparse
import base64
import hashlib
import hmac
import json
import math
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

FORMAT = "urn:stanch:evidence-pack:v1"
TABLE_SHA256 = "51174eb2037d40fbf4de90a0f453edab5c8affeab9ea2f5d5d1ad28f9885d7c1"
MAX_FILES, MAX_BYTES = 512, 1 << 31
Z_TOLERANCE = 1e-3


class Failed(Exception):
    """A step of the verification does not hold."""


def need(condition, text):
    """Raise :class:`Failed` with ``text`` unless ``condition`` holds."""
    if not condition:
        raise Failed(text)


# --- Ed25519, RFC 8032 section 5.1: verification only, so no secret is handled and timing does not matter -------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    """Return the x of a point (RFC 8032, 5.1.3) or None."""
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def decode_point(data):
    """Read a compressed point into extended coordinates, or None."""
    value = int.from_bytes(data, "little")
    y = value & ((1 << 255) - 1)
    x = recover_x(y, value >> 255)
    return None if x is None else (x, y, 1, x * y % P)


def add(a, b):
    """Add two points in extended coordinates (RFC 8032, 5.1.4)."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    """Multiply a point by a scalar."""
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def ed25519_holds(public, message, signature):
    """Tell whether ``signature`` over ``message`` holds under the 32-byte key ``public``."""
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = decode_point(public), decode_point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = multiply(s, BASE), add(r, multiply(h, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


# --- AES-256 in counter mode, FIPS 197 --------------------------------------------------------------------------------


def make_sbox():
    """Return the S-box of FIPS 197 section 5.1.1, from its definition."""
    box, p, q = [0] * 256, 1, 1
    while True:
        p = (p ^ (p << 1) ^ (0x11B if p & 0x80 else 0)) & 0xFF
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q = (q ^ (0x09 if q & 0x80 else 0)) & 0xFF
        rotations = 0
        for shift in (1, 2, 3, 4):
            rotations ^= (q << shift | q >> (8 - shift)) & 0xFF
        box[p] = q ^ rotations ^ 0x63
        if p == 1:
            box[0] = 0x63
            return box


SBOX = make_sbox()
SBOX_ARRAY = np.array(SBOX, dtype=np.uint8)
XTIME = np.array([((n << 1) ^ (0x1B if n & 0x80 else 0)) & 0xFF for n in range(256)], dtype=np.uint8)
SHIFT_ROWS = np.array([(row + 4 * ((column + row) % 4)) for column in range(4) for row in range(4)])


def expand_key(key):
    """Return the 15 round keys of AES-256 (FIPS 197, 5.2) as an array [15, 16]."""
    words = [list(key[4 * i : 4 * i + 4]) for i in range(8)]
    constant = 1
    for i in range(8, 60):
        word = list(words[i - 1])
        if i % 8 == 0:
            word = [SBOX[b] for b in (*word[1:], word[0])]
            word[0] ^= constant
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word, strict=True)])
    return np.array(words, dtype=np.uint8).reshape(15, 16)


def encrypt_blocks(key, blocks):
    """Encrypt an array [n, 16] of blocks."""
    keys = expand_key(key)
    state = blocks ^ keys[0]
    for number in range(1, 15):
        state = SBOX_ARRAY[state][:, SHIFT_ROWS]
        if number < 14:
            columns = state.reshape(-1, 4, 4)
            total = columns[:, :, 0] ^ columns[:, :, 1] ^ columns[:, :, 2] ^ columns[:, :, 3]
            state = (columns ^ total[:, :, None] ^ XTIME[columns ^ np.roll(columns, -1, axis=2)]).reshape(-1, 16)
        state ^= keys[number]
    return state


def signature_values(stream, coordinates, table):
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


def read_table(data):
    """Return the 65,536 values of the Gaussian table from its shipped upper half."""
    need(hashlib.sha256(data).hexdigest() == TABLE_SHA256, "gaussian.bin is not the published table")
    upper = np.frombuffer(data, dtype="<f4")
    return np.concatenate([-upper[::-1], upper])


# --- encodings --------------------------------------------------------------------------------------------------------


def lp(label, *fields):
    """Return the length-prefixed encoding of the mark formats."""
    return b"".join(struct.pack(">I", len(field)) + field for field in (label.encode(), *fields))


def frame_root(leaves):
    """Return the Merkle root of leaf hashes (RFC 9162, 2.1.1)."""
    stack = []
    for index, leaf in enumerate(leaves):
        node, position = leaf, index
        while position & 1:
            node, position = hashlib.sha256(b"\x01" + stack.pop() + node).digest(), position >> 1
        stack.append(node)
    need(stack, "the batch is empty")
    root = stack.pop()
    while stack:
        root = hashlib.sha256(b"\x01" + stack.pop() + root).digest()
    return root


def inclusion_root(entry, index, size, path):
    """Return the root to which an inclusion proof leads (RFC 9162, 2.1.3.2)."""
    need(0 <= index < size, "inclusion proof: index outside the tree")
    node, position, last = hashlib.sha256(b"\x00" + entry).digest(), index, size - 1
    for sibling in path:
        need(last, "inclusion proof: too many hashes")
        if position & 1 or position == last:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        position, last = position >> 1, last >> 1
    need(last == 0, "inclusion proof: too few hashes")
    return node


def read_checkpoint(note, vkey):
    """Check a signed note under the log's vkey and return (size, root)."""
    name, _, rest = vkey.partition("+")
    key_hash, _, encoded = rest.partition("+")
    public = base64.b64decode(encoded, validate=True)
    need(public[:1] == b"\x01" and len(public) == 33, "the log's key is not an Ed25519 vkey")
    expected = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    need(expected.hex() == key_hash, "the log's vkey is not consistent")
    text, separator, signatures = note.decode().partition("\n\n")
    text += "\n"
    lines = text.splitlines()
    need(separator and len(lines) == 3 and lines[0] == name, "the checkpoint is not of this log")
    for line in signatures.splitlines():
        dash, signer, value = line.split(" ")
        raw = base64.b64decode(value, validate=True)
        if dash == "\u2014" and signer == name and raw[:4] == expected:
            need(ed25519_holds(public[1:], text.encode(), raw[4:]), "the checkpoint's signature does not hold")
            return int(lines[1]), base64.b64decode(lines[2], validate=True)
    raise Failed("the log's key did not sign the checkpoint")


def check_logged(pack, stem, vkey):
    """Check that ``ledger/<stem>.json`` is in the log; return (its index, the entry, the checkpoint's bytes)."""
    entry, proof = pack[f"ledger/{stem}.json"], pack[f"ledger/{stem}.tlog-proof"]
    head, separator, note = proof.partition(b"\n\n")
    lines = head.decode().splitlines()
    need(separator and lines[0] == "c2sp.org/tlog-proof@v1" and lines[1].startswith("index "), f"{stem}: no tlog-proof")
    index = int(lines[1].removeprefix("index "))
    size, root = read_checkpoint(note, vkey)
    path = [base64.b64decode(line, validate=True) for line in lines[2:]]
    need(inclusion_root(entry, index, size, path) == root, f"{stem}: the entry is not in the log")
    return index, json.loads(entry), note


# --- the steps --------------------------------------------------------------------------------------------------------


def open_pack(path, key):
    """Step 1: read every file that the signed manifest lists, and no other."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        need(len(names) == len(set(names)) <= MAX_FILES, "the archive repeats a name or holds too many files")
        need(sum(info.file_size for info in infos) <= MAX_BYTES, "the archive is too large")
        files = {info.filename: archive.read(info) for info in infos}
    need({"manifest.json", "manifest.dsse.json"} <= set(files), "the archive holds no signed manifest")
    check_signature(files["manifest.json"], json.loads(files["manifest.dsse.json"]), key)
    manifest = json.loads(files["manifest.json"])
    need(manifest["format"] == FORMAT, "the archive is of another format")
    listed = {item["path"]: item for item in manifest["files"]}
    need(set(listed) == set(files) - {"manifest.json", "manifest.dsse.json"}, "files are missing or extra")
    for name, item in listed.items():
        good = len(files[name]) == item["size"] and hashlib.sha256(files[name]).hexdigest() == item["sha256"]
        need(good, f"{name} is not what the manifest says")
    return files


def check_signature(manifest, bundle, key):
    """Check the case key's DSSE signature and that its statement names this manifest."""
    lines = [line for line in key.splitlines() if line and not line.startswith("-----")]
    der = base64.b64decode("".join(lines))
    need(len(der) == 44 and der[:12] == bytes.fromhex("302a300506032b6570032100"), "--key is no Ed25519 public key")
    envelope = bundle["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    need(ed25519_holds(der[12:], signed, signature), "the case key did not sign the manifest")
    subject = json.loads(payload)["subject"][0]["digest"]["sha256"]
    need(subject == hashlib.sha256(manifest).hexdigest(), "the signature is about another manifest")


def check_commitment(pack, entry):
    """Step 3: the opened leaves hash to their places, and the places to the root in the entry."""
    commitment = json.loads(pack["commitment/batch.json"])
    raw = pack["commitment/leaves.bin"]
    need(raw and len(raw) % 32 == 0, "commitment/leaves.bin is not a list of hashes")
    leaves = [raw[i : i + 32] for i in range(0, len(raw), 32)]
    root = entry["unmapped"]["stanch"]["payload"]["batch_root"]
    need(frame_root(leaves).hex() == root, "the leaves do not lead to the committed root")
    layout, original = bytes.fromhex(commitment["layout_digest"]), bytes.fromhex(commitment["original"])
    alpha = struct.pack(">d", float.fromhex(commitment["alpha"]))
    opened = commitment["accused"] + commitment["decoys"]
    need(len({item["leaf"] for item in opened}) == len(opened), "a leaf is opened twice")
    for item in opened:
        fields = (bytes.fromhex(item["salt"]), item["recipient"].encode(), bytes.fromhex(item["subkey"]))
        leaf = hashlib.sha256(b"\x00" + lp("stanch/mark/v1/leaf", *fields, alpha, layout, original)).digest()
        need(leaf == leaves[item["leaf"]], f"leaf {item['leaf']} is not in the committed batch")
    need(not any(item["recipient"].startswith("decoy:") for item in commitment["accused"]), "a decoy is accused")
    need(all(item["recipient"].startswith("decoy:") for item in commitment["decoys"]), "a recipient poses as a decoy")
    return commitment, layout


def check_custody(pack, case):
    """Step 5: each line names the digest of the line before; the suspect's digest is in the chain."""
    previous = hashlib.sha256(case["case"].encode()).hexdigest()
    lines = pack["custody.jsonl"].splitlines()
    seen = set()
    for number, line in enumerate(lines):
        fields = json.loads(line)
        need(fields["n"] == number and fields["previous"] == previous, f"custody line {number} does not follow")
        previous = hashlib.sha256(line).hexdigest()
        seen |= {item["sha256"] for item in fields["items"]}
    need(lines and set(case["suspect_files"].values()) <= seen, "the suspect's files are not in custody")


def z_scores(items, beacon, layout, coordinates, values, table):
    """Return the score of each key: sum f·x over the root of sum f², summed in float64."""
    norm = math.sqrt(float(np.dot(values.astype(np.float64), values.astype(np.float64))))
    need(norm > 0, "the features are all zero")
    scores = []
    for item in items:
        stream = hmac.digest(bytes.fromhex(item["subkey"]), lp("stanch/mark/v1/stream", beacon, layout), "sha256")
        x = signature_values(stream, coordinates, table)
        scores.append(float(np.dot(values.astype(np.float64), x.astype(np.float64))) / norm)
    return scores


def check_scores(pack, commitment, layout, beacon, plan):
    """Steps 6 and 7: scores of the accused and of the decoys, computed anew."""
    stated = json.loads(pack["scores/scores.json"])
    table = read_table(pack["verifier/gaussian.bin"])
    coordinates = np.frombuffer(pack["features/coordinates.u64le"], dtype="<u8")
    values = np.frombuffer(pack["features/values.f32le"], dtype="<f4")
    need(len(coordinates) == len(values) and len(values), "features: coordinates and values differ in number")
    need(bool(np.all(coordinates[1:] > coordinates[:-1])), "features: coordinates are not rising")
    need(bool(np.all(np.isfinite(values))), "features: a value is not finite")
    tau = math.sqrt(2 * math.log(plan["n"] * plan["analyses"] / float(plan["epsilon"])))
    need(plan["n"] >= stated["issued"], "the plan counts fewer recipients than were issued")
    accused = z_scores(commitment["accused"], beacon, layout, coordinates, values, table)
    for item, z, told in zip(commitment["accused"], accused, stated["accused"], strict=True):
        need(abs(z - told["z"]) <= Z_TOLERANCE * abs(z), f"{item['recipient']}: stated z {told['z']}, computed {z:.4f}")
        need(math.floor(100 * z) / 100 - 0.01 >= tau, f"{item['recipient']}: z {z:.2f} is below {tau:.4f}")
    few = min(len(values), 1 << 16)
    decoys = z_scores(commitment["decoys"], beacon, layout, coordinates[:few], values[:few], table)
    count, mean = len(decoys), float(np.mean(decoys))
    deviation = float(np.std(decoys, ddof=1))
    need(abs(mean) <= 5 / math.sqrt(count), f"decoys: mean {mean:.3f} is not that of noise")
    need(abs(deviation - 1) <= 5 / math.sqrt(2 * count), f"decoys: deviation {deviation:.3f} is not that of noise")
    need(max(decoys) < tau, "decoys: one reaches the threshold")
    return accused, tau, (count, mean, deviation, max(decoys))


def verify(path, key, vkey, say=print):
    """Run all steps over the pack at ``path``; raise :class:`Failed` at the first that does not hold."""
    pack = open_pack(path, key)
    say(f"pack        ok  {len(pack)} files, signed by the case key")
    index, entry, note = check_logged(pack, "commitment", vkey)
    beacon = hashlib.sha256(note).digest()
    say(f"log         ok  the commitment is entry {index}")
    commitment, layout = check_commitment(pack, entry)
    opened = len(commitment["accused"]), len(commitment["decoys"])
    say(f"commitment  ok  {opened[0]} accused and {opened[1]} decoys are in the committed batch")
    plan_index, plan_entry, _ = check_logged(pack, "plan", vkey)
    digest = hashlib.sha256(pack["plan.json"]).hexdigest()
    need(plan_entry["unmapped"]["stanch"]["payload"]["plan"] == digest, "the logged plan is another one")
    need(plan_index > index, "the plan was logged before the commitment")
    plan, case = json.loads(pack["plan.json"]), json.loads(pack["case.json"])
    say(f"plan        ok  entry {plan_index}: n {plan['n']}, analyses {plan['analyses']}, epsilon {plan['epsilon']}")
    check_custody(pack, case)
    say("custody     ok  unbroken, and it holds the suspect")
    accused, tau, decoys = check_scores(pack, commitment, layout, beacon, plan)
    for item, z in zip(commitment["accused"], accused, strict=True):
        bound = min(0.0, math.log10(plan["n"] * plan["analyses"]) - z * z / (2 * math.log(10)))
        say(f"score       ok  {item['recipient']}: z {z:.2f}, threshold {tau:.4f}, log10 p <= {bound:.1f}")
    say("decoys      ok  {}: mean {:.3f}, deviation {:.3f}, highest {:.2f}".format(*decoys))
    say(
        "verified    the suspect was made from the copy of: " + ", ".join(i["recipient"] for i in commitment["accused"])
    )


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Re-check an evidence pack with Python and numpy alone.")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="the case key's public half, PEM")
    parser.add_argument("--log", required=True, help="the log's vkey: name+hash+base64")
    options = parser.parse_args()
    try:
        verify(options.pack, options.key.read_text(), options.log)
    except Failed as error:
        print(f"FAILED      {error}")
        return 1
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile, OverflowError) as error:
        print(f"FAILED      the pack is malformed: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
