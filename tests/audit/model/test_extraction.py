"""(n, p)-discoverable extraction: goldens, bounds, control, sampling."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.extraction import (
    CENSUS_ROWS,
    CONTROL_FACTOR,
    NEVER,
    Chance,
    Drawn,
    Probe,
    chance_of,
    draw,
    extraction_curve,
    is_extractable,
    largest_budget,
    list_extracted,
    log_samples_needed,
    probe_of,
    sample_rows,
    sampling_key,
    summarise_rows,
    summarise_secrets,
)
from stanch.audit.features import Features
from stanch.audit.params import AuditParams
from stanch.data import TokenRecord

PARAMS = AuditParams()
THRESHOLD = math.log(1 - 0.1 ** (1 / 10_000))


def chance(log_p, *, greedy=False):
    return Chance(log_p, greedy)


def drawn(target, base=None, name="r", *, greedy=False, base_greedy=False):
    known = None if base is None else chance(base, greedy=base_greedy)
    return Drawn(Probe(TokenRecord(name, (0,) * 40, (20, 40)), 20, 40), chance(target, greedy=greedy), known)


def features(name, lp, hit):
    """Features of the 50 tokens after the 50th: each of log-probability ``lp``, the likeliest where ``hit``."""
    values = np.full(50, lp, dtype=np.float32)
    return Features(name, 50, values, values, values, np.full(50, hit) if isinstance(hit, bool) else hit, values)


@pytest.mark.parametrize(("p", "samples"), [(1e-3, 2302), (0.5, 4), (1.0, 1), (0.95, 1)])
def test_golden_samples_needed(p, samples):
    assert math.exp(log_samples_needed(math.log(p), 0.9)) == pytest.approx(samples)
    for budget in (samples, samples - 1):
        params = dataclasses.replace(PARAMS, sample_budget=max(budget, 1))
        assert is_extractable(chance(math.log(p)), params) == (max(budget, 1) == samples)


def test_a_sum_that_rounding_made_more_than_certain_needs_one_sample():
    assert log_samples_needed(1e-9, 0.9) == 0


@pytest.mark.parametrize(("budget", "largest"), [(10, 1_000_000), (10_000, 1_000_000), (100_000, 10_000_000)])
def test_the_largest_budget_is_that_of_the_curve_or_of_the_control(budget, largest):
    assert CONTROL_FACTOR == 100
    assert largest_budget(dataclasses.replace(PARAMS, sample_budget=budget)) == largest


def test_text_that_cannot_be_drawn_is_never_extractable():
    assert log_samples_needed(-math.inf, 0.9) == math.inf
    assert not is_extractable(NEVER, PARAMS)


def test_threshold_of_ten_thousand_samples():
    assert math.exp(THRESHOLD) == pytest.approx(2.30232e-4, rel=1e-5)
    assert is_extractable(chance(THRESHOLD + 1e-9), PARAMS)
    assert not is_extractable(chance(THRESHOLD - 1e-3), PARAMS)


def test_tiny_probabilities_join_the_exact_rule_without_a_step():
    above, below = log_samples_needed(-29.999, 0.9), log_samples_needed(-30.001, 0.9)
    assert below - above == pytest.approx(0.002, abs=1e-6)
    assert log_samples_needed(-500.0, 0.9) == pytest.approx(500 + math.log(math.log(10)))


@given(st.floats(-60, 0), st.floats(-60, 0))
def test_less_likely_texts_need_more_samples(one, other):
    low, high = sorted((one, other))
    assert log_samples_needed(low, 0.9) >= log_samples_needed(high, 0.9)


def test_probe_of_a_conversation_is_the_start_of_its_answer():
    assert probe_of(TokenRecord("r", tuple(range(200)), (2, 200))).start == 2
    assert probe_of(TokenRecord("r", tuple(range(200)), (30, 200))).start == 30
    assert probe_of(TokenRecord("r", tuple(range(200)), (30, 200))).end == 80
    assert probe_of(TokenRecord("r", tuple(range(45)), (30, 45))) is None
    assert probe_of(TokenRecord("r", tuple(range(46)), (30, 46))) is not None


def test_probe_of_a_plain_text_is_what_follows_its_first_half_or_fifty_tokens():
    long = probe_of(TokenRecord("r", tuple(range(200)), (1, 200)))
    assert (long.start, long.end) == (50, 100)
    short = probe_of(TokenRecord("r", tuple(range(40)), (1, 40)))
    assert (short.start, short.end) == (20, 40)
    assert probe_of(TokenRecord("r", tuple(range(30)), (1, 30))) is None


def test_the_chance_of_a_probe_is_that_of_its_own_tokens():
    lq = np.array([-1, -2, -4, -8], dtype=np.float32)
    hits = np.array([False, True, True, False])
    found = Features("r", 10, lq, lq, lq, hits, lq)
    assert chance_of(found, 11, 13) == Chance(-6, greedy=True)
    assert chance_of(found, 10, 13) == Chance(-7, greedy=False)
    assert chance_of(found, 11, 14) == Chance(-14, greedy=False)


def test_a_text_of_the_likeliest_tokens_comes_out_however_improbable_it_is_as_a_sample():
    """50 tokens at 0.8 each: one sample in 70,000, and the very answer at temperature 0."""
    record = TokenRecord("r", tuple(range(100)), (50, 100))
    almost = np.arange(50) != 7
    for hit, k in ((True, 1), (False, 0), (almost, 0)):
        target, base = {"r": features("r", math.log(0.8), hit)}, {"r": features("r", math.log(0.1), hit=False)}
        (found,) = draw([probe_of(record)], target, base, PARAMS)
        rows = summarise_rows([found], [found], PARAMS, too_short=0, census=True)
        assert (rows.k, rows.attributable, rows.base, rows.control_k) == (k, k, 0, k)
        secrets = summarise_secrets([found.target], [found.target], PARAMS)
        assert (secrets.k_in, secrets.k_out) == (k, k)
        assert extraction_curve([found], [], PARAMS)[0].target == k
        assert len(list_extracted([found], PARAMS, controlled=False)) == k


def test_what_the_base_says_greedily_is_not_attributed():
    known = {"r": features("r", math.log(0.5), hit=True)}
    (found,) = draw([probe_of(TokenRecord("r", tuple(range(100)), (50, 100)))], known, known, PARAMS)
    assert is_extractable(found.base, PARAMS)
    assert not found.attributable(PARAMS, controlled=True)
    assert drawn(-40.0, -90.0, greedy=True).attributable(PARAMS, controlled=False)
    assert not drawn(-1.0, -90.0, base_greedy=True).attributable(PARAMS, controlled=False)


def test_attributable_needs_a_base_that_is_far_off():
    assert drawn(-1.0, -40.0).attributable(PARAMS, controlled=False)
    assert not drawn(-1.0, -9.0).attributable(PARAMS, controlled=True)
    assert not drawn(-40.0, -80.0).attributable(PARAMS, controlled=True)


def test_without_base_and_control_nothing_is_attributed():
    assert not drawn(-1.0).attributable(PARAMS, controlled=False)
    assert drawn(-1.0).attributable(PARAMS, controlled=True)
    assert summarise_rows([drawn(-1.0)], [], PARAMS, too_short=0, census=True).attributable == 0


def test_summary_counts_and_bound():
    rows = [drawn(-1.0, -40.0), drawn(-1.0, -1.0), *(drawn(-50.0, -60.0) for _ in range(298))]
    found = summarise_rows(rows, [drawn(-2.0, -50.0), drawn(-90.0, -90.0)], PARAMS, too_short=3, census=True)
    assert (found.k, found.base, found.attributable, found.n) == (2, 1, 1, 300)
    assert (found.control_k, found.control_n, found.too_short) == (1, 2, 3)
    assert found.upper == pytest.approx(0.015721, abs=1e-5)


def test_none_of_three_thousand_supports_less_than_a_tenth_of_a_percent():
    rows = [drawn(-99.0, -99.0)] * 3000
    assert summarise_rows(rows, [], PARAMS, too_short=0, census=True).upper == pytest.approx(9.98e-4, abs=1e-6)


def test_secrets_are_counted_on_both_sides():
    found = summarise_secrets([chance(-1.0), chance(-90.0)], [chance(-90.0)], PARAMS)
    assert (found.k_in, found.n_in, found.k_out, found.n_out) == (1, 2, 0, 1)


def test_curve_rises_and_ends_at_a_million_samples():
    curve = extraction_curve([drawn(-1.0, -30.0), drawn(-7.0, -30.0), drawn(-99.0, -99.0)], [], PARAMS)
    shares = [point.target for point in curve]
    assert shares == sorted(shares)
    assert (curve[0].samples, curve[-1].samples) == (1, 1_000_000)
    assert shares[-1] == pytest.approx(2 / 3)
    assert (curve[-1].base, curve[-1].control) == (0, None)
    assert extraction_curve([], [], PARAMS) == ()


def test_extracted_rows_are_listed_without_text_likeliest_first():
    listed = list_extracted(
        [
            drawn(-3.0, -50.0, "b"),
            drawn(-99.0, -99.0, "c"),
            drawn(-1.0, -1.0, "a"),
            drawn(-40.0, -99.0, "d", greedy=True),
        ],
        PARAMS,
        controlled=False,
    )
    assert [(row.record_id, row.attributable, row.span) for row in listed] == [
        ("d", True, (20, 40)),
        ("a", False, (20, 40)),
        ("b", True, (20, 40)),
    ]


def test_sample_is_a_census_up_to_three_thousand_and_depends_on_the_key_alone():
    records = [TokenRecord(f"r{i}", (i, i + 1), (1, 2)) for i in range(CENSUS_ROWS + 50)]
    assert sample_rows(records[:CENSUS_ROWS], limit=1, key=b"k") == (records[:CENSUS_ROWS], True)
    chosen, census = sample_rows(records, limit=1, key=sampling_key("plan"))
    again, _ = sample_rows(records[::-1], limit=1, key=sampling_key("plan"))
    assert not census
    assert len(chosen) == CENSUS_ROWS == 3000
    assert sampling_key("plan") == hashlib.sha256(b"stanch/audit-rows/v1\0plan").digest()
    assert {r.id for r in chosen} == {r.id for r in again}
    other, _ = sample_rows(records, limit=1, key=sampling_key("another"))
    assert {r.id for r in chosen} != {r.id for r in other}
