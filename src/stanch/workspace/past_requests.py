"""Who asked for what in the last week, whether it was permitted or not: what a change of the policies is tried on."""

from collections import defaultdict

import msgspec
from msgspec import Struct

from stanch.access import ResourceFacts
from stanch.errors import InvalidInput
from stanch.ledger import LedgerReader
from stanch.ledger.asked import LastAsked
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.kinds import KINDS
from stanch.workspace.people import People

WEEK_MS = 7 * 86_400_000


class _Subject(Struct, frozen=True, gc=False):
    kind: str
    name: str
    digest: str


_SUBJECTS = msgspec.json.Decoder(tuple[_Subject, ...])


def past_requests(
    people: People, reader: LedgerReader, now_ms: int, last: LastAsked
) -> dict[tuple[str, ResourceFacts], set[str]]:
    """Return who asked, by action and by what is known now of the resource.

    The query index is read as it is, as far as ``last`` has not read it: ``stanch log verify`` checks it.

    Raises:
        InvalidInput: A row of it is malformed.
    """
    asked = last.since(reader.tables, reader.origin, now_ms - WEEK_MS)
    try:
        named = {subjects: _SUBJECTS.decode(subjects) for _, subjects in asked if subjects}
        about = {one for listed in named.values() for one in listed}
        refs = [ArtifactRef(one.kind, one.name, Digest.parse(one.digest)) for one in about]
        facts = dict(zip(about, people.facts_of_resources(refs), strict=True))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput("log: an entry of the last week is malformed", next_step="stanch log verify") from error
    found = defaultdict[tuple[str, ResourceFacts], set[str]](set)
    for (kind, subjects), principals in asked.items():
        if kind in KINDS:
            for one in named.get(subjects, ()):
                found[KINDS[kind].action, facts[one]] |= principals
    return found
