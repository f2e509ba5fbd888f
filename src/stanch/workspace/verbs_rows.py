"""The verb that shows the rows which come out of a model."""

from collections.abc import Sequence
from pathlib import Path

from stanch.audit import AuditResult
from stanch.audit.rows_page import render_rows, texts_of
from stanch.crypto import write_private
from stanch.data import Record
from stanch.errors import NotPermitted
from stanch.terms import ArtifactRef, EntryRef
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace


def show_rows(
    workspace: Workspace, dataset: ArtifactRef, result: AuditResult, records: Sequence[Record], out: Path
) -> Path:
    """Write the page of the rows that come out, in full; to read the data set must be permitted.

    Raises:
        InvalidInput: There is a file at ``out`` already; it stays.
    """

    def run(_ref: EntryRef) -> Done[Path]:
        texts = texts_of(result.extracted, records)
        write_private(out, render_rows(result.extracted, texts).encode())
        return Done(out, {"rows": len(texts)}, undo=lambda: out.unlink(missing_ok=True))

    return workspace.door.act(Request("audit.rows", "data:read", dataset), run)


def write_rows(
    workspace: Workspace, dataset: ArtifactRef, result: AuditResult, records: Sequence[Record], out: Path
) -> bool:
    """Write the page in full if that is permitted, and masked if not; returns whether it is in full."""
    try:
        show_rows(workspace, dataset, result, records, out)
    except NotPermitted:
        write_private(out, render_rows(result.extracted, None).encode())
        return False
    return True
