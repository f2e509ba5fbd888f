"""The gateway's side of the one door: who asks, whether it may, and what is recorded of those who may not."""

import asyncio
import contextlib
import functools
import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from stanch.access import Authority, Session
from stanch.access.authenticator import Authenticator, Credential
from stanch.crypto import hmac_prf, hmac_sha256
from stanch.errors import ExternalError, StanchError
from stanch.gateway.budgets import Budgets
from stanch.gateway.exhausted import Exhausted
from stanch.gateway.metrics import Metrics
from stanch.gateway.probe import Probes
from stanch.gateway.standing import Known, SessionJudge, judge_of
from stanch.gateway.telemetry import SEND_SECONDS, Telemetry
from stanch.gateway.window import Features, Windows
from stanch.terms import ArtifactRef, JsonValue
from stanch.workspace import Door, Request, Workspace
from stanch.workspace.incoming import authenticator_of
from stanch.workspace.noting import note

INFER, EMBED = ("gateway.infer", "model:infer"), ("gateway.embed", "model:embed")
LOGPROBS = "model:logprobs"
_REFUSED, _WINDOW = "gateway.refused", "gateway.window"
_FLUSH_SECONDS = 60.0
_MOST_KINDS = 1024
_REFRESH_MS = 1000


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything of a workspace that requests need; one for all of them.

    Attributes:
        workspace: The workspace that is served.
        authenticator: Whom it lets in.
        authority: The policies, confirmed every second.
        budgets: What each principal has used.
        refusals: Requests of unknown people.
        exhausted: Budgets that were found used up.
        audit_key: Makes the digests of what was drawn.
        audit: Makes the digests of prompts and answers in the log, so that nobody else can test a guess.
        metrics: What a monitoring system may read.
        probes: Flags prompts that look like attempts to draw training text.
        windows: Sums up prompts, so that the log can show that somebody asks in another way than before.
        known: What was just read for the policies.
        telemetry: What an OpenTelemetry collector is told, if the settings name one.
    """

    workspace: Workspace
    authenticator: Authenticator
    authority: Authority
    budgets: Budgets
    refusals: "Refusals"
    exhausted: Exhausted
    audit_key: bytes
    audit: Callable[[bytes], bytes]
    metrics: Metrics
    probes: Probes
    windows: Windows
    known: Known
    telemetry: Telemetry | None

    @classmethod
    def of(cls, workspace: Workspace) -> "Desk":
        """Return the desk of an opened workspace."""
        people = workspace.people
        ground = people.ground
        pepper = ground.keys.secret("pepper", 1)
        audit_key = hmac_sha256(pepper, b"stanch/gateway/v1/audit")
        metrics = Metrics()
        metrics.watch_queue(lambda: workspace.ledger.waiting)
        budgets = Budgets(ground.tables, clock=ground.clock)
        return cls(
            workspace, authenticator_of(workspace),
            Authority(ground.tables, people.directory, refresh_ms=_REFRESH_MS, clock=ground.clock),
            budgets, Refusals(workspace), Exhausted(workspace, now_ms=budgets.now_ms),
            audit_key, hmac_prf(audit_key), metrics, Probes(hmac_sha256(pepper, b"stanch/gateway/v1/probe")),
            Windows(Features(hmac_sha256(pepper, b"stanch/gateway/v1/window")), ground.clock), Known(),
            Telemetry(endpoint) if (endpoint := workspace.config.gateway.otlp_endpoint) else None,
        )  # fmt: skip

    def authenticate(self, credential: Credential) -> Session:
        """Return the session of whoever asks.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        return self.authenticator.authenticate(credential)

    def recognise(self, credential: Credential) -> Session | None:
        """Return the session of whoever asks, if its key was seen just now; else :meth:`authenticate` has to be asked.

        It does not wait for the database; the intent's transaction confirms it.

        Raises:
            NotAuthenticated: For every reason the same.
        """
        return self.authenticator.recognise(credential)

    def forget(self) -> None:
        """Read afresh what is remembered of policies, keys and rights.

        Raises:
            StoreError: They could never be read.
            NotPermitted: They could not be confirmed for a minute.
        """
        self.known.forget()
        if self.authenticator.api_keys is not None:
            self.authenticator.api_keys.forget()
        self.authority.refresh()

    def judge(self, session: Session, model: ArtifactRef, actions: tuple[str, ...]) -> SessionJudge:
        """Return who says whether a session may do all of ``actions`` with a model."""
        judge = judge_of(session, self.workspace, self.authority, self.known, *actions)
        judge.recall(model)
        return judge

    def door(self, session: Session, judge: SessionJudge) -> Door:
        """Return the door through which a request of a session goes."""
        workspace = self.workspace
        own = workspace.door
        return Door(
            workspace.ledger, session, own.profile, judge, workspace.leases, own.witnessing, own.clock,
            is_quick=judge.is_quick,
        )  # fmt: skip

    async def keep_flushing(self) -> None:
        """Record once a minute what was counted and summed up, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            # The store may come back; what could not be recorded is kept.
            with contextlib.suppress(StanchError):
                await asyncio.to_thread(self.flush)

    async def keep_telling(self) -> None:
        """Tell the collector every ten seconds what happened, and once more when cancelled."""
        if self.telemetry is None:
            return
        try:
            while True:
                await asyncio.sleep(SEND_SECONDS)
                # It may come back, as may threads; the log does not depend on it.
                with contextlib.suppress(ExternalError, RuntimeError):
                    await asyncio.to_thread(self.telemetry.send)
        finally:
            with contextlib.suppress(ExternalError, RuntimeError):
                await asyncio.to_thread(self.telemetry.send)

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
        self.exhausted.flush()

    def check_writable(self) -> None:
        """Return if the log's database takes a change now.

        Raises:
            StoreError: It does not.
        """
        with self.workspace.tables.write():
            pass

    def may_infer(self, session: Session, model: ArtifactRef) -> bool:
        """Say whether a session may use a model now; a refusal here is no act, and is not recorded."""
        judge = judge_of(session, self.workspace, self.authority, self.known, INFER[1])
        return judge.decide(Request(INFER[0], INFER[1], model)).allowed


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


@functools.lru_cache(4096)
def network_of(address: str) -> str:
    """Return the network that stands for an address in the log: /24 of IPv4, /56 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    plain = getattr(found, "ipv4_mapped", None) or found
    return str(ipaddress.ip_network(f"{plain}/{24 if plain.version == 4 else 56}", strict=False))
