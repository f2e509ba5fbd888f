"""Verbs about the log: verify, list, prove."""

from typing import Any

from stanch.ledger import EntryQuery, FsckReport, TrustPolicy, decode_entry, fsck
from stanch.terms import EntryRef
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


def verify_log(workspace: Workspace, vkey: str | None = None) -> FsckReport:
    """Recompute the log from its entries and compare it with every signed checkpoint.

    Not an act: it needs no permission beyond reading the files, and it must also work when the log refuses to append.

    Raises:
        VerificationError: The first thing that differs, with its index.
    """
    policy = TrustPolicy.of([vkey or workspace.ledger.verifier.vkey])
    return fsck(workspace.ledger.reader(), policy)


def list_entries(workspace: Workspace, kind: str | None, limit: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the latest entries, oldest first; the look is recorded."""

    def run(_ref: EntryRef) -> Done[list[tuple[int, dict[str, Any]]]]:
        reader = workspace.ledger.reader()
        workspace.ledger.publish()
        found = [ref.index for ref in reader.query(EntryQuery(kind=kind, limit=limit, newest_first=True))]
        entries = [(index, decode_entry(reader.entry(index))) for index in sorted(found)]
        return Done(entries, {"entries": len(entries)})

    return workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), run)


def prove_entry(workspace: Workspace, index: int) -> tuple[bytes, bytes]:
    """Return an entry's bytes and its inclusion proof under the latest checkpoint."""

    def run(_ref: EntryRef) -> Done[tuple[bytes, bytes]]:
        workspace.ledger.publish()
        reader = workspace.ledger.reader()
        return Done((reader.entry(index), reader.prove(index)), {"index": index})

    return workspace.door.act(Request("log.read", "log:read", workspace_ref(workspace)), run)
