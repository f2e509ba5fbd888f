"""The statistics, to the digits that the design states."""

import numpy as np
import pytest

from stanch.watch.drift import DriftBank, bet_factors
from stanch.watch.esr import RateBank, fit, hour_of_week_profile, likelihood_ratio
from stanch.watch.firstseen import day_bits, day_scores, e_bh, e_values, fewest_scores, surprise
from stanch.watch.leak import LoneHitBank, lone_ratio
from stanch.watch.mmd import conformal_threshold


def nb(x):
    return float(likelihood_ratio(np.array(float(x)), np.array(20.0), np.array(5.0)))


@pytest.mark.parametrize(
    ("x", "ratio"),
    [(0, 0.049613), (10, 0.112446), (20, 0.269593), (40, 1.997442), (60, 23.386999), (100, 11150.215)],
)
def test_likelihood_ratio_of_a_rise(x, ratio):
    assert nb(x) == pytest.approx(ratio, rel=2e-5 if x == 0 else 5e-6)


def test_the_likelihood_ratio_has_mean_one_under_the_null():
    # NB(20, 5) by its own recursion: p(x+1) = p(x)·(5+x)/(x+1)·(20/25).
    p = [0.2**5]
    for x in range(20_000):
        p.append(p[-1] * (5 + x) / (x + 1) * 0.8)
    ratio = likelihood_ratio(np.arange(len(p)) * 1.0, np.array(20.0), np.array(5.0))
    assert float(np.array(p) @ ratio) == pytest.approx(1, abs=1e-9)


def test_statistic_of_a_rise_over_a_sequence():
    bank = RateBank(1)
    bank.grow(1)
    bank.arrays["m"][:], bank.arrays["k"][:] = 20.0, 5.0
    found, crossings = [], []
    for hour, x in enumerate([20, 25, 18, 40, 55, 62, 48, 70, 66]):
        before = bank.arrays["statistic"][0, 0]
        crossings += bank.close(hour, np.array([[float(x)]]))
        found.append(float((1 + before) * nb(x)))
        if crossings:
            break
    wanted = [0.269593, 0.544757, 0.347735, 2.69202, 44.5712, 1400.04, 7056.09, 674997]
    assert found == pytest.approx(wanted, rel=3e-6)
    assert crossings[0].statistic == pytest.approx(674997, rel=1e-6)
    # The run that led to the alarm began when the statistic was last below 1.
    assert crossings[0].since == 3
    assert bank.arrays["statistic"][0, 0] == 0


def test_fit_of_the_null():
    history = np.array([20, 25, 18, 22, 15, 30, 27, 12, 19, 21, 24, 16.0])[:, None]
    m, k, hours = fit(history)
    assert (float(m[0]), float(k[0]), int(hours[0])) == (pytest.approx(20.85), 50.0, 12)
    assert float(history.var()) == pytest.approx(24.854167, abs=1e-6)
    missing = np.vstack([history, [[np.nan]]])
    assert float(fit(missing)[0][0]) == float(m[0])


def test_a_profile_known_beforehand_gives_the_fit_of_the_flat_series():
    generator = np.random.default_rng(3)
    flat = generator.negative_binomial(5, 0.2, (168, 400)).astype(float)
    profile = np.where(np.arange(168) % 24 < 12, 0.5, 1.5)[:, None] * np.ones((1, 400))
    m, k, _ = fit(generator.negative_binomial(5, 5 / (5 + 20 * profile)).astype(float), profile)
    m0, k0, _ = fit(flat)
    assert float(m.mean()) == pytest.approx(float(m0.mean()), rel=0.02)
    assert float(np.median(k)) == pytest.approx(float(np.median(k0)), rel=0.1)


def test_profile_of_the_week_has_mean_one_and_stays_within_its_bounds():
    weeks = np.zeros((672, 2))
    weeks[::24, 0] = 1000.0
    profile = hour_of_week_profile(weeks, 1000)
    assert profile.mean(axis=0) == pytest.approx([1, 1])
    assert float(profile[0, 0] / profile[1, 0]) == pytest.approx(50)
    assert (profile[:, 1] == 1).all()
    # Of a few principals, or of one week, less is believed.
    alone = hour_of_week_profile(np.where(np.arange(672)[:, None] < 168, weeks, np.nan), 1)
    assert 1 < float(alone[0, 0] / alone[1, 0]) < 10


def test_e_values_and_e_bh():
    calibration = np.array([0.0] * 95 + [1, 2, 2, 3, 4])
    test = np.array([0.0] * 16 + [5, 6, 7, 9])
    threshold, values = e_values(calibration, test, 0.1)
    assert threshold == 4
    assert values.tolist() == [0.0] * 16 + [50.5] * 4
    assert e_bh(values, 0.1) == [16, 17, 18, 19]
    assert e_bh(np.zeros(5), 0.1) == []
    assert e_values(calibration, np.zeros(20), 0.1)[0] == np.inf


def test_one_alarm_is_possible_from_the_stated_number_of_scores_on():
    for n, reported in ((fewest_scores(20, 0.1) - 1, []), (fewest_scores(20, 0.1), [19])):
        _, values = e_values(np.zeros(n), np.array([0.0] * 19 + [9.0]), 0.1)
        assert e_bh(values, 0.1) == reported


def test_surprise_of_a_new_value():
    assert surprise(0, 1000, 3) == pytest.approx(np.log2(1002 / 0.5))
    seen, today = {"network": {"a": 1000.0}}, {"network": {"a": 3.0, "b": 1.0}}
    assert day_bits(seen, today) == {"network": pytest.approx(np.log2(1001 / 0.5))}
    assert day_bits(seen, {"network": {"a": 3.0}}) == {}
    assert day_bits({"network": {"a": 10.0}}, today) == {}
    both = day_bits(seen | {"hours": {"day": 500.0}}, today | {"hours": {"night": 1.0}})
    assert both == {"network": pytest.approx(np.log2(1001 / 0.5)), "hours": pytest.approx(np.log2(501 / 0.5))}


def test_a_day_scores_by_how_rare_each_of_its_surprises_is_among_all_days():
    days = [{"network": 9.0}, {"network": 11.0}, {"network": 11.0, "hours": 7.0}, {"network": 10.0}]
    # Of 64 days four have as much of a new network as the first, two as much as the second, one its hour.
    assert day_scores(days, 64) == pytest.approx([4, 5, 5 + 6, np.log2(64 / 3)])
    assert day_scores([], 64) == []


@pytest.mark.parametrize(("x", "ratio"), [(0, 0.0168773), (3, 0.139268), (10, 98.4377), (15, 136498)])
def test_likelihood_ratio_of_lone_hits(x, ratio):
    assert float(lone_ratio(np.array(float(x)), np.array(2.7))) == pytest.approx(ratio, rel=5e-6)


def test_hours_without_answers_leave_the_lone_hit_statistic_alone():
    bank = LoneHitBank(1)
    bank.grow(1)
    bank.close(0, np.array([[3.0, 2.7]]))
    first = bank.arrays["statistic"].copy()
    assert float(first[0, 0]) == pytest.approx(0.139268, rel=5e-6)
    bank.close(1, np.zeros((1, 2)))
    assert (bank.arrays["statistic"] == first).all()
    (crossing,) = bank.close(2, np.array([[15.0, 2.7]]))
    assert crossing.statistic == pytest.approx(136498 * 1.139268, rel=1e-5)


def test_drift_statistic_over_a_sequence():
    mean, statistic, found = np.array([[0.3]]), np.zeros((8, 1, 1)), []
    for x in (0.3, 0.9, 0.9, 0.9, 0.9):
        statistic = (1 + statistic) * bet_factors(np.array([[x]]), mean)
        found.append(float(statistic.mean()))
    assert found == pytest.approx([1, 2, 3.312245, 5.092857, 7.615873], abs=5e-7)
    bank = DriftBank(1)
    bank.grow(1)
    for name, value in (("low", 0.0), ("high", 1.0), ("mean", 0.3)):
        bank.arrays[name][:] = value
    for hour, x in enumerate((0.3, 0.9, 0.9, 0.9, 0.9)):
        bank.close(hour, np.array([[1.0, x]]))
        bank.close(hour + 100, np.zeros((1, 2)))  # an hour without answers
    assert float(bank.arrays["bets"].mean()) == pytest.approx(7.615873, abs=5e-7)


def test_conformal_threshold_needs_its_number():
    assert conformal_threshold(np.arange(998.0), 0.001) == np.inf
    assert conformal_threshold(np.arange(999.0), 0.001) == 998.0
    assert conformal_threshold(np.arange(1999.0), 0.001) == 1997.0
    assert conformal_threshold(np.arange(1999.0), 0.001, spare=1) == 1998.0
    assert conformal_threshold(np.arange(999.0), 0.001, spare=1) == 998.0  # there is no rank above
