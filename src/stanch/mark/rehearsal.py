"""Rehearsing a release: mark copies with throw-away keys, treat them as they may be treated, and measure the scores.

Nothing is written. Rows are marked, averaged and treated when the comparison reads them, so a large model needs no
more memory than its features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stanch.crypto import RandomBytes, random_bytes
from stanch.mark.commitment import commit, mark_keys
from stanch.mark.embedding import RowBlock, Streams, mark_block
from stanch.mark.features import Variant, compare_weights
from stanch.mark.keys import CopyKey, MarkRoot, RecipientSlot
from stanch.mark.layout import LayoutEntry
from stanch.mark.plan import MarkPlan
from stanch.mark.scoring import cancel, score
from stanch.mark.suspect import Originals, Suspect
from stanch.mark.treatments import Treatment
from stanch.mark.weight import Floats, Rows, Weight
from stanch.terms import SILENT, JsonValue, Progress
from stanch.weights import Tensor, to_float32

MARGIN = 4.0
"""Standard deviations above τ that are asked for: a colluder at τ + 4 is missed with chance about 3e-5."""

_BEACON_BYTES = 32


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What one treatment leaves.

    Attributes:
        treatment: Its name.
        copies: Copies that were averaged.
        least_z: The lowest score of a copy that took part.
        release_z: Score of the ownership mark.
        needed: τ + 4.
    """

    treatment: str
    copies: int
    least_z: float
    release_z: float
    needed: float

    @property
    def passed(self) -> bool:
        """Whether every copy that took part would be named with room to spare."""
        return self.least_z >= self.needed

    def to_json(self) -> dict[str, JsonValue]:
        """Return it for machines."""
        return {
            "treatment": self.treatment,
            "copies": self.copies,
            "least_z": self.least_z,
            "release_z": self.release_z,
            "needed": self.needed,
            "passed": self.passed,
        }


def rehearse(
    original: Path,
    plan: MarkPlan,
    treatments: Sequence[Treatment],
    tau: float,
    *,
    rng: RandomBytes = random_bytes,
    progress: Progress = SILENT,
) -> tuple[Rehearsal, ...]:
    """Mark, treat and score; by the variant ``plain``, so other variants may find more.

    Args:
        original: The unmarked directory.
        plan: Its plan.
        treatments: What may be done to copies.
        tau: The threshold of the analysis that will be made.
        rng: Draws the throw-away keys.
        progress: Told about each treatment.
    """
    copies = max(treatment.copies for treatment in treatments)
    root = MarkRoot.generate(rng)
    batch = commit(plan, root, [RecipientSlot(f"rehearsal-{number}") for number in range(copies)], decoys=1)
    keys = mark_keys([(batch, rng(_BEACON_BYTES))], root)
    originals, found = Originals(original), []
    for number, treatment in enumerate(treatments):
        progress(f"mark: {treatment.name}", number, len(treatments))
        chosen = keys.copies[: treatment.copies]
        suspect = Suspect({
            entry.name: _treated(originals.tensors[entry.name], entry, chosen, treatment)
            for entry in plan.layout.entries
        })  # fmt: skip
        features = compare_weights(originals, suspect, Variant.PLAIN, alpha=plan.alpha)
        release_z = float(score(features, [keys.release_stream])[0])
        cancel(features, [keys.release_stream])
        least = float(score(features, [key.stream for key in chosen]).min())
        found.append(Rehearsal(treatment.name, treatment.copies, least, release_z, tau + MARGIN))
    progress("mark", len(treatments), len(treatments))
    return tuple(found)


def _treated(tensor: Tensor, entry: LayoutEntry, keys: Sequence[CopyKey], treatment: Treatment) -> Weight:
    streams = [Streams(key) for key in keys]

    def block(first: int, count: int) -> Floats:
        place = RowBlock(entry, first, count)
        total = np.zeros((count, entry.columns), np.float64)
        for key, drawn in zip(keys, streams, strict=True):
            rows = np.array(place.of(tensor))
            mark_block(rows, place, key.alpha, drawn)
            total += to_float32(rows, entry.dtype)
        return treatment.apply((total / len(keys)).astype(np.float32))

    def read(rows: Rows) -> Floats:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(entry.rows)
            return block(first, last - first)
        return np.concatenate([block(int(row), 1) for row in rows])

    return Weight(entry.shape, read)
