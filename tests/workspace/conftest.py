"""Fixtures: one set of material, and a team's workspace that is made once and copied for each test."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; life is their neighbour

import life

from stanch.mark import embed
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_release import release_folder


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))


@pytest.fixture(scope="module", autouse=True)
def _cheaply():
    """Argon2id with its real costs is tested in tests/crypto, a thousand decoys in tests/trace; here they cost most.

    By module, so that it ends with the last module of this folder, whatever runs next.
    """
    with life.cheaply():
        yield


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return life.make_material(tmp_path_factory.mktemp("material"))


def pytest_generate_tests(metafunc):
    """Run a test marked ``on_both_grounds`` on each, if it has a workspace at all."""
    if "ground" in metafunc.fixturenames and metafunc.definition.get_closest_marker("on_both_grounds"):
        metafunc.parametrize("ground", ["files", "servers"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def ground(request):
    """Where workspaces keep their rows and blobs: in files, or on servers."""
    if getattr(request, "param", "files") == "files":
        yield life.Files()
        return
    postgresql, s3 = (request.getfixturevalue(name) for name in ("postgresql", "s3_service"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield life.Servers(postgresql, s3)


@pytest.fixture(scope="session")
def proposed(tmp_path_factory, material, ground):
    with life.cheaply():
        return life.make_proposed(tmp_path_factory.mktemp("proposed"), material, ground)


@pytest.fixture
def case(proposed, ground, tmp_path):
    """A team with a release that is proposed and not approved yet."""
    return replace(proposed, folder=ground.copy(proposed.folder, tmp_path / "w"))


@pytest.fixture
def stolen(case, tmp_path):
    """acme's marked copy, in plain: the simplest suspect that must be traced."""
    with case.acting("ines") as workspace:
        state = ReleaseState.load(release_folder(workspace, "r1"))
        plan = state.mark_plan()
        return embed(state.model, tmp_path / "stolen", plan, state.copy_key(plan, "acme")).path
