"""The HTML report and its charts: well formed, closed to scripts, escaped, described."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from stanch.audit.charts import (
    ExposurePoint,
    RocCurve,
    exposure_chart,
    extraction_chart,
    histogram_chart,
    roc_chart,
    shared_histogram,
)
from stanch.audit.html import render_html, roc_points
from stanch.audit.params import ATTACK_PACK, AuditParams, preregister
from stanch.audit.report import Report, conclude
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import (
    Coverage,
    CurvePoint,
    Exposure,
    ExposureTier,
    Extraction,
    NearVerbatim,
    Reconstruction,
    RowExtraction,
    SecretExposure,
    SecretExtraction,
    Tool,
)
from stanch.audit.table_audit import audit_scores

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ET.fromstring(svg)  # noqa: S314 - our own charts


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that tags close in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    member = rng.random(800) < 0.5
    scores = {name: rng.normal(size=800) + member for name in ("ratio/1", "suffix_loss/1", "ez/1")}
    ids = tuple(f"{EVIL}{i}" for i in range(800))
    return ScoreTable(ids, ("secret",) * 800, ("1",) * 800, member, np.ones(800, dtype=np.int64), scores)


@pytest.fixture(scope="module")
def report(table):
    """A report whose every free text tries to break out of the page."""
    scored = audit_scores(table, coins=True)
    secrets = (
        SecretExposure(EVIL, EVIL, member=True, bits=6.64, exact=False, sampled_p=0.01),
        SecretExposure("c2", EVIL, member=False, bits=0.4, exact=False, sampled_p=0.7),
    )
    tier = ExposureTier(EVIL, 1, 1, 6.64, 6.64, 39.9)
    rows = RowExtraction(3, 300, 0, 3, 0.0257, 0, 60, 2, census=True)
    curve = tuple(CurvePoint(10**i, i / 10, 0.0, i / 100) for i in range(7))
    return conclude(
        Report(
            attack_pack=ATTACK_PACK,
            created=EVIL,
            tool=Tool(EVIL, EVIL),
            mode="planned",
            adapter=EVIL,
            dataset_digest=EVIL,
            preregistration=preregister(AuditParams()),
            scores=scored.scores,
            scan=scored.scan,
            membership=scored.membership,
            epsilon=scored.epsilon,
            power=scored.power,
            exposure=Exposure(99, (tier,), secrets, 0.01, 0.7),
            extraction=Extraction(AuditParams().decoding, 10_000, 0.9, rows, SecretExtraction(1, 2, 0, 2), curve=curve),
            coverage=(Coverage(EVIL, EVIL, run=False, why=EVIL),),
            limits=(EVIL,),
        )
    )


def test_page_is_closed_to_scripts_and_requests(report, table):
    page = render_html(report, table)
    tags = read(page)
    assert "script" not in tags.tags
    assert "img" not in tags.tags
    assert not [name for name in tags.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_values_cannot_break_out_of_the_page(report, table):
    page = render_html(report, table)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_page_says_epsilon_in_plain_words(report, table):
    bound = replace(report.epsilon, lower=math.log(9), per_record=math.log(9))
    assert "at 90% right or higher" in render_html(replace(report, epsilon=bound), table)
    none = replace(report.epsilon, lower=0.0, per_record=0.0)
    assert "the toss of a coin; that is no promise" in render_html(replace(report, epsilon=none), table)
    scale = replace(report, epsilon=replace(report.epsilon, formal=False))
    assert "In plain words" not in render_html(scale, table)


def test_page_shows_all_four_charts_each_with_its_numbers(report, table):
    page = render_html(report, table)
    assert page.count("<svg") == 4
    assert page.count("<figure>") == page.count("<details>") == 4
    assert page.count("<desc>") == 4
    assert page.count('role="img"') == 4


def test_page_without_the_score_table_leaves_out_what_needs_it(report):
    page = render_html(report)
    read(page)
    assert page.count("<svg") == 2


def test_page_has_styles_for_dark_and_print(report):
    page = render_html(report)
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_verdict_reasons_and_what_was_not_run_are_told(report, table):
    page = render_html(report, table)
    assert "LEAK PROVEN" in page
    assert "NOT RUN" in page
    assert "3 of 300 come out" in page


def test_rows_nearly_word_for_word_and_guessed_values_are_told_with_their_bounds(report):
    near = NearVerbatim(k=5, n=300, base=1, attributable=4, upper=0.0303, control_k=1, control_n=60)
    guessed = (Reconstruction("phone", 56, 70, 48, 80), Reconstruction(EVIL, 2, 9, 0, 0))
    extraction = replace(report.extraction, near_verbatim=near)
    page = render_html(replace(report, extraction=extraction, reconstruction=guessed))
    read(page)
    assert "4 of 300 come out because of the tuning, a few tokens changed or not; at most 3.030%" in page
    assert "1 of 60 never tuned on" in page
    # Newcombe 1998, table II: 56/70 - 48/80 has the interval [0.0524, 0.3339] by method 10.
    assert "56 of 70 values guessed first of 100; 48 of 80 never tuned on; difference of the rates [+5, +33]" in page
    assert "2 of 9 values guessed first of 100; no values that were never tuned on" in page
    assert "nearly word for word" not in render_html(report)


def charts():
    points = ((0.0, 0.0), (0.01, 0.2), (0.5, 0.9), (1.0, 1.0))
    return {
        "roc": roc_chart([RocCurve(EVIL, points, ((0.01, 0.1, 0.3), (0.5, 0.8, 0.95)))], nonmembers=100),
        "histogram": histogram_chart({EVIL: [0.0, 1.0], "b": [0.5]}, x_title=EVIL),
        "exposure": exposure_chart([ExposurePoint(EVIL, 3.0, member=True, at_least=True)], resolvable_bits=6.6),
        "extraction": extraction_chart({EVIL: [(1.0, 0.0), (1e6, 0.5)]}, budget=10_000),
    }


@pytest.mark.parametrize("name", charts())
def test_chart_is_well_formed_titled_and_described(name):
    root = parse(charts()[name])
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text.endswith(".")
    assert not list(root.iter(f"{SVG}script"))
    numbers = re.findall(r' (?:x|y|cx|cy|width|height)="([^"]*)"', charts()[name])
    assert numbers
    assert all(np.isfinite(float(n)) for n in numbers)


@pytest.mark.parametrize("name", charts())
def test_marks_stay_inside_the_picture(name):
    for pair in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', charts()[name]))):
        assert 0 <= float(pair[0]) <= 720
        assert 0 <= float(pair[1]) <= 400


def test_charts_of_constant_or_single_values_are_drawn():
    parse(histogram_chart({"a": [1.0, 1.0], "b": [1.0]}, x_title="s"))
    parse(exposure_chart([], resolvable_bits=6.6))
    parse(extraction_chart({"a": [(1.0, 0.0)]}, budget=10))
    parse(roc_chart([], nonmembers=0))


def test_histogram_shares_add_up_to_one_in_each_group():
    shares, edges = shared_histogram({"a": [0, 1, 2, 3], "b": [3.0]}, bins=7)
    assert len(edges) == 8
    assert {round(sum(share), 9) for share in shares.values()} == {1}


def test_roc_points_of_a_small_table():
    values = np.array([3.0, 2.0, 2.0, 1.0])
    member = np.array([True, True, False, False])
    assert roc_points(values, member) == ((0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0))
