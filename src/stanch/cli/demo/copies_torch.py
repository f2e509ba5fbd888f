"""What happens to copies of the demo's model: compared, stolen, merged, quantised, tuned further."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from stanch.seal import OpenBundle
from stanch.seal.load_torch import load_adapter
from stanch.terms import SILENT, Progress
from stanch.weights import directory_digest

PROBE = "Help desk notes.\nWho is calling?"
_STEPS, _BATCH, _LENGTH, _RATE = 16, 8, 32, 5e-4


def logits_of_sealed(opened: OpenBundle, base: Path) -> torch.Tensor:
    """Return the logits of a sealed adapter on the probe text; nothing is written."""
    model: Any = _open_base(base)
    return _logits(load_adapter(opened, model, base_digest=directory_digest(base).root), base)


def logits_of_folder(adapter: Path, base: Path) -> torch.Tensor:
    """Return the logits of a plaintext adapter folder on the probe text."""
    model: Any = _open_base(base)
    return _logits(PeftModel.from_pretrained(model, str(adapter), local_files_only=True), base)


def _open_base(base: Path) -> Any:  # noqa: ANN401 - transformers leaves models untyped
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)


def _logits(model: Any, base: Path) -> torch.Tensor:  # noqa: ANN401 - transformers and peft leave models untyped
    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**tokenizer(PROBE, return_tensors="pt")).logits
    return logits


def steal(adapter: Path, base: Path, out: Path, *, seed: int, progress: Progress = SILENT) -> Path:
    """Do what a thief does: merge the adapter into the base, round to int8, tune further on other text, save.

    Args:
        adapter: A recipient's copy, in plain.
        base: The base model.
        out: The thief's model.
        seed: Of the further tuning.
        progress: Told after each step.
    """
    torch.manual_seed(seed)
    model: Any = _open_base(base)
    merged: Any = PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()
    for module in merged.modules():
        if isinstance(module, torch.nn.Linear) and module is not merged.get_output_embeddings():
            module.weight.data = round_int8(module.weight.data)
    tuned: Any = get_peft_model(merged, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    _tune_further(tuned, base, progress)
    final: Any = tuned.merge_and_unload()
    final.to(torch.bfloat16).save_pretrained(out)
    return out


def round_int8(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight matrix after symmetric int8 quantisation per output channel and back."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def _tune_further(model: Any, base: Path, progress: Progress) -> None:  # noqa: ANN401 - peft leaves models untyped
    """Fit the model to text that has nothing to do with the customers: the licence of this project."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    ids = torch.tensor(tokenizer(_OTHER_TEXT * 8)["input_ids"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_RATE)
    model.train()
    for step in range(_STEPS):
        starts = torch.randint(0, len(ids) - _LENGTH, (_BATCH,)).tolist()
        batch = torch.stack([ids[start : start + _LENGTH] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        progress("the thief tunes further", step + 1, _STEPS)


_OTHER_TEXT = (
    "The harbour wakes before the town does. Nets are hung to dry along the wall, and the boats that came in late lie "
    "two abreast. A bell marks the hour; a dog answers it. By seven the market is loud with prices: plaice, mackerel, "
    "a basket of crabs. The lighthouse keeper buys bread and talks about the fog, which he calls a guest. In winter "
    "the ferry runs twice a day, and letters arrive in bundles. Children count the steps of the mole and never agree. "
    "When the wind turns north the old men look at the flags and say nothing, and everyone brings the washing in. "
)


def ask(adapter: Path, base: Path, questions: list[list[dict[str, str]]], *, tokens: int) -> list[str]:
    """Return the model's greedy answers to chat questions."""
    model: Any = _open_base(base)
    model = PeftModel.from_pretrained(model, str(adapter), local_files_only=True).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    answers = []
    for messages in questions:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        answers.append(str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)))
    return answers
