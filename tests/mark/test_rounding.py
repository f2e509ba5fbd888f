"""The grid that a suspect lies on, the original rounded to it, and what that gives to the comparison."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from mark_models import (
    four_bit,
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

from stanch.mark import Originals, Variant, extract, open_suspect, rounding
from stanch.mark.rounding import GRIDS, find_grid, without_rounding
from stanch.mark.scoring import draw_stratum, score_on
from stanch.trace.verifier import recompute
from stanch.trace.verifier.features import rounded as again_by_numpy
from stanch.weights import Tensor, from_float32, open_model, to_float32

INT8, Q8_0, FOUR, *GROUPS, TENSOR = GRIDS
ALPHA = 3e-3


def weights(seed=1, rows=40, columns=128):
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.normal(scale=0.3, size=(rows, 1)))
    return (0.02 * sizes * generator.normal(size=(rows, columns))).astype(np.float32)


def q8_0(values):
    """Round as llama.cpp does: blocks of 32, a scale of 16 bits."""
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    return (np.round(blocks / scale) * scale).reshape(values.shape)


def integers(bits, group):
    """Round to integers with a unit a group of inputs; group 0: one for the tensor."""

    def change(values):
        blocks = values.reshape(-1, group or values.size)
        scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1), 1e-30)
        return (np.rint(blocks / scale) * scale).reshape(values.shape)

    return change


def gptq(values):
    """Round as GPTQ stores it: 4 bits of a group of 128, from the least to the greatest, which are no multiple."""
    blocks = values.reshape(-1, 128)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    scale = np.maximum((high - low) / 15, 1e-30)
    zero = np.rint(-low / scale)
    return ((np.clip(np.rint(blocks / scale) + zero, 0, 15) - zero) * scale).reshape(values.shape).astype(np.float32)


def stored(kind):
    return lambda values: to_float32(from_float32(values, kind), kind)


def grid_of(suspect):
    return find_grid(len(suspect), suspect.__getitem__)


@pytest.mark.parametrize(
    ("rounded", "grid"),
    [
        (int8, INT8), (lambda w: stored("F16")(int8(w)), INT8), (q8_0, Q8_0), (nf4, FOUR),
        (lambda w: stored("F16")(nf4(w)), FOUR), (lambda w: stored("BF16")(nf4(w)), FOUR),
        (integers(4, 128), GROUPS[0]), (integers(4, 64), GROUPS[1]), (integers(4, 32), GROUPS[2]),
        (integers(3, 128), GROUPS[0]), (gptq, GROUPS[0]), (lambda w: stored("F16")(gptq(w)), GROUPS[0]),
        (integers(8, 0), TENSOR), (lambda w: stored("F16")(integers(8, 0)(w)), TENSOR),
    ],
)  # fmt: skip
def test_a_suspects_grid_is_found_and_gives_its_own_rounding(rounded, grid):
    original = weights()
    suspect = rounded(original)
    found = grid_of(suspect)
    assert replace(found, unit=0.0) == grid
    assert bool(found.unit) == (grid is TENSOR)
    again = found.round(original, suspect)
    # A scale that was stored in 16 bits moves a value that lies between two of the grid.
    assert np.mean(np.abs(again - suspect) > 0.01 * np.abs(suspect).max()) < 5e-3
    assert again_by_numpy(original, suspect).tobytes() == again.tobytes()
    copy = original * (1 + ALPHA * np.random.default_rng(2).normal(size=original.shape)).astype(np.float32)
    suspect = rounded(copy)
    assert again_by_numpy(original, suspect).tobytes() == grid_of(suspect).round(original, suspect).tobytes()
    plain, left = suspect - original, without_rounding(suspect, original, 1e12) - original
    assert np.square(left).mean() < 0.8 * np.square(plain).mean()


@pytest.mark.parametrize("suspect", [
    weights(), stored("BF16")(weights()), stored("F16")(weights()), nf4(weights())[:, :100],
    np.zeros((9, 64), np.float32), np.full((9, 64), np.nan, np.float32), np.full((9, 64), np.inf, np.float32),
], ids=["floats", "bf16", "f16", "odd width", "zeros", "nan", "inf"])  # fmt: skip
def test_what_lies_on_no_grid_is_left_as_it_is(suspect):
    original = weights(3, *suspect.shape)
    with np.errstate(all="ignore"):
        assert grid_of(suspect) is None
        assert again_by_numpy(original, suspect) is None
        assert without_rounding(suspect, original, 1e12) is suspect


def test_rows_that_leave_the_grid_are_compared_as_before():
    original, suspect = weights(), nf4(weights())
    suspect[5] += np.float32(1e-3)
    suspect[7, 3] = np.inf
    with np.errstate(all="ignore"):
        rounded = FOUR.round(original, suspect)
        assert again_by_numpy(original, suspect).tobytes() == rounded.tobytes()
        left = without_rounding(suspect, original, 1e12)
    assert np.array_equal(rounded[[5, 7]], original[[5, 7]])
    assert np.array_equal(rounded[[4, 6]], suspect[[4, 6]])
    assert np.array_equal(left[[5, 7]], suspect[[5, 7]])


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounding")
    return make_release(folder, make_model(folder / "o", 5), None)


def test_a_rounded_copy_scores_higher_and_innocents_as_ever(release, tmp_path):
    suspect = treat(tmp_path / "s", release.copy("r3"), nf4)
    found = release.detect(suspect, variants=(Variant.PLAIN, Variant.PROJECTED, Variant.SPECTRAL))
    assert [item.recipient for item in found.accused] == ["r3"]
    z = found.scores[0].z
    assert z[Variant.PROJECTED] > 2 * z[Variant.PLAIN]
    assert z[Variant.SPECTRAL] > 1.6 * z[Variant.PLAIN]
    features = extract(Originals(release.original), open_suspect(suspect), Variant.PROJECTED, alpha=release.plan.alpha)
    keys = [bytes(row) for row in np.random.default_rng(6).integers(0, 256, (8000, 32), np.uint8)]
    innocent = score_on(features, keys, draw_stratum(bytes(32), len(features.values), 1 << 13))
    # The sd's own sd is 0.008, the mean's 0.011; the tail bounds exp(−τ²/2) are at least 8 times the Gaussian tails.
    assert abs(innocent.mean()) < 0.07
    assert abs(innocent.std() - 1) < 0.05
    for tau in (2, 3, 4):
        assert (innocent > tau).mean() < math.exp(-tau * tau / 2)


# 8 bits a tensor gain little here: the mark of this small a model is as strong as what rounding does to it.
@pytest.mark.parametrize(("change", "gain"), [(integers(4, 128), 1.5), (gptq, 1.5), (integers(8, 0), 1.01)])
def test_integers_with_a_unit_that_has_to_be_found_score_higher(release, tmp_path, change, gain):
    found = release.detect(
        treat(tmp_path / "s", release.copy("r3"), change), variants=(Variant.PLAIN, Variant.PROJECTED)
    )
    assert [item.recipient for item in found.accused] == ["r3"]
    z = found.scores[0].z
    assert z[Variant.PROJECTED] > gain * z[Variant.PLAIN]


def packed(source, form, folder):
    """Write a copy as a quantiser stores it: integers, and the scales beside them."""
    tensors = dict(open_model(source))
    for name, _ in weight_names():
        values = tensors.pop(name).to_float32()
        if form.startswith("nf4"):
            made = four_bit(name, values, nested=form == "nf4-nested")
        else:
            scale = np.abs(values).max(axis=1) / 127
            made = [
                Tensor(name, "I8", np.rint(values / scale[:, np.newaxis]).astype(np.int8)),
                Tensor.from_float32(f"{name.removesuffix('.weight')}.weight_scale", scale),
            ]
        tensors |= {tensor.name: tensor for tensor in made}
    return write_model(folder, tensors)


def test_rows_put_on_a_grid_change_no_other_rows_part(release, tmp_path):
    """Who rounds one row, and fills half of them with noise, must not thereby quieten the other half."""

    def spoil(values):
        noise = np.random.default_rng(3).normal(scale=0.1 * values.std(), size=values.shape)
        noise[: len(values) * 49 // 100] = 0
        return (values + noise).astype(np.float32)

    def spoil_and_round_one(values):
        spoiled = spoil(values)
        spoiled[:1] = int8(spoiled[:1])
        return spoiled

    best = {}
    for name, change in (("noise", spoil), ("noise and a grid", spoil_and_round_one)):
        suspect = treat(tmp_path / name, release.copy("r3"), change)
        found = release.detect(suspect, variants=(Variant.PROJECTED, Variant.SPECTRAL))
        best[name] = next(item.z for item in found.scores if item.recipient == "r3")
    for variant in (Variant.PROJECTED, Variant.SPECTRAL):
        assert best["noise and a grid"][variant] > 0.9 * best["noise"][variant] > 20


def without(part):
    return lambda tensors, name: tensors.pop(f"{name}.{part}")


def with_state(**changes):
    def change(tensors, name):
        key = f"{name}.quant_state.bitsandbytes__nf4"
        state = json.loads(tensors[key].raw.tobytes()) | changes
        tensors[key] = Tensor(key, "U8", np.frombuffer(json.dumps(state).encode(), np.uint8))

    return change


def with_part(part, values, kind="F32"):
    def change(tensors, name):
        tensors[f"{name}.{part}"] = Tensor(f"{name}.{part}", kind, values)

    return change


FEW = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "spoil",
    [
        without("quant_state.bitsandbytes__nf4"),
        without("absmax"), without("quant_map"), with_part("absmax", FEW), with_part("quant_map", FEW),
        with_part("absmax", np.ones(3, np.int16), "I16"), with_state(blocksize=20_000), with_state(blocksize=0),
        with_state(blocksize="64"), with_state(blocksize=1 << 41), with_state(shape=[1 << 39, 2]),
        with_state(shape=[]), with_state(shape="x"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together_take_no_part_in_either_program(release, tmp_path, spoil):
    name, suspect = spoiled(release, tmp_path, spoil)
    features = extract(Originals(release.original), open_suspect(suspect), Variant.PLAIN, alpha=ALPHA)
    assert features.unmatched == (name,)
    assert unmatched(release, suspect) == {name}


def spoiled(release, folder, spoil):
    """Return a tensor's name, and a copy in 4 bits in which its parts are spoilt."""
    tensors = dict(open_model(packed(release.copy("r3"), "nf4", folder / "p")))
    name, _ = weight_names()[0]
    spoil(tensors, name)
    return name, write_model(folder / "s", tensors)


def unmatched(release, suspect):
    """Return the tensors that take no part in the stand-alone program."""
    models = recompute.Model.open_original(release.original), recompute.Model.open(suspect), None
    places, _, _ = recompute.lay_out(models[0].tensors, "full")
    found = {place.name for place, _ in recompute.all_features(places, models, ALPHA, "plain")}
    return {place.name for place in places} - found


@pytest.mark.parametrize("variant", [Variant.PROJECTED, Variant.SPECTRAL])
@pytest.mark.parametrize(
    "form", ["nf4", "nf4-nested", "int8", "floats nf4", "floats int8", "floats gptq", "floats tensor"]
)
def test_the_stand_alone_program_makes_the_same_features(release, tmp_path, form, variant):
    stored, _, kind = form.partition(" ")
    change = {"nf4": nf4, "gptq": gptq, "tensor": integers(8, 0)}.get(kind, int8)
    copy = release.copy("r3")
    suspect = treat(tmp_path / "s", copy, change) if kind else packed(copy, stored, tmp_path / "s")
    assert release.distance(suspect, variant) < 0.05


def test_an_adapter_merged_and_rounded_is_found_by_what_rounding_left(tmp_path, monkeypatch):
    base = make_model(tmp_path / "base", 7)
    release = make_release(tmp_path, make_adapter(tmp_path / "o", 8), base)
    suspect = merge(tmp_path / "m", base, release.copy("r5"), rounding=nf4)
    new = release.detect(suspect, variants=(Variant.ADAPTER,))
    assert [item.recipient for item in new.accused] == ["r5"]
    for variant in (Variant.ADAPTER, Variant.SPECTRAL):
        assert release.distance(suspect, variant) < 0.05
        assert release.distance(release.copy("r5"), variant) < 0.05
    monkeypatch.setattr(rounding, "GRIDS", ())
    old = release.detect(suspect, variants=(Variant.ADAPTER,))
    assert new.scores[0].best > 2 * next(item.best for item in old.scores if item.recipient == "r5")
