"""What the log says of each model: how it was judged, and what it was made from. Read once and kept."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stanch.ledger.entry import read_event
from stanch.ledger.index import update_index
from stanch.ledger.ocsf import Event
from stanch.store import Tables

_KINDS = ("audit.run", "model.derive", "tune.run")


class Judged(NamedTuple):
    """The verdict of an audit, and when."""

    verdict: str
    time_ms: int


class Origin(NamedTuple):
    """One thing that a model was made from: what it is, how it was used, and the entry that says so."""

    kind: str
    name: str
    digest: str
    how: str
    entry: int


@dataclass(slots=True)
class Records:
    """What the log says, by the digest of the model.

    Attributes:
        judged: The newest audit of each.
        origins: What each was made from.
        made: The models that were made from each.
        names: What a model was called that was made from another one.
    """

    judged: dict[str, Judged] = field(default_factory=dict)
    origins: dict[str, list[Origin]] = field(default_factory=lambda: defaultdict(list))
    made: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    names: dict[str, str] = field(default_factory=dict)


class ModelRecords:
    """The records of every model; entries never change, so each is read once."""

    def __init__(self) -> None:
        self._found = Records()
        self._next = 0
        self._lock = threading.Lock()

    def upto_now(self, tables: Tables, origin: str) -> Records:
        """Return what the log says, after the entries since the last call; whoever gets it changes nothing of it."""
        update_index(tables, origin)
        with self._lock:
            rows: list[Any] = []
            with tables.read() as connection:
                last = connection.exec_driver_sql("SELECT max(idx) FROM ledger_index WHERE origin = ?", (origin,))
                end = int(last.scalar() or 0) + 1
                for kind in _KINDS:
                    rows += connection.exec_driver_sql(
                        "SELECT i.idx, e.data FROM ledger_index AS i JOIN ledger_entry AS e USING (origin, idx)"
                        " WHERE origin = ? AND i.kind = ? AND i.idx >= ? AND i.idx < ? AND i.phase = 'outcome'"
                        " AND i.status = 1",
                        (origin, kind, self._next, end),
                    ).all()
            for index, data in sorted(rows, key=lambda row: int(row[0])):
                self._take(int(index), read_event(data))
            self._next = end
            return self._found

    def _take(self, index: int, event: Event) -> None:
        ours = event.unmapped.stanch
        told = ours.payload or {}
        if not ours.subject:
            return
        subject = ours.subject[0]
        if ours.kind == "audit.run" and "verdict" in told:
            self._found.judged[subject.digest] = Judged(str(told["verdict"]), event.time)
        elif ours.kind == "tune.run" and "model" in told:
            self._made(str(told["model"]), Origin("data set", subject.name, subject.digest, "tuned on", index))
        elif ours.kind == "model.derive":
            source = Origin("model", str(told["name"]), str(told["source"]), str(told["how"]), index)
            self._found.names[subject.digest] = subject.name
            self._made(subject.digest, source)

    def _made(self, model: str, origin: Origin) -> None:
        self._found.origins[model].append(origin)
        if origin.kind == "model":
            self._found.made[origin.digest].append(model)
