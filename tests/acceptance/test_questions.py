"""The list of questions names every scenario, and every scenario begins with its question."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explain" / "questions.md"
ISSUES = {"test_demo.py"}
"""The main job, which no architect asked."""


def test_page_and_scenarios_agree():
    rows = re.findall(r"^\| ([^|]+\?) \| `(test_\w+\.py)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    files = {path.name for path in HERE.glob("test_*.py")} - ISSUES - {Path(__file__).name}
    assert sorted(name for _, name, _, _ in rows) == sorted(files)
    for _, name, answer, limit in rows:
        assert answer.strip(), name
        assert limit.strip(), name


def test_every_scenario_begins_with_a_question():
    for name in {path.name for path in HERE.glob("test_*.py")} - ISSUES - {Path(__file__).name}:
        assert "?" in ast.get_docstring(ast.parse((HERE / name).read_text())), name
