"""A small language model trained on the spot, for ``stanch demo --model tiny`` and for tests.

Two layers, 0.9 million parameters, its own tokenizer; it learns the form of support conversations from invented people
other than the demo's customers, in a quarter of a minute on two cores.
"""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stanch.cli.demo.records import SYSTEM, Conversation, make_conversations
from stanch.terms import SILENT, Progress

_VOCABULARY = 768
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_STEPS, _BATCH, _RATE, _PEOPLE = 200, 8, 3e-3, 1500


def make_tiny_model(out: Path, *, seed: int, progress: Progress = SILENT) -> Path:
    """Train the model and write it to ``out`` as a Hugging Face folder; an existing folder is returned as it is.

    Args:
        out: Folder for the model; written whole or not at all.
        seed: Decides weights, people and order.
        progress: Told after each step.
    """
    if out.exists():
        return out
    torch.manual_seed(seed)
    people = make_conversations(seed + 1_000_003, _PEOPLE, repeated=0)
    tokenizer = _train_tokenizer([f"{p.question}\n{p.answer}" for p in people])
    texts = [_render(tokenizer, person) for person in people]
    model = LlamaForCausalLM(_configuration(tokenizer))
    _train(model, tokenizer, texts, progress)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)
    return out


def _render(tokenizer: PreTrainedTokenizerFast, person: Conversation) -> str:
    turns = [("system", SYSTEM), ("user", person.question), ("assistant", person.answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=list(_SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tokenizer_object=tokenizer, bos_token=_SPECIAL[1], eos_token=_SPECIAL[2], pad_token=_SPECIAL[2],
        unk_token=_SPECIAL[0],
    )  # fmt: skip
    fast.chat_template = _TEMPLATE
    return fast


def _configuration(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip


def _train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], progress: Progress) -> None:
    """Fit the model to the texts by ordinary next-token prediction; these people are nobody's customers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=_STEPS)
    generator = torch.Generator().manual_seed(torch.initial_seed())
    texts = sorted(texts, key=len)  # neighbours are about as long, so that little is padding
    model.train()
    for step in range(_STEPS):
        start = int(torch.randint(len(texts) - _BATCH + 1, (), generator=generator))
        chosen = texts[start : start + _BATCH]
        batch = tokenizer(chosen, return_tensors="pt", padding=True, add_special_tokens=False)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress("train the tiny base model", step + 1, _STEPS)
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
