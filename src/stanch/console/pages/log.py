"""The log: search, one entry with its inclusion proof, and the whole of it verified now."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from stanch.access.roll import ids_called
from stanch.console.desk import Call
from stanch.console.pages.paging import Limit
from stanch.console.route import Nothing
from stanch.crypto import leaf_hash
from stanch.errors import InvalidInput, NotFound, QuorumUnmet, StanchError
from stanch.ledger import EntryQuery, Ledger, decode_entry, verify_proof
from stanch.ledger.checkpoint import open_checkpoint
from stanch.ledger.read import LedgerReader
from stanch.terms import Digest
from stanch.workspace.kinds import KINDS
from stanch.workspace.verbs_console import look
from stanch.workspace.verbs_log import verify_log

_SHOWN_OF_ACT = 50
Word = Annotated[str, Meta(max_length=200)]


class Search(Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries are wanted; empty fields do not restrict. ``before`` is an index: the page of older entries."""

    kind: Word = ""
    phase: Annotated[str, Meta(pattern=r"^(intent|outcome|denied|note)?\Z")] = ""
    principal: Word = ""
    subject: Annotated[str, Meta(pattern=r"^((sha256|blake3):[0-9a-f]{64})?\Z")] = ""
    since: Annotated[str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?\Z")] = ""
    until: Annotated[str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?\Z")] = ""
    act: Annotated[str, Meta(max_length=64)] = ""
    before: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Limit = 50


class Row(Struct, frozen=True):
    """An entry in a list."""

    index: int
    time_ms: int
    kind: str
    phase: str
    result: str
    principal: str
    name: str
    subjects: tuple[str, ...]


class Watching(Struct, frozen=True):
    """A witness or an anchor, and when it last cosigned or kept a checkpoint; 0: never.

    Attributes:
        outside: Whether it is elsewhere than on the log's own disk.
    """

    name: str
    last_ms: int
    outside: bool = True


class Standing(Struct, frozen=True):
    """The published checkpoint: how many entries it covers, its root, and who else knows it.

    Attributes:
        quorum: Whether the witnesses that cosigned this checkpoint are as many as readers are told to demand.
        trouble: Why there is none, or none that verifies.
    """

    size: int = 0
    root: str = ""
    witnesses: tuple[Watching, ...] = ()
    anchors: tuple[Watching, ...] = ()
    quorum: bool = False
    trouble: str = ""


class Found(Struct, frozen=True):
    """Entries, newest first; the query; the index before which the next page begins, 0 at the end; the checkpoint."""

    rows: tuple[Row, ...]
    asked: Search
    next: int
    kinds: tuple[str, ...]
    size: int
    standing: Standing


class EntryView(Struct, frozen=True):
    """One entry: its row, its text, its inclusion proof under the latest checkpoint, the other entries of its act."""

    row: Row
    text: str
    leaf: str
    proof: str
    checkpoint: int
    trouble: str
    act: str
    others: tuple[Row, ...]


class Verified(Struct, frozen=True):
    """What verifying the whole log found; ``trouble`` names the first difference."""

    origin: str
    size: int
    root: str
    checkpoints: int
    witnesses: tuple[str, ...]
    signed_acts: int
    open_intents: int
    conclusion: str
    trouble: str


def search_log(call: Call, asked: Search) -> Found:
    """Show the newest entries that a query asks for.

    Raises:
        InvalidInput: A day or a principal that is none.
    """
    principal = ""
    if asked.principal:
        with call.workspace.tables.read() as connection:
            principal = next(iter(ids_called(connection, asked.principal)), asked.principal)
    query = EntryQuery(
        act=asked.act or None, kind=asked.kind or None, phase=asked.phase or None, principal=principal or None,
        subject=Digest.parse(asked.subject) if asked.subject else None, since_ms=_day(asked.since),
        until_ms=_day(asked.until, later=1), before=asked.before or None, limit=asked.limit + 1, newest_first=True,
    )  # fmt: skip
    rows = rows_of(call, query)
    after = rows[asked.limit - 1].index if len(rows) > asked.limit else 0
    ledger = call.workspace.ledger
    return Found(rows[: asked.limit], asked, after, tuple(sorted(KINDS)), ledger.reader().size(), _standing(ledger))


def _standing(ledger: Ledger) -> Standing:
    """Return how the published checkpoint stands; its signatures are verified here and now."""
    try:
        signed = open_checkpoint(ledger.reader().checkpoint().note, ledger.policy.keys)
    except NotFound:
        return Standing(trouble="no checkpoint was published yet")
    except StanchError as error:
        return Standing(trouble=error.what)
    try:
        ledger.policy.require_quorum(signed.cosignatures)
        quorum = bool(ledger.policy.witnesses)
    except QuorumUnmet:
        quorum = False
    times = {(one.name, one.key_id): 1000 * (one.time_s or 0) for one in signed.cosignatures}
    witnesses = tuple(
        Watching(one.name, times.get((one.key.name, one.key.key_id), 0)) for one in ledger.policy.witnesses
    )
    kept = ledger.anchors.last_ms(ledger.origin)
    anchors = tuple(Watching(one.uri, kept[one.uri] or 0, one.outside) for one in ledger.anchors.anchors)
    return Standing(signed.checkpoint.size, signed.checkpoint.root.hex(), witnesses, anchors, quorum)


def show_entry(call: Call, _asked: Nothing) -> EntryView:
    """Show one entry, with the proof that it is in the published log, checked here and now.

    Raises:
        NotFound: The log is not that long.
    """
    text = call.path["index"]
    if not text.isdecimal() or not text.isascii() or len(text) > 16:
        raise NotFound("there is no such entry")
    index, reader = int(text), call.workspace.ledger.reader()
    data = reader.entry(index)
    event = decode_entry(data)
    row, act = _rows(call, {index: event})[0], event["metadata"]["correlation_uid"]
    proof, checkpoint, trouble = _prove(call, reader, index, data)
    act_of = reader.query(EntryQuery(act=act, limit=_SHOWN_OF_ACT))
    others = rows_at(call, [ref.index for ref in act_of if ref.index != index])
    pretty = json.dumps(json.loads(data), indent=2, ensure_ascii=True, sort_keys=True)
    return EntryView(row, pretty, leaf_hash(data).hex(), proof, checkpoint, trouble, act, others)


def verify_now(call: Call, _asked: Nothing) -> Verified:
    """Recompute the whole log and compare it with its checkpoints, anchors and witnesses."""

    def run() -> Verified:
        try:
            report = verify_log(call.workspace)
        except StanchError as error:
            return Verified("", 0, "", 0, (), 0, 0, "", f"{error.what}{f': {error.why}' if error.why else ''}")
        return Verified(
            report.origin, report.size, report.root, report.checkpoints, report.witnesses, report.signed_acts,
            len(report.intents_open), report.conclusion, "",
        )  # fmt: skip

    return look(call.workspace, "log:read", {"page": "log.verify"}, run)


def rows_of(call: Call, query: EntryQuery) -> tuple[Row, ...]:
    """Return what lists show of the entries of a query."""
    return rows_at(call, (ref.index for ref in call.workspace.ledger.reader().query(query)))


def rows_at(call: Call, indexes: Iterable[int]) -> tuple[Row, ...]:
    """Return what lists show of the entries with these indexes."""
    found = call.workspace.ledger.reader().entries(indexes)
    return _rows(call, {index: decode_entry(data) for index, data in found.items()})


def _rows(call: Call, events: dict[int, dict[str, Any]]) -> tuple[Row, ...]:
    names = call.names(str(event["actor"]["user"]["uid"]) for event in events.values())
    return tuple(_row(names, index, event) for index, event in events.items())


def _row(names: dict[str, str], index: int, event: dict[str, Any]) -> Row:
    ours = event["unmapped"]["stanch"]
    principal = str(event["actor"]["user"]["uid"])
    subjects = tuple(f"{one['kind']}:{one['name']}" for one in ours.get("subject", ()) if one["kind"] != "workspace")
    return Row(
        index, event["time"], ours.get("kind", ""), ours["phase"], ours.get("result", ""), principal,
        names.get(principal, principal), subjects,
    )  # fmt: skip


def _prove(call: Call, reader: LedgerReader, index: int, data: bytes) -> tuple[str, int, str]:
    try:
        if index >= reader.checkpoint().checkpoint.size:
            call.workspace.ledger.publish()
        proof = reader.prove(index)
        proven = verify_proof(proof, data, call.workspace.ledger.policy)
    except StanchError as error:
        return "", 0, error.what
    return proof.decode("ascii", "replace"), proven.checkpoint_size, ""


def _day(text: str, *, later: int = 0) -> int | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(f"expected a day such as 2026-01-31, found {text}") from error
    return int(found.timestamp() * 1000) + later * 86_400_000
