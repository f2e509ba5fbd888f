"""What a mark costs: the loss of SmolLM2-135M-Instruct on held text, unmarked and marked at the default strength.

The text is the first :data:`TOKENS` tokens of ``docs/spec/mark.md`` (its digest is in the result). The interval is a
bootstrap over windows of the paired difference: the measurement's noise.

    python benchmarks/bench_mark_utility.py

Writes a part of benchmarks/results/mark-robustness.json.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_mark import BEACON, NAMES, ROOT, SMOLLM, keep
from transformers import AutoModelForCausalLM, AutoTokenizer

from stanch.mark import RecipientSlot, commit, copy_key, embed, plan_mark

TEXT = Path(__file__).parents[1] / "docs" / "spec" / "mark.md"
WINDOWS, LENGTH, DRAWS = 16, 128, 10_000
TOKENS = WINDOWS * LENGTH


def losses(model: torch.nn.Module, tokens: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return each window's mean loss in nats a token."""
    found = []
    with torch.inference_mode():
        for window in tokens.reshape(WINDOWS, 1, LENGTH):
            scores = model(window).logits[0, :-1].float()
            found.append(float(torch.nn.functional.cross_entropy(scores, window[0, 1:])))
    return np.array(found)


def main() -> None:
    """Write the losses and the interval of the change."""
    torch.set_num_threads(1)
    text = TEXT.read_text(encoding="utf-8")
    tokens = AutoTokenizer.from_pretrained(SMOLLM)(text, return_tensors="pt").input_ids[0, :TOKENS]
    plan = plan_mark(SMOLLM)
    key = copy_key(commit(plan, ROOT, [RecipientSlot(NAMES[0])], decoys=1), NAMES[0], beacon=BEACON)
    with tempfile.TemporaryDirectory() as folder:
        embed(SMOLLM, Path(folder) / "copy", plan, key)
        before, after = (
            losses(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), tokens)
            for path in (SMOLLM, Path(folder) / "copy")
        )
    change, generator = after - before, np.random.default_rng(1)
    means = change[generator.integers(0, WINDOWS, (DRAWS, WINDOWS))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    result: dict[str, object] = {
        "model": SMOLLM.name, "alpha": plan.alpha, "tokens": TOKENS,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "loss": round(float(before.mean()), 4), "change": round(float(change.mean()), 5),
        "interval_95": [round(float(low), 5), round(float(high), 5)],
    }  # fmt: skip
    keep("utility", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
