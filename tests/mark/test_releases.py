"""Several releases of one model: their keys tell nothing of each other's, and copies of all of them average alike."""

import numpy as np
import pytest
from mark_models import SHAPES, combine, make_model, make_release, write_model

from stanch.mark import Variant, expected_score
from stanch.weights import Tensor, open_model

HELD = ("r3", "r7")


@pytest.fixture(scope="module")
def releases(tmp_path_factory, base):
    """Two releases, the second with its upper half tuned on; the lower holds the same weights."""
    folder = tmp_path_factory.mktemp("releases")
    generator = np.random.default_rng(12)
    tensors = dict(open_model(base))
    for name in [name for name in tensors if name.startswith(("model.layers.3", "model.layers.4", "model.layers.5"))]:
        change = 4e-4 * generator.normal(size=tensors[name].shape).astype(np.float32)
        tensors[name] = Tensor.from_float32(name, tensors[name].to_float32() + change, "BF16")
    second = write_model(folder / "second", tensors)
    made = []
    for number, original in enumerate((make_model(folder / "first", 1), second)):
        (folder / str(number)).mkdir()
        made.append(make_release(folder / str(number), original, None))
    return made


def test_who_holds_two_releases_averages_two_copies_alone(releases, tmp_path):
    """As many copies take part as there are recipients and releases, and each is as hard to find as among so many."""
    copies = [release.copy(name) for release in releases for name in HELD]
    suspect = combine(tmp_path / "m", copies, lambda stack: stack.mean(axis=0))
    same = 3 * sum(rows * columns for rows, columns in SHAPES.values())
    for release in releases:
        found = release.detect(suspect)
        assert sorted(score.recipient for score in found.accused) == list(HELD)
        assert found.decoys_plausible
        assert found.next_z < 6
        plain = [score.z[Variant.PLAIN] for score in found.accused]
        # The lower layers alone give what four colluders of one release would get there; the upper add to it, muted.
        floor = expected_score(same, release.plan.alpha, 0.002, copies=len(copies))
        assert floor * 0.9 < min(plain)
        assert max(plain) < 1.2 * expected_score(release.plan.layout.coordinates, release.plan.alpha, 0, copies=4)


def test_a_copy_of_one_release_names_nobody_of_another(releases):
    """Recipients have the same names there, and own keys; the releases' own marks differ too."""
    one, other = releases
    assert not {key.stream for key in one.keys.copies} & {key.stream for key in other.keys.copies}
    found = other.detect(one.copy("r3"))
    assert found.accused == ()
    assert found.next_z < 6
    assert found.release_z < 6
