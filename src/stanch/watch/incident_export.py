"""What leaves of an incident: one JSON document and one page, each sentence with the entries that it rests on.

An entry stands here by reference: index, leaf hash and an inclusion proof, so that a stranger who holds a checkpoint
of the log can check that nothing was added, removed or moved; its content stays in the log.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stanch.crypto import canonical_json
from stanch.terms import JsonValue
from stanch.watch.incident import Incident

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
    """

    index: int
    kind: str
    phase: str
    time_ms: int
    principal: str
    leaf: str
    proof: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement, and the indexes of the entries that show it."""

    text: str
    entries: tuple[int, ...]


def state_facts(incident: Incident) -> tuple[Sentence, ...]:
    """Return what is known of an incident, sentence by sentence."""
    opened = incident.entries[:1] if not incident.contained else ()
    evidence = incident.entries
    lines = [
        Sentence(
            f"The incident was discovered at {_moment(incident.discovered_ms)}, as stated at "
            f"{_moment(incident.opened_ms)} by {incident.opened_by}.",
            opened or evidence,
        ),
        Sentence(f"The authority must be told by {_moment(incident.deadline_ms)} (GDPR Art. 33(1)).", evidence),
        Sentence(
            f"It concerns {len(incident.alerts)} alerts, {len(incident.principals)} principals and "
            f"{len(incident.artifacts)} models.",
            evidence,
        ),
    ]
    lines += [Sentence(f"Contained by {one.action}: {one.target}.", (one.entry,)) for one in incident.contained]
    if incident.notified_ms is not None:
        lines.append(Sentence(f"The authority was told at {_moment(incident.notified_ms)}.", evidence[-1:]))
    if incident.no_notice:
        lines.append(Sentence(f"No notice was given: {incident.no_notice}", evidence[-1:]))
    return tuple(lines)


def export_json(incident: Incident, records: Sequence[Record], origin: str) -> bytes:
    """Return the document."""
    rows: list[JsonValue] = [
        {"index": one.index, "kind": one.kind, "phase": one.phase, "time_ms": one.time_ms,
         "principal": one.principal, "leaf": one.leaf, "proof": one.proof}
        for one in records
    ]  # fmt: skip
    facts: list[JsonValue] = [{"text": one.text, "entries": list(one.entries)} for one in state_facts(incident)]
    return canonical_json({
        "schema": SCHEMA, "log": origin, "incident": incident.summary(), "facts": facts, "timeline": rows,
    })  # fmt: skip


def export_html(incident: Incident, records: Sequence[Record], origin: str) -> bytes:
    """Return the page: no script, no style of others, and every value escaped."""
    facts = "\n".join(f"<li>{html.escape(one.text)} {_links(one.entries)}</li>" for one in state_facts(incident))
    rows = "\n".join(
        f'<tr id="e{one.index}"><td>{one.index}</td><td>{_moment(one.time_ms)}</td><td>{html.escape(one.kind)} '
        f"{html.escape(one.phase)}</td><td>{html.escape(one.principal)}</td><td><code>{html.escape(one.leaf)}</code>"
        f'</td><td><a href="proofs/{one.index}.tlog-proof">proof</a></td></tr>'
        for one in records
    )
    title = f"Incident {html.escape(incident.id)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'"></head>\n'
        f"<body><h1>{title}</h1>\n<p>Log {html.escape(origin)}; state {incident.state}.</p>\n<ul>\n{facts}\n</ul>\n"
        "<table><thead><tr><th>entry</th><th>time</th><th>act</th><th>principal</th><th>leaf hash</th>"
        f"<th>inclusion</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table></body></html>\n"
    ).encode()


def _links(entries: tuple[int, ...]) -> str:
    return " ".join(f'<a href="#e{index}">[{index}]</a>' for index in entries)


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
