"""Suspects as they come: shards, other names, GGUF, and what quantisers write."""

import json
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mark_models import LAYERS, f32, four_bit, make_release, merge, u8, weight_names, write_model

from stanch.errors import InvalidInput, MissingExtraError
from stanch.mark import Variant, open_suspect
from stanch.mark.gguf import OTHER_ORDER
from stanch.mark.quantised import read_weights
from stanch.trace.verifier import gguf_files
from stanch.trace.verifier.models import OtherVariant
from stanch.weights import Tensor, float8_to_float32, open_adapter, open_model, write_safetensors

HEADS = 4


def i32(name, values):
    return Tensor(name, "I32", np.asarray(values, np.int32))


def accused(release, suspect):
    variants = (Variant.PLAIN,) if release.plan.kind == "full" else (Variant.ADAPTER,)
    found = release.detect(suspect, variants=variants)
    assert found.decoys_plausible
    return [score.recipient for score in found.accused], found.matched


def test_shards_are_one_model(full, tmp_path):
    tensors = list(open_model(full.copy("r3")).values())
    names = {}
    for number, part in enumerate((tensors[::2], tensors[1::2])):
        write_safetensors(tmp_path / f"part-{number}.safetensors", part)
        names |= {tensor.name: f"part-{number}.safetensors" for tensor in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert accused(full, tmp_path) == (["r3"], 1)


def test_meaningless_names_are_seen_through(full, lora, tmp_path):
    for number, (release, source) in enumerate(
        ((full, full.copy("r3")), (lora, merge(tmp_path / "merged", lora.base, lora.copy("r3"))))
    ):
        tensors = [Tensor(f"t{n}", tensor.dtype, tensor.raw) for n, tensor in enumerate(open_model(source).values())]
        suspect = write_model(tmp_path / f"m{number}", {tensor.name: tensor for tensor in tensors[::-1]})
        assert release.distance(suspect, Variant.PLAIN if release is full else Variant.ADAPTER) < 0.05
        assert accused(release, suspect) == (["r3"], 1)


def test_a_name_that_fits_is_preferred_and_strangers_are_not_recognised(full, tmp_path):
    original = open_model(full.original)
    name = weight_names()[0][0]
    tensors = dict(open_model(full.copy("r3")))
    shape = tensors.pop(name).shape
    noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    tensors["other"] = f32("other", noise)
    tensors["clean"] = Tensor("clean", original[name].dtype, original[name].raw[:-1])
    found = full.detect(write_model(tmp_path / "m", tensors))
    assert found.unmatched == (name,)


def test_of_names_that_differ_in_their_prefixes_the_content_chooses(full, tmp_path):
    tensors, generator = {}, np.random.default_rng(3)
    for name, tensor in open_model(full.copy("r3")).items():
        plain, values = name.removeprefix("model."), tensor.to_float32()
        twin = generator.permutation(values.ravel()).reshape(values.shape)
        tensors |= {
            f"bert.{plain}": f32(f"bert.{plain}", twin),
            f"transformer.{plain}": f32(f"transformer.{plain}", values),
        }
    suspect = write_model(tmp_path / "m", tensors)
    assert accused(full, suspect) == (["r3"], 1)
    assert len(open_suspect(suspect).doubtful) == len(tensors) // 2


# --- what quantisers write


def by_groups(values, bits, group):
    """Return the integers (outputs × inputs), and scales and zero points (outputs × groups)."""
    split = np.stack([values[:, group == g] for g in range(group.max() + 1)], axis=1)
    low, high = split.min(axis=2), split.max(axis=2)
    scales = ((high - low) / (2**bits - 1)).astype(np.float16).astype(np.float32)
    zeros = np.clip(np.rint(-low / scales), 1, 2**bits - 1)
    codes = np.clip(np.rint(values / scales[:, group] + zeros[:, group]), 0, 2**bits - 1)
    return codes.astype(np.uint32), scales, zeros.astype(np.uint32)


def pack(integers, bits, axis):
    """Pack integers along an axis, bit after bit, the lowest first."""
    lines = np.moveaxis(integers, axis, -1)
    stream = (lines[..., np.newaxis] >> np.arange(bits, dtype=np.uint32) & 1).astype(np.uint8)
    packed = np.packbits(stream.reshape(len(lines), -1), axis=1, bitorder="little")
    return np.moveaxis(packed.view("<i4"), 1, axis)


def gptq(name, values, *, version=1, order=None, bits=4):
    """Return the tensors that GPTQ writes for one matrix, groups of 64 inputs."""
    stem = name.removesuffix("weight")
    group = np.arange(values.shape[1]) // 64 if order is None else order
    codes, scales, zeros = by_groups(values, bits, group)
    return [
        i32(f"{stem}qweight", pack(codes.T, bits, 0)),
        i32(f"{stem}qzeros", pack(zeros.T - (version == 1), bits, 1)),
        Tensor.from_float32(f"{stem}scales", np.ascontiguousarray(scales.T), "F16"),
        i32(f"{stem}g_idx", group),
    ]


def awq(name, values):
    """Return the tensors that AutoAWQ writes for one matrix, groups of 64 inputs."""
    stem = name.removesuffix("weight")
    codes, scales, zeros = by_groups(values, 4, np.arange(values.shape[1]) // 64)

    def interleave(integers):
        return integers.reshape(len(integers), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(integers.shape)

    return [
        i32(f"{stem}qweight", pack(interleave(codes.T), 4, 1)),
        i32(f"{stem}qzeros", pack(interleave(zeros.T), 4, 1)),
        Tensor.from_float32(f"{stem}scales", np.ascontiguousarray(scales.T), "F16"),
    ]


def compressed(name, values, *, symmetric):
    """Return the tensors that compressed-tensors writes for one matrix in 4 bits, groups of 64 inputs."""
    codes, scales, zeros = by_groups(values, 4, np.arange(values.shape[1]) // 64)
    if symmetric:
        split = values.reshape(len(values), -1, 64)
        scales = np.abs(split).max(axis=2) / 7
        codes = (np.rint(split / scales[:, :, None]) + 8).astype(np.uint32).reshape(values.shape)
    made = [
        i32(f"{name}_packed", pack(codes, 4, 1)),
        Tensor.from_float32(f"{name}_scale", scales, "F16"),
        Tensor(f"{name}_shape", "I64", np.array(values.shape, np.int64)),
    ]
    return made if symmetric else [*made, i32(f"{name}_zero_point", pack(zeros, 4, 0))]


def float8(name, values, scales, *, dtype="F8_E4M3"):
    """Return a matrix in 8-bit floats, each value the nearest one times its scale; blocks of 128 have one each."""
    known = float8_to_float32(np.arange(256, dtype=np.uint8), dtype)
    order = np.argsort(known)[: np.isfinite(known).sum()]
    blocks = scales.ndim == 2 and len(scales) != len(values)
    factors = np.kron(scales, np.ones((128, 128)))[: len(values), : values.shape[1]] if blocks else scales
    codes = order[np.searchsorted((known[order][1:] + known[order][:-1]) / 2, values / factors)]
    scale = f"{name}_scale_inv" if blocks else f"{name}_scale"
    return [Tensor(name, dtype, codes.astype(np.uint8)), f32(scale, scales)]


def block_scales(values):
    shape = -(-len(values) // 128), -(-values.shape[1] // 128)
    return 1e-3 * (1 + np.arange(shape[0] * shape[1], dtype=np.float32)).reshape(shape)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def fp4(values, block, scale):
    """Return bytes and scaled codes of 4-bit floats; ``scale`` makes the stored scales of the ideal ones."""
    blocks = values.reshape(len(values), -1, block)
    stored, factors = scale(np.abs(blocks).max(axis=2) / 6)
    shown = blocks / factors[..., np.newaxis]
    codes = np.abs(np.abs(shown)[..., np.newaxis] - E2M1).argmin(axis=-1) + 8 * (shown < 0)
    codes = codes.reshape(values.shape).astype(np.uint8)
    return codes[:, ::2] | codes[:, 1::2] << 4, stored


def e4m3(whole):
    """Return what stores scales in E4M3, once they were multiplied with ``whole``."""
    known = float8_to_float32(np.arange(127, dtype=np.uint8), "F8_E4M3")

    def scale(ideal):
        codes = np.abs(known - (ideal * whole)[..., np.newaxis]).argmin(axis=-1).astype(np.uint8)
        return codes, known[codes] / whole

    return scale


def e8m0(ideal):
    powers = np.ceil(np.log2(ideal)).astype(int)
    return (powers + 127).astype(np.uint8), np.exp2(powers).astype(np.float32)


def nvfp4(name, values, *, modelopt=False):
    """Return the tensors that compressed-tensors, or ModelOpt, writes for one matrix in NVFP4."""
    packed, scales = fp4(values, 16, e4m3(1000.0))
    beside = f32(f"{name}_scale_2", 1 / 1000.0) if modelopt else f32(f"{name}_global_scale", [1000.0])
    return [u8(name if modelopt else f"{name}_packed", packed), Tensor(f"{name}_scale", "F8_E4M3", scales), beside]


def mxfp4(name, values):
    """Return the tensors that compressed-tensors writes for one matrix in MXFP4."""
    packed, scales = fp4(values, 32, e8m0)
    return [u8(f"{name}_packed", packed), u8(f"{name}_scale", scales)]


BY_INPUTS = np.random.default_rng(5)
FORMS = {
    "nf4": lambda name, values: four_bit(name, values, nested=False),
    "nf4-nested": lambda name, values: four_bit(name, values, nested=True),
    "gptq": gptq,
    "gptq-order": lambda name, values: gptq(
        name, values, order=BY_INPUTS.permutation(np.arange(values.shape[1]) // 64)
    ),
    "gptq-v2": lambda name, values: gptq(name, values, version=2),
    "gptq-3": lambda name, values: gptq(name, values, bits=3),
    "gptq-8": lambda name, values: gptq(name, values, bits=8),
    "awq": awq,
    "compressed": lambda name, values: compressed(name, values, symmetric=True),
    "compressed-zeros": lambda name, values: compressed(name, values, symmetric=False),
    "fp8": lambda name, values: float8(name, values, np.abs(values).max() / 448),
    "fp8-rows": lambda name, values: float8(name, values, np.abs(values).max(axis=1, keepdims=True) / 448),
    "fp8-blocks": lambda name, values: float8(name, values, block_scales(values)),
    "nvfp4": nvfp4,
    "nvfp4-modelopt": lambda name, values: nvfp4(name, values, modelopt=True),
    "mxfp4": mxfp4,
    "fp8-e5m2": lambda name, values: float8(name, values, np.full(1, 1e-3), dtype="F8_E5M2"),
}


@pytest.mark.parametrize("form", FORMS)
def test_quantised_files_are_read(full, tmp_path, form):
    tensors = dict(open_model(full.copy("r3")))
    for name, _ in weight_names():
        tensors |= {tensor.name: tensor for tensor in FORMS[form](name, tensors.pop(name).to_float32())}
    suspect = write_model(tmp_path / "m", tensors)
    version = "gptq_v2" if form == "gptq-v2" else "gptq"
    (suspect / "config.json").write_text(json.dumps({"quantization_config": {"checkpoint_format": version}}))
    for name, shape in weight_names()[1:3]:
        opened = open_suspect(suspect)
        close = opened.rows(name, shape, slice(3, 20))
        assert np.array_equal(opened.rows(name, shape)[3:20], close)
        assert np.array_equal(opened.rows(name, shape, np.array([19, 3])), close[[16, 0]])
        truth = open_model(full.copy("r3"))[name].to_float32()[3:20]
        error = np.sqrt(np.mean((close - truth) ** 2) / np.mean(truth**2))
        assert error < {"gptq-3": 0.27, "mxfp4": 0.15}.get(form, 0.13)
    assert full.distance(suspect, Variant.PLAIN) < 0.05
    assert accused(full, suspect) == (["r3"], 1)


def change_of(index, **parts):
    def change(tensors):
        tensor = tensors[index]
        tensors[index] = Tensor(parts.get("name", tensor.name), parts.get("dtype", tensor.dtype),
                                parts.get("raw", lambda raw: raw)(tensor.raw))  # fmt: skip

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_of(0, raw=lambda raw: raw[:-1]),
        change_of(1, raw=lambda raw: raw[:-1]),
        change_of(2, raw=lambda raw: raw[:-1]),
        change_of(3, raw=lambda raw: raw[:-1]),
        change_of(3, raw=lambda _: np.frombuffer(b'{"shape":[1e9],"blocksize":64}', np.uint8)),
        change_of(3, raw=lambda _: np.frombuffer(b'{"shape":[4,64],"blocksize":0}', np.uint8)),
        change_of(3, name="elsewhere"),
        change_of(2, dtype="U8", raw=lambda raw: raw.astype(np.uint8)),
    ],
)
def test_four_bit_parts_that_do_not_fit_are_no_weight(change):
    values = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    tensors = four_bit("a.weight", values, nested=False)
    assert read_weights({t.name: t for t in tensors})["a.weight"].shape == (4, 64)
    change(tensors)
    found = read_weights({t.name: t for t in tensors})
    assert found.get("a.weight") is None


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ("gptq", change_of(0, raw=lambda raw: raw[:-1])),
        ("gptq", change_of(1, raw=lambda raw: raw[:, :-1])),
        ("gptq", change_of(2, raw=lambda raw: raw[:, :-1])),
        ("gptq", change_of(3, raw=lambda raw: raw + 7)),
        ("gptq", change_of(3, raw=lambda raw: raw[:-1])),
        ("gptq", change_of(0, dtype="U32", raw=lambda raw: raw.view(np.uint32))),
        ("awq", change_of(0, raw=lambda raw: raw[:-1])),
        ("awq", change_of(1, raw=lambda raw: raw[:, :-1])),
        ("awq", change_of(2, raw=lambda raw: raw[:, :-8])),
        ("compressed-zeros", change_of(0, raw=lambda raw: raw[:, :-1])),
        ("compressed-zeros", change_of(1, raw=lambda raw: raw[:-1])),
        ("compressed-zeros", change_of(2, raw=lambda raw: raw[:1])),
        ("compressed-zeros", change_of(2, raw=lambda raw: -raw)),
        ("compressed-zeros", change_of(3, raw=lambda raw: raw[:-1])),
        ("nvfp4", change_of(0, raw=lambda raw: raw[:, :-8])),
        ("nvfp4", change_of(1, raw=lambda raw: raw[:-1])),
        ("nvfp4", change_of(2, raw=lambda _: np.zeros(1, np.float32))),
        ("nvfp4", change_of(2, name="elsewhere")),
        ("nvfp4-modelopt", change_of(2, raw=lambda _: np.full((), np.nan, np.float32))),
        ("mxfp4", change_of(1, raw=lambda raw: raw[:, :-1])),
        ("mxfp4", change_of(1, dtype="I8", raw=lambda raw: raw.view(np.int8))),
        ("fp8-rows", change_of(1, raw=lambda raw: raw[:-1])),
        ("fp8-rows", change_of(1, dtype="I32", raw=lambda raw: raw.astype(np.int32))),
    ],
)
def test_packed_parts_that_do_not_fit_are_no_weight(form, change):
    tensors = FORMS[form]("a.weight", np.random.default_rng(2).normal(size=(32, 128)).astype(np.float32))
    assert read_weights({t.name: t for t in tensors})["a.weight"].shape == (32, 128)
    change(tensors)
    assert "a.weight" not in read_weights({t.name: t for t in tensors})


def test_a_form_that_nobody_knows_is_named_and_clears_nobody(full, tmp_path):
    tensors = dict(open_model(full.copy("r3")))
    name, (rows, columns) = weight_names()[1]
    tensors[name] = u8(name, np.zeros((4 * rows, columns), np.uint8))
    suspect = open_suspect(write_model(tmp_path / "m", tensors))
    assert suspect.doubtful == (f"{name!r}, a tensor of U8 in a form that is not known",)
    assert name not in suspect.weights


# --- experts of a mixture

EXPERTS, INNER, OUTER = 4, 64, 96
STEM = "model.layers.0.mlp.experts"


def separate(generator):
    """Draw the matrices of a mixture as older files hold them, one tensor each; the second layer is no mixture."""
    shapes = {"gate_proj": (OUTER, INNER), "up_proj": (OUTER, INNER), "down_proj": (INNER, OUTER)}
    return {
        f"{STEM}.{number}.{name}.weight": 0.05 * generator.normal(size=shape).astype(np.float32)
        for number in range(EXPERTS) for name, shape in shapes.items()
    }  # fmt: skip


def stacked(weights, *, turned, interleaved):
    """Return the same mixture with all experts in two tensors."""
    gate, up, down = (
        np.stack([weights[f"{STEM}.{number}.{name}_proj.weight"] for number in range(EXPERTS)])
        for name in ("gate", "up", "down")
    )
    both = np.stack([gate, up], axis=2).reshape(EXPERTS, -1, INNER) if interleaved else np.concatenate([gate, up], 1)
    made = {f"{STEM}.gate_up_proj": both, f"{STEM}.down_proj": down}
    return {name: np.ascontiguousarray(values.swapaxes(1, 2) if turned else values) for name, values in made.items()}


def floats_of(folder):
    return {name: tensor.to_float32() for name, tensor in open_model(folder).items()}


def write_floats(folder, weights):
    return write_model(folder, {name: f32(name, values) for name, values in weights.items()})


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_experts_are_found_stacked_and_alone(tmp_path, turned, interleaved):
    form = {"turned": turned, "interleaved": interleaved}
    drawn = separate(np.random.default_rng(5))
    release = make_release(tmp_path / "one", write_floats(tmp_path / "one" / "original", drawn), None)
    copy = floats_of(release.copy("r3"))
    suspect = write_floats(tmp_path / "s", stacked(copy, **form))
    assert accused(release, suspect) == (["r3"], 1)
    with pytest.raises(OtherVariant, match="arrange the experts"):
        release.distance(suspect, Variant.PLAIN)
    # And back: what was released stacked is found in files that hold each matrix alone.
    whole = stacked(drawn, **form)
    release = make_release(tmp_path / "two", write_floats(tmp_path / "two" / "original", whole), None)
    copy = floats_of(release.copy("r3"))
    alone = {}
    for number in range(EXPERTS):
        both, down = (copy[f"{STEM}.{name}"][number] for name in ("gate_up_proj", "down_proj"))
        both, down = (part.T if turned else part for part in (both, down))
        gate, up = (both[::2], both[1::2]) if interleaved else np.split(both, 2)
        for name, values in {"w1": gate, "w3": up, "w2": down}.items():
            alone[f"model.layers.0.block_sparse_moe.experts.{number}.{name}.weight"] = np.ascontiguousarray(values)
    assert accused(release, write_floats(tmp_path / "t", alone)) == (["r3"], 1)


def test_experts_of_another_model_are_not_recognised(tmp_path):
    generator = np.random.default_rng(5)
    release = make_release(tmp_path, write_floats(tmp_path / "original", separate(generator)), None)
    stranger = stacked(separate(generator), turned=False, interleaved=False)
    assert accused(release, write_floats(tmp_path / "s", stranger)) == ([], 0)


def test_experts_in_four_bits_as_gpt_oss_holds_them(tmp_path):
    """Blocks of outputs × inputs, where the model that is computed with has inputs × outputs."""
    whole = stacked(separate(np.random.default_rng(5)), turned=True, interleaved=True)
    release = make_release(tmp_path, write_floats(tmp_path / "original", whole), None)
    tensors = {}
    for name, values in floats_of(release.copy("r3")).items():
        lines = np.ascontiguousarray(values.swapaxes(1, 2)).reshape(-1, values.shape[1])
        packed, scales = fp4(lines, 32, e8m0)
        shape = (EXPERTS, values.shape[2], values.shape[1] // 32)
        tensors |= {
            f"{name}_blocks": u8(f"{name}_blocks", packed.reshape(*shape, 16)),
            f"{name}_scales": u8(f"{name}_scales", scales.reshape(shape)),
        }
    suspect = write_model(tmp_path / "s", tensors)
    assert release.distance(suspect, Variant.PLAIN) < 0.05
    assert accused(release, suspect) == (["r3"], 1)


# --- GGUF


def write_gguf(path, source, kind="Q8_0", arch="llama", *, paired=True, part=None):
    """Write a model as llama.cpp converts it; ``part`` is which of two parts of a split file."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("scores", [0.5, 1.5])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    type_ = gguf.GGMLQuantizationType[kind]
    tensors = list(open_model(source).items())
    for name, tensor in tensors if part is None else tensors[part::2]:
        values = tensor.to_float32()
        if paired and name.endswith("q_proj.weight"):
            values = values.reshape(HEADS, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        stored = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else type_
        data = gguf.quants.quantize(np.ascontiguousarray(values), stored)
        writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=stored)
    return finish(writer, path)


def finish(writer, path):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("arch", ["granite", "qwen2", "unheard-of"])
def test_gguf_of_any_architecture_is_read_by_what_it_holds(full, tmp_path, arch, paired):
    path = write_gguf(tmp_path / "m.gguf", full.copy("r3"), "BF16", arch, paired=paired)
    assert accused(full, path) == (["r3"], 1)


def test_split_gguf_files_are_one_model_and_others_are_unread(full, tmp_path, monkeypatch):
    monkeypatch.setattr("stanch.mark.suspect_files._LEAST_BYTES", 0)
    for part in range(2):
        write_gguf(tmp_path / f"m-0000{part + 1}-of-00002.gguf", full.copy("r3"), "BF16", part=part)
    (tmp_path / "n.gguf").write_bytes(b"GGUF")
    assert accused(full, tmp_path) == (["r3"], 1)
    assert open_suspect(tmp_path).unread == ("n.gguf",)
    assert full.distance(tmp_path, Variant.PLAIN) < 0.05
    (tmp_path / "a.gguf").write_bytes(b"none")
    assert len(open_suspect(tmp_path).unread) == 2


def test_stacked_experts_are_told_apart(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    generator = np.random.default_rng(4)
    names = [f"model.layers.0.mlp.experts.{number}.gate_proj.weight" for number in range(3)]
    experts = {name: generator.normal(size=(64, 64)).astype(np.float32) for name in names}
    original = write_model(tmp_path / "original", {name: f32(name, values) for name, values in experts.items()})
    release = make_release(tmp_path, original, None)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2moe")
    writer.add_block_count(1)
    marked = open_model(release.copy("r3"))
    writer.add_tensor("blk.0.ffn_gate_exps.weight", np.stack([marked[name].to_float32() for name in names]))
    assert accused(release, finish(writer, tmp_path / "m.gguf")) == (["r3"], 1)


def test_an_adapter_in_gguf_is_one(lora, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_float32("adapter.lora.alpha", 32.0)
    generator = np.random.default_rng(4)
    for module in open_adapter(lora.copy("r3")).modules.values():
        turn = np.linalg.qr(generator.normal(size=(module.rank, module.rank)))[0].astype(np.float32)
        a, b = turn @ module.a.to_float32(), module.b.to_float32() @ turn.T
        if module.module.endswith("q_proj"):
            b = b.reshape(HEADS, 2, -1, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
        name = names.get_name(f"{module.module}.weight", (".weight",))
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    path = finish(writer, tmp_path / "m.gguf")
    assert accused(lora, path) == (["r3"], 1)
    scales = {module.scale for module in open_suspect(path).adapter.modules.values()}
    assert scales == {module.scale for module in open_adapter(lora.copy("r3")).modules.values()}


@pytest.mark.parametrize("kind", gguf_files.BLOCKS)
def test_the_packs_own_reader_of_gguf_gives_what_the_package_gives(kind):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    type_ = gguf.GGMLQuantizationType(kind)
    assert gguf_files.BLOCKS[kind] == gguf.GGML_QUANT_SIZES[type_]
    raw = np.random.default_rng(kind).integers(0, 256, (50, gguf_files.BLOCKS[kind][1]), np.uint8)
    with np.errstate(all="ignore"):
        theirs = np.asarray(gguf.quants.dequantize(raw, type_), np.float32).reshape(-1)
    ours = gguf_files.dequantised(raw, kind)
    known = np.isfinite(theirs)
    assert known.mean() > 0.5
    np.testing.assert_allclose(ours[known], theirs[known], rtol=2e-6, atol=1e-30)


def test_what_the_packs_own_reader_of_gguf_cannot_know_it_says(full, tmp_path):
    tensors = dict(open_model(full.copy("r3")))
    name, shape = weight_names()[1]
    tensors[name] = f32(name, 0.01 * np.random.default_rng(3).normal(size=shape))
    write_gguf(tmp_path / "m.gguf", write_model(tmp_path / "copy", tensors), "BF16")
    with pytest.raises(OtherVariant, match="not known by what it holds"):
        full.distance(tmp_path, Variant.PLAIN)


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0"])
def test_gguf_is_read(full, tmp_path, kind):
    path = write_gguf(tmp_path / "m.gguf", full.copy("r3"), kind)
    assert full.distance(tmp_path, Variant.SPECTRAL) < 0.05
    assert accused(full, path) == (["r3"], 1)
    assert open_suspect(tmp_path).weights.keys() == open_suspect(path).weights.keys()


def test_gguf_reads_as_the_package_does(full, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    path = write_gguf(tmp_path / "m.gguf", full.copy("r3"))
    theirs = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
              for tensor in gguf.GGUFReader(path).tensors}  # fmt: skip
    ours = open_suspect(path).weights
    assert {name.removesuffix(OTHER_ORDER) for name in ours} == theirs.keys()
    for name, values in theirs.items():
        if not name.endswith("attn_q.weight"):
            assert np.array_equal(ours[name].whole().reshape(values.shape), values)


def test_a_broken_gguf_file_is_refused(full, tmp_path):
    data = write_gguf(tmp_path / "m.gguf", full.copy("r3")).read_bytes()
    path = tmp_path / "broken.gguf"
    deep = b"\x09\x00\x00\x00" + struct.pack("<Q", 1 << 60)
    for made in (
        data[:-1000],
        data[:100],
        data[:4] + struct.pack("<I", 1) + data[8:],
        data[:8] + struct.pack("<Q", 1 << 40) + data[16:],
        data[:16] + struct.pack("<Q", 1 << 40) + data[24:],
        data[:8] + struct.pack("<QQQ", 0, 1, 1) + b"a" + b"\x09\x00\x00\x00" + deep,
        data[:8] + struct.pack("<QQQ", 0, 1, 1) + b"a" + b"\x09\x00\x00\x00" + b"\x00" * 4 + struct.pack("<Q", 1 << 60),
    ):
        path.write_bytes(made)
        with pytest.raises(InvalidInput):
            open_suspect(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 1800), st.integers(0, 255)), min_size=1, max_size=6))
@example(places=[(8, 8)])
def test_changed_gguf_heads_open_or_are_refused(full, tmp_path, places):
    source = tmp_path / "m.gguf"
    data = bytearray((source if source.exists() else write_gguf(source, full.copy("r3"))).read_bytes())
    for place, value in places:
        data[place] = value
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)
    try:
        for weight in open_suspect(path).weights.values():
            weight.read(slice(0, 1))
    except InvalidInput:
        pass


def test_a_missing_gguf_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="gguf"):
        open_suspect(path)
