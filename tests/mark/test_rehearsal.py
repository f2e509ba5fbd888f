import numpy as np
import pytest
from mark_models import combine, int8, nf4, treat

from stanch.errors import InvalidInput
from stanch.mark import TREATMENTS, Treatment, Variant, expected_score, rehearse

ROWS = np.random.default_rng(5).normal(size=(32, 256)).astype(np.float32)


@pytest.mark.parametrize("name", TREATMENTS)
def test_treatments_do_not_depend_on_blocks(name):
    change = TREATMENTS[name]
    whole = change(ROWS)
    assert np.array_equal(whole, np.concatenate([change(ROWS[:5]), change(ROWS[5:])]))
    assert whole.dtype == np.float32
    assert np.isfinite(change(np.zeros_like(ROWS))).all()


@pytest.mark.parametrize(("name", "noise"), [("fp16", 2e-4), ("bf16", 2e-3), ("int8", 8e-3), ("nf4", 0.0913)])
def test_treatments_add_the_noise_they_are_known_for(name, noise):
    error = TREATMENTS[name](ROWS) - ROWS
    assert np.sqrt(np.mean(error * error)) == pytest.approx(noise, rel=0.25)


def test_pruning_keeps_the_largest_of_each_row():
    kept = TREATMENTS["prune80"](ROWS)
    assert np.all(np.count_nonzero(kept, axis=1) == 52)
    assert np.abs(kept[kept != 0]).min() > np.median(np.abs(ROWS))


def test_names_of_treatments_are_read_strictly():
    found = Treatment.parse("average:4+prune50+nf4")
    assert (found.copies, len(found.steps)) == (4, 2)
    assert Treatment.parse("average:64").steps == ()
    for wrong in ("", "average:0", "average:65", "average:²", "average:", "nf4+average:2", "nf4+", "NF4"):
        with pytest.raises(InvalidInput):
            Treatment.parse(wrong)


def test_a_rehearsal_scores_as_real_copies_do(full, tmp_path):
    treatments = [Treatment.parse(name) for name in ("int8", "nf4", "average:3+nf4")]
    random = np.random.default_rng(6)
    found = rehearse(full.original, full.plan, treatments, 8.0, rng=random.bytes)
    three = combine(tmp_path / "three", [full.copy(f"r{number}") for number in range(3)], lambda stack: stack.mean(0))
    suspects = [
        treat(tmp_path / "i", full.copy("r0"), int8), treat(tmp_path / "n", full.copy("r0"), nf4),
        treat(tmp_path / "t", three, nf4),
    ]  # fmt: skip
    for one, suspect, count in zip(found, suspects, (1, 1, 3), strict=True):
        real = full.detect(suspect, variants=(Variant.PLAIN,))
        z = min(score.best for score in real.scores[:count])
        # Two draws of keys: each score has a standard deviation of about 1.
        assert one.least_z == pytest.approx(z, rel=0.05, abs=6)
        assert one.passed == (one.least_z >= 12)


def test_an_adapter_can_be_rehearsed(lora):
    (found,) = rehearse(lora.original, lora.plan, [Treatment.parse("int8")], 8.0)
    assert found.passed
    assert found.least_z > expected_score(lora.plan.layout.coordinates, lora.plan.alpha, 0.02)
    assert set(found.to_json()) == {"treatment", "copies", "least_z", "release_z", "needed", "passed"}
