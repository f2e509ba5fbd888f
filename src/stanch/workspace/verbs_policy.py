"""Verbs about the policies: show, check, approve a change, put it in force, and take it back."""

from dataclasses import dataclass

from sqlalchemy import Connection

from stanch.access import (
    ActivePolicies,
    ApprovalStatement,
    PolicyChange,
    PolicyVersion,
    PolicyVersions,
    parse_policies,
    sign_approval,
)
from stanch.access.alike import Likeness
from stanch.access.roll import read_crowd
from stanch.access.simulate import Simulation, require_a_way_back, simulate
from stanch.errors import NotPermitted
from stanch.ledger.asked import LastAsked
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.workspace.act import ApprovalNeed, Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.past_requests import past_requests
from stanch.workspace.people import NEEDED, People
from stanch.workspace.verbs_access import DAY_MS, workspace_ref

APPROVAL_DAYS = 7
APPROVING = "access:grant"
"""The Cedar action that an approver of a change must be permitted, when it is approved and when it comes into force."""


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A valid change of the policies, and how it would have decided the requests of the last week.

    Attributes:
        change: The change; its digest is what people approve.
        added: Ids of policies that come.
        removed: Ids of policies that go.
        changed: Ids of policies that say something else.
        simulation: What would have been decided otherwise.
        approvals: How many other people approve exactly this change now.
    """

    change: PolicyChange
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    simulation: Simulation
    approvals: int


def show_policies(workspace: Workspace) -> tuple[PolicyVersion, tuple[PolicyVersion, ...]]:
    """Return the version in force, and all versions; the look is recorded."""
    versions = PolicyVersions(workspace.tables)

    def run(_ref: EntryRef) -> Done[tuple[PolicyVersion, tuple[PolicyVersion, ...]]]:
        active = versions.active()
        return Done((active, versions.history()), {"version": active.version})

    return workspace.door.act(Request("policy.read", "policy:read", workspace_ref(workspace)), run)


def check_policies(
    workspace: Workspace, text: str, without: tuple[str, ...] = (), last: LastAsked | None = None
) -> CheckedChange:
    """Parse and validate a set of policies, and simulate it against the last week; the look is recorded.

    Args:
        workspace: Whose policies would change.
        text: The set.
        without: The forbids of the default set that it leaves out on purpose.
        last: What an earlier check read of the log.

    Raises:
        InvalidInput: It is not valid, lacks a forbid that was not named, or would lock everybody out.
    """
    request = Request("policy.read", "policy:read", workspace_ref(workspace))
    return workspace.door.act(request, lambda _ref: Done(_check(workspace, text, without, last)))


def approve_policies(workspace: Workspace, text: str, without: tuple[str, ...] = ()) -> CheckedChange:
    """Sign an approval of exactly this change, good for a week, and return what was approved.

    Raises:
        InvalidInput: The change is not valid.
    """
    people = workspace.people

    def run(_ref: EntryRef) -> Done[CheckedChange]:
        checked = _check(workspace, text, without)
        now_ms = int(workspace.now().timestamp() * 1000)
        statement = ApprovalStatement(
            request=checked.change.digest, approver=people.session.principal, origin=workspace.ledger.origin,
            created_ms=now_ms, expires_ms=now_ms + APPROVAL_DAYS * DAY_MS,
        )  # fmt: skip
        approval = sign_approval(people.local.key, statement)
        _, settle = people.rehearse(lambda on: on.approvals.record_approval(approval))
        return Done(checked, {"request": str(checked.change.digest), "approvals": checked.approvals}, settle=settle)

    return workspace.door.act(Request("policy.approve", "access:grant", workspace_ref(workspace)), run)


def activate_policies(workspace: Workspace, text: str, without: tuple[str, ...] = ()) -> PolicyVersion:
    """Put a set of policies in force as a new version.

    In profile ``team`` two other people must have approved exactly this change. A change that leaves out a forbid of
    the default set needs them in every profile.

    Raises:
        InvalidInput: The change is not valid, or would lock everybody out.
        ApprovalsMissing: Fewer than two other people approved it.
        Conflict: Another version came into force meanwhile.
    """
    people = workspace.people
    change, requester = _change(workspace, text, without), people.session.principal
    parse_policies(text, without=without)

    def consume(connection: Connection, act: str) -> None:
        unfit = people.unfit(change.digest, APPROVING, workspace_ref(workspace))
        people.approvals.consume(connection, change.digest, act=act, requester=requester, needed=NEEDED, involved=unfit)

    def run(_ref: EntryRef) -> Done[PolicyVersion]:
        checked = _check(workspace, text, without)
        made, settle = people.rehearse(
            lambda on: _versions(on).activate(change, by=requester, now_ms=int(on.ground.clock() * 1000))
        )
        simulated: dict[str, JsonValue] = {
            "requests": checked.simulation.requests, "newly_allowed": checked.simulation.newly_allowed,
            "newly_denied": checked.simulation.newly_denied,
        }  # fmt: skip
        payload: dict[str, JsonValue] = {"version": made.version, "policy": str(made.digest), "simulated": simulated}
        return Done(made, payload, settle=settle)

    need = ApprovalNeed(change.digest, requester, consume, APPROVING) if people.team or without else None
    payload: dict[str, JsonValue] = {
        "request": str(change.digest), "policy": str(Digest.sha256(text.encode())), "without": list(without),
        "after": change.after.version,
    }  # fmt: skip
    request = Request("policy.write", "policy:write", workspace_ref(workspace), payload, need)
    return workspace.door.act(request, run)


def rollback_policies(workspace: Workspace) -> PolicyVersion:
    """Put the version before the one in force back; decided by the shipped policies, whatever is in force.

    Raises:
        NotPermitted: Not a platform administrator with a local key.
        NotFound: The shipped policies are in force.
    """
    people = workspace.people

    def run(_ref: EntryRef) -> Done[PolicyVersion]:
        if people.session.kind != "local":
            raise NotPermitted(
                "policies: a rollback needs a local key", next_step="sign in with a key of the workspace"
            )
        made, settle = people.rehearse(
            lambda on: _versions(on).rollback(by=people.session.principal, now_ms=int(on.ground.clock() * 1000))
        )
        return Done(made, {"version": made.version, "policy": str(made.digest)}, settle=settle)

    return workspace.door.act(Request("policy.rollback", "policy:write", workspace_ref(workspace)), run)


def _versions(people: People) -> PolicyVersions:
    return PolicyVersions(people.ground.tables)


def _change(workspace: Workspace, text: str, without: tuple[str, ...]) -> PolicyChange:
    return PolicyChange(
        workspace.ledger.origin, text, tuple(sorted(without)), PolicyVersions(workspace.tables).active()
    )


def _check(workspace: Workspace, text: str, without: tuple[str, ...], last: LastAsked | None = None) -> CheckedChange:
    people, change = workspace.people, _change(workspace, text, without)
    before, after = change.after.parse(), parse_policies(text, without=without)
    now_ms = int(workspace.now().timestamp() * 1000)
    with workspace.tables.read() as connection:
        crowd = read_crowd(connection, now_ms, Likeness(before, after))
    require_a_way_back(crowd.groups, after, team=people.team)
    asked = past_requests(people, workspace.ledger.reader(), now_ms, last or LastAsked())
    unfit = people.unfit(change.digest, APPROVING, workspace_ref(workspace))
    return CheckedChange(
        change,
        added=tuple(sorted(after.policies.keys() - before.policies.keys())),
        removed=tuple(sorted(before.policies.keys() - after.policies.keys())),
        changed=_changed(before, after),
        simulation=simulate(asked, before, after, crowd, team=people.team),
        approvals=people.approvals.count_approvals(change.digest, requester=people.session.principal, involved=unfit),
    )


def _changed(before: ActivePolicies, after: ActivePolicies) -> tuple[str, ...]:
    common = before.policies.keys() & after.policies.keys()
    return tuple(sorted(name for name in common if before.policies[name].parsed != after.policies[name].parsed))
