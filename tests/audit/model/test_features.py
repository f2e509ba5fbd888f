"""The feature pass: batches, prefix reuse, fp32 figures, the off-switch and what is refused."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.features import (
    AdapterOff,
    check_scorable,
    plan_batches,
    record_digest,
    shared_prefix_length,
    token_budget,
    tokenizer_digest,
)
from stanch.audit.hf_torch import HfScorer
from stanch.audit.integrity import require_same_base
from stanch.audit.params import AuditParams, Decoding
from stanch.audit.reductions_torch import reduce_logits
from stanch.data import TokenRecord, tokenise
from stanch.errors import ExternalError, InvalidInput, UnsafeArtifact

PLAIN = Decoding()
FIELDS = ("lp", "mu", "sigma", "lq")


def passed(scorer, records, **options):
    return {f.record_id: f for f in scorer.features(records, decoding=PLAIN, **options)}


@pytest.fixture(scope="module")
def scorer(tiny):
    return HfScorer(tiny.tuned)


@pytest.fixture(scope="module")
def ragged(tiny):
    """Records of very different lengths, chats and plain texts."""
    chats = [tokenise(record, tiny.tokenizer) for record in tiny.members[:6]]
    texts = [TokenRecord(f"t{n}", tuple(range(5, 5 + n)), (1, n)) for n in (2, 3, 17, 90)]
    return [*chats, *texts]


def test_batch_of_one_equals_batches_with_padding(scorer, ragged):
    together = passed(scorer, ragged)
    for record in ragged:
        alone = passed(scorer, [record])[record.id]
        for name in FIELDS:
            np.testing.assert_allclose(getattr(together[record.id], name), getattr(alone, name), atol=1e-4)
        assert (together[record.id].hit == alone.hit).all()
        assert together[record.id].start == record.span[0]


def test_equal_records_go_through_the_model_once(scorer, ragged, monkeypatch):
    copies = [replace(record, id=f"copy of {record.id}") for record in ragged[:3]]
    other_span = replace(ragged[0], id="other span", span=(ragged[0].span[0], ragged[0].span[1] - 1))
    seen = []
    forward = scorer._forward
    monkeypatch.setattr(scorer, "_forward", lambda batch, *rest: seen.extend(batch) or forward(batch, *rest))
    together = passed(scorer, [*ragged, *copies, other_span])
    assert len(seen) == len(ragged) + 1
    for record in ragged[:3]:
        assert (together[f"copy of {record.id}"].lp == together[record.id].lp).all()
    assert together["other span"].lp.size == together[ragged[0].id].lp.size - 1


def test_shared_prefix_changes_nothing(scorer, tiny):
    records = [tokenise(record, tiny.tokenizer) for record in tiny.members]
    assert shared_prefix_length(records) >= 10
    reused = passed(scorer, records)
    for record in records[:5]:
        whole = passed(scorer, [record])[record.id]
        np.testing.assert_allclose(reused[record.id].lp, whole.lp, atol=1e-4)


def test_figures_against_a_plain_computation(scorer, tiny):
    record = tokenise(tiny.members[0], tiny.tokenizer)
    features = passed(scorer, [record])[record.id]
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.tuned).double()
    with torch.no_grad():
        logits = model(torch.tensor([record.ids])).logits[0]
    for i, position in enumerate(range(*record.span)):
        row = logits[position - 1].log_softmax(0)
        token = record.ids[position]
        mean = float((row.exp() * row).sum())
        spread = math.sqrt(float((row.exp() * (row - mean) ** 2).sum()))
        top = logits[position - 1].topk(40).values
        drawn = float(logits[position - 1][token] - top.logsumexp(0))
        assert features.lp[i] == pytest.approx(float(row[token]), abs=1e-4)
        assert features.mu[i] == pytest.approx(mean, abs=1e-4)
        assert features.sigma[i] == pytest.approx(spread, abs=1e-3)
        assert features.hit[i] == (int(row.argmax()) == token)
        assert features.lq[i] == (pytest.approx(drawn, abs=1e-4) if logits[position - 1][token] >= top[-1] else -np.inf)


def test_decoding_cuts_off_unlikely_tokens_and_follows_the_temperature():
    logits = torch.tensor([[3.0, 2.0, 1.0, -torch.inf]] * 3)
    targets = torch.tensor([0, 1, 2])
    lp, mu, sigma, hit, lq = reduce_logits(logits, targets, Decoding(top_k=2, temperature=0.5))
    assert lq.tolist() == [
        pytest.approx(-math.log1p(math.exp(-2)), abs=1e-6),
        pytest.approx(-2.126928, abs=1e-5),
        -math.inf,
    ]
    assert hit.tolist() == [True, False, False]
    assert torch.isfinite(torch.cat([lp, mu, sigma])).all()


def test_certain_token_has_the_least_spread_and_no_nan():
    lp, mu, sigma, hit, lq = reduce_logits(torch.tensor([[0.0, -1e9]]), torch.tensor([0]), PLAIN)
    assert (lp.item(), mu.item(), hit.item(), lq.item()) == (0, 0, True, 0)
    assert sigma.item() == pytest.approx(1e-4)


def test_bfloat16_weights_are_reduced_in_fp32(tiny, ragged):
    half = passed(HfScorer(tiny.tuned, dtype="bfloat16"), ragged)
    full = passed(HfScorer(tiny.tuned, dtype="float32"), ragged)
    assert all(f.lp.dtype == np.float32 for f in half.values())
    assert max(float(np.abs(half[r.id].lp - full[r.id].lp).max()) for r in ragged) < 0.5


def test_model_without_logits_to_keep_gives_the_same(scorer, ragged, monkeypatch):
    selected = passed(scorer, ragged)
    monkeypatch.setattr(scorer, "_selects", False)
    whole = passed(scorer, ragged)
    for record in ragged:
        np.testing.assert_allclose(selected[record.id].lp, whole[record.id].lp, atol=1e-4)


def test_gpt2_is_scored_too():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)

    class Backend:
        def get_vocab_size(self):
            return 300

        def to_str(self):
            return "{}"

    class Plain:
        backend_tokenizer = Backend()
        chat_template = None

    scorer = HfScorer.from_loaded(model, Plain())
    records = [TokenRecord(f"t{n}", tuple(range(7, 7 + n)), (n // 2, n)) for n in (4, 9, 30)]
    together = passed(scorer, records)
    for record in records:
        alone = passed(scorer, [record])[record.id]
        np.testing.assert_allclose(together[record.id].lp, alone.lp, atol=1e-4)
    assert scorer.identity.model == ""


def test_batch_that_does_not_fit_is_halved(scorer, ragged, monkeypatch):
    whole = passed(scorer, ragged)
    forward = scorer._forward
    sizes = []

    def small(batch, *rest):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return forward(batch, *rest)

    monkeypatch.setattr(scorer, "_forward", small)
    halved = passed(scorer, ragged)
    assert max(sizes) > 2
    assert all(np.allclose(whole[r.id].lp, halved[r.id].lp, atol=1e-4) for r in ragged)


def test_single_record_that_does_not_fit_names_its_length(scorer, ragged, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(scorer, "_forward", fail)
    with pytest.raises(ExternalError, match="2 tokens"):
        passed(scorer, ragged)


def test_other_errors_of_the_model_are_not_hidden(scorer, ragged, monkeypatch):
    def fail(*_):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(scorer, "_forward", fail)
    with pytest.raises(RuntimeError, match="shape"):
        passed(scorer, ragged)


@pytest.mark.parametrize("span", [(0, 3), (3, 3), (4, 3), (2, 6)])
def test_record_without_a_scorable_token_is_refused(span):
    with pytest.raises(InvalidInput, match="no token can be scored"):
        check_scorable(TokenRecord("r", (1, 2, 3, 4, 5), span))


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40), st.integers(30, 200))
def test_batches_hold_each_record_once_within_the_budget(lengths, budget):
    records = [TokenRecord(f"r{i}", tuple(range(n)), (1, n)) for i, n in enumerate(lengths)]
    batches = list(plan_batches(records, budget))
    assert sorted(r.id for batch in batches for r in batch) == sorted(r.id for r in records)
    assert all(len(batch) * max(len(r.ids) for r in batch) <= budget for batch in batches)
    assert batches == list(plan_batches(records[::-1], budget))


def test_token_budget_bounds_the_logits():
    assert token_budget(49_152) == 5461
    assert token_budget(300) == 16_384
    assert token_budget(10**9) == 1


def test_record_digest_depends_on_tokens_and_span_but_not_on_the_id():
    one = TokenRecord("a", (1, 2, 3), (1, 3))
    assert record_digest(one) == record_digest(TokenRecord("b", (1, 2, 3), (1, 3)))
    assert record_digest(one) != record_digest(TokenRecord("a", (1, 2, 3), (2, 3)))
    assert record_digest(one) != record_digest(TokenRecord("a", (1, 2, 4), (1, 3)))


def test_tokenizer_digest_follows_template_and_vocabulary_not_padding(tiny):
    before = tokenizer_digest(tiny.tokenizer)
    tiny.tokenizer(["a", "b c d"], padding=True)
    assert tokenizer_digest(tiny.tokenizer) == before
    assert HfScorer(tiny.tuned).identity.tokenizer == before
    other = transformers.AutoTokenizer.from_pretrained(tiny.tuned)
    other.chat_template += " "
    assert tokenizer_digest(other) != before


def test_adapter_off_is_the_base(tiny, adapter, ragged):
    tuned = HfScorer(adapter, base=tiny.base)
    assert tuned.switchable
    assert tuned.identity.base == HfScorer(tiny.base).identity.model
    off = passed(tuned, ragged, adapter="off")
    base = passed(HfScorer(tiny.base), ragged)
    on = passed(tuned, ragged)
    assert all(np.allclose(off[r.id].lp, base[r.id].lp, atol=1e-5) for r in ragged)
    assert max(float(np.abs(on[r.id].lp - base[r.id].lp).max()) for r in ragged) > 0.01
    same = passed(HfScorer(tiny.base, adapter=adapter), ragged)
    assert all(np.allclose(on[r.id].lp, same[r.id].lp) for r in ragged)


def test_whole_model_has_no_off_switch(scorer):
    with pytest.raises(InvalidInput, match="has none"):
        scorer.require_adapter_off()


def lora(base, **options):
    model = transformers.LlamaForCausalLM.from_pretrained(base)
    options = {"target_modules": ["q_proj"], **options}
    return peft.get_peft_model(model, peft.LoraConfig(r=2, **options))


def test_adapter_with_biases_is_refused(tiny):
    scorer = HfScorer.from_loaded(lora(tiny.base, bias="lora_only"), tiny.tokenizer)
    with pytest.raises(InvalidInput, match="bias"):
        scorer.require_adapter_off()


def test_adapter_that_changed_the_base_at_its_start_is_refused(tiny):
    scorer = HfScorer.from_loaded(lora(tiny.base, init_lora_weights="pissa"), tiny.tokenizer)
    with pytest.raises(InvalidInput, match="pissa"):
        scorer.require_adapter_off()


def test_merged_adapter_is_refused(tiny):
    model = lora(tiny.base)
    model.merge_adapter()
    with pytest.raises(InvalidInput, match="merged"):
        HfScorer.from_loaded(model, tiny.tokenizer).require_adapter_off()


def test_resized_vocabulary_is_refused(tiny):
    model = lora(tiny.base, modules_to_save=["lm_head"])
    HfScorer.from_loaded(model, tiny.tokenizer).require_adapter_off()
    wrapper = model.get_base_model().lm_head
    wrapper.modules_to_save["default"] = torch.nn.Linear(96, 500, bias=False)
    with pytest.raises(InvalidInput, match="resized"):
        HfScorer.from_loaded(model, tiny.tokenizer).require_adapter_off()


def test_tokenizer_larger_than_the_vocabulary_is_refused(tiny, kit):
    with pytest.raises(InvalidInput, match="embeds 100"):
        HfScorer.from_loaded(kit.build_model(100), tiny.tokenizer)


def test_wrong_base_is_refused(tiny, adapter, ragged):
    target = HfScorer(adapter, base=tiny.base)
    require_same_base(target, HfScorer(tiny.base), ragged, AuditParams())
    require_same_base(target, AdapterOff(), ragged, AuditParams())
    with pytest.raises(InvalidInput, match="not the base model"):
        require_same_base(target, HfScorer(tiny.tuned), ragged, AuditParams())


def test_base_with_another_tokenizer_is_refused(tiny, ragged):
    other = HfScorer(tiny.base)
    other._identity = HfScorer(tiny.base).identity.__class__("", (), "", "", "00", "float32", "")
    with pytest.raises(InvalidInput, match="tokenizer"):
        require_same_base(HfScorer(tiny.tuned), other, ragged, AuditParams())


def test_adapter_needs_its_base_once(tiny, adapter):
    with pytest.raises(InvalidInput, match="exactly one base"):
        HfScorer(adapter)
    with pytest.raises(InvalidInput, match="exactly one base"):
        HfScorer(adapter, adapter=adapter, base=tiny.base)
    with pytest.raises(InvalidInput, match="not a directory"):
        HfScorer(tiny.base / "nowhere")


def test_adapter_of_another_shape_is_refused(tiny, adapter, kit, tmp_path):
    other = kit.save(kit.build_model(len(tiny.tokenizer), dim=64), tiny.tokenizer, tmp_path / "other")
    with pytest.raises(InvalidInput, match="does not fit"):
        HfScorer(adapter, base=other)


def test_pickled_weights_are_refused(tiny, tmp_path):
    copy = shutil.copytree(tiny.base, tmp_path / "pickled")
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeArtifact, match=r"pytorch_model\.bin"):
        HfScorer(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(InvalidInput, match="no model"):
        HfScorer(copy)


def test_code_of_the_model_directory_is_never_run(tiny, tmp_path):
    copy = shutil.copytree(tiny.base, tmp_path / "coded")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InvalidInput, match="without code of its own"):
        HfScorer(copy)


def test_adapter_that_is_no_lora_is_refused(tiny, adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "ia3")
    config = json.loads((copy / "adapter_config.json").read_text()) | {"peft_type": "IA3"}
    (copy / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match="not a LoRA"):
        HfScorer(copy, base=tiny.base)


def test_features_print_no_content(scorer, ragged):
    found = passed(scorer, ragged[:1])
    assert repr(next(iter(found.values()))).count("array") == 0
