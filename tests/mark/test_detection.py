import ast
import inspect
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import mark_models
import numpy as np
import pytest
from mark_models import (
    RECIPIENTS,
    combine,
    int8,
    make_adapter,
    make_model,
    make_release,
    merge,
    nf4,
    treat,
    weight_names,
    write_model,
)

from stanch.errors import InvalidInput, InvalidSafetensors
from stanch.mark import (
    CopyKey,
    Detection,
    MarkKeys,
    Originals,
    RecipientScore,
    ScorePlan,
    Variant,
    adapter,
    detect,
    detection,
    extract,
    features,
    open_suspect,
    score,
    suspect,
)
from stanch.mark.detection import DecoyStatistics, VariantResult, _ranking
from stanch.terms import Digest
from stanch.weights import Tensor, open_adapter, open_model

# --- adapters


def test_a_copy_leads_to_its_recipient_and_to_nobody_else(lora):
    found = lora.detect(lora.copy("r3"))
    (score,) = found.accused
    assert score.recipient == "r3"
    assert score.best > 0.9 * 0.97 * np.sqrt(found.coordinates)
    assert score.log10_p < -1000
    assert found.next_z < 5
    assert found.release_z > 60
    assert found.matched == 1
    assert found.unmatched == ()
    assert found.decoys_plausible
    assert [result.decoys.count for result in found.variants] == [200] * 4


# Floors are 85 % of the least of five seeds.
def test_a_merged_copy_survives_rounding(lora, tmp_path):
    for name, rounding, floor in (("none", None, 195), ("int8", int8, 88)):
        found = lora.detect(merge(tmp_path / name, lora.base, lora.copy("r3"), rounding=rounding))
        assert [score.recipient for score in found.accused] == ["r3"]
        assert found.accused[0].best > floor
        assert found.decoys_plausible


def test_a_strong_adapter_survives_four_bits(tmp_path, base):
    release = make_release(tmp_path, make_adapter(tmp_path / "original", 4, size=0.25), base)
    found = release.detect(merge(tmp_path / "nf4", base, release.copy("r3"), rounding=nf4))
    assert [score.recipient for score in found.accused] == ["r3"]
    assert found.accused[0].best > 30


def test_a_merged_quantised_copy_survives_later_tuning(lora, tmp_path):
    quantised = merge(tmp_path / "int8", lora.base, lora.copy("r3"), rounding=int8)
    for size in (0.05, 0.5):
        later = make_adapter(tmp_path / f"later-{size}", 99, size=size)
        found = lora.detect(merge(tmp_path / f"tuned-{size}", quantised, later))
        assert [score.recipient for score in found.accused] == ["r3"]
        assert found.accused[0].best > 68


def test_scaled_and_re_extracted_factors_are_found(lora, tmp_path):
    half = merge(tmp_path / "half", lora.base, lora.copy("r3"), weight=0.5)
    assert lora.accused(half) == ["r3"]
    folder = tmp_path / "extracted"
    shutil.copytree(lora.copy("r3"), folder)
    tensors = {}
    for module in open_adapter(lora.copy("r3")).modules.values():
        u, s, vt = np.linalg.svd(module.delta().astype(np.float64), full_matrices=False)
        a, b = vt[:6], u[:, :6] * s[:6]
        for factor, value in ((module.a, a), (module.b, b)):
            tensors[factor.name] = Tensor.from_float32(factor.name, value.astype(np.float32))
    write_model(folder, tensors)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    assert lora.accused(folder) == ["r3"]


def test_adapter_features_do_not_depend_on_the_gauge(lora, tmp_path):
    turned = tmp_path / "turned"
    shutil.copytree(lora.copy("r3"), turned)
    generator = np.random.default_rng(8)
    tensors = {}
    for module in open_adapter(lora.copy("r3")).modules.values():
        g = generator.normal(size=(module.rank, module.rank)) + 3 * np.eye(module.rank)
        for factor, value in ((module.a, g @ module.a.raw), (module.b, module.b.raw @ np.linalg.inv(g))):
            tensors[factor.name] = Tensor.from_float32(factor.name, value.astype(np.float32))
    write_model(turned, tensors)
    (turned / "model.safetensors").rename(turned / "adapter_model.safetensors")
    originals = Originals(lora.original)
    one, two = (
        extract(originals, open_suspect(path), Variant.ADAPTER, alpha=0.02).values for path in (lora.copy("r3"), turned)
    )
    assert np.dot(one, two) / np.sqrt(np.dot(one, one) * np.dot(two, two)) > 0.999
    assert lora.accused(turned) == ["r3"]


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("treatment", ["bf16", "int8"])
def test_every_colluder_of_an_average_is_named(lora, tmp_path, count, treatment):
    names = list(RECIPIENTS[:count])
    merged = [merge(tmp_path / name, lora.base, lora.copy(name)) for name in names]
    mean = combine(tmp_path / "mean", merged, lambda stack: stack.mean(axis=0))
    suspect_ = treat(tmp_path / "treated", mean, int8) if treatment == "int8" else mean
    assert lora.accused(suspect_) == sorted(names)


# --- full models


def test_a_full_copy_survives_what_happens_to_copies(full, tmp_path):
    copy, generator = full.copy("r3"), np.random.default_rng(7)

    def prune(weights):
        return np.where(np.abs(weights) < np.median(np.abs(weights)), 0, weights)

    def disturb(weights):
        return weights + 1e-3 * generator.normal(size=weights.shape).astype(np.float32)

    cases = {
        "none": (copy, 620),
        "int8": (treat(tmp_path / "int8", copy, int8), 515),
        "nf4": (treat(tmp_path / "nf4", copy, nf4), 62),
        "scaled": (treat(tmp_path / "scaled", copy, lambda w: w * np.float32(1.07)), 615),
        "half": (combine(tmp_path / "half", [copy, full.base], lambda s: s.mean(axis=0)), 620),
        "pruned": (treat(tmp_path / "pruned", copy, prune), 435),
        "noise": (treat(tmp_path / "noise", copy, disturb), 135),
        "tuned": (merge(tmp_path / "drift", copy, make_adapter(tmp_path / "later", 98, size=0.3)), 465),
    }
    for name, (path, floor) in cases.items():
        found = full.detect(path)
        assert [score.recipient for score in found.accused] == ["r3"], name
        assert found.accused[0].best > floor, name


@pytest.mark.parametrize("rule", ["mean", "min", "max", "median"])
def test_order_statistics_of_copies_name_every_colluder(full, tmp_path, rule):
    names = list(RECIPIENTS[:4])
    mixed = combine(tmp_path / rule, [full.copy(name) for name in names], lambda s: getattr(np, rule)(s, axis=0))
    assert full.accused(mixed) == names


def test_integers_with_row_scales_are_read(full, tmp_path):
    for suffix, unit, shape in (("weight_scale", 1, (-1, 1)), ("SCB", 127, (-1,))):
        tensors = dict(open_model(full.copy("r3")))
        for name, _ in weight_names():
            weights = tensors[name].to_float32()
            scale = np.abs(weights).max(axis=1) / 127
            tensors[name] = Tensor(name, "I8", np.round(weights / scale[:, None]).astype(np.int8))
            stem = name.removesuffix(".weight")
            tensors[f"{stem}.{suffix}"] = Tensor.from_float32(f"{stem}.{suffix}", (scale * unit).reshape(shape))
        found = full.detect(write_model(tmp_path / suffix, tensors))
        assert [score.recipient for score in found.accused] == ["r3"]
        assert found.matched == 1


def test_integers_without_scales_are_unmatched(full, tmp_path):
    tensors = dict(open_model(full.copy("r3")))
    names = [name for name, _ in weight_names()]
    for name in names[:4]:
        tensors[name] = Tensor(name, "I8", np.ones(tensors[name].shape, np.int8))
    found = full.detect(write_model(tmp_path / "m", tensors))
    assert sorted(found.unmatched) == sorted(names[:4])
    assert 0 < found.matched < 1
    assert [score.recipient for score in found.accused] == ["r3"]


def test_other_prefixes_are_seen_through(full, tmp_path):
    tensors = {
        name.removeprefix("model."): Tensor(name.removeprefix("model."), tensor.dtype, tensor.raw)
        for name, tensor in open_model(full.copy("r3")).items()
    }
    assert full.accused(write_model(tmp_path / "m", tensors)) == ["r3"]


# --- innocent and hostile suspects


def test_the_base_and_the_original_accuse_nobody(lora, full, tmp_path):
    assert lora.accused(lora.base) == []
    assert lora.accused(lora.original) == []
    assert lora.accused(merge(tmp_path / "merged", lora.base, lora.original, rounding=int8)) == []
    assert full.accused(full.base) == []
    assert full.accused(full.original) == []
    assert lora.detect(lora.original).release_z < 6


def test_fifty_innocent_variants_accuse_nobody(lora, tmp_path):
    highest = []
    for seed in range(50):
        size = (0.002, 0.02, 0.2)[seed % 3]
        other = make_adapter(tmp_path / f"a{seed}", 1000 + seed, size=size, rank=(4, 8, 16)[seed % 3])
        path = other if seed % 2 else merge(tmp_path / f"m{seed}", lora.base, lora.original, other, rounding=int8)
        found = lora.detect(path)
        assert found.accused == ()
        assert found.decoys_plausible
        highest.append(found.next_z)
    # 50 suspects × 12 recipients × 4 variants: above 5.2 with chance below 3e-4, in the mean the largest is about 3.4.
    assert 2 < max(highest) < 5.2


def test_a_hostile_suspect_hides_only_what_it_destroys(lora, tmp_path):
    merged = open_model(merge(tmp_path / "merged", lora.base, lora.copy("r3")))
    base = open_model(lora.base)
    names = [name for name, _ in weight_names()]
    generator = np.random.default_rng(6)
    tensors = {name: tensor.to_float32() for name, tensor in merged.items()}
    tensors[names[0]][3] = np.nan
    tensors[names[1]][5] = 1e38
    tensors[names[2]][:, 1] = -np.inf
    # Set back to the base but for a trace of noise: what is tiny must not outweigh the rest.
    tensors[names[3]] = base[names[3]].to_float32() + 1e-9 * generator.normal(size=base[names[3]].shape).astype(
        np.float32
    )
    tensors[names[4]] = tensors[names[4]][:-1]
    del tensors[names[5]]
    suspect_ = write_model(tmp_path / "m", {name: Tensor.from_float32(name, value) for name, value in tensors.items()})
    found = lora.detect(suspect_)
    assert [score.recipient for score in found.accused] == ["r3"]
    assert found.accused[0].best > 40
    assert len(found.unmatched) == 4
    assert np.isfinite([z for score in found.scores for z in score.z.values()]).all()


def test_rows_set_back_to_the_original_do_not_drown_the_rest(full, tmp_path):
    original = open_model(full.original)
    tensors = {name: tensor.to_float32() for name, tensor in open_model(full.copy("r3")).items()}
    name = weight_names()[0][0]
    noise = np.random.default_rng(5).normal(size=(10, 128)).astype(np.float32)
    tensors[name][:10] = original[name].to_float32()[:10] + 1e-9 * noise
    found = full.detect(write_model(tmp_path / "m", {n: Tensor.from_float32(n, value) for n, value in tensors.items()}))
    assert found.accused[0].z[Variant.PLAIN] > 300


@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_suspect_is_refused(full, tmp_path, cut):
    data = (full.copy("r3") / "model.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[:-cut])
    with pytest.raises(InvalidSafetensors):
        full.detect(path)


def test_what_cannot_be_read_is_refused(full, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidInput):
            full.detect(path)


def test_a_suspect_with_nothing_in_common_is_unmatched(full, tmp_path):
    other = write_model(tmp_path / "m", {"x": Tensor.from_float32("x", np.ones((64, 64), np.float32))})
    found = full.detect(other)
    assert found.matched == 0
    assert found.accused == ()
    assert {result.decoys for result in found.variants} == {None}


# --- what each variant compares, on models of one layer


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A release of an adapter and one of a full model."""
    monkeypatch.setattr(mark_models, "LAYERS", 1)
    base = make_model(tmp_path / "base", 1)
    adapter_ = make_release(tmp_path, make_adapter(tmp_path / "original", 2), base)
    generator, tensors = np.random.default_rng(3), dict(open_model(base))
    for name, shape in weight_names():
        change = 2e-3 * generator.normal(size=shape).astype(np.float32)
        tensors[name] = Tensor.from_float32(name, tensors[name].to_float32() + change)
    (tmp_path / "full").mkdir()
    return adapter_, make_release(tmp_path / "full", write_model(tmp_path / "tuned", tensors), base)


def features_of(release, path, variant):
    originals = Originals(release.original, release.base)
    return extract(originals, open_suspect(path), variant, alpha=release.plan.alpha)


def turn_factors(folder, copy, seed=8):
    """Write the adapter with other factors of the same products."""
    shutil.copytree(copy, folder)
    generator, tensors = np.random.default_rng(seed), {}
    for module in open_adapter(copy).modules.values():
        g = generator.normal(size=(module.rank, module.rank)) + 3 * np.eye(module.rank)
        for factor, value in ((module.a, g @ module.a.raw), (module.b, module.b.raw @ np.linalg.inv(g))):
            tensors[factor.name] = Tensor.from_float32(factor.name, value.astype(np.float32))
    write_model(folder, tensors)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    return folder


def test_of_an_adapter_two_variants_see_products_and_the_others_factors(tiny, tmp_path):
    release, _ = tiny
    turned = turn_factors(tmp_path / "turned", release.copy("r3"))
    for variant in ScorePlan.default("adapter", 100).variants:
        one, two = (features_of(release, path, variant).values for path in (release.copy("r3"), turned))
        assert one.any()
        same = np.dot(one, two) / np.sqrt(np.dot(one, one) * np.dot(two, two)) > 0.999
        assert same == (variant in {Variant.ADAPTER, Variant.SPECTRAL}), variant


def test_of_a_full_model_every_variant_but_that_of_adapters_compares_weights(tiny):
    _, release = tiny
    for variant in ScorePlan.default("full", 100).variants:
        found = features_of(release, release.copy("r3"), variant)
        # The change is of full rank and without tangent, and one layer of no known family cannot be aligned.
        assert len(found.unmatched) == (4 if variant in {Variant.TANGENT, Variant.ALIGNED} else 0)
    with pytest.raises(InvalidInput, match="applies only"):
        features_of(release, release.copy("r3"), Variant.ADAPTER)


def test_one_variant_alone_is_aligned(tiny, monkeypatch):
    aligned = []
    monkeypatch.setattr(detection, "align", lambda _, suspect_: aligned.append(1) or suspect_)
    for variant in (Variant.PLAIN, Variant.PROJECTED, Variant.ALIGNED):
        features_of(tiny[1], tiny[1].copy("r3"), variant)
    assert len(aligned) == 1


def test_weights_whose_names_mean_nothing_are_recognised_and_what_only_bears_a_name_is_not(tiny, tmp_path):
    lora_, full_ = tiny
    noise = 0.02 * np.random.default_rng(9).normal(size=(256, 128)).astype(np.float32)
    up = "model.layers.0.mlp.up_proj.weight"
    merged = merge(tmp_path / "merged", lora_.base, lora_.copy("r3"))
    for release, copy, variant in ((full_, full_.copy("r3"), Variant.PLAIN), (lora_, merged, Variant.ADAPTER)):
        tensors = dict(open_model(copy))
        renamed = {f"x{n}": Tensor(f"x{n}", t.dtype, t.raw) for n, t in enumerate(tensors.values())}
        found = features_of(release, write_model(tmp_path / f"{variant}-renamed", renamed), variant)
        assert found.unmatched == ()
        strange = tensors | {up: Tensor.from_float32(up, noise)}
        found = features_of(release, write_model(tmp_path / f"{variant}-strange", strange), variant)
        marked = [entry.name for entry in release.plan.layout.entries]
        assert sorted(found.unmatched) == sorted(name for name in marked if "up_proj" in name)
        assert 0 < len(found.unmatched) < len(marked)


def test_as_many_recipients_as_the_plan_counts_and_one_alone(tiny):
    release, told = tiny[1], []
    plan = ScorePlan((Variant.PLAIN, Variant.PROJECTED), len(RECIPIENTS), decoy_coordinates=1 << 12)
    keys = replace(release.keys, decoys=())
    found = detect(
        Originals(release.original), release.copy("r3"), keys, plan, progress=lambda *step: told.append(step)
    )
    assert told == [("mark: plain", 0, 2), ("mark: projected", 1, 2), ("mark", 2, 2)]
    assert [result.variant for result in found.variants] == list(plan.variants)
    assert [score.recipient for score in found.accused] == ["r3"]
    one = replace(keys, copies=(release.key("r3"),))
    alone = detect(Originals(release.original), release.copy("r3"), one, replace(plan, n=1))
    assert [score.recipient for score in alone.accused] == ["r3"]


# --- the plan and the guarantee


def test_a_merged_suspect_of_an_adapter_needs_the_base(lora, tmp_path):
    merged = merge(tmp_path / "m", lora.base, lora.copy("r3"))
    with pytest.raises(InvalidInput, match="base model is needed"):
        detect(Originals(lora.original), merged, lora.keys, ScorePlan.default("adapter", 100))


def test_keys_plan_and_original_must_belong_together(lora, full):
    with pytest.raises(InvalidInput, match="another original"):
        detect(Originals(full.original), full.base, lora.keys, ScorePlan.default("full", 100))
    mixed = replace(lora.keys, copies=(*lora.keys.copies[1:], replace(lora.keys.copies[0], layout_digest=bytes(32))))
    for keys in (mixed, replace(lora.keys, copies=())):
        with pytest.raises(InvalidInput, match="another original"):
            detect(Originals(lora.original), lora.original, keys, ScorePlan.default("adapter", 100))
    with pytest.raises(InvalidInput, match="counts 11"):
        detect(Originals(lora.original), lora.original, lora.keys, ScorePlan.default("adapter", 11))
    with pytest.raises(InvalidInput, match="applies only"):
        extract(Originals(full.original), open_suspect(full.base), Variant.ADAPTER, alpha=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"variants": ()},
        {"variants": (Variant.PLAIN, Variant.PLAIN)},
        {"n": 0},
        {"rounds": 0},
        {"rounds": 5},
        {"epsilon": 0},
        {"releases": 0},
        {"views": 0},
        {"decoy_coordinates": 0},
    ],
)
def test_impossible_plans_are_refused(change):
    with pytest.raises(InvalidInput):
        ScorePlan(**{"variants": (Variant.PLAIN,), "n": 10} | change)
    with pytest.raises(InvalidInput, match="expected one or more different variants"):
        ScorePlan((), 10)


def test_analyses_count_variants_rounds_releases_and_views():
    plan = ScorePlan((Variant.PLAIN, Variant.SPECTRAL), 10_000, rounds=4, releases=2)
    assert plan.analyses == 16
    assert plan.threshold == pytest.approx(8.0878, abs=5e-5)
    assert ScorePlan((Variant.PLAIN,), 10, rounds=3, releases=5, views=7).analyses == 105


def test_what_a_plan_says_before_the_first_score():
    variants = {
        "full": ["plain", "projected", "spectral", "tangent", "aligned"],
        "adapter": ["plain", "projected", "spectral", "adapter"],
    }
    for kind, names in variants.items():
        assert ScorePlan.default(kind, 100).to_json() == {
            "schema": "stanch/score-plan/v1", "variants": names, "n": 100, "rounds": 2, "analyses": 2 * len(names),
            "epsilon": 1e-9, "releases": 1, "views": 1, "decoy_coordinates": 1 << 19, "effort": "deep",
        }  # fmt: skip
    assert ScorePlan((Variant.PLAIN,), 100) == ScorePlan((Variant.PLAIN,), 100, epsilon=1e-9)


def test_the_least_and_the_most_that_a_plan_may_count():
    for rounds in (1, 4):
        assert ScorePlan((Variant.PLAIN,), 1, rounds=rounds, decoy_coordinates=1).analyses == rounds


def found_in(**changes):
    """A detection of two variants that were run on 100 coordinates: one of two recipients is accused."""
    plan = ScorePlan((Variant.PLAIN, Variant.SPECTRAL), 10)
    variants = (
        VariantResult(Variant.PLAIN, 60, ("a", "b"), 1.5, DecoyStatistics(50, 0.125, 1.25, 3.0, 64), 1),
        VariantResult(Variant.SPECTRAL, 25, ("b", "c"), 9.5, None, 2),
    )
    scores = (
        RecipientScore("r1", 2, 4, {Variant.PLAIN: 3.0, Variant.SPECTRAL: 20.0}, Variant.SPECTRAL, -80.0, accused=True),
        RecipientScore("r0", 1, 3, {Variant.PLAIN: 2.5, Variant.SPECTRAL: 0.5}, Variant.PLAIN, 0.0, accused=False),
    )
    return replace(Detection(scores, variants, plan, plan.threshold, 100, ("x.bin",)), **changes)


def test_what_a_detection_says():
    found = found_in()
    assert [score.recipient for score in found.accused] == ["r1"]
    assert (found.next_z, found.release_z, found.matched, found.unmatched) == (2.5, 9.5, 0.6, ("b",))
    assert not found.needs_base
    assert found.to_json() == {
        "schema": "stanch/mark-detection/v1",
        "plan": found.plan.to_json(),
        "threshold": found.plan.threshold,
        "coordinates": 100,
        "matched": 0.6,
        "unmatched": ["b"],
        "unread": ["x.bin"],
        "decoys_plausible": True,
        "variants": [
            {"variant": "plain", "matched": 60, "release_z": 1.5, "rounds": 1,
             "decoys": {"count": 50, "mean": 0.125, "sd": 1.25, "max": 3.0, "coordinates": 64}},
            {"variant": "spectral", "matched": 25, "release_z": 9.5, "rounds": 2, "decoys": None},
        ],
        "scores": [
            {"recipient": "r1", "batch": 2, "leaf": 4, "variant": "spectral", "z": {"plain": 3.0, "spectral": 20.0},
             "log10_p": -80.0, "accused": True},
            {"recipient": "r0", "batch": 1, "leaf": 3, "variant": "plain", "z": {"plain": 2.5, "spectral": 0.5},
             "log10_p": 0.0, "accused": False},
        ],
    }  # fmt: skip
    assert found_in(scores=found.scores[:1]).next_z == 0
    last = replace(found.scores[1], recipient="r2", z={Variant.PLAIN: -1.0, Variant.SPECTRAL: -2.0})
    assert found_in(scores=(*found.scores, last)).next_z == 2.5
    assert found_in(variants=found.variants[:1]).unmatched == ("a", "b")


def test_nobody_accused_means_nothing_below_a_quarter_of_the_coordinates():
    assert [found_in(coordinates=count).too_little for count in (100, 240, 241)] == [False, False, True]


def test_one_variant_whose_decoys_are_implausible_spoils_all():
    plain, spectral = found_in().variants
    odd = replace(plain, decoys=replace(plain.decoys, maximum=found_in().threshold))
    assert found_in(variants=(spectral, plain)).decoys_plausible
    assert not found_in(variants=(spectral, odd)).decoys_plausible
    assert not found_in(variants=(odd, plain)).decoys_plausible


def test_a_detection_without_the_base_compared_nothing(lora):
    originals = Originals(lora.original)
    found = Detection.without_base(originals, ScorePlan.default("adapter", 100))
    names = tuple(entry.name for entry in originals.layout.entries)
    assert (found.needs_base, found.scores, found.matched, found.unmatched) == (True, (), 0, names)
    assert {(result.matched, result.release_z, result.decoys, result.rounds) for result in found.variants} == {
        (0, 0.0, None, 0)
    }


def test_recipients_are_ranked_by_their_best_variant():
    plan = ScorePlan((Variant.PLAIN, Variant.SPECTRAL), 10)
    copies = [CopyKey(f"r{n}", 1, 7 + n, 0.01, Digest.sha256(b""), bytes(32), bytes(32), bytes(32)) for n in range(3)]
    sure = plan.threshold + 0.02
    ranked = _ranking(MarkKeys(tuple(copies), (), b"", b""), plan, [[1.0, sure, -3.0], [2.0, 0.0, plan.threshold]])
    assert [(found.recipient, found.leaf, found.variant, found.accused) for found in ranked] == [
        ("r1", 8, Variant.PLAIN, True), ("r2", 9, Variant.SPECTRAL, False), ("r0", 7, Variant.SPECTRAL, False),
    ]  # fmt: skip
    assert ranked[0].log10_p == pytest.approx(-9, abs=0.2)
    assert ranked[2].z == {Variant.PLAIN: 1.0, Variant.SPECTRAL: 2.0}
    assert ranked[2].log10_p == 0


def test_the_result_does_not_depend_on_threads(full):
    plan = ScorePlan.default("full", 100)
    runs = [
        detect(Originals(full.original, full.base), full.copy("r3"), full.keys, plan, threads=threads)
        for threads in (1, 3)
    ]
    assert [score.z for score in runs[0].scores] == [score.z for score in runs[1].scores]


def test_the_product_of_both_factors_marks_is_not_muted_as_drift(lora, tmp_path):
    # Later tuning of the same size as the adapter: its directions go, those of the mark, far below it, stay.
    later = open_adapter(make_adapter(tmp_path / "later", 98)).modules
    tensors = dict(open_model(lora.base))
    for name, module in open_adapter(lora.copy("r3")).modules.items():
        weight = f"{name}.weight"
        tensors[weight] = Tensor.from_float32(
            weight, tensors[weight].to_float32() + module.delta() + later[name].delta()
        )
    suspect = open_suspect(write_model(tmp_path / "suspect", tensors))
    originals, key = Originals(lora.original, lora.base), lora.key("r3")
    z = {
        variant: score(extract(originals, suspect, variant, alpha=key.alpha), [key.stream])[0]
        for variant in (Variant.ADAPTER, Variant.SPECTRAL)
    }
    assert z[Variant.SPECTRAL] > 0.45 * math.sqrt(lora.plan.layout.coordinates) > z[Variant.ADAPTER]


def test_progress_is_told_and_the_result_is_json(lora):
    told = []
    found = lora.detect(lora.copy("r3"), progress=lambda *step: told.append(step))
    assert told[-1] == ("mark", 4, 4)
    document = json.loads(json.dumps(found.to_json()))
    assert document["scores"][0]["recipient"] == "r3"
    assert document["decoys_plausible"] is True
    for key in lora.keys.copies:
        assert key.stream.hex() not in str(document)


def test_features_are_made_without_any_key():
    # Types say it, and the imports too: nothing that makes features can reach a key or a key's values.
    for module in (features, adapter, suspect):
        tree = ast.parse(Path(inspect.getfile(module)).read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not names & {"CopyKey", "MarkKeys", "MarkRoot", "signature_values", "Draws", "stream_key"}
