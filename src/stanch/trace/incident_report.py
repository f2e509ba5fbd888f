"""Reports of an incident for a supervisory authority and for a customer: questions, and what the log answers.

Every sentence is read from entries of the log and names them by number and leaf hash; what no entry shows is not said,
and a question that stays without an answer says that it is unknown. So the report claims nothing that its reader cannot
ask to see.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from stanch.terms import JsonValue
from stanch.watch import Containment
from stanch.watch.alert import Alert
from stanch.watch.frameworks import FRAMEWORKS, sign_of
from stanch.watch.incident import HOUR_MS, Incident, Matter, Told
from stanch.watch.incident_export import (
    Record,
    Sentence,
    moment,
    notice_of,
    notices_of,
    opening_of,
    reasons_of,
    said,
    statements_of,
    waiver_of,
)

SCHEMA = "urn:stanch:incident-report:v1"
UNKNOWN = "Unknown: the log holds no record of this."


class Audience(StrEnum):
    """Who reads a report."""

    AUTHORITY = "authority"
    CUSTOMER = "customer"


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader asks, and who asks it of us; ``of`` empty: both."""

    id: str
    basis: str
    text: str
    of: Audience | None = None


QUESTIONS = (
    Question("discovery", "GDPR Art. 33(1)", "When did it become known, and until when must it be reported?"),
    Question("nature", "GDPR Art. 33(3)(a)", "What happened?"),
    Question("data", "GDPR Art. 33(3)(a)", "Which data came out, and how much?"),
    Question("people", "GDPR Art. 33(3)(a)", "Whose data is it, and about how many people?"),
    Question("models", "GDPR Art. 33(3)(a)", "Which models are concerned?"),
    Question("contact", "GDPR Art. 33(3)(b)", "Who can be asked for more?"),
    Question("consequences", "GDPR Art. 33(3)(c)", "What are the likely consequences?"),
    Question("measures", "GDPR Art. 33(3)(d)", "What was done?"),
    Question("notice", "GDPR Art. 33(1)", "When was the authority told?", Audience.AUTHORITY),
    Question("delay", "GDPR Art. 33(1), (5)", "If later than 72 hours or never: why?", Audience.AUTHORITY),
    Question("told", "GDPR Art. 34(1)", "Were the people concerned told?", Audience.AUTHORITY),
    Question("tests", "EDPB 28/2024, paragraph 55", "Was the model tested against attacks before?"),
    *(
        Question(name, f"EDPB 28/2024, paragraph {name.split()[-1]}",
                 f"Is there a sign of {FRAMEWORKS[name].partition(': ')[2]}?", Audience.AUTHORITY)
        for name in FRAMEWORKS if name.startswith("EDPB")
    ),
)  # fmt: skip
"""What is asked, in the order in which it is answered."""

_DONE = {
    Containment.REVOKE_KEY: "An API key was revoked",
    Containment.QUARANTINE_MODEL: "The model was put into quarantine: nobody can use or release it",
    Containment.LOWER_BUDGET: "What a principal may ask of the model was limited",
    Containment.WITHDRAW_RELEASE: "A copy was taken back from its recipient",
}
_TESTS = {"audit.run": "An audit of the model for leaks was run", "audit.gate": "The gate was asked about the model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a report is made from.

    Attributes:
        incident: The incident.
        alerts: Its alerts.
        records: Every entry of its timeline and of its alerts, and the audits of its models, in the log's order.
        log: The log's name.
        size: Entries under the checkpoint that the report rests on.
        root: Root hash (hex) in that checkpoint.
    """

    incident: Incident
    alerts: tuple[Alert, ...]
    records: tuple[Record, ...]
    log: str
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class IncidentReport:
    """A report: each question with its sentences, and the identifiers that the evidence points to with its entries."""

    evidence: Evidence
    audience: Audience
    answers: tuple[tuple[Question, tuple[Sentence, ...]], ...]
    identifiers: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Ids of the questions that no record answers."""
        return tuple(question.id for question, sentences in self.answers if not sentences)

    @property
    def records(self) -> tuple[Record, ...]:
        """The entries that a sentence or an identifier names."""
        named = {index for _, sentences in self.answers for one in sentences for index in one.entries}
        named |= {index for _, entries in self.identifiers for index in entries}
        return tuple(one for one in self.evidence.records if one.index in named)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report for machines; of an entry it holds number, kind, time and leaf hash."""
        found = self.evidence
        return {
            "schema": SCHEMA,
            "audience": self.audience.value,
            "incident": found.incident.id,
            "log": found.log,
            "checkpoint": {"size": found.size, "root": found.root},
            "questions": [
                {
                    "id": question.id, "basis": question.basis, "question": question.text, "known": bool(sentences),
                    "sentences": [{"text": one.text, "entries": list(one.entries)} for one in sentences],
                }
                for question, sentences in self.answers
            ],
            "identifiers": [
                {"id": name, "name": FRAMEWORKS[name], "entries": list(entries)} for name, entries in self.identifiers
            ],
            "records": [
                {"index": one.index, "kind": one.kind, "phase": one.phase, "time_ms": one.time_ms, "leaf": one.leaf}
                for one in self.records
            ],
        }  # fmt: skip


def report_incident(evidence: Evidence, audience: Audience) -> IncidentReport:
    """Answer the questions of a reader from entries of the log.

    A customer is told no key, no principal and no reason for a late notice or none. What a person stated of the
    incident is told to both: it was stated for that.
    """
    found = {
        "discovery": _discovery(evidence),
        "nature": _nature(evidence),
        "data": _data(evidence),
        "models": _models(evidence),
        "consequences": _consequences(evidence),
        "measures": _measures(evidence, audience),
        "notice": notices_of(evidence.incident, evidence.records, Told.AUTHORITY),
        "delay": _delay(evidence),
        "told": notices_of(evidence.incident, evidence.records, Told.PEOPLE),
        "tests": _tests(evidence),
    }
    for matter in Matter:
        stated = statements_of(evidence.incident, evidence.records, matter)
        found[matter.value] = (*found.get(matter.value, ()), *stated)
    identifiers = _identifiers(evidence)
    for name, entries in identifiers:
        found[name] = said("Alarms of detectors point to it; they are a sign, not a proof.", entries)
    asked = [question for question in QUESTIONS if question.of in {None, audience}]
    answers = tuple((question, found.get(question.id, ())) for question in asked)
    return IncidentReport(evidence, audience, answers, identifiers)


def _discovery(evidence: Evidence) -> tuple[Sentence, ...]:
    incident = evidence.incident
    text = (
        f"It was discovered at {moment(incident.discovered_ms)}, as was stated at {moment(incident.opened_ms)}; the "
        f"72 hours end at {moment(incident.deadline_ms)}."
    )
    return said(text, opening_of(incident, evidence.records))


def _nature(evidence: Evidence) -> tuple[Sentence, ...]:
    lines: list[Sentence] = []
    for alert in evidence.alerts:
        shown = _of_alert(evidence, alert)
        if shown:
            lines += said(
                f"Detector {alert.detector} gave an alarm about {alert.signal}; it rests on acts between "
                f"{moment(min(one.time_ms for one in shown))} and {moment(max(one.time_ms for one in shown))}.",
                [one.index for one in shown],
            )
    shown = _shown(evidence)
    for kind in sorted({one.kind for one in shown}):
        mine = [one for one in shown if one.kind == kind]
        people = len({one.principal for one in mine})
        lines += said(
            f"Among them are {_count(len(mine), 'record')} of {kind}, by {_count(people, 'principal')}.",
            [one.index for one in mine],
        )
    return tuple(lines)


def _data(evidence: Evidence) -> tuple[Sentence, ...]:
    """Return what answers held, as their outcomes say; counts only, never text."""
    answers = [one for one in _shown(evidence) if one.kind == "gateway.infer" and one.phase == "outcome"]
    if not answers:
        return ()
    every = [one.index for one in answers]
    verdicts = Counter(str(one.payload.get("verdict", "")) for one in answers)
    released, drawn = (sum(_number(one.payload.get(name)) for one in answers) for name in ("released", "drawn"))
    lines = [
        *said(
            f"{_count(len(answers), 'answer')} of a model gave an alarm: {verdicts['block']} were stopped, "
            f"{verdicts['redact']} had parts removed.", every,
        ),
        *said(f"{_count(released, 'character')} of these answers went out.", every),
        *said(f"{_count(drawn, 'protected window')} of training text went out with them at most.", every),
    ]  # fmt: skip
    kinds = sorted({kind for one in answers for kind in _findings(one)})
    for kind in kinds:
        mine = [one for one in answers if _findings(one).get(kind)]
        count = sum(_findings(one)[kind] for one in mine)
        lines += said(
            f"The filter found {kind} in them, {_count(count, 'time')}; what it finds is removed or stopped.",
            [one.index for one in mine],
        )
    return tuple(lines)


def _models(evidence: Evidence) -> tuple[Sentence, ...]:
    lines: list[Sentence] = []
    for digest in evidence.incident.artifacts:
        lines += said(f"Model {digest}.", [one.index for one in _shown(evidence) if digest in one.subjects])
    return tuple(lines)


def _consequences(evidence: Evidence) -> tuple[Sentence, ...]:
    meant: dict[str, set[int]] = {}
    for alert in evidence.alerts:
        means = sign_of(alert.detector, alert.signal).means
        if means:
            meant.setdefault(means, set()).update(one.index for one in _of_alert(evidence, alert))
    return tuple(
        sentence for means, entries in meant.items()
        for sentence in said(f"{means[0].upper()}{means[1:]}.", sorted(entries))
    )  # fmt: skip


def _measures(evidence: Evidence, audience: Audience) -> tuple[Sentence, ...]:
    lines: list[Sentence] = []
    for done in evidence.incident.contained:
        for record in (one for one in evidence.records if one.index == done.entry):
            hours = (record.time_ms - evidence.incident.discovered_ms) / HOUR_MS
            what = f" ({done.target})" if audience is Audience.AUTHORITY else ""
            lines += said(
                f"{_DONE[done.action]}{what}, at {moment(record.time_ms)}, {hours:.1f} hours after the discovery.",
                (record.index,),
            )
    return tuple(lines)


def _delay(evidence: Evidence) -> tuple[Sentence, ...]:
    incident = evidence.incident
    if incident.notified_ms is not None and incident.notified_ms <= incident.deadline_ms:
        return said("There was no delay.", notice_of(incident, evidence.records))
    text = f"The authority was not told, for this reason: {incident.no_notice}"
    return (*reasons_of(incident, evidence.records), *said(text, waiver_of(incident, evidence.records)))


def _tests(evidence: Evidence) -> tuple[Sentence, ...]:
    lines: list[Sentence] = []
    for record in evidence.records:
        if record.kind in _TESTS and record.phase == "outcome":
            verdict = record.payload.get("verdict") or record.result
            lines += said(f"{_TESTS[record.kind]}, until {moment(record.time_ms)}: {verdict}.", (record.index,))
    return tuple(lines)


def _identifiers(evidence: Evidence) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the identifiers that the alarms point to, in the table's order, each with its entries."""
    found: dict[str, set[int]] = {}
    for alert in evidence.alerts:
        shown = {one.index for one in _of_alert(evidence, alert)}
        for name in sign_of(alert.detector, alert.signal).maps if shown else ():
            found.setdefault(name, set()).update(shown)
    return tuple((name, tuple(sorted(found[name]))) for name in FRAMEWORKS if name in found)


def _of_alert(evidence: Evidence, alert: Alert) -> list[Record]:
    return [one for one in evidence.records if one.index in alert.entries]


def _shown(evidence: Evidence) -> list[Record]:
    """Return the entries that some alert rests on."""
    named = {index for alert in evidence.alerts for index in alert.entries}
    return [one for one in evidence.records if one.index in named]


def _findings(record: Record) -> Mapping[str, int]:
    found = record.payload.get("findings")
    return {kind: _number(count) for kind, count in found.items()} if isinstance(found, dict) else {}


def _number(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
