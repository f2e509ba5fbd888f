"""The shift gate: sees different sources, and only those."""

import dataclasses
import math
import random
from collections import Counter

import numpy as np
import pytest

from stanch.audit.rates import auc, either_way
from stanch.audit.sections import Shift
from stanch.audit.shift import (
    MAX_BLIND_AUC,
    MAX_RECORDS,
    MIN_SIDE,
    _folds,
    _sample,
    _text_columns,
    is_shifted,
    measure_shift,
)

WORDS = [f"word{i}" for i in range(200)]


def texts(seed, count, words, length=20):
    rng = random.Random(seed)
    return [" ".join(rng.choice(words) for _ in range(length)) for _ in range(count)]


def sides(inside, outside):
    return [*inside, *outside], np.array([True] * len(inside) + [False] * len(outside))


def plain_columns(rows):
    """Words and 3-, 4- and 5-grams of bytes by a dictionary instead of hashes: tf-idf, rows of length 1."""
    counts = []
    for text in (row.lower() for row in rows):
        data = text.encode()
        grams = [data[i : i + width] for width in (3, 4, 5) for i in range(len(data) - width + 1)]
        counts.append(Counter([*text.split(), *grams]))
    present = Counter(part for count in counts for part in count)
    values = np.array([
        [count[part] * (math.log((1 + len(rows)) / (1 + n)) + 1) for part, n in present.items()] for count in counts
    ])  # fmt: skip
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def plain_scores(columns, member, folds):
    """Ridge regression in its usual form, for each fold from the other four."""
    scores = np.empty(member.size)
    for fold in range(5):
        test = folds == fold
        inputs, target = columns[~test], member[~test] - member[~test].mean()
        raw = columns[test] @ np.linalg.solve(inputs.T @ inputs + np.eye(columns.shape[1]), inputs.T @ target)
        scores[test] = raw - raw.mean()
    return scores


def test_columns_are_tf_idf_of_words_and_grams():
    rows = ["The cat sat on it", "the cat, the CAT the", "", "ab", "abc", "abcd abcde", "a dog and a cät 日本"]
    hashed = _text_columns(rows)
    plain = plain_columns(rows)
    np.testing.assert_allclose((hashed @ hashed.T).toarray(), plain @ plain.T, atol=1e-12)
    assert hashed.dtype == np.float64


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_loss", [True, False])
def test_the_blind_test_against_its_definition(seed, with_loss):
    rng = np.random.default_rng(seed)
    rows, member = sides(texts(seed, 43, WORDS[:30], 4), texts(seed + 9, 37, WORDS[8:38], 4))
    rows = [row[: rng.integers(5, len(row))] for row in rows]
    loss = rng.normal(2.0, 3.0, size=80)
    lengths = np.log([len(row) + 1 for row in rows])
    numbers = [(column - column.mean()) / column.std() for column in ([lengths, loss] if with_loss else [lengths])]
    columns = np.column_stack([plain_columns(rows), *numbers])
    scores = plain_scores(columns, member, _folds(member, np.random.PCG64(seed)))
    assert measure_shift(rows, member, loss if with_loss else None, seed=seed) == Shift(
        blind_auc=auc(scores, member),
        length_auc=either_way(auc(lengths, member)),
        base_loss_auc=either_way(auc(loss, member)) if with_loss else None,
    )


def test_each_side_is_dealt_out_evenly_by_the_generator():
    member = np.arange(1003) % 3 == 0
    folds = _folds(member, np.random.PCG64(4))
    for side in (member, ~member):
        counts = np.bincount(folds[side], minlength=5)
        assert counts.size == 5
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, _folds(member, np.random.PCG64(5)))
    assert np.array_equal(folds, _folds(member, np.random.PCG64(4)))
    assert len({tuple(folds[i : i + 5]) for i in range(0, 1000, 5)}) > 100


def test_any_lower_bound_above_the_limit_is_a_shift_and_the_limit_itself_is_none():
    at = dataclasses.replace(auc(np.arange(40.0), np.arange(40) % 2 == 0), lower=MAX_BLIND_AUC)
    assert (MAX_BLIND_AUC, MIN_SIDE) == (0.55, 10)
    assert not is_shifted(Shift(at, at, at))
    assert not is_shifted(Shift(at, at, None))
    above = dataclasses.replace(at, lower=math.nextafter(MAX_BLIND_AUC, 1))
    assert is_shifted(Shift(above, at, at))
    assert is_shifted(Shift(at, above, at))
    assert is_shifted(Shift(at, at, above))


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
    assert measure_shift(*arguments, None) == measure_shift(*arguments, None, seed=0)
    assert measure_shift(*arguments, None) != measure_shift(*arguments, None, seed=1)


def test_many_records_are_sampled_evenly():
    member = np.array([True] * 6000 + [False] * 3000)
    chosen = _sample(member, np.random.PCG64(0))
    assert (chosen.size, int(member[chosen].sum())) == (MAX_RECORDS, MAX_RECORDS // 2)
    assert np.array_equal(chosen, np.unique(chosen))
    assert not np.array_equal(chosen, _sample(member, np.random.PCG64(1)))
    assert 2500 < chosen[:2000].mean() < 3500  # from the whole of a side
    assert 7200 < chosen[2000:].mean() < 7800
    just = np.arange(MAX_RECORDS) % 4 == 0
    assert np.array_equal(_sample(just, np.random.PCG64(0)), np.arange(MAX_RECORDS))
    assert _sample(np.append(just, True), np.random.PCG64(0)).size == MAX_RECORDS
    few = np.array([True] * 6000 + [False] * 100)
    chosen = _sample(few, np.random.PCG64(0))
    assert (int(few[chosen].sum()), int((~few[chosen]).sum())) == (3900, 100)
    turned = _sample(~few, np.random.PCG64(0))
    assert (int(few[turned].sum()), int((~few[turned]).sum())) == (3900, 100)


def test_empty_and_foreign_texts_are_no_error():
    shift = measure_shift(*sides(["", "ä", "日本語 テキスト"] * 5, ["x", "", "y z"] * 5), None)
    assert 0 <= shift.blind_auc.estimate <= 1
    same = measure_shift(*sides(["x"] * 12, ["x"] * 12), np.zeros(24))  # nothing to tell them by
    assert (same.blind_auc.estimate, same.length_auc.estimate, same.base_loss_auc.estimate) == (0.5, 0.5, 0.5)
