"""The authority of one node: the policies in force, confirmed again and again, and the decisions made under them."""

import threading
import time

from stanch.access.cache import DecisionCache, Question
from stanch.access.clock import Clock, milliseconds
from stanch.access.decision import Decision, decide
from stanch.access.directory import Directory
from stanch.access.facts import Context, ResourceFacts
from stanch.access.policy import ActivePolicies
from stanch.access.revision import Revision, read_revision
from stanch.access.session import Session
from stanch.access.versions import PolicyVersions
from stanch.errors import NotPermitted, StoreError
from stanch.store import Tables

UNCONFIRMED_MS = 60_000
"""For how long a node decides under policies that it could not confirm."""


class Authority:
    """Decides for one node.

    The versions of policies and facts are read again when the last reading is older than ``refresh_ms``. While they
    cannot be read the last ones count, for a minute at most; after that everything is refused.

    Args:
        tables: Where policies and facts are kept.
        directory: Who there is.
        refresh_ms: 0 reads the versions for every decision; a server takes 1,000.
        clock: Seconds since 1970.
    """

    def __init__(
        self, tables: Tables, directory: Directory, *, refresh_ms: int = 1000, clock: Clock = time.time
    ) -> None:
        self._tables = tables
        self._directory = directory
        self._refresh_ms = refresh_ms
        self._now = milliseconds(clock)
        self._versions = PolicyVersions(tables)
        self._cache = DecisionCache()
        self._lock = threading.Lock()
        self._confirmed: tuple[int, Revision, ActivePolicies] | None = None

    def policies(self) -> ActivePolicies:
        """Return the policies in force.

        Raises:
            NotPermitted: They could not be confirmed for a minute.
            StoreError: They could never be read.
        """
        return self._current()[1]

    def revision(self) -> Revision:
        """Return where facts and policies stood when they were last confirmed; errors as :meth:`policies`."""
        return self._current()[0]

    def refresh(self) -> None:
        """Confirm the policies now; errors as :meth:`policies`."""
        with self._lock:
            self._confirmed = self._confirm(self._confirmed, self._now())

    def decide(self, session: Session, action: str, resource: ResourceFacts, context: Context) -> Decision:
        """Decide about one request of an authenticated principal.

        Raises:
            NotAuthenticated: The session or its credential is no longer valid.
            NotPermitted: The policies could not be confirmed for a minute.
            InvalidInput: There is no such action.
        """
        revision, policies = self._current()
        now_ms = self._now()
        question = Question(session, action, resource, context, revision)
        found = self._cache.get(question, now_ms)
        if found is not None and now_ms < session.expires_ms:
            return found
        decision = decide(self._directory.facts(session), action, resource, context, policies)
        if not policies.asks_for_approvals(action):
            self._cache.put(question, decision, now_ms)
        return decision

    def _current(self) -> tuple[Revision, ActivePolicies]:
        now_ms = self._now()
        with self._lock:
            known = self._confirmed
            if known is None or not 0 <= now_ms - known[0] < self._refresh_ms:
                known = self._confirmed = self._confirm(known, now_ms)
        return known[1], known[2]

    def _confirm(
        self, known: tuple[int, Revision, ActivePolicies] | None, now_ms: int
    ) -> tuple[int, Revision, ActivePolicies]:
        try:
            with self._tables.read() as connection:
                revision = read_revision(connection)
            if known is not None and revision.policy == known[1].policy:
                return now_ms, revision, known[2]
            return now_ms, revision, self._versions.active().parse()
        except StoreError as error:
            if known is None:
                raise
            if 0 <= now_ms - known[0] < UNCONFIRMED_MS:
                return known
            raise NotPermitted(
                "nothing is permitted: the policies in force could not be confirmed for a minute",
                why=error.what,
                next_step="repair the database",
            ) from error
