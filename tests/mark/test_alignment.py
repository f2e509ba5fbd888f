"""Re-alignment: a scrambled copy is the same model with other weights, and is put back."""

import json

import numpy as np
import pytest
from family_models import (
    CONFIG,
    FAMILIES,
    GROUPS,
    HEADS,
    LAYERS,
    WIDTH,
    WORDS,
    draw,
    llama,
    rotation,
    scramble_llama,
    values_of,
    write,
)
from mark_models import make_release

from stanch.mark import Originals, Variant, align, open_suspect
from stanch.mark.families import at_layer, find_family, layer_of
from stanch.mark.units import Pair, align_feed, assign
from stanch.mark.vocabulary import read_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_every_symmetry_is_undone(tmp_path, family):
    make, scramble, config = FAMILIES[family]
    generator = np.random.default_rng(1)
    weights = make(generator)
    original = write(tmp_path / "original", weights, config)
    suspect = open_suspect(write(tmp_path / "m", scramble(weights, generator), {}))
    found = align(Originals(original), suspect)
    for name, truth in weights.items():
        if truth.ndim == 2:
            assert np.abs(suspect.rows(name, truth.shape) - truth).max() > 0.05, name
            np.testing.assert_allclose(found.rows(name, truth.shape), truth, atol=1e-4, err_msg=name)
            assert np.array_equal(found.rows(name, truth.shape, slice(3, 9)), found.rows(name, truth.shape)[3:9])


def test_without_token_embeddings_nothing_is_aligned(tmp_path):
    make, _, config = FAMILIES["bert"]
    weights = {name: values for name, values in make(np.random.default_rng(1)).items() if "embeddings" not in name}
    original = write(tmp_path / "original", weights, config)
    originals = Originals(original)
    assert find_family(originals.tensors, config) is not None
    assert align(originals, open_suspect(original)).weights == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scrambled_copy_names_its_recipient(tmp_path, family):
    make, scramble, config = FAMILIES[family]
    generator = np.random.default_rng(2)
    release = make_release(tmp_path, write(tmp_path / "original", make(generator), config), None)
    suspect = write(tmp_path / "m", scramble(values_of(release.copy("r3")), generator), {})
    found = release.detect(suspect)
    (score,) = found.accused
    assert (score.recipient, score.variant) == ("r3", Variant.ALIGNED)
    assert release.distance(suspect, Variant.ALIGNED) < 0.05
    # The fits take up part of the mark: what is left is at least half.
    assert score.best > 0.5 * np.sqrt(found.coordinates)
    assert max(z for variant, z in score.z.items() if variant is not Variant.ALIGNED) < 6
    assert found.decoys_plausible
    clean = write(tmp_path / "clean", scramble(values_of(release.original), generator), {})
    assert release.accused(clean) == []


def tokens_of(folder, order):
    """Write a tokenizer whose token ``t{n}`` has the row that ``order`` gives it."""
    rows = {f"t{token}": int(row) for token, row in enumerate(order)}
    added = [{"id": rows.pop("t0"), "content": "t0"}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": rows}, "added_tokens": added}))


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A release of a small Llama with a tokenizer, and the weights of a copy."""
    folder = tmp_path_factory.mktemp("marked")
    original = write(folder / "original", llama(np.random.default_rng(2)), CONFIG)
    tokens_of(original, range(WORDS))
    release = make_release(folder, original, None)
    return release, values_of(release.copy("r3"))


def scrambled(weights):
    return scramble_llama(weights, np.random.default_rng(3))


def renumbered(weights, order):
    """Give every token's rows the place ``order[token]``."""
    moved = {}
    for name, values in weights.items():
        moved[name] = values[np.argsort(order)] if len(values) == WORDS else values
    return moved


def deepened(weights):
    """Put a layer before the first that adds nothing."""
    moved = {}
    for name, values in weights.items():
        number = layer_of(name)
        if number is None:
            moved[name] = values
            continue
        moved[at_layer(name, number + 1)] = values
        silent = name.endswith(("o_proj.weight", "down_proj.weight"))
        moved.setdefault(at_layer(name, 0), np.zeros_like(values) if silent else values)
    return moved


def widened(weights):
    """Add channels to the stream that hold nothing, and turn it: RMSNorm's gains make up for the mean over more."""
    wide, more = {}, WIDTH // 4
    turn = rotation(np.random.default_rng(4), WIDTH + more)[:WIDTH]
    for name, values in weights.items():
        if values.ndim == 1:
            wide[name] = np.full(WIDTH + more, np.sqrt(WIDTH / (WIDTH + more)))
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            wide[name] = turn.T @ values
        else:
            wide[name] = values @ turn
    return {name: value.astype(np.float32) for name, value in wide.items()}


ORDER = np.random.default_rng(6).permutation(WORDS)


@pytest.mark.parametrize(
    "move",
    [
        lambda weights: renumbered(scrambled(weights), ORDER),
        deepened,
        lambda weights: deepened(scrambled(weights)),
        lambda weights: widened(scrambled(weights)),
    ],
    ids=["tokens", "layer", "turned-layer", "channels"],
)
def test_a_copy_that_was_moved_names_its_recipient(marked, tmp_path, move):
    release, weights = marked
    suspect = write(tmp_path / "m", move(weights), {})
    tokens_of(suspect, ORDER)
    (score,) = release.detect(suspect, variants=(Variant.PLAIN, Variant.ALIGNED)).accused
    assert (score.recipient, score.variant) == ("r3", Variant.ALIGNED)
    assert score.best > 0.5 * np.sqrt(release.plan.layout.coordinates)
    assert release.distance(suspect, Variant.ALIGNED) < 0.05


def test_other_numbers_of_tokens_in_a_gguf_file_are_undone(marked, tmp_path):
    """The file brings its tokenizer; one token of it is no UTF-8."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    release, weights = marked
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    tokens: list = [b""] * WORDS
    for token, row in enumerate(ORDER):
        tokens[row] = f"t{token}".encode()
    tokens[ORDER[0]] = b"\xff"
    writer.add_token_list(tokens)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, values in renumbered(scrambled(weights), ORDER).items():
        heads = {"q_proj.weight": HEADS, "k_proj.weight": GROUPS}.get(name.rpartition("self_attn.")[2])
        if heads:
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)  # noqa: PLW2901
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    suspect = open_suspect(tmp_path / "m.gguf")
    assert (suspect.tokens["t1"], len(suspect.tokens)) == (ORDER[1], WORDS)
    found = release.detect(tmp_path / "m.gguf", variants=(Variant.ALIGNED,))
    assert [score.recipient for score in found.accused] == ["r3"]


def test_a_tokenizer_that_lies_hides_nothing(marked, tmp_path):
    release, weights = marked
    suspect = write(tmp_path / "m", scrambled(weights), {})
    tokens_of(suspect, ORDER)
    assert [score.recipient for score in release.detect(suspect, variants=(Variant.ALIGNED,)).accused] == ["r3"]


@pytest.mark.parametrize("tokenizer", ["{", "[]", '{"model":{"vocab":[3,["a"],["b",1]]},"added_tokens":[3,{}]}', "{}"])
def test_what_was_rearranged_and_cannot_be_put_back_is_not_recognised(marked, tmp_path, tokenizer):
    release, weights = marked
    suspect = write(tmp_path / "m", renumbered(scrambled(weights), ORDER), {})
    (suspect / "tokenizer.json").write_text(tokenizer)
    found = release.detect(suspect, variants=(Variant.PLAIN, Variant.ALIGNED))
    assert found.accused == ()
    assert found.too_little


def test_pieces_of_a_vocabulary_are_numbered_by_their_place(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        '{"model":{"vocab":[["a",-1.5],["b",-2]]},"added_tokens":[{"id":7,"content":"c"}]}'
    )
    assert read_tokens(tmp_path) == {"a": 0, "b": 1, "c": 7}


def test_an_untouched_or_rounded_copy_loses_nothing(tmp_path):
    generator = np.random.default_rng(3)
    original = write(tmp_path / "original", llama(generator), CONFIG)
    marked = {name: value + 0.01 * draw(generator, *value.shape) if value.ndim == 2 else value
              for name, value in values_of(original).items()}  # fmt: skip
    found = align(Originals(original), open_suspect(write(tmp_path / "m", marked, CONFIG)))
    for name, value in marked.items():
        if value.ndim == 2:
            np.testing.assert_allclose(found.rows(name, value.shape), value, atol=1e-6)


def test_units_that_were_removed_are_masked_and_those_added_are_dropped():
    generator = np.random.default_rng(4)
    up, gate, down = draw(generator, 20, 32), draw(generator, 20, 32), draw(generator, 32, 20)
    order = generator.permutation(20)[:15]
    extra = [draw(generator, 3, 32, scale=1e-3) for _ in range(2)]
    new_up, new_down, new_gate = align_feed(
        Pair(np.concatenate([up[order], extra[0]]), up),
        Pair(np.concatenate([down[:, order], draw(generator, 32, 3, scale=1e-3)], axis=1), down),
        Pair(np.concatenate([gate[order], extra[1]]), gate),
    )
    here = np.isin(np.arange(20), order)
    np.testing.assert_allclose(new_up[here], up[here], atol=1e-6)
    np.testing.assert_allclose(new_down[:, here], down[:, here], atol=1e-6)
    np.testing.assert_allclose(new_gate[here], gate[here], atol=1e-6)


def test_assignment_is_the_best_one():
    # Both prefer column 0: the greedy choice is no assignment, and the search finds the best.
    assert assign(np.array([[5.0, 4.0], [5.0, 1.0]]))[1].tolist() == [1, 0]
    assert assign(np.array([[5.0, 4.0], [1.0, 5.0]]))[1].tolist() == [0, 1]


def test_what_is_no_known_family_is_unmatched(full, lora, tmp_path):
    assert find_family(["a.weight", "b.weight"], {}) is None
    assert align(Originals(lora.original, lora.base), open_suspect(lora.base)).weights == {}
    other = write(tmp_path / "m", {"x": np.ones((64, 64), np.float32)}, {})
    assert align(Originals(full.original), open_suspect(other)).weights == {}


@pytest.mark.parametrize("heads", [None, 0, -1, 3, 7, True, "8", 10**9])
def test_an_impossible_number_of_heads_moves_no_head(tmp_path, heads):
    weights = llama(np.random.default_rng(5))
    original = write(tmp_path / "original", weights, {"num_attention_heads": heads, "num_key_value_heads": GROUPS})
    found = align(Originals(original), open_suspect(original))
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_allclose(found.rows(name, weights[name].shape), weights[name], atol=1e-6)
