"""Whether a model was made from a marked copy: then every copy of it carries that recipient's mark as well.

The bound on naming an innocent holds for a release whose original descends from no copy of an earlier one. If it does,
tracing by the earlier release names the recipient of that copy, whoever leaked.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stanch.errors import InvalidInput, PolicyViolation
from stanch.mark import Detection, Originals, ScorePlan, Variant, detect
from stanch.mark.bounds import decided
from stanch.weights import is_adapter
from stanch.workspace.release_state import ReleaseState

_VARIANT = {"full": Variant.PROJECTED, "adapter": Variant.ADAPTER}


def refuse_marked(releases: Sequence[ReleaseState], models: Sequence[Path]) -> list[str]:
    """Score models under every key of earlier releases, in the one variant that tells most; refuse them at τ.

    A model that carries no such mark is refused with a chance of at most 1e-9. Returns the releases whose originals are
    not there as they were, or need a base that was not named: by these nobody can be traced either.

    Raises:
        PolicyViolation: A model carries the mark of a copy.
    """
    unscored = []
    for state in releases:
        for model in models:
            try:
                found = _score(state, model, looks=len(releases) * len(models))
            except InvalidInput:
                unscored.append(state.facts.name)
                break
            if found is not None:
                _refuse(found, state, model)
    return unscored


def _score(state: ReleaseState, model: Path, *, looks: int) -> Detection | None:
    """Return the scores of one model under one release's keys; None where it cannot carry their marks."""
    plan = state.mark_plan()
    if model in {state.model, state.base} or (is_adapter(model) and plan.kind == "full"):
        return None
    leaves = len(state.commitment(plan).leaves)
    scores = ScorePlan((_VARIANT[plan.kind],), leaves, rounds=1, releases=looks)
    return detect(Originals(state.model, state.base), model, replace(state.mark_keys(plan), decoys=()), scores)


def _refuse(found: Detection, state: ReleaseState, model: Path) -> None:
    if not found.accused and decided(found.release_z) < found.threshold:
        return
    whose = ", ".join(score.recipient for score in found.accused) or "more than one recipient"
    raise PolicyViolation(
        f"{model.name}: was made from a marked copy of release {state.facts.name}, that of {whose}",
        why="every copy of it would carry that mark, and tracing would name that recipient whoever leaked",
        next_step=f"tune it anew from the unmarked original of {state.facts.name}",
    )
