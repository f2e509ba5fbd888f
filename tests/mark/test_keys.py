import hashlib
import hmac
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.crypto import canonical_json, sha256
from stanch.errors import InvalidInput, ProofInvalid, Tampered
from stanch.mark import (
    Layout,
    LayoutEntry,
    Leaf,
    MarkRoot,
    RecipientSlot,
    commit,
    commitment,
    copy_key,
    mark_keys,
    restore,
)
from stanch.mark.keys import stream_key, u32
from stanch.mark.plan import MarkPlan
from stanch.mark.signature import gaussian_table, signature_values
from stanch.terms import Digest

GOLDENS = json.loads((Path(__file__).parents[1] / "vectors" / "mark" / "goldens.json").read_text())
GOLD, LEAF = GOLDENS["derivation"], GOLDENS["leaf"]
ROOT, ORIGINAL, BEACON = MarkRoot(bytes.fromhex(GOLD["root"])), Digest.sha256(b"original"), sha256(b"beacon")
LAYOUT = Layout(tuple(LayoutEntry(e["name"], e["dtype"], tuple(e["shape"]), e["offset"]) for e in GOLD["layout"]))
PLAN = MarkPlan(ORIGINAL, "full", LEAF["alpha"], LAYOUT, {})
SLOTS = [RecipientSlot("acme"), RecipientSlot("globex", bytes(32)), RecipientSlot("initech")]


def lp(*fields):
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def mac(key, *fields):
    return hmac.new(key, lp(*fields), hashlib.sha256).digest()


def test_derivations_are_the_specified_ones():
    assert LAYOUT.digest.hex() == GOLD["layout_digest"]
    subkey = ROOT.recipient_subkey(ORIGINAL, 1, RecipientSlot("acme"))
    assert subkey.hex() == GOLD["subkey"]
    assert ROOT.release_subkey(ORIGINAL).hex() == GOLD["release_subkey"]
    stream = stream_key(subkey, BEACON, LAYOUT.digest)
    assert stream.hex() == GOLD["stream"]
    assert ROOT.strata_key(ORIGINAL, BEACON) == mac(ROOT.secret, b"stanch/mark/v1/strata", ORIGINAL.value, BEACON)
    assert signature_values(stream, 0, 8).tolist() == gaussian_table()[GOLD["indexes_at_0"]].tolist()


def test_the_leaf_is_the_specified_one():
    subkey = bytes.fromhex(GOLD["subkey"])
    leaf = Leaf(bytes.fromhex(LEAF["salt"]), "acme", subkey, LEAF["alpha"], LAYOUT.digest, ORIGINAL)
    assert len(leaf.to_bytes()) == LEAF["size"]
    assert leaf.hash.hex() == LEAF["hash"]


def oracle_root(batch, decoys):
    """The batch's root from the specification alone, with the standard library."""
    key, original, number = ROOT.secret, ORIGINAL.value, struct.pack(">I", batch)
    keys = {s.id: mac(key, b"stanch/mark/v1/recipient", original, number, s.id.encode(), s.contribution) for s in SLOTS}
    keys["*release*"] = mac(key, b"stanch/mark/v1/release", original)
    for decoy in range(decoys):
        keys[f"decoy:{decoy}"] = mac(key, b"stanch/mark/v1/decoy", original, number, struct.pack(">I", decoy))
    shuffle = mac(key, b"stanch/mark/v1/shuffle", original, number)
    leaves = []
    for index, name in enumerate(sorted(keys, key=lambda n: hmac.new(shuffle, n.encode(), hashlib.sha256).digest())):
        salt = mac(key, b"stanch/mark/v1/salt", original, number, struct.pack(">I", index))
        alpha = struct.pack(">d", LEAF["alpha"])
        data = lp(b"stanch/mark/v1/leaf", salt, name.encode(), keys[name], alpha, LAYOUT.digest, original)
        leaves.append(hashlib.sha256(b"\0" + data).digest())

    def tree(nodes):
        if len(nodes) == 1:
            return nodes[0]
        split = 1 << (len(nodes) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + tree(nodes[:split]) + tree(nodes[split:])).digest()

    return tree(leaves)


@pytest.mark.parametrize(("batch", "decoys"), [(1, 1), (1, 9), (7, 30)])
def test_the_batch_root_equals_that_of_an_independent_implementation(batch, decoys):
    assert commit(PLAN, ROOT, SLOTS, batch=batch, decoys=decoys).root == oracle_root(batch, decoys)


def test_every_leaf_opens_and_no_other_does():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    for name in batch.index:
        opening = batch.open(name)
        assert opening.verify(batch.root).recipient == name
        with pytest.raises(ProofInvalid):
            opening.verify(bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        {"salt": bytes(32)},
        {"recipient": "globex"},
        {"subkey": bytes(32)},
        {"alpha": 0.004},
        {"layout_digest": bytes(32)},
        {"original": Digest.sha256(b"other")},
        {"salt": b"short"},
    ],
)
def test_a_changed_leaf_does_not_open(change):
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    opening = batch.open("acme")
    with pytest.raises(ProofInvalid):
        replace(opening, leaf=replace(opening.leaf, **change)).verify(batch.root)


@pytest.mark.parametrize("name", ["salt", "subkey", "layout_digest"])
def test_a_leaf_with_a_field_of_another_length_does_not_open_although_it_was_committed_to(name):
    batch = commit(PLAN, ROOT, SLOTS, decoys=1)
    number = batch.index["acme"]
    leaf = replace(batch.leaves[number], **{name: bytes(31)})
    batch = replace(batch, leaves=(*batch.leaves[:number], leaf, *batch.leaves[number + 1 :]))
    with pytest.raises(ProofInvalid, match="wrong length"):
        batch.open("acme").verify(batch.root)


def test_a_changed_path_or_index_does_not_open():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    opening = batch.open("acme")
    for step in range(len(opening.path)):
        path = (*opening.path[:step], bytes(32), *opening.path[step + 1 :])
        with pytest.raises(ProofInvalid):
            replace(opening, path=path).verify(batch.root)
    with pytest.raises(ProofInvalid):
        replace(opening, index=opening.index ^ 1).verify(batch.root)


def test_contributions_batches_and_roots_change_the_key():
    key = {
        ROOT.recipient_subkey(ORIGINAL, 1, SLOTS[0]),
        ROOT.recipient_subkey(ORIGINAL, 2, SLOTS[0]),
        ROOT.recipient_subkey(Digest.sha256(b"other"), 1, SLOTS[0]),
        ROOT.recipient_subkey(ORIGINAL, 1, RecipientSlot("acme", bytes(32))),
        MarkRoot(bytes(32)).recipient_subkey(ORIGINAL, 1, SLOTS[0]),
    }
    assert len(key) == 5


def test_names_are_one_in_every_unicode_form():
    forms = [RecipientSlot("caf\u00e9"), RecipientSlot("cafe\u0301")]
    assert len({ROOT.recipient_subkey(ORIGINAL, 1, slot) for slot in forms}) == 1
    with pytest.raises(InvalidInput, match="different names"):
        commit(PLAN, ROOT, forms)


@pytest.mark.parametrize("name", ["", "*release*", "*", "decoy:", "decoy:1", "a\nb", "x" * 257, "\u00e9" * 129])
def test_bad_names_are_refused(name):
    with pytest.raises(InvalidInput):
        RecipientSlot(name)


@pytest.mark.parametrize("name", ["x", "x" * 256, "\u00e9" * 128, "decoy", "a*"])
def test_names_of_up_to_256_bytes_are_accepted(name):
    assert RecipientSlot(name).contribution == b""


@pytest.mark.parametrize("length", [1, 31, 33])
def test_a_contribution_is_a_key_or_nothing(length):
    with pytest.raises(InvalidInput, match="0 or 32"):
        RecipientSlot("acme", bytes(length))


def test_numbers_fill_their_four_bytes_and_no_more():
    assert (u32(0), u32(1), u32(2**32 - 1)) == (b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff")
    for number in (-1, 2**32):
        with pytest.raises(InvalidInput, match="below 2"):
            u32(number)


@pytest.mark.parametrize("options", [{"batch": 0}, {"decoys": 0}, {"decoys": 1_000_001}])
def test_bad_batches_are_refused(options):
    with pytest.raises(InvalidInput, match="1 to 1,000,000 decoys"):
        commit(PLAN, ROOT, SLOTS, **options)
    with pytest.raises(InvalidInput):
        commit(PLAN, ROOT, [])


def test_a_batch_holds_a_thousand_decoys_unless_told_and_as_many_as_are_allowed(monkeypatch):
    batch = commit(PLAN, ROOT, SLOTS)
    assert (batch.batch, len(batch.leaves)) == (1, 3 + 1 + 1024)
    monkeypatch.setattr(commitment, "_MOST_DECOYS", 2)
    assert len(commit(PLAN, ROOT, SLOTS, decoys=2).leaves) == 3 + 1 + 2
    with pytest.raises(InvalidInput, match="1 to 2 decoys"):
        commit(PLAN, ROOT, SLOTS, decoys=3)


def test_what_is_shown_of_a_batch_and_of_a_leaf():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    shown = {"alpha": LEAF["alpha"], "layout_digest": LAYOUT.digest.hex(), "original": str(ORIGINAL), "size": 24}
    assert batch.to_json() == shown | {
        "format": "stanch/mark-commitment/v1", "batch": 1, "root": batch.root.hex(), "decoys": 20,
        "recipients": [{"id": slot.id, "contribution": slot.contribution.hex()} for slot in SLOTS],
    }  # fmt: skip
    opening = batch.open("globex")
    assert opening.to_json() == shown | {
        "recipient": "globex", "salt": opening.leaf.salt.hex(), "subkey": opening.leaf.subkey.hex(),
        "index": batch.index["globex"], "path": [node.hex() for node in opening.path],
    }  # fmt: skip


def test_a_batch_can_be_restored_and_only_as_it_was():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    data = canonical_json(batch.to_json())
    assert restore(data, PLAN, ROOT).root == batch.root
    assert ROOT.secret.hex() not in data.decode()
    assert not any(leaf.subkey.hex() in data.decode() for leaf in batch.leaves)
    for plan, root in ((PLAN, MarkRoot(bytes(32))), (replace(PLAN, alpha=0.004), ROOT)):
        with pytest.raises(Tampered):
            restore(data, plan, root)
    with pytest.raises(Tampered):
        restore(data.replace(b"initech", b"initecg"), PLAN, ROOT)
    for broken in (
        b"{}",
        data.replace(b"/v1", b"/v2"),
        data.replace(b'"id"', b'"ix"'),
        data.replace(b"00000", b"0x000"),
    ):
        with pytest.raises(InvalidInput):
            restore(broken, PLAN, ROOT)


def test_copy_keys_are_for_recipients_only():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    for name, match in (("nobody", "has no recipient"), ("decoy:3", "never issued"), ("*release*", "never issued")):
        with pytest.raises(InvalidInput, match=match):
            copy_key(batch, name, beacon=BEACON)
    key = copy_key(batch, "acme", beacon=BEACON)
    assert (key.recipient, key.batch, key.leaf) == ("acme", 1, batch.index["acme"])
    assert (key.alpha, key.original, key.layout_digest) == (LEAF["alpha"], ORIGINAL, LAYOUT.digest)
    assert key.stream.hex() == GOLD["stream"]
    assert key.release_stream == stream_key(bytes.fromhex(GOLD["release_subkey"]), BEACON, LAYOUT.digest)
    with pytest.raises(InvalidInput, match="beacon"):
        copy_key(batch, "acme", beacon=b"")


def test_later_batches_keep_the_ownership_mark_of_the_first():
    first, second = (
        commit(PLAN, ROOT, SLOTS, decoys=20),
        commit(PLAN, ROOT, [RecipientSlot("late")], batch=2, decoys=20),
    )
    with pytest.raises(InvalidInput, match="batch 1"):
        copy_key(second, "late", beacon=bytes(32))
    key = copy_key(second, "late", beacon=bytes(32), release_beacon=BEACON)
    assert key.release_stream == copy_key(first, "acme", beacon=BEACON).release_stream
    keys = mark_keys([(second, bytes(32)), (first, BEACON)], ROOT)
    assert {key.recipient for key in keys.copies} == {"acme", "globex", "initech", "late"}
    assert len(set(keys.decoys)) == 40
    assert keys.decoys[:20] == tuple(
        stream_key(leaf.subkey, bytes(32), LAYOUT.digest)
        for leaf in second.leaves
        if leaf.recipient.startswith("decoy:")
    )
    assert (keys.release_stream, keys.strata_key) == (key.release_stream, ROOT.strata_key(ORIGINAL, BEACON))
    for batches in ([(second, BEACON)], [(first, BEACON)] * 2, []):
        with pytest.raises(InvalidInput):
            mark_keys(batches, ROOT)
    other = commit(replace(PLAN, alpha=0.004), ROOT, SLOTS, batch=2, decoys=20)
    with pytest.raises(InvalidInput, match="differ"):
        mark_keys([(first, BEACON), (other, BEACON)], ROOT)


def test_secrets_show_in_no_representation():
    batch = commit(PLAN, ROOT, SLOTS, decoys=20)
    keys = mark_keys([(batch, BEACON)], ROOT)
    shown = "".join(map(repr, (ROOT, batch, batch.leaves[0], keys, keys.copies[0], batch.open("acme"))))
    secrets = [ROOT.secret, keys.release_stream, keys.strata_key, keys.copies[0].stream, *keys.decoys]
    secrets += [value for leaf in batch.leaves for value in (leaf.subkey, leaf.salt)]
    assert not any(repr(secret) in shown or secret.hex() in shown for secret in secrets)
    assert "decoy:" not in repr(batch)  # nor which leaf is whose


def test_the_root_is_kept_in_a_private_file(tmp_path):
    path = tmp_path / "root.key"
    root = MarkRoot.generate(lambda count: bytes(range(count)))
    root.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert MarkRoot.load(path) == root
    assert path.read_bytes() == b"stanch/mark-root/v1\n" + bytes(range(32))
    path.chmod(0o640)
    with pytest.raises(InvalidInput):
        MarkRoot.load(path)
    path.chmod(0o600)
    path.write_bytes(b"something else")
    with pytest.raises(InvalidInput, match="not a mark root"):
        MarkRoot.load(path)
    with pytest.raises(InvalidInput, match="32 bytes"):
        MarkRoot(b"short")
