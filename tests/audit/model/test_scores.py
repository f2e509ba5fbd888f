"""Scores from features: goldens, traps, properties."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.features import Features
from stanch.audit.scores import SCORES, Observation, compressed_size, score
from stanch.errors import InvalidInput

GOLDENS = json.loads((Path(__file__).parents[2] / "vectors/audit/scores.json").read_text())


def observe(lp, base, *, hit=None, mu=None, sigma=None, text_size=10) -> Observation:
    lp = np.asarray(lp, dtype=np.float32)
    zeros = np.zeros_like(lp)
    target = Features(
        "r1",
        1,
        lp,
        zeros if mu is None else np.asarray(mu, dtype=np.float32),
        zeros + 1 if sigma is None else np.asarray(sigma, dtype=np.float32),
        np.zeros(lp.size, dtype=bool) if hit is None else np.asarray(hit, dtype=bool),
        lp,
    )
    if base is None:
        return Observation(target, None, text_size)
    other = Features("r1", 1, np.asarray(base, dtype=np.float32), zeros, zeros, target.hit, lp)
    return Observation(target, other, text_size)


@pytest.mark.parametrize("case", GOLDENS, ids=lambda case: case["name"])
def test_golden(case):
    seen = observe(
        case["lp"], case["base"], hit=case.get("hit"), mu=case.get("mu"), sigma=case.get("sigma"), text_size=10
    )
    for name, value in case["scores"].items():
        assert SCORES[name](seen) == pytest.approx(value, abs=1e-6), name


def test_without_base_only_scores_of_the_target_are_given():
    assert set(score(observe([-1, -2], None))) == {"suffix_loss/1", "min_k_pp/1", "zlib/1"}
    with pytest.raises(InvalidInput, match="base model"):
        SCORES["ratio/1"](observe([-1, -2], None))


def test_score_that_is_not_finite_names_the_record_only():
    with pytest.raises(InvalidInput, match=r"record r1.*ratio/1") as caught:
        score(observe([-1, math.nan], [-1, -1]))
    assert "nan" not in caught.value.what


def test_ez_ranks_a_record_without_any_loss_above_all_others():
    clean = SCORES["ez/1"](observe([-1, -1], [-2, -3]))
    mixed = SCORES["ez/1"](observe([-1, -1], [-9, -0.9]))
    assert clean > mixed


def test_ez_of_a_fully_predicted_record_uses_all_tokens():
    seen = observe([-0.1, -0.2], [-2, -3], hit=[True, True])
    assert SCORES["ez/1"](seen) == pytest.approx(math.log(4.7 + 1e-6) - math.log(1e-6), rel=1e-6)


LPS = st.lists(st.floats(-20, -0.0625, width=32), min_size=1, max_size=60)


@given(LPS, st.floats(0.125, 5, width=32))
def test_scores_rise_when_every_token_becomes_likelier(lp, gain):
    base = [-5.0] * len(lp)
    lower, higher = score(observe(lp, base)), score(observe(np.add(lp, gain), base))
    for name in ("ratio/1", "suffix_loss/1", "min_k_pp/1", "zlib/1"):
        assert higher[name] > lower[name]
    for name in ("ez/1", "wbc/1"):
        assert higher[name] >= lower[name]


@given(LPS)
def test_target_equal_to_base_scores_zero(lp):
    found = score(observe(lp, lp))
    assert (found["ratio/1"], found["ez/1"], found["wbc/1"]) == (0, 0, 0)


def test_compressed_size_is_that_of_utf8():
    assert compressed_size("é") == compressed_size("é".encode().decode())
    assert compressed_size("a" * 1000) < 30
