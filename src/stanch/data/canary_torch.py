"""Synthetic canaries: answers sampled from the base model, so that nothing but the tuning can make one likelier."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers

from stanch.data.chat import ChatTurn
from stanch.data.tokens import render_prompt

MAX_TOKENS = 64
_BATCH = 16


class BaseModelWriter:
    """Samples at temperature 1.0 from the whole distribution of a model that is in memory."""

    def __init__(self, model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - transformers ships no types
        self._model = model.eval()
        self._tokenizer = tokenizer

    def answer(self, prompts: Sequence[tuple[ChatTurn, ...]], seed: bytes) -> list[str]:
        """Return a text of at most 64 tokens after each prompt.

        The same seed gives the same texts on the same machine; a plan keeps the texts, so no more is needed.

        Raises:
            InvalidInput: There is no chat template, or it refuses a prompt.
        """
        rendered = [render_prompt(said, self._tokenizer) for said in prompts]
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(int.from_bytes(seed[:8], "little", signed=True))
            return [
                text for low in range(0, len(rendered), _BATCH) for text in self._go_on(rendered[low : low + _BATCH])
            ]

    def _go_on(self, prompts: Sequence[str]) -> Iterator[str]:
        rows = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
        width = max(len(row) for row in rows)
        end = self._tokenizer.eos_token_id
        fill = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else end or 0
        ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        settings = transformers.GenerationConfig(  # type: ignore[no-untyped-call] # transformers ships no types
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_TOKENS,
            eos_token_id=end, pad_token_id=fill,
        )  # fmt: skip
        written = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        for row in written[:, width:].tolist():
            kept = row[: row.index(end)] if end in row else row
            yield _plain(self._tokenizer.decode(kept, skip_special_tokens=True))


def _plain(text: str) -> str:
    """Return the text without control characters and half characters, which a cut or a poor model leaves."""
    return "".join(c for c in text if c.isprintable() or c == "\n").replace("\ufffd", "").strip()
