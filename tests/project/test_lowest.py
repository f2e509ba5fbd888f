"""The lowest versions that are promised: the file is made from pyproject.toml, and pinned ones are never below."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import make_lowest  # noqa: E402 - beside the tool


def pins(path):
    lines = [line.partition("==") for line in path.read_text().splitlines() if re.match(r"[\w.-]+==", line)]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in lines}


def order(version):
    return [int(number) for number in re.findall(r"\d+", version)]


def test_the_file_is_made_from_the_project():
    assert make_lowest.OUT.read_text() == make_lowest.render(), "run: python tools/make_lowest.py"


def test_what_is_tested_is_never_below_what_is_promised():
    tested = pins(ROOT / "constraints.txt")
    promised = pins(make_lowest.OUT)
    assert len(promised) > 40
    assert {name for name in promised if name not in tested} == set()
    assert [name for name, version in promised.items() if order(tested[name]) < order(version)] == []


@pytest.mark.parametrize(
    ("requirement", "pin"),
    [
        ("numpy>=2.4", "numpy==2.4"), ("cryptography>=50,<52", "cryptography==50"), ("torch==2.13.0", "torch==2.13.0"),
        ("psycopg[binary]>=3.3.9", "psycopg==3.3.9"), ("PyYAML>=6", "pyyaml==6"), ("stanch[dp,gguf]", None),
    ],
)  # fmt: skip
def test_a_requirement_gives_its_lowest_version(requirement, pin):
    assert make_lowest.lowest(requirement) == pin


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy @ https://x.test/numpy.whl", "a>=1,>=2"])
def test_a_requirement_without_one_is_refused(requirement):
    with pytest.raises(ValueError, match=r"no lowest version|not understood"):
        make_lowest.lowest(requirement)
