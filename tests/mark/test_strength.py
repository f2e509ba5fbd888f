import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.mark import MarkParams, colluders, expected_score, log10_bound, solve_alpha, threshold
from stanch.mark.bounds import decided
from stanch.mark.strength import RELEASE_SHARE, TREATMENTS, Strength, check_alpha, colluder_table, measure_distortion

GOLDENS = json.loads((Path(__file__).parents[1] / "vectors" / "mark" / "goldens.json").read_text())


@pytest.mark.parametrize("case", GOLDENS["thresholds"])
def test_thresholds(case):
    assert threshold(case["n"], case["analyses"], case["epsilon"]) == pytest.approx(case["tau"], abs=5e-5)


@pytest.mark.parametrize("case", GOLDENS["alphas"])
def test_strengths(case):
    assert solve_alpha(case["coordinates"], MarkParams()) == pytest.approx(case["alpha"], rel=3e-3)


def test_collusion_of_a_large_model():
    tau = threshold(10_000, 16, 1e-9)
    assert int(colluders(7_000_000_000, 1e-3, 0.0913, tau + 4)) == 75
    assert int(colluders(7_000_000_000, 1e-3, 0.0913, tau)) == 113


def test_log10_bounds():
    assert log10_bound(17, 10_000, 16) < -57
    assert log10_bound(17, 10_000, 16) == pytest.approx(-57.55, abs=0.01)
    assert log10_bound(2, 10_000, 16) == 0
    assert log10_bound(-50, 1, 1) == 0


@given(n=st.integers(1, 10**9), analyses=st.integers(1, 1000), epsilon=st.floats(1e-30, 0.99))
def test_the_bound_at_the_threshold_is_epsilon(n, analyses, epsilon):
    bound = log10_bound(threshold(n, analyses, epsilon), n, analyses)
    assert bound == pytest.approx(math.log10(epsilon), abs=1e-9)


@given(
    coordinates=st.integers(10_000, 10**11),
    alpha=st.floats(1e-4, 3e-2),
    noise=st.floats(1e-3, 0.5),
    copies=st.integers(1, 200),
    kept=st.floats(0.01, 1),
)
def test_colluders_inverts_the_expected_score(coordinates, alpha, noise, copies, kept):
    z = expected_score(coordinates, alpha, noise, copies=copies, kept=kept)
    assert colluders(coordinates, alpha, noise, z, kept) == pytest.approx(copies, rel=1e-6)


def test_one_whole_copy_is_what_is_expected_by_default():
    assert expected_score(1_000_000, 0.01, 0.1) == pytest.approx(1000 * 0.01 / math.hypot(0.01, 0.1))
    assert colluders(1_000_000, 0.01, 0.1, 50) == colluders(1_000_000, 0.01, 0.1, 50, kept=1.0)


def test_what_marks_are_dimensioned_for():
    # Changing one of these changes marks, thresholds or what is promised about them: then the guide changes with it.
    assert MarkParams() == MarkParams(
        colluders=32, noise=0.10, floor=1e-3, ceiling=1e-2, adapter_alpha=2e-2, n=10_000, analyses=16, epsilon=1e-9,
        alpha_outside_tested_range=False,
    )  # fmt: skip
    assert dict(TREATMENTS) == {"bf16": 0.002, "int8": 0.008, "nf4": 0.0913}
    assert RELEASE_SHARE == 0.25  # docs/spec/mark.md


def test_the_table_of_colluders_has_the_margin_and_the_even_chance():
    table = colluder_table(7_000_000_000, 1e-3, MarkParams())
    assert table["nf4"] == (75, 113)
    tau = threshold(10_000, 16, 1e-9)
    assert table["int8"] == tuple(int(colluders(7_000_000_000, 1e-3, 0.008, z)) for z in (tau + 4, tau))
    assert list(table) == ["bf16", "int8", "nf4"]


@pytest.mark.parametrize("alpha", [1e-4, 1e-3, 3e-2])
def test_a_strength_of_the_tested_range_may_be_used(alpha):
    assert check_alpha(alpha, MarkParams()) == alpha


@pytest.mark.parametrize("alpha", [0.99e-4, 3.01e-2, 0.5])
def test_a_strength_outside_of_the_tested_range_must_be_asked_for(alpha):
    with pytest.raises(InvalidInput, match="within"):
        check_alpha(alpha, MarkParams())
    assert check_alpha(alpha, MarkParams(alpha_outside_tested_range=True)) == alpha


@pytest.mark.parametrize("alpha", [0.0, -1e-3, math.inf, math.nan])
@pytest.mark.parametrize("outside", [False, True])
def test_what_is_no_strength_is_refused(alpha, outside):
    with pytest.raises(InvalidInput, match="positive number"):
        check_alpha(alpha, MarkParams(alpha_outside_tested_range=outside))


def test_without_noise_colluders_share_the_coordinates():
    assert colluders(1_000_000, 1e-3, 0, 10) == 10_000
    assert expected_score(1_000_000, 1e-3, 0, copies=10_000) == pytest.approx(10)


@pytest.mark.parametrize(
    ("n", "analyses", "epsilon"), [(0, 1, 0.1), (1, 0, 0.1), (1, 1, 0), (1, 1, 1), (1, 1, math.nan)]
)
def test_impossible_thresholds_are_refused(n, analyses, epsilon):
    with pytest.raises(InvalidInput):
        threshold(n, analyses, epsilon)


@given(z=st.floats(-1e6, 1e6))
def test_decisions_are_made_below_the_score(z):
    assert z - 0.0201 <= decided(z) <= z - 0.0099


def test_what_a_mark_adds_is_the_recipients_and_the_ownership_part():
    recipients, ownership = np.random.default_rng(1).normal(size=(2, 1_000_000))
    added = 2e-3 * (recipients + RELEASE_SHARE * ownership)
    assert measure_distortion(2e-3) == pytest.approx(added.std(), rel=5e-3)


def test_a_strength_is_told_to_programs_and_to_the_log():
    strength = Strength(alpha=1e-3, distortion=1.03e-3, colluders={"averaged": (3, 5)})
    told = {"alpha": 1e-3, "distortion": 1.03e-3, "colluders": {"averaged": {"k_max": 3, "k_even": 5}}}
    assert strength.to_json() == told
    assert strength.to_payload() == told | {"alpha": "0.001", "distortion": "0.00103"}
