import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.multiplicity import benjamini_hochberg, conformal_p_values, holm
from stanch.audit.rates import clopper_pearson
from stanch.errors import InvalidInput


def test_conformal_p_values_by_hand():
    assert conformal_p_values([5.0, 2.0, 0.0], [1.0, 2.0, 3.0]).tolist() == [1 / 4, 3 / 4, 1.0]


def test_conformal_p_values_refuse_unusable_scores():
    for members, others in (([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])):
        with pytest.raises(InvalidInput):
            conformal_p_values(members, others)


def test_benjamini_hochberg_by_hand():
    # steps 0.0125, 0.025, 0.0375, 0.05: the third passes and carries the second, which alone would fail
    assert benjamini_hochberg([0.001, 0.03, 0.035, 0.2]).tolist() == [True, True, True, False]
    assert benjamini_hochberg([0.06, 0.9]).tolist() == [False, False]
    assert benjamini_hochberg([]).tolist() == []
    # a value at its very step is rejected, also alone
    assert benjamini_hochberg([0.05]).tolist() == [True]
    assert benjamini_hochberg([0.9, 0.025]).tolist() == [False, True]
    assert benjamini_hochberg([0.2], 0.2).tolist() == [True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_equals_its_definition(p):
    ordered = sorted(p)
    steps = [i for i in range(1, len(p) + 1) if ordered[i - 1] <= 0.05 * i / len(p)]
    limit = ordered[steps[-1] - 1] if steps else -1.0
    assert benjamini_hochberg(p).tolist() == [value <= limit for value in p]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_bonferroni_test(p):
    adjusted = holm(p)
    for i, value in enumerate(p):
        closed = max(
            min(1.0, len(subset) * min(p[j] for j in subset))
            for size in range(1, len(p) + 1)
            for subset in itertools.combinations(range(len(p)), size)
            if i in subset
        )
        assert adjusted[i] == pytest.approx(closed)
        assert adjusted[i] >= value


def test_p_values_outside_the_unit_interval_are_refused():
    for p in ([-0.1], [1.1], [np.nan]):
        with pytest.raises(InvalidInput):
            holm(p)
        with pytest.raises(InvalidInput):
            benjamini_hochberg(p)


def test_conformal_with_benjamini_hochberg_false_discoveries_at_5_percent():
    """Mean share of false discoveries over 1,000 audits: fails only above 5 % plus 3.1 standard errors (0.1 %)."""
    rng = np.random.default_rng(6)
    shares = []
    for _ in range(1000):
        calibration = rng.normal(size=150)
        scores = rng.normal(size=100)
        scores[:20] += 4  # 20 of 100 members are really memorised
        found = benjamini_hochberg(conformal_p_values(scores, calibration), 0.05)
        shares.append(found[20:].sum() / max(found.sum(), 1))
    assert np.mean(shares) <= 0.05 + 3.1 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) > 0


def test_conformal_p_value_of_a_non_member_is_below_u_at_most_at_rate_u():
    rng = np.random.default_rng(7)
    runs = 2000
    small = sum(bool(conformal_p_values(rng.normal(size=1), rng.normal(size=99))[0] <= 0.05) for _ in range(runs))
    assert clopper_pearson(small, runs, confidence=0.999, side="lower").lower <= 0.05
