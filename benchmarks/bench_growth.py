"""How cost grows with the work: 1, 10 and 100 times as much of it, in processor seconds and in memory.

Each size of each work runs in a process of its own, twice in turn; what is prepared before is not measured. The
growth of a work is its least processor time for 100 times as much over that for 10 times as much, or the same of
memory above what the process held before: 10 is linear, less is a part that does not grow. What is measured is one
process and one thread of each.

    python benchmarks/bench_growth.py                  all works
    python benchmarks/bench_growth.py scan mark        these alone; the others stay as they were

Writes benchmarks/results/growth.json after each work.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bench_guard
import bench_ledger
import bench_mark
import bench_scale
import bench_watch
import numpy as np

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.guard import Guard
from stanch.ledger import fsck
from stanch.mark import FeatureSet, Layout, LayoutEntry, Variant, embed
from stanch.mark.scoring import draw_stratum, score_on
from stanch.seal import OpenParams, SealParams, VolatileReleases, open_bundle, seal
from stanch.sign import Bundle, TrustedKeys, sign_manifest, verify_manifest
from stanch.watch import detectors
from stanch.watch.events import read_entries
from stanch.watch.runner import BATCH
from stanch.weights import Tensor, write_safetensors

OUT = Path(__file__).parent / "results" / "growth.json"
TIMES, ROUNDS, WIDTH, STRATUM = (1, 10, 100), 2, 1024, 1 << 16
Action = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """Something that users do, and how much of it is one time.

    Attributes:
        unit: What it is counted in.
        least: How much of that is one time as much.
        prepare: Makes it ready in a folder and gives the action to measure.
    """

    unit: str
    least: float
    prepare: Callable[[Path, float], Iterator[Action]]


def prepare_pass(name: str) -> Callable[[Path, float], Iterator[Action]]:
    """Return what prepares a pass over a data set."""

    def prepare(folder: Path, megabytes: float) -> Iterator[Action]:
        bench_scale.write_plain(path := folder / "rows.jsonl", megabytes)
        yield lambda: bench_scale.make_pass(name, path, 1)

    return prepare


def prepare_appends(folder: Path, count: float) -> Iterator[Action]:
    """Entries that are appended, 64 of them in flight."""
    made = bench_ledger.entries(int(count))
    with bench_ledger.Log("sqlite:./log.db", folder, os.urandom(32)).open(create=True) as ledger:
        yield lambda: bench_ledger.append(ledger.append_nowait, made, bench_ledger.IN_FLIGHT)


def prepare_check(folder: Path, count: float) -> Iterator[Action]:
    """A whole log that is checked again."""
    log = bench_ledger.Log("sqlite:./log.db", folder, os.urandom(32))
    with log.open(create=True) as ledger:
        bench_ledger.append(ledger.append_nowait, bench_ledger.entries(int(count)), 4096)
        ledger.publish()
        yield lambda: fsck(ledger.reader(), ledger.policy, place=log.place(ledger), jobs=1)


def prepare_watch(_folder: Path, count: float) -> Iterator[Action]:
    """Entries that all detectors look at."""
    tail = bench_watch.entries(int(count))

    def run() -> None:
        states = [b""] * len(detectors())
        for at in range(0, len(tail), BATCH):
            events = list(read_entries(tail[at : at + BATCH]))
            states = [d.step(state, events)[0] for d, state in zip(detectors(), states, strict=True)]

    yield run


def write_model(folder: Path, megabytes: float) -> Path:
    """Write a model of so many megabytes of bfloat16, in tensors of a megabyte."""
    generator, model = np.random.default_rng(1), folder / "model"
    model.mkdir()
    shape = (int(1e6) // 2 // WIDTH, WIDTH)
    tensors = (
        Tensor.from_float32(f"layer.{number}", generator.standard_normal(shape, np.float32), "BF16")
        for number in range(int(megabytes))
    )
    write_safetensors(model / "model.safetensors", list(tensors))
    return model


def prepare_seal(folder: Path, megabytes: float) -> Iterator[Action]:
    """A model that is sealed and signed."""
    model, signer, identity = write_model(folder, megabytes), SigningKey.generate("p256"), generate_identity()
    params = SealParams(kind="model", lineage="bench/model", release_number=1)
    yield lambda: seal(
        model, folder / "sealed", [identity.recipient], params, lambda found: sign_manifest(found, signer).to_bytes()
    )


def prepare_load(folder: Path, megabytes: float) -> Iterator[Action]:
    """A sealed model that is verified, opened and read."""
    model, signer, identity = write_model(folder, megabytes), SigningKey.generate("p256"), generate_identity()
    params, bundle = SealParams(kind="model", lineage="bench/model", release_number=1), folder / "sealed"
    seal(model, bundle, [identity.recipient], params, lambda found: sign_manifest(found, signer).to_bytes())

    def run() -> object:
        signature = Bundle.parse((bundle / "manifest.sigstore.json").read_bytes(), what="signature")
        verified = verify_manifest((bundle / "manifest.json").read_bytes(), signature, TrustedKeys((signer.public,)))
        opened = open_bundle(bundle, verified, [identity], memory=VolatileReleases(), params=OpenParams(threads=1))
        with opened as sealed:
            return sealed.tensors("model.safetensors")

    yield run


def prepare_mark(folder: Path, megabytes: float) -> Iterator[Action]:
    """A model that is marked."""
    model = write_model(folder, megabytes)
    plan, keys = bench_mark.release(model)
    yield lambda: embed(model, folder / "copy", plan, keys.copies[0], threads=1)


def prepare_screening(_folder: Path, recipients: float) -> Iterator[Action]:
    """Recipients among whom a suspect's is looked for, on 65,536 coordinates."""
    values = np.random.default_rng(1).standard_normal(1 << 20, np.float32)
    layout = Layout((LayoutEntry("w", "F32", (WIDTH, WIDTH), 0),))
    features = FeatureSet(Variant.PLAIN, values, layout, ())
    streams = [os.urandom(32) for _ in range(int(recipients))]
    stratum = draw_stratum(bytes(32), len(values), STRATUM)
    yield lambda: score_on(features, streams, stratum)


def prepare_guard(_folder: Path, tokens: float) -> Iterator[Action]:
    """One answer that goes through the guard in tokens of five characters, everything on."""
    guard = Guard(bench_guard.policies()["all"])
    (part,) = bench_guard.clean(guard, 5 * 1000, 1)
    chunks = bench_guard.cut(part, 5) * (int(tokens) // 1000)
    yield lambda: bench_guard.feed(guard, chunks)


WORKS = {
    "scan": Work("MB of chats", 0.5, prepare_pass("scan")),
    "near-duplicates": Work("MB of chats", 0.5, prepare_pass("dedup")),
    "training-data index": Work("MB of chats", 0.2, prepare_pass("index")),
    "log, appended": Work("entries", 1000, prepare_appends),
    "log, checked": Work("entries", 1000, prepare_check),
    "watch, all detectors": Work("entries", 1000, prepare_watch),
    "seal and sign": Work("MB of weights", 4, prepare_seal),
    "load a sealed copy": Work("MB of weights", 4, prepare_load),
    "mark": Work("MB of weights", 1, prepare_mark),
    "trace, first screening": Work("recipients", 100, prepare_screening),
    "guard, one answer": Work("tokens", 1000, prepare_guard),
}


def peak() -> float:
    """Return the most memory that this process held, in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(name: str, amount: float) -> dict[str, float]:
    """Do it once, in this process."""
    work = WORKS[name]
    with tempfile.TemporaryDirectory() as folder, contextmanager(work.prepare)(Path(folder), amount) as act:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = peak(), time.process_time()
        act()
        return {"cpu_seconds": time.process_time() - start, "megabytes": max(0.0, peak() - before)}


def main() -> None:
    """Measure and write."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2], float(sys.argv[3]))))
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = json.loads(OUT.read_text()) if sys.argv[1:] else {"works": {}}
    result |= {"machine": machine, "load": os.getloadavg()[0]}
    for name in sys.argv[1:] or WORKS:
        result["works"][name] = grow(name)
        print(name, json.dumps(result["works"][name]), flush=True)
        OUT.write_text(json.dumps(result, indent=1) + "\n")


def grow(name: str) -> dict[str, object]:
    """Do a work in all sizes, in turn, and return the least that each took."""
    work = WORKS[name]
    sizes = [work.least * times for times in TIMES]
    rounds = [[run(name, size) for size in sizes] for _ in range(ROUNDS)]
    least = {
        figure: [min(found[at][figure] for found in rounds) for at in range(len(sizes))]
        for figure in ("cpu_seconds", "megabytes")
    }
    growth = {figure: values[2] / max(values[1], 1e-9) for figure, values in least.items()}
    return {"unit": work.unit, "amounts": sizes, **least, "growth": growth}


def run(name: str, amount: float) -> dict[str, float]:
    """Do it once, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, str(amount)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    )
    return said


if __name__ == "__main__":
    main()
