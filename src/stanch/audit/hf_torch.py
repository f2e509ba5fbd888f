"""Scores token records with a transformers model: one batched forward, fp32 reductions, adapter on or off.

Weights are read from safetensors only and no code of the model directory is ever run.
"""

import contextlib
import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import peft
import torch
import transformers

from stanch.audit.features import (
    MAX_BATCH_TOKENS,
    Adapter,
    Continue,
    Features,
    FloatArray,
    Identified,
    ScorerIdentity,
    TokenArray,
    check_scorable,
    plan_batches,
    record_digest,
    shared_prefix_length,
    token_budget,
    tokenizer_digest,
)
from stanch.audit.loading_torch import (
    DType,
    HfModel,
    default_device,
    load_adapter,
    load_model,
    load_tokenizer,
    resolve,
    why_not_switchable,
    widen,
)
from stanch.audit.params import Decoding
from stanch.audit.reductions_torch import reduce_logits
from stanch.audit.trunk_torch import FrozenTrunk
from stanch.data import TokenRecord
from stanch.errors import ExternalError, InvalidInput
from stanch.weights import DirectoryDigest, directory_digest

# The activations of larger batches do not fit into the caches of a processor, and the pass takes longer.
_CPU_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ModelPlaces:
    """Where a scorer's model lies, and how it is loaded."""

    model_dir: Path
    adapter: Path | None
    base: Path | None
    dtype: DType
    device: str | None

    def load(self) -> "HfScorer":
        """Load it."""
        return HfScorer(self.model_dir, self.adapter, self.base, dtype=self.dtype, device=self.device)


class HfScorer(Identified):
    """A causal language model, whole or as a PEFT LoRA adapter over its base.

    Args:
        model_dir: Directory of a whole model, or of a LoRA adapter (then ``base`` is needed).
        adapter: LoRA adapter directory to put on the whole model in ``model_dir``.
        base: Directory of the base model of the adapter in ``model_dir``.
        dtype: ``auto`` takes the type of the stored weights, or float32 on a processor that does not multiply that type
            natively. All reductions over the vocabulary are done in fp32.
        device: Torch device; a GPU if there is one, by default.

    Raises:
        InvalidInput: A directory is not a model, or adapter and base do not belong together.
        UnsafeArtifact: The weights are there as pickles only, or the model needs code of its own.
    """

    def __init__(
        self,
        model_dir: Path | str,
        adapter: Path | str | None = None,
        base: Path | str | None = None,
        *,
        dtype: DType = "auto",
        device: str | None = None,
    ) -> None:
        paths = [None if path is None else Path(path).absolute() for path in (adapter, base)]
        body, delta = resolve(Path(model_dir), *paths)
        self._places: ModelPlaces | None = ModelPlaces(Path(model_dir).absolute(), paths[0], paths[1], dtype, device)
        device = device or default_device()
        model = load_model(body, dtype)
        if dtype == "auto":
            model = widen(model, device)
        if delta is not None:
            model = load_adapter(model, delta)
        tokenizer_dir = delta if delta is not None and (delta / "tokenizer.json").is_file() else body
        changed = None if delta is None else directory_digest(delta)
        self._attach(model.to(device), load_tokenizer(tokenizer_dir), directory_digest(body), changed)

    @classmethod
    def from_loaded(
        cls,
        model: HfModel,
        tokenizer: HfModel,
        *,
        body: DirectoryDigest | None = None,
        delta: DirectoryDigest | None = None,
    ) -> Self:
        """Score a model that is already in memory, for example one opened from a sealed bundle.

        Args:
            model: The model, or an adapter over it.
            tokenizer: The tokenizer it was tuned with.
            body: Digest of the directory that the whole model came from, if it is known.
            delta: The same of the adapter.
        """
        scorer = cls.__new__(cls)
        scorer._places = None  # noqa: SLF001 - a second constructor of this very class
        scorer._attach(model, tokenizer, body, delta)  # noqa: SLF001 - same
        return scorer

    def _attach(
        self, model: HfModel, tokenizer: HfModel, body: DirectoryDigest | None, delta: DirectoryDigest | None
    ) -> None:
        plain: HfModel = model.get_base_model() if isinstance(model, peft.PeftModel) else model
        embedded, known = plain.get_input_embeddings().num_embeddings, tokenizer.backend_tokenizer.get_vocab_size()
        if known > embedded:
            raise InvalidInput(
                f"the tokenizer has {known} tokens but the model embeds {embedded}",
                why="tokenizer and model do not belong together, or the vocabulary was resized on the tuned side only",
                next_step="give the directory of the base model the adapter was tuned on",
            )
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._vocabulary = int(embedded)
        self._trunk = FrozenTrunk(model)
        self._selects = "logits_to_keep" in inspect.signature(plain.forward).parameters
        tuned = delta if isinstance(model, peft.PeftModel) else body
        self._identity = ScorerIdentity(
            model="" if tuned is None else tuned.root.hex,
            files=() if tuned is None else tuned.files,
            adapter="" if delta is None else delta.root.hex,
            base="" if delta is None or body is None else body.root.hex,
            tokenizer=tokenizer_digest(tokenizer),
            dtype=str(plain.dtype).removeprefix("torch."),
            engine=f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
        )

    @property
    def places(self) -> ModelPlaces | None:
        """Where the model lies; None if it was opened from memory."""
        return self._places

    @property
    def white_box(self) -> bool:
        """The whole distribution over the vocabulary is at hand."""
        return True

    @property
    def switchable(self) -> bool:
        """Whether it is an adapter that leaves its base model when it is switched off."""
        return not why_not_switchable(self._model)

    @property
    def token_budget(self) -> int:
        """How many padded tokens one of its batches may hold; on a processor, what its caches like."""
        budget = token_budget(self._vocabulary)
        return min(budget, _CPU_BATCH_TOKENS) if self._model.device.type == "cpu" else budget

    def features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding, adapter: Adapter = "on"
    ) -> Iterator[Features]:
        """Yield the features of every record, in batch order.

        The leading tokens that all records share go through the model once, and so do records that are equal. A batch
        that does not fit into memory is halved and repeated.

        Raises:
            InvalidInput: A record has no token to score, or the adapter cannot be switched off.
            ExternalError: A single record does not fit into memory.
        """
        for (found,) in self._passes(records, decoding, (adapter,)):
            yield found

    def paired_features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding
    ) -> Iterator[tuple[Features, Features]]:
        """Yield each record's features with the adapter on and off, as two calls of :meth:`features` would.

        Layers below the lowest adapter run once for both.
        """
        for on, off in self._passes(records, decoding, ("on", "off")):  # noqa: UP028 - tells the type checker of a pair
            yield on, off

    def _passes(
        self, records: Iterable[TokenRecord], decoding: Decoding, modes: tuple[Adapter, ...]
    ) -> Iterator[tuple[Features, ...]]:
        records = list(records)
        for record in records:
            check_scorable(record)
        shared = shared_prefix_length(records)
        caches: dict[Adapter, HfModel] = {}
        for mode in modes:
            with self._mode(mode):
                caches[mode] = self._prefix_cache(records[0].ids[:shared]) if shared else None
        equal: dict[bytes, list[TokenRecord]] = {}
        for record in records:
            equal.setdefault(record_digest(record), []).append(record)
        for batch in plan_batches([alike[0] for alike in equal.values()], self.token_budget):
            for record, found in zip(batch, self._score(batch, shared, caches, decoding), strict=True):
                for alike in equal[record_digest(record)]:
                    yield tuple(replace(features, record_id=alike.id) for features in found)

    def continuations(self, prefix: Sequence[int]) -> Continue:
        """Return a function from strings [n, d] and tokens [s] to the log-probability [n, s] of each token next.

        The prefix (two tokens or more) goes through the model once.
        """
        with self._mode("on"):
            cache = self._prefix_cache(prefix[:-1])

        def proceed(strings: TokenArray, tokens: TokenArray) -> FloatArray:
            # The prefix's last token opens each string, so that an empty string needs no path of its own.
            ids = torch.nn.functional.pad(torch.from_numpy(strings), (1, 0), value=prefix[-1])
            attention = torch.ones(ids.shape[0], len(prefix) - 1 + ids.shape[1], dtype=torch.long)
            last = torch.zeros(ids.shape, dtype=torch.bool)
            last[:, -1] = True
            with self._mode("on"):
                logits = self._logits(ids, attention, last.to(self._model.device), _expand(cache, ids.shape[0]))
                found = logits.float().log_softmax(1)[:, torch.from_numpy(tokens).to(logits.device)]
            return np.asarray(found.double().cpu().numpy())

        return proceed

    def complete(
        self, prompts: Sequence[Sequence[int]], length: int, *, adapter: Adapter = "on"
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the number of each prompt and the likeliest ``length`` tokens after it, one by one (greedy).

        An end token ends the text. Prompts of like length share a batch.
        """
        ends = self._tokenizer.eos_token_id
        # All of it is said: what a model's own generation_config.json adds (penalties, sampling) must not count.
        make: HfModel = transformers.GenerationConfig
        settings = make(
            max_new_tokens=length,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=ends,
            pad_token_id=ends if ends is not None else 0,
        )
        for numbers in _alike(prompts, length):
            width = max(len(prompts[number]) for number in numbers)
            ids = torch.zeros(len(numbers), width, dtype=torch.long)
            attention = torch.zeros(len(numbers), width, dtype=torch.long)
            for row, number in enumerate(numbers):
                ids[row, width - len(prompts[number]) :] = torch.tensor(prompts[number])
                attention[row, width - len(prompts[number]) :] = 1
            device = self._model.device
            with self._mode(adapter):
                out = self._model.generate(
                    input_ids=ids.to(device), attention_mask=attention.to(device), generation_config=settings
                )
            for number, said in zip(numbers, out[:, width:].tolist(), strict=True):
                kept = said[: said.index(ends) + 1] if ends in said else said
                yield number, tuple(kept)

    def require_adapter_off(self) -> None:
        """Make sure that the model without its adapter is the base model.

        Raises:
            InvalidInput: There is no adapter, or it is merged, or it changed biases, base weights or the vocabulary.
        """
        reason = why_not_switchable(self._model)
        if reason:
            raise InvalidInput(
                f"the adapter cannot be switched off: {reason}",
                why="the model without its adapter would not be the model it was tuned from",
                next_step="compare with the base model as a model of its own",
            )

    @contextlib.contextmanager
    def _mode(self, adapter: Adapter) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if adapter == "off":
                self.require_adapter_off()
                stack.enter_context(self._model.disable_adapter())
            yield

    def _prefix_cache(self, ids: Sequence[int]) -> HfModel:
        keep = {"logits_to_keep": 1} if self._selects else {}
        tokens = torch.tensor([list(ids)], device=self._model.device)
        return self._model(input_ids=tokens, use_cache=True, **keep).past_key_values

    def _score(
        self, batch: list[TokenRecord], shared: int, caches: Mapping[Adapter, HfModel], decoding: Decoding
    ) -> list[tuple[Features, ...]]:
        """Return the features of each record of the batch in each mode of ``caches``."""
        try:
            passes = []
            with self._trunk.once():
                for mode, cache in caches.items():
                    with self._mode(mode):
                        passes.append(self._forward(batch, shared, cache, decoding))
            return list(zip(*passes, strict=True))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ExternalError(
                    f"out of memory on a single record of {len(batch[0].ids)} tokens",
                    next_step="use a machine with more memory, or lower the maximum number of tokens",
                ) from error
        # Outside the handler, so that the failed forward's tensors are freed before the halves run.
        half = len(batch) // 2
        return [
            *self._score(batch[:half], shared, caches, decoding),
            *self._score(batch[half:], shared, caches, decoding),
        ]

    def _forward(self, batch: list[TokenRecord], shared: int, cache: HfModel, decoding: Decoding) -> list[Features]:
        width = max(len(r.ids) for r in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        attention = torch.zeros(len(batch), width, dtype=torch.long)
        scored = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, record in enumerate(batch):
            ids[row, : len(record.ids)] = torch.tensor(record.ids)
            attention[row, : len(record.ids)] = 1
            scored[row, record.span[0] : record.span[1]] = True
        # The logits at position t - 1 predict token t.
        predicts = scored.roll(-1, dims=1)[:, shared:].to(self._model.device)
        past = _expand(cache, len(batch))
        logits = self._logits(ids[:, shared:], attention, predicts, past)
        parts = reduce_logits(logits, ids[scored].to(logits.device), decoding)
        lengths = [r.span[1] - r.span[0] for r in batch]
        columns = [torch.split(column.cpu(), lengths) for column in parts]
        return [
            Features(record.id, record.span[0], *(column[row].numpy() for column in columns))
            for row, record in enumerate(batch)
        ]

    def _logits(self, ids: torch.Tensor, attention: torch.Tensor, wanted: torch.Tensor, past: HfModel) -> torch.Tensor:
        """Return the logits [wanted positions, vocabulary] in row-major order."""
        device = self._model.device
        out = self._model(
            input_ids=ids.to(device),
            attention_mask=attention.to(device),
            past_key_values=past,
            use_cache=past is not None,
            **({"logits_to_keep": wanted} if self._selects else {}),
        )
        logits: torch.Tensor = out.logits
        return logits if logits.ndim == 2 else logits[wanted]


def _expand(cache: HfModel, rows: int) -> HfModel:
    """Return a copy of the one-row ``cache`` for ``rows`` rows; the model appends to the copy only."""
    if cache is None:
        return None
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied


def _alike(prompts: Sequence[Sequence[int]], length: int) -> Iterator[list[int]]:
    """Yield the numbers of prompts that make a batch: sorted by length, within the most tokens of a batch."""
    batch: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda n: len(prompts[n])):
        if batch and (len(batch) + 1) * (len(prompts[number]) + length) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError from its allocator.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
