"""A person's own words that stand in rows beside their openings: they are erased together.

A suppression shows its reason, an incident its tasks, its custody and why nobody was told. The console keeps an answer
for a day, in which names may stand: of those every one goes, and a repeated request is then refused, not done again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, update

from stanch.access.revision import advance_facts
from stanch.ledger import LedgerReader
from stanch.ledger.entry import read_event
from stanch.ledger.erasure import Selection
from stanch.store.schema.console import console_reply
from stanch.watch.alert import ERASED
from stanch.watch.book import forget_reasons
from stanch.watch.incident import Holding, Incident, Notice, Statement, Task, forget_words
from stanch.watch.incident_book import list_incidents, save_incident
from stanch.workspace.verbs_alerts import QUIET
from stanch.workspace.verbs_incident import NO_NOTICE


@dataclass(frozen=True, slots=True)
class Words:
    """Erases words that a person wrote, or that were committed to before a time."""

    reader: LedgerReader
    selection: Selection

    def forget(self, connection: Connection, commitments: frozenset[str]) -> int:
        """Erase, in the caller's transaction, what the erased commitments were to; return how many reasons and words.

        Of a principal also those go whose openings an earlier erasure took.
        """
        advance_facts(connection)  # here, and not with the outcome: the rows are erased even where the files are not
        connection.execute(update(console_reply).where(console_reply.c.body.is_not(None)).values(body=None))
        asked, erased = self.selection, 0
        if asked.principal is not None or asked.field == QUIET:
            erased += forget_reasons(connection, asked.principal, asked.before_ms)
        for before in list_incidents(connection):
            after = self._without(before, commitments)
            if after != before:
                save_incident(connection, before, after)
                erased += _count(after) - _count(before)
        return erased

    def _without(self, incident: Incident, commitments: frozenset[str]) -> Incident:
        wordy = {one.entry for one in _written(incident) if one.what != ERASED}
        found = {index for index, _ in self._concerned(wordy, commitments)}
        waived = incident.entries if incident.no_notice not in {"", ERASED} else ()
        waiver = any(NO_NOTICE in fields for _, fields in self._concerned(waived, commitments))
        return forget_words(incident, found, waiver=waiver)

    def _concerned(self, entries: Iterable[int], commitments: frozenset[str]) -> list[tuple[int, Mapping[str, str]]]:
        """Return those of the entries whose words are erased, with what they commit to, by field."""
        found: list[tuple[int, Mapping[str, str]]] = []
        for index, data in self.reader.entries(entries).items():
            event = read_event(data)
            said = event.unmapped.stanch.commitments or {}
            if event.actor.user.uid == self.selection.principal or not commitments.isdisjoint(said.values()):
                found.append((index, said))
        return found


def _count(incident: Incident) -> int:
    said = (incident.no_notice, *(one.what for one in _written(incident)))
    return sum(words == ERASED for words in said)


def _written(incident: Incident) -> tuple[Holding | Notice | Statement | Task, ...]:
    return (*incident.tasks, *incident.custody, *incident.notices, *incident.statements)
