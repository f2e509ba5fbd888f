"""The stage of the demo: its folder, its people, its model, what is finished, and how it speaks."""

import json
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click

from stanch.crypto import write_atomic, write_private
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput
from stanch.terms import JsonValue, Progress
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import add_person

STATE = "demo.json"
PEOPLE = {
    "dana": ("data_steward", "ml_engineer"),
    "mia": ("release_manager",),
    "noor": ("release_manager",),
    "ines": ("incident_lead",),
}
LOCKED = ("olga", "mia", "noor")
"""Who needs two factors for what they do in this story: a key, and the passphrase that unlocks it."""

STEPS = 11


@dataclass(slots=True)
class Scene:
    """The demo's state; :meth:`step` runs each step once, also over an interruption.

    Attributes:
        folder: Where everything lies.
        model: ``smollm2`` or ``tiny``.
        seed: Decides the customers and the training's randomness.
        progress: The progress bar.
        results: What the finished steps found, by step.
    """

    folder: Path
    model: str
    seed: int
    progress: Progress
    quiet: bool
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, folder: Path, *, model: str, seed: int, progress: Progress, quiet: bool) -> Self:
        """Set the stage: a new folder with a workspace in profile team, or the folder of an interrupted demo."""
        path = folder / STATE
        if path.is_file():
            saved = json.loads(path.read_text())
            if (saved["model"], saved["seed"]) != (model, seed):
                raise InvalidInput(
                    f"{folder}: holds a demo with --model {saved['model']} --seed {saved['seed']}",
                    next_step="give the same options, or another folder",
                )
            return cls(folder, model, seed, progress, quiet, saved["results"])
        if folder.exists() and any(folder.iterdir()):
            raise InvalidInput(f"{folder}: is not empty and holds no demo", next_step="give another folder")
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _set_up(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
        scene = cls(folder, model, seed, progress, quiet)
        scene._save()
        return scene

    def step(self, number: int, name: str, question: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one step, or say that it is finished already; what it returns is kept."""
        self.say(f"\n{number:>2}/{STEPS} {name:<8} {question}", bold=True)
        if name not in self.results:
            began = time.monotonic()
            self.results[name] = run()
            self.results[name]["seconds"] = round(time.monotonic() - began, 1)
            self._save()
        else:
            self.say("      finished before the interruption")
        return self.results[name]

    def command(self, text: str, *, by: str = "dana") -> None:
        """Show the command that a user in the demo's folder would type for what happens now."""
        unlock = f" --passphrase-file passphrases/{by}.txt" if by in LOCKED else ""
        self.say(f"      $ stanch {text} --as {by}{unlock}", fg="cyan")

    def say(self, text: str, **style: Any) -> None:  # noqa: ANN401 - click's styles
        """Print a line for people."""
        if not self.quiet:
            click.secho(text, **style)

    def verdict(self, text: str, *, good: bool) -> None:
        """Print what a step concluded."""
        self.say(f"      {text}", fg="green" if good else "red", bold=True)

    def path(self, name: str) -> Path:
        """Return a path in the demo's folder; what an interruption left there is removed."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        for extra in (f"{name}.partial", f"{name}.run", f"{name}.provenance.json"):
            leftover = self.folder / extra
            if leftover.is_dir():
                shutil.rmtree(leftover)
            leftover.unlink(missing_ok=True)
        return path

    def workspace(self, person: str) -> Workspace:
        """Open the workspace as one of the people."""
        return Workspace.open(
            self.folder, principal=person, unlock=lambda: Passphrase(_passphrase(self.folder, person)), environ={}
        )

    def seconds(self) -> float:
        """Return how long this run of the demo has taken."""
        return time.monotonic() - self.started

    def facts(self) -> dict[str, JsonValue]:
        """Return everything the demo found, for machines."""
        return {"folder": str(self.folder), "model": self.model, "seed": self.seed, "steps": dict(self.results)}

    def _save(self) -> None:
        state = {"model": self.model, "seed": self.seed, "results": self.results}
        write_atomic(self.folder / STATE, json.dumps(state, indent=1).encode(), mode=0o600)


def _set_up(folder: Path) -> None:
    """Make the workspace and its people. Their passphrases are written down, so that you can act as each of them."""
    folder.mkdir(parents=True)
    (folder / "passphrases").mkdir(mode=0o700)
    for name in LOCKED:
        write_private(folder / "passphrases" / f"{name}.txt", secrets.token_urlsafe(12).encode())
    olga = Passphrase(_passphrase(folder, "olga"))
    with Workspace.init(folder, profile="team", owner="olga", passphrase=olga) as workspace:
        for name, roles in PEOPLE.items():
            passphrase = Passphrase(_passphrase(folder, name)) if name in LOCKED else None
            key = workspace.keys.add_person(name, passphrase=passphrase).public  # as each person would, elsewhere
            add_person(workspace, name, roles, key=key)


def _passphrase(folder: Path, person: str) -> str:
    return (folder / "passphrases" / f"{person}.txt").read_text()
