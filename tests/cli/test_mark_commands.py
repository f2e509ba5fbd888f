"""The commands of ``stanch mark``, from a plan to a name."""

import json

import numpy as np
import pytest

from stanch.weights import Tensor, open_model, write_safetensors


@pytest.fixture
def place(tmp_path):
    generator = np.random.default_rng(4)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    write_safetensors(
        tmp_path / "model" / "model.safetensors",
        [
            Tensor.from_float32(f"layers.{number}.w", generator.normal(size=(256, 128)).astype(np.float32), "BF16")
            for number in range(6)
        ],
    )
    (tmp_path / "names").write_text("acme\nglobex\n\ninitech\n")
    (tmp_path / "checkpoint").write_text("a later checkpoint")
    return tmp_path


def noisy(source, target, size):
    generator = np.random.default_rng(5)
    target.mkdir()
    tensors = []
    for name, tensor in open_model(source).items():
        values = tensor.to_float32()
        noise = size * generator.standard_normal(values.shape, np.float32)
        tensors.append(Tensor.from_float32(name, values + noise))
    write_safetensors(target / "model.safetensors", tensors)
    return target


def test_from_a_plan_to_a_name(stanch, place):
    model, keys = str(place / "model"), str(place / "keys")
    planned = stanch("mark", "plan", model, "--json").json["data"]
    assert planned["coordinates"] == 6 * 256 * 128
    assert planned["expected_z"]["nf4"] < planned["expected_z"]["bf16"]
    assert (
        stanch("mark", "commit", model, "--recipients", str(place / "names"), "--keys", keys, "--decoys", "30").code
        == 0
    )
    early = stanch("mark", "apply", model, "--keys", keys, "--to", "acme", "--out", str(place / "early"))
    assert (early.code, (place / "early").exists()) == (2, False)
    assert "no beacon yet" in early.err
    assert stanch("mark", "beacon", keys, str(place / "checkpoint")).code == 0
    for name in ("acme", "globex"):
        made = stanch("mark", "apply", model, "--keys", keys, "--to", name, "--out", str(place / name), "--json")
        assert made.json["data"]["recipient"] == name
    assert stanch("mark", "apply", model, "--keys", keys, "--to", "nobody", "--out", str(place / "no")).code == 2

    suspect = noisy(place / "globex", place / "suspect", 0.05)
    found = stanch("mark", "detect", model, str(suspect), "--keys", keys)
    assert found.code == 1
    assert "found      globex" in found.out
    assert "acme" not in found.out
    shown = stanch("mark", "detect", model, str(suspect), "--keys", keys, "--json").json
    assert [who["recipient"] for who in shown["data"]["scores"] if who["accused"]] == ["globex"]

    innocent = stanch("mark", "detect", model, str(noisy(place / "model", place / "innocent", 0.05)), "--keys", keys)
    assert innocent.code == 0
    assert "nothing was found" in innocent.out
    nothing = place / "nothing"
    nothing.mkdir()
    write_safetensors(nothing / "model.safetensors", [Tensor.from_float32("x", np.ones((4, 4), np.float32))])
    assert stanch("mark", "detect", model, str(nothing), "--keys", keys).code == 5
    secret = (place / "keys" / "root.key").read_bytes()[-32:].hex()
    assert secret not in json.dumps(shown)


def test_a_rehearsal_fails_where_a_copy_would_be_found_too_narrowly(stanch, place):
    good = stanch("mark", "rehearse", str(place / "model"), "--treatment", "bf16,average:2+int8", "--json")
    assert (good.code, [one["passed"] for one in good.json["data"]["treatments"]]) == (0, [True, True])
    weak = stanch("mark", "rehearse", str(place / "model"), "--treatment", "average:64+int3")
    assert weak.code == 1
    assert weak.out.startswith("WEAK")


def test_lineage_needs_a_known_family(stanch, place):
    shown = stanch("mark", "lineage", str(place / "model"), str(place / "model"))
    assert shown.code == 2
    assert "family" in shown.err
