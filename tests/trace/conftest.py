"""Fixtures: one release, one case that accuses, and its pack."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; trace_world is their neighbour

from trace_world import World, public_key


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World.create(tmp_path_factory.mktemp("world") / "w")


@pytest.fixture(scope="session")
def stolen(world):
    """A case about globex's copy, examined."""
    return world.examine(world.copy("globex"))


@pytest.fixture(scope="session")
def evidence(world, stolen, tmp_path_factory):
    """The pack of that case."""
    return world.pack(stolen, tmp_path_factory.mktemp("evidence") / "pack.zip")


@pytest.fixture(scope="session")
def key_file(tmp_path_factory):
    return public_key(tmp_path_factory.mktemp("key"))
