"""The verb that hands on the log as it grows: one act for as long as somebody reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import orjson

from stanch.errors import InvalidInput
from stanch.ledger import LedgerReader
from stanch.ledger.export import export_event
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import explain_access, workspace_ref

_ROUND = 1024
"""So many entries at most are handed on before it is asked again whether they may be."""


class Outlet(Protocol):
    """Who reads the lines."""

    def put(self, index: int, line: bytes) -> bool:
        """Hand on the line of an entry; False: no more are wanted."""

    def rest(self, seconds: float) -> bool:
        """Wait for what comes next; False: nothing more is wanted."""

    def end(self) -> int:
        """Return the index of the first line that was not taken."""


@dataclass(frozen=True, slots=True)
class Following:
    """What is handed on.

    Attributes:
        start: Index of the first entry.
        proofs: Whether each line holds the proof of its entry.
        renew: Logs in again: a login lasts for hours, and whoever reads may read for months.
    """

    start: int
    proofs: bool
    renew: Callable[[], Workspace]


def follow_log(workspace: Workspace, order: Following, outlet: Outlet) -> int:
    """Hand on every published entry from ``start`` on as a line, and each that comes, until no more are wanted.

    A line is a JSON object: ``index``, ``event`` as :func:`stanch.ledger.export.export_event` gives it, and ``proof``,
    the text of a C2SP tlog-proof. Whether whoever follows may still read is asked before each round.

    Returns:
        Index of the first entry that was not taken.

    Raises:
        InvalidInput: The log is not that long.
        NotPermitted: Whoever follows may not, or no longer.
    """

    def run(_ref: EntryRef) -> Done[int]:
        size = workspace.ledger.publish().checkpoint.size
        if order.start > size:
            raise InvalidInput(f"log {workspace.ledger.origin}: expected a start of at most {size}")
        _follow(workspace, order, outlet)
        end = outlet.end()
        return Done(end, {"entries": end - order.start, "start": order.start, "format": "jsonl"})

    payload: dict[str, JsonValue] = {"start": order.start, "format": "jsonl"}
    return workspace.door.act(Request("log.export", "log:read", workspace_ref(workspace), payload), run)


def _follow(workspace: Workspace, order: Following, outlet: Outlet) -> None:
    reader, acting = workspace.ledger.reader(), workspace
    at, since, pause = order.start, workspace.door.clock(), float(workspace.config.ledger.checkpoint_seconds)
    while True:
        if workspace.door.clock() - since >= workspace.people.ground.session_minutes * 30:  # half a login's life
            acting, since = order.renew(), workspace.door.clock()
        explain_access(acting, "log:read", workspace_ref(acting)).decision.require()
        size = reader.checkpoint().checkpoint.size if reader.size() > at else at
        for line in _lines(reader, range(at, min(size, at + _ROUND)), size, proofs=order.proofs):
            if not outlet.put(at, line):
                return
            at += 1
        if not outlet.rest(pause if at >= size else 0.0):
            return


def _lines(reader: LedgerReader, indexes: range, size: int, *, proofs: bool) -> Iterator[bytes]:
    """Yield the line of each entry, with its proof under the checkpoint of ``size`` entries if that is wanted."""
    if not indexes:
        return
    found = reader.proofs(indexes, size) if proofs else iter(())
    for index, data in reader.tail(indexes.start, len(indexes)):
        row = {"index": index, "event": export_event(data)}
        proof = next(found, None)
        row |= {"proof": proof.decode()} if proof is not None else {}
        yield orjson.dumps(row, option=orjson.OPT_SORT_KEYS) + b"\n"
