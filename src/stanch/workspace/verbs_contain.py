"""Verbs of containment: each is an act of its own, then joins the timeline of its incident.

Every one asks for its own permission: whoever may note a finding may not therefore revoke a key.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert

from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery
from stanch.release import RemoteBundle, RevokeOrder
from stanch.sign import TrustedKeys
from stanch.store.schema.gateway import budget_lowered
from stanch.terms import ArtifactRef, Digest, EntryRef, JsonValue
from stanch.watch import Containment
from stanch.watch.incident import Incident, contain, extend
from stanch.watch.incident_book import load_incident
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import revoke_key, workspace_ref
from stanch.workspace.verbs_deliver import revoke_copy
from stanch.workspace.verbs_incident import update_incident

_KINDS = {
    Containment.REVOKE_KEY: "key.revoke",
    Containment.QUARANTINE_MODEL: "model.quarantine",
    Containment.LOWER_BUDGET: "gateway.limit",
    Containment.WITHDRAW_RELEASE: "release.revoke",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainOrder:
    """What is to be done.

    Attributes:
        action: Which act.
        target: An API key's id, a model's digest, a principal, or the URI of a delivered copy.
        model: For ``lower_budget``: the model's digest.
        requests_per_minute: For ``lower_budget``; 0 ends all requests.
        tokens_per_day: For ``lower_budget``.
        recipient: For ``withdraw_release``: the key id of whom the copy is taken back from.
    """

    action: Containment
    target: str
    model: str = ""
    requests_per_minute: int = 0
    tokens_per_day: int = 0
    recipient: str = ""


def contain_incident(workspace: Workspace, key: str, order: ContainOrder) -> Incident:
    """Contain an incident: do the act, then note it in the incident with the entry that recorded it.

    The act comes first: what dies in between is contained, and is in the log.

    Raises:
        NotPermitted: The act asks for its own permission; nothing was done.
        InvalidInput: The order lacks a part, or the incident is closed.
    """
    with workspace.tables.read() as connection:
        extend(load_incident(connection, key))
    _act_of(workspace, order)()
    done = EntryQuery(kind=_KINDS[order.action], phase="outcome", principal=workspace.people.session.principal)
    entry = max(ref.index for ref in workspace.ledger.reader().query(done))
    return update_incident(
        workspace, key, order.action.value, lambda one, _entry: contain(one, order.action, order.target, entry)
    )


def quarantine_model(workspace: Workspace, model: ArtifactRef) -> None:
    """Let nobody use or release a model from now on, under whatever name its bytes go."""

    def run(_ref: EntryRef) -> Done[None]:
        _, settle = workspace.people.rehearse(lambda on: on.remember_bytes(model, {"quarantined": 1}))
        return Done(None, settle=settle)

    workspace.door.act(Request("model.quarantine", "model:quarantine", model), run)


def lower_budget(workspace: Workspace, name: str, model: Digest, *, requests: int, tokens: int) -> None:
    """Lower what a principal may use of a model; the settings' limits hold where they are lower.

    Raises:
        InvalidInput: There is no such principal, or a limit is negative.
    """
    principal = workspace.people.find(name)
    if min(requests, tokens) < 0:
        raise InvalidInput("budget: expected limits of 0 or more")
    payload: dict[str, JsonValue] = {
        "principal": principal, "model": str(model), "requests_per_minute": requests, "tokens_per_day": tokens
    }  # fmt: skip

    def run(_ref: EntryRef) -> Done[None]:
        return _limit(principal, str(model), requests, tokens)

    workspace.door.act(Request("gateway.limit", "finding:act", workspace_ref(workspace), payload), run)


def _limit(principal: str, model: str, requests: int, tokens: int) -> Done[None]:
    """Return an act whose outcome and row are one transaction."""
    table = budget_lowered
    old = delete(table).where(table.c.principal == principal, table.c.model == model)
    new = insert(table).values(
        principal=principal, model=model, requests_per_minute=requests, tokens_per_day=tokens
    )  # fmt: skip

    def settle(connection: Connection) -> None:
        connection.execute(old)
        connection.execute(new)

    return Done(None, settle=settle)


def _act_of(workspace: Workspace, order: ContainOrder) -> Callable[[], object]:
    """Return the act that an order asks for, with everything that it names checked."""
    if order.action is Containment.REVOKE_KEY:
        return lambda: revoke_key(workspace, order.target)
    if order.action is Containment.QUARANTINE_MODEL:
        model = ArtifactRef("model", "quarantined", Digest.parse(order.target))
        return lambda: quarantine_model(workspace, model)
    if order.action is Containment.LOWER_BUDGET:
        digest = Digest.parse(order.model)
        requests, tokens = order.requests_per_minute, order.tokens_per_day
        return lambda: lower_budget(workspace, order.target, digest, requests=requests, tokens=tokens)
    if not order.recipient:
        raise InvalidInput("withdraw_release: expected whom the copy is taken back from", next_step="--recipient KEYID")
    signer = workspace.keys.signer("publisher")
    take_back = RevokeOrder(order.recipient, "incident", signer, workspace.now())
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    remote = RemoteBundle.open(order.target)
    return lambda: revoke_copy(workspace, remote, take_back, trusted)
