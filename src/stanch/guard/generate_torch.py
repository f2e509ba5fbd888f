"""Guarded generation with a transformers model: what is yielded has passed the guard, and a block ends the work."""

import threading
from collections.abc import Generator, Mapping
from typing import Any

import torch
import transformers

from stanch.errors import ExternalError, InvalidInput
from stanch.guard.policy import Action
from stanch.guard.stream import Guard


def guarded_generate(
    model: Any,  # noqa: ANN401 - a transformers model, untyped
    tokenizer: Any,  # noqa: ANN401 - same
    inputs: Mapping[str, torch.Tensor],
    *,
    guard: Guard,
    max_new_tokens: int,
    **settings: Any,  # noqa: ANN401 - handed on to ``generate`` unchanged
) -> Generator[str, None, Action]:
    """Generate one answer and yield what the guard releases of it, as it is released.

    The model works in a thread of its own, which stops within one token when the guard blocks or the caller closes the
    generator.

    Args:
        model: A causal language model with ``generate``.
        tokenizer: Its tokenizer; special tokens are left out of the answer.
        inputs: What the tokenizer made of the prompt: ``input_ids`` of shape (1, n), and ``attention_mask``.
        guard: The guard; the answer is one string of it.
        max_new_tokens: Most tokens to generate.
        settings: Further settings of ``generate``; decoding is greedy unless they say otherwise.

    Yields:
        Released text, never empty.

    Returns:
        The verdict: ``block`` if the answer was ended.

    Raises:
        InvalidInput: There is not exactly one prompt.
        ExternalError: The model failed; what was held is dropped.
        GuardError: The guard failed; what was held is dropped.
    """
    shape = tuple(inputs["input_ids"].shape)
    if len(shape) != 2 or shape[0] != 1:
        raise InvalidInput(f"guarded generation: expected input_ids of shape (1, n), found {shape}")
    stream = guard.open()
    run = _Run(model, tokenizer, inputs, {"do_sample": False, "max_new_tokens": max_new_tokens} | settings)
    try:
        for text in run.streamer:
            step = stream.feed(text)
            if step.text:
                yield step.text
            if step.action == Action.BLOCK:
                return step.action
        run.check()
        step = stream.finish()
        if step.text:
            yield step.text
        return step.action
    finally:
        run.end()


class _Run:
    """One call of ``generate`` in a thread, from start to :meth:`end`."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a transformers model, untyped
        tokenizer: Any,  # noqa: ANN401 - same
        inputs: Mapping[str, torch.Tensor],
        settings: dict[str, Any],
    ) -> None:
        self.streamer = transformers.TextIteratorStreamer(
            tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self._stop = threading.Event()
        self._failure: Exception | None = None
        given = settings.pop("stopping_criteria", None) or []
        criteria = transformers.StoppingCriteriaList([*given, self._stopped])
        call = {**inputs, **settings, "streamer": self.streamer, "stopping_criteria": criteria}
        self._thread = threading.Thread(target=self._generate, args=(model, call), name="generate", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ``generate`` raised."""
        if self._failure is not None:
            raise ExternalError(
                "generation failed", why=f"{type(self._failure).__name__} in the model's code"
            ) from self._failure

    def end(self) -> None:
        """Stop the thread at its next token and wait for it."""
        self._stop.set()
        self._thread.join()

    def _generate(self, model: Any, call: dict[str, Any]) -> None:  # noqa: ANN401 - a transformers model, untyped
        try:
            model.generate(**call)
        except Exception as error:  # noqa: BLE001 - handed to the thread that reads; see check
            self._failure = error
            self.streamer.text_queue.put(self.streamer.stop_signal)

    def _stopped(self, ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:  # noqa: ANN401 - transformers' signature
        return torch.full((ids.shape[0],), self._stop.is_set(), dtype=torch.bool, device=ids.device)
