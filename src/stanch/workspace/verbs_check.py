"""The verb of what the watch does again and again: each check is an act, and its outcome says what was found."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stanch.errors import StanchError
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


class CheckState(StrEnum):
    """How a check ended; ``stopped``: with the watch, so that it is due again."""

    GOOD = "good"
    BAD = "bad"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Found:
    """How a check ended, and what it found, in a few words of ours."""

    state: CheckState
    what: str = ""


def record_check(workspace: Workspace, name: str, check: Callable[[], Found]) -> Found:
    """Do a check; one that raises :class:`stanch.errors.StanchError` has found what that says."""

    def run(_ref: EntryRef) -> Done[Found]:
        return _checked(name, check)

    payload: dict[str, JsonValue] = {"check": name}
    return workspace.door.act(Request("watch.check", "serve:run", workspace_ref(workspace), payload), run)


def _checked(name: str, check: Callable[[], Found]) -> Done[Found]:
    try:
        found = check()
    except StanchError as error:
        found = Found(CheckState.BAD, error.what)
    return Done(found, {"check": name, "state": found.state.value, "found": found.what[:200]})
