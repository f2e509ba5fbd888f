"""The plan: defaults, refusals, and a strict JSON form."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.crypto import canonical_json
from stanch.data import open_dataset
from stanch.errors import InvalidInput
from stanch.tune import accountant
from stanch.tune.plan import ParameterShape, PrivacyParams, PrivacyPlan, default_delta, sampling_rate
from stanch.tune.refusals import DeltaTooLarge, PlanInfeasible
from stanch.tune.units import RecordUnit, Unit, UnitTable, form_units

from .conftest import write_chats

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/tune/plan.json").read_text())
SHAPES = (ParameterShape("b", (3, 2)), ParameterShape("a", (4,)))


def table(count: int) -> UnitTable:
    units = tuple(Unit(f"u{index:06d}", (f"r{index}",)) for index in range(count))
    return UnitTable("record", "each record; near-duplicates joined", "00" * 32, units)


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return PrivacyPlan.make(table(60), SHAPES, PrivacyParams(epsilon=1.0, expected_batch=8, steps=4))


def test_defaults_are_the_published_ones():
    expected = GOLDEN["default"]
    plan = PrivacyPlan.make(table(expected["n_units"]), SHAPES)
    assert plan.expected_batch == plan.denominator == expected["expected_batch"]
    assert plan.steps == expected["steps"]
    assert plan.sampling_threshold == expected["sampling_threshold"]
    assert plan.delta == expected["delta"]
    assert plan.mechanism.rate == expected["rate"]
    assert plan.noise_multiplier == 0.5809
    assert plan.epsilon_after(plan.steps) <= plan.epsilon == 8
    assert plan.coordinates == 10


@pytest.mark.parametrize(("count", "delta"), GOLDEN["delta"])
def test_default_delta_has_one_digit_and_is_not_above(count, delta):
    assert default_delta(count) == delta <= 1 / (10 * count) * (1 + 1e-15)


def test_sampling_rate_is_never_below_the_ratio():
    from fractions import Fraction  # noqa: PLC0415 - used here alone

    for count in range(20, 400):
        rate = sampling_rate(7, count)
        assert Fraction(rate) >= Fraction(7, count)
        assert Fraction((7 << 64) // count, 1 << 64) <= Fraction(rate)


def test_json_gives_the_plan_back(plan):
    data = plan.to_json()
    again = PrivacyPlan.from_json(data)
    assert again == plan
    assert again.digest == plan.digest
    assert json.loads(data)["trainable"] == [["a", [4]], ["b", [3, 2]]]


@pytest.mark.parametrize("case", GOLDEN["broken"], ids=lambda case: case["name"])
def test_a_broken_plan_is_refused(plan, case):
    value = json.loads(plan.to_json()) | case["set"]
    with pytest.raises(InvalidInput):
        PrivacyPlan.from_json(canonical_json(value))


def test_every_field_is_mandatory(plan):
    value = json.loads(plan.to_json())
    for name in value:
        rest = {key: item for key, item in value.items() if key != name}
        with pytest.raises(InvalidInput):
            PrivacyPlan.from_json(canonical_json(rest))


def test_only_canonical_json_is_read(plan):
    with pytest.raises(InvalidInput):
        PrivacyPlan.from_json(plan.to_json() + b"\n")
    with pytest.raises(InvalidInput):
        PrivacyPlan.from_json(json.dumps(json.loads(plan.to_json()), indent=1).encode())


def test_the_digest_covers_every_field(plan):
    value = json.loads(plan.to_json())
    assert len(value) == 29
    digests = {plan.digest.hex}
    for epsilon in (0.9, 1.1):
        other = PrivacyPlan.from_json(canonical_json(value | {"epsilon": epsilon}))
        digests.add(other.digest.hex)
    assert len(digests) == 3


def test_public_number_of_units_adds_empty_units():
    plan = PrivacyPlan.make(table(60), SHAPES, PrivacyParams(epsilon=1.0, units_public=100, expected_batch=8, steps=4))
    assert plan.n_units == 100
    with pytest.raises(InvalidInput, match="units_public"):
        PrivacyPlan.make(table(60), SHAPES, PrivacyParams(units_public=59))


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (PrivacyParams(delta=1 / 60), DeltaTooLarge),
        (PrivacyParams(delta=0.5), DeltaTooLarge),
        (PrivacyParams(delta=0.0), InvalidInput),
        (PrivacyParams(epsilon=float("inf")), InvalidInput),
        (PrivacyParams(epsilon=0.0), InvalidInput),
        (PrivacyParams(epsilon=float("nan")), InvalidInput),
        (PrivacyParams(max_grad_norm=0.0), InvalidInput),
        (PrivacyParams(epochs=-1.0), InvalidInput),
        (PrivacyParams(epochs=0.0), InvalidInput),
        (PrivacyParams(epochs=float("inf")), InvalidInput),
        (PrivacyParams(epochs=1e308), InvalidInput),
        (PrivacyParams(epochs=float("nan")), InvalidInput),
        (PrivacyParams(steps=0), InvalidInput),
        (PrivacyParams(steps=-3), InvalidInput),
        (PrivacyParams(steps=2**32), InvalidInput),
        (PrivacyParams(expected_batch=0), InvalidInput),
        (PrivacyParams(expected_batch=-1), InvalidInput),
        (PrivacyParams(units_public=10**400), InvalidInput),
        (PrivacyParams(delta=float("nan")), InvalidInput),
        (PrivacyParams(expected_batch=31), PlanInfeasible),
    ],
)
def test_what_gives_no_guarantee_is_refused(params, error):
    with pytest.raises(error):
        PrivacyPlan.make(table(60), SHAPES, params)


def test_a_public_seed_and_logged_losses_stand_in_the_plan(monkeypatch):
    monkeypatch.setattr(accountant, "calibrate", lambda *_args: 1.0)
    params = PrivacyParams(insecure_reproducible=True, log_private_metrics_unsafe=True)
    plan = PrivacyPlan.make(table(60), SHAPES, params)
    assert plan.guarantee == "void: public seed"
    assert "private training metrics, which were logged" in plan.excluded
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert "public seed" in plan.warnings[0]
    with pytest.raises(InvalidInput, match="guarantee"):
        PrivacyPlan.from_json(plan.to_json().replace(b"void: public seed", b"void: secret seed"))


def test_small_noise_only_by_an_option_that_says_so(monkeypatch):
    monkeypatch.setattr(accountant, "calibrate", lambda *_: 0.29)
    with pytest.raises(PlanInfeasible, match=r"0\.29"):
        PrivacyPlan.make(table(60), SHAPES, PrivacyParams(steps=2))
    params = PrivacyParams(steps=2, allow_small_noise_unsafe=True)
    assert PrivacyPlan.make(table(60), SHAPES, params).noise_multiplier == 0.29


def test_too_few_units():
    with pytest.raises(PlanInfeasible, match="at least 20"):
        PrivacyPlan.make(table(19), SHAPES)


def test_warnings(plan):
    assert len(plan.warnings) == 1
    assert len(replace(plan, epsilon=9.0).warnings) == 2
    assert replace(plan, n_units=1000).warnings == ()


def test_budget(plan):
    budget = plan.budget_after(2)
    assert 0 < budget.epsilon < plan.epsilon
    assert (budget.delta, budget.unit) == (plan.delta, "record")


def test_units_without_a_key_get_no_plan(tmp_path):
    """Whoever knows all records but one computes the published digests with and without it."""
    path = write_chats(tmp_path / "chats.jsonl", 40)
    tables = [form_units(open_dataset(path), unit=RecordUnit(), duplicates=None) for _ in range(2)]
    assert tables[0].digest == tables[1].digest
    with pytest.raises(PlanInfeasible, match="without a key") as caught:
        PrivacyPlan.make(tables[0], [ParameterShape("a", (3,))])
    assert "with its key" in caught.value.next_step
