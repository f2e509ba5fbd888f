"""What somebody was permitted when an entry was written, as the entries before it say it: roles, suspension, policies.

The policies are those that the log says were in force: the database holds their text, and the log its digest. What an
entry does not say (a second factor, approvals) is taken as it would have to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stanch.access import WORKSPACE, ActivePolicies, Context, PolicyVersion, ResourceFacts, decide, default_policies
from stanch.access.facts import WORKSPACE_SCOPE, Facts, Grant
from stanch.access.principal import MAX_CLEARANCE, Principal
from stanch.errors import InvalidInput
from stanch.ledger.ocsf import Event
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.people import NEEDED, ROLLBACK
from stanch.workspace.rights_made import Side

_LEEWAY_MS = 60_000
"""For how long an act may begin after it was decided."""


@dataclass(slots=True)
class Held:
    """What the entries that were read so far let people do.

    Attributes:
        made: The rows that the entries made.
        versions: Sets of policies as the database has them, by the digest of their text.
        first: Roles of the grants that the database says came with the workspace, by the grants' ids.
    """

    made: Side
    versions: Mapping[str, PolicyVersion]
    first: Mapping[str, str]
    _owner: str = ""
    _roles: frozenset[str] = frozenset()
    _team: bool = False
    _policies: ActivePolicies = field(default_factory=default_policies)

    def begin(self, owner: str, roles: frozenset[str]) -> None:
        """Note the first principal, and the roles that it got with the workspace."""
        self._owner, self._roles = owner, roles

    def put_in_force(self, policy: str) -> None:
        """Let another set of policies decide from now on; where its text is gone, or no valid set, the shipped one."""
        try:
            version = self.versions.get(policy)
            self._policies = default_policies() if version is None else version.parse()
        except InvalidInput:
            self._policies = default_policies()

    def refusal(self, event: Event, action: str) -> str:
        """Return why the principal of an intent was not permitted its act; empty if it was.

        Raises:
            InvalidInput: The entry is about no artifact that there can be.
        """
        ours, by = event.unmapped.stanch, event.actor.user.uid
        self._team |= ours.profile == "team"
        if by not in self.made.rows["principal"]:
            return "its principal was not registered before"
        resource = WORKSPACE
        for one in ours.subject:
            if one.kind != "workspace":
                resource = ResourceFacts.of(ArtifactRef(one.kind, one.name, Digest.parse(one.digest)), gate="passed")
        policies = default_policies() if ours.kind == ROLLBACK else self._policies
        situation = Context(team=self._team, mfa=True, approvals=NEEDED, glass=self._glass(by, event.time))
        decision = decide(self._facts(by, event.time), action, resource, situation, policies)
        why = ", ".join(decision.reasons) or "no role that it held permits that"
        return "" if decision.allowed else f"its principal was not permitted {action}: {why}"

    def gain(self, kind: str, by: str, done: Mapping[str, Any]) -> str:
        """Return what an outcome gives whoever acted, and somebody else had to give; empty if there is nothing."""
        if kind == "access.grant" and self._team and done["to"] == by:
            return "grants a role to its own principal"
        if kind == "access.review" and self.made.rows["glass"].get(done["glass"], {}).get("principal") == by:
            return "reviews emergency rights of its own principal"
        return ""

    def _facts(self, principal: str, at_ms: int) -> Facts:
        row = self.made.rows["principal"][principal]
        who = Principal(
            id=principal, kind=row.get("kind", "user"), issuer=None, subject=None, display=None,
            clearance=row.get("clearance", MAX_CLEARANCE), suspended=row.get("suspended", False),
        )  # fmt: skip
        grants = [
            Grant(name, principal, one["role"], one["scope"], one["expires_ms"], one["granted_by"])
            for name, one in self._granted(principal)
            if not one["revoked"] and (one["expires_ms"] is None or one["expires_ms"] > at_ms - _LEEWAY_MS)
        ]
        if principal == self._owner:
            given = self.made.rows["grant"]
            ended = {role for name, role in self.first.items() if given.get(name, {}).get("revoked")}
            grants += [Grant("", principal, role, WORKSPACE_SCOPE, None, "") for role in sorted(self._roles - ended)]
        return Facts(who, tuple(grants))

    def _granted(self, principal: str) -> list[tuple[str, dict[str, Any]]]:
        given = self.made.rows["grant"]
        return [(name, given[name]) for name in self.made.grants_of.get(principal, ())]

    def _glass(self, principal: str, at_ms: int) -> str:
        for name, one in self.made.rows["glass"].items():
            if one.get("principal") == principal and one["until_ms"] > at_ms - _LEEWAY_MS:
                return name
        return ""
