"""Marking and detection: speed a core beside their limits on the machine, and memory.

Speed is GB of bfloat16 weights a second of processor time, one thread, in interleaved rounds; the weights lie in the
system's memory. ``embed`` makes a whole copy, with the recipient's and the ownership values; ``features`` compares a
suspect by the variant plain, once for all recipients; ``detect`` scores one recipient on every coordinate. Each is
measured compiled (extra ``fast``) and in numpy alone. Beside them: memcpy; a plain numpy program with numpy's Philox;
and the two steps no mark can do without, the AES key stream and the look-up of its values, compiled. They give the
limits: of ``embed`` two of each a weight and nothing else, of ``detect`` one. Then what compiling takes, and the
screening of 10,000 recipients. Memory is anonymous memory above what the process had, while a copy is made and
features are extracted.

    python benchmarks/bench_mark_speed.py

Writes benchmarks/results/mark-speed.json.
"""

import ctypes
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_mark import RESULTS, STRENGTH, release

from stanch.crypto import aes_ctr_into
from stanch.mark import (
    FeatureSet,
    Layout,
    LayoutEntry,
    MarkedSource,
    Originals,
    Variant,
    embed,
    extract,
    open_suspect,
    score,
)
from stanch.mark.embedding import BLOCK
from stanch.mark.kernels import COMPILER, Loops, compile_loops
from stanch.mark.scoring import draw_stratum, score_on
from stanch.mark.signature import gaussian_table, look_up
from stanch.weights import Tensor, write_safetensors

ROUNDS, SCREENED, STRATUM = 5, 10_000, 1 << 16
ACTS = ("embed", "features", "detect")


def gigabytes(action: Callable[[], object], size: int) -> float:
    """Return GB a second of processor time."""
    start = time.process_time()
    action()
    return size / (time.process_time() - start) / 1e9


def read_all(source: MarkedSource) -> None:
    """Make the copy and throw it away."""
    for file in source.files():
        with file.open() as stream:
            while stream.read(1 << 20):
                pass


def philox(raw: npt.NDArray[np.uint16], *, add: bool) -> None:
    """What a plain numpy program does: Gaussian values, added to the weights or multiplied with them, in blocks."""
    generator = np.random.Generator(np.random.Philox(1))
    for start in range(0, raw.size, BLOCK):
        weights = Tensor("", "BF16", raw[start : start + BLOCK]).to_float32()
        values = generator.standard_normal(len(weights), np.float32)
        if add:
            Tensor.from_float32("", weights + values, "BF16")
        else:
            np.dot(weights, values)


def steps(count: int, loops: Loops) -> dict[str, Callable[[], object]]:
    """Return the two steps of one value, in blocks as the marks make them, for ``count`` values."""
    drawn = np.random.default_rng(2).integers(0, 1 << 16, BLOCK, np.uint16)
    stream, key, blocks = np.empty(BLOCK, np.uint16), bytes(32), range(0, count, BLOCK)
    values = np.empty(BLOCK, np.float32)

    def key_stream() -> None:
        for start in blocks:
            aes_ctr_into(key, start.to_bytes(16, "big"), stream.data)

    def look_up_all() -> None:
        for _ in blocks:
            loops.look_up(drawn, gaussian_table(), values)

    def look_up_in_numpy() -> None:
        for _ in blocks:
            look_up(drawn, values)

    return {"key stream": key_stream, "look-up": look_up_all, "look-up in numpy": in_way(None, look_up_in_numpy)}


def in_way(loops: Loops | None, action: Callable[[], object]) -> Callable[[], object]:
    """Return the action, compiled or in numpy alone."""

    def run() -> None:
        COMPILER._loops, COMPILER._left = loops, 1 << 62  # noqa: SLF001 - what it decides by itself otherwise
        action()

    return run


def screening(features: FeatureSet, key: bytes) -> dict[str, object]:
    """Measure the first stage of screening."""
    streams = [os.urandom(32) for _ in range(SCREENED)]
    stratum, seconds = draw_stratum(key, len(features.values), STRATUM), []
    for _ in range(ROUNDS):
        start = time.process_time()
        score_on(features, streams, stratum)
        seconds.append(time.process_time() - start)
    return summary(seconds) | {"recipients": SCREENED, "coordinates": stratum.coordinates}


def speed() -> dict[str, object]:
    """Measure on one thread, by processor time."""
    start = time.process_time()
    loops = compile_loops()
    if loops is None:
        raise SystemExit("install the extra fast first")
    compiling = time.process_time() - start
    generator = np.random.default_rng(1)
    raw = Tensor.from_float32("w", generator.standard_normal((4096, 4096), np.float32), "BF16").raw
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        model, copy = Path(folder) / "model", Path(folder) / "copy"
        model.mkdir()
        write_safetensors(model / "model.safetensors", [Tensor("w", "BF16", raw)])
        plan, keys = release(model)
        source = MarkedSource(model, plan, keys.copies[0], threads=1)
        embed(model, copy, plan, keys.copies[0], threads=1)
        originals, suspect = Originals(model), open_suspect(copy)
        layout = Layout((LayoutEntry("w", "F32", raw.shape, 0),))
        features = FeatureSet(Variant.PLAIN, generator.standard_normal(raw.size, np.float32), layout, ())
        flat, target = raw.reshape(-1), np.empty_like(raw)
        ours: dict[str, Callable[[], object]] = {
            "embed": lambda: read_all(source),
            "features": lambda: extract(originals, suspect, Variant.PLAIN, alpha=STRENGTH, threads=1),
            "detect": lambda: score(features, [keys.copies[0].stream]),
        }
        actions: dict[str, Callable[[], object]] = {
            **{name: in_way(loops, action) for name, action in ours.items()},
            **{f"{name} in numpy": in_way(None, action) for name, action in ours.items()},
            "memcpy": lambda: np.copyto(target, raw),
            "philox embed": lambda: philox(flat, add=True),
            "philox detect": lambda: philox(flat, add=False),
            **steps(raw.size, loops),
        }
        for _ in range(ROUNDS):
            for name, action in actions.items():
                figures.setdefault(name, []).append(gigabytes(action, raw.nbytes))
        in_way(loops, lambda: None)()
        screened = screening(features, keys.strata_key)
    values = [1 / (1 / a + 1 / b) for a, b in zip(figures["key stream"], figures["look-up"], strict=True)]
    figures |= {"limit of embed": [value / 2 for value in values], "limit of detect": values}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "GB_per_cpu_second_of_bf16": {name: summary(rounds) for name, rounds in figures.items()},
        "ratios": {name: summary(rounds) for name, rounds in ratios(figures).items()},
        "compiling_cpu_seconds": compiling,
        "screening_cpu_seconds": screened,
    }


def ratios(figures: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return our speeds over the peers', round by round."""
    over = {f"{act} over philox": (act, f"philox {act}") for act in ("embed", "detect")}
    over |= {f"{act} over limit": (act, f"limit of {act}") for act in ("embed", "detect")}
    over |= {f"{act} over numpy": (act, f"{act} in numpy") for act in ACTS}
    return {
        name: [a / b for a, b in zip(figures[ours], figures[theirs], strict=True)]
        for name, (ours, theirs) in over.items()
    }


def summary(rounds: Sequence[float]) -> dict[str, object]:
    """Median and range, and the upper quartile: other programs' load only slows."""
    quartile = statistics.quantiles(rounds, n=4)[2]
    return {"median": statistics.median(rounds), "quartile": quartile, "low": min(rounds), "high": max(rounds)}


def anonymous() -> int:
    """Return the process's anonymous memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def peak(action: Callable[[], object]) -> float:
    """Return the most anonymous memory in MB that the action needs above what there was."""
    ctypes.CDLL(None).malloc_trim(0)  # Else what was freed before is filled again unseen (glibc).
    before, most, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return max(0, most[0] - before) / 1e6


def memory() -> dict[str, object]:
    """Measure for two sizes of model: what grows with the size shows."""
    generator, found = np.random.default_rng(1), {}
    for tensors in (4, 16):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            made = [
                Tensor.from_float32(f"layers.{number}.w", generator.standard_normal((8192, 2048), np.float32), "BF16")
                for number in range(tensors)
            ]
            size = sum(tensor.raw.nbytes for tensor in made)
            write_safetensors(path / "model.safetensors", made)
            del made
            plan, keys = release(path)
            source = MarkedSource(path, plan, keys.copies[0], threads=2)
            originals, suspect = Originals(path), open_suspect(path)
            found[f"{size / 1e6:.0f} MB"] = {
                "embed": peak(lambda source=source: read_all(source)),
                "plain": peak(lambda o=originals, s=suspect: extract(o, s, Variant.PLAIN, alpha=STRENGTH, threads=2)),
            }
    return {"peak_anonymous_MB": found}


def main() -> None:
    """Measure both."""
    result = speed() | memory()
    (RESULTS / "mark-speed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
