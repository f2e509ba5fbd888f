"""Bundles as transformers models: the same numbers as from plain files, and nothing that could run code."""

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys

import peft
import pytest
import torch
import transformers
from safetensors import torch as torch_files
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stanch.errors import InvalidInput, PolicyViolation, Tampered, UnsafeArtifact
from stanch.seal import BaseModel
from stanch.seal.load_torch import UnsupportedTokenizer, _tensors, load_adapter, load_model, load_tokenizer
from stanch.terms import Digest
from stanch.weights import directory_digest

TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
PROMPT = torch.arange(40)[None] % 290


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with a tiny random Llama in two shards, its tokenizer, and an adapter beside it."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        dtype="bfloat16",
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config.max_new_tokens = 17
    model.save_pretrained(folder / "base", max_shard_size="60KB")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 3, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<tool>"],
        padding_side="left",
        model_max_length=99,
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "base")
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    tuned = peft.get_peft_model(model, settings)
    tuned.save_pretrained(folder / "adapter")
    return folder


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits(model):
    with torch.no_grad():
        return model(PROMPT).logits


@pytest.mark.acceptance
def test_a_model_loads_for_real_and_bit_identical(plain, make_sealed):
    files = files_of(plain / "base")
    harmless = {"_attn_implementation": "eager", "_attn_implementation_autoset": True, "auto_map": {}}
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | harmless).encode()
    assert sum(name.endswith(".safetensors") for name in files) > 1
    reference = transformers.AutoModelForCausalLM.from_pretrained(plain / "base", attn_implementation="eager")
    with make_sealed(files).open() as bundle:
        model = load_model(bundle)
    assert torch.equal(logits(model), logits(reference))
    assert type(model) is type(reference)
    assert (model.dtype, model.training) == (torch.bfloat16, False)
    assert model.generation_config.max_new_tokens == 17
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        name: tuple(p.shape) for name, p in reference.named_parameters()
    }


def test_another_element_type_is_the_callers_choice(plain, make_sealed):
    reference = transformers.AutoModelForCausalLM.from_pretrained(plain / "base", dtype=torch.float32)
    with make_sealed(files_of(plain / "base")).open() as bundle:
        model = load_model(bundle, dtype=torch.float32)
    assert torch.equal(logits(model), logits(reference))


@pytest.mark.acceptance
def test_an_adapter_loads_for_real_and_bit_identical(plain, make_sealed):
    base = plain / "base"
    digest = directory_digest(base).root
    reference = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), plain / "adapter"
    )
    sealed = make_sealed(files_of(plain / "adapter"), kind="adapter", base_model=BaseModel("base", digest.hex))
    with sealed.open() as bundle:
        model = load_adapter(bundle, transformers.AutoModelForCausalLM.from_pretrained(base), base_digest=digest)
    assert torch.equal(logits(model), logits(reference))
    assert not torch.equal(logits(model), logits(transformers.AutoModelForCausalLM.from_pretrained(base)))
    assert not model.training


def test_an_adapter_refuses_another_base_model(plain, make_sealed):
    digest = directory_digest(plain / "base").root
    sealed = make_sealed(files_of(plain / "adapter"), kind="adapter", base_model=BaseModel("base", digest.hex))
    base = transformers.AutoModelForCausalLM.from_pretrained(plain / "base")
    with sealed.open() as bundle:
        for wrong in (None, Digest.sha256(b"other"), Digest("blake3", digest.value)):
            with pytest.raises(PolicyViolation):
                load_adapter(bundle, base, base_digest=wrong)
        assert load_adapter(bundle, base, base_digest=digest).peft_config


def test_elements_that_share_bytes_are_named(make_sealed, safetensors):
    data = safetensors({"w": bytes(4)}).replace(b'"U8", "shape": [4]', b'"F4", "shape": [8]')
    with make_sealed({"model.safetensors": data}).open() as bundle:
        header, memory = bundle.read_weights("model.safetensors")
        with pytest.raises(InvalidInput, match="'w': elements of type F4 are not loaded"):
            list(_tensors(header, memory))


def test_an_adapter_that_does_not_fit_is_refused(plain, make_sealed):
    files = files_of(plain / "adapter")
    settings = json.loads(files["adapter_config.json"])
    wrong = {
        "kind": settings | {"peft_type": "IA3"},
        "fewer": settings | {"target_modules": ["q_proj"]},
        "rank": settings | {"r": 5},
        "more": settings | {"target_modules": ["q_proj", "k_proj", "v_proj"]},
    }
    for name, document in wrong.items():
        sealed = make_sealed(files | {"adapter_config.json": json.dumps(document).encode()}, name=name)
        base = transformers.AutoModelForCausalLM.from_pretrained(plain / "base")
        with sealed.open() as bundle, pytest.raises(InvalidInput):
            load_adapter(bundle, base)


def test_the_tokenizer_is_the_same(plain, make_sealed):
    reference = transformers.AutoTokenizer.from_pretrained(plain / "base")
    with make_sealed(files_of(plain / "base")).open() as bundle:
        tokenizer = load_tokenizer(bundle)
    chat = [{"role": "user", "content": "Héllo  <tool> the quick\tfox\n"}, {"role": "assistant", "content": "日本"}]
    for tool in (tokenizer, reference):
        assert tool.convert_ids_to_tokens(2) == "<|im_end|>"
    assert tokenizer.apply_chat_template(chat) == reference.apply_chat_template(chat)
    assert tokenizer.special_tokens_map == reference.special_tokens_map
    assert tokenizer.all_special_tokens == reference.all_special_tokens
    assert tokenizer(["a", "the quick brown"], padding=True) == reference(["a", "the quick brown"], padding=True)
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (99, "left")
    ids = reference("<|im_start|>the lazy dog<|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == reference.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"nested": [{"trust_remote_code": True}]}),
        ("config.json", {"custom_pipelines": {"x": {}}}),
        ("config.json", {"_attn_implementation": "someone/kernel"}),
        ("config.json", {"attn_implementation": {"": "someone/kernel"}}),
        ("generation_config.json", {"custom_generate": "someone/generate"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("modeling.py", None),
        ("sub/kernel.so", None),
        ("module.pyc", None),
    ],
    ids=str,
)
def test_what_could_run_code_is_refused(plain, make_sealed, name, change):
    files = files_of(plain / "base")
    files[name] = b"raise SystemExit" if change is None else json.dumps(json.loads(files[name]) | change).encode()
    with make_sealed(files).open() as bundle, pytest.raises(UnsafeArtifact):
        (load_tokenizer if name == "tokenizer_config.json" else load_model)(bundle)


def test_models_that_would_be_filled_with_chance_or_guesses_are_refused(plain, make_sealed):
    files = files_of(plain / "base")
    config = json.loads(files["config.json"])
    index = json.loads(files["model.safetensors.index.json"])
    shard = min(index["weight_map"].values())
    fewer = {key: value for key, value in index["weight_map"].items() if value != shard}
    wrong = {
        "type": {"config.json": json.dumps(config | {"model_type": "nothing"})},
        "architecture": {"config.json": json.dumps(config | {"architectures": ["GPT2LMHeadModel"]})},
        "builtin": {"config.json": json.dumps(config | {"architectures": ["AutoModelForCausalLM"]})},
        "none": {"config.json": json.dumps(config | {"architectures": None})},
        "list": {"config.json": "[]"},
        "notjson": {"config.json": "{"},
        "deep": {"config.json": "[" * 5000 + "]" * 5000},
        "quantised": {"config.json": json.dumps(config | {"quantization_config": {"quant_method": "gptq"}})},
        "shape": {"config.json": json.dumps(config | {"intermediate_size": 65})},
        "missing": {"model.safetensors.index.json": json.dumps(index | {"weight_map": fewer})},
        "empty": {"model.safetensors.index.json": json.dumps({"weight_map": {}})},
    }
    for name, change in wrong.items():
        changed = files | {path: text.encode() for path, text in change.items()}
        with make_sealed(changed, name=name).open() as bundle, pytest.raises(InvalidInput):
            load_model(bundle)


def test_elements_of_every_type_are_those_that_were_saved(make_sealed, safetensors):
    bits = torch.arange(48, dtype=torch.uint8)
    elements = (
        torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn, torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.int16, torch.uint16, torch.float16, torch.bfloat16,
        torch.int32, torch.uint32, torch.float32, torch.int64, torch.uint64, torch.float64, torch.complex64,
    )  # fmt: skip
    tensors = {str(kind): (bits % 2 == 1 if kind == torch.bool else bits.clone().view(kind)) for kind in elements}
    tensors |= {"none": torch.empty(0, 3), "odd": torch.ones(3, dtype=torch.uint8)}
    data = torch_files.save(tensors)
    with make_sealed({"model.safetensors": data}).open() as bundle:
        found = dict(_tensors(*bundle.read_weights("model.safetensors")))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].contiguous().view(torch.uint8).tolist() == tensor.contiguous().view(torch.uint8).tolist()
    shifted = safetensors({"a": b"x", "b": bytes(range(8))}).replace(b'"U8", "shape": [8]', b'"F32","shape": [2]')
    with make_sealed({"model.safetensors": shifted}, name="shifted").open() as bundle:
        found = dict(_tensors(*bundle.read_weights("model.safetensors")))
    assert found["b"].view(torch.uint8).tolist() == list(range(8))


def test_a_model_in_one_file_loads_and_nothing_is_fetched(plain, make_sealed, monkeypatch):
    files = files_of(plain / "base")
    state = {}
    for name in [name for name in files if name.endswith((".safetensors", ".index.json"))]:
        data = files.pop(name)
        state |= torch_files.load(data) if name.endswith(".safetensors") else {}
    asked, load = [], transformers.LlamaForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.LlamaForCausalLM, "from_pretrained", lambda *of, **how: asked.append(how) or load(*of, **how)
    )
    # What asks for no code stays.
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | {"trust_remote_code": False}).encode()
    with make_sealed(files | {"model.safetensors": torch_files.save(state)}).open() as bundle:
        model = load_model(bundle)
    monkeypatch.undo()
    assert [how["local_files_only"] for how in asked] == [True]
    whole = transformers.LlamaForCausalLM.from_pretrained(plain / "base", dtype="auto")
    assert torch.equal(logits(model), logits(whole))


def test_every_setting_of_a_tokenizer_is_kept(plain, make_sealed):
    files, settings = files_of(plain / "base"), {
        "bos_token": "a", "eos_token": "b", "unk_token": "c", "sep_token": "content", "pad_token": "e",
        "cls_token": "f", "mask_token": {"content": "g", "special": True}, "model_max_length": 55,
        "padding_side": "left", "truncation_side": "left", "clean_up_tokenization_spaces": True,
        "split_special_tokens": True, "add_prefix_space": True, "model_input_names": ["input_ids"],
    }  # fmt: skip
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    with make_sealed(files).open() as bundle:
        tokenizer = load_tokenizer(bundle)
    settings["mask_token"] = "g"
    assert {key: tokenizer.init_kwargs[key] for key in settings} == settings
    for key in ("truncation_side", "padding_side", "model_input_names", "split_special_tokens", "unk_token"):
        assert getattr(tokenizer, key) == settings[key]


@pytest.mark.parametrize(("key", "value"), [
    ("extra_special_tokens", ["<tool>"]), ("additional_special_tokens", [{"content": "<tool>", "special": True}]),
    ("extra_special_tokens", {"tool_token": {"content": "<tool>"}}),
])  # fmt: skip
def test_special_tokens_of_ones_own_are_kept_in_every_form(plain, make_sealed, key, value):
    files = files_of(plain / "base")
    settings = json.loads(files["tokenizer_config.json"])
    settings = {name: one for name, one in settings.items() if "special_tokens" not in name}
    files["tokenizer_config.json"] = json.dumps(settings | {key: value}).encode()
    with make_sealed(files).open() as bundle:
        tokenizer = load_tokenizer(bundle)
    assert "<tool>" in tokenizer.all_special_tokens
    if isinstance(value, dict):
        assert tokenizer.special_tokens_map["tool_token"] == "<tool>"


@pytest.mark.parametrize("load", [load_tokenizer, lambda bundle: load_adapter(bundle, None)])
def test_no_loader_takes_a_bundle_that_holds_code(plain, make_sealed, load):
    files = files_of(plain / "base") | files_of(plain / "adapter") | {"x.py": b"raise SystemExit"}
    with make_sealed(files).open() as bundle, pytest.raises(UnsafeArtifact, match=r"x\.py"):
        load(bundle)


def test_an_adapter_starts_from_nothing_that_its_configuration_asks_for(plain, make_sealed):
    files = files_of(plain / "adapter")
    settings = json.loads(files["adapter_config.json"])
    files["adapter_config.json"] = json.dumps(
        settings | {"init_lora_weights": "pissa", "inference_mode": False}
    ).encode()
    base = transformers.LlamaForCausalLM.from_pretrained(plain / "base", dtype="auto")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with make_sealed(files).open() as bundle:
        loaded = load_adapter(bundle, base)
    kept = loaded.peft_config["default"]
    assert (kept.inference_mode, kept.init_lora_weights) == (True, True)
    after = loaded.get_base_model().state_dict()
    for name, value in before.items():
        found = after.get(name, after.get(name.replace(".weight", ".base_layer.weight")))
        assert torch.equal(found, value), name


def test_an_adapter_that_lacks_a_module_that_it_saves_is_refused(plain, make_sealed):
    files = files_of(plain / "adapter")
    settings = json.loads(files["adapter_config.json"])
    files["adapter_config.json"] = json.dumps(settings | {"modules_to_save": ["lm_head"]}).encode()
    base = transformers.LlamaForCausalLM.from_pretrained(plain / "base", dtype="auto")
    with make_sealed(files).open() as bundle, pytest.raises(InvalidInput) as caught:
        load_adapter(bundle, base)
    assert caught.value.why == "a module that it saves is not in it"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("config.json", {"model_type": ["llama"]}, "unknown model_type"),
        ("config.json", {"architectures": []}, "expected an architecture"),
        ("config.json", {"architectures": {"a": "b"}}, "expected an architecture"),
        ("model.safetensors.index.json", {"weight_map": ["a"]}, "expected a weight_map"),
        ("model.safetensors.index.json", {"weight_map": {}}, "expected a weight_map"),
    ],
    ids=str,
)
def test_what_a_configuration_may_not_say_is_named(plain, make_sealed, name, change, said):
    files = files_of(plain / "base")
    files[name] = json.dumps(json.loads(files[name]) | change).encode()
    with make_sealed(files).open() as bundle, pytest.raises(InvalidInput, match=f"{name}: {said}"):
        load_model(bundle)


def test_a_tensor_in_two_shards_is_refused(plain, make_sealed):
    files = files_of(plain / "base")
    index = json.loads(files["model.safetensors.index.json"])
    files["copy.safetensors"] = files[next(iter(index["weight_map"].values()))]
    index["weight_map"]["another"] = "copy.safetensors"
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with make_sealed(files).open() as bundle, pytest.raises(InvalidInput, match="stands in two files"):
        load_model(bundle)


def test_a_chat_template_may_stand_among_the_settings(plain, make_sealed):
    files = files_of(plain / "base")
    template = files.pop("chat_template.jinja").decode()
    settings = json.loads(files["tokenizer_config.json"]) | {"chat_template": template}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    with make_sealed(files).open() as bundle:
        assert load_tokenizer(bundle).chat_template == template == TEMPLATE


def test_a_tokenizer_without_the_fast_format_is_refused(make_sealed):
    with make_sealed({"tokenizer.model": b"x"}).open() as bundle, pytest.raises(UnsupportedTokenizer):
        load_tokenizer(bundle)


def test_a_changed_weight_never_reaches_the_library(plain, make_sealed):
    sealed = make_sealed(files_of(plain / "base"))
    path = max((sealed.path / "body").iterdir(), key=lambda stream: stream.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with sealed.open() as bundle, pytest.raises(Tampered):
        load_model(bundle)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_loading_under_strace_writes_no_plaintext(plain, make_sealed, strace, tmp_path):
    """The kernel's view, of a child that has the libraries already: importing them takes longer than all the rest."""
    sealed, adapter = (make_sealed(files_of(plain / name), name=name) for name in ("base", "adapter"))
    weights = [
        data for bundle in (sealed, adapter) for name, data in bundle.files.items() if name.endswith(".safetensors")
    ]
    for name in ("base", "adapter"):
        shutil.rmtree(tmp_path / f"{name}.source")
    go, went = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(Exception):
            ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER: strace is no parent of ours
            torch.set_num_threads(1)  # the pool of threads stayed with the parent
            os.read(go, 1)
            with sealed.open() as bundle, adapter.open() as tuned:
                load_tokenizer(bundle)
                load_adapter(tuned, load_model(bundle))
                code = 0
        os._exit(code)
    command = [*strace.command, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        first = tracer.stderr.readline()
        os.write(went, b"x")
        ended = os.waitpid(child, 0)[1]
        os.close(go)
        os.close(went)
    if "attached" not in first:
        pytest.skip(f"strace may not trace here: {first}")
    assert ended == 0
    strace.check(*(data[start : start + 16] for data in weights for start in range(len(data) - 16, 2000, -5000)))


def test_loading_writes_no_file(plain, make_sealed, tmp_path):
    """Neither we nor the libraries may open a file for writing while a model is built from a bundle."""
    sealed = make_sealed(files_of(plain / "base"))
    adapter = make_sealed(files_of(plain / "adapter"), name="adapter")
    shutil.rmtree(tmp_path / "m.source")
    written, watching = [], [True]

    def watch(event, args):
        if watching and event == "open" and isinstance(args[2], int) and args[2] & 3:
            written.append(args[0])

    sys.addaudithook(watch)
    try:
        with sealed.open() as bundle, adapter.open() as tuned:
            model = load_model(bundle)
            load_tokenizer(bundle)
            load_adapter(tuned, model)
    finally:
        watching.clear()
    assert written == []
