"""The verbs of serving: a run of the gateway or of the watch is an act, and each request in it another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from stanch.ledger import Opening
from stanch.terms import EntryRef, JsonValue
from stanch.watch.alert import check_reason
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref

REASON = "gateway.reset.reason"


def serve_models(workspace: Workspace, models: Sequence[JsonValue], serve: Callable[[], None]) -> None:
    """Serve until told to end; ``models`` says in the log which ones, by digest, and their guards."""

    def run(_ref: EntryRef) -> Done[None]:
        return _finish(serve)

    workspace.door.act(Request("gateway.serve", "serve:run", workspace_ref(workspace), {"models": [*models]}), run)


def serve_watch(workspace: Workspace, detectors: Sequence[str], serve: Callable[[], None]) -> None:
    """Watch until told to end; ``detectors`` says in the log which ones looked."""

    def run(_ref: EntryRef) -> Done[None]:
        return _finish(serve)

    payload: dict[str, JsonValue] = {"detectors": [*detectors]}
    workspace.door.act(Request("watch.serve", "serve:run", workspace_ref(workspace), payload), run)


@dataclass(frozen=True, slots=True)
class BudgetReset:
    """Which budget of whom is set to nothing used, and why.

    Attributes:
        principal: Pseudonymous id.
        models: Digests of the models.
        budget: The budget's name.
        reason: Why; the log holds a commitment to it.
    """

    principal: str
    models: tuple[str, ...]
    budget: str
    reason: str


def reset_budget(workspace: Workspace, order: BudgetReset, reset: Callable[[Connection, BudgetReset], None]) -> None:
    """Do ``reset`` in the transaction of its outcome, so that whoever counts the log's entries finds the same.

    Raises:
        InvalidInput: There is no reason, or it is too long.
    """
    about: dict[str, JsonValue] = {
        "principal": order.principal, "models": [*order.models], "budget": order.budget
    }  # fmt: skip
    openings = (Opening.make(REASON, check_reason(order.reason)),)

    def run(_ref: EntryRef) -> Done[None]:
        return _resetting(order, about, reset)

    request = Request("gateway.reset", "access:grant", workspace_ref(workspace), about, None, openings)
    workspace.door.act(request, run)


def _resetting(
    order: BudgetReset, about: dict[str, JsonValue], reset: Callable[[Connection, BudgetReset], None]
) -> Done[None]:
    return Done(None, about, settle=lambda connection: reset(connection, order), about=order.principal)


def _finish(serve: Callable[[], None]) -> Done[None]:
    serve()
    return Done(None)
