"""The documents name every command, flag, error, setting and kind of entry; the pages are what the code says now."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import click
import pytest

import stanch.errors as errors_module
from stanch.errors import NotAuthenticated, StanchError, bug
from stanch.workspace.kinds import KINDS, NOTES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def load_tool():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()
ERRORS = TOOL.error_classes()


@pytest.mark.parametrize("name", TOOL.PAGES)
def test_the_page_is_what_the_code_says_now(name):
    assert (DOCS / name).read_text() == TOOL.PAGES[name](), "run: python tools/make_reference.py"


def test_every_command_and_flag_is_in_the_documents_with_its_meaning():
    page = (DOCS / "reference" / "commands.md").read_text()
    found = dict(TOOL.leaves())
    assert len(found) > 40
    for words, command in found.items():
        assert f"## stanch {words}\n" in page
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (words, option.opts)
                assert f"`{', '.join(option.opts)}`" in page


def test_every_setting_has_a_meaning():
    rows = list(TOOL.setting_rows(TOOL.Config))
    assert len(rows) > 20
    assert not [name for name, _, meaning in rows if not meaning]


def test_every_kind_of_entry_is_in_the_documents():
    page = (DOCS / "reference" / "entries.md").read_text()
    assert all(f"| `{name}` |" in page for name in KINDS)


def test_every_kind_of_note_is_in_the_documents():
    found = set()
    for path in TOOL.SOURCES.rglob("*.py"):
        text = path.read_text()
        nodes = list(ast.walk(ast.parse(text))) if "note" in text else []
        if {"noted", "note"} & {node.id for node in nodes if isinstance(node, ast.Name)}:
            found |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    families = "|".join({name.partition(".")[0] for name in KINDS})
    assert {text for text in found if re.fullmatch(rf"({families})(\.[a-z-]+)+", text)} - set(KINDS) == set(NOTES)
    page = (DOCS / "reference" / "entries.md").read_text()
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in NOTES.items())


def test_every_error_has_exit_code_slug_status_and_meaning():
    page = (DOCS / "reference" / "errors.md").read_text()
    for error in ERRORS:
        assert error.exit_code in {1, 2, 3, 4, 5, 70}, error
        assert error.http_status in {400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 501, 502, 503}, error
        assert (inspect.getdoc(error) or "").partition("\n")[0].endswith((".", "``.")), error
        assert error.__doc__ != Exception.__doc__, error
        assert f"| {error.__name__} |" in page, error


def test_slugs_are_unique_and_plain():
    slugs = [re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower() for error in ERRORS]
    assert len(slugs) == len(set(slugs))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)


def test_the_tree_is_drawn_whole_in_the_docstring():
    drawing = errors_module.__doc__
    own = [one for one in vars(errors_module).values() if isinstance(one, type) and issubclass(one, StanchError)]
    for one in own:
        assert re.search(rf"\b{one.__name__}\b", drawing), one
        family = next(
            base for base in one.__mro__ if base in own and re.search(rf"^ +{base.__name__} +\d", drawing, re.MULTILINE)
        )
        exit_code, status = re.search(rf"^ +{family.__name__} +(\d+) +(\d+)", drawing, re.MULTILINE).groups()
        for found, drawn in ((one.exit_code, exit_code), (one.http_status, status)):
            assert str(found) == drawn or re.search(rf"{one.__name__}\([\d, ]*\b{found}\b", drawing), one


def test_an_error_is_a_problem_of_rfc_9457():
    error = errors_module.Conflict("it exists", why="a reason", next_step="do this")
    assert error.problem() == {
        "type": "urn:stanch:problem:conflict", "title": "The object exists already or changed meanwhile.",
        "status": 503, "detail": "it exists", "why": "a reason", "next": "do this",
    }  # fmt: skip
    assert "why" not in errors_module.Conflict("x").problem()


def test_failed_authentication_is_one_message_for_every_reason():
    one, other = NotAuthenticated("no key of ana", why="unknown"), NotAuthenticated("locked", next_step="try bob")
    assert one.problem() == other.problem()
    assert "ana" not in str(one.problem())


def test_a_bug_shows_its_type_and_never_its_text():
    shown = bug(ValueError("row 3: my password"))
    assert "ValueError" in shown.what
    assert "password" not in str(shown.problem())
    assert shown.exit_code == 70
