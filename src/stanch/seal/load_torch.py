"""Sealed bundles as transformers models, PEFT adapters and tokenizers, without plaintext files or foreign code.

Everything is built from memory: weights lie in the arena that they were decrypted to. What could make a library fetch
or execute something is refused before the library sees it. Whatever gives files as an open bundle does is loaded alike.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import peft
import torch
import transformers
from tokenizers import Tokenizer

from stanch.errors import InvalidInput, PolicyViolation, UnsafeArtifact
from stanch.seal.manifest import BaseModel
from stanch.terms import Digest, JsonValue
from stanch.weights import Header, names_code

_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_WEIGHTS, _SHARDS = "model.safetensors", "model.safetensors.index.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER_SETTINGS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "split_special_tokens",
    "add_prefix_space",
    "model_input_names",
)


class NamedFile(Protocol):
    """A file of a model: its relative path with ``/``."""

    @property
    def path(self) -> str:
        """Relative path."""
        ...


class ModelFiles(Protocol):
    """The files of a model, read into memory: an open bundle, or a copy that is marked while it is read."""

    @property
    def base_model(self) -> BaseModel | None:
        """The model that an adapter belongs to, where it is named."""
        ...

    def files(self) -> Sequence[NamedFile]:
        """Return the files, sorted by path."""
        ...

    def read(self, name: str, /) -> memoryview:
        """Return a file's bytes."""
        ...

    def read_weights(self, name: str, /) -> tuple[Header, memoryview]:
        """Return a safetensors file's header and its data section, new and writable."""
        ...


class UnsupportedTokenizer(InvalidInput):
    """A tokenizer that cannot be made from memory."""


def load_model(
    bundle: ModelFiles, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> transformers.PreTrainedModel:
    """Load the transformers model of a bundle, in evaluation mode.

    Args:
        bundle: An open bundle with ``config.json`` and ``model*.safetensors`` at its top.
        device: Where the model goes.
        dtype: Element type; the one of its configuration where None.

    Raises:
        InvalidInput: The model is of an unknown type, is quantised, or lacks weights.
        UnsafeArtifact: The bundle could fetch or execute code.
        VerificationError: A segment does not match or does not decrypt.
    """
    _refuse_code(bundle)
    settings = _read_object(bundle, "config.json")
    if "quantization_config" in settings:
        raise InvalidInput("config.json: quantised models are not loaded from a bundle", next_step="seal full weights")
    model_class, config = _model_class(settings)
    generation = None
    if "generation_config.json" in _names(bundle):
        generation = transformers.GenerationConfig.from_dict(_read_object(bundle, "generation_config.json"))
    model, report = model_class.from_pretrained(
        None,
        config=config,
        state_dict=_state(bundle, _weight_files(bundle)),
        generation_config=generation,
        dtype="auto" if dtype is None else dtype,
        local_files_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    # The library fills gaps and misfits with random numbers and a warning; here they are errors.
    if gaps := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise InvalidInput(f"the weights do not fit the model: {gaps[0][:200]} and {len(gaps) - 1} more")
    loaded: transformers.PreTrainedModel = model.to(device)
    return loaded


def load_adapter(
    bundle: ModelFiles, base: transformers.PreTrainedModel, *, base_digest: Digest | None = None
) -> peft.PeftModel:
    """Put the LoRA adapter of a bundle onto a base model, in evaluation mode; ``base`` is changed in place.

    Args:
        bundle: An open bundle with ``adapter_config.json`` and ``adapter_model.safetensors`` at its top.
        base: The model that the adapter was tuned on, loaded by the caller.
        base_digest: Its directory digest; needed when the bundle's manifest names a base model.

    Raises:
        PolicyViolation: The base model is not the one that the manifest names, or was not identified.
        InvalidInput: Another kind of adapter, or weights that do not fit the base model.
        UnsafeArtifact: The bundle could fetch or execute code.
        VerificationError: A segment does not match or does not decrypt.
    """
    _check_base(bundle, base_digest)
    _refuse_code(bundle)
    settings = _read_object(bundle, "adapter_config.json")
    if settings.get("peft_type") != "LORA":
        raise InvalidInput("adapter_config.json: expected peft_type LORA, found another kind of adapter")
    # The weights come from the bundle: no method that computes a start from the base model's weights may run.
    settings |= {"inference_mode": True, "init_lora_weights": True}
    config = peft.get_peft_config(settings)
    wrapper = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(str(config.task_type), peft.PeftModel)
    model = wrapper(base, config)
    state = _state(bundle, [_ADAPTER_WEIGHTS])
    try:
        result: Any = peft.set_peft_model_state_dict(model, state)
    except (RuntimeError, KeyError) as error:
        why = "a factor has another shape" if isinstance(error, RuntimeError) else "a module that it saves is not in it"
        raise InvalidInput("the adapter does not fit the base model", why=why) from error
    missing = [key for key in result.missing_keys if "lora_" in key or ".modules_to_save." in key]
    if strays := sorted([*missing, *result.unexpected_keys]):
        raise InvalidInput(f"the adapter does not fit the base model: {strays[0][:200]} and {len(strays) - 1} more")
    return model.eval()


def load_tokenizer(bundle: ModelFiles) -> transformers.PreTrainedTokenizerFast:
    """Load the tokenizer of a bundle with its special tokens and chat template.

    Raises:
        UnsupportedTokenizer: The bundle has no ``tokenizer.json``.
        UnsafeArtifact: The bundle could fetch or execute code.
        VerificationError: A segment does not match or does not decrypt.
    """
    _refuse_code(bundle)
    names = _names(bundle)
    if "tokenizer.json" not in names:
        raise UnsupportedTokenizer(
            "the bundle has no tokenizer.json",
            why="only that format is read from memory",
            next_step="save the tokenizer in the fast format, and seal again",
        )
    settings = _read_object(bundle, "tokenizer_config.json") if "tokenizer_config.json" in names else {}
    chosen: dict[str, Any] = {key: settings[key] for key in _TOKENIZER_SETTINGS if key in settings}
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    if isinstance(extra, dict):
        chosen["model_specific_special_tokens"] = {key: _token_text(token) for key, token in extra.items()}
    elif isinstance(extra, list):
        chosen["extra_special_tokens"] = [_token_text(token) for token in extra]
    # Tokens with flags are complete in tokenizer.json; here their text is enough.
    chosen = {key: _token_text(value) if key.endswith("_token") else value for key, value in chosen.items()}
    if "chat_template.jinja" in names:
        chosen["chat_template"] = str(bundle.read("chat_template.jinja"), "utf-8")
    elif isinstance(settings.get("chat_template"), str):
        chosen["chat_template"] = settings["chat_template"]
    backend = Tokenizer.from_str(str(bundle.read("tokenizer.json"), "utf-8"))
    make: Any = transformers.PreTrainedTokenizerFast
    tokenizer: transformers.PreTrainedTokenizerFast = make(tokenizer_object=backend, **chosen)
    return tokenizer


def _names(bundle: ModelFiles) -> set[str]:
    return {file.path for file in bundle.files()}


def _read_object(bundle: ModelFiles, name: str) -> dict[str, JsonValue]:
    """Return a JSON object of the bundle after checking that nothing in it calls for code."""
    # These files are the library's, not ours: they may hold integers and infinities that our own formats refuse.
    try:
        document = json.loads(bytes(bundle.read(name)))
        _refuse_code_keys(document, name)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: not valid JSON") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{name}: expected an object")
    return document


def _refuse_code(bundle: ModelFiles) -> None:
    for name in _names(bundle):
        if name.endswith((".py", ".pyc", ".so")):
            raise UnsafeArtifact(
                f"{name[:200]}: the bundle holds program code",
                why="a model is data; its code comes with the library",
                next_step="seal the model without it",
            )


def _refuse_code_keys(value: JsonValue, name: str) -> None:
    """Refuse keys at any depth that make the libraries fetch code: remote classes, and kernels named by repository."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if item and names_code(key, item):
            raise UnsafeArtifact(f"{name}: {key!r} asks for code that is not part of the library")
        _refuse_code_keys(item, name)


def _model_class(settings: dict[str, JsonValue]) -> tuple[Any, transformers.PreTrainedConfig]:
    """Return the library's own model class that the configuration names, and the configuration."""
    kind, architectures = settings.get("model_type"), settings.get("architectures")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise InvalidInput(f"config.json: unknown model_type {str(kind)[:80]!r}")
    config = transformers.CONFIG_MAPPING[kind].from_dict(settings)
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    found: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    fits = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if not fits or found.config_class is not type(config):
        raise InvalidInput(f"config.json: expected an architecture of {kind}, found {str(name)[:80]!r}")
    return found, config


def _weight_files(bundle: ModelFiles) -> list[str]:
    """Return the names of the weight files: the shards that the index lists, or the single file."""
    if _SHARDS not in _names(bundle):
        return [_WEIGHTS]
    shards = _read_object(bundle, _SHARDS).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InvalidInput(f"{_SHARDS}: expected a weight_map")
    return sorted({str(shard) for shard in shards.values()})


def _state(bundle: ModelFiles, files: list[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of the files; each file's arena belongs to its tensors alone."""
    state: dict[str, torch.Tensor] = {}
    for name in files:
        header, memory = bundle.read_weights(name)
        for tensor_name, tensor in _tensors(header, memory):
            if tensor_name in state:
                raise InvalidInput(f"{name}: tensor {tensor_name[:200]!r} stands in two files")
            state[tensor_name] = tensor
    return state


def _tensors(header: Header, memory: memoryview) -> Iterator[tuple[str, torch.Tensor]]:
    for info in header.tensors:
        dtype = _DTYPES.get(info.dtype)
        if dtype is None:
            raise InvalidInput(
                f"tensor {info.name[:200]!r}: elements of type {info.dtype} are not loaded from a bundle"
            )
        if not info.count:
            yield info.name, torch.empty(info.shape, dtype=dtype)
            continue
        part: memoryview | bytearray = memory[info.start : info.end]
        if info.start % dtype.itemsize:
            part = bytearray(part)
        yield info.name, torch.frombuffer(part, dtype=dtype).view(info.shape)


def _check_base(bundle: ModelFiles, found: Digest | None) -> None:
    expected = bundle.base_model
    if expected is None:
        return
    if found is None or found.algorithm != "sha256" or found.hex != expected.digest:
        raise PolicyViolation(
            f"the adapter belongs to base model {expected.name[:80]!r} with digest sha256:{expected.digest}, "
            f"found {found or 'no digest'}",
            next_step="load that base model and pass its directory digest",
        )


def _token_text(token: JsonValue) -> JsonValue:
    """Return the text of a special token, which older files write as an object."""
    return token["content"] if isinstance(token, dict) and "content" in token else token
