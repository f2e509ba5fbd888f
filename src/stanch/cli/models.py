"""Models for commands: loaded only when a command needs one, and a missing part is named."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanch.audit import AdapterOff, LocalPass, PassEngine, Scorer
from stanch.audit.features import tokenizer_digest
from stanch.cli.engines import LOCAL, ray_address
from stanch.data import CanaryWriter
from stanch.errors import InvalidInput, MissingExtraError
from stanch.seal import OpenBundle
from stanch.weights import DirectoryDigest, is_adapter

if TYPE_CHECKING:
    from stanch.audit.endpoint import Endpoint, EndpointScorer


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


def load_sealed(bundle: OpenBundle, base: Path | None) -> Scorer:
    """Load the model of an open bundle, or its adapter over ``base``, without writing it anywhere."""
    try:
        from stanch.audit.sealed_torch import open_sealed_scorer  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return open_sealed_scorer(bundle, base)


def sealed_digest_of(bundle: OpenBundle) -> DirectoryDigest:
    """Return the digest of the folder that was sealed."""
    try:
        from stanch.audit.sealed_torch import sealed_digest  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return sealed_digest(bundle)


def load_endpoint(tokenizer: Path, endpoint: "Endpoint") -> "EndpointScorer":
    """Return a served model with the tokenizer in a folder."""
    from stanch.audit.endpoint import EndpointScorer  # noqa: PLC0415 - keeps `stanch --help` light

    return EndpointScorer(endpoint, load_tokenizer_at(tokenizer))


def load_base(target: Scorer, base: Path | None) -> Scorer | AdapterOff | None:
    """Return what a model is compared with: itself without its adapter, its base, or nothing.

    An adapter that changed its base (biases, PiSSA and the like) is no base when it is off: then the folder is loaded.
    """
    if target.switchable:
        return AdapterOff()
    return load_scorer(base, None) if base is not None else None


def pass_engine(engine: str, processes: int) -> PassEngine:
    """Return who does the feature pass, as the options of :func:`stanch.cli.engines.shared` name it.

    Raises:
        InvalidInput: There is no such engine, or several processes were asked for without one: the model's own threads
            use this machine already.
    """
    if engine == LOCAL:
        if processes > 1:
            raise InvalidInput(
                f"--processes {processes}: expected an engine",
                why="the model's threads use all of this machine already",
                next_step="leave it out, or share the work with --engine ray",
            )
        return LocalPass()
    address = ray_address(engine)
    try:
        from stanch.audit.sharding_torch import RayPass  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return RayPass(processes, address, gpus=gpus_per_worker())


def gpus_per_worker() -> int:
    """Return 1 where this machine has a graphics processor, so that each worker gets one of its own."""
    import torch  # noqa: PLC0415 - optional part

    return int(torch.cuda.is_available())
