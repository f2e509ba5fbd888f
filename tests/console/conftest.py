"""Fixtures: the console of a team whose release is proposed, and browsers and programs that ask it."""

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

for _folder in (*(Path(__file__).parents[1] / name for name in ("workspace", "watch")), Path(__file__).parent):
    sys.path.insert(0, str(_folder))  # the test folders are no packages; life, watching and seating are neighbours

import life  # noqa: E402 - found by the lines above
from seating import ADDRESS, Seat, trace_something, watch_something  # noqa: E402 - same

from stanch.console.app import build_app  # noqa: E402 - same


@pytest.fixture(scope="session", autouse=True)
def _no_user_settings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("no-settings")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _cheaply():
    with life.cheaply():
        yield


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return life.make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def proposed(tmp_path_factory, material):
    """A team with the proposed release ``r1``, and bolt's copy of it, which nobody approved yet."""
    with life.cheaply():
        case = life.make_proposed(tmp_path_factory.mktemp("proposed"), material, life.Files())
        with case.acting("rolf") as workspace:
            case.create(workspace, case.folder.parent / "copy", recipient="bolt")
        watch_something(case)
        trace_something(case, case.folder.parent)
    return case


@pytest.fixture(scope="session")
def seated(proposed, tmp_path_factory):
    """One console for the tests that change nothing that others look at."""
    yield from _seat(proposed, tmp_path_factory.mktemp("seated") / "w")


@pytest.fixture
def seat(proposed, tmp_path):
    yield from _seat(proposed, tmp_path / "w")


def _seat(proposed, folder):
    case = replace(proposed, folder=life.Files().copy(proposed.folder, folder))
    with contextlib.ExitStack() as stack:
        with life.cheaply():  # not while others' tests run: a console may stay for the whole session
            workspace = stack.enter_context(case.acting("olga"))
        made = Seat(workspace, case, build_app(workspace, address=ADDRESS))
        yield made
        for client in made.clients:
            client.close()
