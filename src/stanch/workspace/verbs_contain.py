"""Verbs of containment: each is an act of its own, then joins the timeline of its incident.

Every one asks for its own permission: whoever may note a finding may not therefore revoke a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, insert, select

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
    target, do = _act_of(workspace, order)
    entry = _outcome_of(workspace, do())
    return update_incident(
        workspace, key, order.action.value, lambda one, _entry: contain(one, order.action, target, entry)
    )


def quarantine_model(workspace: Workspace, model: ArtifactRef) -> EntryRef:
    """Let nobody use or release a model from now on, under whatever name its bytes go; return the act's intent."""

    def run(ref: EntryRef) -> Done[EntryRef]:
        _, settle = workspace.people.rehearse(lambda on: on.remember_bytes(model, {"quarantined": 1}))
        return Done(ref, settle=settle)

    return workspace.door.act(Request("model.quarantine", "model:quarantine", model), run)


def lower_budget(workspace: Workspace, name: str, model: Digest, *, requests: int, tokens: int) -> EntryRef:
    """Lower what a principal may use of a model; the settings' limits hold where they are lower.

    Only :func:`restore_budget` takes it back, and that asks for another permission.

    Returns:
        The act's intent.

    Raises:
        InvalidInput: There is no such principal, or a limit is negative or above what it was lowered to before.
    """
    principal = workspace.people.find(name)
    if min(requests, tokens) < 0:
        raise InvalidInput("budget: expected limits of 0 or more")
    payload: dict[str, JsonValue] = {
        "principal": principal, "model": str(model), "requests_per_minute": requests, "tokens_per_day": tokens
    }  # fmt: skip

    def run(ref: EntryRef) -> Done[EntryRef]:
        with workspace.tables.read() as connection:
            _require_lower(connection, principal, str(model), requests, tokens)
        return _limit(ref, principal, str(model), requests, tokens)

    return workspace.door.act(Request("gateway.limit", "finding:act", workspace_ref(workspace), payload), run)


def _require_lower(connection: Connection, principal: str, model: str, requests: int, tokens: int) -> None:
    """Refuse limits above those that are in force: whoever may take away may not therefore give back."""
    table = budget_lowered.c
    present = connection.execute(
        select(table.requests_per_minute, table.tokens_per_day).where(
            table.principal == principal, table.model == model
        )
    ).one_or_none()
    if present is not None and (requests > present[0] or tokens > present[1]):
        raise InvalidInput(
            f"budget: expected at most {present[0]} requests a minute and {present[1]} tokens a day, "
            f"found {requests} and {tokens}",
            why="that is what it was lowered to, and this act only lowers",
        )


def _limit(ref: EntryRef, principal: str, model: str, requests: int, tokens: int) -> Done[EntryRef]:
    """Return an act whose outcome and row are one transaction."""
    table = budget_lowered
    old = delete(table).where(table.c.principal == principal, table.c.model == model)
    new = insert(table).values(
        principal=principal, model=model, requests_per_minute=requests, tokens_per_day=tokens
    )  # fmt: skip

    def settle(connection: Connection) -> None:
        _require_lower(connection, principal, model, requests, tokens)
        connection.execute(old)
        connection.execute(new)

    return Done(ref, settle=settle)


def restore_budget(workspace: Workspace, name: str, model: Digest) -> None:
    """Let the settings' limits alone hold again for a principal's use of a model.

    Raises:
        InvalidInput: There is no such principal, or nobody lowered this budget.
    """
    principal = workspace.people.find(name)
    payload: dict[str, JsonValue] = {"principal": principal, "model": str(model)}

    def run(_ref: EntryRef) -> Done[None]:
        with workspace.tables.rehearsal() as tables, tables.write() as connection:
            _give_back(connection, principal, str(model))
        return Done(None, settle=lambda connection: _give_back(connection, principal, str(model)))

    workspace.door.act(Request("gateway.restore", "access:grant", workspace_ref(workspace), payload), run)


def _give_back(connection: Connection, principal: str, model: str) -> None:
    table = budget_lowered
    lowered = delete(table).where(table.c.principal == principal, table.c.model == model)
    if not connection.execute(lowered).rowcount:
        raise InvalidInput(f"budget: nobody lowered that of {principal} for {model}")


def _act_of(workspace: Workspace, order: ContainOrder) -> tuple[str, Callable[[], EntryRef]]:
    """Return the act that an order asks for, with everything that it names checked, and what others are told of that.

    Whoever is told of an incident learns no name of a person and no password of a store.
    """
    if order.action is Containment.REVOKE_KEY:
        return order.target, lambda: revoke_key(workspace, order.target)
    if order.action is Containment.QUARANTINE_MODEL:
        model = ArtifactRef("model", "quarantined", Digest.parse(order.target))
        return str(model.digest), lambda: quarantine_model(workspace, model)
    if order.action is Containment.LOWER_BUDGET:
        digest, principal = Digest.parse(order.model), workspace.people.find(order.target)
        requests, tokens = order.requests_per_minute, order.tokens_per_day
        return principal, lambda: lower_budget(workspace, principal, digest, requests=requests, tokens=tokens)
    if not order.recipient:
        raise InvalidInput("withdraw_release: expected whom the copy is taken back from", next_step="--recipient KEYID")
    signer = workspace.keys.signer("publisher")
    take_back = RevokeOrder(order.recipient, "incident", signer, workspace.now())
    trusted = TrustedKeys(workspace.keys.publics("publisher"))
    remote = RemoteBundle.open(order.target)
    where = f"{_without_secrets(remote.location)}/{remote.bundle_id}"
    return where, lambda: revoke_copy(workspace, remote, take_back, trusted)[0]


def _without_secrets(uri: str) -> str:
    """Return a URI without whoever signs in there, its query and its fragment."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}:{'//' if host else ''}{host}{parts.path}"


def _outcome_of(workspace: Workspace, begun: EntryRef) -> int:
    """Return the index of the outcome of an act, which entry ``begun`` began."""
    (outcome,) = workspace.ledger.reader().query(EntryQuery(act=begun.act, phase="outcome"))
    return outcome.index
