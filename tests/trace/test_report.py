"""The report as HTML and as PDF: the same facts, the same bytes every time, whatever a case says of itself."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
from pypdf import PdfReader
from trace_world import CASE_KEY, RECIPIENTS, make_adapter

from stanch.errors import InvalidInput, MissingExtraError
from stanch.trace import (
    Inconclusive,
    PackForm,
    Reason,
    error_sentence,
    render_html,
    render_json,
    render_pdf,
    report_case,
    report_nobody,
    verify_pack,
)
from stanch.trace.report_blocks import Bullets, Chart, Code, Paragraph, Section, Table
from stanch.trace.wording import NOT_DECIDED

AGAIN = """
import pickle, sys
from stanch.trace import render_pdf
sys.stdout.buffer.write(render_pdf(pickle.loads(sys.stdin.buffer.read())))
"""


class Texts(HTMLParser):
    """Collects what a page shows, also inside its charts."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.inside = [], []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - a method of the parser
        if tag != "meta":
            self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip() and not {"style", "title", "desc", "summary"} & set(self.inside):
            self.found.append(data)


def squeeze(text):
    return "".join(text.split())


def read(data):
    return PdfReader(io.BytesIO(data))


def text_of(data):
    return squeeze("".join(page.extract_text() for page in read(data).pages))


@pytest.fixture(scope="module")
def report(world, stolen):
    return report_case(stolen.case, stolen.decision, stolen.examination, world.release)


@pytest.fixture(scope="module")
def pdf(report):
    return render_pdf(report)


def test_the_pdf_says_what_the_page_says(report, pdf):
    page = Texts()
    page.feed(render_html(report))
    told, shown = text_of(pdf), {squeeze(text) for text in page.found}
    assert len(shown) > 150
    assert {text for text in shown if text not in told} == set()
    assert "‹U+" not in told  # every word of ours is printed as it is


def test_the_pdf_has_a_title_bookmarks_and_page_numbers(report, pdf):
    opened = read(pdf)
    assert opened.metadata.title == report.title
    assert opened.metadata.creation_date.isoformat().replace("+00:00", "Z") == report.made_at
    titles = [section.title for section in report.sections]
    assert [mark.title for mark in opened.outline] == [*titles, "Numbers of the charts"]
    total = len(opened.pages)
    assert total > 2
    for number, page in enumerate(opened.pages, start=1):
        assert f"page {number} of {total}" in page.extract_text()


def test_the_same_report_gives_the_same_bytes_elsewhere_and_later(report, pdf):
    environment = os.environ | {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", AGAIN]
    ran = subprocess.run(command, input=pickle.dumps(report), env=environment, capture_output=True, check=True)
    assert ran.stdout == pdf


HOSTILE = (
    "</p><b>x</b> & ${nb} {nb} \\ %PDF ) endstream"
    " \x00\x07\x1b[31m \u202eliame\u202c مرحبا שלום 漢字 🙂 a\u0301 \ud800 τ é"
)
SEEN = ("</p><b>x</b>&${nb}{nb}\\%PDF)endstream", "‹U+0000›‹U+0007›‹U+001B›[31m", "‹U+202E›liame‹U+202C›",
        "‹U+0645›", "‹U+05E9›", "‹U+6F22›‹U+5B57›", "‹U+1F642›", "a‹U+0301›", "‹U+D800›τé")  # fmt: skip


def test_hostile_words_cannot_break_or_hide(report):
    many = Table(("File", "Bytes"), tuple((f"{HOSTILE}{number}", number) for number in range(6)))
    long = Table(("Name", "Note"), (("x" * 1500, HOSTILE), (HOSTILE, "y z " * 400)))
    words = (Paragraph(HOSTILE), Paragraph("w" * 3000), Code(HOSTILE, HOSTILE), Bullets((HOSTILE, "v" * 900)))
    told = text_of(
        render_pdf(
            replace(
                report,
                title=HOSTILE, about=HOSTILE, finding=HOSTILE * 3, sentence=HOSTILE * 9,
                sections=(Section(HOSTILE, (*words, many, long)), *report.sections),
            )
        )
    )  # fmt: skip
    for seen in SEEN:
        assert told.count(seen) > 20
    assert not set("\u202e\x00\x07مש漢🙂") & set(told)
    assert told.count("x") >= 1500
    assert told.count("yz") == 400
    assert told.count("w") >= 3000
    assert told.count("v") >= 900


def test_a_chart_whose_names_are_hostile_is_drawn(report):
    result = next(section for section in report.sections if section.title == "The result")
    chart = next(block for block in result.blocks if hasattr(block, "plot"))
    chart.plot.note((1.0, 1.0), HOSTILE[:90])
    try:
        assert "‹U+0000›" in text_of(render_pdf(replace(report, sections=(Section("One", (chart,)),))))
    finally:
        chart.plot._marks.pop()


def test_a_pack_holds_the_pdf_where_it_is_asked_for(world, stolen, evidence, pdf, tmp_path):
    made = world.pack(stolen, tmp_path / "pack.zip", form=PackForm(CASE_KEY, pdf=True))
    assert verify_pack(made.path, key=CASE_KEY.public, vkey=world.log.vkey).accused
    with zipfile.ZipFile(made.path) as archive:
        assert archive.read("report.pdf") == pdf
    assert set(made.files) - set(evidence.files) == {"report.pdf"}


def test_a_report_needs_an_accusation_and_a_pdf_its_part(world, stolen, report, monkeypatch):
    open_ = Inconclusive(Reason.TOO_LITTLE_MATCHED, "")
    with pytest.raises(InvalidInput, match="nobody is accused"):
        report_case(stolen.case, open_, stolen.examination, world.release)
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(MissingExtraError, match="'pdf'"):
        render_pdf(report)


@pytest.fixture(scope="module")
def undecided(world, tmp_path_factory):
    """A case about a suspect of which too little could be compared."""
    return world.examine(
        make_adapter(tmp_path_factory.mktemp("undecided") / "s", 5, modules=3), description="</p><b>x</b> {nb}"
    )


def test_a_case_that_accuses_nobody_says_what_was_compared_and_what_that_does_not_show(undecided):
    report = report_nobody(undecided.case, undecided.decision, undecided.examination)
    page, shown = render_html(report), Texts()
    shown.feed(page)
    told = text_of(render_pdf(report))
    assert {text for text in map(squeeze, shown.found) if text not in told} == set()
    assert '<div class="verdict open" role="status"><strong>Inconclusive: nobody is accused</strong>' in page
    plan = undecided.examination.plan
    for said in (
        Reason.TOO_LITTLE_MATCHED, error_sentence(plan.plan), str(undecided.case.suspect), plan.plan.release.original,
        f"as entry {plan.entry.index},", "layers.13.", NOT_DECIDED[0],
    ):  # fmt: skip
        assert escape(said) in page, said
    assert "<b>x" not in page
    assert not [name for name in RECIPIENTS if name in page]


def test_json_says_what_the_page_says_and_the_decision(report, stolen, undecided):
    about_nobody = report_nobody(undecided.case, undecided.decision, undecided.examination)
    for made in (report, about_nobody):
        data = render_json(made)
        told = json.loads(data)
        assert data == render_json(made)
        assert [section["title"] for section in told["sections"]] == [section.title for section in made.sections]
        blocks = [block for section in made.sections for block in section.blocks]
        written = [block for section in told["sections"] for block in section["blocks"]]
        for block, found in zip(blocks, written, strict=True):
            if isinstance(block, Paragraph):
                assert found == {"text": block.text}
            table = block.numbers if isinstance(block, Chart) else block
            if isinstance(table, Table):
                assert len(found.get("numbers", found)["rows"]) == len(table.rows)
    assert json.loads(render_json(about_nobody))["result"]["verdict"] == "inconclusive"
    told = json.loads(render_json(report))["result"]
    assert [who["recipient"] for who in told["accused"]] == ["globex"]
    assert told["case"] == stolen.case.id
