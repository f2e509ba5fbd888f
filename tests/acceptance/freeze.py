"""Plays the life of the scenarios and freezes its workspace: ``python tests/acceptance/freeze.py``, once a revision.

An archive, since git keeps neither modes nor empty folders. What is frozen is never made again: it shows what its
release wrote.
"""

import contextlib
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; scene is their neighbour
sys.path.insert(0, str(Path(__file__).parents[1]))  # and servers is life's

import scene

from stanch.store.schema import REVISION

KEPT = ("team", "log.vkey", "acme.json", "acme.key", "pub.pem", "olga.txt", "rita.txt", "rolf.txt")


def freeze(folder):
    """Write the life that was played in ``folder`` to the archive of this revision."""
    target = Path(__file__).parent / "frozen" / f"revision-{REVISION}.tar.xz"
    with contextlib.closing(sqlite3.connect(folder / scene.DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with contextlib.chdir(folder):
        kept = [*KEPT, scene.facts("acme")["uri"].removeprefix("file:")]
    with tarfile.open(target, "x:xz", preset=9) as archive:
        for name in kept:
            archive.add(folder / name, name, filter=_without_owner)


def _without_owner(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, scene.life.cheaply():
        scene.live(Path(place))
        freeze(Path(place))
