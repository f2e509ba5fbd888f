"""A causal language model, split into body and head, that gives the loss of a pass."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from stanch.errors import InvalidInput
from stanch.tune.bookkeeping_torch import FullWeights
from stanch.tune.chunks import Row
from stanch.tune.lora_torch import Adapter, insert_adapter
from stanch.tune.loss_torch import Collect, OutputLayer, token_losses
from stanch.tune.plan import ParameterShape
from stanch.tune.prefix_torch import FrozenPrefix
from stanch.tune.refusals import UnsupportedModule
from stanch.tune.spec import MethodSpec

_PROBE_TOKENS = 24
_SHORT = 256
_PROCESSOR = torch.device("cpu")


class CausalModel:
    """A base model and what is trained of it.

    Args:
        model: The transformers model.
        method: An adapter, or all weights.
        autocast: The dtype of products; None computes in the dtype of the weights.

    Attributes:
        body: What turns token ids into hidden states.
        head: The output layer.
        adapter: The trainable part.
    """

    def __init__(self, model: Any, method: MethodSpec, *, autocast: torch.dtype | None = None) -> None:  # noqa: ANN401 - transformers ships no types
        self.model = model.eval()
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        self._output = OutputLayer(self.head, getattr(model.config, "final_logit_softcapping", None))
        self._autocast = autocast
        self._check_head()
        self.adapter: Adapter | FullWeights = make_trainable(model, self.head, method)
        # Models with learned positions give all rows one and the same; each row needs its own to be told apart.
        embeddings = [part for part in self.body.modules() if isinstance(part, nn.Embedding)]
        self._own_positions = method.kind == "full" and len(embeddings) > 1
        first = self.adapter.first_decoder_layer() if isinstance(self.adapter, Adapter) else 0
        self._prefix = FrozenPrefix.of(self.body, first, self.probe())

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = self.head.weight.device
        return device

    @property
    def precision(self) -> torch.dtype:
        """The dtype of products."""
        dtype: torch.dtype = self.head.weight.dtype
        return self._autocast or dtype

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Return the sum over the rows of weight times token losses.

        Rows are padded on the right without an attention mask: attention is causal, so nothing labelled looks at
        padding, and the gradient at padding is exactly zero.
        """
        width = max(len(row.record.ids) for row in rows)
        ids = torch.tensor([[*row.record.ids, *[0] * (width - len(row.record.ids))] for row in rows])
        collect = self._head_collector(len(rows))
        places, weights = _label(rows, width, even=collect is not None)
        ids, places, weights = (part.to(self.device) for part in (ids, places, weights))
        with self._precision():
            hidden = self._hidden(rows, ids)
            # The hidden state before a token predicts it.
            before = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places - 1)
            losses = token_losses(before, self._output, ids.reshape(-1)[places], collect)
        total: Tensor = (losses * weights).sum()
        return total

    def checkpoint_layers(self) -> None:
        """Keep only the inputs of the decoder layers, and compute the rest again in the backward pass."""
        for layer in self.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                # transformers checkpoints layers in training mode only, and that would switch dropout on.
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    def probe(self) -> Tensor:
        """Return (1, 24) public token ids, spread over the vocabulary."""
        vocabulary: int = self.head.out_features
        return (torch.arange(1, _PROBE_TOKENS + 1, device=self.device) * 7919 % vocabulary)[None]

    def probe_loss(self) -> float:
        """Return the mean token loss on the public probe."""
        ids = self.probe()
        with torch.no_grad(), self._precision():
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
            return float(token_losses(hidden, self._output, ids[0, 1:]).mean())

    def _hidden(self, rows: Sequence[Row], ids: Tensor) -> Tensor:
        if self._prefix is not None:
            return self._prefix.finish([row.record for row in rows], ids.shape[1])
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if self._own_positions else None
        given = {} if positions is None else {"position_ids": positions}
        hidden: Tensor = self.body(input_ids=ids, use_cache=False, **given).last_hidden_state
        return hidden

    def _head_collector(self, rows: int) -> Collect | None:
        """Return what takes a trained head's gradient by unit: its module is not called, its weight is used."""
        site = self.adapter.site_of(self.head)
        if site is None:
            return None
        return lambda x, g: site.collect_linear(x.view(rows, -1, x.shape[-1]), g.view(rows, -1, g.shape[-1]))

    def _precision(self) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _check_head(self) -> None:
        """Refuse models that do more to logits than their head does, such as scaling or capping."""
        ids = self.probe() if type(self.head) is nn.Linear else None
        if ids is not None:
            with torch.no_grad():
                own = self.model(input_ids=ids, use_cache=False).logits
                ours = self._output.logits(self.body(input_ids=ids, use_cache=False).last_hidden_state)
            if torch.allclose(own, ours, rtol=1e-3, atol=1e-3):
                return
        raise UnsupportedModule(
            f"{type(self.model).__name__}: its logits are not its head applied to its hidden states",
            why="the loss is computed from hidden states and head",
            next_step="use a model of the Llama family or another without scaled logits",
        )


def make_trainable(model: nn.Module, head: nn.Module, method: MethodSpec) -> Adapter | FullWeights:
    """Put the adapter in, or make all weights trainable."""
    if method.kind == "lora":
        return insert_adapter(model, head, method)
    model.requires_grad_(requires_grad=True)
    return FullWeights(model)


def _label(rows: Sequence[Row], width: int, *, even: bool) -> tuple[Tensor, Tensor]:
    """Return the labelled positions in the flattened ids, and their weights.

    With ``even`` each row has as many: the missing ones are its second token with weight 0: no gradient.
    """
    labelled = [row.record.labelled for row in rows]
    most = max(map(len, labelled)) if even else 0
    places, weights = [], []
    for index, (row, own) in enumerate(zip(rows, labelled, strict=True)):
        missing = max(0, most - len(own))
        places += [index * width + place for place in (*own, *[1] * missing)]
        weights += [row.weight] * len(own) + [0.0] * missing
    return torch.tensor(places).long(), torch.tensor(weights)


def load_causal_model(
    base: Path, method: MethodSpec, *, dtype: torch.dtype, longest: int, device: torch.device = _PROCESSOR
) -> CausalModel:
    """Load the checked base model from safetensors and make its trainable part.

    Args:
        base: Folder that passed :func:`stanch.tune.intake.check_base`.
        method: What is trained.
        dtype: Of frozen weights, and of products.
        longest: Tokens of the longest record.
        device: Where it is to lie.
    """
    # Measured on two x86 cores at 64 tokens: the fused attention's backward pass takes five times as long in bfloat16.
    attention = "eager" if longest <= _SHORT else "sdpa"
    # Trained weights are float32; only products are made in a smaller type.
    full = method.kind == "full"
    model = load_base(base, dtype=torch.float32 if full else dtype, attention=attention).to(device)
    return CausalModel(model, method, autocast=dtype if full and dtype != torch.float32 else None)


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
    return make_trainable(model, model.get_output_embeddings(), method).shapes()
