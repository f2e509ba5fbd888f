"""The table of planted bugs: each check passes on what stanch does, and fails with the bug.

| bug | caught by |
|---|---|
| noise off | the check of the first and every 100th step, before it is charged |
| batch-mean loss | removing a unit moves the sum by more than the bound |
| shuffled batches | the spread of batch sizes |
| noise reused | no vector of noise comes twice |
| per-batch clipping | removing a unit moves the sum by more than the bound |
| stale parameter reference | the comparison of trained, optimised and collected tensors |

An audit sees the first one too: ``tests/acceptance/test_demo.py``.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from stanch.data import TokenRecord
from stanch.tune.captures_torch import Grams
from stanch.tune.chunks import Row
from stanch.tune.coverage_torch import check_coverage, check_noise
from stanch.tune.gradient_torch import PrivateGradient
from stanch.tune.loop_torch import make_optimizer
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.noise import AesGaussian
from stanch.tune.ranks_torch import NoNoise
from stanch.tune.refusals import SelfCheckFailed, UncoveredParameter
from stanch.tune.sampler import StreamKeys, UnitSampler
from stanch.tune.spec import MethodSpec, TrainSpec
from stanch.tune.units import UnitTable

from .engine_models import integers, make_plan

STEPS = 400


@pytest.fixture
def model() -> CausalModel:
    made = CausalModel(tiny_llama(vocab=64, d=16, layers=1, heads=2, kv=1), MethodSpec(rank=2, alpha=4))
    generator = torch.Generator().manual_seed(1)
    made.adapter.initialise(generator)
    with torch.no_grad():
        for layer in made.adapter.layers:
            layer.up.normal_(0, 0.5, generator=generator)
    return made


def short(number: int) -> list[TokenRecord]:
    return [TokenRecord(f"s{number}", (5, 6, 7, 8), (1, 4))]


LONG = [TokenRecord("long", tuple(3 + n % 60 for n in range(400)), (1, 400))]
UNITS = [*(short(n) for n in range(30)), LONG]
QUIET = [[TokenRecord(f"q{n}", (5, 6, 7, 8), (4, 4))] for n in range(30)]
"""Units without labels: their gradient is zero."""


def make_gradient(model, noise=None, **changes) -> PrivateGradient:
    return PrivateGradient(model, make_plan(model, **changes), noise or AesGaussian(bytes(32)), budget=10**6)


def summed(gradient, units) -> torch.Tensor:
    return torch.cat([part.flatten().clone() for part in gradient.sum_clipped(units).values()])


def check_removal(model, batch, bound) -> None:
    """Removing the last unit moves the sum by at most C."""
    gradient = make_gradient(model, max_grad_norm=bound)
    moved = float((summed(gradient, batch) - summed(gradient, batch[:-1])).norm())
    assert moved <= bound * (1 + 1e-5)


def plant_batch_mean(model, monkeypatch) -> None:
    loss = model.loss

    def batch_mean(rows):
        labelled = sum(len(row.record.labelled) for row in rows)
        return loss([Row(row.record, len(rows) / labelled) for row in rows])

    monkeypatch.setattr(model, "loss", batch_mean)


def plant_clipping_per_batch(monkeypatch) -> None:
    """Clip the mean of the batch, and multiply by its size: what one optimizer's clipping would do."""

    def per_batch(self):
        grams = Grams()
        norms = torch.stack([captured.square_norms(grams) for captured in self._collected.values()]).sum(0).sqrt()
        factor = (self._bound * len(norms) / norms.sum()).clamp(max=1.0)
        return factor.expand_as(norms).float(), None

    monkeypatch.setattr("stanch.tune.engine_torch.UnitGradients._clip_factors", per_batch)


def check_release(model, noise) -> None:
    gradient = make_gradient(model, noise)
    gradient.fill(0, UNITS)
    check_noise(gradient)


class Half(AesGaussian):
    def draw(self, step, parameter, count, scale, take):
        super().draw(step, parameter, count, scale / 2, take)


class PerChunk(AesGaussian):
    def draw(self, step, parameter, count, scale, take):
        one = AesGaussian(self._key)
        take(slice(0, count), sum(integers(one, step + chunk, parameter, count, scale) for chunk in range(4)))


class Reused(AesGaussian):
    def draw(self, _step, parameter, count, scale, take):
        super().draw(0, parameter, count, scale, take)


def check_fresh(noise) -> None:
    """No two of the vectors of a run are the same."""
    found = [integers(noise, step, parameter, 32, 1e6).tobytes() for step in range(20) for parameter in range(4)]
    assert len(set(found)) == len(found)


def check_spread(sizes) -> None:
    """Sizes of Poisson batches spread as the binomial law says (false alarm 2e-7)."""
    expected, rate = 8, 8 / 60
    low, high = chi2.ppf([1e-7, 1 - 1e-7], len(sizes))
    assert low < sum((size - expected) ** 2 for size in sizes) / (expected * (1 - rate)) < high


def sizes_of(draw) -> list[int]:
    return [len(draw(step)) for step in range(STEPS)]


def shuffled(step: int) -> list[int]:
    """Return batch ``step`` of shuffled epochs: always as many, and nobody twice before all were in."""
    epoch, place = divmod(step * 8, 56)
    return np.random.default_rng(epoch).permutation(60)[place : place + 8].tolist()


def replace_a_tensor(model) -> None:
    layer = model.adapter.layers[0]
    layer.down = torch.nn.Parameter(layer.down.detach().clone())


def test_noise_off_is_caught(model):
    check_release(model, AesGaussian(bytes(32)))
    with pytest.raises(SelfCheckFailed, match="0 times the variance"):
        check_release(model, NoNoise())


@pytest.mark.parametrize(("noise", "times"), [(Half, r"0\.2\d+"), (PerChunk, r"[34]\.\d+")])
def test_noise_of_another_size_is_caught(model, noise, times):
    with pytest.raises(SelfCheckFailed, match=f"has {times} times the variance"):
        check_release(model, noise(bytes(32)))


def test_a_batch_mean_loss_is_caught(model, monkeypatch):
    # The long record takes most of the weight of the short ones.
    bound = float(summed(make_gradient(model, max_grad_norm=1e3), UNITS[:1]).norm())
    check_removal(model, UNITS, bound)
    plant_batch_mean(model, monkeypatch)
    with pytest.raises(AssertionError):
        check_removal(model, UNITS, bound)


def test_clipping_per_batch_is_caught(model, monkeypatch):
    # Among units that say nothing, the mean is short, and a loud one goes unclipped.
    bound = float(summed(make_gradient(model, max_grad_norm=1e3), [LONG]).norm()) / 10
    check_removal(model, [*QUIET, LONG], bound)
    plant_clipping_per_batch(monkeypatch)
    with pytest.raises(AssertionError):
        check_removal(model, [*QUIET, LONG], bound)


def test_shuffled_batches_are_caught():
    table = UnitTable("record", "", "", ())
    check_spread(sizes_of(UnitSampler(StreamKeys.fresh(), (8 << 64) // 60, 60, 1, table).draw))
    with pytest.raises(AssertionError):
        check_spread(sizes_of(shuffled))


def test_reused_noise_is_caught():
    check_fresh(AesGaussian(bytes(32)))
    with pytest.raises(AssertionError):
        check_fresh(Reused(bytes(32)))


def test_a_stale_reference_of_the_optimizer_or_of_the_gradient_is_caught(model):
    optimizer, gradient = make_optimizer(model, TrainSpec()), make_gradient(model)
    check_coverage(model, optimizer, gradient)
    replace_a_tensor(model)
    with pytest.raises(UncoveredParameter, match="optimised"):
        check_coverage(model, optimizer, gradient)
    # With an optimizer of the new tensors, the gradient is still left in the old ones: nothing would be trained.
    with pytest.raises(UncoveredParameter, match="collected"):
        check_coverage(model, make_optimizer(model, TrainSpec()), gradient)
    check_coverage(model, make_optimizer(model, TrainSpec()), make_gradient(model))


def test_small_models_are_not_accused(model):
    """The check's law holds for few coordinates too: 2,000 releases of 40 coordinates, none refused."""

    class Fake:
        plan = replace(make_plan(model), trainable=model.adapter.shapes()[:1])

        def noise_variance(self):
            values = rng.standard_normal(self.plan.coordinates) * (1 + 2.0**-10)
            return float(values @ values) / len(values)

    rng = np.random.default_rng(3)
    for _ in range(2000):
        check_noise(Fake())
