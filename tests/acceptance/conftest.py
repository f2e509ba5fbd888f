"""Fixtures of the scenarios: a small life that is played once, and copied for each scenario."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; scene is their neighbour

import scene


@pytest.fixture(scope="module")
def cheaply():
    """Argon2id with its real costs is tested in tests/crypto; here it would cost more than all the rest."""
    with scene.life.cheaply():
        yield


@pytest.fixture(scope="session")
def played(tmp_path_factory):
    """The life that every scenario begins with."""
    folder = tmp_path_factory.mktemp("life")
    with scene.life.cheaply():
        scene.live(folder)
    return folder


@pytest.fixture
def here(played, cheaply, tmp_path, monkeypatch):  # noqa: ARG001 - cheaply is asked for its effect
    """A copy of the life, in which the scenario's commands are typed."""
    folder = shutil.copytree(played, tmp_path / "here", symlinks=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def later():
    """A machine in the same place whose clock shows another day."""
    machine = scene.Later()
    yield machine
    machine.close()
