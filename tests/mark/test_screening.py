"""Staged screening, and the stage for models whose change was cut to a low rank."""

import math
import sys
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from mark_models import make_release, weight_names, write_model
from scipy.special import ndtr

from stanch.errors import InvalidInput
from stanch.mark import (
    CopyKey,
    FeatureSet,
    Layout,
    LayoutEntry,
    MarkKeys,
    Originals,
    ScorePlan,
    Variant,
    extract,
    open_suspect,
)
from stanch.mark.detection import _examine, _score_screened
from stanch.mark.scoring import draw_stratum, score
from stanch.mark.signature import signature_values
from stanch.terms import Digest
from stanch.weights import Tensor, open_model

SIZE = 1 << 17


def feature_set(values):
    layout = Layout((LayoutEntry("w", "F32", (1, len(values)), 0),))
    return FeatureSet(Variant.PLAIN, np.asarray(values, np.float32).copy(), layout, ())


def key_ring(seed, count):
    rows = np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)
    copies = (CopyKey(f"r{n}", 1, n, 0.01, Digest.sha256(b""), bytes(32), bytes(row), bytes(32))
              for n, row in enumerate(rows))  # fmt: skip
    return MarkKeys(tuple(copies), (), bytes(32), bytes(32))


@pytest.mark.parametrize("effort", ["quick", "deep"])
def test_screening_names_every_colluder_among_hundreds(effort):
    keys, colluders = key_ring(1, 600), (3, 300, 599)
    values = np.random.default_rng(2).normal(size=SIZE)
    for number in colluders:
        values += 0.08 * signature_values(keys.copies[number].stream, 0, SIZE)
    plan = ScorePlan((Variant.PLAIN,), 10_000, effort=effort)
    ((size, least),) = plan.screening(SIZE)
    assert size == 1 << 16
    # Full scores are about 28; the chance of losing one of three at the stage is below 1e-50.
    assert plan.power(28, SIZE) > 1 - 1e-9
    result, best = _examine(feature_set(values), keys, plan, 1)
    assert tuple(n for n, z in enumerate(best) if z >= plan.threshold) == colluders
    assert result.rounds == 2
    # Who passed was scored in full, who did not keeps the score below the stage's.
    screened = _score_screened(feature_set(values), keys, range(600), plan, 1)
    full = score(feature_set(values), [key.stream for key in keys.copies])
    passed = [number for number, z in screened.items() if z == full[number]]
    assert set(colluders) <= set(passed)
    # Quick lets about 64 in 10,000 innocents pass, hence 4 of 600: above 17 with chance 1e-7. Deep here lets 1 − Φ(4.5)
    # pass, hence none.
    assert len(passed) <= 3 + 17
    assert all(z < least for number, z in screened.items() if number not in passed)


def test_a_stage_depends_on_the_plan_alone():
    keys, more = key_ring(1, 40), key_ring(1, 400)
    values = np.random.default_rng(3).normal(size=SIZE)
    plan = ScorePlan((Variant.PLAIN,), 10_000, effort="quick")
    few = _score_screened(feature_set(values), keys, range(40), plan, 1)
    many = _score_screened(feature_set(values), more, range(400), plan, 1)
    assert few == {number: many[number] for number in range(40)}


def test_once_everybody_is_dropped_no_further_stage_is_drawn(monkeypatch):
    keys, size, drawn = key_ring(1, 2), 1 << 21, []
    module = sys.modules["stanch.mark.detection"]
    monkeypatch.setattr(module, "draw_stratum", lambda *asked: drawn.append(asked[2]) or draw_stratum(*asked))
    plan = ScorePlan((Variant.PLAIN,), 10_000, effort="quick")
    marks = sum(signature_values(key.stream, 0, size) for key in keys.copies)
    found = _score_screened(feature_set(-marks), keys, range(2), plan, 1)
    assert [stage for stage, _ in plan.screening(size)] == [1 << 16, 1 << 20]
    assert drawn == [1 << 16]
    assert all(z < -100 for z in found.values())


def test_screening_thresholds():
    quick = ScorePlan((Variant.PLAIN,), 10_000, rounds=1, effort="quick")
    deep = ScorePlan((Variant.PLAIN,), 10_000, rounds=1)
    assert quick.screening(10**8)[0] == (65536, pytest.approx(2.4888, abs=1e-3))
    assert [size for size, _ in quick.screening(10**9)] == [1 << 16, 1 << 20, 1 << 24]
    for coordinates in (10**5, 10**6, 10**7, 10**8, 10**9, 10**10):
        for size, least in deep.screening(coordinates):
            full = deep.threshold + 4
            assert ndtr(full * math.sqrt(size / coordinates) - least) == pytest.approx(1 - 3.17e-5, abs=1e-6)
            assert least <= deep.threshold
        assert deep.power(full, coordinates) >= 1 - 3 * 3.2e-5
    # Nothing is dropped where hardly anybody would be, or where the stage would be all there is.
    assert deep.screening(10**10) == ()
    assert [size for size, _ in deep.screening(4_400_000)] == [1 << 20]
    assert [len(deep.screening((1 << 16) + more)) for more in (0, 1)] == [0, 1]
    few = [ScorePlan((Variant.PLAIN,), n, effort="quick").screening(1 << 17) for n in (128, 129)]
    assert few == [(), ((1 << 16, pytest.approx(-NormalDist().inv_cdf(64 / 129), abs=1e-9)),)]
    assert ScorePlan((Variant.PLAIN,), 100, effort="quick").screening(10**9) == ()
    with pytest.raises(InvalidInput, match="effort"):
        ScorePlan((Variant.PLAIN,), 10, effort="lazy")


def test_the_power_is_what_no_stage_loses():
    plan, extent = ScorePlan((Variant.PLAIN,), 10_000, effort="quick"), 3_000_000
    stages = plan.screening(extent)
    assert len(stages) == 2
    lost = [NormalDist().cdf(least - 12 * math.sqrt(size / extent)) for size, least in stages]
    assert 0.01 < sum(lost) < 0.99
    assert plan.power(12, extent) == pytest.approx(1 - sum(lost), abs=1e-9)
    assert plan.power(-50, extent) == 0


def test_rounds_end_with_nobody_accused_or_nobody_left(monkeypatch):
    keys, cancelled = key_ring(5, 4), []
    monkeypatch.setattr(sys.modules["stanch.mark.detection"], "cancel", lambda _, streams: cancelled.append(streams))
    plan = ScorePlan((Variant.PLAIN,), 4, rounds=3)
    marks = [signature_values(key.stream, 0, SIZE) for key in keys.copies]

    def rounds(values):
        cancelled.clear()
        return _examine(feature_set(values), keys, plan, 1)[0].rounds, len(cancelled)

    noise = np.random.default_rng(6).normal(size=SIZE)
    assert rounds(noise) == (1, 1)  # the ownership mark alone is cancelled
    assert rounds(noise + marks[0]) == (2, 2)
    assert rounds(noise + sum(marks)) == (1, 1)
    # Every round finds another one, whom a stronger one hid; after the last nothing is cancelled.
    found = iter([{0: 99.0, 1: 0.0, 2: 0.0, 3: 0.0}, {1: 99.0, 2: 0.0, 3: 0.0}, {2: 99.0, 3: 0.0}])
    monkeypatch.setattr(sys.modules["stanch.mark.detection"], "_score_screened", lambda *_: next(found))
    assert rounds(noise) == (3, 3)


def test_decoys_are_scored_only_on_what_shows_something():
    keys = replace(key_ring(5, 1), decoys=tuple(key.stream for key in key_ring(7, 40).copies))
    plan = ScorePlan((Variant.PLAIN,), 1, decoy_coordinates=1 << 15)
    found = _examine(feature_set(np.random.default_rng(6).normal(size=SIZE)), keys, plan, 1)[0].decoys
    assert found.count == 40
    assert abs(found.coordinates - (1 << 15)) < 3200  # 4096 groups of 8 wanted; 400 are more than 6 sd
    assert found.plausible(plan.threshold)
    assert _examine(feature_set(np.zeros(SIZE)), keys, plan, 1)[0].decoys is None
    assert _examine(feature_set(np.ones(SIZE)), key_ring(5, 1), plan, 1)[0].decoys is None


def test_the_ownership_mark_is_scored_and_then_hides_nobody():
    keys = key_ring(5, 2)
    keys = replace(keys, release_stream=key_ring(8, 1).copies[0].stream)
    values = np.random.default_rng(6).normal(size=SIZE) + 30 * signature_values(keys.release_stream, 0, SIZE)
    values += signature_values(keys.copies[1].stream, 0, SIZE)
    result, best = _examine(feature_set(values), keys, ScorePlan((Variant.PLAIN,), 2), 1)
    assert result.release_z > 0.99 * math.sqrt(SIZE)
    assert best[1] > 0.6 * math.sqrt(SIZE)
    assert abs(best[0]) < 6


def test_strata_are_nested_and_drawn_in_parts():
    extent = 1 << 24
    small, large = (draw_stratum(bytes(32), extent, size) for size in (1 << 16, 1 << 20))
    assert np.isin(small.groups, large.groups).all()
    # 8,192 and 131,072 groups wanted: sd 91 and 351, so the bounds are 6 sd.
    assert abs(len(small.groups) - 8192) < 550
    assert abs(len(large.groups) - 131_072) < 2200
    assert large.groups.max() > 0.99 * extent / 8


# --- tangent


def cut(folder, source, base, rank):
    """Write base + the change cut to ``rank``."""
    tensors, known = dict(open_model(source)), open_model(base)
    for name, _ in weight_names():
        before = known[name].to_float32()
        u, s, vt = np.linalg.svd(tensors[name].to_float32() - before, full_matrices=False)
        tensors[name] = Tensor.from_float32(name, before + (u[:, :rank] * s[:rank]) @ vt[:rank])
    return write_model(folder, tensors)


def test_a_change_cut_to_low_rank_still_names_its_recipient(base, tmp_path):
    # As in real tuning, the change has a few strong directions and a tail; the mark is weaker than either.
    tensors, generator = dict(open_model(base)), np.random.default_rng(4)
    for name, shape in weight_names():
        u, s, vt = np.linalg.svd(generator.normal(size=shape), full_matrices=False)
        change = (u * (0.8 / np.arange(1, len(s) + 1))) @ vt
        tensors[name] = Tensor.from_float32(name, (tensors[name].to_float32() + change).astype(np.float32))
    release = make_release(tmp_path, write_model(tmp_path / "original", tensors), base)
    # Floors are 85 % of the seeded run.
    for rank, floor in ((16, 242), (8, 170)):
        found = release.detect(cut(tmp_path / f"m{rank}", release.copy("r3"), base, rank))
        (score_,) = found.accused

        assert score_.recipient == "r3"
        assert score_.variant is Variant.TANGENT
        assert score_.best > floor
        assert score_.best > 1.3 * max(z for variant, z in score_.z.items() if variant is not Variant.TANGENT)
        assert found.decoys_plausible
    assert release.accused(cut(tmp_path / "clean", release.original, base, 8)) == []


def test_tangent_needs_a_base_and_a_low_rank(full):
    suspect = open_suspect(full.copy("r3"))
    for base in (None, full.base):
        found = extract(Originals(full.original, base), suspect, Variant.TANGENT, alpha=0.01)
        assert found.matched == (0 if base is None else found.matched)
        assert not found.values[: 128 * 128].any()


@pytest.mark.parametrize("rank", [4, 8])
def test_tangent_shows_the_whole_of_what_a_cut_leaves(base, tmp_path, rank):
    # What was cut away is as strong as what is left, so directions mix across the cut; the bound is √Σ r(m + n − r).
    tensors, generator = dict(open_model(base)), np.random.default_rng(5)
    for name, shape in weight_names():
        low = generator.normal(size=(shape[0], 16)) @ generator.normal(size=(16, shape[1])) / 64
        tensors[name] = Tensor.from_float32(name, (tensors[name].to_float32() + low).astype(np.float32))
    release = make_release(tmp_path, write_model(tmp_path / "original", tensors), base)
    found = release.detect(cut(tmp_path / "cut", release.copy("r3"), base, rank))
    (score_,) = found.accused
    most = np.sqrt(sum(rank * (sum(shape) - rank) for _, shape in weight_names()))
    assert score_.recipient == "r3"
    assert 0.9 * most < score_.z[Variant.TANGENT] < most
    assert release.distance(tmp_path / "cut", Variant.TANGENT) < 0.05
