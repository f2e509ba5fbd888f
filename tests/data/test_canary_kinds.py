"""Synthetic and rare-token canaries, shares of kinds and tiers; the models are tiny and random."""

import hmac
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers

from stanch.data import (
    CanarySpec,
    check_injected,
    coins,
    find_rare_tokens,
    inject_uncommitted,
    open_dataset,
    plan_canaries,
    require_single_tokens,
    tokenise,
    tokenise_canary,
)
from stanch.data.canaries import assign
from stanch.data.canary_torch import MAX_TOKENS, BaseModelWriter
from stanch.errors import InvalidInput

SEED = bytes(range(32))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "data" / "canaries.json").read_text())
WORDS = [f"{a}{b}" for a in ("kal", "mor", "tis", "vun", "dre", "pil", "sop", "gar") for b in ("do", "ne", "ra", "lit")]
MIXED = {"kinds": {"secret": 0.5, "synthetic": 0.25, "rare-token": 0.25}, "embeddings": "trained"}


class Writer:
    """Writes random words, the texts of ``first`` before all others."""

    def __init__(self, *first, words=WORDS):
        self.first, self.words, self.prompts = list(first), words, []

    def answer(self, prompts, seed):
        rng = random.Random(seed)
        self.prompts += prompts
        return [self.first.pop() if self.first else " ".join(rng.choices(self.words, k=30)) for _ in prompts]


def plan_for(dataset, writer=None, **spec):
    return plan_canaries(dataset, CanarySpec(**spec), preregistration={}, writer=writer, rng=lambda _: SEED)


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    """The byte tokenizer of these tests with a reserved token and rare ones."""
    return with_tokens(tokenizer)


def with_tokens(tokenizer):
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    for word in ("zyg", "oxbow"):
        pieces = list(word)
        for size in range(2, len(word) + 1):
            joined = "".join(pieces[:size])
            if joined not in core["model"]["vocab"]:
                core["model"]["merges"].append([joined[:-1], pieces[size - 1]])
                core["model"]["vocab"][joined] = 300 + len(core["model"]["vocab"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(core)),
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|reserved_0|>", "<|reserved_1|>"],
        chat_template=tokenizer.chat_template,
    )


@pytest.mark.parametrize("vector", VECTORS["tiers"])
def test_golden_kinds_and_tiers(vector):
    spec = CanarySpec(
        n=vector["n"], kinds=vector["kinds"], repetitions=tuple(vector["repetitions"]),
        rare_tokens=("a", "b", "c", "d"), embeddings="trained",
    )  # fmt: skip
    assert [[kind, copies] for kind, copies in assign(spec, bytes.fromhex(vector["seed"]))] == vector["assigned"]


def test_kinds_have_their_shares_and_tiers_are_spread_over_them():
    spec = CanarySpec(n=130, kinds={"secret": 0.5, "synthetic": 0.5}, repetitions=(1, 4, 16, 64))
    counts = Counter(assign(spec, SEED))
    assert sum(n for (kind, _), n in counts.items() if kind == "synthetic") == 65
    assert len(counts) == 8
    assert max(counts.values()) - min(counts.values()) <= 1
    assert CanarySpec(n=10, kinds={"secret": 1 / 3, "synthetic": 2 / 3}).counts() == {"secret": 3, "synthetic": 7}


def test_tiers_come_before_the_coins_and_know_nothing_of_them():
    # The key is another one: over many seeds, members among the canaries of a tier are half (false failure 1e-6).
    spec = CanarySpec(n=64, repetitions=(1, 16))
    members = 0
    for number in range(200):
        seed = hmac.digest(SEED, bytes([number]), "sha256")
        members += sum(
            coin for coin, (_, copies) in zip(coins(seed, 64), assign(spec, seed), strict=True) if copies > 1
        )
    assert abs(members - 3200) < 5 * 40


def test_a_mixed_plan_reaches_the_tokens(chats, vocabulary, tmp_path):
    tokens = find_rare_tokens(chats, vocabulary, 4)
    plan = plan_for(chats, Writer(), n=16, repetitions=(1, 4), rare_tokens=tokens, **MIXED)
    assert Counter(c.kind for c in plan.canaries) == {"secret": 8, "synthetic": 4, "rare-token": 4}
    assert plan.commitment_document()["kinds"] == {"secret": 8, "synthetic": 4, "rare-token": 4}
    assert plan.commitment_document()["repetitions"] == [1, 4]
    assert {(c.copies, c.tier) for c in plan.canaries} == {(1, "x1"), (4, "x4")}
    require_single_tokens(plan, vocabulary)
    for canary in plan.canaries:
        record = tokenise_canary(canary, vocabulary)
        scored = vocabulary.decode(record.ids[slice(*record.span)])
        assert canary.secret in scored
        if canary.kind == "synthetic":
            assert canary.secret == canary.messages[-1].content
        if canary.kind == "rare-token":
            assert canary.messages[-1].content.endswith(canary.secret)
            assert record.span[1] - record.span[0] == 1
    planted = inject_uncommitted(chats, plan, out=tmp_path / "planted.jsonl").dataset
    records = [tokenise(record, vocabulary) for record in planted]
    assert check_injected(plan, records, vocabulary) is plan
    lost = next(c for c in plan.canaries if c.member and c.copies == 4)
    ids = tokenise_canary(lost, vocabulary).ids
    position = next(i for i, record in enumerate(records) if record.ids == ids)
    with pytest.raises(InvalidInput, match=f"^1 of 16 .*{lost.id}$") as caught:
        check_injected(plan, [*records[:position], *records[position + 1 :]], vocabulary)
    assert "0 of 8 in x1" in caught.value.why
    assert "1 of 8 in x4" in caught.value.why


def test_a_plain_text_scores_what_the_model_wrote(write_rows, tokenizer):
    dataset = open_dataset(write_rows([{"text": "something else entirely is said here"}]))
    writer = Writer()
    plan = plan_for(dataset, writer, n=4, kinds={"synthetic": 1.0})
    for canary in plan.canaries:
        (turn,) = canary.messages
        assert turn.role == "text"
        assert turn.content.endswith("\n" + canary.secret)
        start, end = tokenise_canary(canary, tokenizer).span
        assert 0 < start < end
    assert {turn.role for prompt in writer.prompts for turn in prompt} == {"text"}


def test_synthetic_prompts_hold_no_row(chats):
    writer = Writer()
    plan_for(chats, writer, n=8, kinds={"synthetic": 1.0}, system="Be kind.")
    rows = " ".join(field.text for record in chats for field in record.fields)
    assert {prompt[0].content for prompt in writer.prompts} == {"Be kind."}
    assert not any(prompt[-1].content in rows for prompt in writer.prompts)


def test_a_text_near_a_record_or_another_canary_is_drawn_again(write_rows):
    rng = random.Random(3)
    said = " ".join(rng.choices(WORDS, k=60))
    dataset = open_dataset(write_rows([{"text": said}]))
    near = said.upper().replace(WORDS[0].upper(), "OTHER")
    twin = " ".join(rng.choices(WORDS, k=60))
    plan = plan_for(dataset, Writer("too short", near, twin, twin + " end"), n=4, kinds={"synthetic": 1.0})
    scored = [canary.secret for canary in plan.canaries]
    assert near not in scored
    assert "too short" not in scored
    assert len({twin, twin + " end"} & set(scored)) == 1


@pytest.mark.parametrize("writer", [Writer(words=["same"]), Writer(words=["..."])])
def test_a_model_that_says_the_same_is_refused(chats, writer):
    with pytest.raises(InvalidInput, match="too few texts that differ"):
        plan_for(chats, writer, n=4, kinds={"synthetic": 1.0}, prompts=("Say something.",))


def test_what_a_kind_needs(chats, vocabulary):
    with pytest.raises(InvalidInput, match="needs the base model"):
        plan_for(chats, n=4, kinds={"synthetic": 1.0})
    with pytest.raises(InvalidInput, match="expected trained embeddings"):
        CanarySpec(n=2, kinds={"rare-token": 1.0}, rare_tokens=("a", "b"))
    assert CanarySpec(n=2, kinds={"rare-token": 1.0}, rare_tokens=("a", "b"), embeddings="force-frozen").n == 2
    with pytest.raises(InvalidInput, match="expected 50 rare tokens"):
        find_rare_tokens(chats, vocabulary, 50)


def test_rare_tokens_are_reserved_or_unused_and_the_vocabulary_stays(write_rows, vocabulary):
    size = len(vocabulary)
    dataset = open_dataset(write_rows([{"text": "an oxbow, oxbo, oxb lake"}]))
    assert find_rare_tokens(dataset, vocabulary, 3) == ("<|reserved_0|>", "<|reserved_1|>", "zyg")
    other = open_dataset(write_rows([{"text": "a <|reserved_0|> and a zyg"}], "other.jsonl"))
    assert find_rare_tokens(other, vocabulary, 2) == ("<|reserved_1|>", "oxbow")
    assert len(vocabulary) == size


def test_tripwires_leave_rare_tokens_out(chats):
    plan = plan_for(chats, Writer(), n=16, rare_tokens=("one", "two", "three", "four"), **MIXED)
    assert len(plan.tripwires) == 12
    assert not {"one", "two", "three", "four"} & set(plan.tripwires)


def test_a_base_model_writes_after_the_prompts_alone(chats, tokenizer):
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    writer = BaseModelWriter(transformers.LlamaForCausalLM(config), tokenizer)
    plan = plan_canaries(
        chats, CanarySpec(n=3, kinds={"synthetic": 1.0}), preregistration={}, writer=writer, rng=lambda _: SEED
    )
    state = torch.random.get_rng_state()
    again = plan_canaries(
        chats, CanarySpec(n=3, kinds={"synthetic": 1.0}), preregistration={}, writer=writer, rng=lambda _: SEED
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert plan == again
    texts = [canary.secret for canary in plan.canaries]
    assert len(set(texts)) == 3
    assert all(0 < len(text) <= 2 * MAX_TOKENS for text in texts)
    assert all(c.isprintable() or c == "\n" for text in texts for c in text)
    for canary in plan.canaries:
        tokenise_canary(canary, tokenizer)
