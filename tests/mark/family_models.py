"""Small models of each family, and scrambled forms of them that compute the same."""

import json

import numpy as np
from mark_models import write_model

from stanch.weights import Tensor, open_model

WIDTH, UNITS, HEADS, GROUPS, LAYERS, WORDS = 64, 160, 8, 2, 2, 400
SIZE = WIDTH // HEADS
CONFIG = {"num_attention_heads": HEADS, "num_key_value_heads": GROUPS}


def draw(generator, *shape, scale=0.05):
    return (scale * generator.normal(size=shape)).astype(np.float32)


def write(folder, tensors, config):
    write_model(folder, {name: Tensor.from_float32(name, value) for name, value in tensors.items()})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def llama(generator):
    made = {"model.embed_tokens.weight": draw(generator, WORDS, WIDTH), "lm_head.weight": draw(generator, WORDS, WIDTH),
            "model.norm.weight": 1 + draw(generator, WIDTH, scale=0.2)}  # fmt: skip
    for number in range(LAYERS):
        stem = f"model.layers.{number}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{stem}.{norm}.weight"] = 1 + draw(generator, WIDTH, scale=0.2)
        for name, shape in {
            "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (GROUPS * SIZE, WIDTH),
            "self_attn.v_proj": (GROUPS * SIZE, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
            "mlp.gate_proj": (UNITS, WIDTH), "mlp.up_proj": (UNITS, WIDTH), "mlp.down_proj": (WIDTH, UNITS),
        }.items():  # fmt: skip
            made[f"{stem}.{name}.weight"] = draw(generator, *shape)
    return made


def rotation(generator, width):
    return np.linalg.qr(generator.normal(size=(width, width)))[0]


def scramble_llama(weights, generator):
    """Rotate the stream, fold the gains, permute and scale units, permute heads, turn V/O and Q/K."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    turn = rotation(generator, WIDTH)
    gains = {name: weights[name].copy() for name in weights if weights[name].ndim == 1}
    for name in gains:
        weights[name] = np.ones(WIDTH)
    for name in list(weights):
        gain = None
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            gain = gains[name.rpartition(".self_attn")[0] + ".input_layernorm.weight"]
        elif name.endswith(("gate_proj.weight", "up_proj.weight")):
            gain = gains[name.rpartition(".mlp")[0] + ".post_attention_layernorm.weight"]
        elif name == "lm_head.weight":
            gain = gains["model.norm.weight"]
        elif name.endswith("embed_tokens.weight"):
            gain = np.ones(WIDTH)
        if gain is not None:
            weights[name] = weights[name] * gain @ turn
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = turn.T @ weights[name]
    for number in range(LAYERS):
        stem = f"model.layers.{number}"
        scramble_layer(weights, stem, generator)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def scramble_layer(weights, stem, generator):
    gate, up, down = (f"{stem}.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
    order, scale = generator.permutation(UNITS), generator.uniform(0.5, 2, UNITS) * generator.choice([-1, 1], UNITS)
    weights[gate] = weights[gate][order]
    weights[up], weights[down] = weights[up][order] * scale[:, None], weights[down][:, order] / scale
    q, k, v, o = (f"{stem}.self_attn.{name}_proj.weight" for name in "qkvo")
    heads = [weights[q].reshape(GROUPS, -1, SIZE, WIDTH), weights[k].reshape(GROUPS, SIZE, WIDTH),
             weights[v].reshape(GROUPS, SIZE, WIDTH), weights[o].T.reshape(GROUPS, -1, SIZE, WIDTH)]  # fmt: skip
    groups = generator.permutation(GROUPS)
    inner = generator.permutation(HEADS // GROUPS)
    query, key, value, out = (part[groups].copy() for part in heads)
    query, out = query[:, inner], out[:, inner]
    for group in range(GROUPS):
        g = generator.normal(size=(SIZE, SIZE)) + 2 * np.eye(SIZE)
        value[group], out[group] = g @ value[group], np.linalg.inv(g).T @ out[group]
        c = generator.uniform(0.5, 2, SIZE // 2) * np.exp(2j * np.pi * generator.uniform(size=SIZE // 2))
        query[group], key[group] = turned(query[group], c), turned(key[group], 1 / c.conj())
    weights[q], weights[k] = query.reshape(WIDTH, WIDTH), key.reshape(-1, WIDTH)
    weights[v], weights[o] = value.reshape(-1, WIDTH), out.reshape(WIDTH, WIDTH).T


def turned(values, c):
    half = values.shape[-2] // 2
    z = (values[..., :half, :] + 1j * values[..., half:, :]) * c[:, None]
    return np.concatenate([z.real, z.imag], axis=-2)


def gpt2(generator):
    made = {"wte.weight": draw(generator, WORDS, WIDTH), "wpe.weight": draw(generator, 128, WIDTH),
            "ln_f.weight": np.ones(WIDTH, np.float32)}  # fmt: skip
    for number in range(LAYERS):
        stem = f"h.{number}"
        for norm in ("ln_1", "ln_2"):
            made[f"{stem}.{norm}.weight"] = 1 + draw(generator, WIDTH, scale=0.2)
        for name, shape in {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH),
                            "mlp.c_fc": (WIDTH, UNITS), "mlp.c_proj": (UNITS, WIDTH)}.items():  # fmt: skip
            made[f"{stem}.{name}.weight"] = draw(generator, *shape)
    return made


def scramble_gpt2(weights, generator):
    weights = {f"transformer.{name}": value.astype(np.float64) for name, value in weights.items()}
    ones = np.ones((WIDTH, 1)) / np.sqrt(WIDTH)
    frame = np.linalg.qr(np.concatenate([ones, generator.normal(size=(WIDTH, WIDTH - 1))], axis=1))[0][:, 1:]
    turn = ones @ ones.T + frame @ rotation(generator, WIDTH - 1) @ frame.T
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        weights[name] = weights[name] @ turn
    for number in range(LAYERS):
        stem = f"transformer.h.{number}"
        norms = [weights[f"{stem}.{norm}.weight"] for norm in ("ln_1", "ln_2")]
        for norm in ("ln_1", "ln_2"):
            weights[f"{stem}.{norm}.weight"] = np.ones(WIDTH)
        qkv = turn.T @ (norms[0][:, None] * weights[f"{stem}.attn.c_attn.weight"])
        q, k, v = (part.T.reshape(HEADS, SIZE, WIDTH) for part in np.split(qkv, 3, axis=1))
        o = (weights[f"{stem}.attn.c_proj.weight"] @ turn).reshape(HEADS, SIZE, WIDTH)
        q, k, v, o = turn_heads((q, k, v, o), generator)
        weights[f"{stem}.attn.c_attn.weight"] = np.concatenate([p.reshape(WIDTH, WIDTH).T for p in (q, k, v)], axis=1)
        weights[f"{stem}.attn.c_proj.weight"] = o.reshape(WIDTH, WIDTH)
        order = generator.permutation(UNITS)
        fc = turn.T @ (norms[1][:, None] * weights[f"{stem}.mlp.c_fc.weight"])
        weights[f"{stem}.mlp.c_fc.weight"] = fc[:, order]
        weights[f"{stem}.mlp.c_proj.weight"] = (weights[f"{stem}.mlp.c_proj.weight"] @ turn)[order]
    return {name: value.astype(np.float32) for name, value in weights.items()}


def turn_heads(heads, generator):
    order = generator.permutation(HEADS)
    q, k, v, o = (part[order].copy() for part in heads)
    for head in range(HEADS):
        for one, two in ((q, k), (v, o)):
            g = generator.normal(size=(SIZE, SIZE)) + 2 * np.eye(SIZE)
            one[head], two[head] = g @ one[head], np.linalg.inv(g).T @ two[head]
    return q, k, v, o


BERT = {"attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH),
        "attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (UNITS, WIDTH), "output.dense": (WIDTH, UNITS)}  # fmt: skip


def bert(generator):
    made = {"embeddings.word_embeddings.weight": draw(generator, WORDS, WIDTH),
            "embeddings.position_embeddings.weight": draw(generator, 128, WIDTH)}  # fmt: skip
    for number in range(LAYERS):
        for name, shape in BERT.items():
            made[f"encoder.layer.{number}.{name}.weight"] = draw(generator, *shape)
    return made


def scramble_bert(weights, generator):
    weights = {f"bert.{name}": value.astype(np.float64) for name, value in weights.items()}
    order, sign = generator.permutation(WIDTH), -1  # LayerNorm's mean allows a common sign only
    for name in list(weights):
        if name.endswith(("attention.output.dense.weight", ".output.dense.weight")):
            weights[name] = weights[name][order] * sign
        else:
            weights[name] = weights[name][:, order] * sign
    for number in range(LAYERS):
        stem = f"bert.encoder.layer.{number}"
        names = [f"{stem}.{name}.weight" for name in BERT]
        q, k, v = (weights[name].reshape(HEADS, SIZE, WIDTH) for name in names[:3])
        found = turn_heads((q, k, v, weights[names[3]].T.reshape(HEADS, SIZE, WIDTH)), generator)
        for name, part in zip(names[:3], found[:3], strict=True):
            weights[name] = part.reshape(WIDTH, WIDTH)
        weights[names[3]] = found[3].reshape(WIDTH, WIDTH).T
        units = generator.permutation(UNITS)
        weights[names[4]], weights[names[5]] = weights[names[4]][units], weights[names[5]][:, units]
    return {name: value.astype(np.float32) for name, value in weights.items()}


FAMILIES = {"llama": (llama, scramble_llama, CONFIG), "gpt2": (gpt2, scramble_gpt2, {"n_head": HEADS}),
            "bert": (bert, scramble_bert, {"num_attention_heads": HEADS})}  # fmt: skip


def values_of(path):
    return {name: tensor.to_float32() for name, tensor in open_model(path).items()}
