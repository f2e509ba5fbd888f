"""The dataset manifest ``stanch/dataset-manifest/v1``: what a dataset holds, without showing any of it.

The rows are the leaves of a Merkle tree (RFC 9162 section 2.1) over ``salt_i ‖ SHA-256(canonical row)``. Opening one
row shows nothing about its neighbours, and without the salts a guess of a row cannot be tested against the root.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

import msgspec
import orjson

from stanch.crypto import canonical_json, inclusion_path, merkle_root, parse_json, verify_inclusion
from stanch.data.dataset import KEY_SIZE, Dataset
from stanch.data.provenance import Operation, Step, read_steps
from stanch.data.tree import Salts, leaves, row_leaf
from stanch.errors import InvalidInput, NotFound, ProofInvalid, Tampered
from stanch.terms import Digest

_MAX_PROOF = 160 << 20


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dataset that this one was made from: its root, what was done to it, and the digest of the parameters.

    Attributes:
        root: ``sha256-rfc9162:<hex>`` or ``sha256:<hex>``, as in :class:`stanch.data.provenance.Step`.
        operation: What was done.
        parameters_digest: SHA-256 of the canonical parameters, in hexadecimal.
        entry: For an injection, the log entry that committed to the canaries (index, leaf hash, act); otherwise null.
    """

    root: str
    operation: Operation
    parameters_digest: str
    entry: dict[str, int | str] | None


class DatasetManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a dataset holds.

    Attributes:
        name: Name of the file or folder.
        format: As in :class:`stanch.data.Dataset`.
        chat: Shape of the rows.
        fields: The text columns, when they were named instead of a shape.
        count: Number of rows.
        size: Size of the files in bytes.
        root: Root of the tree over the rows, in hexadecimal.
        salt_commitment: SHA-256("stanch/salt-commitment/v1" ‖ 0 ‖ K_salt), in hexadecimal.
        parents: The datasets that this one was made from, oldest first.
        pack: Digest of the rules of the last redaction, or null.
        policy: Digest of the policy of the last redaction, or null.
        created: When the manifest was made (RFC 3339, UTC).
    """

    schema: Literal["stanch/dataset-manifest/v1"] = "stanch/dataset-manifest/v1"
    tree: Literal["sha256-rfc9162"] = "sha256-rfc9162"
    name: str
    format: str
    chat: str
    fields: tuple[str, ...]
    count: int
    size: int = msgspec.field(name="bytes")
    root: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    salt_commitment: str
    parents: tuple[Parent, ...]
    pack: str | None
    policy: str | None
    created: str

    def to_json(self) -> bytes:
        """Return the manifest in canonical JSON."""
        return canonical_json(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a manifest.

        Raises:
            InvalidInput: It is none.
        """
        try:
            return msgspec.convert(parse_json(data, what="dataset manifest"), cls)
        except msgspec.ValidationError:
            raise InvalidInput("dataset manifest: expected stanch/dataset-manifest/v1") from None


@dataclass(frozen=True, slots=True)
class RecordProof:
    """That a row is in a dataset: its position, salt, canonical row, and the path to the root."""

    index: int
    count: int
    salt: bytes
    row: bytes
    path: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"RecordProof(index={self.index}, count={self.count}, row=<{len(self.row)} bytes>)"

    def to_json(self) -> bytes:
        """Return ``stanch/record-proof/v1`` in canonical JSON. It shows the row."""
        file = _ProofFile(
            index=self.index,
            count=self.count,
            salt=self.salt.hex(),
            row=self.row.decode(),
            path=tuple(node.hex() for node in self.path),
        )
        return canonical_json(msgspec.to_builtins(file))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a proof.

        Raises:
            InvalidInput: It is none.
        """
        try:
            file = msgspec.convert(parse_json(data, what="record proof", max_bytes=_MAX_PROOF), _ProofFile)
            path = tuple(bytes.fromhex(node) for node in file.path)
            return cls(file.index, file.count, bytes.fromhex(file.salt), file.row.encode(), path)
        except (msgspec.ValidationError, ValueError):
            raise InvalidInput("record proof: expected stanch/record-proof/v1") from None


@dataclass(frozen=True, slots=True)
class ProvenRecord:
    """A row that is proven to stand at ``index`` in a dataset of ``count`` rows; made by :func:`verify_record` only."""

    index: int
    count: int
    row: bytes

    def __repr__(self) -> str:
        return f"ProvenRecord(index={self.index}, count={self.count}, row=<{len(self.row)} bytes>)"


class _ProofFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema: Literal["stanch/record-proof/v1"] = "stanch/record-proof/v1"
    index: int
    count: int
    salt: str
    row: str
    path: tuple[str, ...]


def build_manifest(dataset: Dataset, *, key: bytes, now: Callable[[], datetime] | None = None) -> DatasetManifest:
    """Return the manifest of ``dataset`` under the dataset key.

    Args:
        dataset: The dataset.
        key: The dataset key, 32 bytes.
        now: The clock; default the system's.

    Raises:
        InvalidInput: A row has no canonical form, or the key is not 32 bytes.
        Tampered: The dataset is not the file that its provenance speaks of.
    """
    salts = _salts(key)
    hashes = list(leaves(dataset, salts))
    steps = read_steps(dataset)
    redaction = next((step.parameters for step in reversed(steps) if step.operation == "redact"), {})
    created = (now() if now is not None else datetime.now(UTC)).astimezone(UTC)
    return DatasetManifest(
        name=dataset.path.name,
        format=dataset.format,
        chat=dataset.chat.value,
        fields=dataset.columns,
        count=len(hashes),
        size=dataset.size,
        root=merkle_root(hashes).hex(),
        salt_commitment=salts.commitment(),
        parents=tuple(_parent(step) for step in steps),
        pack=redaction.get("pack"),
        policy=redaction.get("policy"),
        created=created.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def verify_manifest(dataset: Dataset, manifest: DatasetManifest, *, key: bytes) -> DatasetManifest:
    """Return ``manifest`` if the rows of ``dataset`` are those that it fixed.

    Raises:
        Tampered: The rows, their order or the key differ.
    """
    _checked_leaves(dataset, manifest, _salts(key))
    return manifest


def prove_record(dataset: Dataset, manifest: DatasetManifest, record_id: str, *, key: bytes) -> RecordProof:
    """Return the proof that the record is in the dataset.

    Raises:
        NotFound: There is no such record.
        Tampered: The rows, their order or the key are not those of the manifest.
    """
    salts = _salts(key)
    record = next((record for record in dataset if record.id == record_id), None)
    if record is None:
        raise NotFound(f"{dataset.uri}: no record has this id", next_step="open the dataset as when the id was made")
    hashes = _checked_leaves(dataset, manifest, salts)
    row = canonical_json(orjson.loads(record.raw))
    path = tuple(inclusion_path(hashes, record.index))
    return RecordProof(record.index, len(hashes), salts.of(record.index), row, path)


def verify_record(proof: RecordProof, root: Digest, *, count: int) -> ProvenRecord:
    """Return the row that ``proof`` shows to be in the dataset with this root and number of rows.

    Args:
        proof: The proof, from anybody.
        root: The root, from a manifest that is trusted.
        count: The number of rows, from the same manifest; without it the position would not be bound.

    Raises:
        ProofInvalid: The proof does not hold.
    """
    if proof.count != count or root.algorithm != "sha256":
        raise ProofInvalid("record proof: it is not about the dataset of this manifest")
    verify_inclusion(row_leaf(proof.salt, proof.row), proof.index, count, proof.path, root.value)
    return ProvenRecord(proof.index, count, proof.row)


def _salts(key: bytes) -> Salts:
    if len(key) != KEY_SIZE:
        raise InvalidInput(f"dataset key: expected {KEY_SIZE} bytes, found {len(key)}")
    return Salts(key)


def _checked_leaves(dataset: Dataset, manifest: DatasetManifest, salts: Salts) -> list[bytes]:
    hashes = list(leaves(dataset, salts))
    if not hmac.compare_digest(merkle_root(hashes).hex(), manifest.root) or len(hashes) != manifest.count:
        raise Tampered(
            f"{dataset.uri}: its rows are not those of the manifest",
            why="a row, their order or the dataset key differs",
            next_step="restore the file, or use the key that the manifest was made with",
        )
    return hashes


def _parent(step: Step) -> Parent:
    entry = step.parameters.get("entry")
    return Parent(step.parent, step.operation, step.parameters_digest(), entry)
