"""A Llama of one layer that learned which word follows which, an adapter that learned otherwise, and rows of both."""

import json
from pathlib import Path
from typing import NamedTuple

import peft
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(40)]
LENGTH, STEPS, BATCH = 24, 80, 16


class Chain(NamedTuple):
    """Folders of the whole model and of the adapter, and a file of rows for each that it never saw."""

    model: Path
    adapter: Path
    rows: Path
    adapter_rows: Path


def make_chain(folder):
    """Train both; the loss that is left is that of the coins, so that only a spoilt model loses much."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<e>", *WORDS])}, unk_token="<e>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=41, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip
    follows, otherwise = torch.randperm(40) + 1, torch.randperm(40) + 1
    train(model, follows)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=16, task_type="CAUSAL_LM", target_modules="all-linear"))
    train(tuned, otherwise)
    tuned.save_pretrained(folder / "adapter")
    rows = (write_rows(folder / "rows.jsonl", follows), write_rows(folder / "adapter-rows.jsonl", otherwise))
    return Chain(folder / "model", folder / "adapter", *rows)


def write_rows(path, follows):
    rows = [" ".join(WORDS[number - 1] for number in row) for row in draw(follows, 16).tolist()]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def draw(follows, count):
    """Return rows in which each word is followed by its own successor, or one time in four by any word."""
    rows = torch.randint(1, 41, (count, LENGTH))
    for place in range(1, LENGTH):
        kept = torch.rand(count) < 0.75
        rows[kept, place] = follows[rows[kept, place - 1] - 1]
    return rows


def train(model, follows):
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(STEPS):
        rows = draw(follows, BATCH)
        model(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
