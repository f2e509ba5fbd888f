"""Cases about whole models: what their packs show is computed again, by the pack's own program wherever it can."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from trace_world import World

from stanch.trace import Inconclusive, NothingFound, Reason, load_examination, recompute_features
from stanch.trace.evidence import PackInvalid
from stanch.trace.verifier import recompute
from stanch.weights import Tensor, open_adapter, open_model, write_safetensors

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


def test_a_pack_shows_where_the_accused_score_highest_and_that_is_computed_again(models, tmp_path):
    suspect = write_model(tmp_path / "s", reordered(models.copy("globex")))
    examined = models.examine(suspect)
    (accused,) = examined.decision.recipients
    assert (accused.recipient, str(accused.variant)) == ("globex", "aligned")
    made = models.pack(examined, tmp_path / "pack.zip")
    said = recompute_features(made.path, suspect=examined.case.suspect_folder, original=models.release.original)
    assert "of variant aligned" in said[-1]
    assert "made by stanch" not in said[-1]


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


def rotated(source):
    """Yield the tensors of a model whose residual stream was rotated, which it does not notice."""
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    for name, tensor in open_model(source).items():
        values = tensor.to_float32()
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        yield Tensor.from_float32(name, turn.T @ values if writes else values @ turn)


def run_alone(made, folder, case, original):
    """Run the pack's own program, taken out of the pack, with nothing of stanch in reach."""
    with zipfile.ZipFile(made) as archive:
        for name in archive.namelist():
            if name.startswith("verifier/"):
                archive.extract(name, folder)
    command = [sys.executable, "-I", folder / "verifier" / "recompute.py", made, "--original", original]
    return subprocess.run([*command, "--suspect", case.suspect_folder], capture_output=True, text=True, check=False)


def test_re_alignment_is_computed_again_by_the_program_in_the_pack(models, tmp_path):
    suspect = write_model(tmp_path / "s", rotated(models.copy("globex")))
    examined = models.examine(suspect)
    made = models.pack(examined, tmp_path / "pack.zip").path
    assert str(recompute.read_shown(made).variant) == "aligned"
    run = run_alone(made, tmp_path, examined.case, models.release.original)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "of variant aligned, equal but for" in run.stdout


EXPERTS = "model.layers.0.mlp.experts"


def make_experts(folder, seed):
    generator = np.random.default_rng(seed)
    shapes = {"gate_proj": (UNITS, WIDTH), "up_proj": (UNITS, WIDTH), "down_proj": (WIDTH, UNITS)}
    names = {f"{EXPERTS}.{n}.{name}.weight": shape for n in range(3) for name, shape in shapes.items()}
    drawn = {name: 0.05 * generator.normal(size=shape).astype(np.float32) for name, shape in names.items()}
    return write_model(folder, [Tensor.from_float32(name, values) for name, values in drawn.items()])


def stacked(source):
    """Yield the experts of a model in two tensors."""
    values = {name: tensor.to_float32() for name, tensor in open_model(source).items()}
    gate, up, down = (
        np.stack([values[f"{EXPERTS}.{n}.{part}_proj.weight"] for n in range(3)]) for part in ("gate", "up", "down")
    )
    yield Tensor.from_float32(f"{EXPERTS}.gate_up_proj", np.concatenate([gate, up], axis=1))
    yield Tensor.from_float32(f"{EXPERTS}.down_proj", down)


def test_what_the_program_in_the_pack_does_not_compute_is_named_and_computed_by_stanch(tmp_path):
    experts = World.create(tmp_path / "w", make_experts)
    examined = experts.examine(write_model(tmp_path / "s", stacked(experts.copy("globex"))))
    made = experts.pack(examined, tmp_path / "pack.zip").path
    folder, original = examined.case.suspect_folder, experts.release.original
    run = run_alone(made, tmp_path, examined.case, original)
    said = run.stdout.splitlines()
    assert run.returncode == 5
    assert [line.split()[0] for line in said] == ["suspect", "original", "NOT"]
    assert "features: original and suspect arrange the experts" in said[-1]
    *_, last = recompute_features(made, suspect=folder, original=original)
    assert last.startswith("features    ok")
    assert "made by stanch" in last
    shown = recompute.read_shown(made)
    with pytest.raises(PackInvalid, match="features"):
        raise_if_moved(made, shown, folder, original)


def raise_if_moved(made, shown, folder, original):
    """Compute again what a pack would show whose features were somebody else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recompute, "read_shown", lambda _path: shown._replace(values=shown.values[::-1]))
        recompute_features(made, suspect=folder, original=original)


def test_a_whole_model_and_an_adapter_without_its_base_end_in_a_verdict(world, tmp_path):
    generator = np.random.default_rng(8)
    merged = [
        Tensor.from_float32(
            f"{name}.weight", module.delta() + 0.05 * generator.normal(size=(64, 48)).astype(np.float32), "BF16"
        )
        for name, module in open_adapter(world.copy("globex")).modules.items()
    ]
    examined = world.examine(write_model(tmp_path / "s", merged))
    decision = load_examination(examined.case) and examined.decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.BASE_MISSING
    assert "open a case about it" in decision.detail
    assert examined.examination.detection.needs_base
