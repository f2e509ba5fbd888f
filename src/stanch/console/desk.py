"""Everything of a workspace that requests need, and the workspace as one browser or program sees it."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stanch.access import WORKSPACE, Authority, Decision, Session
from stanch.access.authenticator import Authenticator
from stanch.access.bootstrap import Bootstrap
from stanch.access.oidc import CodeFlow
from stanch.access.roll import names_of
from stanch.access.sessions import Sessions
from stanch.console.attempts import Attempts
from stanch.console.certificates import Certificates
from stanch.console.csrf import Csrf
from stanch.console.records import ModelRecords
from stanch.console.tally import DayCounts
from stanch.errors import StanchError
from stanch.ledger.asked import LastAsked
from stanch.trace.blocked import BlockedAnswers
from stanch.workspace import Door, Request, Workspace
from stanch.workspace.incoming import authenticator_of, code_flows
from stanch.workspace.past_requests import WEEK_MS
from stanch.workspace.people import NEEDED, PolicyJudge
from stanch.workspace.verbs_access import workspace_ref
from stanch.workspace.verbs_console import bootstrap_of, console_secret

CALLBACK = "/callback"
_REFRESH_MS = 1000


@dataclass(frozen=True, slots=True)
class Desk:
    """One for all requests.

    Attributes:
        workspace: The workspace that is shown; whoever serves it acts in it.
        address: What a browser's address line begins with, for example ``http://127.0.0.1:8402``.
        authenticator: Which programs are let in.
        flows: Where people sign in, by issuer.
        sessions: The browsers that are signed in.
        attempts: Sign-ins that are under way.
        bootstrap: One-time links.
        csrf: Tokens of forms.
        authority: The policies, confirmed every second.
        days: How many acts there were by day.
        records: What the log says of each model.
        blocked: What it says of blocked answers.
        asked: Who asked for what in the last week.
        certificates: The leak certificates that were verified.
    """

    workspace: Workspace
    address: str
    authenticator: Authenticator
    flows: Mapping[str, CodeFlow]
    sessions: Sessions
    attempts: Attempts
    bootstrap: Bootstrap
    csrf: Csrf
    authority: Authority
    days: DayCounts = field(default_factory=DayCounts)
    records: ModelRecords = field(default_factory=ModelRecords)
    blocked: BlockedAnswers = field(default_factory=BlockedAnswers)
    asked: LastAsked = field(default_factory=LastAsked)
    certificates: Certificates = field(default_factory=Certificates)

    @classmethod
    def of(cls, workspace: Workspace, address: str) -> "Desk":
        """Return the desk of an opened workspace.

        Raises:
            InvalidInput: An issuer or an authority of the settings cannot be used.
        """
        people = workspace.people
        ground, minutes = people.ground, workspace.config.access.session_minutes
        return cls(
            workspace, address, authenticator_of(workspace), code_flows(workspace, address + CALLBACK),
            Sessions(
                ground.tables, console_secret(workspace, "sessions"), minutes=minutes, clock=ground.clock
            ),
            Attempts(console_secret(workspace, "attempts")),
            bootstrap_of(workspace), Csrf(console_secret(workspace, "csrf")),
            Authority(ground.tables, people.directory, refresh_ms=_REFRESH_MS, clock=ground.clock),
        )  # fmt: skip

    def read_ahead(self) -> None:
        """Read what pages keep of the log, so that the first one need not; an error is told by the page that asks."""
        reader = self.workspace.ledger.reader()
        with contextlib.suppress(StanchError):
            self.days.upto_now(self.workspace.tables, reader.origin)
            self.records.upto_now(self.workspace.tables, reader.origin)
            self.blocked.read(reader)
            week = int(self.workspace.door.clock() * 1000) - WEEK_MS
            self.asked.since(self.workspace.tables, reader.origin, week)

    @property
    def secure(self) -> bool:
        """Whether browsers reach the console over TLS."""
        return self.address.startswith("https:")

    def acting(self, session: Session) -> Workspace:
        """Return the workspace with the principal of a session acting; what it does carries no local key's signature.

        Verbs that sign with a local key must not be handed this workspace: the key is that of whoever serves.
        """
        own = self.workspace
        people = replace(own.people, session=session, authority=self.authority, name="")
        judge = PolicyJudge(people, own.ledger.reader())
        door = Door(own.ledger, session, own.door.profile, judge, own.leases, own.door.witnessing, own.door.clock)
        return replace(own, people=people, door=door)


@dataclass(frozen=True, slots=True)
class Call:
    """One request of somebody who is signed in.

    Attributes:
        desk: The desk.
        session: Who asks.
        workspace: The workspace, with whoever asks acting.
        path: The parts of the address by their names in the route.
        cookie: The browser's cookie; empty for a program.
    """

    desk: Desk
    session: Session
    workspace: Workspace
    path: Mapping[str, str]
    cookie: str = ""

    def decide(self, action: str) -> Decision:
        """Ask the policies what a page may offer; a refusal here is no act, and is not recorded."""
        request = Request("", action, workspace_ref(self.workspace))
        return self.workspace.people.decide(request, self.workspace.ledger.reader())

    def may(self, action: str) -> bool:
        """Say whether whoever asks may do ``action`` in the workspace."""
        return self.decide(action).allowed

    def could(self, action: str) -> bool:
        """Say whether a role permits ``action`` in the workspace: with a second factor and two approvals."""
        people = self.workspace.people
        context = people.context_of(self.session.principal, mfa=True, involved=False, approvals=NEEDED)
        return people.authority.decide(self.session, action, WORKSPACE, context).allowed

    def names(self, principals: Iterable[str]) -> dict[str, str]:
        """Return what each of these principals is shown as; an erased one by its id."""
        with self.workspace.tables.read() as connection:
            return names_of(connection, principals)

    @property
    def now_ms(self) -> int:
        """The time."""
        return int(self.workspace.door.clock() * 1000)
