"""Exposure by sampled rank: candidates, p-values, controls."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanch.audit.exposure import (
    candidate_records,
    draw_candidates,
    fisher,
    free_positions,
    measure_exposure,
    space_bits,
    symbol_table,
)
from stanch.audit.features import Features
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams
from stanch.audit.prefix_tree import exact_rank, search_bound
from stanch.data import tokenise_canary

PARAMS = AuditParams(exposure_candidates=49, exposure_secrets=6, tree_budget=1)


class FakeScorer:
    """Gives each record a log-probability drawn from its tokens; chosen secrets get the highest."""

    white_box = False  # it knows no continuations

    def __init__(self, tokenizer, known=()):
        self.tokenizer = tokenizer
        self.known = {tokenise_canary(c, tokenizer).ids[: tokenise_canary(c, tokenizer).span[1]] for c in known}

    def features(self, records, **_options):
        for record in records:
            level = 0.0 if record.ids in self.known else -1 - np.random.default_rng(hash(record.ids) & 0xFFFF).random()
            lp = np.full(record.span[1] - record.span[0], level, dtype=np.float32)
            yield Features(record.id, record.span[0], lp, lp, lp, lp > 1, lp)


def test_candidates_are_uniform_distinct_by_canary_and_repeatable(plan):
    one, other = plan.canaries[:2]
    drawn = draw_candidates(one, plan, 2000)
    assert drawn == draw_candidates(one, plan, 2000)
    assert drawn != draw_candidates(other, plan, 2000)
    counts = np.bincount([int(c) for text in drawn for c in text], minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-6
    assert {len(text) for text in drawn} == {8}


def test_only_drawn_characters_vary(plan):
    canary = dataclasses.replace(plan.canaries[0], secret="12-34")
    assert free_positions(canary, "0123456789") == 4
    assert space_bits(canary, "0123456789") == pytest.approx(4 * math.log2(10))
    assert {text[2] for text in draw_candidates(canary, plan, 20)} == {"-"}


def test_candidates_by_table_equal_those_tokenised_one_by_one(tokenizer, plan):
    canary = plan.canaries[0]
    secrets = [canary.secret, *draw_candidates(canary, plan, 40)]
    table = symbol_table(canary, plan.symbols, secrets, tokenizer)
    records = candidate_records(canary, secrets, tokenizer, table)
    assert records == candidate_records(canary, secrets, tokenizer, None)
    whole = tokenise_canary(canary, tokenizer)
    assert records[0].ids == whole.ids[: whole.span[1]]
    assert {r.span for r in records} == {whole.span}
    for secret, record in zip(secrets, records, strict=True):
        text = tokenizer.decode(record.ids[record.span[0] :])
        assert text.strip() == secret


def test_symbols_that_merge_are_tokenised_one_by_one(tokenizer, plan):
    """A secret of words: no table of one token a symbol exists."""
    canary = plan.canaries[0]
    last = dataclasses.replace(canary.messages[-1], content="The code is lantern for now.")
    worded = dataclasses.replace(canary, messages=(canary.messages[0], last), secret="lantern")
    secrets = ["lantern", "qxqxqxq"]
    assert symbol_table(worded, "abcdefghijklmnopqrstuvwxyz", secrets, tokenizer) is None
    records = candidate_records(worded, secrets, tokenizer, None)
    assert len(records[0].ids) != len(records[1].ids)
    assert tokenizer.decode(records[1].ids[records[1].span[0] :]).strip() == "qxqxqxq"


def test_fisher_of_uniform_p_values_and_of_one():
    assert fisher([1.0]) == 1
    assert fisher([0.05]) == pytest.approx(0.05)
    assert fisher([0.02] * 6) == pytest.approx(stats.combine_pvalues([0.02] * 6).pvalue)


def test_known_secrets_rank_first_and_others_do_not(tokenizer, plan):
    inside = [c for c in plan.canaries if c.member]
    found = measure_exposure(FakeScorer(tokenizer, inside), plan, PARAMS)
    assert found.candidates == 49
    assert [s.bits for s in found.secrets if s.member] == [math.log2(50)] * 6
    assert found.fisher_in == pytest.approx(fisher([1 / 50] * 6))
    assert found.fisher_out > 1e-3
    (tier,) = found.per_tier
    assert (tier.n_in, tier.n_out, tier.space_bits) == (6, 6, pytest.approx(8 * math.log2(10)))


def test_ranks_of_a_model_that_knows_nothing_are_uniform(tokenizer, plan):
    params = AuditParams(exposure_candidates=19, exposure_secrets=64)
    found = measure_exposure(FakeScorer(tokenizer), plan, params)
    p = np.array([s.sampled_p for s in found.secrets])
    assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_ties_count_against_the_model(tokenizer, plan):
    class Flat(FakeScorer):
        def features(self, records, **_options):
            for record in records:
                lp = np.full(3, -1, dtype=np.float32)
                yield Features(record.id, record.span[0], lp, lp, lp, lp > 1, lp)

    found = measure_exposure(Flat(tokenizer), plan, PARAMS)
    assert {s.sampled_p for s in found.secrets} == {1.0}
    assert {s.bits for s in found.secrets} == {0.0}


def test_plan_without_secrets_of_symbols_is_not_ranked(tokenizer, plan):
    assert measure_exposure(FakeScorer(tokenizer), dataclasses.replace(plan, symbols="#"), PARAMS) is None


def test_only_the_kind_secret_is_ranked(tokenizer, plan):
    # Digits in what a base model wrote are no uniform symbols: a rank among uniform ones would be no exposure.
    others = tuple(dataclasses.replace(canary, kind="synthetic") for canary in plan.canaries)
    assert measure_exposure(FakeScorer(tokenizer), dataclasses.replace(plan, canaries=others), PARAMS) is None


def test_tuned_model_exposes_what_was_put_in_only(tiny):
    found = measure_exposure(HfScorer(tiny.tuned), tiny.plan, PARAMS)
    assert found.fisher_in < 1e-4
    assert found.fisher_out > 1e-3
    assert found.per_tier[0].median_bits > 3
    assert {s.exact for s in found.secrets if not s.member} == {False}


def test_secret_that_is_known_well_is_ranked_exactly(tiny, kit):
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.tuned)
    known = [canary for canary in tiny.plan.canaries if canary.member][:3]
    rows = [kit.canary_record(canary, i) for i, canary in enumerate(known)]
    kit.fit(model, rows, tiny.tokenizer, steps=70, rate=3e-3)
    params = AuditParams(exposure_candidates=19, exposure_secrets=3)
    found = measure_exposure(HfScorer.from_loaded(model, tiny.tokenizer), tiny.plan, params)
    assert [s.exact for s in found.secrets] == [True] * 3 + [False] * 3
    assert [s.bits for s in found.secrets[:3]] == [pytest.approx(8 * math.log2(10))] * 3


def test_rank_by_search_equals_rank_by_looking_at_all(tiny):
    """Every one of 10,000 strings, scored one by one, against the search."""
    scorer = HfScorer(tiny.tuned)
    canary = tiny.plan.canaries[1]
    last = dataclasses.replace(canary.messages[-1], content="The code is 4711 for now.")
    short = dataclasses.replace(canary, messages=(canary.messages[0], last), secret="4711")
    secrets = [f"{i:04d}" for i in range(10_000)]
    table = symbol_table(short, "0123456789", secrets, tiny.tokenizer)
    records = candidate_records(short, secrets, tiny.tokenizer, table)
    totals = np.empty(10_000)
    for features in scorer.features(records, decoding=AuditParams().decoding):
        totals[int(features.record_id)] = features.lp.sum(dtype=np.float64)
    choices = [np.array(sorted(row.values())) for row in table.rows]
    for number in (*np.argsort(-totals)[[0, 1, 7, 200]].tolist(), 4711):
        own = np.array(records[number].ids[len(table.head) :])
        rank = exact_rank(scorer.continuations(table.head), choices, own, tie=1e-4)
        assert rank == (totals >= totals[number] - 1e-4).sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_rank_by_search_of_random_trees(seed, length):
    """A made-up model whose next-symbol law depends on the whole string before; brute force over all strings."""

    def law(string):
        rng = np.random.default_rng([seed, len(string), *string])
        return np.log(rng.dirichlet([0.4, 1.0, 2.0]))

    def proceed(strings, tokens):
        return np.array([law(tuple(row))[tokens] for row in strings.tolist()]).reshape(len(strings), -1)

    everything = list(itertools.product(range(3), repeat=length))
    totals = np.array([sum(law(s[:i])[s[i]] for i in range(length)) for s in everything])
    secret = np.array(everything[seed % len(everything)])
    rank = exact_rank(proceed, [np.arange(3)] * length, secret, tie=1e-9)
    assert rank == (totals >= totals[seed % len(everything)] - 1e-9).sum()
    visited = search_bound(float(totals[seed % len(everything)]), length)
    assert visited >= length


def test_search_bound_of_an_impossible_secret_is_no_overflow():
    assert search_bound(-math.inf, 12) > 1e300
    assert search_bound(0.0, 12) == 12
