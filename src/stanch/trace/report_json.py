"""A report as JSON: what the page says, in its order, and the decision with its numbers."""

from stanch.crypto import canonical_json
from stanch.terms import JsonValue
from stanch.trace.report_blocks import Block, Bullets, Chart, Code, Paragraph, Report, Table

SCHEMA = "urn:stanch:trace-report:v1"


def render_json(report: Report) -> bytes:
    """Return the report as canonical JSON (RFC 8785); ``docs/spec/evidence-pack.md`` says what is in it."""
    sections: list[JsonValue] = [
        {"title": section.title, "blocks": [_block(block) for block in section.blocks]} for section in report.sections
    ]
    return canonical_json({
        "schema": SCHEMA, "title": report.title, "question": report.question, "about": report.about,
        "finding": report.finding, "sentence": report.sentence, "made_at": report.made_at, "result": report.result,
        "sections": sections,
    })  # fmt: skip


def _block(block: Block) -> JsonValue:
    match block:
        case Paragraph(text):
            return {"text": text}
        case Code(text, label):
            return {"code": text, "label": label}
        case Bullets(items):
            return {"list": list(items)}
        case Table():
            return _table(block)
        case Chart(_, caption, numbers):
            return {"chart": caption, "numbers": _table(numbers)}


def _table(table: Table) -> JsonValue:
    rows: list[JsonValue] = [
        [value if isinstance(value, int | float | str) else str(value) for value in row] for row in table.rows
    ]
    return {"table": table.title, "header": list(table.header), "rows": rows}
