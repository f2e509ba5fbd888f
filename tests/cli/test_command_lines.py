"""Every command line that people are shown names a command and options that exist."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import command_lines as shown  # noqa: E402 - beside this file

PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md")]
PAGES += [
    page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "commands.md"
]  # click writes its lines
OTHERS = [ROOT / "action.yml", *sorted((ROOT / "deploy").iterdir())]
SOURCES = sorted((ROOT / "src" / "stanch").rglob("*.py"))
TEMPLATES = sorted((ROOT / "src" / "stanch" / "console" / "templates").rglob("*.html"))


def wrong(texts, *readers, judge=shown.misses):
    return [(words, found) for text in texts for reader in readers for words in reader(text) if (found := judge(words))]


def test_whole_lines_of_the_documents_would_begin():
    texts = [page.read_text() for page in PAGES]
    assert sum(1 for text in texts for _ in shown.whole_lines(text)) > 70
    assert wrong(texts, shown.whole_lines, judge=shown.refuses) == []


def test_what_the_documents_mention_exists():
    texts = [page.read_text() for page in PAGES]
    assert sum(1 for text in texts for _ in shown.parts(text)) > 200
    assert wrong(texts, shown.parts) == []
    assert wrong([path.read_text() for path in OTHERS], shown.parts) == []


def test_what_the_program_says_exists():
    found = [found for source in SOURCES for found in shown.texts(source.read_text()) if "stanch" in found[0]]
    texts, hints = [text for text, _ in found], [text for text, said in found if said]
    assert sum(1 for text in texts for _ in shown.parts(text)) > 60
    assert sum(1 for text in hints for _ in shown.loose(text)) > 150
    assert wrong(texts, shown.parts) == wrong(hints, shown.loose) == []
    assert wrong([shown.plain(page.read_text()) for page in TEMPLATES], shown.parts, shown.loose) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("audit plan", "no command plan"),
        ("--as ana log verify --wkey X", "--wkey"),
        ("log verify --vkey X", ""),
        ("init w --profile crowd", "--profile crowd"),
        ("init w extra", "extra extra"),
        ("seal create model", "lacks"),
        ("--explain seal create", ""),
    ],
)
def test_what_is_wrong_is_noticed(line, said):
    (words,) = shown.whole_lines(f"```\n$ stanch {line}  # why\n```\n")
    found = shown.refuses(words)
    assert said in found
    assert bool(said) == bool(found)


def test_texts_are_read_with_what_they_leave_open():
    source = 'f"""Ask `stanch {x} y`."""\ndef f():\n    """stanch data x"""\n    return f"stanch log {x} --y"\n'
    texts = list(shown.texts(source))
    assert [words for text, said in texts if said for words in shown.loose(text)] == [["log", "…", "--y"]]
    assert [words for text, _ in texts for words in shown.parts(text)] == [["…", "y"]]
    assert list(shown.loose(shown.plain("<p>stanch <b>log</b> {{ x }}</p> stanch data {# no #}x"))) == [["data", "…x"]]
