"""A report as one HTML file: no script, no request, every value escaped."""

from html import escape

from stanch.audit.page import figure, grid, page
from stanch.trace.report_blocks import Block, Bullets, Chart, Code, Paragraph, Report, Section, Table


def render_html(report: Report) -> str:
    """Return the page. The same report gives the same bytes."""
    head = (
        f'<header><h1>{escape(report.question)}</h1><p class="mute">{escape(report.about)}</p></header>'
        f'<div class="verdict {report.tone}" role="status"><strong>{escape(report.finding)}</strong>'
        f"{escape(report.sentence)}</div>"
    )
    return page(report.title, head + "".join(map(_section, report.sections)))


def _section(section: Section) -> str:
    return f"<section><h2>{escape(section.title)}</h2>{''.join(map(_block, section.blocks))}</section>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Code(text, label):
            return f"<p>{escape(f'{label} ' if label else '')}<code>{escape(text)}</code></p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in items)}</ul>"
        case Table(header, rows, title):
            return (f"<h3>{escape(title)}</h3>" if title else "") + grid(header, rows)
        case Chart(plot, caption, numbers):
            return figure(plot.svg(), caption, numbers.header, numbers.rows)
