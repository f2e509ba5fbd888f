"""The policies: what is in force, what was, and what a change would do before it is made."""

import difflib
from typing import Annotated

from msgspec import Meta, Struct

from stanch.access import PolicyVersion, PolicyVersions
from stanch.console.desk import Call
from stanch.console.route import Nothing
from stanch.workspace.verbs_policy import CheckedChange, activate_policies, check_policies

PolicyText = Annotated[str, Meta(min_length=1, max_length=1 << 18)]


class VersionRow(Struct, frozen=True):
    """One version of the policies."""

    version: int
    digest: str
    state: str
    by: str
    activated_ms: int


class PoliciesView(Struct, frozen=True):
    """The version in force with its text, and all versions."""

    active: VersionRow
    text: str
    history: tuple[VersionRow, ...]
    may_write: bool


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """A set of policies, and the forbids of the default set that it leaves out on purpose, joined by commas."""

    text: PolicyText
    without: Annotated[str, Meta(max_length=1000)] = ""


class Outcome(Struct, frozen=True):
    """A past request that would have come out otherwise."""

    principal: str
    action: str
    resource: str
    situation: str
    after: bool


class Line(Struct, frozen=True):
    """A line of a comparison: ``add``, ``remove`` or ``same``."""

    how: str
    text: str


class CheckedView(Struct, frozen=True):
    """A valid change: its digest, what it changes, and how it would have decided the requests of the last week."""

    request: str
    asked: Change
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    lines: tuple[Line, ...]
    requests: int
    newly_allowed: int
    newly_denied: int
    outcomes: tuple[Outcome, ...]
    approvals: int
    needed: int
    may_write: bool


class Activated(Struct, frozen=True):
    """The version that is in force now."""

    version: int
    digest: str


def show(call: Call, _asked: Nothing) -> PoliciesView:
    """Show the policies in force and their history."""
    versions = PolicyVersions(call.workspace.tables)
    active, known = versions.active(), versions.history()
    names = call.names(one.activated_by for one in (active, *known))
    history = tuple(_version(one, names) for one in reversed(known))
    return PoliciesView(_version(active, names), active.text, history, call.may("policy:write"))


def check(call: Call, asked: Change) -> CheckedView:
    """Validate a change, compare it with what is in force, and decide the requests of the last week under it.

    Raises:
        InvalidInput: It is not valid, lacks a forbid that was not named, or would lock everybody out.
    """
    text, without = _clean(asked)
    checked = check_policies(call.workspace, text, without, call.desk.asked)
    return _view(call, checked, Change(text, asked.without))


def activate(call: Call, asked: Change) -> Activated:
    """Put a change in force; in a team two other people must have approved exactly it.

    Raises:
        InvalidInput: It is not valid.
        ApprovalsMissing: Fewer than two other people approved it.
    """
    text, without = _clean(asked)
    made = activate_policies(call.workspace, text, without)
    return Activated(made.version, str(made.digest))


def _clean(asked: Change) -> tuple[str, tuple[str, ...]]:
    """Return text and names; browsers send lines with CR LF, and files have LF."""
    names = tuple(sorted({name.strip() for name in asked.without.split(",")} - {""}))
    return asked.text.replace("\r\n", "\n"), names


def _version(one: PolicyVersion, names: dict[str, str]) -> VersionRow:
    by = names.get(one.activated_by, one.activated_by) or "shipped"
    return VersionRow(one.version, str(one.digest), one.state, by, one.activated_ms)


def _view(call: Call, checked: CheckedChange, asked: Change) -> CheckedView:
    simulation = checked.simulation
    names = call.names(one.principal for one in simulation.differences)
    before = checked.change.after.text.splitlines()
    marks = {"+": "add", "-": "remove", " ": "same"}
    lines = [
        Line(marks.get(line[0], "same"), line[1:])
        for line in difflib.unified_diff(before, asked.text.splitlines(), lineterm="", n=2)
        if not line.startswith(("---", "+++"))
    ]
    outcomes = [
        Outcome(names.get(one.principal, one.principal), one.action, one.scope, one.situation, one.after)
        for one in simulation.differences
    ]
    needed = 2 if call.workspace.people.team or asked.without else 0
    return CheckedView(
        str(checked.change.digest), asked, checked.added, checked.removed, checked.changed, tuple(lines),
        simulation.requests, simulation.newly_allowed, simulation.newly_denied, tuple(outcomes), checked.approvals,
        needed, call.may("policy:write") or call.workspace.people.team,
    )  # fmt: skip
