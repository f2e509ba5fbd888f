"""What the log says was done before: the acts of one kind, as their intents or their outcomes tell them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from stanch.ledger import EntryQuery, LedgerReader, decode_entry
from stanch.terms import EntryRef

DONE, FAILED = 1, 2


class Told(NamedTuple):
    """An entry about something: where it stands, when it was made, the name of what it is about, and its payload."""

    ref: EntryRef
    at: datetime
    about: str
    payload: dict[str, Any]


def begun(reader: LedgerReader, kind: str, before: int | None = None) -> Iterator[Told]:
    """Yield the intent of every act of one kind that did not fail; those that were killed are among them."""
    failed = {ref.act for ref in reader.query(EntryQuery(kind=kind, phase="outcome", status=FAILED))}
    for told in _told(reader, EntryQuery(kind=kind, phase="intent", before=before)):
        if told.ref.act not in failed:
            yield told


def done(reader: LedgerReader, kind: str) -> Iterator[Told]:
    """Yield the outcome of every act of one kind that was done."""
    return _told(reader, EntryQuery(kind=kind, phase="outcome", status=DONE))


def moment_of(entry: dict[str, Any]) -> datetime:
    """Return when an entry was made."""
    return datetime.fromtimestamp(entry["time"] / 1000, UTC)


def _told(reader: LedgerReader, query: EntryQuery) -> Iterator[Told]:
    for ref in reader.query(query):
        entry = decode_entry(reader.entry(ref.index))
        ours = entry["unmapped"]["stanch"]
        yield Told(ref, moment_of(entry), ours["subject"][0]["name"], ours.get("payload") or {})
