"""What is known of whoever asks, between requests: the facts for the policies, and what these allowed.

Whatever is remembered was so at one revision of the workspace's facts and policies. The transaction of each intent
reads the revision again: if anything changed since, nothing is recorded or done, and all is read afresh. So a revoked
key and a withdrawn right end at once, though most requests ask nobody.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, func, select

from stanch.access import Authority, Context, Decision, ResourceFacts, Session
from stanch.access.revision import FACTS, POLICY, Revision
from stanch.gateway.problem import NotReady
from stanch.ledger import LedgerReader
from stanch.store.schema.workspace import resource
from stanch.store.statement import run
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Request, Workspace
from stanch.workspace.people import People

_KNOWN_SECONDS, _MOST_KNOWN = 1.0, 4096
_REVISION = "SELECT of, value FROM access_revision"


class Stale(NotReady):
    """What was remembered of whoever asks is not so any more; nothing was recorded, and it may be asked again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the policies are told of a model and of whoever asks.

    Attributes:
        until: From when on it is read again.
        revision: What it was read at, or after.
        facts: Of the model: the worst that is said of its digest under any name.
        context: The situation.
        allowed: The decisions that allowed, by credential and actions.
    """

    until: float
    revision: Revision
    facts: ResourceFacts
    context: Context
    allowed: dict[tuple[str, ...], Decision] = field(default_factory=dict)


class Known:
    """The standings that were read in the last second. Of many requests that need one, one reads it."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.forget()

    def find(self, session: Session, model: ArtifactRef) -> Standing | None:
        """Return what is remembered. After half its time one who asks is told nothing, so that it reads for all."""
        key = (model.digest, session.principal, session.mfa)
        standing = self._kept.get(key)
        left = standing.until - self._monotonic() if standing is not None else 0.0
        if left <= 0 or (left <= _KNOWN_SECONDS / 2 and key not in self._renewing):
            self._renewing.add(key)
            return None
        return standing

    def read(self, people: People, model: ArtifactRef, reader: LedgerReader) -> Standing:
        """Return what was read just now, or is so now."""
        kept, key = self._kept, (model.digest, people.session.principal, people.session.mfa)
        with self._reading.setdefault(key, threading.Lock()):
            found = self._kept.get(key)
            if found is not None and found.until - self._monotonic() > _KNOWN_SECONDS / 2:
                return found
            if len(kept) >= _MOST_KNOWN:
                for one in (kept, self._reading, self._renewing):
                    one.clear()
            made = kept[key] = self._read(people, model, reader)
            self._renewing.discard(key)
        return made

    def _read(self, people: People, model: ArtifactRef, reader: LedgerReader) -> Standing:
        now = self._monotonic()
        revision = people.authority.revision()  # first: what is read later may be newer, which confirm() then notices
        with people.ground.tables.read() as connection:
            same = (resource.c.kind == model.kind) & (resource.c.digest == str(model.digest))
            worst = select(func.max(resource.c.sensitivity), func.max(resource.c.quarantined)).where(same)
            sensitivity, quarantined = connection.execute(worst).one()
        facts = replace(people.resource_facts(model), sensitivity=sensitivity or 0, quarantined=bool(quarantined))
        return Standing(now + _KNOWN_SECONDS, revision, facts, people.context(model, reader))

    def forget(self) -> None:
        """Read everything again; what is being read now is not kept."""
        self._kept: dict[tuple[Digest, str, bool], Standing] = {}
        self._reading: dict[tuple[Digest, str, bool], threading.Lock] = {}
        self._renewing: set[tuple[Digest, str, bool]] = set()


class SessionJudge:
    """The policies, asked about one request of one session.

    Attributes:
        is_quick: Whether the answer is remembered, so that nothing is waited for.
    """

    def __init__(self, people: People, workspace: Workspace, known: Known, actions: tuple[str, ...]) -> None:
        self._people = people
        self._workspace = workspace
        self._known = known
        self._actions = actions
        self._revision = Revision()
        self._decision: Decision | None = None
        self.is_quick = False

    def recall(self, model: ArtifactRef) -> None:
        """Take the answer from what is remembered, if it is there."""
        standing = self._known.find(self._people.session, model)
        if standing is not None:
            self._decision = standing.allowed.get(self._key())
            self._revision = standing.revision
            self.is_quick = self._decision is not None

    def decide(self, request: Request, act: str = "") -> Decision:
        """Return the decision; once an act has begun, a fresh one."""
        if self._decision is not None and not act:
            return self._decision
        people, authority = self._people, self._people.authority
        standing = self._known.read(people, request.resource, self._workspace.ledger.reader())
        self._revision = standing.revision
        if not act and (known := standing.allowed.get(self._key())) is not None:
            self._decision = known
            return known
        for action in self._actions:
            decision = authority.decide(people.session, action, standing.facts, standing.context)
            if not decision.allowed:
                return decision
        self._decision = decision
        # The other kinds of credentials are their own proof, and every one is another.
        if people.session.kind == "api-key":
            standing.allowed[self._key()] = decision
        return decision

    def confirm(self, connection: Connection) -> None:
        """Return if the answer is still good; belongs into the transaction of the intent.

        Raises:
            Stale: Facts or policies changed since.
        """
        now = {str(of): int(value) for of, value in run(connection, _REVISION)}
        if Revision(now.get(FACTS, 0), now.get(POLICY, 0)) != self._revision:
            raise Stale("the request has to be decided again")

    def policy(self) -> str:
        """Return the digest of the policies that decided: the intent's transaction confirmed them."""
        return str(self._decision.policy) if self._decision is not None else ""

    def approvals_digest(self, _request: Request) -> str:
        """Requests of programs need no approvals."""
        return ""

    def _key(self) -> tuple[str, ...]:
        return (self._people.session.key_id, *self._actions)


def judge_of(session: Session, workspace: Workspace, authority: Authority, known: Known, *actions: str) -> SessionJudge:
    """Return who says whether a session may do all of ``actions``; the last one stands in the decision."""
    return SessionJudge(replace(workspace.people, session=session, authority=authority), workspace, known, actions)
