"""The verb of serving: a run of the gateway is one act, and each request in it another, which the gateway asks for."""

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


def _finish(serve: Callable[[], None]) -> Done[None]:
    serve()
    return Done(None)
