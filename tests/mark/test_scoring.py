"""Scores, strata and cancellation against their definitions, over several blocks and tasks."""

import numpy as np
import pytest

from stanch.crypto import aes_ctr_into
from stanch.mark import FeatureSet, Layout, LayoutEntry, Variant
from stanch.mark.scoring import Stratum, cancel, draw_stratum, score, score_on
from stanch.mark.signature import signature_values

KEYS = [bytes([n]) * 32 for n in range(1, 20)]


def feature_set(values):
    layout = Layout((LayoutEntry("w", "F32", (1, len(values)), 0),))
    return FeatureSet(Variant.PLAIN, np.asarray(values, np.float32).copy(), layout, ())


def features(extent, seed=1):
    return feature_set(np.random.default_rng(seed).normal(size=extent))


def defined(found, keys, chosen=slice(None)):
    """Return ``z = Σ f x / √Σ f²`` over the chosen coordinates, all at once and in float64."""
    values = found.values.astype(np.float64)
    own = [signature_values(key, 0, len(values)).astype(np.float64)[chosen] for key in keys]
    return [x @ values[chosen] / np.sqrt(values[chosen] @ values[chosen]) for x in own]


@pytest.mark.parametrize("extent", [8, 65_536, 65_544, 200_000, (1 << 20) + 65_544])
def test_a_score_is_the_correlation_over_all_blocks_and_tasks(extent):
    found = features(extent)
    scores = score(found, KEYS[:2])
    np.testing.assert_allclose(scores, defined(found, KEYS[:2]), atol=1e-3)
    assert np.array_equal(score(found, KEYS[:2], threads=3), scores)


def test_blocks_that_show_nothing_change_no_score():
    values = np.zeros(3 << 16)
    values[5], values[(2 << 16) + 9] = 3, 4
    found = feature_set(values)
    np.testing.assert_allclose(score(found, KEYS), defined(found, KEYS), atol=1e-6)


def test_a_score_does_not_depend_on_the_scale_of_what_is_shown():
    small, one = feature_set(1e-4 * features(1024).values), feature_set(np.eye(1, 1024, 700)[0])
    for found in (small, one):
        stratum = Stratum(np.arange(128))
        np.testing.assert_allclose(score(found, KEYS), defined(found, KEYS), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(score_on(found, KEYS, stratum), defined(found, KEYS), rtol=1e-3, atol=1e-6)


def test_a_group_whose_draw_is_the_limit_is_not_drawn():
    key, extent = bytes(32), 1 << 20
    draws = np.empty(extent // 8, "<u4")
    aes_ctr_into(key, bytes(16), draws.data)
    group = np.flatnonzero((draws % 4096 == 0) & (draws < 1 << 31))[0]
    assert group not in draw_stratum(key, extent, int(draws[group]) >> 12).groups
    assert group in draw_stratum(key, extent, (int(draws[group]) >> 12) + 1).groups


@pytest.mark.parametrize("extent", [16_384, 8 * ((1 << 20) + 1000)])
def test_a_stratum_is_drawn_by_four_bytes_for_each_group(extent):
    key, groups = bytes(range(32)), extent // 8
    draws = np.empty(groups + -groups % 4, "<u4")
    aes_ctr_into(key, bytes(16), draws.data)
    found = draw_stratum(key, extent, extent // 64)
    assert np.array_equal(found.groups, np.flatnonzero(draws[:groups] < 2**32 // 64))
    assert found.coordinates == 8 * len(found.groups)
    larger = draw_stratum(key, extent, extent // 8)
    assert set(found.groups.tolist()) < set(larger.groups.tolist())


@pytest.mark.parametrize("wanted", [16_384, 20_000])
def test_a_stratum_of_all_coordinates_holds_all(wanted):
    assert draw_stratum(bytes(32), 16_384, wanted).groups.tolist() == list(range(2048))
    assert len(draw_stratum(bytes(32), 16_384, 16_383).groups) > 2040


@pytest.mark.parametrize("extent", [1024, 1 << 17])
def test_a_score_on_a_stratum_is_the_correlation_over_its_coordinates(extent):
    found = features(extent)
    groups = np.flatnonzero(np.random.default_rng(2).random(extent // 8) < 0.6)
    chosen = (8 * groups[:, None] + np.arange(8)).ravel()
    scores = score_on(found, KEYS, Stratum(groups))
    np.testing.assert_allclose(scores, defined(found, KEYS, chosen), atol=1e-3)
    assert np.array_equal(score_on(found, KEYS, Stratum(groups), threads=3), scores)


def test_cancellation_is_least_squares_over_what_is_shown():
    extent = 3 << 16
    values = np.random.default_rng(3).normal(size=extent)
    own = np.stack([signature_values(key, 0, extent).astype(np.float64) for key in KEYS[:3]])
    values += 0.5 * own[0] - 0.25 * own[1]
    values[1::7] = 0
    values[1 << 16 : 2 << 16] = 0
    found = feature_set(values)
    shown = found.values != 0
    coefficients = np.linalg.lstsq(own[:, shown].T, found.values[shown].astype(np.float64), rcond=None)[0]
    expected = np.where(shown, found.values - coefficients @ own, 0)
    cancel(found, KEYS[:3])
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
