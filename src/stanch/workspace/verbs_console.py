"""Verbs of the console: serve it, let its first administrator in, look at a page, sign in."""

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from stanch.access import Session
from stanch.access.bootstrap import Bootstrap, BootstrapToken
from stanch.crypto import hmac_sha256
from stanch.errors import NotPermitted
from stanch.ledger import Act, Credential, denied, new_act_id, noted
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref

T = TypeVar("T")
_REFUSED = {
    "access:grant": "access.grant",
    "case:read": "trace.read",
    "finding:act": "watch.alert.state",
    "finding:read": "watch.alert.read",
    "log:read": "log.read",
    "policy:read": "policy.read",
    "policy:write": "policy.write",
    "release:approve": "release.approve",
}
"""As which kind of act a refusal is recorded that comes before any verb."""


def serve_console(workspace: Workspace, serve: Callable[[], None]) -> None:
    """Serve until told to end."""

    def run(_ref: EntryRef) -> Done[None]:
        return _finish(serve)

    workspace.door.act(Request("console.serve", "serve:run", workspace_ref(workspace)), run)


def _finish(serve: Callable[[], None]) -> Done[None]:
    serve()
    return Done(None)


def make_token(workspace: Workspace) -> BootstrapToken:
    """Make a one-time link into the console for whoever acts, good for a quarter of an hour.

    Raises:
        NotPermitted: Not a platform administrator, or one of them can sign in at an issuer.
    """

    def run(_ref: EntryRef) -> Done[BootstrapToken]:
        require_no_administrator(workspace)
        return Done(bootstrap_of(workspace).issue(workspace.people.session))

    return workspace.door.act(Request("console.token", "access:grant", workspace_ref(workspace)), run)


def bootstrap_of(workspace: Workspace) -> Bootstrap:
    """Return the one-time links of a workspace."""
    return Bootstrap(workspace.tables, console_secret(workspace, "bootstrap"), clock=workspace.people.ground.clock)


def console_secret(workspace: Workspace, use: str) -> bytes:
    """Return a secret of the console for one use."""
    return hmac_sha256(workspace.keys.secret("pepper", 1), f"stanch/console/v1/{use}".encode())


def require_no_administrator(workspace: Workspace) -> None:
    """Refuse one-time links once a platform administrator can sign in at an issuer.

    Raises:
        NotPermitted: One can.
    """
    issuers = {section.issuer for section in workspace.config.access.issuers if section.client_id}
    directory = workspace.people.directory
    for principal in directory.principals():
        able = principal.issuer in issuers and not principal.suspended
        if able and "platform_admin" in directory.facts_of(principal.id).roles:
            raise NotPermitted(
                "one-time links are switched off",
                why="a platform administrator can sign in at an issuer",
                next_step="sign in there",
            )


def look(workspace: Workspace, action: str, what: Mapping[str, JsonValue], read: Callable[[], T]) -> T:
    """Read what a page shows if ``action`` is permitted in the workspace; the look is recorded.

    Args:
        workspace: The workspace.
        action: ``case:read``, ``finding:read``, ``log:read``, ``policy:read`` or ``release:approve``.
        what: What the record says of it: the page, never what was typed.
        read: Reads it.

    Raises:
        NotPermitted: Refused; the refusal is in the log.
    """
    ref = workspace_ref(workspace)
    asked = {
        "case:read": Request("trace.read", "case:read", ref, what),
        "finding:read": Request("watch.alert.read", "finding:read", ref, what),
        "log:read": Request("log.read", "log:read", ref, what),
        "policy:read": Request("policy.read", "policy:read", ref, what),
        "release:approve": Request("release.read", "release:approve", ref, what),
    }
    return workspace.door.act(asked[action], lambda _ref: _read(read))


def _read(read: Callable[[], T]) -> Done[T]:
    return Done(read())


def refuse(workspace: Workspace, action: str, what: Mapping[str, JsonValue]) -> NoReturn:
    """Record that whoever acts holds no role for ``action``, and refuse.

    Raises:
        NotPermitted: Always.
    """
    now_ms = int(workspace.door.clock() * 1000)
    act = _act(workspace, workspace.people.session, _REFUSED[action])
    workspace.ledger.append(denied(act, time_ms=now_ms, payload=what))
    raise NotPermitted(f"you may not {action} here", why="no role that you hold permits it")


def note_sign_in(workspace: Workspace, session: Session, *, ended: bool = False) -> None:
    """Record that a browser session was opened, or ended.

    Raises:
        LedgerUnavailable: It could not be recorded; the session must not be used.
    """
    now_ms = int(workspace.door.clock() * 1000)
    act = _act(workspace, session, "access.logout" if ended else "access.login")
    workspace.ledger.append(noted(act, time_ms=now_ms))


def _act(workspace: Workspace, session: Session, kind: str) -> Act:
    return Act(
        kind=kind, id=new_act_id(int(workspace.door.clock() * 1000)), principal=session.principal,
        profile="team" if workspace.door.profile == "team" else "solo",
        credential=Credential(kind=session.kind, key_id=session.key_id),
    )  # fmt: skip
