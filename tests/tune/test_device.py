"""Where a run computes: a GPU where there is one, and the model goes there."""

import pytest
import torch

from stanch.data import tokenise
from stanch.errors import InvalidInput
from stanch.terms import SILENT
from stanch.tune import NULL, prepare, run_folder
from stanch.tune.device_torch import find_device, find_dtype
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.session_torch import Session
from stanch.tune.spec import MethodSpec


@pytest.fixture
def two_gpus(monkeypatch):
    """What torch says on a machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_found(monkeypatch):
    assert [str(find_device(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(find_device(name)) for name in ("auto", "cuda", "cuda:0")] == ["cuda:1", "cuda:1", "cuda:0"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    for name in ("auto", "cuda:2"):
        with pytest.raises(InvalidInput, match="one of 2 GPUs, found cuda:2"):
            find_device(name)
    assert find_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert find_dtype("float32", torch.device("cuda")) == torch.float32


def test_without_a_gpu_the_processor_is_taken_and_nothing_else(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(InvalidInput, match="one of 0 GPUs"):
        find_device("cuda")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("chosen", "found"), [("", "cuda:0"), ('device = "cuda:1"', "cuda:1"), ('device = "cpu"', "cpu")]
)
def test_the_model_of_a_run_goes_there(make_spec, chats, monkeypatch, chosen, found):
    class Gone(Exception):
        """Where the base model was sent."""

    def send(_model, device):
        raise Gone(str(device))

    spec = make_spec(train=f"steps = 4\nbatch = 8\n{chosen}", privacy="enabled = false")
    session = Session(prepare(spec, chats), run_folder(spec), NULL, SILENT)
    monkeypatch.setattr(torch.nn.Module, "to", send)
    with pytest.raises(Gone, match=f"^{found}$"):
        session._load(session._tokenise(chats))


def test_an_adapter_is_drawn_on_the_processor_and_goes_where_its_layer_is():
    here, away = (CausalModel(tiny_llama(), MethodSpec(rank=2)) for _ in range(2))
    layer = away.adapter.layers[0].to("meta")
    layer.initialise(torch.Generator().manual_seed(5))
    assert layer.down.device.type == "meta"
    here.adapter.initialise(torch.Generator().manual_seed(5))
    other = CausalModel(tiny_llama(), MethodSpec(rank=2))
    other.adapter.initialise(torch.Generator().manual_seed(5))
    assert torch.equal(here.adapter.layers[0].down, other.adapter.layers[0].down)
    assert here.adapter.layers[0].down.any()


def test_the_frozen_layers_take_their_ids_where_the_model_lies(chats, base, monkeypatch):
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import, needed once

    model = CausalModel(tiny_llama(vocab=300, d=32), MethodSpec(rank=2, layers=(1,)))
    record, made = tokenise(next(iter(chats)), AutoTokenizer.from_pretrained(base)), []
    tensor = torch.tensor

    def noted(*given, **more):
        made.append(more.get("device"))
        return tensor(*given, **more)

    monkeypatch.setattr(torch, "tensor", noted)
    model._prefix._states_of(record)
    assert made == [model.device]
