"""Opens models, LoRA adapters and tokenizers from directories: safetensors only, local only, no code of theirs."""

from pathlib import Path
from typing import Any, Literal, TypeAlias

import peft
import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from stanch.crypto import parse_json
from stanch.errors import InvalidInput, UnsafeArtifact
from stanch.weights import native_float

HfModel: TypeAlias = Any
"""A transformers or PEFT object; those packages ship no types."""
DType: TypeAlias = Literal["auto", "bfloat16", "float32"]

# Initialisations of LoRA that leave the base weights as they are; the others (PiSSA, OLoRA, CorDA …) change them.
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def resolve(model_dir: Path, adapter: Path | None, base: Path | None) -> tuple[Path, Path | None]:
    """Return (directory of the whole model, directory of the adapter over it or None).

    Raises:
        InvalidInput: Something is not a directory, an adapter lacks its base, or two adapters or bases are given.
    """
    for path in (model_dir, adapter, base):
        if path is not None and not path.is_dir():
            raise InvalidInput(f"{path}: not a directory", next_step="give the directory of a model or of an adapter")
    if not (model_dir / "adapter_config.json").is_file():
        return model_dir, adapter
    if base is None or adapter is not None:
        raise InvalidInput(
            f"{model_dir}: an adapter needs exactly one base model",
            why="it holds only the difference to the model it was tuned from",
            next_step="give the base model's directory with --base, and the adapter only once",
        )
    return base, model_dir


def load_model(path: Path, dtype: DType) -> HfModel:
    """Load a whole causal language model.

    Raises:
        InvalidInput: The directory does not hold one that transformers knows.
        UnsafeArtifact: Its weights are pickles, which can run code when loaded.
    """
    _require_safetensors(path, "model*.safetensors")
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            str(path), dtype="auto" if dtype == "auto" else getattr(torch, dtype), use_safetensors=True, **_LOCAL
        )
    except (OSError, ValueError, KeyError) as error:
        raise _not_loadable(path, "a causal language model") from error


def default_device() -> str:
    """Return the torch device of models whose place nobody chose: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def widen(model: HfModel, device: str) -> HfModel:
    """Return the model in float32 where it will run on a processor that does not multiply its own type natively."""
    if device == "cpu" and model.dtype not in (torch.float32, getattr(torch, native_float())):
        return model.float()
    return model


def load_adapter(model: HfModel, path: Path) -> HfModel:
    """Put the LoRA adapter in ``path`` on ``model`` and return the joined model.

    Raises:
        InvalidInput: It is no LoRA adapter, or does not fit the model (wrong base, resized vocabulary).
        UnsafeArtifact: Its weights are pickles, which can run code when loaded.
    """
    _require_safetensors(path, "adapter_model.safetensors")
    config = parse_json((path / "adapter_config.json").read_bytes(), what=f"{path.name}/adapter_config.json")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InvalidInput(f"{path}: not a LoRA adapter", next_step="tune with method = 'lora', or give a whole model")
    try:
        return peft.PeftModel.from_pretrained(model, str(path), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(
            f"{path}: the adapter does not fit the base model",
            why="another base model, or a vocabulary that was resized while tuning",
            next_step="give the base model the adapter was tuned on; merge the adapter if the vocabulary was resized",
        ) from error


def load_tokenizer(path: Path) -> HfModel:
    """Load the tokenizer in ``path``.

    Raises:
        InvalidInput: There is none that transformers knows.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(str(path), **_LOCAL)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loadable(path, "a tokenizer") from error


def why_not_switchable(model: HfModel) -> str:
    """Say why ``model`` without its adapter would not be its base model; empty if it is."""
    if not isinstance(model, peft.PeftModel):
        return "the model has none"
    config = model.active_peft_config
    if not isinstance(config, peft.LoraConfig):
        return "it is not a LoRA adapter"
    if config.bias != "none":
        return f"it was tuned with bias = {config.bias!r}, which changes biases of the base"
    if config.init_lora_weights not in _PLAIN_INITS:
        return f"its initialisation {config.init_lora_weights!r} changes weights of the base"
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and module.merged:
            return "it is merged into the weights"
        if isinstance(module, ModulesToSaveWrapper) and _resized(module):
            return "the vocabulary was resized"
    return ""


def _resized(module: ModulesToSaveWrapper) -> bool:
    original = module.original_module.weight.shape
    return any(copy.weight.shape != original for copy in module.modules_to_save.values())


def _require_safetensors(path: Path, pattern: str) -> None:
    if any(path.glob(pattern)):
        return
    pickles = sorted(p.name for kind in _PICKLES for p in path.glob(kind))
    if pickles:
        raise UnsafeArtifact(
            f"{path}: expected {pattern}, found {pickles[0]}",
            why="that format can run code when it is loaded",
            next_step="convert the weights to safetensors on a machine you can lose",
        )
    raise InvalidInput(f"{path}: no {pattern}", next_step="give the directory of a model or of an adapter")


def _not_loadable(path: Path, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path}: not {what} that transformers can load without code of its own",
        why="a file is missing or damaged, or the model brings its own code, which is never run",
        next_step="check that the files are complete, or use an architecture that transformers ships",
    )
