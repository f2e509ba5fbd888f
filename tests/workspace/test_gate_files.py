"""A certificate is for exactly these bytes: of its own, of the model's files, and of nothing derived from them."""

import json
import shutil
from datetime import timedelta

import life
import numpy as np
import pytest

from stanch.audit import GatePolicy
from stanch.audit.certificate_file import read_certificate, verify_certificate
from stanch.audit.gate import GateBreached, gate
from stanch.crypto import SigningKey
from stanch.errors import StanchError
from stanch.sign import TrustedKeys
from stanch.weights import Tensor, directory_digest, open_tensors, write_safetensors

POLICY = GatePolicy.for_context("open-weights")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A base, an adapter with a chat template, the adapter's certificate, and who is trusted."""
    folder = tmp_path_factory.mktemp("audited")
    base, model = life.make_base(folder / "base"), life.make_adapter(folder / "adapter")
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    signer = SigningKey.generate("p256")
    certificate = life.certify(life.make_result(model), model, signer, folder / "leakcert.json")
    return base, model, certificate, TrustedKeys((signer.public,))


def ask(audited, model, *, now=life.START):
    _, _, certificate, trusted = audited
    return gate(read_certificate(certificate, trusted), directory_digest(model), POLICY, now=now)


def test_the_audited_files_pass(audited):
    assert ask(audited, audited[1]).decision.outcome == "pass"


def test_a_certificate_with_any_byte_changed_is_refused(audited):
    """Each byte in turn, in its lowest bit; a byte too few, and one too many."""
    _, _, certificate, trusted = audited
    data = certificate.read_bytes()
    variants = [data[:-1], data + b"\n", b" " + data]
    variants += [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in range(len(data))]
    accepted = []
    for number, variant in enumerate(variants):
        try:
            verify_certificate(variant, trusted, what="certificate")
        except StanchError:
            continue
        accepted.append(number)
    assert accepted == []
    verify_certificate(data, trusted, what="certificate")


def test_another_form_of_the_same_envelope_is_refused(audited):
    """The signature still verifies; but what it does not cover is not as it was written."""
    _, _, certificate, trusted = audited
    value = json.loads(certificate.read_bytes())
    value["verificationMaterial"]["publicKey"]["hint"] = "00" * 32
    for text in (json.dumps(json.loads(certificate.read_bytes()), indent=1), json.dumps(value, separators=(",", ":"))):
        with pytest.raises(StanchError, match="not as it was written"):
            verify_certificate(text.encode(), trusted, what="certificate")


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"]
)
def test_a_changed_byte_of_any_file_is_a_breach_that_names_the_file(audited, tmp_path, name):
    """Twelve places of each file, the first and the last among them."""
    model = shutil.copytree(audited[1], tmp_path / "model")
    data = (model / name).read_bytes()
    for place in np.unique(np.linspace(0, len(data) - 1, 12).astype(int)).tolist():
        (model / name).write_bytes(data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :])
        with pytest.raises(GateBreached, match=f"{name} is another file than the audited one"):
            ask(audited, model)


def test_another_model_is_a_breach(audited, tmp_path):
    other = life.make_adapter(tmp_path / "other", seed=9)
    shutil.copy(audited[1] / "chat_template.jinja", other)
    with pytest.raises(GateBreached, match=r"adapter_model\.safetensors is another file"):
        ask(audited, other)


def merge(base, adapter):
    """Return the weights of the base with the adapter added."""
    weights, parts = open_tensors(base / "model.safetensors"), open_tensors(adapter / "adapter_model.safetensors")
    merged = {}
    for name in life.module_names():
        down, up = (parts[f"base_model.model.{name}.lora_{part}.weight"].to_float32() for part in "AB")
        merged[f"{name}.weight"] = weights[f"{name}.weight"].to_float32() + 2 * up @ down
    return merged


def test_a_merged_model_is_a_breach(audited, tmp_path):
    base, adapter, _, _ = audited
    out = shutil.copytree(base, tmp_path / "merged")
    tensors = [Tensor.from_float32(name, values) for name, values in merge(base, adapter).items()]
    write_safetensors(out / "model.safetensors", tensors, metadata={"format": "pt"})
    shutil.copy(adapter / "tokenizer.json", out)
    with pytest.raises(GateBreached, match=r"adapter_config\.json was audited and is missing") as caught:
        ask(audited, out)
    assert caught.value.exit_code == 1


def test_a_quantised_model_is_a_breach(audited, tmp_path):
    """The merged weights as a GGUF file with 8-bit blocks, as llama.cpp reads them."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    base, adapter, _, _ = audited
    out = tmp_path / "quantised"
    out.mkdir()
    writer = gguf.GGUFWriter(out / "model-q8_0.gguf", "llama")
    for name, values in merge(base, adapter).items():
        blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GateBreached, match="was audited and is missing"):
        ask(audited, out)
    beside = shutil.copytree(adapter, tmp_path / "beside")
    shutil.copy(out / "model-q8_0.gguf", beside)
    with pytest.raises(GateBreached, match=r"model-q8_0\.gguf is there and was not audited"):
        ask(audited, beside)


def test_an_expired_certificate_is_a_breach(audited):
    with pytest.raises(GateBreached, match="expired"):
        ask(audited, audited[1], now=life.START + timedelta(days=90))
