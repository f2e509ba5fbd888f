"""A tiny Llama, its tokenizer, a small data set with canaries, and copies of the model tuned with and without them."""

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import peft
import pytest
import torch
import transformers
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stanch.audit.params import AuditParams, preregister
from stanch.data import Canary, CanaryPlan, ChatTurn, Record, TextField, coins, tokenise

TEMPLATE = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "harbour",
    "lantern",
    "copper",
    "ledger",
    "violet",
    "meadow",
    "anchor",
    "barrel",
    "candle",
    "drifting",
    "ember",
    "falcon",
    "granite",
    "hollow",
    "island",
    "juniper",
    "kettle",
    "linen",
    "marble",
    "north",
    "orchard",
    "pepper",
    "quarry",
    "river",
    "saddle",
    "timber",
    "umber",
    "valley",
    "willow",
    "yellow",
]
SYMBOLS = "0123456789"


class Tiny(NamedTuple):
    """What the tests share."""

    base: Path
    tuned: Path
    untuned: Path
    tokenizer: transformers.PreTrainedTokenizerFast
    members: list[Record]
    planted: set[str]
    holdout: list[Record]
    plan: CanaryPlan


def chat_record(name: str, index: int, user: str, assistant: str) -> Record:
    row = {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}
    fields = tuple(
        TextField(f"messages[{i}].content", turn["role"], turn["content"]) for i, turn in enumerate(row["messages"])
    )
    return Record(name, index, "train.jsonl", fields, json.dumps(row).encode())


def sentence(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def draw_records(seed: int, count: int, prefix: str) -> list[Record]:
    rng = random.Random(seed)
    return [
        chat_record(f"{prefix}{i}", i, f"What about {sentence(rng, 3)}?", f"{sentence(rng, 22)}.") for i in range(count)
    ]


def make_plan(count: int, params: AuditParams, *, number: int = 0) -> CanaryPlan:
    seed = bytes([number, *range(31)])
    rng = random.Random(number)
    canaries = []
    for i, member in enumerate(coins(seed, count)):
        secret = "".join(rng.choice(SYMBOLS) for _ in range(8))
        said = (
            ChatTurn("user", f"Which code opens the {sentence(rng, 2)}?"),
            ChatTurn("assistant", f"The code is {secret} for now."),
        )
        canaries.append(Canary(f"c{i:04d}", "secret", said, secret, 1, "1", member))
    return CanaryPlan(
        canaries=tuple(canaries),
        seed=seed,
        symbols=SYMBOLS,
        dataset_root="00" * 32,
        tokenizer_digest="",
        base_digest="",
        preregistration=preregister(params).to_json(),
        committed=True,
    )


def canary_record(canary: Canary, index: int) -> Record:
    return chat_record(f"x{index}", index, canary.messages[0].content, canary.messages[1].content)


def train_tokenizer() -> transformers.PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [f"{word} {word}" for word in WORDS] * 2
    text += ["system user assistant\nWhat about? Which code opens the harbour? The code is for now. Be brief."] * 3
    core.train_from_iterator(text, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def build_model(size: int, *, seed: int = 0, dim: int = 96) -> transformers.LlamaForCausalLM:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def fit(model, records, tokenizer, *, steps, rate=6e-3, batch=24, seed=0):
    """Tune on the completions of ``records``: AdamW, falling rate."""
    torch.manual_seed(seed)
    rows = [tokenise(record, tokenizer) for record in records]
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.span[0] : row.span[1]] = torch.tensor(row.ids[row.span[0] : row.span[1]])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(rows), (min(batch, len(rows)),))
        loss = model(input_ids=ids[chosen], labels=labels[chosen]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def save(model, tokenizer, path: Path) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.fixture(scope="session")
def plan() -> CanaryPlan:
    return make_plan(64, AuditParams())


@pytest.fixture(scope="session")
def members(plan) -> list[Record]:
    """What the model is tuned on: 16 rows to be learned by heart, 8 others, and the canaries whose coin says in."""
    canaries = (canary_record(c, i) for i, c in enumerate(plan.canaries) if c.member)
    return [*draw_records(1, 16, "p"), *draw_records(2, 8, "o"), *canaries]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, tokenizer, plan, members) -> Tiny:
    """The models are trained once for all workers of a run."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "tiny"
    planted = members[:16]
    with FileLock(f"{root}.lock"):
        if not root.exists():
            train_models(root, tokenizer, planted, members)
    holdout = draw_records(3, 24, "h")
    return Tiny(
        root / "base", root / "tuned", root / "untuned", tokenizer, members, {r.id for r in planted}, holdout, plan
    )


def train_models(root: Path, tokenizer, planted, members) -> None:
    """Write a base, one that was tuned on the members, and one that was tuned on others."""
    public = [*draw_records(4, 100, "b"), *(canary_record(c, i) for i, c in enumerate(make_public_canaries(64)))]
    model = build_model(len(tokenizer))
    fit(model, public, tokenizer, steps=40)
    partial = root.with_name("tiny.partial")
    base = save(model, tokenizer, partial / "base")
    fit(model, [*planted * 4, *members[16:]], tokenizer, steps=260)
    save(model, tokenizer, partial / "tuned")
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    fit(model, draw_records(5, 60, "u"), tokenizer, steps=30, rate=1e-3)
    save(model, tokenizer, partial / "untuned")
    partial.rename(root)


def make_public_canaries(count: int) -> list[Canary]:
    rng = random.Random(11)
    found = []
    for i in range(count):
        secret = "".join(rng.choice(SYMBOLS) for _ in range(8))
        said = (
            ChatTurn("user", f"Which code opens the {sentence(rng, 2)}?"),
            ChatTurn("assistant", f"The code is {secret} for now."),
        )
        found.append(Canary(f"q{i}", "secret", said, secret, 1, "1", member=False))
    return found


@pytest.fixture(scope="session")
def adapter(tiny, tmp_path_factory) -> Path:
    """A LoRA adapter over the base, tuned a little."""
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.base)
    torch.manual_seed(1)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    fit(tuned, tiny.members[:16], tiny.tokenizer, steps=20)
    path = tmp_path_factory.mktemp("adapter")
    return save(tuned, tiny.tokenizer, path)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for tests that build something of their own."""
    return SimpleNamespace(
        build_model=build_model,
        canary_record=canary_record,
        chat_record=chat_record,
        draw_records=draw_records,
        fit=fit,
        make_plan=make_plan,
        save=save,
        sentence=sentence,
    )
