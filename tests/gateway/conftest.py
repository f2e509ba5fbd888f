"""Fixtures: a guard that knows a training text and a canary."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; answers is their neighbour

from answers import CANARY, INDEX_KEY, ROW

from stanch.access.policy import default_text
from stanch.guard import Guard, GuardPolicy
from stanch.scan import SpanIndex
from stanch.workspace import Workspace
from stanch.workspace.verbs_policy import activate_policies

PROBING = (
    '@id("ours") permit (principal in Stanch::Role::"consumer", action == Stanch::Action::"model:logprobs", resource);'
)


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A workspace whose policies let consumers ask for log-probabilities."""
    with Workspace.init(tmp_path_factory.mktemp("ground") / "w") as workspace:
        activate_policies(workspace, default_text() + PROBING)
        yield workspace


@pytest.fixture(scope="session")
def index():
    return SpanIndex.build([ROW], key=INDEX_KEY)


@pytest.fixture(scope="session")
def guard(index):
    return Guard(GuardPolicy(index=index, canaries=(CANARY,)))
