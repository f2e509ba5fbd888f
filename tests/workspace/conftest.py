"""Fixtures: one set of material, and a team's workspace that is made once and copied for each test."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; life is their neighbour

import life


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))


@pytest.fixture(scope="module", autouse=True)
def _cheap_passphrases():
    """Argon2id with its real costs is tested in tests/crypto; here it would be most of the time.

    By module, so that it ends with the last module of this folder, whatever runs next.
    """
    with life.cheap_passphrases():
        yield


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return life.make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def proposed(tmp_path_factory, material):
    with life.cheap_passphrases():
        return life.make_proposed(tmp_path_factory.mktemp("proposed"), material)


@pytest.fixture
def case(proposed, tmp_path):
    """A team with a release that is proposed and not approved yet."""
    return replace(proposed, folder=Path(shutil.copytree(proposed.folder, tmp_path / "w")))
