"""What one forward pass leaves behind: per-token figures of each record, and how records are put into batches.

Nothing here imports torch. A :class:`Scorer` (``hf_torch.HfScorer``) turns token records into :class:`Features`; all
scores, the extraction test and the controls are computed from those, so that each record costs one forward of the
target and one of the base.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.audit.params import Decoding
from stanch.crypto import canonical_json, frame
from stanch.data import ChatTokenizer, TokenRecord
from stanch.errors import InvalidInput

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
TokenArray: TypeAlias = npt.NDArray[np.int64]
Adapter: TypeAlias = Literal["on", "off"]
Continue: TypeAlias = Callable[[TokenArray, TokenArray], FloatArray]
"""From strings of tokens [n, d] after a fixed prefix, and tokens [s]: log-probability [n, s] of each as the next."""

MAX_BATCH_TOKENS = 16_384
LOGIT_BYTES = 1 << 30

HfTokenizer: TypeAlias = Any
"""A fast tokenizer of transformers, which ships no types."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The figures of one record's scored tokens (all arrays have one element a token of the span).

    Attributes:
        record_id: Id of the token record.
        start: Position of the first scored token.
        lp: Natural log-probability of each token given all before it, from fp32 logits.
        mu: Mean log-probability over the vocabulary, under the model's own distribution.
        sigma: Standard deviation of the same, at least 1e-4.
        hit: Whether the token is the likeliest one.
        lq: Log-probability under the :class:`Decoding`; minus infinity if it can never be drawn.
    """

    record_id: str
    start: int
    lp: Float32Array
    mu: Float32Array
    sigma: Float32Array
    hit: BoolArray
    lq: Float32Array

    def __repr__(self) -> str:
        return f"Features(record_id={self.record_id!r}, start={self.start}, tokens={self.lp.size})"


@dataclass(frozen=True, slots=True)
class ScorerIdentity:
    """Which model was scored: hexadecimal SHA-256 digests of its directories and tokenizer, and how it was run.

    A model opened from memory has no directory, hence no digest (``""``).
    """

    model: str
    files: tuple[tuple[str, int, str], ...]
    adapter: str
    base: str
    tokenizer: str
    dtype: str
    engine: str


class Scorer(Protocol):
    """A model that can be asked for the features of token records."""

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer the model was tuned with."""
        ...

    @property
    def identity(self) -> ScorerIdentity:
        """Which model this is."""
        ...

    @property
    def switchable(self) -> bool:
        """Whether it is an adapter that leaves its base model when it is switched off."""
        ...

    @property
    def white_box(self) -> bool:
        """Whether the whole distribution is at hand: means and spreads over the vocabulary, and continuations."""
        ...

    @property
    def token_budget(self) -> int:
        """How many padded tokens one of its batches may hold."""
        ...

    def features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding, adapter: Adapter = "on"
    ) -> Iterator[Features]:
        """Yield the features of every record, in batch order (not in the order given)."""
        ...

    def paired_features(
        self, records: Iterable[TokenRecord], *, decoding: Decoding
    ) -> Iterator[tuple[Features, Features]]:
        """Yield every record's features with the adapter on and off, in batch order."""
        ...

    def continuations(self, prefix: Sequence[int]) -> Continue:
        """Return a function from strings [n, d] and tokens [s] to the log-probability [n, s] of each token next."""
        ...

    def complete(
        self, prompts: Sequence[Sequence[int]], length: int, *, adapter: Adapter = "on"
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the number of each prompt and the likeliest ``length`` tokens after it, one by one (greedy)."""
        ...

    def require_adapter_off(self) -> None:
        """Raise :class:`stanch.errors.InvalidInput` if switching the adapter off would not give the base model."""
        ...


class Identified:
    """What every scorer carries: its tokenizer, and which model it is."""

    _tokenizer: ChatTokenizer
    _identity: ScorerIdentity

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer the model was tuned with."""
        return self._tokenizer

    @property
    def identity(self) -> ScorerIdentity:
        """Digests of what was loaded; empty where that cannot be seen."""
        return self._identity


@dataclass(frozen=True, slots=True)
class AdapterOff:
    """The base model is the target with its adapter switched off."""


def record_digest(record: TokenRecord) -> bytes:
    """Return SHA-256 over the token ids and the scored span of ``record`` (32 bytes; its id is left out)."""
    words = np.asarray((*record.ids, *record.span), dtype="<u4")
    return hashlib.sha256(b"stanch/token-record/v1\0" + words.tobytes()).digest()


def tokenizer_digest(tokenizer: HfTokenizer) -> str:
    """Return the SHA-256 (hex) of what a fast tokenizer does: its ``tokenizers`` definition and its chat template.

    Settings for padding and truncation are left out: they change with use and never the tokens of a text.
    """
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {name: part for name, part in definition.items() if name not in ("padding", "truncation")}
    template = str(tokenizer.chat_template or "")
    return hashlib.sha256(frame(b"stanch/tokenizer/v1", canonical_json(kept), template.encode())).hexdigest()


def check_scorable(record: TokenRecord) -> None:
    """Refuse a record without a token that a model can score (position 0 has no context).

    Raises:
        InvalidInput: The span is empty, starts at position 0, or reaches past the end.
    """
    start, end = record.span
    if not 1 <= start < end <= len(record.ids):
        raise InvalidInput(
            f"record {record.id}: no token can be scored in span [{start}, {end}) of {len(record.ids)} tokens",
            why="the answer is empty, or it was cut off by the maximum length",
            next_step="drop the record, or raise the maximum number of tokens",
        )


def token_budget(vocabulary: int) -> int:
    """Return how many padded tokens a batch may hold, so that its fp32 logits stay within 1 GiB."""
    return max(1, min(MAX_BATCH_TOKENS, LOGIT_BYTES // (4 * vocabulary)))


def plan_batches(records: Iterable[TokenRecord], budget: int) -> Iterator[list[TokenRecord]]:
    """Yield batches of records of similar length: sorted by (length, digest), ``rows * longest <= budget``.

    A record longer than the budget is a batch of its own. The plan depends on the records alone, so target and base see
    the same batches in the same order and rounding noise cancels in their difference.
    """
    batch: list[TokenRecord] = []
    for record in sorted(records, key=lambda r: (len(r.ids), record_digest(r), r.id)):
        check_scorable(record)
        if batch and (len(batch) + 1) * len(record.ids) > budget:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def shared_prefix_length(records: Sequence[TokenRecord]) -> int:
    """Return how many leading tokens all records share and none scores (nor predicts a scored token from).

    Chat templates begin with the same system turn; its keys and values are computed once for the whole pass.
    """
    if len(records) < 2:
        return 0
    first, last = min(r.ids for r in records), max(r.ids for r in records)
    limit = min(r.span[0] for r in records) - 1
    length = 0
    while length < min(limit, len(first), len(last)) and first[length] == last[length]:
        length += 1
    return length
