# ruff: noqa: T201 - it is a program whose output is its answer
"""Re-check an evidence pack with Python and numpy alone; no part of stanch is used. It needs primitives.py beside it.

    python verify.py PACK.zip --key CASE_KEY.pem --log VKEY

Steps, one line each; the first that fails is named and ends the run with exit code 1:

1. pack        the case key signed the manifest, every file is as it says, and nothing is missing or extra
2. log         the commitment's entry is in the log under a checkpoint that the log's key signed
3. commitment  the opened leaves are in the committed batch, and the batch's root is what the entry says
4. plan        the beacon was pinned in the same log after the commitment, and the plan after it; the plan is about this
               case, batch and beacon, and counts every recipient and analysis
5. custody     the chain of custody has no gap, fork or edit, holds the suspect, begins after the beacon was pinned,
               and continues the one planned on
6. receipts    what accused recipients signed when they got their copies is about their leaves, with --recipient
7. score       the coordinates are those that batch and beacon choose, or all; each accused key's score on them,
               computed anew, reaches the threshold of the plan, and equals the stated one
8. decoys      keys that were committed to but never issued score like noise, and are stated as they score

What no step can check is said at the end: report.html, and what the examination gave on all coordinates.

Sources: RFC 8032 (Ed25519), FIPS 197 (AES-256), RFC 9162 section 2.1 (Merkle trees), C2SP signed-note and tlog-proof,
DSSE v1. What a valid pack shows: the features in it come from the copy made for the accused recipient, except with the
stated probability over the secret keys. That they are the suspect's is what the case key's owner says; they depend on
no key, and recompute.py beside this file computes them again from suspect and original. A valid pack does not show who
leaked the copy.
"""

import argparse
import base64
import hashlib
import hmac
import json
import math
import struct
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

if __package__:
    from stanch.trace.verifier.primitives import (
        Failed,
        consistency_roots,
        ed25519_holds,
        inclusion_root,
        lp,
        need,
        read_checkpoint,
        shown_coordinates,
        signature_values,
        tree_root,
    )
else:  # both files were taken out of a pack
    sys.path.insert(0, str(Path(__file__).parent))
    from primitives import (  # type: ignore[import-not-found,no-redef]  # beside this file
        Failed,
        consistency_roots,
        ed25519_holds,
        inclusion_root,
        lp,
        need,
        read_checkpoint,
        shown_coordinates,
        signature_values,
        tree_root,
    )

FORMAT = "urn:stanch:evidence-pack:v2"
PREDICATE = "urn:stanch:trace:v1"
RECEIPT = "urn:stanch:predicate:mark-receipt:v1"
TABLE_SHA256 = "51174eb2037d40fbf4de90a0f453edab5c8affeab9ea2f5d5d1ad28f9885d7c1"
MAX_FILES, MAX_BYTES, MIN_DECOYS, DECOY_GROUPS, Z_TOLERANCE = 512, 1 << 31, 64, 1 << 12, 1e-3
VIEWS = 3
"""What each round of a variant may decide on: the examination, the coordinates that a pack shows, and all in a pack."""
MAX_EPSILON = 1e-6

Json = dict[str, Any]
Pack = dict[str, bytes]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Coordinates = npt.NDArray[np.uint64]


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step in whatever fails inside it; bytes that cannot be read fail like bytes that are wrong."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever hostile bytes raise, they do not verify
        failed = error if isinstance(error, Failed) else Failed(f"malformed: {type(error).__name__}: {error}")
        failed.step = name
        raise failed from error.__cause__


# --- encodings --------------------------------------------------------------------------------------------------------
def container(files: Pack) -> Iterator[bytes]:
    """Yield the one zip file (stored, in order of names, dated 1980, mode 0600) that holds these files and no other."""
    listing, offset = b"", 0
    for name, data in sorted(files.items()):
        sizes = struct.pack("<4H3I2H", 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0)
        listing += struct.pack("<4s2H", b"PK\1\2", 0x314, 20) + sizes
        listing += struct.pack("<3H2I", 0, 0, 0, 0o600 << 16, offset) + name.encode()
        header = struct.pack("<4sH", b"PK\3\4", 20) + sizes + name.encode()
        yield from (header, data)
        offset += len(header) + len(data)
    yield listing + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(files), len(files), len(listing), offset, 0)


class Logged(NamedTuple):
    """An entry that is in the log: its number, time, act and payload, and the checkpoint under which it was shown."""

    number: int
    seconds: int
    act: str
    phase: str
    payload: Json
    note: bytes
    size: int
    root: bytes

    @property
    def beacons(self) -> set[str]:
        """SHA-256 (hex) of the checkpoint's signed text; releases of old say that of the whole note."""
        text = self.note.partition(b"\n\n")[0] + b"\n"
        return {hashlib.sha256(data).hexdigest() for data in (text, self.note)}


def check_logged(pack: Pack, stem: str, vkey: str) -> Logged:
    """Check that ``ledger/<stem>.json`` is in the log."""
    entry = pack[f"ledger/{stem}.json"]
    head, _, note = pack[f"ledger/{stem}.tlog-proof"].partition(b"\n\n")
    lines = head.decode().splitlines()
    need(lines[0] == "c2sp.org/tlog-proof@v1" and lines[1].startswith("index "), f"{stem}: no tlog-proof")
    index = int(lines[1].removeprefix("index "))
    size, root = read_checkpoint(note, vkey)
    leaf, path = hashlib.sha256(b"\x00" + entry).digest(), [base64.b64decode(line, validate=True) for line in lines[2:]]
    need(inclusion_root(leaf, index, size, path) == root, f"{stem}: the entry is not in the log")
    fields = json.loads(entry)
    ours, act = fields["unmapped"]["stanch"], fields["metadata"]["correlation_uid"]
    return Logged(index, fields["time"] // 1000, act, ours["phase"], ours["payload"], note, size, root)


def check_order(pack: Pack, commitment: Logged, beacon: Logged, plan: Logged) -> None:
    """Check that commitment, beacon and plan stand in this order in one log, not in others that the same key signed.

    The beacon's entry is the outcome of the act that committed to the keys: it pins one checkpoint, and no copy was
    made before.
    """
    need(plan.number > beacon.number > commitment.number, "the plan was logged before the commitment or its beacon")
    need((beacon.size, beacon.root) == (plan.size, plan.root), "the beacon was pinned in another log than the plan's")
    need((beacon.act, beacon.phase) == (commitment.act, "outcome"), "the beacon was not pinned by who committed")
    need(beacon.payload["checkpoint"] == commitment.size, "the checkpoint shown is not the one that was pinned")
    need(beacon.payload["beacon"] in commitment.beacons, "the beacon is not of the checkpoint shown")
    path = [bytes.fromhex(value) for value in json.loads(pack["ledger/consistency.json"])]
    roots = consistency_roots(commitment.size, plan.size, path, commitment.root)
    need(roots == (commitment.root, plan.root), "the commitment's checkpoint is of another log than the plan's")


# --- the steps --------------------------------------------------------------------------------------------------------
def open_pack(path: Path, key: str) -> Pack:
    """Step 1: read every file that the signed manifest lists, and no other."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        sizes = path.stat().st_size, sum(info.file_size for info in infos)
        need(len(infos) <= MAX_FILES and max(sizes) <= MAX_BYTES, "the archive is too large")
        files = {info.filename: archive.read(info) for info in infos}
    with path.open("rb") as file:
        same = all(file.read(len(part)) == part for part in container(files)) and not file.read(1)
    need(same, "the archive is not in its one form")
    need({"manifest.json", "manifest.dsse.json"} <= set(files), "the archive holds no signed manifest")
    listing = files.pop("manifest.json")
    check_signature(listing, json.loads(files.pop("manifest.dsse.json")), key)
    form = json.loads(listing)["format"]
    need(form == FORMAT, f"the archive is of the format {form}, expected {FORMAT}: have the case packed anew")
    listed = {item["path"]: (item["size"], item["sha256"]) for item in json.loads(listing)["files"]}
    found = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    strange = {name for name, _ in listed.items() ^ found.items()}
    need(not strange, f"files are missing, extra, or not what the manifest says: {', '.join(sorted(strange))}")
    return files


def read_statement(bundle: Json, key: str, what: str) -> Json:
    """Return the in-toto Statement of a bundle whose DSSE signature holds under an Ed25519 key in PEM."""
    der = base64.b64decode("".join(line for line in key.splitlines() if not line.startswith("-")))
    need(len(der) == 44 and der[:12] == bytes.fromhex("302a300506032b6570032100"), f"{what} is no Ed25519 public key")
    envelope = bundle["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    need(ed25519_holds(der[12:], signed, signature), f"{what} did not sign this")
    statement: Json = json.loads(payload)
    return statement


def check_signature(manifest: bytes, bundle: Json, key: str) -> None:
    """Check the case key's DSSE signature and that its statement names this manifest."""
    statement = read_statement(bundle, key, "the case key")
    need(statement["predicateType"] == PREDICATE, "the signature is of another kind")
    subject = {"name": "manifest.json", "digest": {"sha256": hashlib.sha256(manifest).hexdigest()}}
    need(statement["subject"] == [subject], "the signature is about another manifest")


def check_commitment(pack: Pack, logged: Logged) -> Json:
    """Step 3: the opened leaves hash to their places, and the places to the root in the entry."""
    commitment: Json = json.loads(pack["commitment/batch.json"])
    raw = pack["commitment/leaves.bin"]
    need(raw and len(raw) % 32 == 0, "commitment/leaves.bin is not a list of hashes")
    leaves = [raw[i : i + 32] for i in range(0, len(raw), 32)]
    need(tree_root(leaves).hex() == logged.payload["batch_root"], "the leaves do not lead to the committed root")
    layout, original = bytes.fromhex(commitment["layout_digest"]), bytes.fromhex(commitment["original"])
    alpha = struct.pack(">d", float.fromhex(commitment["alpha"]))
    need(commitment["accused"], "nobody is accused")
    opened = commitment["accused"] + commitment["decoys"]
    need(len({item["leaf"] for item in opened}) == len(opened), "a leaf is opened twice")
    for item in opened:
        name = unicodedata.normalize("NFC", item["recipient"]).encode()
        fields = (bytes.fromhex(item["salt"]), name, bytes.fromhex(item["subkey"]), alpha, layout, original)
        leaf = hashlib.sha256(b"\x00" + lp("stanch/mark/v1/leaf", *fields)).digest()
        need(0 <= item["leaf"] < len(leaves), f"the batch has no leaf {item['leaf']}")
        need(leaf == leaves[item["leaf"]], f"leaf {item['leaf']} is not in the committed batch")
    for item in commitment["accused"]:
        need(not item["recipient"].startswith(("decoy:", "*")), "a decoy or the ownership mark is accused")
    need(all(item["recipient"].startswith("decoy:") for item in commitment["decoys"]), "a recipient poses as a decoy")
    # What is not opened as a decoy may have been issued, but for the one leaf of the ownership mark.
    commitment["issued"] = len(leaves) - len(commitment["decoys"]) - 1
    commitment |= {"batch_root": logged.payload["batch_root"], "entry": logged.number}
    return commitment


def check_plan(pack: Pack, payload: Json, commitment: Json, logged: tuple[Json, Json]) -> Json:
    """Step 4: the logged plan is this one, about this case and batch, and its threshold follows from what it counts.

    ``logged`` is what the entries of commitment and beacon say.
    """
    plan: Json = json.loads(pack["plan.json"])
    need(payload["plan"] == hashlib.sha256(pack["plan.json"]).hexdigest(), "the logged plan is another one")
    need(plan["case_digest"] == hashlib.sha256(pack["case.json"]).hexdigest(), "it is about another case")
    case, release = json.loads(pack["case.json"]), plan["release"]
    need(plan["case"] == case["case"] and plan["suspect"] == case["suspect"], "it is about another suspect")
    committed = commitment["batch_root"], commitment["batch"], commitment["entry"]
    need((release["batch_root"], release["batch"], release["entry"]) == committed, "it is about another batch of keys")
    need(release["original"] == "sha256:" + commitment["original"], "it is about another original")
    pinned = logged[1]["beacon"], logged[1]["checkpoint"]
    need((release["beacon"], release["checkpoint"]) == pinned, "it is about another beacon")
    need(release["base"] == logged[0].get("base", release["base"]), "it is about another base model")
    need(plan["n"] >= commitment["issued"], "it counts fewer recipients than the batch can hold")
    looks = len(plan["variants"]) * plan["rounds"] * VIEWS
    need(plan["rounds"] >= 1 and plan["analyses"] >= looks >= 1, "it miscounts")
    need(0 < float(plan["epsilon"]) <= MAX_EPSILON, f"its epsilon is not above 0 and at most {MAX_EPSILON}")
    tau = math.sqrt(2 * math.log(plan["n"] * plan["analyses"] / float(plan["epsilon"])))
    need(abs(tau - plan["threshold"]) < 1e-9, "its threshold does not follow from n, analyses and epsilon")
    return plan


def seconds(text: str) -> int:
    """Read ``YYYY-MM-DDTHH:MM:SSZ`` as seconds since 1970."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def check_custody(pack: Pack, plan: Json, fixed: int) -> None:
    """Step 5: each line names the digest of the line before, every line holds the suspect, and the keys came first."""
    case = json.loads(pack["case.json"])
    need(seconds(case["discovered"]) >= fixed, "the suspect was found before its keys were fixed")
    previous = hashlib.sha256(case["case"].encode()).hexdigest()
    heads, acts = [], []
    for number, line in enumerate(pack["custody.jsonl"].splitlines()):
        fields = json.loads(line)
        need(fields["n"] == number and fields["previous"] == previous, f"line {number} does not follow")
        need(seconds(fields["at"]) >= fixed, f"line {number} is older than the keys")
        previous = hashlib.sha256(line).hexdigest()
        items = sorted(fields["items"], key=lambda item: item["name"].encode())
        files = [{"name": item["name"], "sha256": item["sha256"], "size": item["bytes"]} for item in items]
        listing = json.dumps(files, ensure_ascii=False, separators=(",", ":")).encode()
        need(
            "sha256:" + hashlib.sha256(listing).hexdigest() == case["suspect"],
            f"line {number} is not about the suspect",
        )
        heads.append(previous)
        acts.append(fields["action"])
    need(acts[:1] == ["acquired"], "the chain does not begin with taking the suspect into custody")
    need(plan["custody"] in heads, "the chain is not the one that the plan was made on")
    need("examined" in acts[heads.index(plan["custody"]) + 1 :], "the suspect was not examined after the plan was made")


def check_receipts(pack: Pack, batch: Json, keys: Mapping[str, str]) -> str:
    """Step 6: each receipt is of an accused; those whose recipient's key is known hold and name its leaf."""
    accused = {f"receipts/{item['leaf']}.dsse.json": item for item in batch["accused"]}
    found = {name for name in pack if name.startswith("receipts/")}
    need(found <= accused.keys(), "a receipt is of nobody accused")
    held = []
    for name in sorted(found):
        leaf, who = accused[name]["leaf"], accused[name]["recipient"]
        if who not in keys:
            continue
        statement = read_statement(json.loads(pack[name]), keys[who], f"{who}'s key")
        need(statement["predicateType"] == RECEIPT, f"{who}: the signature is of another kind")
        told = statement["predicate"]
        about = told["batch_root"], told["leaf_index"], told["recipient"]
        need(about == (batch["batch_root"], leaf, who), f"{who}: the receipt is of another copy")
        subject = {"name": "bundle", "digest": {"sha256": told["bundle_digest"].removeprefix("sha256:")}}
        need(statement["subject"] == [subject], f"{who}: the signature is about another bundle")
        held.append(f"{who} got its copy {told['received_at']}")
    missing = keys.keys() - {item["recipient"] for name, item in accused.items() if name in found}
    need(not missing, f"the pack holds no receipt of {', '.join(sorted(missing))}")
    return "; ".join(held) or f"{len(found)} in the pack; none checked, as no --recipient was given"


def key_streams(items: Sequence[Json], beacon: bytes, layout: bytes) -> list[bytes]:
    """Return the stream key of each opened leaf."""
    field = lp("stanch/mark/v1/stream", beacon, layout)
    return [hmac.digest(bytes.fromhex(item["subkey"]), field, "sha256") for item in items]


def read_features(pack: Pack, plan: Json) -> tuple[Floats, Coordinates, Doubles]:
    """Return the Gaussian table, the coordinates, which nobody could choose, and the features there."""
    upper = pack["verifier/gaussian.bin"]
    need(hashlib.sha256(upper).hexdigest() == TABLE_SHA256, "gaussian.bin is not the published table")
    half = np.frombuffer(upper, dtype="<f4")
    coordinates = np.frombuffer(pack["features/coordinates.u64le"], dtype="<u8")
    values = np.frombuffer(pack["features/values.f32le"], dtype="<f4")
    need(len(coordinates) == len(values), "features: there are not as many coordinates as values")
    release, count = plan["release"], len(coordinates)
    fixed = bytes.fromhex(release["batch_root"]), bytes.fromhex(release["beacon"]), release["extent"]
    drawn = np.arange(count, dtype=np.uint64) if count == release["extent"] else shown_coordinates(*fixed)
    need(np.array_equal(coordinates, drawn), "features: the coordinates are not those that batch and beacon choose")
    need(values.any() and np.all(np.abs(values) < 1e15), "features: a value is not finite, or all are 0")
    return np.concatenate([-half[::-1], half]), coordinates, values.astype(np.float64)


def score(f: Doubles, x: Floats) -> float:
    """Return ``z = sum f·x over the root of sum f²``."""
    return float(f @ x) / math.sqrt(float(f @ f))


def decided(z: float) -> float:
    """Return the score that decisions are made on: two digits, rounded down and one hundredth less."""
    return math.floor(100 * z) / 100 - 0.01


def score_accused(x: Floats, values: Doubles, plan: Json) -> list[float]:
    """Score keys with values ``x`` [keys, coordinates] in rounds; what those found explain is subtracted after each."""
    x = x * (values != 0)
    scores, open_ = [-math.inf] * len(x), list(range(len(x)))
    for _ in range(plan["rounds"]):
        for number in open_:
            scores[number] = max(scores[number], score(values, x[number]))
        found = [number for number in open_ if decided(scores[number]) >= plan["threshold"]]
        open_ = [number for number in open_ if number not in found]
        if not found or not open_:
            break
        known = x[found].astype(np.float64)
        values = values - np.linalg.lstsq(known @ known.T, known @ values, rcond=None)[0] @ known
    return scores


def log10_bound(z: float, plan: Json) -> float:
    """Return the bound on the logarithm of the chance that any innocent scores ``z``."""
    return min(0.0, math.log10(plan["n"] * plan["analyses"]) - decided(z) ** 2 / (2 * math.log(10)))


def check_scores(pack: Pack, streams: Sequence[bytes], accused: Sequence[Json], plan: Json) -> list[float]:
    """Step 7: the score of each accused key, computed anew, reaches the threshold and is what is stated."""
    stated = json.loads(pack["scores/scores.json"])
    need(stated["variant"] in plan["variants"], "the features are of a variant that was not planned")
    table, coordinates, values = read_features(pack, plan)
    need(stated["coordinates"] == len(coordinates), "the stated number of coordinates is another one")
    scores = score_accused(np.stack([signature_values(key, coordinates, table) for key in streams]), values, plan)
    for item, z, told in zip(accused, scores, stated["accused"], strict=True):
        name = item["recipient"]
        need((told["recipient"], told["leaf"]) == (name, item["leaf"]), "the stated scores are of others")
        need(abs(z - told["z"]) <= Z_TOLERANCE * abs(z), f"{name}: stated z {told['z']}, computed {z:.4f}")
        need(decided(z) >= plan["threshold"], f"{name}: z {z:.2f} is below {plan['threshold']:.4f}")
        bound = log10_bound(told["z"], plan)
        need(abs(told["log10_p"] - bound) <= 1e-6 * abs(bound), f"{name}: log10_p does not follow from z, n and T")
    said, release = stated["examination"], plan["release"]
    about = ("case", "suspect", "n", "analyses", "epsilon", "threshold")
    same = all(said[field] == plan[field] for field in about) and said["release"] == release["original"]
    found = [(item["recipient"], item["leaf"]) for item in said["accused"]]
    same = same and said["verdict"] == "accused" and found == [(item["recipient"], item["leaf"]) for item in accused]
    need(same, "what the examination is said to have found is about something else")
    return scores


def check_decoys(pack: Pack, streams: Sequence[bytes], plan: Json) -> tuple[int, float, float, float]:
    """Step 8: the decoys look like N(0,1), on 4,096 groups of 8 coordinates, evenly chosen among those not all 0."""
    stated, tau = json.loads(pack["scores/scores.json"])["decoys"], plan["threshold"]
    table, coordinates, values = read_features(pack, plan)
    groups = np.unique(coordinates[values != 0] >> np.uint64(3))
    chosen = np.isin(coordinates >> np.uint64(3), groups[:: -(-len(groups) // DECOY_GROUPS)])
    coordinates, values, count = coordinates[chosen], values[chosen], len(streams)
    need(count >= MIN_DECOYS, f"{count} are too few to show anything")
    scores = np.sort([score(values, signature_values(key, coordinates, table)) for key in streams])
    mean, deviation, highest = float(np.mean(scores)), float(np.std(scores)), float(scores[-1])
    noise = abs(mean) <= 5 / math.sqrt(count) and abs(deviation - 1) <= 5 / math.sqrt(2 * count) and highest < tau
    need(noise, f"mean {mean:.3f}, deviation {deviation:.3f}, highest {highest:.2f} are not those of noise")
    told = stated["mean"] - mean, stated["deviation"] - deviation, stated["highest"] - highest
    need(all(abs(difference) < Z_TOLERANCE for difference in told), "they are not what is stated")
    edges, below = np.array(stated["edges"]), np.cumsum([0, *stated["counts"]])
    least, most = (np.searchsorted(scores, edges + shift) for shift in (-Z_TOLERANCE, Z_TOLERANCE))
    drawn = len(edges) == len(below) and np.all(least <= below) and np.all(below <= most) and below[-1] == count
    need(drawn and stated["count"] == count, "the histogram is not theirs")
    return count, mean, deviation, highest


def verify(
    path: Path,
    key: str,
    vkey: str,
    say: Callable[[str], None] = print,
    recipients: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Json, dict[str, float]]:
    """Return the plan of the pack at ``path`` and each accused's z, or raise :class:`Failed` at the first bad step."""
    with step("pack"):
        pack = open_pack(path, key)
    say(f"pack        ok  {len(pack)} files, signed by the case key")
    with step("log"):
        committed = check_logged(pack, "commitment", vkey)
        say(f"log         ok  the commitment is entry {committed.number}")
    with step("commitment"):
        batch = check_commitment(pack, committed)
        names = [item["recipient"] for item in batch["accused"]]
        say(f"commitment  ok  {len(names)} accused and {len(batch['decoys'])} decoys are in the committed batch")
    with step("plan"):
        pinned, logged = check_logged(pack, "beacon", vkey), check_logged(pack, "plan", vkey)
        check_order(pack, committed, pinned, logged)
        plan = check_plan(pack, logged.payload, batch, (committed.payload, pinned.payload))
        counted = f"n {plan['n']}, analyses {plan['analyses']}, epsilon {plan['epsilon']}"
        say(f"plan        ok  entry {logged.number}, after the beacon in {pinned.number}: {counted}")
    with step("custody"):
        check_custody(pack, plan, pinned.seconds)
        say("custody     ok  unbroken, holds the suspect, and began after the keys and the beacon were fixed")
    with step("receipts"):
        say(f"receipts    ok  {check_receipts(pack, batch, recipients)}")
    beacon, layout = bytes.fromhex(plan["release"]["beacon"]), bytes.fromhex(batch["layout_digest"])
    with step("score"):
        scores = check_scores(pack, key_streams(batch["accused"], beacon, layout), batch["accused"], plan)
        for name, z in zip(names, scores, strict=True):
            bound = log10_bound(z, plan)
            say(f"score       ok  {name}: z {z:.2f}, at least {plan['threshold']:.4f}; log10 p <= {bound:.1f}")
    with step("decoys"):
        decoys = check_decoys(pack, key_streams(batch["decoys"], beacon, layout), plan)
        say("decoys      ok  {}: mean {:.3f}, deviation {:.3f}, highest {:.2f}".format(*decoys))
    say("unchecked       the words of report.html, and the examination's own scores: the case key's owner says them")
    say(f"verified    suspect {plan['suspect']} was made from the copy of: {', '.join(names)}")
    return plan, dict(zip(names, scores, strict=True))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Re-check an evidence pack.")
    parser.add_argument("pack", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="the case key's public half, PEM")
    parser.add_argument("--log", required=True, help="the log's vkey: name+hash+base64")
    parser.add_argument(
        "--recipient", nargs=2, action="append", default=[], metavar=("NAME", "PEM"), help="a recipient's public key"
    )
    options = parser.parse_args()
    try:
        options.pack.open("rb").close()
        key, *others = (
            Path(file).read_text(errors="replace") for file in (options.key, *(file for _, file in options.recipient))
        )
    except OSError as error:
        print(f"NOT DONE    cannot read {error.filename}: {error.strerror}")
        return 5
    try:
        names = (name for name, _ in options.recipient)
        verify(options.pack, key, options.log, recipients=dict(zip(names, others, strict=True)))
    except Failed as error:
        print(f"FAILED      {error.step}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
