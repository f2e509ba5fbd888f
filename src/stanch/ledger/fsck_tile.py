"""The part of a check that needs nothing but the rows and tiles of one place in the log: it runs in any process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from stanch.crypto import VerifyKey, leaf_hash, merkle_root
from stanch.errors import InvalidInput, NotFound, NoTrustedSignature, VerificationError
from stanch.ledger.damage import LogDamaged
from stanch.ledger.entry import read_event, subjects_text
from stanch.ledger.hashes import TileHashes
from stanch.ledger.ocsf import Event, Ours
from stanch.ledger.signature import check_act
from stanch.ledger.tiles import TILE_WIDTH, encode_bundle, tile_key, tile_width

OWN_KEY = "local"
"""The kind of credential that is a key of the principal's own, with which it signs its acts."""

_LEEWAY_MS = 60_000

Found = TypeVar("Found")
IndexTuple = tuple[int, str, str, str, str, int, int, str]


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """A local key as the database has it: whose, its public half, and when it was replaced."""

    principal: str
    public: bytes
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What every entry is held against.

    Attributes:
        origin: The log's name.
        keys: The registered keys, by their ids.
        published: How many entries lie in tiles.
        wanted: Numbers of the tiles inside which a checkpoint ends; their leaf hashes are returned.
    """

    origin: str
    keys: Mapping[str, RegisteredKey]
    published: int
    wanted: frozenset[int]


@dataclass(frozen=True, slots=True)
class TileRows:
    """The rows of one tile, and what the query index says of them.

    Attributes:
        first: Index of the first row.
        entries: Their bytes.
        stored: Their stored leaf hashes.
        indexed: How many of them the query index has reached.
        index: Its rows (index, act, phase, kind, principal, time, status, subjects).
        subjects: Its digests, by index.
    """

    first: int
    entries: list[bytes]
    stored: list[bytes]
    indexed: int
    index: list[IndexTuple]
    subjects: dict[int, list[str]]


@dataclass(frozen=True, slots=True)
class Ending:
    """An outcome: its place, the act that it ends, that act's kind and principal, and whether it was abandoned."""

    index: int
    act: str
    of: tuple[str, str]
    is_abandoned: bool

    def require_begun(self, begun: tuple[str, str] | None) -> None:
        """Refuse an outcome unless an intent of the same kind and principal began its act, and nothing ended it yet."""
        # Where rows come back from tiles and leases from an older backup, an act that ended is found abandoned as well.
        if begun != self.of and not (begun is None and self.is_abandoned):
            expected = "an act of this kind and principal that had begun and not ended"
            found = "none" if begun is None else f"one of kind {begun[0]} of {begun[1]}"
            raise LogDamaged("outcome, entry", self.index, expected=expected, found=found)


@dataclass(slots=True)
class CheckedTile:
    """What the rows of one tile say, after nothing in it was found to differ.

    Attributes:
        first: Index of the first row.
        count: How many rows there are.
        root: The root over them; empty if they are fewer than 256.
        leaves: Their leaf hashes where they are needed: of a last tile, and where a checkpoint ends inside.
        opened: Acts that began here and did not end here, each with its kind and principal.
        closed: Outcomes of acts that did not begin here.
        commitments: Every commitment in them.
        signed: How many act signatures verified.
    """

    first: int
    count: int
    root: bytes
    leaves: list[bytes]
    opened: dict[str, tuple[str, str]] = field(default_factory=dict)
    closed: list[Ending] = field(default_factory=list)
    commitments: list[str] = field(default_factory=list)
    signed: int = 0


def check_tile(rules: Rules, rows: TileRows, hashes: TileHashes) -> CheckedTile:
    """Check that rows, bundle and tile are the same, and that each row is an entry of this log, signed and indexed.

    Raises:
        LogDamaged: The first difference.
    """
    leaves = [leaf_hash(entry) for entry in rows.entries]
    _check_published(rows, leaves, hashes)
    if rows.stored != leaves:
        for index, (stored, leaf) in enumerate(zip(rows.stored, leaves, strict=True), start=rows.first):
            if stored != leaf:
                raise LogDamaged("entry", index, expected=f"leaf hash {stored.hex()}", found=leaf.hex())
    is_full = len(leaves) == TILE_WIDTH
    is_wanted = not is_full or rows.first // TILE_WIDTH in rules.wanted
    root = merkle_root(leaves) if is_full else b""
    checked = CheckedTile(rows.first, len(leaves), root, leaves if is_wanted else [])
    for offset, data in enumerate(rows.entries):
        _check_entry(rules, rows, offset, data, checked)
    return checked


def read_tile(place: str, read: Callable[[], Found]) -> Found:
    """Read a tile or bundle; its absence or wrong length is damage of the log."""
    try:
        return read()
    except NotFound as error:
        raise LogDamaged(place, None, expected="its bytes", found="none") from error
    except VerificationError as error:
        raise LogDamaged(place, None, expected="its full length", found=error.what) from error


def _check_published(rows: TileRows, leaves: list[bytes], hashes: TileHashes) -> None:
    number = rows.first // TILE_WIDTH
    width = tile_width(hashes.size, 0, number)
    if not width:
        return
    tile_name, bundle_name = tile_key(0, number, width), tile_key("entries", number, width)
    entries, leaves = rows.entries[:width], leaves[:width]
    tile = read_tile(f"tile {tile_name}", lambda: hashes.stored(0, number))
    bundle = read_tile(f"bundle {bundle_name}", lambda: hashes.stored("entries", number))
    if tile == (b"".join(leaves), width) and bundle == (encode_bundle(entries), width):
        return
    hashed = read_tile(f"tile {tile_name}", lambda: hashes.tile(0, number))
    bundled = read_tile(f"bundle {bundle_name}", lambda: hashes.bundle(number))
    for offset, (data, leaf) in enumerate(zip(entries, leaves, strict=True)):
        index = rows.first + offset
        if leaf == hashed[offset] and data == bundled[offset]:
            continue
        # Two of three agree: the third is the one that was changed. Where none agree, the row is named.
        kept = leaf_hash(bundled[offset])
        if kept == leaf:
            raise LogDamaged(f"tile {tile_name}, entry", index, expected=kept.hex(), found=hashed[offset].hex())
        if leaf == hashed[offset]:
            raise LogDamaged(f"bundle {bundle_name}, entry", index, expected=hashed[offset].hex(), found=kept.hex())
        raise LogDamaged("entry", index, expected=f"leaf hash {hashed[offset].hex()}", found=leaf.hex())


def _check_entry(rules: Rules, rows: TileRows, offset: int, data: bytes, checked: CheckedTile) -> None:
    index = rows.first + offset
    try:
        event = read_event(data)
    except InvalidInput as error:
        raise LogDamaged("entry", index, expected="canonical bytes", found=error.what) from error
    if event.attestation.chain_uid != rules.origin:
        raise LogDamaged("entry", index, expected=f"log {rules.origin}", found="another log's entry")
    ours, act = event.unmapped.stanch, event.metadata.correlation_uid
    of = (ours.kind or "", event.actor.user.uid)
    if offset < rows.indexed and not _indexed(rows, index, event, ours):
        raise LogDamaged("query index, entry", index, expected="what the entry says", found="another row")
    if ours.phase == "intent":
        if (credential := ours.credential) and credential.kind == OWN_KEY:
            try:
                _check_signature(rules, event, credential.key_id)
            except (NoTrustedSignature, InvalidInput) as error:
                expected = "that of its principal"
                raise LogDamaged("act signature, entry", index, expected=expected, found=error.what) from error
            checked.signed += 1
        checked.opened[act] = of
    elif ours.phase == "outcome":
        ending = Ending(index, act, of, ours.result == "abandoned")
        if act in checked.opened:
            ending.require_begun(checked.opened.pop(act))
        else:
            checked.closed.append(ending)
    if ours.commitments:
        checked.commitments.extend(ours.commitments.values())


def _indexed(rows: TileRows, index: int, event: Event, ours: Ours) -> bool:
    """Say whether the query index holds of an entry what it says."""
    position = index - rows.first
    found = rows.index[position] if position < len(rows.index) else None
    expected = (
        index, event.metadata.correlation_uid, ours.phase, ours.kind or "", event.actor.user.uid, event.time,
        event.status_id, subjects_text(event),
    )  # fmt: skip
    subjects = sorted({subject.digest for subject in ours.subject}) if ours.subject else []
    return found == expected and rows.subjects.get(index, []) == subjects


def _check_signature(rules: Rules, event: Event, key_id: str) -> None:
    found = rules.keys.get(key_id)
    if found is None or found.principal != event.actor.user.uid:
        raise NoTrustedSignature(f"the key {key_id} is not registered for {event.actor.user.uid}")
    key = VerifyKey.from_raw_ed25519(found.public)
    if key.key_id != key_id:
        raise NoTrustedSignature(f"the registered key is not {key_id}")
    # An act that began in the moment of the replacement was decided before it.
    if found.revoked_ms is not None and event.time > found.revoked_ms + _LEEWAY_MS:
        raise NoTrustedSignature(f"the key {key_id} was replaced before")
    check_act(event, key)
