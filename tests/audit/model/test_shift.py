"""The shift gate: sees different sources, and only those."""

import random

import numpy as np
import pytest

from stanch.audit.shift import MAX_RECORDS, _sample, is_shifted, measure_shift

WORDS = [f"word{i}" for i in range(200)]


def texts(seed, count, words, length=20):
    rng = random.Random(seed)
    return [" ".join(rng.choice(words) for _ in range(length)) for _ in range(count)]


def sides(inside, outside):
    return [*inside, *outside], np.array([True] * len(inside) + [False] * len(outside))


def test_two_sources_are_told_apart():
    shift = measure_shift(*sides(texts(1, 60, WORDS[:120]), texts(2, 60, WORDS[80:])), None)
    assert is_shifted(shift)
    assert shift.blind_auc.lower > 0.8
    assert shift.base_loss_auc is None


def test_length_alone_is_a_shift():
    shift = measure_shift(*sides(texts(1, 80, WORDS, 20), texts(2, 80, WORDS, 30)), None)
    assert shift.length_auc.lower > 0.9
    assert is_shifted(shift)


@pytest.mark.parametrize("sign", [1, -1])
def test_base_loss_alone_is_a_shift_in_either_direction(sign):
    rng = np.random.default_rng(0)
    everything, member = sides(texts(1, 80, WORDS), texts(2, 80, WORDS))
    loss = rng.normal(size=160) + sign * 2 * member
    shift = measure_shift(everything, member, loss)
    assert shift.base_loss_auc.lower > 0.8
    assert is_shifted(shift)
    assert shift.upper == max(shift.blind_auc.upper, shift.length_auc.upper, shift.base_loss_auc.upper)


def test_one_source_is_called_shifted_in_at_most_15_of_100_seeds():
    """Three tests whose lower bound must pass 0.55: under no shift each does so with less than 2.5 %."""
    rng = np.random.default_rng(5)
    called = 0
    for seed in range(100):
        everything, member = sides(texts(2 * seed, 40, WORDS), texts(2 * seed + 1, 40, WORDS))
        called += is_shifted(measure_shift(everything, member, rng.normal(size=80), seed=seed))
    assert called <= 15


def test_result_follows_from_texts_and_seed():
    arguments = sides(texts(1, 30, WORDS), texts(2, 30, WORDS))
    assert measure_shift(*arguments, None, seed=3) == measure_shift(*arguments, None, seed=3)


def test_many_records_are_sampled_evenly():
    member = np.array([True] * 6000 + [False] * 3000)
    chosen = _sample(member, np.random.PCG64(0))
    assert (chosen.size, int(member[chosen].sum())) == (MAX_RECORDS, MAX_RECORDS // 2)
    few = np.array([True] * 6000 + [False] * 100)
    chosen = _sample(few, np.random.PCG64(0))
    assert (int(few[chosen].sum()), int((~few[chosen]).sum())) == (3900, 100)


def test_empty_and_foreign_texts_are_no_error():
    shift = measure_shift(*sides(["", "ä", "日本語 テキスト"] * 5, ["x", "", "y z"] * 5), None)
    assert 0 <= shift.blind_auc.estimate <= 1
