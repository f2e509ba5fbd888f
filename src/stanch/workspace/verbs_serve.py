"""The verbs of serving: a run of the gateway or of the watch is one act, and what is done in it another each."""

from collections.abc import Callable, Sequence

from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


def serve_models(workspace: Workspace, models: Sequence[JsonValue], serve: Callable[[], None]) -> None:
    """Serve until told to end; ``models`` says in the log which ones, by digest."""

    def run(_ref: EntryRef) -> Done[None]:
        return _finish(serve)

    workspace.door.act(Request("gateway.serve", "serve:run", workspace_ref(workspace), {"models": [*models]}), run)


def serve_watch(workspace: Workspace, detectors: Sequence[str], serve: Callable[[], None]) -> None:
    """Watch until told to end; ``detectors`` says in the log which ones looked."""

    def run(_ref: EntryRef) -> Done[None]:
        return _finish(serve)

    payload: dict[str, JsonValue] = {"detectors": [*detectors]}
    workspace.door.act(Request("watch.serve", "serve:run", workspace_ref(workspace), payload), run)


def _finish(serve: Callable[[], None]) -> Done[None]:
    serve()
    return Done(None)
