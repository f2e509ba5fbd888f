"""A frozen causal language model, split into body and head, that gives the loss of a pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from stanch.errors import InvalidInput
from stanch.tune.chunks import Row
from stanch.tune.lora_torch import Adapter, insert_adapter
from stanch.tune.loss_torch import token_losses
from stanch.tune.plan import ParameterShape
from stanch.tune.prefix_torch import FrozenPrefix
from stanch.tune.refusals import UnsupportedModule
from stanch.tune.spec import MethodSpec

_PROBE_TOKENS = 24
_SHORT = 256


class CausalModel:
    """A frozen base model with an adapter.

    Attributes:
        model: The transformers model.
        body: What turns token ids into hidden states.
        head: The frozen output layer.
        adapter: The trainable part.
    """

    def __init__(self, model: Any, method: MethodSpec) -> None:  # noqa: ANN401 - transformers ships no types
        self.model = model.eval()
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        self._check_head()
        self.adapter: Adapter = insert_adapter(model, self.head, method)
        self._prefix = FrozenPrefix.of(self.body, self.adapter.first_decoder_layer(), self.probe())

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Return the sum over the rows of weight times token losses.

        Rows are padded on the right without an attention mask: attention is causal, so nothing labelled looks at
        padding, and the gradient at padding is exactly zero.
        """
        lengths = [len(row.record.ids) for row in rows]
        width = max(lengths)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = torch.tensor(row.record.ids)
        hidden = self._hidden(rows, ids)
        labelled = [row.record.labelled for row in rows]
        places = torch.tensor([index * width + place for index, own in enumerate(labelled) for place in own]).long()
        weights = torch.tensor([row.weight for row, own in zip(rows, labelled, strict=True) for _ in own])
        # The hidden state before a token predicts it.
        before = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places - 1)
        losses = token_losses(before, self.head, ids.reshape(-1)[places])
        total: Tensor = (losses * weights).sum()
        return total

    def probe(self) -> Tensor:
        """Return (1, 24) public token ids, spread over the vocabulary."""
        vocabulary: int = self.head.out_features
        return (torch.arange(1, _PROBE_TOKENS + 1) * 7919 % vocabulary)[None]

    def probe_loss(self) -> float:
        """Return the mean token loss on the public probe."""
        ids = self.probe()
        with torch.no_grad():
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
            return float(token_losses(hidden, self.head, ids[0, 1:]).mean())

    def _hidden(self, rows: Sequence[Row], ids: Tensor) -> Tensor:
        if self._prefix is not None:
            return self._prefix.finish([row.record for row in rows], ids.shape[1])
        hidden: Tensor = self.body(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def _check_head(self) -> None:
        """Refuse models that do more to logits than their head does, such as scaling or capping."""
        ids = self.probe() if type(self.head) is nn.Linear else None
        if ids is not None:
            with torch.no_grad():
                own = self.model(input_ids=ids, use_cache=False).logits
                ours = self.head(self.body(input_ids=ids, use_cache=False).last_hidden_state)
            if torch.allclose(own, ours, rtol=1e-3, atol=1e-3):
                return
        raise UnsupportedModule(
            f"{type(self.model).__name__}: its logits are not its head applied to its hidden states",
            why="the loss is computed from hidden states and head",
            next_step="use a model of the Llama family or another without scaled or capped logits",
        )


def load_causal_model(base: Path, method: MethodSpec, *, dtype: torch.dtype, longest: int) -> CausalModel:
    """Load the checked base model from safetensors and put the adapter in.

    Args:
        base: Folder that passed :func:`stanch.tune.intake.check_base`.
        method: The adapter.
        dtype: Of the frozen weights.
        longest: Tokens of the longest record.
    """
    # Measured on two x86 cores at 64 tokens: the fused attention's backward pass takes five times as long in bfloat16.
    return CausalModel(load_base(base, dtype=dtype, attention="eager" if longest <= _SHORT else "sdpa"), method)


def load_base(base: Path, *, dtype: torch.dtype, attention: str = "eager") -> Any:  # noqa: ANN401 - transformers ships no types
    """Load a base model from safetensors, without network, foreign code or a progress bar.

    Raises:
        InvalidInput: transformers cannot read it.
    """
    try:
        with without_bars():
            return AutoModelForCausalLM.from_pretrained(
                base,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation=attention,
            )
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{base}: the base model cannot be loaded", why=type(error).__name__) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing its progress bars; what is shown is the caller's choice."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers types little
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # same


def trainable_shapes(base: Path, method: MethodSpec) -> tuple[ParameterShape, ...]:
    """Return what would be trained, from the configuration alone: no weights are read."""
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]  # transformers types little
    return insert_adapter(model, model.get_output_embeddings(), method).shapes()
