"""Verbs about a training that somebody's own script does: the log holds it as a tuning, with what its trainer tells."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stanch.terms import ArtifactRef, EntryRef, JsonValue
from stanch.tune import NULL, Earlier, Recorder, TrainEvent, verify_run
from stanch.tune import statement as statements
from stanch.tune.plan import DP
from stanch.tune.refusals import PrivacySpent
from stanch.workspace.act import Done, Request
from stanch.workspace.artifacts import dataset_ref, model_ref
from stanch.workspace.opening import Workspace
from stanch.workspace.tuning_log import Spent, find_spent, tell_model

Train = Callable[[Recorder, tuple[Earlier, ...]], Path]


@dataclass(frozen=True, slots=True)
class LogRecorder:
    """Puts what a trainer tells into the log: a :class:`stanch.tune.Recorder`.

    Attributes:
        workspace: Whose log it is.
        dataset: What is trained on.
        spent: The private runs on it that the log holds: a private run that does not count them all does not begin.
    """

    workspace: Workspace
    dataset: ArtifactRef
    spent: Spent

    def record(self, event: TrainEvent) -> None:
        """Make the event durable, or raise.

        Raises:
            PrivacySpent: A private run begins that does not count the earlier ones.
        """
        if event.kind == "train.begin" and event.facts["guarantee"] == DP:
            self._check_counted(event.facts["earlier"])
        record_event(self.workspace, self.dataset, event)

    def _check_counted(self, counted: JsonValue) -> None:
        known = {run.journal for run in self.spent.earlier} - set(counted if isinstance(counted, list) else ())
        missing = len(known) + len(self.spent.untold)
        if missing:
            raise PrivacySpent(
                f"{self.dataset.name}: the log holds private runs on it that this one does not count ({missing})",
                why="their privacy loss adds up",
                next_step="give the trainer earlier=, as it was handed over; those of earlier releases count with "
                "stanch tune run --earlier alone",
            )


def record_event(workspace: Workspace, dataset: ArtifactRef, event: TrainEvent) -> None:
    """Record what a trainer tells of its run."""
    facts: dict[str, JsonValue] = {
        name: repr(value) if isinstance(value, float) else value for name, value in event.facts.items()
    }
    payload: dict[str, JsonValue] = {"event": event.kind, "run": event.run, "facts": facts}
    workspace.door.act(Request("tune.event", "model:tune", dataset, payload), _go_on)


def _go_on(_ref: EntryRef) -> Done[None]:
    return Done(None)


def record_training(
    workspace: Workspace, dataset: Path, train: Train, *, max_tokens: int, completion_only: bool
) -> Path:
    """Let ``train`` fine-tune, and record it as a tuning: which file it read, what of it, and the model that it made.

    An audit finds there whether the canaries were in that file, and committed to before. Under ``torchrun`` every
    process calls this; process 0 alone asks and records.

    Args:
        workspace: Whose log it is.
        dataset: The file that is trained on, with the canaries if there are any.
        train: Trains, and returns the model's folder. It is given the recorder for :class:`stanch.tune.StanchCallback`
            or a private trainer, and the earlier runs on this file, which a private trainer must count.
        max_tokens: What of a record goes beyond is not learned.
        completion_only: Whether answers alone are learned.

    Raises:
        VerificationError: The folder holds the statement of a private run that is not true of its files.
    """
    if os.environ.get("RANK", "0") != "0":
        return train(NULL, ())
    ref = dataset_ref(dataset)

    def run(_ref: EntryRef) -> Done[Path]:
        spent = find_spent(workspace, ref.digest)
        folder = train(LogRecorder(workspace, ref, spent), spent.earlier)
        statement = verify_run(folder).statement if (folder / statements.NAME).is_file() else None
        about = tell_model(model_ref(folder).digest, statement)
        learned: dict[str, JsonValue] = {
            "max_tokens": max_tokens,
            "completion_only": completion_only,
            "duplicates": "keep",
        }
        return Done(folder, {**about, **learned})

    return workspace.door.act(Request("tune.run", "model:tune", ref, {"trainer": "own"}), run)
