"""What the log says of cases: which plans spent the error budget, which keys were opened, how far each case came."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from stanch.errors import VerificationError
from stanch.ledger import EntryQuery, LedgerReader, decode_entry
from stanch.terms import Digest, EntryRef

DONE, FAILED = 1, 2


class CaseState(StrEnum):
    """How far a case came; it only ever goes forward."""

    ACQUIRED = "acquired"
    PLANNED = "planned"
    EXAMINED = "examined"
    PACKED = "packed"


_STEPS = (
    (CaseState.ACQUIRED, "trace.open", "intent"),
    (CaseState.PLANNED, "trace.plan", "intent"),
    (CaseState.EXAMINED, "trace.examine", "outcome"),
    (CaseState.PACKED, "trace.pack", "outcome"),
)
"""The acts that bring a case forward: with their intent, since a plan is spent then, or when they are done."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a case stands: its state, the verdict once it was examined, and the entries that say so."""

    state: CaseState = CaseState.ACQUIRED
    verdict: str = ""
    entries: tuple[int, ...] = ()

    def require(self, case: str, verdict: str) -> None:
        """Check that the files of a case say what the log recorded.

        Raises:
            VerificationError: They do not.
        """
        if verdict != self.verdict:
            raise VerificationError(
                f"case {case}: its files say {verdict}, the log recorded {self.verdict}",
                why="the examination or the keys' history was changed since",
                next_step="restore the folder of the case from a backup, or open another case about the suspect",
            )


class Told(NamedTuple):
    """An entry about a case: where it stands, when it was made, the case's name, and its payload."""

    ref: EntryRef
    at: datetime
    case: str
    payload: dict[str, Any]


def begun(reader: LedgerReader, kind: str, before: int | None = None) -> Iterator[Told]:
    """Yield the intent of every act of one kind that did not fail; those that were killed are among them."""
    failed = {ref.act for ref in reader.query(EntryQuery(kind=kind, phase="outcome", status=FAILED))}
    for told in _told(reader, EntryQuery(kind=kind, phase="intent", before=before)):
        if told.ref.act not in failed:
            yield told


def _told(reader: LedgerReader, query: EntryQuery) -> Iterator[Told]:
    for ref in reader.query(query):
        entry = decode_entry(reader.entry(ref.index))
        ours = entry["unmapped"]["stanch"]
        yield Told(ref, moment_of(entry), ours["subject"][0]["name"], ours.get("payload") or {})


def moment_of(entry: dict[str, Any]) -> datetime:
    """Return when an entry was made."""
    return datetime.fromtimestamp(entry["time"] / 1000, UTC)


def spent(reader: LedgerReader, before: int | None = None) -> tuple[str, ...]:
    """Return the error probability of every plan in the log, or of those before an entry."""
    return tuple(str(told.payload["epsilon"]) for told in begun(reader, "trace.plan", before))


def find_plan(reader: LedgerReader, case: str, digest: Digest, before: int | None = None) -> EntryRef | None:
    """Return where the plan of a case with this digest was logged: it is spent, and may be examined."""
    plans = begun(reader, "trace.plan", before)
    return next((told.ref for told in plans if (told.case, told.payload["plan"]) == (case, digest.hex)), None)


def disclosed(reader: LedgerReader, root: str, decoys: Sequence[int] = ()) -> dict[int, datetime]:
    """Return when a pack was first to open each leaf of a batch; one of format 1 opened all decoys, and says none."""
    found: dict[int, datetime] = {}
    for told in begun(reader, "trace.pack"):
        if told.payload.get("batch_root") == root:
            for leaf in (*told.payload["opened"], *told.payload.get("decoys", decoys)):
                found.setdefault(leaf, told.at)
    return found


def standing_of(reader: LedgerReader, case: str) -> Standing:
    """Return how one case stands."""
    return standings(reader).get(case, Standing())


def standings(reader: LedgerReader) -> dict[str, Standing]:
    """Return how every case stands, by its name; of cases that had one name after each other, the last."""
    steps = [
        (told.ref.index, state, told)
        for state, kind, phase in _STEPS
        for told in (
            begun(reader, kind) if phase == "intent"
            else _told(reader, EntryQuery(kind=kind, phase="outcome", status=DONE))
        )
    ]  # fmt: skip
    found: dict[str, Standing] = {}
    for index, state, told in sorted(steps, key=lambda step: step[0]):
        old = Standing() if state is CaseState.ACQUIRED else found.get(told.case, Standing())
        verdict = str(told.payload.get("verdict", old.verdict))
        found[told.case] = Standing(state, verdict, (*old.entries, index))
    return found
