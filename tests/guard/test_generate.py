"""Generation: a tiny model that was overfitted to one row says it without the guard and not with it."""

import random
import threading
import time

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stanch.errors import ExternalError, InvalidInput
from stanch.guard import Action, Guard, GuardError, GuardPolicy
from stanch.guard.generate_torch import guarded_generate
from stanch.scan import FINE, SpanIndex

PROMPT = "Ask:"


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={"<end>": 0} | {c: n for n, c in enumerate(alphabet, 1)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")


@pytest.fixture(scope="module")
def row(words):
    return words(random.Random(21), 40)[:110]


@pytest.fixture(scope="module")
def model(tokenizer, row):
    """Overfit one sequence: about a second."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=257,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    made = transformers.LlamaForCausalLM(config)
    ids = torch.tensor([[*tokenizer(PROMPT + row)["input_ids"], 0]])
    optimiser = torch.optim.AdamW(made.parameters(), lr=5e-3, weight_decay=0)
    for _ in range(300):
        loss = made(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.01:
            break
    return made.eval()


@pytest.fixture(scope="module")
def inputs(tokenizer):
    return tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)


@pytest.fixture(scope="module")
def guard(row):
    return Guard(GuardPolicy(index=SpanIndex.build([row], key=bytes(32), params=FINE)))


def collect(generator):
    """Return what was yielded, and the verdict that was returned."""
    parts = []
    while True:
        try:
            parts.append(next(generator))
        except StopIteration as end:
            return parts, end.value


def no_thread_left():
    return not any(thread.name == "generate" for thread in threading.enumerate())


def test_the_row_comes_out_without_the_guard_and_not_with_it(model, tokenizer, inputs, guard, row):
    open_ = Guard(GuardPolicy())
    parts, action = collect(guarded_generate(model, tokenizer, inputs, guard=open_, max_new_tokens=160))
    assert "".join(parts) == row
    assert action == Action.ALLOW
    assert len(parts) > 5
    assert all(parts)
    steps = []
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    parts, action = collect(guarded_generate(model, tokenizer, inputs, guard=guard, max_new_tokens=160))
    hook.remove()
    assert action == Action.BLOCK
    assert row.startswith("".join(parts))
    assert len("".join(parts)) <= FINE.k + FINE.stride - 2
    assert len(steps) <= 111
    assert no_thread_left()


def test_a_block_stops_the_model(model, tokenizer, inputs, guard):
    """The model would go on; its thread ends after the token during which the guard blocked."""
    steps = []

    def slowly(*_):
        steps.append(1)
        time.sleep(0.01)

    hook = model.register_forward_hook(slowly)
    _, action = collect(guarded_generate(model, tokenizer, inputs, guard=guard, max_new_tokens=240, min_new_tokens=240))
    hook.remove()
    assert action == Action.BLOCK
    assert 40 < len(steps) < 160


def test_closing_the_generator_ends_the_thread(model, tokenizer, inputs):
    generator = guarded_generate(model, tokenizer, inputs, guard=Guard(GuardPolicy()), max_new_tokens=160)
    assert next(generator)
    generator.close()
    assert no_thread_left()


def test_a_failing_model_releases_nothing_more(model, tokenizer, inputs, monkeypatch):
    calls = []
    forward = model.forward

    def failing(*args, **settings):
        calls.append(1)
        if len(calls) > 30:
            raise RuntimeError("out of memory")
        return forward(*args, **settings)

    monkeypatch.setattr(model, "forward", failing)
    parts = []
    with pytest.raises(ExternalError) as caught:
        parts += guarded_generate(model, tokenizer, inputs, guard=Guard(GuardPolicy()), max_new_tokens=160)
    assert "RuntimeError" in caught.value.why
    assert no_thread_left()


def test_a_failing_guard_ends_the_model(model, tokenizer, inputs, guard, monkeypatch):
    stream = guard.open()
    monkeypatch.setattr(guard, "open", lambda: stream)
    monkeypatch.setattr(stream._reading.session, "step", None)
    with pytest.raises(GuardError):
        list(guarded_generate(model, tokenizer, inputs, guard=guard, max_new_tokens=160))
    assert no_thread_left()


def test_one_prompt_at_a_time(model, tokenizer, guard):
    two = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    with pytest.raises(InvalidInput, match=r"\(2, 3\)"):
        next(guarded_generate(model, tokenizer, two, guard=guard, max_new_tokens=4))
