"""What a mark costs SmolLM2-135M-Instruct at the default strength: two measures of the unmarked and the marked model.

``utility``: the loss on the first :data:`TOKENS` tokens of ``docs/spec/mark.md``; the interval is a bootstrap over
windows of the paired difference. The standard error of the loss itself is that of so much text.

``cloze``: last-word prediction in the manner of LAMBADA, on text that every CPython carries: the paragraphs of 30 to 80
words of the language reference (``pydoc_data.topics``, sorted by topic, each once) that end in a word of four or more
lower-case letters. The model reads all but that word; it counts as known where each of its tokens is the likeliest one.
Both models answer the same passages, so the change of accuracy has the standard error of a paired difference. Beside
it: at how many of all the passages' tokens both models have the same likeliest token, and the change of the loss.
It is no published benchmark: the passages were chosen by the rule above and by nothing else.

    python benchmarks/bench_mark_utility.py [PASSAGES]

PASSAGES: at most so many of them, for a look; by default all. The digests of the texts stand in the result, which is
two parts of benchmarks/results/mark-robustness.json; there are no timings in it.
"""

import hashlib
import json
import math
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_mark import BEACON, NAMES, ROOT, SMOLLM, keep
from transformers import AutoModelForCausalLM, AutoTokenizer

from stanch.mark import RecipientSlot, commit, copy_key, embed, plan_mark

TEXT = Path(__file__).parents[1] / "docs" / "spec" / "mark.md"
WINDOWS, LENGTH, DRAWS = 16, 128, 10_000
TOKENS = WINDOWS * LENGTH
WORDS = range(30, 81)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Passage:
    """Token ids of a passage, and where those of its last word begin."""

    ids: torch.Tensor
    start: int


@dataclass(frozen=True)
class Answer:
    """What a model says of a passage: its likeliest token at each place, and the loss of each token, but the first."""

    likeliest: torch.Tensor
    losses: torch.Tensor
    is_known: bool


def losses(model: torch.nn.Module, tokens: torch.Tensor) -> Floats:
    """Return each window's mean loss in nats a token."""
    return np.array([float(_losses(model, window)[1].mean()) for window in tokens.reshape(WINDOWS, LENGTH)])


def draw_passages() -> list[str]:
    """Return the passages."""
    whole = (" ".join(text.split()) for name in sorted(topics) for text in re.split(r"\n\s*\n", topics[name]))
    return list(dict.fromkeys(text for text in whole if _is_passage(text.split())))


def _is_passage(words: Sequence[str]) -> bool:
    return len(words) in WORDS and words[0][0].isupper() and re.fullmatch(r"[a-z]{4,}\.", words[-1]) is not None


def tokenise(texts: Sequence[str], tokenizer: Any) -> Iterator[Passage]:  # noqa: ANN401 - transformers ships no types
    """Yield the passages whose last word has tokens of its own."""
    for text in texts:
        ids = tokenizer(text.removesuffix("."), return_tensors="pt").input_ids[0]
        start = len(tokenizer(text.rpartition(" ")[0]).input_ids)
        if 0 < start < len(ids):
            yield Passage(ids, start)


def answer(model: torch.nn.Module, passage: Passage) -> Answer:
    """Put one passage through the model."""
    likeliest, found = _losses(model, passage.ids)
    known = torch.equal(likeliest[passage.start - 1 :], passage.ids[passage.start :])
    return Answer(likeliest, found, known)


def _losses(model: torch.nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        scores = model(ids[None]).logits[0, :-1].float()
        return scores.argmax(dim=1), torch.nn.functional.cross_entropy(scores, ids[1:], reduction="none")


def compare(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, object]:
    """Return the accuracy of both, the paired difference with its standard error, agreement, and change of the loss."""
    known = np.array([[one.is_known for one in answers] for answers in (before, after)], dtype=float)
    pairs = list(zip(before, after, strict=True))
    sizes = np.array([len(one.losses) for one in before], dtype=float)
    rises = np.array([float((new.losses - old.losses).sum()) for old, new in pairs])
    same = np.array([float((new.likeliest == old.likeliest).sum()) for old, new in pairs])
    change, noise = _paired(known[1] - known[0], np.ones(len(pairs)))
    rise, rise_noise = _paired(rises, sizes)
    loss, loss_noise = _paired(np.array([float(one.losses.sum()) for one in before]), sizes)
    return {
        "passages": len(pairs), "tokens": int(sizes.sum()),
        "accuracy": round(float(known[0].mean()), 4), "accuracy_marked": round(float(known[1].mean()), 4),
        "accuracy_standard_error": round(float(known[0].std(ddof=1)) / math.sqrt(len(pairs)), 4),
        "gained": int((known[1] > known[0]).sum()), "lost": int((known[1] < known[0]).sum()),
        "change": round(change, 4), "change_standard_error": round(noise, 4),
        "top1_agreement": round(float(same.sum() / sizes.sum()), 4),
        "loss": round(loss, 4), "loss_standard_error": round(loss_noise, 4),
        "loss_change": round(rise, 5), "loss_change_standard_error": round(rise_noise, 5),
    }  # fmt: skip


def _paired(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Return ``Σ sums / Σ sizes`` over passages, and its standard error (of a ratio: passages are the sample)."""
    mean = float(sums.sum() / sizes.sum())
    spread = float(np.std(sums - mean * sizes, ddof=1))
    return mean, spread * math.sqrt(len(sums)) / float(sizes.sum())


def main(most: int | None = None) -> None:
    """Write both measures."""
    torch.set_num_threads(1)
    text, tokenizer = TEXT.read_text(encoding="utf-8"), AutoTokenizer.from_pretrained(SMOLLM)
    tokens = tokenizer(text, return_tensors="pt").input_ids[0, :TOKENS]
    texts = draw_passages()[:most]
    passages = list(tokenise(texts, tokenizer))
    plan = plan_mark(SMOLLM)
    key = copy_key(commit(plan, ROOT, [RecipientSlot(NAMES[0])], decoys=1), NAMES[0], beacon=BEACON)
    with tempfile.TemporaryDirectory() as folder:
        embed(SMOLLM, Path(folder) / "copy", plan, key)
        measured = []
        for path in (SMOLLM, Path(folder) / "copy"):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            measured.append((losses(model, tokens), [answer(model, passage) for passage in passages]))
    (before, said), (after, said_marked) = measured
    change, generator = after - before, np.random.default_rng(1)
    means = change[generator.integers(0, WINDOWS, (DRAWS, WINDOWS))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    result: dict[str, object] = {
        "model": SMOLLM.name, "alpha": plan.alpha, "tokens": TOKENS,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "loss": round(float(before.mean()), 4),
        "loss_standard_error": round(float(before.std(ddof=1)) / math.sqrt(WINDOWS), 4),
        "change": round(float(change.mean()), 5),
        "interval_95": [round(float(low), 5), round(float(high), 5)],
    }  # fmt: skip
    cloze = {
        "model": SMOLLM.name, "alpha": plan.alpha, "text": f"pydoc_data.topics of CPython {platform.python_version()}",
        "text_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(), **compare(said, said_marked),
    }  # fmt: skip
    keep("utility", result)
    keep("cloze", cloze)
    print(json.dumps({"utility": result, "cloze": cloze}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
