"""The part of a check that needs nothing but the bytes of up to 256 rows: it runs in any process."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stanch.crypto import VerifyKey, leaf_hash, merkle_root
from stanch.errors import InvalidInput, NoTrustedSignature
from stanch.ledger.damage import LogDamaged
from stanch.ledger.entry import read_event
from stanch.ledger.ocsf import Event
from stanch.ledger.signature import check_act
from stanch.ledger.tiles import TILE_WIDTH

OWN_KEY = "local"
"""The kind of credential that is a key of the principal's own, with which it signs its acts."""

IndexTuple = tuple[int, str, str, str, str, int, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """What every entry is held against: the log's name, and the registered keys: id → (principal, 32 raw bytes)."""

    origin: str
    keys: Mapping[str, tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class TileRows:
    """The rows of one tile, and what the query index says of them.

    Attributes:
        first: Index of the first row.
        entries: Their bytes.
        stored: Their stored leaf hashes.
        indexed: How many of them the query index has reached.
        index: Its rows (index, act, phase, kind, principal, time, status).
        subjects: Its digests, by index.
    """

    first: int
    entries: list[bytes]
    stored: list[bytes]
    indexed: int
    index: list[IndexTuple]
    subjects: dict[int, list[str]]


@dataclass(slots=True)
class CheckedTile:
    """What the rows of one tile say.

    Attributes:
        leaves: Their leaf hashes.
        root: The root over them.
        opened: Acts that began here and did not end here.
        closed: Acts that ended here and began before.
        commitments: Every commitment in them.
        signed: How many act signatures verified.
        problem: The first damage, as the arguments of :class:`stanch.ledger.damage.LogDamaged`.
    """

    leaves: list[bytes]
    root: bytes
    opened: dict[str, None] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    commitments: list[str] = field(default_factory=list)
    signed: int = 0
    problem: tuple[str, int, str, str] | None = None

    def raise_problem(self) -> None:
        """Raise the first damage, if there is one."""
        if self.problem is not None:
            place, index, expected, found = self.problem
            raise LogDamaged(place, index, expected=expected, found=found)


def check_tile(rules: Rules, rows: TileRows) -> CheckedTile:
    """Check that each row is an entry of this log, that its principal signed it, and that the index says the same."""
    leaves = [leaf_hash(entry) for entry in rows.entries]
    checked = CheckedTile(leaves, merkle_root(leaves) if len(leaves) == TILE_WIDTH else b"")
    for offset, data in enumerate(rows.entries):
        checked.problem = _check_entry(rules, rows, offset, data, checked)
        if checked.problem is not None:
            break
    return checked


def _check_entry(
    rules: Rules, rows: TileRows, offset: int, data: bytes, checked: CheckedTile
) -> tuple[str, int, str, str] | None:
    index = rows.first + offset
    try:
        event = read_event(data)
    except InvalidInput as error:
        return "entry", index, "canonical bytes", error.what
    if event.attestation.chain_uid != rules.origin:
        return "entry", index, f"log {rules.origin}", "another log's entry"
    if offset < rows.indexed and not _indexed(rows, index, event):
        return "query index, entry", index, "what the entry says", "another row"
    ours = event.unmapped.stanch
    if ours.phase == "intent":
        if (credential := ours.credential) and credential.kind == OWN_KEY:
            try:
                _check_signature(rules, event, credential.key_id)
            except (NoTrustedSignature, InvalidInput) as error:
                return "act signature, entry", index, "that of its principal", error.what
            checked.signed += 1
        checked.opened[event.metadata.correlation_uid] = None
    elif ours.phase == "outcome" and checked.opened.pop(event.metadata.correlation_uid, checked) is checked:
        checked.closed.append(event.metadata.correlation_uid)
    if ours.commitments:
        checked.commitments.extend(ours.commitments.values())
    return None


def _indexed(rows: TileRows, index: int, event: Event) -> bool:
    """Say whether the query index holds of an entry what it says."""
    ours = event.unmapped.stanch
    position = index - rows.first
    found = rows.index[position] if position < len(rows.index) else None
    expected = (
        index, event.metadata.correlation_uid, ours.phase, ours.kind or "", event.actor.user.uid, event.time,
        event.status_id,
    )  # fmt: skip
    subjects = sorted({subject.digest for subject in ours.subject}) if ours.subject else []
    return found == expected and rows.subjects.get(index, []) == subjects


def _check_signature(rules: Rules, event: Event, key_id: str) -> None:
    principal, raw = rules.keys.get(key_id, ("", b""))
    if principal != event.actor.user.uid:
        raise NoTrustedSignature(f"the key {key_id} is not registered for {event.actor.user.uid}")
    key = VerifyKey.from_raw_ed25519(raw)
    if key.key_id != key_id:
        raise NoTrustedSignature(f"the registered key is not {key_id}")
    check_act(event, key)
