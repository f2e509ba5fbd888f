"""A thief adds what no loader reads: it neither hides a copy, nor ends an examination, nor passes for nothing found."""

import json
import shutil
import struct

import numpy as np
import pytest
from trace_world import ADAPTER_FILE, LATER, PRINCIPAL, make_adapter

from stanch.mark import open_suspect
from stanch.trace import Inconclusive, Intake, Reason, open_case, recompute_features
from stanch.trace.verifier import recompute
from stanch.weights import Tensor, open_adapter, write_safetensors

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"
X, Y = (Tensor.from_float32(f"model.layers.{n}.w.weight", np.full((8, 8), n + 1, np.float32)) for n in range(2))


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    """The models of these tests are smaller than what else lies beside a model."""
    monkeypatch.setattr("stanch.mark.suspect_files._LEAST_BYTES", 0)


def write(path, *tensors):
    write_safetensors(path, list(tensors), metadata={"format": "pt"})


def shuffled(tensors, rename):
    """Return twins of the same sizes and other values, under other names."""
    generator, made = np.random.default_rng(7), []
    for name, tensor in tensors.items():
        values = tensor.to_float32()
        made.append(Tensor.from_float32(rename(name), generator.permutation(values.ravel()).reshape(values.shape)))
    return made


def beside(world, folder, files):
    """Write globex's copy with more files beside it."""
    shutil.copytree(world.copy("globex"), folder)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def behind(name):
    return name.replace("base_model.model.", "base_model.model.transformer.", 1)


def test_twins_behind_one_more_prefix_hide_nothing(world, tmp_path):
    own = open_adapter(world.copy("globex")).tensors
    suspect = beside(world, tmp_path / "s", {})
    write(suspect / ADAPTER_FILE, *own.values(), *shuffled(own, behind))
    examined = world.examine(suspect)
    assert [item.recipient for item in examined.decision.recipients] == ["globex"]
    made = world.pack(examined, tmp_path / "pack.zip")
    assert recompute_features(made.path, suspect=examined.case.suspect_folder, original=world.release.original)
    assert len(open_suspect(suspect).doubtful) == len(own)


CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "alpha_pattern": {".*q_proj": 16}},
        {**CONFIG, "use_dora": True},
        {**CONFIG, "peft_type": "OTHER"},
        {**CONFIG, "lora_alpha": 0},
        {**CONFIG, "lora_alpha": 1e-200},
        {"peft_type": "LORA", "lora_alpha": None},
        None,
    ],
)
def test_no_line_of_a_configuration_hides_turned_factors(world, tmp_path, config):
    """Without a configuration the file is called as a model's is."""
    generator, tensors = np.random.default_rng(7), []
    for module in open_adapter(world.copy("globex")).modules.values():
        turn = np.linalg.qr(generator.normal(size=(module.rank, module.rank)))[0].astype(np.float32)
        tensors += [
            Tensor.from_float32(module.a.name, turn @ module.a.to_float32()),
            Tensor.from_float32(module.b.name, module.b.to_float32() @ turn.T),
        ]
    misfit = Tensor.from_float32("base_model.model.x.lora_A.weight", np.ones((2, 3), np.float32))
    suspect = tmp_path / "s"
    suspect.mkdir()
    write(suspect / (MODEL if config is None else ADAPTER_FILE), *tensors, misfit)
    if config is not None:
        (suspect / "adapter_config.json").write_text(json.dumps(config))
    examined = world.examine(suspect)
    assert [item.recipient for item in examined.decision.recipients] == ["globex"]
    made = world.pack(examined, tmp_path / "pack.zip")
    assert recompute_features(made.path, suspect=examined.case.suspect_folder, original=world.release.original)


def test_names_of_which_none_is_the_originals_own_are_not_nothing(world, tmp_path):
    own = open_adapter(world.copy("globex")).tensors
    suspect = beside(world, tmp_path / "s", {})
    renamed = [Tensor.from_float32(behind(name), tensor.to_float32()) for name, tensor in own.items()]
    write(suspect / ADAPTER_FILE, *shuffled(own, lambda name: name), *renamed)
    decision = world.examine(suspect).decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.WEIGHTS_UNREAD
    assert "layers.0." in decision.detail


def test_a_model_beside_an_adapter_that_does_nothing_is_not_nothing(world, tmp_path):
    own = open_adapter(world.copy("globex"))
    suspect = beside(world, tmp_path / "s", {})
    generator = np.random.default_rng(7)
    factors = [(n, generator.normal(size=t.shape) * ("lora_A" in n)) for n, t in own.tensors.items()]
    write(suspect / ADAPTER_FILE, *(Tensor.from_float32(n, v.astype(np.float32)) for n, v in factors))
    merged = [Tensor.from_float32(f"{m.module}.weight", m.delta()) for m in own.modules.values()]
    write(suspect / MODEL, *merged)
    decision = world.examine(suspect).decision
    assert isinstance(decision, Inconclusive)
    assert decision.reason is Reason.WEIGHTS_UNREAD
    assert MODEL in decision.detail
    broken = beside(world, tmp_path / "broken", {ADAPTER_FILE: b"\xff" * 64})
    write(broken / MODEL, X)
    assert open_suspect(broken).weights.keys() == {X.name}
    assert open_suspect(broken).unread == (ADAPTER_FILE,)


@pytest.mark.parametrize(
    "files",
    [
        {"sub/adapter_model.safetensors": None},
        {"sub/model.safetensors": b"\xff" * 64},
        {"other.safetensors": b"\xff" * 64},
        {"pytorch_model.bin": b"PK"},
    ],
)
def test_honest_packs_of_such_folders_are_computed_again(world, tmp_path, files):
    data = (world.copy("globex") / ADAPTER_FILE).read_bytes()
    suspect = beside(world, tmp_path / "s", {name: found or data for name, found in files.items()})
    examined = world.examine(suspect)
    made = world.pack(examined, tmp_path / "pack.zip")
    assert recompute_features(made.path, suspect=examined.case.suspect_folder, original=world.release.original)
    assert examined.examination.detection.unread == tuple(files)
    innocent = make_adapter(tmp_path / "innocent", 77)
    for name in files:
        (innocent / name).parent.mkdir(exist_ok=True)
        (innocent / name).write_bytes(b"x")
    assert world.examine(innocent).decision.reason is Reason.WEIGHTS_UNREAD


def test_one_tensor_in_two_files_ends_no_examination(tmp_path):
    write(tmp_path / "a.safetensors", X)
    write(tmp_path / "b.safetensors", Y, Tensor.from_float32(X.name, Y.to_float32()))
    found = open_suspect(tmp_path)
    assert found.weights.keys() == {X.name, Y.name}
    assert np.array_equal(found.rows(X.name, (8, 8)), X.to_float32())
    assert found.unread == (f"{X.name!r} stands in two files",)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {X.name: "b.safetensors", Y.name: "b.safetensors"}}))
    found = open_suspect(tmp_path)
    assert np.array_equal(found.rows(X.name, (8, 8)), Y.to_float32())
    assert found.unread == ("a.safetensors",)
    for broken in ("{", "[]", '{"weight_map":3}', '{"weight_map":{"x":"absent.safetensors"}}'):
        (tmp_path / INDEX).write_text(broken)
        assert len(open_suspect(tmp_path).weights) == 2
    write(tmp_path / MODEL, X)
    assert open_suspect(tmp_path).unread == ("a.safetensors", "b.safetensors")


def test_a_gguf_file_is_taken_into_custody_and_the_program_says_what_of_it_it_does_not_read(tmp_path):
    suspect = tmp_path / "s"
    suspect.mkdir()
    place = struct.pack("<Q1sIQIQ", 1, b"a", 1, 32, 99, 0)  # one row of 32 in the format 99
    (suspect / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + place + bytes(64))
    case = open_case(tmp_path / "case", suspect, Intake("case-1", "a file", LATER, "somebody", PRINCIPAL), opened=LATER)
    assert list(case.files) == ["model.gguf"]
    with pytest.raises(recompute.OtherVariant, match="a is in a form of GGUF"):
        recompute.Model.open(case.suspect_folder)


def test_what_is_too_small_to_hold_a_copy_is_not_unread(tmp_path, monkeypatch):
    monkeypatch.undo()
    write(tmp_path / MODEL, X)
    (tmp_path / "training_args.bin").write_bytes(bytes((1 << 16) - 1))
    assert open_suspect(tmp_path).unread == ()
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(1 << 16))
    assert open_suspect(tmp_path).unread == ("pytorch_model.bin",)
