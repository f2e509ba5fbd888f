"""Who asked for what in the last week, whether it was permitted or not: what a change of the policies is tried on."""

from collections import defaultdict
from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from stanch.access import ResourceFacts
from stanch.errors import InvalidInput
from stanch.ledger import EntryQuery, LedgerReader
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.kinds import KINDS
from stanch.workspace.people import People

DAYS = 7
_DAY_MS = 86_400_000
_STATES = (("intent", 99), ("denied", 2))


class _User(Struct, gc=False):
    uid: str


class _Actor(Struct, gc=False):
    user: _User


class _Ours(Struct, gc=False):
    kind: str = ""
    subject: Raw = Raw(b"[]")


class _Unmapped(Struct, gc=False):
    stanch: _Ours


class _Told(Struct, gc=False):
    """What is read of an entry here; the whole of it takes ten times as long."""

    actor: _Actor
    unmapped: _Unmapped


class _Subject(Struct, frozen=True, gc=False):
    kind: str
    name: str
    digest: str


_TOLD, _SUBJECTS = msgspec.json.Decoder(_Told), msgspec.json.Decoder(tuple[_Subject, ...])


def past_requests(people: People, reader: LedgerReader, now_ms: int) -> dict[tuple[str, ResourceFacts], set[str]]:
    """Return who asked, by action and by what is known now of the resource.

    The entries are read as they lie there: ``stanch log verify`` checks them.

    Raises:
        InvalidInput: An entry is malformed.
    """
    asked = defaultdict[tuple[str, bytes], set[str]](set)
    try:
        for told in _week(reader, now_ms):
            ours = told.unmapped.stanch
            if ours.kind in KINDS:
                asked[KINDS[ours.kind].action, bytes(ours.subject)].add(told.actor.user.uid)
        subjects = {subject: _SUBJECTS.decode(subject) for _, subject in asked}
    except msgspec.DecodeError as error:
        raise InvalidInput("log: an entry of the last week is malformed", next_step="stanch log verify") from error
    facts = {
        one: people.resource_facts(ArtifactRef(one.kind, one.name, Digest.parse(one.digest)))
        for one in {one for some in subjects.values() for one in some}
    }
    found = defaultdict[tuple[str, ResourceFacts], set[str]](set)
    for (action, subject), principals in asked.items():
        for one in subjects[subject]:
            found[action, facts[one]] |= principals
    return found


def _week(reader: LedgerReader, now_ms: int) -> Iterator[_Told]:
    """Yield the beginnings and refusals of a week, a day at a time, so that not all of them are held."""
    for day in range(DAYS, 0, -1):
        since_ms = now_ms - day * _DAY_MS
        for phase, status in _STATES:
            query = EntryQuery(phase=phase, status=status, since_ms=since_ms, until_ms=since_ms + _DAY_MS)
            yield from (_TOLD.decode(data) for _, data in reader.select(query))
