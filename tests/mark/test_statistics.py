"""Claims of chance, seeded: what innocents score on suspects that are as ugly as they come."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stanch.mark import CopyKey, FeatureSet, Layout, LayoutEntry, MarkKeys, ScorePlan, Variant, score
from stanch.mark.detection import DecoyStatistics, _examine
from stanch.mark.scoring import cancel, draw_stratum, score_on
from stanch.mark.signature import signature_values
from stanch.terms import Digest

SIZE = 1024


def feature_set(values):
    layout = Layout((LayoutEntry("w", "F32", (1, len(values)), 0),))
    return FeatureSet(Variant.PLAIN, np.asarray(values, np.float32).copy(), layout, ())


def streams(seed, count):
    return [bytes(row) for row in np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)]


def ugly(name):
    generator = np.random.default_rng(11)
    values = np.zeros(SIZE)
    match name:
        case "gaussian":
            values = generator.normal(size=SIZE)
        case "heavy tails":
            values = generator.standard_t(1.5, size=SIZE)
        case "single spike":
            values[17] = 1e6
        case "eight":
            values[generator.choice(SIZE, 8, replace=False)] = generator.normal(size=8)
    return feature_set(values)


@pytest.mark.parametrize("name", ["gaussian", "heavy tails", "single spike", "eight"])
def test_innocent_scores_are_sub_gaussian_on_any_suspect(name):
    # 25,000 keys: the sd's own sd is 0.0045, so 1 ± 0.025 fails a true claim with chance below 1e-7; the tail bounds
    # exp(−τ²/2) are at least 8 times the Gaussian tails.
    z = score(ugly(name), streams(12, 25_000))
    assert abs(z.mean()) < 0.035
    assert abs(z.std() - 1) < 0.025
    for tau in (2, 3, 4):
        assert (z > tau).mean() < math.exp(-tau * tau / 2)
        assert (z < -tau).mean() < math.exp(-tau * tau / 2)


def examine(values, seed, *, colluders=(), innocents=20, epsilon=0.05, rounds=2):
    marks = [CopyKey(f"r{n}", 1, n, 0.01, Digest.sha256(b""), bytes(32), s, bytes(32)) for n, s in
             enumerate((*colluders, *streams(seed, innocents)))]  # fmt: skip
    keys = MarkKeys(tuple(marks), (), bytes(32), bytes(32))
    plan = ScorePlan((Variant.PLAIN,), len(marks), rounds=rounds, epsilon=epsilon)
    _, best = _examine(feature_set(values), keys, plan, 1)
    return [z - 0.02 >= plan.threshold for z in best]


def test_cancellation_accuses_no_innocent_more_often_than_stated():
    # 400 runs, ε = 0.05, two true colluders in each: at most 5 % + 3 sd = 8.3 % of runs may accuse an innocent.
    false, missed = 0, 0
    for run in range(400):
        noise = np.random.default_rng([13, run]).normal(size=SIZE)
        pair = streams([14, run], 2)
        marks = sum(signature_values(stream, 0, SIZE) for stream in pair)
        accused = examine(noise + 0.5 * marks, [15, run], colluders=pair)
        missed += 2 - sum(accused[:2])
        false += any(accused[2:])
    assert false <= 33
    assert missed == 0


def test_cancellation_finds_the_weak_colluder_behind_the_strong():
    # 16 strong marks are noise to the weak one until they are cancelled.
    strong, (weak,) = streams(16, 16), streams(17, 1)
    size = 32 * SIZE
    values = sum(signature_values(stream, 0, size) for stream in strong) + 0.1 * signature_values(weak, 0, size)
    colluders = (*strong, weak)
    once = examine(values, 18, colluders=colluders, epsilon=1e-9, rounds=1)
    twice = examine(values, 18, colluders=colluders, epsilon=1e-9, rounds=2)
    assert once[:17] == [True] * 16 + [False]
    assert twice[:17] == [True] * 17
    assert not any(once[17:] + twice[17:])


def test_cancelled_marks_score_nothing_and_hidden_coordinates_stay_hidden():
    pair = streams(19, 2)
    values = np.random.default_rng(20).normal(size=5000) + sum(signature_values(stream, 0, 5000) for stream in pair)
    values[::3] = 0
    found = feature_set(values)
    cancel(found, pair)
    assert np.abs(score(found, pair)).max() < 1e-2
    assert not found.values[::3].any()


def test_a_stratum_is_keyed_and_of_the_wanted_size():
    extent = 1 << 17
    one = draw_stratum(bytes(32), extent, 1 << 14)
    # 16,384 groups, each drawn with chance 1/8: sd 42, so ± 250 is 6 sd.
    assert abs(one.coordinates / 8 - 2048) < 250
    assert np.array_equal(one.groups, draw_stratum(bytes(32), extent, 1 << 14).groups)
    assert not np.array_equal(one.groups, draw_stratum(bytes(31) + b"\1", extent, 1 << 14).groups)
    assert draw_stratum(bytes(32), extent, extent).coordinates == extent


def test_the_score_on_a_stratum_is_the_score_of_its_coordinates():
    values = np.random.default_rng(21).normal(size=1 << 17)
    stratum = draw_stratum(bytes(32), 1 << 17, 1 << 15)
    hidden = np.zeros_like(values).reshape(-1, 8)
    hidden[stratum.groups] = values.reshape(-1, 8)[stratum.groups]
    keys = streams(22, 5)
    np.testing.assert_allclose(
        score_on(feature_set(values), keys, stratum), score(feature_set(hidden.ravel()), keys), atol=1e-4
    )


def test_scores_of_nothing_are_zero():
    assert score(feature_set(np.zeros(64)), streams(23, 3)).tolist() == [0, 0, 0]
    assert score_on(feature_set(np.zeros(64)), streams(23, 3), draw_stratum(bytes(32), 64, 64)).tolist() == [0, 0, 0]


def test_decoys_that_do_not_look_like_chance_are_noticed():
    good = DecoyStatistics(1000, 0.0, 1.0, 3.2, SIZE)
    assert good.plausible(8)
    for change in ({"mean": 0.17}, {"mean": -0.17}, {"sd": 1.12}, {"sd": 0.88}, {"maximum": 8.0}):
        assert not replace(good, **change).plausible(8)
    # 5/√100 = 5/√(2·50) = 1/2: the last value is plausible.
    for edge in (DecoyStatistics(100, -0.5, 1.0, 3.2, SIZE), DecoyStatistics(50, 0.0, 1.5, 3.2, SIZE)):
        assert edge.plausible(8)
