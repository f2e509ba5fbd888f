"""Every format that others may read has a page, and the page names every field that is written."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORMAT = re.compile(r"(?:stanch/[a-z0-9/.-]*v\d+|urn:stanch:[a-z-]+:v\d+|stanch\.[a-z-]+/\d+)")
PAGES = {path: path.read_text() for folder in ("spec", "reference") for path in (ROOT / "docs" / folder).glob("*.md")}
INSIDE = {
    "stanch/copy/v1": "what a workspace keeps of its own copies",
    "stanch/release/v2": "what a workspace keeps of its own releases",
    "stanch/pass/v2": "a part of a pass over data, gone when it ends",
    "stanch/policy-secrets/v1": "keys on their way to a worker of the same pass",
    "stanch/names/v1": "names of a table in the package",
    "stanch/dataset-key/v1": "a label under which a key is derived or hashed; the same below",
    "stanch/index-key-check/v1": "label",
    "stanch/index-text/v1": "label",
    "stanch/tokenizer/v1": "label",
    "stanch/watch/rff/v1": "label",
    "urn:stanch:trace-plan:v1": "refused by name",
    "urn:stanch:trace-examination:v1": "what a workspace keeps of its own cases; evidence has a form of its own",
    "urn:stanch:tune:v1": "the builder's name in a provenance statement",
}
"""Names that nobody outside reads, and why."""


def sources():
    for path in sorted((ROOT / "src" / "stanch").rglob("*.py")):
        tree = ast.parse(path.read_text())
        yield [node for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.Dict | ast.Assign)]


@pytest.fixture(scope="module")
def written():
    """Every name of a format in the sources, with the fields of each JSON object that begins with it."""
    found = {}
    for nodes in sources():
        values = {id(node): node.value for node in nodes if isinstance(node, ast.Constant)}
        named = {
            node.targets[0].id: values.get(id(node.value)) for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }  # fmt: skip
        for value in values.values():
            if FORMAT.fullmatch(text := value.decode("latin-1") if isinstance(value, bytes) else str(value)):
                found.setdefault(text, set())
        for node in nodes:
            first = node.values[0] if isinstance(node, ast.Dict) and node.values else None
            name = named.get(first.id) if isinstance(first, ast.Name) else values.get(id(first))
            if name in found:
                found[name] |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return found


def test_every_format_has_a_page_or_a_reason(written):
    assert len(written) > 60
    assert {name for name in written if not any(name in text for text in PAGES.values())} == set(INSIDE)


@pytest.mark.parametrize("page", ["small-formats", "json"])
def test_the_page_names_every_field(written, page):
    (text,) = (text for path, text in PAGES.items() if path.stem == page)
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:] or [text]
    for section in sections:
        name = FORMAT.search(section)[0]
        assert len(written[name]) >= 2, name
        assert {field for field in written[name] if f"`{field}`" not in section} == set(), name
