"""Processes that share a run: the sum is that of one, the noise is added once, and who dies stops the step."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import servers
from stanch.data import open_dataset
from stanch.tune import TuneSpec, prepare, tune, verify_run
from stanch.tune.grid import grid_exponent, noise_scale
from stanch.tune.journal import read_journal
from stanch.tune.ranks_torch import Ranks
from stanch.tune.refusals import UnsupportedParallelism

from .conftest import KEY, STEPS, spec_text, write_chats
from .nursery import gradients

WORLD = 2


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
    assert together(nursery, job="run", spec_toml=spec, data=str(data), dies_at=3) == [1, 9]
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
