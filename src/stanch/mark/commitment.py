"""Commitment to a batch of keys: a Merkle tree over salted leaves, published before any copy exists.

A batch holds one leaf for each recipient, one for the ownership mark, and at least as many decoys as asked, in keyed
order, so that the tree tells nobody which leaf is whose. Opening a leaf reveals that leaf's subkey and no other.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from stanch.crypto import (
    canonical_json,
    frame,
    hmac_sha256,
    inclusion_path,
    leaf_hash,
    merkle_root,
    parse_json,
    verify_inclusion,
)
from stanch.errors import InvalidInput, ProofInvalid, Tampered
from stanch.mark.keys import KEY_SIZE, CopyKey, MarkKeys, MarkRoot, RecipientSlot, stream_key, text
from stanch.mark.plan import MarkPlan
from stanch.terms import Digest, JsonValue

FORMAT = "stanch/mark-commitment/v1"
RELEASE_ID = "*release*"
_DECOY_ID = "decoy:"
_MOST_DECOYS = 1_000_000


@dataclass(frozen=True, slots=True)
class Leaf:
    """The committed facts of one key.

    Attributes:
        salt: 32 bytes that hide the other fields.
        recipient: The recipient's name, ``*release*`` or ``decoy:<number>``.
        subkey: The key that is committed to.
        alpha: Strength of the mark.
        layout_digest: Layout the key is for.
        original: Original the key is for.
    """

    salt: bytes = field(repr=False)
    recipient: str
    subkey: bytes = field(repr=False)
    alpha: float
    layout_digest: bytes
    original: Digest

    def to_bytes(self) -> bytes:
        """Return the leaf's bytes: ``LP("stanch/mark/v1/leaf", salt, id, subkey, f64 α, layout digest, original)``."""
        alpha = struct.pack(">d", self.alpha)
        fields = (self.salt, text(self.recipient), self.subkey, alpha, self.layout_digest, self.original.value)
        return frame(b"stanch/mark/v1/leaf", *fields)

    @property
    def hash(self) -> bytes:
        """The leaf hash of RFC 9162."""
        return leaf_hash(self.to_bytes())


@dataclass(frozen=True, slots=True)
class LeafOpening:
    """One leaf with the proof that the batch's root contains it."""

    leaf: Leaf
    index: int
    size: int
    path: tuple[bytes, ...]

    def verify(self, root: bytes) -> Leaf:
        """Return the leaf if it is in the tree with ``root``.

        Raises:
            ProofInvalid: It is not.
        """
        if any(len(value) != KEY_SIZE for value in (self.leaf.salt, self.leaf.subkey, self.leaf.layout_digest)):
            raise ProofInvalid("mark leaf: a field has the wrong length")
        verify_inclusion(self.leaf.hash, self.index, self.size, self.path, root)
        return self.leaf

    def to_json(self) -> dict[str, JsonValue]:
        """Return the opening as it is shown to an examiner. It reveals this leaf's subkey."""
        return {
            "recipient": self.leaf.recipient,
            "salt": self.leaf.salt.hex(),
            "subkey": self.leaf.subkey.hex(),
            "alpha": self.leaf.alpha,
            "layout_digest": self.leaf.layout_digest.hex(),
            "original": str(self.leaf.original),
            "index": self.index,
            "size": self.size,
            "path": [node.hex() for node in self.path],
        }


@dataclass(frozen=True)
class Commitment:
    """A batch of keys and the root that commits to them.

    Attributes:
        batch: The batch's number, from 1.
        slots: The recipients.
        leaves: All leaves, in keyed order.
    """

    batch: int
    slots: tuple[RecipientSlot, ...]
    leaves: tuple[Leaf, ...] = field(repr=False)

    @cached_property
    def hashes(self) -> tuple[bytes, ...]:
        """The leaf hashes, in order."""
        return tuple(leaf.hash for leaf in self.leaves)

    @cached_property
    def root(self) -> bytes:
        """What is published."""
        return merkle_root(self.hashes)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The leaf number of each recipient, decoy, and the ownership mark."""
        return {leaf.recipient: number for number, leaf in enumerate(self.leaves)}

    def leaf_of(self, recipient: str) -> Leaf:
        """Return a recipient's leaf.

        Raises:
            InvalidInput: The batch has no such recipient.
        """
        number = self.index.get(recipient)
        if number is None:
            raise InvalidInput(
                f"batch {self.batch} has no recipient {recipient!r}",
                next_step="a recipient who came later needs a batch of its own",
            )
        return self.leaves[number]

    def open(self, recipient: str) -> LeafOpening:
        """Return a leaf with its proof. Whoever sees it can add or remove that recipient's mark from then on."""
        leaf = self.leaf_of(recipient)
        number = self.index[recipient]
        return LeafOpening(leaf, number, len(self.leaves), tuple(inclusion_path(self.hashes, number)))

    def to_json(self) -> dict[str, JsonValue]:
        """Return the batch without any secret; with the root secret it can be made again (:func:`restore`)."""
        leaf = self.leaves[0]
        recipients: list[JsonValue] = [{"id": slot.id, "contribution": slot.contribution.hex()} for slot in self.slots]
        return {
            "format": FORMAT,
            "batch": self.batch,
            "root": self.root.hex(),
            "size": len(self.leaves),
            "alpha": leaf.alpha,
            "layout_digest": leaf.layout_digest.hex(),
            "original": str(leaf.original),
            "recipients": recipients,
            "decoys": len(self.leaves) - len(self.slots) - 1,
        }


def commit(
    plan: MarkPlan, root: MarkRoot, recipients: Sequence[RecipientSlot], *, batch: int = 1, decoys: int = 1024
) -> Commitment:
    """Make the keys of a batch and commit to them. The same input gives the same batch.

    Args:
        plan: Of :func:`stanch.mark.plan.plan_mark`.
        root: The release's root secret.
        recipients: Who will get a copy; names must differ.
        batch: 1 for the first batch of a release, then 2, …
        decoys: Leaves that are never issued; their scores show that the statistic behaves as claimed.

    Raises:
        InvalidInput: A name stands twice, there is no recipient, or a number is out of range.
    """
    slots = tuple(recipients)
    if len({text(slot.id) for slot in slots}) != len(slots) or not slots:
        raise InvalidInput("mark batch: expected one or more recipients with different names")
    if batch < 1 or not 1 <= decoys <= _MOST_DECOYS:
        raise InvalidInput(
            f"mark batch: expected a batch from 1 and 1 to {_MOST_DECOYS:,} decoys, found {batch} and {decoys}"
        )
    original = plan.original
    subkeys = {slot.id: root.recipient_subkey(original, batch, slot) for slot in slots}
    subkeys[RELEASE_ID] = root.release_subkey(original)
    subkeys |= {f"{_DECOY_ID}{number}": root.decoy_subkey(original, batch, number) for number in range(decoys)}
    shuffle = root.shuffle_key(original, batch)
    order = sorted(subkeys, key=lambda name: hmac_sha256(shuffle, text(name)))
    leaves = (
        Leaf(root.leaf_salt(original, batch, number), name, subkeys[name], plan.alpha, plan.layout.digest, original)
        for number, name in enumerate(order)
    )
    return Commitment(batch, slots, tuple(leaves))


def restore(data: bytes, plan: MarkPlan, root: MarkRoot) -> Commitment:
    """Make a batch again from what :meth:`Commitment.to_json` returned (as JSON bytes).

    Raises:
        InvalidInput: The bytes are not such a batch.
        Tampered: Plan, root secret or batch are not those that were committed to.
    """
    document = parse_json(data, what="mark batch")
    match document:
        case {"format": "stanch/mark-commitment/v1", "batch": int(batch), "decoys": int(decoys), "recipients": list(r)}:
            slots = [_read_slot(item) for item in r]
        case _:
            raise InvalidInput("mark batch: expected the fields of stanch/mark-commitment/v1")
    made = commit(plan, root, slots, batch=batch, decoys=decoys)
    if canonical_json(made.to_json()) != canonical_json(document):
        raise Tampered(
            f"mark batch {batch}: made again, it is not the batch that was committed to",
            why="the original, the root secret, the recipients or the strength differ",
        )
    return made


def _read_slot(value: JsonValue) -> RecipientSlot:
    match value:
        case {"id": str(name), "contribution": str(contribution)}:
            try:
                return RecipientSlot(name, bytes.fromhex(contribution))
            except ValueError as error:
                raise InvalidInput("mark batch: a contribution is not hexadecimal") from error
    raise InvalidInput("mark batch: a recipient lacks id or contribution")


def copy_key(commitment: Commitment, recipient: str, *, beacon: bytes, release_beacon: bytes | None = None) -> CopyKey:
    """Return the key of a recipient's copy.

    Args:
        commitment: The recipient's batch.
        recipient: Its name.
        beacon: SHA-256 of the first checkpoint whose tree contains the batch's commitment entry.
        release_beacon: The beacon of batch 1; may be left out for batch 1 itself.

    Raises:
        InvalidInput: No such recipient, or the beacon of batch 1 is missing.
    """
    if recipient not in {slot.id for slot in commitment.slots}:
        commitment.leaf_of(recipient)
        raise InvalidInput(f"{recipient!r} is never issued", why="it is a decoy or the ownership mark")
    if commitment.batch != 1 and release_beacon is None:
        raise InvalidInput(f"batch {commitment.batch}: the beacon of batch 1 is needed for the ownership mark")
    leaf = commitment.leaf_of(recipient)
    return CopyKey(
        recipient=recipient,
        batch=commitment.batch,
        leaf=commitment.index[recipient],
        alpha=leaf.alpha,
        original=leaf.original,
        layout_digest=leaf.layout_digest,
        stream=stream_key(leaf.subkey, beacon, leaf.layout_digest),
        release_stream=stream_key(
            commitment.leaf_of(RELEASE_ID).subkey,
            beacon if release_beacon is None else release_beacon,
            leaf.layout_digest,
        ),
    )


def mark_keys(batches: Sequence[tuple[Commitment, bytes]], root: MarkRoot) -> MarkKeys:
    """Return all keys of a release: its batches with their beacons, batch 1 among them.

    Raises:
        InvalidInput: Batch 1 is missing, a batch stands twice, or batches differ in original, layout or strength.
    """
    beacons = {commitment.batch: beacon for commitment, beacon in batches}
    leaves = [commitment.leaf_of(RELEASE_ID) for commitment, _ in batches]
    if 1 not in beacons or len(beacons) != len(batches):
        raise InvalidInput("mark keys: expected batch 1 and every batch once")
    if len({(leaf.original, leaf.layout_digest, leaf.alpha) for leaf in leaves}) != 1:
        raise InvalidInput("mark keys: the batches differ in original, layout or strength")
    layout_digest, original = leaves[0].layout_digest, leaves[0].original
    return MarkKeys(
        copies=tuple(
            copy_key(commitment, slot.id, beacon=beacon, release_beacon=beacons[1])
            for commitment, beacon in batches
            for slot in commitment.slots
        ),
        decoys=tuple(
            stream_key(leaf.subkey, beacon, layout_digest)
            for commitment, beacon in batches
            for leaf in commitment.leaves
            if leaf.recipient.startswith(_DECOY_ID)
        ),
        release_stream=stream_key(leaves[0].subkey, beacons[1], layout_digest),
        strata_key=root.strata_key(original, beacons[1]),
    )
