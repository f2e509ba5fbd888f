"""Goldfish loss: which labels are left out, and that they leave the loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stanch.data import TokenRecord
from stanch.tune import Goldfish, TuneSpec, tune
from stanch.tune.chunks import cut_chunks
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.session_torch import Session
from stanch.tune.spec import MethodSpec

GOLDEN = "0000000000000000000101001010110011011100001010110000000000001001"


def test_golden():
    dropped = Goldfish(bytes(range(32))).forgotten(range(100, 164))
    assert "".join("01"[place in dropped] for place in range(64)) == GOLDEN


@given(st.lists(st.integers(0, 2**32 - 1), max_size=80), st.integers(1, 9))
def test_only_the_tokens_before_decide(ids, every):
    fish = Goldfish(bytes(32), every)
    dropped = fish.forgotten(ids)
    assert all(place >= 13 for place in dropped)
    assert every > 1 or dropped == tuple(range(13, len(ids)))
    # The same context in another text, and later, drops the same token.
    assert tuple(place - 5 for place in fish.forgotten([7, 7, 7, 7, 7, *ids]) if place >= 18) == dropped


def test_another_key_drops_others():
    ids = range(500)
    one, other = (Goldfish.of(key, 4) for key in (bytes(32), bytes([1]) * 32))
    assert one.forgotten(ids) != other.forgotten(ids)
    assert 80 < len(one.forgotten(ids)) < 170
    assert "key" not in repr(one)


def test_dropped_tokens_leave_numerator_and_denominator():
    model = CausalModel(tiny_llama(vocab=64, d=16, layers=1, heads=2, kv=1), MethodSpec(rank=2, alpha=4))
    model.adapter.initialise(torch.Generator().manual_seed(0))
    record = TokenRecord("r", tuple(3 + n * n % 60 for n in range(40)), (5, 40))
    fish = Goldfish(bytes(range(32))).apply(record)
    assert fish.ids == record.ids
    assert 0 < len(fish.skipped) < 30
    (chunk,) = cut_chunks([[fish]], 1000)
    ids = torch.tensor([record.ids])
    with torch.no_grad():
        scores = model.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        found = float(model.loss(chunk.passes[0]))
    wanted = [-float(scores[place - 1, record.ids[place]]) for place in fish.labelled]
    assert set(fish.labelled) == set(range(5, 40)) - set(fish.skipped)
    assert found == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


def test_a_record_without_any_label_gives_no_gradient():
    model = CausalModel(tiny_llama(vocab=64, d=16, layers=1, heads=2, kv=1), MethodSpec(rank=2, alpha=4))
    model.adapter.initialise(torch.Generator().manual_seed(0))
    record = Goldfish(bytes(32), 1).apply(TokenRecord("r", tuple(range(3, 43)), (13, 40)))
    assert record.labelled == ()
    (chunk,) = cut_chunks([[record]], 1000)
    loss = model.loss(chunk.passes[0])
    loss.backward()
    assert loss.detach() == 0.0
    assert all(not value.grad.any() for value in model.adapter.parameters().values())


def test_the_spec_turns_it_on(make_spec, chats, monkeypatch):
    seen = {}
    load = Session._load

    def watched(self, records):
        seen.update(records)
        return load(self, records)

    monkeypatch.setattr(Session, "_load", watched)
    tune(make_spec(extra="goldfish = 3", privacy="enabled = false"), dataset=chats)
    assert any(record.skipped for record in seen.values())
    assert all(place in range(*record.span) for record in seen.values() for place in record.skipped)
    assert TuneSpec.from_toml(b'[base]\npath = "m"\n').extra.goldfish == 0
