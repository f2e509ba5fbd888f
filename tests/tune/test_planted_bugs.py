"""Ways in which the guarantee breaks silently, planted, and caught by a check that passes without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from stanch.data import TokenRecord
from stanch.tune.chunks import Row, cut_chunks
from stanch.tune.coverage_torch import check_coverage, check_movement, check_saved
from stanch.tune.gradient_torch import PlainGradient, PrivateGradient
from stanch.tune.journal import BudgetJournal
from stanch.tune.loop_torch import Loop, learning_rate, make_optimizer
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.noise import AesGaussian
from stanch.tune.plan import PrivacyParams, PrivacyPlan
from stanch.tune.ranks_torch import NoNoise
from stanch.tune.refusals import BudgetExhausted, SelfCheckFailed, UncoveredParameter
from stanch.tune.sampler import StreamKeys, UnitSampler
from stanch.tune.spec import MethodSpec, TrainSpec
from stanch.tune.units import Unit, UnitTable

from .engine_models import integers

UNITS = 60


@pytest.fixture
def model() -> CausalModel:
    made = CausalModel(tiny_llama(vocab=64, d=16, layers=1, heads=2, kv=1), MethodSpec(rank=2, alpha=4))
    made.adapter.initialise(torch.Generator().manual_seed(0))
    return made


@pytest.fixture(scope="module")
def table() -> UnitTable:
    return UnitTable("record", "each record", "00", tuple(Unit(f"{n:03}", (f"r{n}",)) for n in range(UNITS)))


@pytest.fixture(scope="module")
def records() -> dict[str, TokenRecord]:
    rng = np.random.default_rng(0)
    return {
        f"r{n}": TokenRecord(f"r{n}", tuple(rng.integers(3, 64, 6 + n % 9).tolist()), (2, 6 + n % 9))
        for n in range(UNITS)
    }


@pytest.fixture
def plan(model, table) -> PrivacyPlan:
    return PrivacyPlan.make(table, model.adapter.shapes(), PrivacyParams(epsilon=1.0, steps=4, expected_batch=8))


def gradients(model) -> np.ndarray:
    return np.concatenate([p.grad.numpy().reshape(-1) for p in model.adapter.parameters().values()]).astype(np.float64)


def check_noise(model, plan, gradient, units) -> None:
    """The released gradient minus the clipped mean has the plan's variance (false alarm 2e-6)."""
    total = gradient.sum_clipped(units)
    mean = np.concatenate([part.numpy().reshape(-1) for part in total.values()]) / plan.denominator
    gradient.fill(0, units)
    noise = (gradients(model) - mean) * plan.denominator
    sigma = plan.noise_multiplier * plan.max_grad_norm
    low, high = chi2.ppf([1e-6, 1 - 1e-6], len(noise))
    assert low < (noise**2).sum() / sigma**2 < high * (1 + plan.slack) ** 2


class Twice(AesGaussian):
    """Noise once for each chunk, as if there were two."""

    def draw(self, step, parameter, count, scale, take):
        one = AesGaussian(self._key)
        take(slice(0, count), sum(integers(one, step + chunk, parameter, count, scale) for chunk in range(2)))


def test_noise_has_the_variance_of_the_plan(model, plan, records):
    units = [[record] for record in list(records.values())[:9]]
    check_noise(model, plan, PrivateGradient(model, plan, AesGaussian(bytes(32)), budget=4096), units)
    check_noise(model, plan, PrivateGradient(model, plan, AesGaussian(bytes(32)), budget=30), units)
    check_noise(model, plan, PrivateGradient(model, plan, AesGaussian(bytes(32)), budget=30), [])


@pytest.mark.parametrize("source", [NoNoise(), Twice(bytes(32))], ids=["noise off", "noise per chunk"])
def test_planted_noise_bugs_are_caught(model, plan, records, source):
    units = [[record] for record in list(records.values())[:9]]
    with pytest.raises(AssertionError):
        check_noise(model, plan, PrivateGradient(model, plan, source, budget=4096), units)


def removal(model, plan, units, weigh=None) -> float:
    """Return how far removing the last unit moves the clipped sum, in bounds."""
    sums = []
    for some in (units, units[:-1]):
        gradient = PrivateGradient(model, plan, NoNoise(), budget=10**6)
        if weigh is not None:
            loss = model.loss
            model.loss = lambda rows, loss=loss: loss(weigh(rows))
        sums.append(torch.cat([part.reshape(-1).clone() for part in gradient.sum_clipped(some).values()]))
        model.__dict__.pop("loss", None)
    return float((sums[0] - sums[1]).norm()) / plan.max_grad_norm


def test_batch_mean_loss_is_caught(model, plan):
    with torch.no_grad():
        for layer in model.adapter.layers:
            layer.up.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    short = [[TokenRecord(f"s{n}", (5, 6, 7, 8), (1, 4))] for n in range(30)]
    units = [*short, [TokenRecord("long", tuple(3 + n % 60 for n in range(400)), (1, 400))]]

    def batch_mean(rows):
        labelled = sum(row.record.span[1] - row.record.span[0] for row in rows)
        return [Row(row.record, len(rows) / labelled) for row in rows]

    # Bounded at the norm of one short record: with the long one in the batch, its weight falls to a fifth.
    unbounded = replace(plan, max_grad_norm=1000.0)
    plan = replace(plan, max_grad_norm=1000.0 * removal(model, unbounded, short[:1]))
    assert removal(model, plan, units) <= 1 + 1e-5
    assert removal(model, plan, units, batch_mean) > 5


def test_the_divisor_is_the_plans_whatever_was_drawn(model, plan, records):
    """A realised denominator would give the same mean for one copy of a unit and for two."""
    unit = [records["r0"]]
    gradient = PrivateGradient(model, plan, NoNoise(), budget=4096)
    gradient.fill(0, [unit])
    one = gradients(model)
    gradient.fill(0, [unit, unit])
    assert np.abs(one).max() > 0
    assert np.abs(gradients(model) - 2 * one).max() < 1e-6
    plain = PlainGradient(model, 8, budget=4096)
    plain.fill(0, [unit])
    one = gradients(model)
    plain.fill(0, [unit, unit])
    assert np.allclose(gradients(model), 2 * one, atol=1e-7)


def test_an_empty_draw_is_a_step_with_noise(model, plan):
    gradient = PrivateGradient(model, plan, AesGaussian(bytes(32)), budget=4096)
    gradient.fill(0, [])
    assert np.abs(gradients(model)).max() > 0


def run_loop(model, plan, table, records, folder, *, journal, noise=None, **changes):
    keys = StreamKeys.fresh()
    gradient = PrivateGradient(model, plan, noise or AesGaussian(keys.noise), budget=4096)
    loop = Loop(
        model=model, gradient=gradient, sampler=UnitSampler.of(plan, table, keys), records=records, journal=journal,
        train=TrainSpec(checkpoint_every=0), steps=plan.steps, folder=folder, run="00", on_checkpoint=lambda _: None,
        **changes,
    )  # fmt: skip
    return loop.run_steps()


def test_every_step_is_charged_before_it_is_applied(model, plan, table, records, tmp_path, monkeypatch):
    order = []
    journal = BudgetJournal.create(tmp_path / "budget.jsonl", plan)
    charge, step = journal.charge, torch.optim.AdamW.step
    monkeypatch.setattr(journal, "charge", lambda n: (order.append("charge"), charge(n))[1])

    def noted(self):
        # Steps that are tried for nothing have gradients of zero.
        if any(p.grad is not None and p.grad.any() for group in self.param_groups for p in group["params"]):
            order.append("step")
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    with journal:
        assert run_loop(model, plan, table, records, tmp_path, journal=journal) == plan.steps
    assert order == ["charge", "step"] * plan.steps


def test_a_step_that_cannot_be_charged_is_not_taken(model, plan, table, records, tmp_path):
    with BudgetJournal.create(tmp_path / "budget.jsonl", plan) as journal:
        journal.charge = lambda _n: (_ for _ in ()).throw(BudgetExhausted("no more"))
        before = {name: p.detach().clone() for name, p in model.adapter.parameters().items()}
        with pytest.raises(BudgetExhausted):
            run_loop(model, plan, table, records, tmp_path, journal=journal)
        assert all(torch.equal(before[name], p) for name, p in model.adapter.parameters().items())


def test_noise_and_sample_never_repeat_after_a_resume(model, plan, table, records, tmp_path):
    """Hashes of all noise vectors of three starts of one run: all different."""
    seen = []

    class Watched(AesGaussian):
        def draw(self, step, parameter, count, scale, take):
            found = integers(super(), step, parameter, count, scale)
            seen.append(found.tobytes())
            take(slice(0, count), found)

    plan = replace(plan, steps=1)
    samples = []
    for start in range(3):
        folder = tmp_path / str(start)
        folder.mkdir()
        keys = StreamKeys.fresh()
        samples.append(tuple(UnitSampler.of(plan, table, keys).draw(step) for step in range(3)))
        with BudgetJournal.create(folder / "budget.jsonl", plan) as journal:
            run_loop(model, plan, table, records, folder, journal=journal, noise=Watched(keys.noise))
    assert len(seen) == 3 * len(plan.trainable) == len(set(seen))
    assert len(set(samples)) == 3


def test_an_optimizer_of_other_tensors_is_caught(model):
    check_coverage(model, make_optimizer(model, TrainSpec()))
    stale = torch.optim.AdamW([torch.nn.Parameter(p.detach().clone()) for p in model.adapter.parameters().values()])
    with pytest.raises(UncoveredParameter, match="optimised"):
        check_coverage(model, stale)
    partial = torch.optim.AdamW(list(model.adapter.parameters().values())[1:])
    with pytest.raises(UncoveredParameter):
        check_coverage(model, partial)


def test_a_parameter_that_is_trained_beside_the_adapter_is_caught(model):
    optimizer = make_optimizer(model, TrainSpec())
    model.body.norm.weight.requires_grad_(requires_grad=True)
    with pytest.raises(UncoveredParameter, match="trainable"):
        check_coverage(model, optimizer)


def test_weights_that_do_not_move_are_caught(model):
    parameters = model.adapter.parameters()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    with pytest.raises(SelfCheckFailed):
        check_movement(before, parameters)
    with torch.no_grad():
        next(iter(parameters.values())).add_(1)
    check_movement(before, parameters)


def test_a_saved_adapter_that_is_not_the_trained_one_is_caught(private_output, base):
    folder, made = private_output
    check_saved(made, folder, base)
    config = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(config.replace('"lora_alpha": 4', '"lora_alpha": 400'))
    with pytest.raises(SelfCheckFailed, match="loss"):
        check_saved(made, folder, base)
    (folder / "adapter_config.json").write_text(config)
    with torch.no_grad():
        made.adapter.layers[0].up.add_(1)
    with pytest.raises(SelfCheckFailed, match="weights"):
        check_saved(made, folder, base)


@pytest.fixture
def private_output(base, tmp_path):
    from stanch.tune.checkpoint_torch import adapter_bytes, adapter_config  # noqa: PLC0415 - used here alone
    from stanch.tune.model_torch import load_causal_model  # noqa: PLC0415 - same

    method = MethodSpec(rank=2, alpha=4)
    made = load_causal_model(base, method, dtype=torch.float32, longest=30)
    generator = torch.Generator().manual_seed(3)
    made.adapter.initialise(generator)
    with torch.no_grad():
        for layer in made.adapter.layers:
            layer.up.normal_(0, 0.3, generator=generator)
    (tmp_path / "adapter_model.safetensors").write_bytes(adapter_bytes(made.adapter.parameters()))
    names = [layer.name for layer in made.adapter.layers]
    (tmp_path / "adapter_config.json").write_bytes(adapter_config(base, method, names))
    return tmp_path, made


def test_a_shuffle_is_not_poisson_sampling():
    """A sampler of fixed batches has no spread in its counts; ours has that of the binomial law (false alarm 2e-7)."""
    drawn = UnitSampler(StreamKeys.fresh(), (8 << 64) // UNITS, UNITS, 1, UnitTable("record", "", "", ()))
    counts = np.array([len(drawn.draw(step)) for step in range(400)])
    variance = 8 * (1 - 8 / UNITS)

    def spread(found):
        low, high = chi2.ppf([1e-7, 1 - 1e-7], len(found))
        return low < ((found - 8) ** 2).sum() / variance < high

    assert spread(counts)
    assert not spread(np.full(400, 8))


def test_learning_rates():
    assert [learning_rate(TrainSpec(learning_rate=1.0), step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert learning_rate(TrainSpec(learning_rate=1.0, schedule="constant"), 3, 4) == 1.0


def test_a_large_unit_takes_several_passes(records):
    unit = list(records.values())[:8]
    (chunk,) = cut_chunks([unit], 20)
    assert chunk.units == 1
    assert len(chunk.passes) > 1
