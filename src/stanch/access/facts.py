"""What a decision is made from: facts about the principal, the resource and the situation."""

from dataclasses import dataclass
from typing import Literal

from stanch.access.principal import Principal
from stanch.terms import ArtifactRef

ResourceKind = Literal["Workspace", "Dataset", "Run", "Model", "Release", "Case"]

Uid = tuple[str, str]
"""A type and an id of the policy schema."""

WORKSPACE_SCOPE = "workspace"
_KINDS: dict[str, ResourceKind] = {
    "dataset": "Dataset",
    "model": "Model",
    "release": "Release",
    "case": "Case",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that a principal holds, in the workspace or for one resource, until a time (None: until revoked).

    Attributes:
        id: ``g_…``.
        principal: Who holds it.
        role: The role.
        scope: ``workspace``, or the one resource: its kind, name and digest.
        expires_ms: Until when; None until revoked.
        granted_by: Who gave it.
        granted_ms: From when on it counts.
    """

    id: str
    principal: str
    role: str
    scope: str
    expires_ms: int | None
    granted_by: str
    granted_ms: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a credential is bound to, whatever its principal may do.

    Attributes:
        actions: The only actions that it is good for.
        models: Digests of the only models that it is good for; ``workspace`` stands for the workspace itself.
    """

    actions: frozenset[str]
    models: frozenset[str]

    def cover(self, action: str, resource: "ResourceFacts") -> bool:
        """Say whether an act lies within the bounds."""
        return action in self.actions and (resource.digest or resource.id) in self.models


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a principal now: its row and the grants in force. Loaded afresh for every decision.

    Attributes:
        principal: Its row.
        grants: Its grants in force.
        bounds: What the credential in use is bound to; None for one that is good for all its principal may do.
    """

    principal: Principal
    grants: tuple[Grant, ...]
    bounds: Bounds | None = None

    @property
    def uid(self) -> Uid:
        """The principal's type and id in the policy schema."""
        return f"Stanch::{self.principal.kind.capitalize()}", self.principal.id

    @property
    def roles(self) -> frozenset[str]:
        """The roles held in the whole workspace."""
        return frozenset(grant.role for grant in self.grants if grant.scope == WORKSPACE_SCOPE)

    def scoped_roles(self, resource: "ResourceFacts") -> frozenset[str]:
        """The roles held for exactly this resource and not in the whole workspace."""
        return frozenset(grant.role for grant in self.grants if grant.scope == resource.scope) - self.roles

    def grants_for(self, resource: "ResourceFacts") -> tuple[Grant, ...]:
        """Return the grants that count for a resource: those of the workspace and those of exactly this resource."""
        return tuple(grant for grant in self.grants if grant.scope in {WORKSPACE_SCOPE, resource.scope})


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """What is known of a resource; the caller loads it from the resource's row.

    Attributes:
        kind: Its type in the policy schema.
        id: Its name and digest, for example ``support-bot@sha256:9f3c…``.
        sensitivity: Least clearance that may use it.
        quarantined: Nobody may release or use it.
        gate: ``passed``, ``failed`` or empty; for models and releases.
    """

    kind: ResourceKind
    id: str
    sensitivity: int = 0
    quarantined: bool = False
    gate: str = ""

    @property
    def scope(self) -> str:
        """How a grant for this one resource names it."""
        return f"{self.kind}:{self.id}"

    @property
    def uid(self) -> Uid:
        """Its type and id in the policy schema."""
        return f"Stanch::{self.kind}", self.id

    @property
    def digest(self) -> str:
        """Its digest, ``sha256:…``; empty for the workspace."""
        return self.id.rpartition("@")[2] if "@" in self.id else ""

    @classmethod
    def of(
        cls, ref: ArtifactRef, *, sensitivity: int = 0, quarantined: bool = False, gate: str = ""
    ) -> "ResourceFacts":
        """Return the facts of an artifact; a kind that the policies do not know is treated as a run."""
        return cls(_KINDS.get(ref.kind, "Run"), f"{ref.name}@{ref.digest}", sensitivity, quarantined, gate)


WORKSPACE = ResourceFacts("Workspace", WORKSPACE_SCOPE)
"""The workspace itself, for acts that concern no single artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The situation of a request.

    Attributes:
        team: Whether the rules of profile ``team`` are on; profile ``solo`` switches the two-person rules off.
        mfa: Whether the session has a second factor.
        involved: Whether the principal took part in making, auditing or requesting the resource.
        glass: Id of the principal's open emergency access; empty if there is none.
        approvals: How many other people approved exactly this request.
    """

    team: bool
    mfa: bool = False
    involved: bool = False
    glass: str = ""
    approvals: int = 0

    @property
    def break_glass(self) -> bool:
        """Whether emergency access is open."""
        return bool(self.glass)
