"""How a mark is shown: what it changes and costs, and how many colluders would still be found."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stanch.mark import Strength
    from stanch.release import Utility

COPIES = "note       copies of other releases that hold the same weights count too: who has r of them averages r alone"


def show_strength(strength: "Strength") -> list[str]:
    """Return lines that say what a release's mark changes, and whom it still finds."""
    return [
        f"marks      alpha {strength.alpha:.3g}; {show_distortion(strength)}",
        *(f"  {name:<8} {show_colluders(most, even)}" for name, (most, even) in strength.colluders.items()),
        COPIES,
    ]


def show_distortion(strength: "Strength") -> str:
    """Return what marking changes."""
    return f"each row of weights by {strength.distortion:.2%} of its rms"


def show_colluders(most: int, even: int) -> str:
    """Return how many averaged copies a mark withstands after one treatment."""
    return f"up to {most:,} averaged copies, each found but for 3e-5 · {even:,} at even chances"


def show_utility(utility: "Utility | None") -> str:
    """Return a line that says what a mark costs, or that nobody measured it."""
    if utility is None:
        return "loss       not measured: no records were given; --holdout FILE compares original and marked copy"
    before, after = utility.original, utility.marked
    return (
        f"loss       {before.nats:.4f} before, {after.nats:.4f} nats a token after marking ({utility.rise:+.2%}) on "
        f"{before.records:,} records, {before.tokens:,} tokens"
    )
