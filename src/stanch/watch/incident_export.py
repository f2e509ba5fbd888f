"""What leaves of an incident: sentences, each with the entries that it rests on, and one JSON document.

An entry stands here by reference: index, leaf hash and an inclusion proof, so that a stranger who holds a checkpoint
of the log can check that nothing was added, removed or moved; its content stays in the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stanch.crypto import canonical_json
from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.watch.incident import HOUR_MS, Incident, Matter, Told

SCHEMA = "urn:stanch:incident-export:v1"


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the timeline by reference.

    Attributes:
        index: Its index in the log.
        kind: The kind of act.
        phase: ``intent``, ``outcome``, ``denied`` or ``note``.
        time_ms: When.
        principal: Pseudonymous id of who acted.
        leaf: Its leaf hash in the log (RFC 9162), in hex.
        proof: Its inclusion proof (C2SP tlog-proof).
        subjects: Digests of what it is about.
        result: How the act ended, in an outcome.
        payload: What it says; sentences are read from it, and it does not leave itself.
    """

    index: int
    kind: str
    phase: str
    time_ms: int
    principal: str
    leaf: str
    proof: str
    subjects: tuple[str, ...] = ()
    result: str = ""
    payload: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement, and the indexes of the entries that show it; without an entry there is no sentence.

    Raises:
        InvalidInput: It names no entry.
    """

    text: str
    entries: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise InvalidInput(f"incident: no entry shows: {self.text}")


def said(text: str, entries: Sequence[int]) -> tuple[Sentence, ...]:
    """Return the sentence, or none where no entry shows it."""
    return (Sentence(text, tuple(entries)),) if entries else ()


def opening_of(incident: Incident, records: Sequence[Record]) -> tuple[int, ...]:
    """Return the entry that says when the incident was discovered and which alerts belong to it."""
    stated: dict[str, JsonValue] = {"incident": incident.id, "discovered_ms": incident.discovered_ms}
    return _intents("watch.incident.open", stated, records)


def notice_of(incident: Incident, records: Sequence[Record]) -> tuple[int, ...]:
    """Return the entry that says when the authority was told first."""
    if incident.notified_ms is None:
        return ()
    stated: dict[str, JsonValue] = {
        "incident": incident.id, "change": "notify", "notified_ms": incident.notified_ms
    }  # fmt: skip
    others = _changes(stated | {"to": Told.PEOPLE.value}, records)  # earlier releases said of no notice whom it went to
    return tuple(entry for entry in _changes(stated, records) if entry not in others)


def waiver_of(incident: Incident, records: Sequence[Record]) -> tuple[int, ...]:
    """Return the entry that holds a commitment to the reason for which nobody was told."""
    if not incident.no_notice:
        return ()
    return _changes({"incident": incident.id, "change": "close"}, records)


def notices_of(incident: Incident, records: Sequence[Record], to: Told) -> tuple[Sentence, ...]:
    """Return when the authority, or the people concerned, were told."""
    said_of: list[Sentence] = []
    if to is Told.AUTHORITY and incident.notified_ms is not None:
        hours = (incident.notified_ms - incident.discovered_ms) / HOUR_MS
        late = "after" if incident.notified_ms > incident.deadline_ms else "within"
        said_of += said(
            f"The authority was told at {moment(incident.notified_ms)}, {hours:.1f} hours after the discovery: "
            f"{late} 72.", notice_of(incident, records),
        )  # fmt: skip
    for one in incident.notices:
        stated: dict[str, JsonValue] = {
            "incident": incident.id, "change": "notify", "notified_ms": one.at_ms, "to": one.to.value
        }  # fmt: skip
        shown = one.entry in _changes(stated, records)
        if one.to is not to or not shown or any(one.entry in sentence.entries for sentence in said_of):
            continue
        text = "The authority was told more" if to is Told.AUTHORITY else "The people concerned were told"
        said_of += said(f"{text} at {moment(one.at_ms)}.", (one.entry,))
    return tuple(said_of)


def reasons_of(incident: Incident, records: Sequence[Record]) -> tuple[Sentence, ...]:
    """Return why a notice to the authority came late."""
    changes = _changes({"incident": incident.id, "change": "notify", "to": Told.AUTHORITY.value}, records)
    return tuple(
        sentence for one in incident.notices if one.what and one.entry in changes
        for sentence in said(f"The notice of {moment(one.at_ms)} came late, for this reason: {one.what}", (one.entry,))
    )  # fmt: skip


def statements_of(incident: Incident, records: Sequence[Record], matter: Matter) -> tuple[Sentence, ...]:
    """Return what people stated of a matter; the log holds a commitment to the words."""
    changes = _changes({"incident": incident.id, "change": "state", "matter": matter.value}, records)
    return tuple(
        sentence for one in incident.statements if one.matter is matter and one.entry in changes
        for sentence in said(f"Stated: {one.what}", (one.entry,))
    )  # fmt: skip


def tasks_of(incident: Incident, records: Sequence[Record]) -> tuple[Sentence, ...]:
    """Return who does what by when, and what of it was done; the log holds a commitment to the words."""
    told: list[Sentence] = []
    for one in incident.tasks:
        given: dict[str, JsonValue] = {
            "incident": incident.id, "change": "task", "who": one.who, "due_ms": one.due_ms
        }  # fmt: skip
        if one.entry in _changes(given, records):
            told += said(f"Task {one.entry}, of {one.who} by {moment(one.due_ms)}: {one.what}", (one.entry,))
        done: dict[str, JsonValue] = {"incident": incident.id, "change": "task-done", "task": one.entry}
        if one.done_ms is not None:
            told += said(f"Task {one.entry} was done at {moment(one.done_ms)}.", _changes(done, records))
    return tuple(told)


def custody_of(incident: Incident, records: Sequence[Record]) -> tuple[Sentence, ...]:
    """Return who held which evidence from when on."""
    told: list[Sentence] = []
    for one in incident.custody:
        stated: dict[str, JsonValue] = {
            "incident": incident.id, "change": "custody", "digest": one.digest, "holder": one.holder,
            "since_ms": one.since_ms,
        }  # fmt: skip
        if one.entry in _changes(stated, records):
            told += said(f"{one.holder} held {one.digest} from {moment(one.since_ms)} on: {one.what}", (one.entry,))
    return tuple(told)


def state_facts(incident: Incident, records: Sequence[Record]) -> tuple[Sentence, ...]:
    """Return what the records show of an incident, sentence by sentence."""
    opened = opening_of(incident, records)
    held = {record.index for record in records}
    return (
        *said(
            f"The incident was discovered at {moment(incident.discovered_ms)}, as stated at "
            f"{moment(incident.opened_ms)} by {incident.opened_by}.", opened,
        ),
        *said(f"The authority must be told by {moment(incident.deadline_ms)} (GDPR Art. 33(1)).", opened),
        *said(
            f"It concerns {len(incident.alerts)} alerts, {len(incident.principals)} principals and "
            f"{len(incident.artifacts)} models.", opened,
        ),
        *(
            sentence for one in incident.contained if one.entry in held
            for sentence in said(f"Contained by {one.action}: {one.target}.", (one.entry,))
        ),
        *tasks_of(incident, records),
        *custody_of(incident, records),
        *(sentence for matter in Matter for sentence in statements_of(incident, records, matter)),
        *(sentence for to in Told for sentence in notices_of(incident, records, to)),
        *reasons_of(incident, records),
        *said(f"No notice was given: {incident.no_notice}", waiver_of(incident, records)),
    )  # fmt: skip


def export_json(incident: Incident, records: Sequence[Record], origin: str) -> bytes:
    """Return the document."""
    rows: list[JsonValue] = [
        {"index": one.index, "kind": one.kind, "phase": one.phase, "time_ms": one.time_ms,
         "principal": one.principal, "leaf": one.leaf, "proof": one.proof}
        for one in records
    ]  # fmt: skip
    facts: list[JsonValue] = [
        {"text": one.text, "entries": list(one.entries)} for one in state_facts(incident, records)
    ]
    return canonical_json({
        "schema": SCHEMA, "log": origin, "incident": incident.summary(), "facts": facts, "timeline": rows,
    })  # fmt: skip


def _changes(stated: Mapping[str, JsonValue], records: Sequence[Record]) -> tuple[int, ...]:
    return _intents("watch.incident.update", stated, records)


def _intents(kind: str, stated: Mapping[str, JsonValue], records: Sequence[Record]) -> tuple[int, ...]:
    """Return the intents of a kind whose payload says all of ``stated``."""
    return tuple(
        one.index for one in records
        if one.kind == kind and one.phase == "intent" and stated.items() <= {**one.payload}.items()
    )  # fmt: skip


def moment(time_ms: int) -> str:
    """Return a time in UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
