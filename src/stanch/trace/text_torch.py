"""The hook for generation: transformers' SynthID text watermark under a tenant's keys."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import SynthIDTextWatermarkingConfig

from stanch.errors import InvalidInput
from stanch.trace.text_keys import DEPTH
from stanch.trace.text_scores import HISTORY, NGRAM, TABLE_SIZE, sampling_table


class TextMark(SynthIDTextWatermarkingConfig):
    """What ``model.generate(…, watermarking_config=…)`` takes. It shows no key when printed or saved.

    transformers draws the table of bits on the model's device, and a GPU draws another one than a CPU, so that a text
    made on one could not be recognised on the other. Here the table is the published one everywhere.
    """

    def construct_processor(  # type: ignore[override]  # as its own parent, which ignores the base class's signature
        self,
        vocab_size: int,
        device: Any,  # noqa: ANN401 - a torch device or its name
    ) -> Any:  # noqa: ANN401 - transformers is untyped
        """Return the processor that generation applies last."""
        processor: Any = super().construct_processor(vocab_size, device)
        processor.sampling_table = torch.tensor(sampling_table(), dtype=torch.long, device=device)
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Return the settings without the keys: generation configurations are logged and saved beside models."""
        return {name: value for name, value in vars(self).items() if name != "keys"}

    def to_json_string(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def __repr__(self) -> str:
        return f"TextMark(ngram_len={self.ngram_len}, depth={len(self.keys)})"


def text_mark(keys: Sequence[int]) -> TextMark:
    """Return the watermark of a tenant, for ``generate`` or ``guarded_generate`` with ``do_sample=True``.

    Text that is decoded greedily leaves no choice to the watermark: its quality suffers, and it is not recognised.

    Raises:
        InvalidInput: The keys are not 30 numbers of 31 bits.
    """
    if len(keys) != DEPTH or not all(0 <= key < 1 << 31 for key in keys):
        raise InvalidInput(f"text watermark: expected {DEPTH} keys of 31 bits")
    return TextMark(
        ngram_len=NGRAM, keys=list(keys), context_history_size=HISTORY, sampling_table_size=TABLE_SIZE,
        sampling_table_seed=0,
    )  # fmt: skip
