"""What the log says was done before: the acts of one kind, with what their intents recorded."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from stanch.ledger import EntryQuery, decode_entry
from stanch.workspace.opening import Workspace


def past_acts(workspace: Workspace, kind: str, before: int | None = None) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Yield the time and the payload of every act of one kind that began, before an entry, and did not fail."""
    reader = workspace.ledger.reader()
    failed = {ref.act for ref in reader.query(EntryQuery(kind=kind, phase="outcome", status=2))}
    for ref in reader.query(EntryQuery(kind=kind, phase="intent", before=before)):
        if ref.act not in failed:
            entry = decode_entry(reader.entry(ref.index))
            yield moment_of(entry), entry["unmapped"]["stanch"]["payload"]


def moment_of(entry: dict[str, Any]) -> datetime:
    """Return when an entry was written."""
    return datetime.fromtimestamp(entry["time"] / 1000, UTC)
