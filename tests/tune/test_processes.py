"""Runs in processes of their own, forked from one nursery: several that share a run, and runs that are killed.

The sum of several is that of one, the noise is added once, and who dies stops the step. Runs that are killed at any
moment and resumed forget no charge and use no noise twice; ``STANCH_KILLS`` sets the number of kills, and
``make nightly`` takes 100.
"""

import math
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import servers
from stanch.data import open_dataset
from stanch.tune import PrivacyPlan, TuneSpec, prepare, tune, verify_run
from stanch.tune.grid import grid_exponent, noise_scale
from stanch.tune.journal import read_journal
from stanch.tune.ranks_torch import Ranks
from stanch.tune.refusals import UnsupportedParallelism

from .conftest import KEY, STEPS, spec_text, write_chats
from .nursery import gradients

WORLD = 2
LONGEST = 1.5
"""About as many seconds as a whole run takes."""
CHECKPOINT_EVERY = 2
KILLS = int(os.environ.get("STANCH_KILLS", "6"))


@pytest.fixture
def data(tmp_path) -> Path:
    return write_chats(tmp_path / "chats.jsonl", 60)


def together(nursery, *, world: int = WORLD, **order: object) -> list[int]:
    return nursery.run(**order, ranks=world, port=servers.free_port())


def vector(path: str) -> torch.Tensor:
    return torch.cat([part.double().flatten() for _, part in sorted(load_file(path).items())])


@pytest.mark.parametrize("world", [2, 4])
def test_processes_add_up_to_the_sum_of_one_and_add_noise_once(nursery, base, data, tmp_path, world):
    spec = spec_text(base, tmp_path / "out")
    order = {"spec_toml": spec, "data": str(data)}
    codes = together(nursery, world=world, job="gradients", **order, out=str(tmp_path / "all"))
    assert codes == [0] * world, nursery.complaints()
    gradients(**order, out=str(tmp_path / "one"))
    plan = prepare(TuneSpec.from_toml(spec.encode()), open_dataset(data, key=KEY)).plan
    step = 2.0 ** grid_exponent(plan.max_grad_norm, plan.coordinates) / plan.denominator
    alone = vector(f"{tmp_path}/one.sum.0")
    for name in ("sum", "noise"):
        assert all(
            torch.equal(vector(f"{tmp_path}/all.{name}.0"), vector(f"{tmp_path}/all.{name}.{rank}"))
            for rank in range(world)
        )
    assert alone.abs().max() > 100 * step
    # Each process rounds its own part; the release is in float32.
    assert (alone - vector(f"{tmp_path}/all.sum.0")).abs().max() <= world * step + 1e-9
    noise = vector(f"{tmp_path}/all.noise.0")
    assert torch.equal(noise, vector(f"{tmp_path}/one.noise.0"))
    # Five standard deviations of a sample variance: a false alarm in two million.
    variance = float(noise.square().mean()) / (noise_scale(plan) * step) ** 2
    assert variance == pytest.approx(1, abs=5 * math.sqrt(2 / len(noise)))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_agree_on_the_noise_that_they_check(nursery, base, data, tmp_path, world):
    """Each sees one part of the sum and the noise of all; a step without noise stops all of them uncharged."""
    out = tmp_path / "out"
    order = {"spec_toml": spec_text(base, out), "data": str(data), "silent": True}
    assert together(nursery, world=world, job="run", **order) == [1] * world
    assert nursery.complaints().count("SelfCheckFailed: the noise has 0 times") >= world
    spec = TuneSpec.from_toml(spec_text(base, out).encode())
    plan = prepare(spec, open_dataset(data, key=KEY)).plan
    assert read_journal((tmp_path / "out.run" / "budget.jsonl").read_bytes(), plan).head.charged == 0


def test_a_shared_run_is_a_run(nursery, base, data, tmp_path):
    out = tmp_path / "out"
    codes = together(nursery, job="run", spec_toml=spec_text(base, out), data=str(data), noted=str(tmp_path / "noise"))
    assert codes == [0, 0], nursery.complaints()
    verified = verify_run(out)
    assert verified.statement.fields["ranks"] == WORLD
    assert verified.statement.fields["updates"] == verified.head.charged == STEPS
    vectors = (tmp_path / "noise").read_bytes().split()
    parameters = len(verified.plan.trainable)
    assert len(vectors) == len(set(vectors)) == parameters * STEPS


def test_who_dies_stops_the_step_before_it_is_charged(nursery, base, data, tmp_path):
    out = tmp_path / "out"
    spec = spec_text(base, out)
    assert together(nursery, job="run", spec_toml=spec, data=str(data), dies_at=3) == [1, -signal.SIGKILL]
    assert "RankLost" in nursery.complaints()
    folder = out.with_name("out.run")
    plan = prepare(TuneSpec.from_toml(spec.encode()), open_dataset(data, key=KEY)).plan
    assert read_journal((folder / "budget.jsonl").read_bytes(), plan).head.charged == 3
    tuned = tune(TuneSpec.from_toml(spec.encode()), dataset=open_dataset(data, key=KEY), resume=True)
    # The checkpoint of step 2 is resumed from: the third step is charged and lost.
    assert tuned.statement.fields["charged_steps"] == STEPS
    assert tuned.statement.fields["updates"] == STEPS - 1
    assert verify_run(tuned.path).budget is not None


def test_processes_with_other_settings_do_not_start(nursery, base, data, tmp_path):
    spec = spec_text(base, tmp_path / "out", train="learning_rate = RATE\n")
    assert together(nursery, job="run", spec_toml=spec, data=str(data), rates=[0.001, 0.002]) == [1, 1]
    assert nursery.complaints().count("RanksDiverged: 1 of 2 processes") >= 2
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_model_in_shards_is_refused_by_name(kind):
    joining = Ranks.join({f"ACCELERATE_USE_{kind}": "true"})
    with pytest.raises(UnsupportedParallelism, match=r"^(FSDP|DeepSpeed|Megatron-LM) is not") as caught, joining:
        pass
    assert caught.value.next_step


def test_alone_nothing_is_shared():
    with Ranks.join({}) as ranks:
        assert ranks.leads
        assert ranks.own((1, 4, 7)) == (1, 4, 7)
        assert ranks.share(b"x") == b"x"
        ranks.agree(b"x", "anything")
        ranks.wait()


class Watch:
    """Follows the journal of one run from kill to kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.charged = 0
        self.plan: bytes | None = None

    def look(self) -> None:
        """Compare with the last look: the plan is the same, and no charge is gone."""
        if not (self.folder / "plan.json").exists():
            assert self.plan is None
            return
        data = (self.folder / "plan.json").read_bytes()
        assert self.plan in {None, data}
        self.plan = data
        head = read_journal((self.folder / "budget.jsonl").read_bytes(), PrivacyPlan.from_json(data)).head
        assert head.charged >= self.charged
        self.charged = head.charged


def test_killed_at_any_moment_a_run_forgets_no_charge_and_repeats_no_noise(nursery, base, tmp_path):
    data = write_chats(tmp_path / "chats.jsonl", 60)
    noted, rng = tmp_path / "noise", random.Random(int(os.environ.get("STANCH_SEED", "4")))
    killed = finished = lost = given_up = 0
    while killed < KILLS:
        output = tmp_path / f"out{finished}.{given_up}"
        watch = Watch(output.with_name(f"{output.name}.run"))
        while not output.exists():
            wait = rng.uniform(0, LONGEST) if killed < KILLS else None
            (code,) = nursery.run(
                job="run", spec_toml=spec_text(base, output), data=str(data), noted=str(noted), kill_after=wait
            )
            if code == 1 and nursery.complaints().count("ProgressLost") > given_up:
                # Killed between the first charge and the first checkpoint: nothing to go on with.
                assert 0 < watch.charged <= CHECKPOINT_EVERY
                assert not list(watch.folder.glob("checkpoint-?"))
                break
            assert code in {0, -signal.SIGKILL}, nursery.complaints()
            killed += code != 0
            if not output.exists():
                watch.look()
        if not output.exists():
            given_up += 1
            continue
        verified = verify_run(output)
        assert watch.plan in {None, (output / "plan.json").read_bytes()}
        assert verified.head.charged >= max(STEPS, watch.charged)
        lost += verified.head.charged - verified.statement.fields["updates"]
        finished += 1
    vectors = noted.read_bytes().split()
    assert len(vectors) == len(set(vectors))
    assert len(vectors) >= finished * STEPS
    # A kill loses at most the steps since the last checkpoint, the one that was under way included.
    assert 0 <= lost <= 2 * killed
    sys.stdout.write(f"{killed} kills, {finished} runs, {lost} lost steps, {len(vectors)} noise vectors\n")


@pytest.mark.slow
def test_a_killed_run_ends_with_a_true_statement(nursery, base, data, tmp_path):
    """Kill -9 in the fifth step; at most one step is lost, and the output verifies."""
    out = tmp_path / "out"
    spec = spec_text(base, out).replace("checkpoint_every = 2", "checkpoint_every = 1")
    order = {"job": "run", "spec_toml": spec, "data": str(data)}
    assert nursery.run(**order, dies_at=4) == [-signal.SIGKILL]
    folder = tmp_path / "out.run"
    plan = PrivacyPlan.from_json((folder / "plan.json").read_bytes())
    assert read_journal((folder / "budget.jsonl").read_bytes(), plan).head.charged >= 4
    assert nursery.run(**order) == [0], nursery.complaints()
    verified = verify_run(out)
    assert verified.head is not None
    assert verified.head.charged == STEPS
    assert STEPS - 1 <= verified.statement.fields["updates"] <= STEPS
    assert verified.plan is not None
    assert verified.plan.dataset_root == verified.statement.fields["dataset_root"]
