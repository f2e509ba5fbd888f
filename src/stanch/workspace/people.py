"""Who acts in a workspace, and what the policies say to it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from sqlalchemy import ColumnElement, insert, select, update

from stanch.access import (
    WORKSPACE,
    Approvals,
    Context,
    Decision,
    Directory,
    Facts,
    ResourceFacts,
    Session,
    decide,
    default_policies,
    sign_session,
)
from stanch.access.approval import approvals_digest
from stanch.crypto.localkey import LocalKey
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotAuthenticated
from stanch.ledger import EntryQuery, Ledger, LedgerReader, decode_entry, sign_act
from stanch.store import Tables
from stanch.store.schema import workspace as rows
from stanch.terms import ArtifactRef
from stanch.workspace.act import Request
from stanch.workspace.door import Door, Witnessing
from stanch.workspace.keyring import Keyring
from stanch.workspace.lease import Leases

Profile = Literal["solo", "team"]
Unlock = Callable[[], Passphrase]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a login rests on: the tables, the keyring, the workspace's origin, its profile and the clock."""

    tables: Tables
    keys: Keyring
    origin: str
    profile: Profile
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class People:
    """The directory of a workspace and the session of whoever acts.

    Attributes:
        ground: What it rests on.
        directory: Principals, keys, grants.
        approvals: Who approved what.
        name: The local name of whoever acts.
        local: The key with which it logged in.
        session: The login.
    """

    ground: Ground
    directory: Directory
    approvals: Approvals
    name: str
    local: LocalKey
    session: Session

    @classmethod
    def login(cls, ground: Ground, name: str | None, *, unlock: Unlock | None = None) -> Self:
        """Log in with a local key of the keyring; by default the oldest one.

        A key that a passphrase unlocked counts as two factors: possession and knowledge.

        Raises:
            NotAuthenticated: There is no such key, it is locked, or it is not registered.
        """
        known = ground.keys.people()
        chosen = name if name is not None else next(iter(known), "")
        if chosen not in known:
            raise NotAuthenticated(
                f"there is no local key of {chosen[:64]!r} in this workspace",
                next_step=f"keys here: {', '.join(known) or 'none'}",
            )
        directory = Directory(ground.tables, origin=ground.origin, clock=ground.clock)
        local = ground.keys.person(chosen, passphrase=unlock)
        login = sign_session(local.key, ground.origin, directory.challenge(), int(ground.clock() * 1000))
        session = directory.session(login, mfa=local.locked)
        approvals = Approvals(ground.tables, origin=ground.origin, clock=ground.clock)
        return cls(ground, directory, approvals, chosen, local, session)

    @property
    def team(self) -> bool:
        """Whether the rules of profile ``team`` are on."""
        return self.ground.profile == "team"

    def facts(self) -> Facts:
        """Return what policies know of whoever acts, loaded afresh."""
        return self.directory.facts(self.session)

    def door(self, ledger: Ledger, leases: Leases, witnessing: Witnessing | None = None) -> Door:
        """Return the door through which this session acts."""
        judge = PolicyJudge(self, ledger.reader())
        return Door(
            ledger, self.session, self.ground.profile, judge, leases, witnessing, self.ground.clock,
            sign=lambda entry: sign_act(entry, ledger.origin, self.local.key),
        )  # fmt: skip

    def decide(self, request: Request, reader: LedgerReader, *, act: str = "") -> Decision:
        """Ask the policies about one request; approvals that ``act`` has used up still count."""
        need = request.approval
        approvals = 0
        if need is not None:
            involved = self.involved(request.resource, reader)
            counted = self.approvals.counted(need.request, requester=need.requester, involved=involved, act=act)
            approvals = len(counted)
        context = Context(
            mfa=self.session.mfa,
            team=self.team,
            involved=self.session.principal in self.involved(request.resource, reader),
            approvals=approvals,
        )
        facts = self.resource_facts(request.resource)
        return decide(self.facts(), request.action, facts, context, default_policies())

    def involved(self, resource: ArtifactRef, reader: LedgerReader) -> frozenset[str]:
        """Return who made, audited or proposed this very artifact: the log knows. Approving is not taking part."""
        if resource.kind == "workspace":
            return frozenset()
        entries = (
            decode_entry(reader.entry(ref.index))
            for kind in _TAKING_PART
            for ref in reader.query(EntryQuery(subject=resource.digest, kind=kind, phase="outcome"))
        )
        return frozenset(str(entry["actor"]["user"]["uid"]) for entry in entries)

    def resource_facts(self, resource: ArtifactRef) -> ResourceFacts:
        """Return what policies know of an artifact."""
        if resource.kind == "workspace":
            return WORKSPACE
        with self.ground.tables.read() as connection:
            row = connection.execute(select(rows.resource).where(_same(resource))).one_or_none()
        if row is None:
            return ResourceFacts.of(resource)
        return ResourceFacts.of(resource, sensitivity=row.sensitivity, quarantined=bool(row.quarantined), gate=row.gate)

    def set_gate(self, resource: ArtifactRef, gate: Literal["passed", "failed"]) -> None:
        """Remember what the gate said of an artifact."""
        with self.ground.tables.write() as connection:
            changed = connection.execute(update(rows.resource).where(_same(resource)).values(gate=gate)).rowcount
            if not changed:
                connection.execute(insert(rows.resource).values(
                    kind=resource.kind, name=resource.name, digest=str(resource.digest), sensitivity=0, quarantined=0,
                    gate=gate, legal_hold=0, made_by="",
                ))  # fmt: skip

    def find(self, name: str) -> str:
        """Return the pseudonymous id of a person by the name it is shown under.

        Raises:
            InvalidInput: There is none, or more than one.
        """
        found = [principal.id for principal in self.directory.principals() if principal.display == name]
        if len(found) != 1:
            raise InvalidInput(f"{len(found)} principals are called {name[:64]!r}", next_step="stanch access who")
        return found[0]


@dataclass(frozen=True, slots=True)
class PolicyJudge:
    """The judge of a door: the policies, asked about one session's requests on one log."""

    people: People
    reader: LedgerReader

    def decide(self, request: Request, act: str = "") -> Decision:
        """Return the decision, from facts that are loaded afresh."""
        return self.people.decide(request, self.reader, act=act)

    def policy(self) -> str:
        """Return the digest of the policies that are active now."""
        return str(default_policies().digest)

    def approvals_digest(self, request: Request) -> str:
        """Return the digest of the signed statements that count for a request; empty if it needs none."""
        need = request.approval
        if need is None:
            return ""
        involved = self.people.involved(request.resource, self.reader)
        counted = self.people.approvals.counted(need.request, requester=need.requester, involved=involved)
        return str(approvals_digest(counted))


def register_owner(ground: Ground, owner: str, *, passphrase: Passphrase | None = None) -> None:
    """Register the first principal of a new workspace with a new local key.

    In profile ``solo`` it holds every role; in profile ``team`` it is the platform admin, who adds others.
    """
    directory = Directory(ground.tables, origin=ground.origin, clock=ground.clock)
    key = ground.keys.add_person(owner, passphrase=passphrase)
    directory.register_first(key.public, display=owner, team=ground.profile == "team")


_TAKING_PART = ("tune.run", "audit.run", "release.propose")


def _same(resource: ArtifactRef) -> ColumnElement[bool]:
    table = rows.resource.c
    return (table.kind == resource.kind) & (table.name == resource.name) & (table.digest == str(resource.digest))
