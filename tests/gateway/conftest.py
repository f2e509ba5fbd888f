"""Fixtures: a guard that knows a training text and a canary."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; answers is their neighbour

from answers import CANARY, INDEX_KEY, ROW

from stanch.guard import Guard, GuardPolicy
from stanch.scan import SpanIndex


@pytest.fixture(scope="session")
def index():
    return SpanIndex.build([ROW], key=INDEX_KEY)


@pytest.fixture(scope="session")
def guard(index):
    return Guard(GuardPolicy(index=index, canaries=(CANARY,)))
