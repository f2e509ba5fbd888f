"""The gateway's side of the one door: who asks, whether it may, and what is recorded of those who may not."""

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import func, select

from stanch.access import Authority, Context, Decision, ResourceFacts, Session
from stanch.access.authenticator import Authenticator, Credential
from stanch.crypto import hmac_sha256
from stanch.errors import StanchError
from stanch.gateway.budgets import Budgets
from stanch.gateway.metrics import Metrics
from stanch.gateway.probe import Probes
from stanch.gateway.window import Features, Windows
from stanch.ledger import Act, LedgerReader, new_act_id, noted
from stanch.ledger import Credential as RecordedCredential
from stanch.store.schema.workspace import resource
from stanch.terms import ArtifactRef, Digest, JsonValue
from stanch.workspace import Door, Request, Workspace
from stanch.workspace.incoming import authenticator_of
from stanch.workspace.people import People

INFER, EMBED = ("gateway.infer", "model:infer"), ("gateway.embed", "model:embed")
LOGPROBS = "model:logprobs"
_REFUSED, _WINDOW = "gateway.refused", "gateway.window"
_FLUSH_SECONDS = 60.0
_MOST_KINDS = 1024
_REFRESH_MS = 1000
_KNOWN_SECONDS, _MOST_KNOWN = 0.5, 4096


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything of a workspace that requests need; one for all of them.

    Attributes:
        workspace: The workspace that is served.
        authenticator: Whom it lets in.
        authority: The policies, confirmed every second.
        budgets: What each principal has used.
        refusals: Requests of unknown people.
        audit_key: Makes the digests of prompts and answers in the log, so that nobody else can test a guess.
        metrics: What a monitoring system may read.
        probes: Flags prompts that look like attempts to draw training text.
        windows: Sums up prompts, so that the log can show that somebody asks in another way than before.
        known: What was just read for the policies.
    """

    workspace: Workspace
    authenticator: Authenticator
    authority: Authority
    budgets: Budgets
    refusals: "Refusals"
    audit_key: bytes
    metrics: Metrics
    probes: Probes
    windows: Windows
    known: "Known"

    @classmethod
    def of(cls, workspace: Workspace) -> "Desk":
        """Return the desk of an opened workspace."""
        people = workspace.people
        ground = people.ground
        pepper = ground.keys.secret("pepper", 1)
        metrics = Metrics()
        metrics.watch_queue(lambda: workspace.ledger.waiting)
        return cls(
            workspace, authenticator_of(workspace),
            Authority(ground.tables, people.directory, refresh_ms=_REFRESH_MS, clock=ground.clock),
            Budgets(ground.tables, clock=ground.clock), Refusals(workspace),
            hmac_sha256(pepper, b"stanch/gateway/v1/audit"), metrics,
            Probes(hmac_sha256(pepper, b"stanch/gateway/v1/probe")),
            Windows(Features(hmac_sha256(pepper, b"stanch/gateway/v1/window")), ground.clock), Known(),
        )  # fmt: skip

    def authenticate(self, credential: Credential) -> Session:
        """Return the session of whoever asks.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        return self.authenticator.authenticate(credential)

    def door(self, session: Session, *, also: tuple[str, ...] = ()) -> Door:
        """Return the door through which a session's requests go; each needs the actions ``also`` besides its own."""
        workspace = self.workspace
        own = workspace.door
        return Door(
            workspace.ledger, session, own.profile, self._judge(session, also), workspace.leases, own.witnessing,
            own.clock,
        )  # fmt: skip

    async def keep_flushing(self) -> None:
        """Record once a minute what was counted and summed up, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            # The store may come back; what could not be recorded is kept.
            with contextlib.suppress(StanchError):
                await asyncio.to_thread(self.flush)

    def flush(self, *, is_last: bool = False) -> None:
        """Record the refusals that were counted, and the windows that are full or old.

        Raises:
            LedgerUnavailable: The log cannot be written; what was not recorded is kept.
        """
        told = self.windows.take(all_of_them=is_last)
        try:
            while told:
                note(self.workspace, _WINDOW, told[-1])
                told.pop()
        finally:
            self.windows.put_back(told)
        self.refusals.flush()

    def check_writable(self) -> None:
        """Return if the log's database takes a change now.

        Raises:
            StoreError: It does not.
        """
        with self.workspace.tables.write():
            pass

    def may_infer(self, session: Session, model: ArtifactRef) -> bool:
        """Say whether a session may use a model now; a refusal here is no act, and is not recorded."""
        return self._judge(session).decide(Request(INFER[0], INFER[1], model)).allowed

    def _judge(self, session: Session, also: tuple[str, ...] = ()) -> "SessionJudge":
        people = replace(self.workspace.people, session=session, authority=self.authority)
        return SessionJudge(people, self.workspace, self.known, also)


class Known:
    """What the policies are told of a model and of whoever asks, read at most twice a second for the same two.

    A change is seen by requests half a second later at the latest, one of the policies a second later.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[tuple[Digest, str, bool], tuple[float, ResourceFacts, Context]] = {}

    def of(self, people: People, model: ArtifactRef, reader: LedgerReader) -> tuple[ResourceFacts, Context]:
        """Return the facts of a model, the worst that is said of its digest under any name, and the situation."""
        key, now = (model.digest, people.session.principal, people.session.mfa), self._monotonic()
        if (kept := self._kept.get(key)) is not None and now < kept[0]:
            return kept[1:]
        with people.ground.tables.read() as connection:
            same = (resource.c.kind == model.kind) & (resource.c.digest == str(model.digest))
            worst = select(func.max(resource.c.sensitivity), func.max(resource.c.quarantined)).where(same)
            sensitivity, quarantined = connection.execute(worst).one()
        facts = replace(people.resource_facts(model), sensitivity=sensitivity or 0, quarantined=bool(quarantined))
        context = people.context(model, reader)
        if len(self._kept) >= _MOST_KNOWN:
            self._kept.clear()
        self._kept[key] = (now + _KNOWN_SECONDS, facts, context)
        return facts, context


@dataclass(frozen=True, slots=True)
class SessionJudge:
    """The policies, asked about the requests of one session."""

    people: People
    workspace: Workspace
    known: Known
    also: tuple[str, ...] = ()

    def decide(self, request: Request, act: str = "") -> Decision:  # noqa: ARG002 - the door's protocol; no approvals
        """Return the decision."""
        people = self.people
        facts, context = self.known.of(people, request.resource, self.workspace.ledger.reader())
        for action in self.also:
            if not (decision := people.authority.decide(people.session, action, facts, context)).allowed:
                return decision
        return people.authority.decide(people.session, request.action, facts, context)

    def policy(self) -> str:
        """Return the digest of the policies that are active now."""
        return str(self.people.authority.policies().digest)

    def approvals_digest(self, _request: Request) -> str:
        """Requests of programs need no approvals."""
        return ""


class Refusals:
    """Refused requests of people nobody knows: counted by reason and network, recorded once a minute.

    A flood of them costs a counter each, and at most so many entries a minute.
    """

    def __init__(self, workspace: Workspace, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._workspace = workspace
        self._monotonic = monotonic
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, reason: str, address: str) -> None:
        """Count one."""
        key = (reason, network_of(address))
        self._counts[key if key in self._counts or len(self._counts) < _MOST_KINDS else (reason, "others")] += 1

    def flush(self) -> None:
        """Record what was counted, in the name of whoever serves.

        Raises:
            LedgerUnavailable: The log cannot be written; the counts are kept.
        """
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        rows: list[JsonValue] = [
            {"reason": reason, "network": network, "count": count}
            for (reason, network), count in counts.most_common(_MOST_KINDS)
        ]
        try:
            for at in range(0, len(rows), 128):
                note(self._workspace, _REFUSED, {"refused": rows[at : at + 128]})
        except StanchError:
            self._counts.update(counts)
            raise


def note(workspace: Workspace, kind: str, payload: Mapping[str, JsonValue], *subject: ArtifactRef) -> None:
    """Record something that happened, in the name of whoever serves.

    Raises:
        LedgerUnavailable: The log cannot be written.
    """
    door = workspace.door
    now_ms = int(door.clock() * 1000)
    act = Act(
        kind=kind, id=new_act_id(now_ms), principal=door.who.principal, subject=subject,
        profile="team" if door.profile == "team" else "solo",
        credential=RecordedCredential(kind=door.who.kind, key_id=door.who.key_id),
    )  # fmt: skip
    workspace.ledger.append(noted(act, time_ms=now_ms, payload=payload))


def network_of(address: str) -> str:
    """Return the network that stands for an address in the log: /24 of IPv4, /56 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    plain = getattr(found, "ipv4_mapped", None) or found
    return str(ipaddress.ip_network(f"{plain}/{24 if plain.version == 4 else 56}", strict=False))
