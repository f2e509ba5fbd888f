"""Live figures: a stream of events whose ids are indexes of the log, so that a browser that comes back misses none."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stanch.access.revision import Revision
from stanch.console.desk import Call
from stanch.console.pages.alerts import count_waiting
from stanch.errors import InvalidInput, NotPermitted, StanchError
from stanch.ledger import EntryQuery
from stanch.workspace.verbs_console import look

POLL_SECONDS = 1.0
COMMENT_SECONDS = 15.0
RECHECK_SECONDS = 60.0
MOST_STREAMS = 5
_MOST_BEHIND = 200
_WATCHED = ("watch.alert.raise", "watch.alert.state", "watch.incident.")
_OPEN: Counter[str] = Counter()


async def stream(call: Call, request: Request) -> Response:
    """Answer with the stream of a session; ``Last-Event-ID`` says which entry the browser saw last.

    Raises:
        NotPermitted: The log may not be read, or the session has five streams already.
        InvalidInput: The id is no index.
    """
    await asyncio.to_thread(look, call.workspace, "log:read", {"page": "live"}, lambda: None)
    last = request.headers.get("last-event-id", "")
    if last and not (last.isascii() and last.isdecimal() and len(last) <= 16):
        raise InvalidInput("Last-Event-ID: expected the index of an entry")
    size = await asyncio.to_thread(call.workspace.ledger.reader().size)
    seen = min(int(last), size - 1) if last else size - 1
    if _OPEN[call.session.key_id] >= MOST_STREAMS:
        raise NotPermitted(f"this session has {MOST_STREAMS} streams already", next_step="close a page")
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(call, seen), media_type="text/event-stream", headers=headers)


async def _events(call: Call, seen: int) -> AsyncIterator[bytes]:
    _OPEN[call.session.key_id] += 1
    checked = spoke = time.monotonic()
    known: Revision | None = None
    try:
        yield b": welcome\n\n"
        while True:
            now, revision = time.monotonic(), await asyncio.to_thread(call.desk.authority.revision)
            # At once where a right, a key or a person changed: somebody may have been suspended.
            if now - checked >= RECHECK_SECONDS or revision != known:
                checked, known = now, revision
                if not await asyncio.to_thread(_still_may, call):
                    return
            events = await asyncio.to_thread(_news, call, seen)
            for index, event in events:
                seen = index
                yield event
            if events:
                spoke = now
            elif now - spoke >= COMMENT_SECONDS:
                spoke = now
                yield b": still here\n\n"
            await asyncio.sleep(POLL_SECONDS)
    except StanchError:
        return  # the browser comes back, and is told then
    finally:
        _OPEN[call.session.key_id] -= 1
        if not _OPEN[call.session.key_id]:
            del _OPEN[call.session.key_id]


def _still_may(call: Call) -> bool:
    """Say whether the session is still good and the log may still be read; a stream keeps no session awake."""
    try:
        return call.may("log:read")
    except NotPermitted:
        return False


def _news(call: Call, seen: int) -> list[tuple[int, bytes]]:
    """Return the events of the entries after one, at most the newest 200: older figures would be gone at once."""
    reader = call.workspace.ledger.reader()
    size = reader.size()
    if size <= seen + 1:
        return []
    rows: list[tuple[int, bytes]] = []
    query = EntryQuery(newest_first=True, limit=min(_MOST_BEHIND, size - seen - 1))
    found = list(reader.query(query))  # brings the index up to date, from which the states are read
    states: dict[int, Any] = _states(call, seen)
    for ref in found:
        if ref.index > seen:
            data = msgspec.json.encode({"index": ref.index, "size": size, **states.get(ref.index, {})})
            rows.append((ref.index, b"id: %d\nevent: entry\ndata: %s\n\n" % (ref.index, data)))
    changed = any(str(state["kind"]).startswith(_WATCHED) for state in states.values())
    if changed and call.may("finding:read"):
        # It bears no index: a browser that comes back asks from the last entry that it saw, and is told again.
        told = msgspec.json.encode({"open": sum(count_waiting(call).values())})
        rows.append((seen, b"event: alerts\ndata: %s\n\n" % told))
    return rows[::-1]


def _states(call: Call, seen: int) -> dict[int, Any]:
    with call.workspace.tables.read() as connection:
        found = connection.exec_driver_sql(
            "SELECT idx, kind, phase, time_ms FROM ledger_index WHERE origin = ? AND idx > ? ORDER BY idx DESC LIMIT ?",
            (call.workspace.ledger.origin, seen, _MOST_BEHIND),
        ).all()
    return {index: {"kind": kind, "phase": phase, "time_ms": time_ms} for index, kind, phase, time_ms in found}
