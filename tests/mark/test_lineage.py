"""Lineage without a mark: exact bounds, controls, and what blinds which test."""

import itertools
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from family_models import CONFIG, FAMILIES, draw, llama, scramble_llama, values_of, write
from mark_models import nf4

from stanch.errors import InvalidInput
from stanch.mark import examine_lineage, lineage
from stanch.mark.lineage import (
    Agreement,
    Effect,
    LineageReport,
    _effect,
    _matched,
    _without_outliers,
    count_agreements,
    log10_agreements,
)
from stanch.mark.units import Pair
from stanch.weights import Tensor, directory_digest


def rng():
    return np.random.default_rng(7)


def treat(weights, change):
    return {name: change(value) if value.ndim == 2 else value for name, value in weights.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lineage")
    base = write(folder / "base", llama(np.random.default_rng(1)), CONFIG)
    change = np.random.default_rng(2)
    tuned = treat(values_of(base), lambda value: value + draw(change, *value.shape, scale=0.01))
    original = write(folder / "original", tuned, CONFIG)
    (original / "statement.json").write_text(json.dumps({"base_digest": str(directory_digest(base).root)}))
    controls = [write(folder / f"c{n}", llama(np.random.default_rng(10 + n)), CONFIG) for n in range(2)]
    return folder, base, original, controls


def test_a_quantised_copy_is_derived_by_its_order(world, tmp_path):
    _, base, original, controls = world
    suspect = write(tmp_path / "m", treat(values_of(original), nf4), CONFIG)
    found = examine_lineage(original, suspect, base=base, controls=controls, rng=rng())
    assert found.verdict == "derived"
    assert found.order.share > 0.95
    assert found.order.log10_p < -500
    assert found.effect.cosine > 0.99
    assert found.tuning.explained > 0.5
    assert "own change" in found.sentence
    assert json.loads(json.dumps(found.to_json()))["verdict"] == "derived"


def test_a_scrambled_copy_is_derived_by_its_pairs_and_only_with_controls(world, tmp_path):
    _, base, original, controls = world
    suspect = write(tmp_path / "m", scramble_llama(treat(values_of(original), nf4), rng()), CONFIG)
    found = examine_lineage(original, suspect, base=base, controls=controls, rng=rng())
    assert found.order.log10_p > -3
    assert found.match.share > 0.95
    assert max(found.controls) < 0.05
    assert found.verdict == "derived"
    assert found.effect.cosine > 0.98
    assert found.tuning.explained > 0.4
    alone = examine_lineage(original, suspect, rng=rng())
    assert alone.verdict == "inconclusive"
    assert examine_lineage(original, suspect, controls=controls, rng=rng()).verdict == "shares-base"
    assert alone.tuning is None


def test_a_sibling_shares_the_base_and_not_the_tuning(world, tmp_path):
    _, base, original, controls = world
    change = np.random.default_rng(5)
    sibling = treat(values_of(base), lambda value: value + draw(change, *value.shape, scale=0.01))
    found = examine_lineage(original, write(tmp_path / "m", sibling, CONFIG), base=base, controls=controls, rng=rng())
    assert found.verdict == "shares-base"
    assert found.tuning.explained < 0.01
    assert "share a base" in found.sentence


def test_a_base_too_far_back_shows_nothing_without_siblings(world, tmp_path):
    """Two tune one tuned parent; by its own base, their common change looks like the original's tuning."""
    _, grandparent, parent, _ = world

    def tune(seed):
        change = np.random.default_rng(seed)
        tuned = treat(values_of(parent), lambda value: value + draw(change, *value.shape, scale=2e-3))
        return write(tmp_path / f"m{seed}", tuned, CONFIG)

    one, two, three = tune(1), tune(2), tune(3)
    found = examine_lineage(one, two, base=grandparent, rng=rng())
    assert found.tuning.explained > 0.9
    assert found.verdict == "shares-base"
    assert examine_lineage(one, two, base=grandparent, siblings=[three], rng=rng()).verdict == "shares-base"
    # By the parent itself a stranger's copy is told from the original's own, with or without a statement.
    copy = write(tmp_path / "copy", treat(values_of(one), nf4), CONFIG)
    near = write(tmp_path / "near", treat(values_of(one), lambda value: value * 1.001), CONFIG)
    assert examine_lineage(one, near, base=parent, rng=rng()).verdict == "shares-base"
    assert examine_lineage(one, near, base=parent, siblings=[two], rng=rng()).verdict == "derived"
    assert examine_lineage(one, three, base=parent, siblings=[two], rng=rng()).verdict == "shares-base"
    assert examine_lineage(one, copy, base=parent, siblings=[two], rng=rng()).verdict == "shares-base"
    with pytest.raises(InvalidInput, match="base"):
        examine_lineage(one, two, siblings=[three])


def test_independent_models_are_unrelated(world):
    _, base, original, controls = world
    found = examine_lineage(original, controls[0], base=base, controls=controls[1:], rng=rng())
    assert found.verdict == "unrelated"
    assert found.order.log10_p > -3
    assert abs(found.effect.cosine) < 0.05
    assert found.epsilon == 1e-9


def test_a_suspect_with_weights_that_were_not_read_is_not_unrelated(world, tmp_path):
    _, _, original, controls = world
    suspect = shutil.copytree(controls[0], tmp_path / "m")
    (suspect / "pytorch_model.bin").write_bytes(b"PK" * (1 << 15))
    found = examine_lineage(original, suspect, rng=rng())
    assert found.verdict == "inconclusive"
    assert "pytorch_model.bin" in found.sentence


def test_equal_units_do_not_agree_by_place(world, tmp_path):
    # Every unit matches equally well: unshuffled, a search would pair them by place and p would be 0.
    _, _, original, _ = world
    for value in (0.0, 0.01):
        weights = treat(values_of(original), lambda found, value=value: np.full_like(found, value))
        found = examine_lineage(original, write(tmp_path / f"m{value}", weights, CONFIG), rng=rng())
        assert found.order.log10_p > -3
        assert found.verdict == "unrelated"
    drawn = rng()
    examine_lineage(original, original, rng=drawn)
    assert drawn.bit_generator.state != rng().bit_generator.state  # what is given breaks the ties
    assert examine_lineage(original, original).order.share == 1


@pytest.mark.parametrize("part", ["up", "down", "gate"])
def test_a_layer_of_which_a_part_is_no_matrix_is_not_compared(world, tmp_path, part):
    weights = values_of(world[2])
    weights[f"model.layers.0.mlp.{part}_proj.weight"] = weights[f"model.layers.0.mlp.{part}_proj.weight"].reshape(-1)
    found = examine_lineage(world[2], write(tmp_path / "m", weights, CONFIG), rng=rng())
    layers = examine_lineage(world[2], world[2], rng=rng()).order.layers
    assert found.order.layers == found.match.layers == layers - 1
    assert found.order.share == 1


def test_columns_without_a_gain_are_left_out(world, tmp_path):
    weights = values_of(world[2])
    weights["model.layers.0.post_attention_layernorm.weight"][[3, 7]] = 0
    original = write(tmp_path / "original", weights, CONFIG)
    found = examine_lineage(original, original, rng=rng())
    assert found.order.share == found.match.share == 1


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_other_families(tmp_path, family):
    make, scramble, config = FAMILIES[family]
    weights = make(np.random.default_rng(1))
    original = write(tmp_path / "original", weights, config)
    control = write(tmp_path / "c", make(np.random.default_rng(2)), config)
    suspect = write(tmp_path / "m", scramble(weights, rng()), config)
    assert examine_lineage(original, suspect, controls=[control], rng=rng()).verdict == "shares-base"
    assert examine_lineage(original, control, rng=rng()).verdict == "unrelated"


def test_the_bound_holds_for_every_permutation_of_up_to_seven():
    for size in range(1, 8):
        fixed = [sum(i == x for i, x in enumerate(p)) for p in itertools.permutations(range(size))]
        for m in range(size + 1):
            assert np.mean([count >= m for count in fixed]) <= 10 ** log10_agreements(m, 1) * (1 + 1e-12)
    # The bound is reached: all of n fixed has chance 1/n!.
    assert log10_agreements(7, 1) == pytest.approx(-math.log10(math.factorial(7)))


def test_the_pooled_bound_holds_and_p_values_are_calibrated():
    # 100,000 runs of 6 permutations of 12. The bound is at least 1.3 times the chance where it is below 1: for chances
    # above 1e-3 that is more than 6 sd of the estimate; rarer counts are bounded within a factor, on a fixed seed.
    generator = np.random.default_rng(8)
    runs = np.argsort(generator.random((100_000, 6, 12)), axis=2)
    totals = (runs == np.arange(12)).sum(axis=(1, 2))
    for m in range(1, 20):
        assert (totals >= m).mean() <= 10 ** log10_agreements(m, 6)


def test_order_p_values_of_independent_models_are_valid():
    # 300 pairs of random layers, matched in truth: p ≤ 0.1 in at most 10 % + 3 sd = 15 % of them.
    generator, low = np.random.default_rng(9), 0
    for _ in range(300):
        units = _matched(generator.normal(size=(40, 40)).astype(np.float32), generator)
        low += log10_agreements(int((units == np.arange(40)).sum()), 1) <= -1
    assert low <= 45


def test_the_verdict_needs_half_the_units_and_ten_times_the_controls():
    effect = Effect(0.0, 0.0, {})

    def verdict(share, controls, order=0):
        found = (Agreement(order, 1000, 2), Agreement(int(1000 * share), 1000, 2))
        return LineageReport(*found, controls, effect, None, 1e-9).verdict

    assert verdict(0.5, (0.05,)) == "shares-base"
    assert verdict(0.49, (0.0,)) == "inconclusive"
    assert verdict(0.9, (0.1,)) == verdict(0.9, (0.0, 0.1)) == "inconclusive"
    assert verdict(0.9, ()) == "inconclusive"
    assert verdict(0.002, (0.001,)) == "unrelated"
    assert verdict(0.0, (), order=30) == "shares-base"
    nothing = Agreement(0, 0, 0)
    assert LineageReport(nothing, nothing, (), effect, None, 1e-9).verdict == "inconclusive"
    five = Agreement(5, 1000, 1)  # whose bound is 1/120, and that is enough
    assert LineageReport(five, nothing, (), effect, None, 1 / 120).related


@pytest.mark.parametrize(
    ("explained", "stated", "siblings", "holds"),
    [
        (0.5, True, (), True),
        (0.49, True, (), False),
        (0.9, False, (), False),
        (0.9, False, (0.45,), True),
        (0.9, False, (0.1, 0.46), False),
        (0.9, True, (0.46,), False),
        (0.49, False, (0.0,), False),
    ],
)
def test_tuning_is_shown_by_a_stated_base_or_by_siblings(explained, stated, siblings, holds):
    nothing, some = Agreement(0, 1000, 2), Agreement(30, 1000, 2)
    effect = Effect(0.9, explained, {})
    found = LineageReport(some, nothing, (), effect, effect, 1e-9, stated, siblings)
    assert found.holds_tuning == holds
    assert found.verdict == ("derived" if holds else "shares-base")
    assert LineageReport(nothing, nothing, (), effect, effect, 1e-9, stated, siblings).verdict == "unrelated"


def test_the_bound_is_the_lesser_of_two():
    assert log10_agreements(0, 0) == log10_agreements(0, 3) == log10_agreements(1, 3) == log10_agreements(3, 3) == 0
    assert log10_agreements(3, 1) == pytest.approx(-math.log10(6))  # 1^3/3!
    assert log10_agreements(30, 6) == pytest.approx((24 - 30 * math.log(5)) / math.log(10))
    assert log10_agreements(12, 2) == pytest.approx(math.log10(2**12 / math.factorial(12)))


EFFECT, TUNING = Effect(0.9, 0.8, {"w": 0.9}), Effect(0.7, 0.6, {})


@pytest.mark.parametrize(
    ("order", "changes", "verdict", "words"),
    [
        (30, {"stated": True}, "derived", ("change from the base that the statement of its tuning names. This",)),
        (30, {"siblings": (0.1, 0.25)}, "derived", ("from a base, and siblings hold at most 25.0% of theirs. This",)),
        (30, {}, "shares-base", ("share a base",)),
        (30, {"unread": ("a",)}, "shares-base", ("share a base",)),
        (0, {}, "unrelated", ("No relation",)),
        (0, {"unread": tuple("abcdef")}, "inconclusive", ("a, b, c, d, e; give each of these alone.",)),
        (0, {"match": Agreement(10, 1000, 2)}, "inconclusive", ("controls of the same family",)),
        (0, {"match": Agreement(9, 1000, 2)}, "unrelated", ("No relation",)),
    ],
)
def test_what_a_report_says(order, changes, verdict, words):
    settings = {"match": Agreement(0, 1000, 2), "controls": (), "effect": EFFECT, "tuning": TUNING, "epsilon": 1e-9}
    found = LineageReport(Agreement(order, 1000, 2), **settings | changes)
    assert found.verdict == verdict
    assert all(word in found.sentence for word in words)
    match = found.match
    assert found.to_json() == {
        "schema": "stanch/mark-lineage/v2",
        "verdict": verdict,
        "sentence": found.sentence,
        "order": {"agreements": order, "units": 1000, "layers": 2, "share": order / 1000,
                  "log10_p": log10_agreements(order, 2)},
        "match": {"agreements": match.agreements, "units": 1000, "layers": 2, "share": match.agreements / 1000,
                  "log10_p": match.log10_p},
        "controls": [],
        "effect": {"cosine": 0.9, "explained": 0.8, "tensors": {"w": 0.9}},
        "tuning": {"cosine": 0.7, "explained": 0.6, "tensors": {}},
        "epsilon": 1e-9,
        "stated": changes.get("stated", False),
        "siblings": list(changes.get("siblings", ())),
        "unread": list(changes.get("unread", ())),
    }  # fmt: skip


def test_nothing_compared_is_a_share_of_nothing():
    assert (Agreement(0, 0, 0).share, Agreement(0, 0, 0).log10_p) == (0.0, 0.0)
    assert LineageReport(Agreement(0, 0, 0), Agreement(0, 0, 0), (), EFFECT, None, 1e-9).to_json()["tuning"] is None


def test_agreements_are_counted_over_all_layers(monkeypatch):
    """Two layers of four units: of the first all agree both ways, of the second two by place and one in both halves."""
    same = np.eye(4, dtype=np.float32)
    swapped = same[[0, 1, 3, 2]]  # the last two change places
    turned = same[[0, 2, 1, 3]]  # in the other half others do
    layers = [(lambda: same, lambda: same), (lambda: swapped, lambda: 0.1 * turned)]
    monkeypatch.setattr(lineage, "_halves", lambda _aligner: iter(layers))
    order, match = count_agreements(None, rng())
    assert order == Agreement(6, 8, 2)
    assert match == Agreement(5, 8, 2)


def test_a_unit_without_a_counterpart_agrees_nowhere(monkeypatch):
    wide = np.eye(5, 3, dtype=np.float32)
    assert _matched(wide, rng()).tolist() == [0, 1, 2, -1, -1]
    monkeypatch.setattr(lineage, "_halves", lambda _aligner: iter([(lambda: wide, lambda: wide)]))
    order, match = count_agreements(None, rng())
    assert (order.agreements, match.agreements, order.units) == (3, 3, 5)


def test_columns_that_few_values_decide_are_left_out_of_both():
    columns = np.array([1, -1, 6, 7, 1, 1, 1], np.float32)  # the median of their rms is 1
    other = np.array([1, 1, 1, 1, np.nan, 6.5, -1], np.float32)
    found = _without_outliers(Pair(np.tile(columns, (3, 1)), np.tile(other, (3, 1))))
    for values, kept in ((found.suspect, [1, -1, 6, 1]), (found.original, [1, 1, 1, -1])):
        assert values.tolist() == [kept] * 3
    nothing = np.full((3, 2), np.nan, np.float32)
    assert _without_outliers(Pair(nothing, nothing)).suspect.shape == (3, 0)


def compared(ours, theirs, base=None):
    """Return the effect of tensors ``{name: values}``; what the suspect or the base lacks takes no part."""

    def opened(tensors):
        return SimpleNamespace(rows=lambda name, _shape: tensors.get(name))

    made = {name: np.array(values, np.float32) for name, values in ours.items()}
    entries = [SimpleNamespace(name=name, shape=value.shape) for name, value in made.items()]
    originals = SimpleNamespace(
        layout=SimpleNamespace(entries=entries),
        tensors={name: Tensor.from_float32(name, value) for name, value in made.items()},
    )
    theirs, base = (
        tensors and {name: np.array(values, np.float32) for name, values in tensors.items()}
        for tensors in (theirs, base)
    )
    return _effect(originals, opened(theirs), None if base is None else opened(base))


def test_the_effect_is_the_cosine_and_the_share_that_multiples_explain():
    ours = {"a": [[0.5, 0.5]], "b": [[0.0, 0.25]], "c": [[1.0, 1.0]], "zero": [[0.0, 0.0]]}
    theirs = {"a": [[0.5, 0.0]], "b": [[0.5, 0.5]], "zero": [[0.0, 1.0]]}
    found = compared(ours, theirs)
    # a: dot 1/4 of 1/2 and 1/4; b: dot 1/8 of 1/16 and 1/2; zero: nothing of ours, energy 1 of theirs; c is not there.
    assert found.tensors == pytest.approx({"a": math.sqrt(0.5), "b": math.sqrt(0.5)})
    assert found.cosine == pytest.approx(0.375 / math.sqrt(1.75 * 0.5625))
    assert found.explained == pytest.approx((0.125 + 0.25) / 1.75)


def test_the_effect_of_changes_is_that_of_what_is_not_the_base():
    base = {"a": [[1.0, 2.0]], "b": [[3.0, 3.0]]}
    found = compared({"a": [[1.5, 2.0]], "b": [[3.0, 3.0]]}, {"a": [[1.5, 3.0]], "b": [[3.0, 3.0]]}, base)
    assert (found.cosine, found.explained) == pytest.approx((0.25 / math.sqrt(1.25 * 0.25), 0.25 / 1.25))
    assert compared({"a": [[1.0, 1.0]]}, {"a": [[1.0, 1.0]]}, {}) == Effect(0.0, 0.0, {})


def test_what_is_not_finite_counts_as_nothing():
    found = compared({"a": [[1.0, 1.0, 1.0]]}, {"a": [[1.0, np.nan, np.inf]]})
    assert found == Effect(1.0, 1.0, {"a": 1.0})
    assert compared({"a": [[1.0, 1.0, 1.0]]}, {"a": [[-1.0, np.nan, np.inf]]}) == Effect(-1.0, 1.0, {"a": -1.0})


def test_nothing_on_one_side_explains_nothing():
    for ours, theirs in (([[0.0, 0.0]], [[1.0, 0.0]]), ([[1.0, 0.0]], [[0.0, 0.0]])):
        assert compared({"a": ours}, {"a": theirs}) == Effect(0.0, 0.0, {})


def test_what_cannot_be_compared_is_refused(world, lora, full):
    _, _, original, _ = world
    with pytest.raises(InvalidInput, match="whole models"):
        examine_lineage(lora.original, full.original)
    with pytest.raises(InvalidInput, match="whole models"):
        examine_lineage(original, lora.original)
    for epsilon in (0.0, 1.0):
        with pytest.raises(InvalidInput, match="epsilon"):
            examine_lineage(original, original, epsilon=epsilon)
    assert examine_lineage(original, full.original).verdict == "inconclusive"
