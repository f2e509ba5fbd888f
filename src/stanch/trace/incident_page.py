"""The pages of an incident: its export and its reports. No script, all escaped, each sentence with its entries."""

from collections.abc import Sequence
from html import escape

from stanch.audit.page import page
from stanch.trace.incident_report import UNKNOWN, Audience, IncidentReport
from stanch.watch.frameworks import FRAMEWORKS
from stanch.watch.incident import Incident
from stanch.watch.incident_export import Record, Sentence, moment, state_facts

_TITLES = {
    Audience.AUTHORITY: "Report of an incident to the supervisory authority",
    Audience.CUSTOMER: "Report of an incident to a customer",
}


def render_export(incident: Incident, records: Sequence[Record], origin: str) -> str:
    """Return the page of an export: all that the records show, and whoever acted by pseudonymous id."""
    title = f"Incident {incident.id}"
    body = (
        f'<header><h1>{escape(title)}</h1><p class="mute">Log {escape(origin)}; state {incident.state}.</p></header>'
        f"<section><h2>What the log shows</h2>{_answer(state_facts(incident, records))}</section>"
        f"<section><h2>The records</h2>{_records(records, with_principals=True)}</section>"
    )
    return page(title, body)


def render_incident(report: IncidentReport) -> str:
    """Return the page. The same report gives the same bytes."""
    found, title = report.evidence, _TITLES[report.audience]
    questions = "".join(
        f'<section><h2>{escape(question.text)}</h2><p class="mute">{escape(question.basis)}</p>{_answer(sentences)}'
        "</section>"
        for question, sentences in report.answers
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(FRAMEWORKS[name])}</td><td>{_links(entries)}</td></tr>"
        for name, entries in report.identifiers
    )
    mapped = _table(("Identifier", "Names", "Entries"), rows) if rows else f"<p>{UNKNOWN}</p>"
    body = (
        f'<header><h1>{title}</h1><p class="mute">Incident {escape(found.incident.id)}, log {escape(found.log)}</p>'
        f"</header>{questions}<section><h2>What the evidence points to</h2>{mapped}</section>"
        f"<section><h2>The records</h2>{_records(report.records)}</section>"
        "<section><h2>How to check this</h2><p>Each number in brackets is an entry of the log, which the owner can be "
        "asked to show. Its leaf hash stands above and its proof of inclusion lies beside this page; both belong to "
        f"the first {found.size} entries of the log, with root hash <code>{escape(found.root)}</code>. "
        "What was never recorded is not said here.</p></section>"
    )
    return page(title, body)


def _records(records: Sequence[Record], *, with_principals: bool = False) -> str:
    """Return the entries, with who acted only where the page stays in the house."""
    who = ("Principal",) if with_principals else ()
    rows = "".join(
        f'<tr id="e{one.index}"><td class="n">{one.index}</td><td>{moment(one.time_ms)}</td><td>{escape(one.kind)} '
        f"{escape(one.phase)}</td>{f'<td>{escape(one.principal)}</td>' if who else ''}"
        f"<td><code>{escape(one.leaf)}</code></td>"
        f'<td><a href="proofs/{one.index}.tlog-proof">proof</a></td></tr>'
        for one in records
    )
    return _table(("Entry", "Time", "Act", *who, "Leaf hash", "Inclusion"), rows)


def _answer(sentences: tuple[Sentence, ...]) -> str:
    lines = "".join(f"<li>{escape(one.text)} {_links(one.entries)}</li>" for one in sentences)
    return f"<ul>{lines}</ul>" if lines else f'<p class="unknown">{UNKNOWN}</p>'


def _links(entries: tuple[int, ...]) -> str:
    return " ".join(f'<a href="#e{index}">[{index}]</a>' for index in entries)


def _table(header: tuple[str, ...], rows: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
