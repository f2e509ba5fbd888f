"""The guide shows the figures of the result file, and nothing else."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def load_tool():
    spec = importlib.util.spec_from_file_location("make_mark_tables", ROOT / "tools" / "make_mark_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_guide_are_those_of_the_results():
    tool = load_tool()
    guide, results = tool.GUIDE.read_text(), json.loads(tool.RESULTS.read_text())
    assert tool.render(guide, results) == guide
    results["minilm"]["rows"][0]["least_z"] += 1
    assert tool.render(guide, results) != guide


def test_no_row_names_an_innocent_and_misses_are_shown():
    tool = load_tool()
    results = json.loads(tool.RESULTS.read_text())
    rows = [*results["minilm"]["rows"], *results["lora"], *results["tuned"]]
    assert len(rows) == 56
    assert not any(row["innocents_named"] for row in rows)
    assert all(row["decoys_plausible"] for row in rows)
    missed = sum(row["least_z"] < row["floor"] for row in rows)
    assert tool.GUIDE.read_text().count("**missed**") == missed
