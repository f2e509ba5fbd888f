"""Models for commands: loaded only when a command needs one, and a missing part is named."""

from pathlib import Path
from typing import Any

from stanch.audit import AdapterOff, Scorer
from stanch.audit.features import tokenizer_digest
from stanch.data import CanaryWriter
from stanch.errors import MissingExtraError
from stanch.weights import is_adapter


def tokenizer_digest_at(folder: Path) -> str:
    """Return the digest of the tokenizer in a model's folder."""
    return tokenizer_digest(load_tokenizer_at(folder))


def load_tokenizer_at(folder: Path) -> Any:  # noqa: ANN401 - transformers ships no types
    """Load the tokenizer in a model's folder."""
    try:
        from stanch.audit.loading_torch import load_tokenizer  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return load_tokenizer(folder)


def load_writer(folder: Path) -> CanaryWriter:
    """Load a base model that writes synthetic canaries."""
    try:
        from stanch.audit.loading_torch import load_model  # noqa: PLC0415 - optional part
        from stanch.data.canary_torch import BaseModelWriter  # noqa: PLC0415 - same
    except ImportError as error:
        raise MissingExtraError("train") from error
    return BaseModelWriter(load_model(folder, "auto"), load_tokenizer_at(folder))


def load_scorer(model: Path, base: Path | None) -> Scorer:
    """Load a model, or an adapter over its base, for scoring."""
    try:
        from stanch.audit.hf_torch import HfScorer  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return HfScorer(model, base=base) if is_adapter(model) else HfScorer(model)


def load_base(model: Path, base: Path | None) -> Scorer | AdapterOff | None:
    """Return what the model is compared with: itself without its adapter, its base, or nothing."""
    if is_adapter(model):
        return AdapterOff()
    return load_scorer(base, None) if base is not None else None
