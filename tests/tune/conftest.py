"""A tiny base model on disk, and conversations to tune it on."""

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stanch.data import open_dataset
from stanch.tune.spec import TuneSpec
from tiny_base import write_base

KEY = bytes(range(32))
STEPS = 30


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def without_collection(monkeypatch):
    """Accelerate collects all garbage at each start of a trainer, which takes longer than training here."""
    monkeypatch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=lambda: None))


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def write_chats(path: Path, count: int, *, seed: int = 3, customers: int = 0) -> Path:
    """Write conversations of random words; with ``customers`` a column ``customer_id`` goes round."""
    rng = random.Random(seed)

    def words(number: int) -> str:
        return " ".join("".join(rng.choices("abcdefghijklmnop", k=4)) for _ in range(number))

    rows = []
    for index in range(count):
        row: dict[str, object] = {
            "messages": [{"role": "user", "content": words(2)}, {"role": "assistant", "content": words(3)}]
        }
        if customers:
            row["customer_id"] = f"c{index % customers}"
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def chats(tmp_path):
    return open_dataset(write_chats(tmp_path / "chats.jsonl", 60), key=KEY)


@pytest.fixture
def make_spec(base, tmp_path):
    """Return a builder of small specs; keyword arguments are TOML lines by table."""

    def build(**tables: str) -> TuneSpec:
        lines = {
            "base": f"path = {json.dumps(str(base))}",
            "method": "rank = 2\nalpha = 4",
            "train": 'steps = 4\nbatch = 8\ndtype = "float32"\ncheckpoint_every = 2',
            "output": f"path = {json.dumps(str(tmp_path / 'out'))}",
            **tables,
        }
        return TuneSpec.from_toml("".join(f"[{name}]\n{text}\n" for name, text in lines.items()).encode())

    return build


def spec_text(base: Path, output: Path, *, train: str = "") -> str:
    """Return the text of a small private spec."""
    return (
        f'[base]\npath = "{base}"\n[method]\nrank = 2\nalpha = 4\nlayers = [1]\n[privacy]\nepsilon = 1.0\n'
        f'[train]\nsteps = {STEPS}\nbatch = 4\ndtype = "float32"\ncheckpoint_every = 2\n{train}'
        f'[output]\npath = "{output}"\n'
    )


class Nursery:
    """Starts processes that tune, alone or several together."""

    def __init__(self, process: subprocess.Popen[str], complaints: Path) -> None:
        self._process = process
        self._complaints = complaints

    def run(self, **order: object) -> list[int]:
        """Do what ``order`` says; returns the exit codes."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def complaints(self) -> str:
        """Return what they wrote to their error output so far."""
        return self._complaints.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def nursery(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nursery")
    complaints = folder / "stderr"
    data = write_chats(folder / "chats.jsonl", 60)
    words = [sys.executable, str(Path(__file__).with_name("nursery.py")), spec_text(base, folder / "out"), str(data)]
    with (
        complaints.open("w") as errors,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert json.loads(process.stdout.readline()) == "ready"
        yield Nursery(process, complaints)
        process.kill()  # its end would take down torch first
