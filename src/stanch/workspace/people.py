"""Who acts in a workspace, and what the policies say to it."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, insert, select, update

from stanch.access import (
    WORKSPACE,
    ApiKeys,
    Approvals,
    ApprovalStatement,
    Authority,
    Context,
    Decision,
    Directory,
    Facts,
    Glasses,
    ResourceFacts,
    Session,
    decide,
    default_policies,
    sign_session,
)
from stanch.access.approval import approvals_digest
from stanch.access.revision import advance_facts
from stanch.access.roll import ids_called
from stanch.crypto import RandomBytes, random_bytes
from stanch.crypto.localkey import LocalKey
from stanch.crypto.passphrase import Passphrase
from stanch.errors import Conflict, InvalidInput, NotAuthenticated
from stanch.ledger import EntryQuery, Ledger, LedgerReader, sign_act
from stanch.ledger.entry import read_event
from stanch.store import Tables
from stanch.store.schema import workspace as rows
from stanch.store.statement import run
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.act import Request
from stanch.workspace.door import Door, Witnessing
from stanch.workspace.keyring import Keyring
from stanch.workspace.lease import Leases

Profile = Literal["solo", "team"]
Unlock = Callable[[], Passphrase]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a login rests on: tables, keyring, origin and profile of the workspace, clock, length, randomness."""

    tables: Tables
    keys: Keyring
    origin: str
    profile: Profile
    clock: Callable[[], float] = time.time
    session_minutes: int = 480
    rng: RandomBytes = random_bytes

    def directory(self) -> Directory:
        """Return who is registered."""
        return Directory(
            self.tables, origin=self.origin, session_minutes=self.session_minutes, clock=self.clock, rng=self.rng
        )

    def approvals(self) -> Approvals:
        """Return who approved what."""
        return Approvals(self.tables, origin=self.origin, clock=self.clock)

    def glasses(self) -> Glasses:
        """Return the emergency rights."""
        return Glasses(self.tables, clock=self.clock, rng=self.rng)


@dataclass(frozen=True, slots=True)
class People:
    """The directory of a workspace and the session of whoever acts.

    Attributes:
        ground: What it rests on.
        directory: Principals, keys, grants.
        approvals: Who approved what.
        authority: The policies in force; their versions are read again for every decision.
        glasses: Emergency rights.
        name: The local name of whoever acts.
        local: The key with which it logged in.
        session: The login.
    """

    ground: Ground
    directory: Directory
    approvals: Approvals
    authority: Authority
    glasses: Glasses
    name: str
    local: LocalKey
    session: Session

    @classmethod
    def login(cls, ground: Ground, name: str | None, *, unlock: Unlock | None = None) -> Self:
        """Log in with a local key of the keyring; by default with that of whoever was registered first.

        A key that a passphrase unlocked counts as two factors: possession and knowledge.

        Raises:
            NotAuthenticated: There is no such key, it is locked, or it is not registered.
        """
        known = ground.keys.people()
        chosen = name if name is not None else _first_of(ground, known)
        if chosen not in known:
            raise NotAuthenticated(
                f"there is no local key of {chosen[:64]!r} in this workspace",
                next_step=f"keys here: {', '.join(known) or 'none'}",
            )
        tables, clock, directory = ground.tables, ground.clock, ground.directory()
        local = ground.keys.person(chosen, passphrase=unlock)
        login = sign_session(local.key, ground.origin, directory.challenge(), int(ground.clock() * 1000))
        session = directory.session(login, mfa=local.locked)
        return cls(
            ground, directory, ground.approvals(), Authority(tables, directory, refresh_ms=0, clock=clock),
            ground.glasses(), chosen, local, session,
        )  # fmt: skip

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
            involved = self.involved(request.resource, reader) | self.unfit(
                need.request, need.right, request.resource, act=act
            )
            counted = self.approvals.counted(need.request, requester=need.requester, involved=involved, act=act)
            approvals = len(counted)
        context = self.context(request.resource, reader, approvals=approvals)
        facts = self.resource_facts(request.resource)
        if request.kind == ROLLBACK:
            # A set of policies that locks everybody out must not decide about its own end. The version that comes back
            # was approved when it came into force; the rest of the shipped rules holds.
            return decide(self.facts(), request.action, facts, replace(context, approvals=NEEDED), default_policies())
        return self.authority.decide(self.session, request.action, facts, context)

    def unfit(self, request: Digest, right: str, on: ArtifactRef, *, act: str = "") -> frozenset[str]:
        """Return who approved a request and is not permitted ``right`` on an artifact now."""
        counted, policies = self.approvals.counted(request, requester="", act=act), self.authority.policies()
        approvers = {ApprovalStatement.parse(approval.statement).approver for approval in counted}
        facts = self.resource_facts(on)
        return frozenset(
            approver
            for approver in approvers
            if not decide(
                self.directory.facts_of(approver), right, facts,
                self.context_of(approver, mfa=True, involved=False, approvals=0), policies,
            ).allowed
        )  # fmt: skip

    def context(self, resource: ArtifactRef, reader: LedgerReader, *, approvals: int = 0) -> Context:
        """Return the situation of whoever acts."""
        principal = self.session.principal
        involved = principal in self.involved(resource, reader)
        return self.context_of(principal, mfa=self.session.mfa, involved=involved, approvals=approvals)

    def context_of(self, principal: str, *, mfa: bool, involved: bool, approvals: int) -> Context:
        """Return the situation of a principal."""
        glass = self.glasses.open_of(principal)
        return Context(
            mfa=mfa,
            team=self.team,
            involved=involved,
            glass=glass.id if glass is not None else "",
            approvals=approvals,
        )

    @property
    def api_keys(self) -> ApiKeys:
        """The API keys of services."""
        keys = self.ground.keys
        peppers = {version: keys.secret("pepper", version) for version in keys.versions("pepper")}
        return ApiKeys(self.ground.tables, peppers, clock=self.ground.clock, rng=self.ground.rng)

    def rehearse(self, step: "Callable[[Self], T]") -> tuple[T, Callable[[Connection], None]]:
        """Try what changes rows, and return what it gives, with what does it in the transaction of an outcome.

        Nothing of the trial stays. Both times the clock shows the same moment and the same random bytes are drawn, so
        that the outcome can name what it makes; rows and outcome are then durable together, or neither is.

        Raises:
            StanchError: What ``step`` raises.
        """
        now, drawn = self.ground.clock(), list[bytes]()
        with self.ground.tables.rehearsal() as tables:
            tried = step(self._on(tables, now, drawn))

        def settle(connection: Connection) -> None:
            if step(self._on(self.ground.tables.within(connection), now, drawn)) != tried:
                raise Conflict("another act changed what this one rests on, in this very moment", next_step="repeat it")

        return tried, settle

    def _on(self, tables: Tables, now: float, drawn: list[bytes]) -> Self:
        """Return the same people on other tables, at one moment, with the bytes that were drawn there before."""
        position = itertools.count()

        def draw(size: int) -> bytes:
            index = next(position)
            if index == len(drawn):
                drawn.append(self.ground.rng(size))
            return drawn[index]

        ground = replace(self.ground, tables=tables, clock=lambda: now, rng=draw)
        return replace(
            self, ground=ground, directory=ground.directory(), approvals=ground.approvals(), glasses=ground.glasses()
        )

    def involved(self, resource: ArtifactRef, reader: LedgerReader) -> frozenset[str]:
        """Return who made, audited or proposed this very artifact: the log knows. Approving is not taking part."""
        if resource.kind == "workspace":
            return frozenset()
        indexes = [
            ref.index
            for kind in _TAKING_PART
            for ref in reader.query(EntryQuery(subject=resource.digest, kind=kind, phase="outcome"))
        ]
        # The subject of a tuning is its data; which model came of it, its outcome alone says.
        model = f'"model":"{resource.digest}"'.encode()
        tuned = [data for _, data in reader.select(EntryQuery(kind="tune.run", phase="outcome")) if model in data]
        return frozenset(read_event(data).actor.user.uid for data in (*tuned, *reader.entries(indexes).values()))

    def resource_facts(self, resource: ArtifactRef) -> ResourceFacts:
        """Return what policies know of an artifact."""
        return WORKSPACE if resource.kind == "workspace" else self.facts_of_resources([resource])[0]

    def facts_of_resources(self, resources: Iterable[ArtifactRef]) -> list[ResourceFacts]:
        """Return what policies know of artifacts, in their order."""
        with self.ground.tables.read() as connection:
            return [_facts_of(connection, resource) for resource in resources]

    def set_gate(self, resource: ArtifactRef, gate: Literal["passed", "failed"]) -> None:
        """Remember what the gate said: a pass under the artifact's name, a failure under every name of its bytes."""
        if gate == "failed":
            self._remember(resource, {"gate": gate}, _same_bytes(resource))
        named = _same_bytes(resource) & (rows.resource.c.name == resource.name)
        self._remember(resource, {"gate": gate}, named)

    def is_held(self, resource: ArtifactRef) -> bool:
        """Say whether an artifact is under legal hold."""
        with self.ground.tables.read() as connection:
            held = select(rows.resource.c.legal_hold).where(_same_bytes(resource), rows.resource.c.legal_hold == 1)
            return connection.execute(held.limit(1)).first() is not None

    def remember_bytes(self, resource: ArtifactRef, facts: Mapping[str, int]) -> None:
        """Remember facts of an artifact under every name that its bytes have here."""
        self._remember(resource, facts, _same_bytes(resource))

    def _remember(self, resource: ArtifactRef, facts: Mapping[str, str | int], where: ColumnElement[bool]) -> None:
        with self.ground.tables.write() as connection:
            changed = connection.execute(update(rows.resource).where(where).values(**facts)).rowcount
            if not changed:
                fresh = {"sensitivity": 0, "quarantined": 0, "gate": "", "legal_hold": 0, "made_by": ""}
                connection.execute(insert(rows.resource).values(
                    kind=resource.kind, name=resource.name, digest=str(resource.digest), **{**fresh, **facts}
                ))  # fmt: skip
            advance_facts(connection)

    def find(self, name: str) -> str:
        """Return the pseudonymous id of a principal by that id or by the name it is shown under.

        Raises:
            InvalidInput: There is none, or more than one.
        """
        with self.ground.tables.read() as connection:
            found = ids_called(connection, name)
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
        """Return the digest of the policies that are active now; none while they are no valid set.

        Whoever finds another digest than before decides again, so a broken set permits nothing but its own rollback.
        """
        try:
            return str(self.people.authority.policies().digest)
        except InvalidInput:
            return ""

    def approvals_digest(self, request: Request) -> str:
        """Return the digest of the signed statements that count for a request; empty if it needs none."""
        need = request.approval
        if need is None:
            return ""
        people, on = self.people, request.resource
        involved = people.involved(on, self.reader) | people.unfit(need.request, need.right, on)
        counted = people.approvals.counted(need.request, requester=need.requester, involved=involved)
        return str(approvals_digest(counted))


def _facts_of(connection: Connection, resource: ArtifactRef) -> ResourceFacts:
    if resource.kind == "workspace":
        return WORKSPACE
    known = run(connection, _RESOURCE, (resource.kind, str(resource.digest)))
    # Quarantine and sensitivity follow the bytes: a model does not leave them under another name.
    quarantined = any(held for _name, _sensitivity, held, _gate in known)
    sensitivity = max((asked for _name, asked, _held, _gate in known), default=0)
    gate = next((gate for name, _sensitivity, _held, gate in known if name == resource.name), "")
    return ResourceFacts.of(resource, sensitivity=sensitivity, quarantined=quarantined, gate=gate)


def _first_of(ground: Ground, names: tuple[str, ...]) -> str:
    """Return who of those with a local key here was registered first; files are copied, and their times are not."""
    by_key = {ground.keys.person_id(name): name for name in names}
    return by_key.get(ground.directory().first_key(by_key.keys()), "")


def register_owner(ground: Ground, owner: str, *, passphrase: Passphrase | None = None) -> None:
    """Register the first principal of a new workspace with a new local key.

    In profile ``solo`` it holds every role; in profile ``team`` it is the platform admin, who adds others.
    """
    directory = Directory(ground.tables, origin=ground.origin, clock=ground.clock)
    key = ground.keys.add_person(owner, passphrase=passphrase)
    directory.register_first(key.public, display=owner, team=ground.profile == "team")


ROLLBACK = "policy.rollback"
NEEDED = 2
"""How many people must approve what two people have to approve."""

_RESOURCE = "SELECT name, sensitivity, quarantined, gate FROM resource WHERE kind = ? AND digest = ?"
_TAKING_PART = ("model.derive", "audit.run", "release.propose")


def _same_bytes(resource: ArtifactRef) -> ColumnElement[bool]:
    return (rows.resource.c.kind == resource.kind) & (rows.resource.c.digest == str(resource.digest))
