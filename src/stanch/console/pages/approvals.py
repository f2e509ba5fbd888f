"""What waits for people: copies that need approvals, and emergency rights that somebody must review."""

from msgspec import Struct

from stanch.console.desk import Call
from stanch.console.pages.releases import CopyState, Look, load_releases
from stanch.console.route import Nothing


class Review(Struct, frozen=True):
    """A use of emergency rights that nobody reviewed yet."""

    id: str
    principal: str
    name: str
    until_ms: int
    due_ms: int
    overdue: bool


class Waiting(Struct, frozen=True):
    """Copies that wait for whoever asks, copies that wait for others, and reviews (for those who read the log)."""

    mine: tuple[CopyState, ...]
    others: tuple[CopyState, ...]
    reviews: tuple[Review, ...]


def show_waiting(call: Call, _asked: Nothing) -> Waiting:
    """Show every copy that has too few approvals, and every review that is due."""
    look = Look(call)
    copies = [copy for state in load_releases(call) for copy in look.copies(state) if copy.counted < copy.needed]
    glasses = call.workspace.people.glasses.unreviewed() if call.may("log:read") else ()
    names = call.names(one.principal for one in glasses)
    reviews = tuple(
        Review(
            one.id, one.principal, names.get(one.principal, one.principal), one.until_ms, one.review_due_ms,
            one.overdue(call.now_ms),
        )
        for one in glasses
    )  # fmt: skip
    mine, others = (tuple(copy for copy in copies if copy.mine is way) for way in (True, False))
    return Waiting(mine, others, reviews)
