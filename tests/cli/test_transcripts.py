"""Transcripts under tests/cli/transcripts and the console blocks of the documents."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from transcripts import blocks, matches, read_steps, run_step  # noqa: E402 - beside this file

from forge import Forge  # noqa: E402 - of the folder above
from stanch.cli.commands import COMMANDS  # noqa: E402 - after the path is set

TRANSCRIPTS = sorted((HERE / "transcripts").glob("*.txt"))
# serve.md has a test of its own, tests/cli/test_serve_whole.py: its commands need a model that is served.
PAGES = [path for folder in ("docs", "docs/guides") for path in sorted((ROOT / folder).glob("*.md"))]
DOCUMENTS = [path for path in PAGES if path.name != "serve.md" and blocks(path)]


@pytest.fixture(scope="module")
def forge():
    with Forge() as started:
        yield started


def environment(folder):
    home = folder / "home"
    home.mkdir()
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # compiled rules are made once
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": cache}
    return os.environ | own | {"COLUMNS": "120"}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path, tmp_path, forge):
    steps, where = read_steps(path.read_text()), environment(tmp_path)
    assert steps
    for step in steps:
        run_step(forge, step, tmp_path, where)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_examples_of_the_documents(path, tmp_path, forge):
    where = environment(tmp_path)
    for step in read_steps(blocks(path)):
        run_step(forge, step, tmp_path, where)


def test_every_group_of_commands_has_a_transcript():
    shown = {word for path in TRANSCRIPTS for step in read_steps(path.read_text()) for word in step.command.split()}
    assert set(COMMANDS) - {"demo"} <= shown


def test_the_runner_tells_wrong_output_from_right():
    assert matches(["a <n> b", "…", "end"], ["a 12.5 b", "x", "y", "end"])
    assert not matches(["a <n> b"], ["a x b"])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a", "b"], ["a"])
