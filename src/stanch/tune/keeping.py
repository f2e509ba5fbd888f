"""How what a run leaves on its way is kept."""

from collections.abc import Callable
from dataclasses import dataclass

from stanch.tune.checkpoint_sealed import CheckpointSeal
from stanch.tune.journal import JournalHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Who keeps the journal's heads, and for whom checkpoints are sealed.

    Attributes:
        on_head: Told the journal's head at start, at each checkpoint and at the end, to keep it elsewhere.
        anchor: A head that was kept elsewhere; resuming a journal without it is refused.
        seal: For whom and by whom checkpoints are sealed; None writes plaintext.
    """

    on_head: Callable[[JournalHead], None] | None = None
    anchor: JournalHead | None = None
    seal: CheckpointSeal | None = None
