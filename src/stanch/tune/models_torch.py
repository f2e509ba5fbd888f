"""A tiny random model for tests and demonstrations."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(
    *,
    vocab: int = 300,
    d: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv: int = 2,
    ffn: int | None = None,
    seed: int = 0,
) -> LlamaForCausalLM:
    """Return a random Llama with tied embeddings, in float32; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d,
        intermediate_size=ffn or 2 * d,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.train(mode=False)
    return model
