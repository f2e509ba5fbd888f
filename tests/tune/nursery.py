"""Forks processes that tune, alone or several together; its tests kill them. Forking spares each process its imports.

For each line on its input, a JSON object with ``job``, ``ranks``, ``kill_after`` and the job's own keys, it forks, and
says the exit codes when all have ended.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from stanch.data import open_dataset
from stanch.terms import SILENT
from stanch.tune import NULL, TuneSpec, gradient_torch, prepare, run_folder, session_torch, tune
from stanch.tune.model_torch import load_causal_model
from stanch.tune.noise import AesGaussian
from stanch.tune.ranks_torch import NoNoise, Ranks
from stanch.tune.sampler import UnitSampler

KEY = bytes(range(32))


def run(
    spec_toml: str,
    data: str,
    *,
    rank: int,
    noted: str = "",
    dies_at: int = -1,
    rates: tuple[float, ...] = (),
    silent: bool = False,
) -> None:
    """Start or resume a run; note a hash of each noise vector before it is used. ``silent`` plants a bug: no noise."""
    if silent:
        AesGaussian.draw = NoNoise.draw
    if noted:
        note_noise(Path(noted))
    if dies_at >= 0 and rank == int(os.environ["WORLD_SIZE"]) - 1:
        die_at(dies_at)
    spec = TuneSpec.from_toml(spec_toml.replace("RATE", str(rates[rank] if rates else 0.001)).encode())
    tune(spec, dataset=open_dataset(Path(data), key=KEY), resume=run_folder(spec).exists())


def note_noise(path: Path) -> None:
    draw = AesGaussian.draw

    def noting(self, step, parameter, count, scale, take):
        drawn = np.empty(count)
        draw(self, step, parameter, count, scale, drawn.__setitem__)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, hashlib.sha256(drawn.tobytes()).hexdigest().encode() + b"\n")
        os.close(handle)
        take(slice(0, count), drawn)

    AesGaussian.draw = noting


def die_at(step: int) -> None:
    draw = UnitSampler.draw

    def dying(self, now):
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, now)

    UnitSampler.draw = dying


def gradients(spec_toml: str, data: str, out: str, *, rank: int = 0) -> None:
    """Write the gradients of two steps: of all units without noise, and of none with noise."""
    spec = TuneSpec.from_toml(spec_toml.encode())
    dataset = open_dataset(Path(data), key=KEY)
    prepared = prepare(spec, dataset)
    with Ranks.join() as ranks:
        session = session_torch.Session(prepared, Path(out), NULL, SILENT, ranks=ranks)
        records = session._tokenise(dataset)
        model = load_causal_model(Path(spec.base.path), spec.method, dtype=torch.float32, longest=64)
        for name, units in (("sum", ranks.own(range(prepared.plan.n_units))), ("noise", ())):
            model.adapter.initialise(torch.Generator().manual_seed(5))
            noise = AesGaussian(bytes(32)) if name == "noise" and ranks.leads else NoNoise()
            made = gradient_torch.PrivateGradient(model, prepared.plan, noise, budget=1024, add_up=ranks.add_up)
            made.fill(0, [[records[one] for one in prepared.units.units[unit].record_ids] for unit in units])
            save_file({key: p.grad for key, p in model.adapter.parameters().items()}, f"{out}.{name}.{rank}")


def say(line: object) -> None:
    os.write(sys.stdout.fileno(), f"{json.dumps(line)}\n".encode())


def fork(order: dict, rank: int, world: int) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(order.pop("port", 0))
    try:
        {"run": run, "gradients": gradients}[order.pop("job")](**order, rank=rank)
    except BaseException as error:  # noqa: BLE001 - its name is what the test asks for
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def end(child: int, kill_after: float | None) -> int:
    """Wait for a process, or kill it after so many seconds; returns its exit code."""
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)  # not waited for yet, so its number is still its own
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(spec_toml: str, data: str) -> None:
    torch.set_num_threads(1)
    # What a run imports and what the accountant computes is there in every fork.
    run(spec_toml, data, rank=0)
    say("ready")
    for line in sys.stdin:
        order = json.loads(line)
        world, kill_after = order.pop("ranks", 1), order.pop("kill_after", None)
        children = [fork(dict(order), rank, world) for rank in range(world)]
        say([end(child, kill_after) for child in children])


if __name__ == "__main__":
    main(*sys.argv[1:])
