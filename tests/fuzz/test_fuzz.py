"""Every parser of outside bytes, fed with thousands of mutated inputs: none crashes, hangs, grows, or is fooled."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz_harness import Fault, feed_all
from fuzz_mutations import mutations
from fuzz_targets import TARGETS

from stanch.errors import InvalidInput

ROOT = Path(__file__).parents[2]
SHORT, LONG = 200, 10_000
OPTIONAL = {"age-identity": "pyrage", "gguf": "gguf"}


@pytest.fixture(params=TARGETS)
def target(request):
    part = OPTIONAL.get(request.param)
    if part is not None and find_spec(part) is None:
        pytest.skip(f"{part} is not installed")
    return TARGETS[request.param]


def feed(target, count):
    tally = feed_all(target, mutations(target.seeds, count, name=target.name), sample=20)
    assert not tally.faults, tally.faults[:3]
    assert sum(tally.outcomes.values()) == count
    return tally


def test_every_seed_is_accepted_and_every_find_is_harmless(target):
    assert target.seeds, "make them with: python tools/fuzz.py --seeds"
    assert all(target.feed(seed) != "refused" for seed in target.seeds)
    assert not feed_all(target, target.found).faults


def test_mutated_inputs_do_no_harm(target):
    feed(target, SHORT)


@pytest.mark.nightly
def test_many_mutated_inputs_do_no_harm(target):
    feed(target, LONG)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_inputs_that_coverage_chooses_do_no_harm(target):
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    words = [
        sys.executable,
        str(ROOT / "tools" / "fuzz.py"),
        "--target",
        target.name,
        "--runs",
        "5000",
        "--keep-nothing",
    ]
    subprocess.run(words, check=True, timeout=600, capture_output=True)


def test_mutations_are_the_same_each_time_and_no_seed():
    seeds = TARGETS["signature"].seeds
    made = list(mutations(seeds, 300, name="x"))
    assert made == list(mutations(seeds, 300, name="x"))
    assert made != list(mutations(seeds, 300, name="y"))
    assert not set(made) & set(seeds)


def crash(_data):
    raise KeyError("a bug")


def sleep(_data):
    while True:
        pass


def hoard(_data):
    return bytes(100 << 20)


@pytest.mark.parametrize(("run", "what"), [(crash, "KeyError"), (sleep, "come to an end"), (hoard, "held")])
def test_a_parser_that_does_harm_is_caught(run, what, monkeypatch):
    monkeypatch.setattr("fuzz_harness.SLOW_S", 0.05)
    seeds = TARGETS["json"].seeds
    broken = replace(TARGETS["json"], run=lambda data: None if data in seeds else run(data))
    assert what in feed_all(broken, [b"other"], sample=1).faults[0][0]


def test_a_parser_that_is_fooled_is_caught():
    fooled = replace(TARGETS["siv"], run=lambda data: data)
    with pytest.raises(Fault, match="accepted as authentic"):
        fooled.feed(b"other")
    lax = replace(TARGETS["digest"], rewrite=lambda _content: b"another")
    with pytest.raises(Fault, match="not in canonical form"):
        lax.feed(lax.seeds[0])
    strange = replace(TARGETS["json"], refuses=())
    with pytest.raises(Fault, match="InvalidInput"):
        strange.feed(b"{")
    assert issubclass(TARGETS["json"].refuses[0], InvalidInput)


def test_the_documentation_lists_every_target():
    text = (ROOT / "docs" / "explain" / "fuzzing.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| `(.+?)` \| (\w+) \|$", text, re.MULTILINE)
    assert rows == [(t.name, t.reads, t.parser.removeprefix("stanch."), t.kind) for t in TARGETS.values()]


def test_the_published_counts_are_of_these_targets_and_without_a_fault():
    found = json.loads((ROOT / "benchmarks" / "results" / "fuzz.json").read_text())
    assert found["targets"].keys() == TARGETS.keys()
    for name, counts in found["targets"].items():
        assert counts["mutations"] >= SHORT
        assert counts["accepted_forged"] == counts["crashes"] == 0
        assert counts["refused"] + counts["accepted_plain"] + counts["accepted_same_content"] == counts["mutations"]
        assert bool(counts["accepted_same_content"]) <= (TARGETS[name].kind == "authentic")


def test_the_tool_runs_one_target():
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    words = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "--target", "digest", "--runs", "300", "--keep-nothing"]
    done = subprocess.run(words, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "digest" in done.stdout
