"""Every measured figure in the documents comes from a committed result file, or a line says why it is no measurement.

A figure with a unit is bound by a comment behind it, stands in a table that a tool writes, or is named in
``not_measured.toml`` with the reason. ``python tools/make_figures.py`` writes what is bound.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import comparison  # noqa: E402 - beside the tool
import make_figures  # noqa: E402 - same

UNIT = (
    r"(?:[nmµu]s|s|sec(?:ond)?s?|min(?:ute)?s?|hours?|h|[kKMGT]i?B(?:/s)?|[kKMGT]?bit/s|%|per ?cent|×|x|times|fold|/s"
    r"|(?:a|per) second)"
)
FIGURE = re.compile(rf"(?<![\w.,/^-])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?[\s-]?{UNIT}(?![\w/])")
HEADED = re.compile(rf"(?:^|[\s,(/]){UNIT}(?:$|[\s,)/])")
TABLE = re.compile(r"^<!-- ([\w .-]+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {  # tables that another test compares with their result file
    "docs/guides/marks.md": ("tests/mark/test_mark_guide.py", "make_mark_tables"),
    "docs/explain/mutation.md": ("tests/project/test_mutation.py", "mutate"),
    "docs/guides/audit-statistics.md": ("tests/audit/stats/test_published_figures.py", "bench_audit_stats"),
}
REASONS = tomllib.loads((Path(__file__).parent / "not_measured.toml").read_text())
DOCUMENTS = make_figures.documents()


def name(path):
    return str(path.relative_to(ROOT))


def blank(found):
    return re.sub(r"[^\n]", " ", found[0])


def prose(text):
    """Return a document without code, made tables and bound figures; every line stays in its place."""
    for pattern in (r"^```.*?^```$", TABLE.pattern, r"`[^`\n]*`"):
        text = re.sub(pattern, blank, text, flags=re.MULTILINE | re.DOTALL)
    return make_figures.BOUND.sub(blank, text)


def figures(text):
    """Yield line number and words of every unbound figure with a unit, in prose or under a heading with a unit."""
    headings = []
    for number, line in enumerate(prose(text).splitlines(), 1):
        yield from ((number, line, found.start()) for found in FIGURE.finditer(line))
        cells = line.split("|") if line.startswith("|") else []
        headings = headings if cells and headings else cells
        at = 0
        for cell, heading in zip(cells, headings, strict=False):
            if cells is not headings and HEADED.search(heading) and re.search(r"\d", cell) and not FIGURE.search(cell):
                yield number, line, at + re.search(r"\d", cell).start()
            at += len(cell) + 1


def allowed(document):
    return [words for documents in REASONS.values() for words in documents.get(document, [])]


def covered(line, at, words):
    return any(found.start() <= at < found.end() for found in re.finditer(re.escape(words), line))


def unbound(document, text):
    """Return the figures of a document that are neither bound nor explained."""
    lines = text.splitlines()
    return [
        f"{document}:{number}: {lines[number - 1][max(0, at - 30) : at + 30]}"
        for number, line, at in figures(text)
        if not any(covered(line, at, words) for words in allowed(document))
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_figure_is_bound_or_explained(path):
    text = path.read_text(encoding="utf-8")
    assert unbound(name(path), text) == []
    assert make_figures.render(text) == text, "run: python tools/make_figures.py"
    made = {found[1] for found in TABLE.finditer(text)} - set(make_figures.TABLES)
    assert not made or ELSEWHERE[name(path)], made


def test_tables_of_other_tools_have_their_test():
    assert all(maker in (ROOT / test).read_text() for test, maker in ELSEWHERE.values())


def test_every_explanation_is_needed():
    texts = {name(path): list(figures(path.read_text(encoding="utf-8"))) for path in DOCUMENTS}
    unused = [
        (document, words)
        for documents in REASONS.values()
        for document, phrases in documents.items()
        for words in phrases
        if not any(covered(line, at, words) for _, line, at in texts[document])
    ]
    assert unused == []


@pytest.mark.parametrize(
    "text",
    [
        "It takes 12 ms.", "A scan reads 210 MB/s of text.", "That is 4.5 times faster.", "about 3x as fast",
        "40 % less", "It answers in 31 µs", "18,000/s", "9,000 a second", "| what | ms |\n|---|--:|\n| load | 12.5 |",
        "12 ms<!-- seal.json/rekey_ms/median -->",
    ],
)  # fmt: skip
def test_a_figure_without_a_source_is_found(text):
    assert unbound("README.md", text)


@pytest.mark.parametrize(
    "text",
    ["`sleep 5 s`", "```\n12 ms\n```", "2.5 ms<!-- seal.json/rekey_ms/median .1f -->", "in 2 steps", "x86 of 2025"],
)
def test_what_is_no_figure_or_bound_is_not(text):
    assert unbound("README.md", text) == []


def test_a_bound_figure_is_written_anew():
    median = json.loads((comparison.RESULTS / "seal.json").read_text())["rekey_ms"]["median"]
    assert make_figures.bind("99.9 ms<!-- seal.json/rekey_ms/median .1f -->") == (
        f"{median:.1f} ms<!-- seal.json/rekey_ms/median .1f -->"
    )
    assert make_figures.bind("1 %<!-- audit-statistics.json/coverage/500~10.0/auc/rate x100 .1f -->").startswith(
        "94.5 %"
    )
    with pytest.raises(KeyError):
        make_figures.bind("1<!-- seal.json/rekey/median .1f -->")


def test_goals_are_judged_and_misses_are_shown():
    assert comparison.meets(5.0, "≥ 5")
    assert not comparison.meets(4.99, "≥ 5")
    assert comparison.meets(10_000, "≥ 10,000")
    assert not comparison.meets(2.51, "≤ 2.5")
    met, asked = comparison.count()
    page = (ROOT / "docs" / "explain" / "comparison.md").read_text()
    assert page.count("**missed**") == asked - met > 0
    assert page.count("| met |") == met > 0


def test_every_result_is_shown_and_every_script_is_there():
    assert all((ROOT / "benchmarks" / part.script).is_file() for part in comparison.PARTS)
    results = {path.name for path in comparison.RESULTS.glob("*.json")}
    # Timings of single parts, and errors of our own that no peer states, have no goal against a peer.
    alone = {"fuzz.json", "trace-innocents.json", "audit-model.json", "arrow.json", "index.json", "scale.json"}
    alone |= {"mutation.json", "growth.json", "index-memory.json", "resume.json", "versions.json"}
    alone |= {"gateway-connections.json", "gateway-memory.json"}
    assert results - {part.file for part in comparison.PARTS} <= alone
