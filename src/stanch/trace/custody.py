"""The chain of custody: one line an act, each naming the digest of the line before.

``custody.jsonl`` holds canonical JSON lines ``{n, at, actor, action, items, tool, note, previous}``; ``previous`` is
the SHA-256 of the previous line's bytes, and for the first line that of the case id. A case's
plan, whose digest the log holds, pins the head.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from stanch import __version__
from stanch.crypto import canonical_json, parse_json, write_atomic
from stanch.errors import CustodyBroken, InvalidInput
from stanch.terms import JsonValue

Action = Literal["acquired", "examined", "exported"]
_MAX_BYTES = 64 << 20


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file in custody: its name, size in bytes and SHA-256 (hex)."""

    name: str
    bytes: int
    sha256: str


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One act on the case: who did what to which items, when, with which tool."""

    n: int
    at: str
    actor: str
    action: Action
    items: list[Item]
    tool: str
    note: str
    previous: str


@dataclass(frozen=True, slots=True)
class Custody:
    """A verified chain: its lines, and its states (hex): the digest of the case id, then that of each line."""

    lines: tuple[Line, ...]
    heads: tuple[str, ...]

    @property
    def head(self) -> str:
        """What stands for the whole chain."""
        return self.heads[-1]

    @property
    def acquired(self) -> str:
        """When the suspect was taken into custody."""
        return self.lines[0].at


def utc(moment: datetime) -> str:
    """Return a moment as ``YYYY-MM-DDTHH:MM:SSZ``.

    Raises:
        InvalidInput: It names no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidInput("a time in a case must name its time zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def genesis(case_id: str) -> str:
    """Return what the first line names as its previous one."""
    return hashlib.sha256(case_id.encode()).hexdigest()


def read_custody(path: Path, case_id: str) -> Custody:
    """Read and verify a chain.

    Raises:
        CustodyBroken: A line is missing, changed, out of order or not canonical; the line's number is named.
    """
    data = path.read_bytes() if path.exists() else b""
    if len(data) > _MAX_BYTES or (data and not data.endswith(b"\n")):
        raise CustodyBroken(f"{path}: the chain is cut off or too large")
    heads, lines = [genesis(case_id)], []
    for number, raw in enumerate(data.split(b"\n")[:-1]):
        try:
            fields = parse_json(raw, what=f"{path} line {number}")
            line = msgspec.convert(fields, Line)
        except (InvalidInput, msgspec.ValidationError) as error:
            raise CustodyBroken(f"{path}: line {number} is not a custody line") from error
        follows = hmac.compare_digest(line.previous.encode(), heads[-1].encode()) and line.n == number
        if not follows or canonical_json(fields) != raw:
            raise CustodyBroken(
                f"{path}: line {number} does not follow line {number - 1}",
                why="a line was changed, removed, added or moved",
                next_step="compare with the head in the plan that the log recorded",
            )
        heads.append(hashlib.sha256(raw).hexdigest())
        lines.append(line)
    return Custody(tuple(lines), tuple(heads))


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be written down: who, what, when, and a note in plain words."""

    actor: str
    action: Action
    at: datetime
    note: str


def extend_custody(path: Path, case_id: str, act: Act, items: Sequence[Item]) -> Custody:
    """Verify the chain, add one line durably, and return the new chain."""
    custody = read_custody(path, case_id)
    fields: dict[str, JsonValue] = {
        "n": len(custody.lines),
        "at": utc(act.at),
        "actor": act.actor,
        "action": act.action,
        "items": [{"name": item.name, "bytes": item.bytes, "sha256": item.sha256} for item in items],
        "tool": f"stanch {__version__}",
        "note": act.note,
        "previous": custody.head,
    }
    before = path.read_bytes() if path.exists() else b""
    write_atomic(path, before + canonical_json(fields) + b"\n", mode=0o600)
    return read_custody(path, case_id)
