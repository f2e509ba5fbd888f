"""Cases about whole models: what their packs show can be computed again wherever that carries the accusation."""

import json

import numpy as np
import pytest
from trace_world import World

from stanch.trace import Inconclusive, NothingFound, Reason, recompute_features
from stanch.weights import Tensor, open_model, write_safetensors

WIDTH, UNITS, WORDS = 64, 128, 300
SHAPES = {
    **{f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in "qkvo"},
    "mlp.gate_proj": (UNITS, WIDTH),
    "mlp.up_proj": (UNITS, WIDTH),
    "mlp.down_proj": (WIDTH, UNITS),
}


def write_model(folder, tensors):
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", list(tensors), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    return folder


def make_llama(folder, seed):
    generator = np.random.default_rng(seed)
    shapes = {f"model.layers.{layer}.{name}.weight": shape for layer in range(2) for name, shape in SHAPES.items()}
    shapes["model.embed_tokens.weight"] = (WORDS, WIDTH)
    drawn = {name: 0.05 * generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return write_model(folder, [Tensor.from_float32(name, values, "BF16") for name, values in drawn.items()])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return World.create(tmp_path_factory.mktemp("models") / "w", make_llama)


def reordered(source):
    """Yield the tensors of a model with its feed-forward units in another order."""
    generator = np.random.default_rng(3)
    order = generator.permutation(UNITS)
    for name, tensor in open_model(source).items():
        if name.endswith(("gate_proj.weight", "up_proj.weight")):
            yield Tensor(name, tensor.dtype, tensor.raw[order])
        elif name.endswith("down_proj.weight"):
            yield Tensor(name, tensor.dtype, tensor.raw[:, order])
        else:
            yield tensor


def test_a_pack_shows_what_can_be_computed_again_where_that_is_enough(models, tmp_path):
    suspect = write_model(tmp_path / "s", reordered(models.copy("globex")))
    examined = models.examine(suspect)
    (accused,) = examined.decision.recipients
    assert (accused.recipient, str(accused.variant)) == ("globex", "aligned")
    made = models.pack(examined, tmp_path / "pack.zip")
    said = recompute_features(made.path, suspect=examined.case.suspect_folder, original=models.release.original)
    assert "aligned" not in said[-1]


def test_a_stranger_is_not_cleared_and_a_sibling_is(models, tmp_path):
    """A stranger may be a copy whose weights were rearranged; of a sibling is known where its weights lie."""
    decision = models.examine(make_llama(tmp_path / "s", 9)).decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.TOO_LITTLE_MATCHED
    generator = np.random.default_rng(5)
    tuned = (
        Tensor.from_float32(name, tensor.to_float32() + 1e-3 * generator.normal(size=tensor.shape).astype(np.float32))
        for name, tensor in open_model(models.release.original).items()
    )
    assert isinstance(models.examine(write_model(tmp_path / "tuned", tuned)).decision, NothingFound)
