"""The layers below the lowest adapter run once for both modes, and nothing else changes."""

import numpy as np
import peft
import pytest
import torch
import transformers

from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import Decoding
from stanch.audit.trunk_torch import FrozenTrunk
from stanch.data import tokenise

FIELDS = ("lp", "mu", "sigma", "hit", "lq")


def make_scorer(tiny, **where):
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.base)
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **where)
    return HfScorer.from_loaded(peft.get_peft_model(model, config), tiny.tokenizer)


@pytest.fixture
def records(tiny):
    return [tokenise(record, tiny.tokenizer) for record in tiny.members[:7]]


def layers_of(scorer):
    return list(scorer._model.get_base_model().model.layers)


def count_runs(scorer):
    """Count how often each layer's attention runs."""
    layers = layers_of(scorer)
    runs = [0] * len(layers)
    for number, layer in enumerate(layers):

        def note(*_, number=number):
            runs[number] += 1

        layer.self_attn.register_forward_hook(note)
    return runs


@pytest.mark.parametrize("where", [{"layers_to_transform": [1]}, {}], ids=["upper layer", "all layers"])
def test_pairs_are_what_two_passes_give_bit_for_bit(tiny, records, where):
    scorer = make_scorer(tiny, **where)
    pairs = list(scorer.paired_features(records, decoding=Decoding()))
    for mode, features in zip(("on", "off"), zip(*pairs, strict=True), strict=True):
        alone = {f.record_id: f for f in scorer.features(records, decoding=Decoding(), adapter=mode)}
        for found in features:
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(found, name), getattr(alone[found.record_id], name))
    assert any(not np.array_equal(on.lp, off.lp) for on, off in pairs)


def test_the_trunk_runs_once_for_both(tiny, records, monkeypatch):
    scorer = make_scorer(tiny, layers_to_transform=[1])
    monkeypatch.setattr(type(scorer), "token_budget", 1)  # every record is a batch
    runs = count_runs(scorer)
    list(scorer.paired_features(records, decoding=Decoding()))
    # Two more: the shared prefix goes through the whole model in each mode.
    assert runs == [len(records) + 2, 2 * len(records) + 2]


def test_layers_keep_their_own_forward(tiny, records):
    scorer = make_scorer(tiny, layers_to_transform=[1])
    first, second = layers_of(scorer)
    first.forward = own = first.forward
    with scorer._trunk.once():
        assert first.forward is not own
    assert first.forward is own
    list(scorer.paired_features(records, decoding=Decoding()))
    assert first.forward is own
    assert "forward" not in vars(second)


def test_there_is_no_trunk_above_an_adapted_layer_or_without_layers(tiny):
    assert FrozenTrunk(make_scorer(tiny)._model)._layers == []
    assert FrozenTrunk(make_scorer(tiny, layers_to_transform=[0])._model)._layers == []
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2))
    assert FrozenTrunk(gpt2)._layers == []
