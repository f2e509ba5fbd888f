"""Rules of the house that no linter knows: sizes, layers, and that documents tell the truth about commands."""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "stanch").rglob("*.py"))
MEDIAN_FILE = 200
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 500, 60, 7


def test_files_and_functions_stay_small():
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION, f"{path}: {node.name} is too long"
                names = [a for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in {"self", "cls"}]
                assert len(names) <= MAX_PARAMETERS, f"{path}: {node.name} has too many parameters"


def test_half_of_the_files_are_shorter_than_the_aim():
    assert statistics.median(len(path.read_text().splitlines()) for path in SOURCES) <= MEDIAN_FILE


def test_the_layers_hold():
    process = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout


def test_the_nightly_target_runs_every_size_that_the_tests_only_taste():
    recipe = (ROOT / "Makefile").read_text().partition("\nnightly:")[2].partition("\n\n")[0].replace("\\\n", " ")
    told = re.compile(r"`make nightly` (?:takes|tries) ([0-9,]+)")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        sizes = re.findall(r'environ\.get\("(STANCH_[A-Z_]+)", "\d+"\)', text)
        for size in set(sizes) - {"STANCH_SEED"}:
            assert str(path.relative_to(ROOT)) in recipe, path
            (value,) = re.findall(rf"\b{size}=(\d+)", recipe)
            said = told.findall(text.replace("``", "`").replace("a million", "1,000,000"))
            assert {int(one.replace(",", "")) for one in said} <= {int(value)}, path
        assert "each night" not in text or path.samefile(__file__), path
    for part in ("pytest -m nightly", "tools/fuzz.py --counts 10000", "benchmarks/drill_*.py", "--size nightly"):
        assert part in recipe


DOORS = {
    "Record door": {"ledger", "workspace", "trace", "watch", "gateway", "console", "cli"},
    "Permission door": {"access", "workspace", "gateway", "console", "cli"},
    "One crypto door": {"crypto"},
}
"""What may pass each door; ``errors`` imports nothing, so it stands in no list."""


@pytest.mark.parametrize("name", DOORS)
def test_a_door_is_shut_to_every_other_package(name):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in settings if one["name"] == name]
    packages = {
        path.name.removesuffix(".py") for path in (ROOT / "src" / "stanch").iterdir() if path.name[0] not in "_."
    }
    shut = {module.removeprefix("stanch.") for module in contract["source_modules"]}
    assert shut | DOORS[name] | {"errors", "py.typed"} == packages | {"errors", "py.typed"}
    assert not shut & DOORS[name]


def trees(words):
    """Yield path and tree of each source whose text holds one of ``words``: without it there is nothing to find."""
    for path in SOURCES:
        text = path.read_text()
        if any(word in text for word in words):
            yield path, ast.parse(text)


def test_heavy_libraries_are_imported_by_their_own_files_only():
    heavy = {"torch", "transformers", "peft", "tokenizers", "accelerate"}
    for path, tree in trees(heavy):
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.partition(".")[0] for name in names} & heavy
            assert not found or path.stem.endswith("_torch"), f"{path} imports {found} at its top"


def test_nothing_unpickles():
    forbidden = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    for path, tree in trees(forbidden | {"torch"}):
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not forbidden & set(names), path
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id != "torch", f"{path} calls torch.load"
