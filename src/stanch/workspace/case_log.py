"""What the log says of cases: which plans spent the error budget, which keys were opened, how far each case came."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stanch.errors import VerificationError
from stanch.ledger import LedgerReader
from stanch.terms import Digest, EntryRef
from stanch.workspace.past_acts import begun, done


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


def spent(reader: LedgerReader, before: int | None = None) -> tuple[str, ...]:
    """Return the error probability of every plan in the log, or of those before an entry."""
    return tuple(str(told.payload["epsilon"]) for told in begun(reader, "trace.plan", before))


def find_plan(reader: LedgerReader, case: str, digest: Digest, before: int | None = None) -> EntryRef | None:
    """Return where the plan of a case with this digest was logged: it is spent, and may be examined."""
    plans = begun(reader, "trace.plan", before)
    return next((told.ref for told in plans if (told.about, told.payload["plan"]) == (case, digest.hex)), None)


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
        for told in (begun if phase == "intent" else done)(reader, kind)
    ]
    found: dict[str, Standing] = {}
    for index, state, told in sorted(steps, key=lambda step: step[0]):
        old = Standing() if state is CaseState.ACQUIRED else found.get(told.about, Standing())
        verdict = str(told.payload.get("verdict", old.verdict))
        found[told.about] = Standing(state, verdict, (*old.entries, index))
    return found
