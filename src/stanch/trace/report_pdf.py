"""A report as a PDF: A4, text that can be selected, bookmarks, page numbers; its fonts travel with it.

Nothing of a case is read as markup, and nothing of the clock or of the machine enters the file. What the fonts lack,
what cannot be printed, and what is written from right to left stands as its code point, ‹U+202E›: it cannot hide or
reorder what stands beside it.
"""

import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from itertools import zip_longest

from stanch import __version__
from stanch.audit.page import in_cell
from stanch.audit.plot import CHART_CSS
from stanch.errors import MissingExtraError
from stanch.trace.report_blocks import Block, Bullets, Chart, Code, Paragraph, Report, Row, Section, Table

_FONTS = {
    ("sans", ""): "DejaVuSansCondensed.ttf",
    ("sans", "B"): "DejaVuSansCondensed-Bold.ttf",
    ("mono", ""): "DejaVuSansMono.ttf",
}
_MARGIN, _WIDTH = 20.0, 170.0  # millimetres, of A4
_LINE = 5.0
_TEXT, _SMALL = 9.5, 8.0  # points
_INK, _MUTE, _EDGE = (31, 41, 51), (82, 96, 109), (217, 224, 231)
_TONES = {"bad": ((166, 27, 27), (253, 234, 234)), "open": ((138, 90, 0), (255, 245, 221))}
"""Ink and paper of the finding."""
_LONGEST_CELL = 700  # characters: a row that no page holds is carried on in the next row
_ROOM, _WORD = 36, 26  # characters of its longest text, and of its longest word, that a column is given room for


def render_pdf(report: Report) -> bytes:
    """Return the file. The same report gives the same bytes.

    Raises:
        MissingExtraError: The extra ``pdf`` is missing.
    """
    pages = _Pages(report)
    pages.head(report)
    charts: list[Table] = []
    for section in report.sections:
        pages.section(section)
        charts += [block.numbers for block in section.blocks if isinstance(block, Chart)]
    if charts:
        pages.section(Section("Numbers of the charts", tuple(charts)))
    return pages.finish(report.about)


class _Pages:
    """The pages that are being written."""

    def __init__(self, report: Report) -> None:
        try:
            from fpdf import FPDF  # noqa: PLC0415 - an optional part
            from fpdf.fonts import TTFFont  # noqa: PLC0415 - same
        except ImportError as error:
            raise MissingExtraError("pdf") from error
        self.pdf: FPDF = FPDF(format="A4")
        folder = resources.files("stanch.trace") / "fonts"
        for (family, style), name in _FONTS.items():
            with resources.as_file(folder / name) as path:
                self.pdf.add_font(family, style, path)
        self._known = {key: frozenset(font.cmap) for key, font in self.pdf.fonts.items() if isinstance(font, TTFFont)}
        self.pdf.set_creation_date(datetime.fromisoformat(report.made_at))
        self.pdf.set_title(self.plain(report.title))
        self.pdf.set_creator(f"stanch {__version__}")
        self.pdf.set_lang("en")
        self.pdf.alias_nb_pages("")  # else {nb} in a text would become the number of pages
        self.pdf.set_margins(_MARGIN, _MARGIN)
        self.pdf.set_auto_page_break(auto=True, margin=_MARGIN)
        self.pdf.add_page()

    def plain(self, text: str, font: str = "sans") -> str:
        """Return the text with white space as blanks, and what cannot be printed faithfully as its code point."""
        known = self._known[font]
        return "".join(
            " " if c in "\t\n\r\u00a0" else c if ord(c) in known and _faithful(c) else f"‹U+{ord(c):04X}›" for c in text
        )

    def head(self, report: Report) -> None:
        self._write(report.question, size=19, style="B", line=9)
        self._write(report.about, ink=_MUTE)
        self.pdf.ln(3)
        ink, paper = _TONES[report.tone]
        self.pdf.set_draw_color(*ink)
        self.pdf.set_fill_color(*paper)
        self.pdf.set_line_width(1.2)
        top = self.pdf.get_y()
        self._write(report.finding, size=13, style="B", line=8, ink=ink, inside=True)
        self._write(report.sentence, inside=True)
        if self.pdf.page == 1:
            self.pdf.line(_MARGIN, top, _MARGIN, self.pdf.get_y())
        self.pdf.set_line_width(0.2)

    def section(self, section: Section) -> None:
        self._room(42)
        self.pdf.ln(5)
        self.pdf.start_section(self.plain(section.title))
        self._write(section.title, size=13, style="B", line=7)
        self.pdf.ln(1)
        for block in section.blocks:
            self._block(block)

    def _block(self, block: Block) -> None:
        match block:
            case Paragraph(text):
                self._write(text)
                self.pdf.ln(1.5)
            case Code(text, label):
                if label:
                    self._write(label, ink=_MUTE)
                self._write(text, font="mono", size=_SMALL)
                self.pdf.ln(1.5)
            case Bullets(items):
                for text in items:
                    self.pdf.set_x(_MARGIN + 1)
                    self.pdf.cell(4, _LINE, "•")
                    self._write(text, indent=5)
                self.pdf.ln(1.5)
            case Table():
                self._table(block)
            case Chart(plot, caption, _):
                self._room(105)
                drawn = self.plain(_for_print(plot.svg()))
                self.pdf.image(io.BytesIO(drawn.encode()), x=_MARGIN, w=_WIDTH, alt_text=self.plain(caption))
                self._write(caption, size=_SMALL, ink=_MUTE)
                self.pdf.ln(2)

    def _write(  # noqa: PLR0913 - how a text looks
        self, text: str, *, font: str = "sans", size: float = _TEXT, style: str = "", line: float = _LINE,
        ink: tuple[int, int, int] = _INK, indent: float = 0, inside: bool = False,
    ) -> None:  # fmt: skip
        """Write a text over the whole width, or inside the box of the finding."""
        self.pdf.set_font(font, "B" if style else "", size)
        self.pdf.set_text_color(*ink)
        self.pdf.set_x(_MARGIN + indent)
        known = font + style
        self.pdf.multi_cell(
            _WIDTH - indent, line, self.plain(text, known), align="L", fill=inside, new_x="LMARGIN", new_y="NEXT",
            padding=(0, 4, 0, 4) if inside else 0,
        )  # fmt: skip

    def _room(self, height: float) -> None:
        """Begin a new page where less than ``height`` millimetres are left."""
        if self.pdf.will_page_break(height):
            self.pdf.add_page()

    def _table(self, table: Table) -> None:
        from fpdf.fonts import FontFace  # noqa: PLC0415 - an optional part, checked before

        self._room(20)
        if table.title:
            self._write(table.title, size=10.5, style="B", line=7)
        numeric = [isinstance(value, int | float) for value in (table.rows[0] if table.rows else table.header)]
        rows = [cells for row in table.rows for cells in self._cells(row)]
        header = [self.plain(name, "sansB") for name in table.header]
        self.pdf.set_font("sans", "", _SMALL)
        self.pdf.set_text_color(*_INK)
        self.pdf.set_draw_color(*_EDGE)
        self.pdf.set_fill_color(255)
        with self.pdf.table(
            width=int(_WIDTH), col_widths=_widths([header, *rows]), line_height=4.2, padding=(0.6, 1.5, 0.6, 1.5),
            borders_layout="HORIZONTAL_LINES", v_align="TOP", repeat_headings=1,
            text_align=tuple("RIGHT" if right else "LEFT" for right in numeric),
            headings_style=FontFace(emphasis="BOLD", color=_MUTE),
        ) as drawn:  # fmt: skip
            for cells in (header, *rows):
                drawn.row(cells)
        self.pdf.ln(3)

    def _cells(self, row: Row) -> list[list[str]]:
        """Return a row's texts; those that are too long go on in further rows."""
        parts = []
        for value in row:
            text = self.plain(in_cell(value))
            parts.append([text[i : i + _LONGEST_CELL] for i in range(0, len(text), _LONGEST_CELL)] or [""])
        return [list(cells) for cells in zip_longest(*parts, fillvalue="")]

    def finish(self, about: str) -> bytes:
        """Number the pages and return the file."""
        self.pdf.set_auto_page_break(auto=False)
        self.pdf.set_text_color(*_MUTE)
        total = self.pdf.pages_count
        for number in range(1, total + 1):
            self.pdf.page = number
            self.pdf.set_font("mono")  # fpdf2 writes a font down where it changes: on each of these pages, it must
            self.pdf.set_font("sans", "", _SMALL)
            self.pdf.set_xy(_MARGIN, -14)
            self.pdf.cell(_WIDTH, _LINE, f"{self.plain(about)} · page {number} of {total}", align="R")
        return bytes(self.pdf.output())


def _faithful(character: str) -> bool:
    """Say whether a character stands for itself alone, from left to right."""
    return character.isprintable() and unicodedata.bidirectional(character) not in {"R", "AL", "AN", "NSM"}


def _widths(rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return how wide columns are beside each other: as their longest text within limits, but no word is cut in two."""
    return tuple(
        4 + max(min(max(map(len, texts)), _ROOM), min(max(len(word) for text in texts for word in text.split()), _WORD))
        for texts in (tuple(filter(str.strip, column)) or ("-",) for column in zip(*rows, strict=True))
    )


def _for_print(svg: str) -> str:
    """Return a chart with the styles of its classes in plain colours, and in the report's font."""
    plain = CHART_CSS.partition("@media")[0]
    colours = dict(re.findall(r"(--\w+):(#[0-9a-f]+)", plain))
    rules = re.sub(r"var\((--\w+)\)", lambda found: colours[found[1]], plain)
    style = "".join(f".{name}{{{rule}}}" for name, rule in re.findall(r"\.stanch-chart \.(\w+)\{([^}]*)\}", rules))
    text = f'<text font-family="sans" font-size="12" fill="{colours["--ink"]}" '
    bare = re.sub(r"<title>[^<]*</title><desc>[^<]*</desc>", f"<style>{style}</style>", svg, count=1)
    return bare.replace("<text ", text)
