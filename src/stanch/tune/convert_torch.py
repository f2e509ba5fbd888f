"""Turn the fetched GGUF file into a model folder with safetensors."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stanch.tune.model_torch import without_bars
from stanch.tune.refusals import SelfCheckFailed

_PARAMETERS = 134_515_008
_PROMPT, _CONTINUATION = "The capital of France is", " Paris"


def convert_gguf(source: Path, folder: Path) -> None:
    """De-quantise ``source`` and write weights (bfloat16 safetensors), configuration and tokenizer into ``folder``.

    Raises:
        SelfCheckFailed: The result has another size, untied weights, or does not know the capital of France.
    """
    with without_bars():
        _convert(source, folder)


def _convert(source: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # Saving fails while the configuration still speaks of the quantisation that is undone by now.
    settings = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model: Any = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict(), strict=True)
    model.tie_weights()
    model = model.to(torch.bfloat16).eval()
    _check(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check(model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - transformers ships no types
    size = sum(parameter.numel() for parameter in model.parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = tokenizer(_PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        following = int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
    if size != _PARAMETERS or not tied or tokenizer.decode([following]) != _CONTINUATION:
        raise SelfCheckFailed(
            f"the converted model has {size} parameters, {'tied' if tied else 'untied'} weights, "
            f"and continues {_PROMPT!r} with {tokenizer.decode([following])!r}",
            why=f"expected {_PARAMETERS}, tied, and {_CONTINUATION!r}",
            next_step="report this with the versions of transformers and gguf",
        )
