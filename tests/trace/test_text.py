"""Text watermarks: keys, scores and bound with numpy alone, and generation with transformers' own processor."""

import json
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.errors import InvalidInput, VerificationError
from stanch.trace import TextRoot, TextScores, detect_text
from stanch.trace.text_keys import DEPTH
from stanch.trace.text_order import check_acknowledgement, give_order, take_order
from stanch.trace.text_scores import TABLE_SIZE, count_hashes, sampling_table, weights

ROOT = TextRoot(bytes(range(32)))
GOLDEN = (776206391, 766440452, 438326200)
ORDER_TAG = "dc23bf9b5ac8837c723adda353c550375f1e16f72858f1db2a50733fe4d69bdf"
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=40)


def tenants(count, root=ROOT):
    return {f"t{number}": root.keys(f"t{number}") for number in range(count)}


def innocent(name, size=1500):
    """A text that nobody marked, as ugly as its name says."""
    generator = np.random.default_rng(5)
    match name:
        case "uniform":
            return [generator.integers(0, 32000, size).tolist()]
        case "zipf":
            return [(generator.zipf(1.3, size) % 32000).tolist()]
        case "one word":
            return [[7] * size]
        case "one bit":  # a text chosen so that all its counted 5-grams share one hash
            return [[1, 2, 3, 4, 5 + TABLE_SIZE * number] for number in range(size)]


def test_keys_are_those_of_the_specification():
    keys = ROOT.keys("acme")
    assert (len(keys), keys[:3]) == (DEPTH, GOLDEN)
    assert keys != ROOT.keys("globex") != TextRoot(bytes(32)).keys("globex")
    assert ROOT.keys("e\u0301") == ROOT.keys("é")
    assert "secret" not in repr(ROOT)
    for name in ("", "a\n", "x" * 257):
        with pytest.raises(InvalidInput):
            ROOT.keys(name)


def test_a_root_is_kept_in_a_private_file(tmp_path):
    ROOT.save(tmp_path / "root")
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o600
    assert TextRoot.load(tmp_path / "root") == ROOT
    (tmp_path / "other").write_bytes(b"x")
    (tmp_path / "other").chmod(0o600)
    with pytest.raises(InvalidInput, match="not a text root"):
        TextRoot.load(tmp_path / "other")


def test_an_order_is_for_one_tenant_and_one_request():
    value = give_order(ROOT, "acme", b"{}")
    key_id, _, tag = value.partition(".")
    assert (key_id, tag) == (ROOT.key_id("acme"), ORDER_TAG)
    order = take_order(ROOT, ["globex", "acme"], value, b"{}")
    assert order.tenant == "acme"
    check_acknowledgement(ROOT, "acme", order.acknowledgement, b"{}")
    other = TextRoot(bytes(32))
    for root, names, body in ((ROOT, ["globex"], b"{}"), (ROOT, ["acme"], b"[]"), (other, ["acme"], b"{}")):
        with pytest.raises(VerificationError):
            take_order(root, names, value, body)
    for root, name, said, body in (
        (ROOT, "acme", value, b"{}"), (ROOT, "acme", order.acknowledgement, b"[]"),
        (ROOT, "globex", order.acknowledgement, b"{}"), (other, "acme", order.acknowledgement, b"{}"),
        (ROOT, "acme", "\xe9", b"{}"),
    ):  # fmt: skip
        with pytest.raises(VerificationError):
            check_acknowledgement(root, name, said, body)


@given(st.lists(tokens, max_size=3), st.integers(0, 2**31 - 1))
def test_a_key_scores_what_its_bits_sum_to(texts, key):
    """The correlation by Fourier transform is the plain sum over the counted 5-grams."""
    table, hashes = sampling_table(), np.repeat(np.arange(TABLE_SIZE), count_hashes(texts)).tolist()
    bits = [int(table[((value + key) * 6364136223846793005 + 1) % TABLE_SIZE]) for value in hashes]
    expected = sum(bits) - len(bits) * float(table.mean())
    assert TextScores.of(texts).by_key[key % TABLE_SIZE] == pytest.approx(expected, abs=1e-9)


def test_what_was_not_marked_or_counted_before_does_not_count():
    text = list(range(100, 120))
    assert count_hashes([text]).sum() == 16
    assert count_hashes([text, text]).sum() == 16
    assert count_hashes([text * 50]).sum() == 20
    assert count_hashes([[1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 6]]).sum() == 6  # the context 1 2 3 4 returned
    assert count_hashes([[], [1, 2, 3, 4]]).sum() == 0
    for wrong in (-1, 2**31, 1.0, True, "1"):
        with pytest.raises(InvalidInput, match="token"):
            count_hashes([[1, 2, 3, 4, wrong]])


@pytest.mark.parametrize("name", ["uniform", "zipf", "one word", "one bit"])
def test_innocent_keys_reach_the_bound_no_more_often_than_stated(name):
    """40,000 random key sets a text; 3 standard deviations of the count are allowed: a true claim fails in 0.1 %."""
    scores, runs = TextScores.of(innocent(name)), 40_000
    found = scores.by_key[np.random.default_rng(6).integers(0, TABLE_SIZE, (runs, DEPTH))] @ weights()
    for level in (0.1, 0.01, 0.001):
        scale = np.linspace(0, 2 * found.max(), 2000)
        edge = bisect_left(scale, -np.log10(level), key=lambda x: -scores.log10_bound(x))
        reached = int((found >= scale[edge]).sum()) if edge < len(scale) else 0
        assert reached <= runs * level + 3 * np.sqrt(runs * level)


def test_texts_that_nobody_marked_name_nobody():
    # ε = 0.05, 60 texts, 50 tenants: at most 3 + 3 sd = 8 false namings if the bound were exact.
    generator, keys = np.random.default_rng(7), tenants(50)
    named = sum(
        bool(detect_text([generator.integers(0, 5000, 300).tolist()], keys, epsilon=0.05).named) for _ in range(60)
    )
    assert named <= 8


def test_few_tokens_and_empty_input_decide_nothing():
    found = detect_text([list(range(150))], tenants(3))
    assert (found.conclusive, found.named, found.to_json()["verdict"]) == (False, (), "inconclusive")
    assert detect_text([], tenants(3)).scores[0].log10_p == 0
    for options in ({"epsilon": 0.0}, {"epsilon": 1.0}, {"analyses": 0}):
        with pytest.raises(InvalidInput):
            detect_text([], tenants(3), **options)
    with pytest.raises(InvalidInput):
        detect_text([], {})


@pytest.fixture(scope="module")
def written():
    """Text of a small model with random weights, sampled under acme's watermark by transformers' ``generate``."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from stanch.trace.text_torch import text_mark  # noqa: PLC0415 - needs torch

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    prompt = torch.randint(3, 64, (4, 5))

    def write(**options):
        made = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=True, min_new_tokens=80, max_new_tokens=80,
            **options,
        )  # fmt: skip
        return made[:, 5:].tolist()

    mark = text_mark(ROOT.keys("acme"))
    return write(watermarking_config=mark), write(), mark


def test_marked_text_names_its_tenant_alone(written):
    marked, plain, _ = written
    everybody = {"acme": ROOT.keys("acme")} | tenants(500)
    found = detect_text(marked, everybody)
    assert [score.tenant for score in found.named] == ["acme"]
    assert found.scores[0].log10_p < -40
    assert found.scores[1].z < 5
    assert detect_text(plain, everybody).named == ()
    said = found.to_json()
    assert (said["verdict"], said["named"], said["n"]) == ("found", ["acme"], 501)
    assert "at most 1e-09" in said["sentence"]
    assert json.dumps(said)


def test_most_of_the_text_is_enough_and_a_rewritten_half_does_not_hide_it(written):
    marked, _, _ = written
    everybody, generator = {"acme": ROOT.keys("acme")} | tenants(500), np.random.default_rng(8)
    assert detect_text([text[:64] for text in marked], everybody).named
    mixed = [text[:54] + generator.integers(3, 64, 54).tolist() for text in marked]
    assert [score.tenant for score in detect_text(mixed, everybody).named] == ["acme"]


def test_scores_agree_with_the_processor_of_transformers(written):
    import torch  # noqa: PLC0415 - the fixture skips where it is missing

    mark, generator = written[2], np.random.default_rng(9)
    processor = mark.construct_processor(64, "cpu")
    unchanged = super(type(mark), mark).construct_processor(64, "cpu")
    assert torch.equal(processor.sampling_table, unchanged.sampling_table)
    text = generator.integers(0, 60_000, 300)
    bits = processor.compute_g_values(torch.tensor(text)[None])[0].numpy()
    scores = TextScores.of([text.tolist()])
    assert scores.tokens == len(bits)
    expected = bits.sum(axis=0) - len(bits) * sampling_table().mean()
    np.testing.assert_allclose(scores.by_key[np.array(ROOT.keys("acme")) % TABLE_SIZE], expected, atol=1e-6)


def test_a_watermark_shows_no_key(written):
    mark = written[2]
    assert "keys" not in mark.to_dict()
    assert str(ROOT.keys("acme")[0]) not in repr(mark) + mark.to_json_string()
    from stanch.trace.text_torch import text_mark  # noqa: PLC0415 - needs torch

    for keys in ([1] * 29, [2**31] * 30, [-1] * 30):
        with pytest.raises(InvalidInput):
            text_mark(keys)


def test_keys_can_be_recovered_from_marked_text_which_is_why_a_finding_is_a_lead(written):
    """The limit that docs/spec/text-watermark.md states: the strongest keys stand out among all 65,536."""
    order = np.argsort(-TextScores.of(written[0]).by_key)[:64].tolist()
    strongest = [key % TABLE_SIZE for key in ROOT.keys("acme")[:4]]
    assert len(set(strongest) & set(order)) >= 3
