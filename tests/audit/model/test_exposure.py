"""Exposure by sampled rank: candidates, p-values, controls."""

import dataclasses
import hmac
import itertools
import math

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanch.audit import exposure
from stanch.audit.exposure import (
    CONTROL_P,
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
from stanch.data import ChatTurn, TokenRecord, tokenise_canary

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


def test_candidates_follow_from_the_seed_of_the_plan_and_the_id_of_the_canary(plan):
    canary = plan.canaries[0]
    key = hmac.digest(plan.seed, b"stanch/exposure/v1\0" + canary.id.encode(), "sha256")
    raw = np.random.PCG64(int.from_bytes(key)).random_raw(24) % 10
    assert draw_candidates(canary, plan, 3) == ["".join(map(str, row)) for row in raw.reshape(3, 8)]


def test_only_drawn_characters_vary(plan):
    canary = dataclasses.replace(plan.canaries[0], secret="12-34")
    assert free_positions(canary, "0123456789") == 4
    assert space_bits(canary, "0123456789") == pytest.approx(4 * math.log2(10))
    assert {text[2] for text in draw_candidates(canary, plan, 20)} == {"-"}


def test_candidates_by_table_equal_those_tokenised_one_by_one(tokenizer, plan):
    canary = plan.canaries[0]
    secrets = [canary.secret, *draw_candidates(canary, plan, 40)]
    table = symbol_table(canary, plan.symbols, secrets, tokenizer)
    assert table is not None
    records = candidate_records(canary, secrets, tokenizer, table)
    assert records == candidate_records(canary, secrets, tokenizer, None)
    whole = tokenise_canary(canary, tokenizer)
    assert records[0].ids == whole.ids[: whole.span[1]]
    assert {r.span for r in records} == {whole.span}
    for secret, record in zip(secrets, records, strict=True):
        text = tokenizer.decode(record.ids[record.span[0] :])
        assert text.strip() == secret


def test_the_words_before_the_answer_stay(tokenizer, plan):
    canary = plan.canaries[0]
    longer = dataclasses.replace(canary, messages=(ChatTurn("system", "Be brief."), *canary.messages))
    (record,) = candidate_records(longer, ["00000000"], tokenizer, None)
    whole, own = tokenizer.decode(record.ids), tokenizer.decode(tokenise_canary(longer, tokenizer).ids)
    assert "Be brief." in whole
    assert own.startswith(whole.replace("00000000", canary.secret))


@pytest.mark.parametrize("fault", ["another beginning", "a merged pair"])
def test_there_is_no_table_where_a_secret_is_not_its_symbols_one_by_one(monkeypatch, tokenizer, plan, fault):
    canary, cut = plan.canaries[0], exposure._cut
    secrets = [canary.secret, *draw_candidates(canary, plan, 40)]

    def odd(name, canary, secret, tokenizer):
        record = cut(name, canary, secret, tokenizer)
        if fault == "another beginning" and secret == "7" * 8:
            return TokenRecord(name, (record.ids[1], *record.ids[1:]), record.span)
        if fault == "a merged pair" and secret == secrets[3]:
            return TokenRecord(name, (*record.ids[:-2], 0), (record.span[0], record.span[1] - 1))
        return record

    monkeypatch.setattr(exposure, "_cut", odd)
    assert symbol_table(canary, plan.symbols, secrets, tokenizer) is None


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
    assert CONTROL_P == 0.001
    assert fisher([1.0]) == 1
    assert fisher([0.05]) == pytest.approx(0.05)
    assert fisher([0.02] * 6) == pytest.approx(stats.combine_pvalues([0.02] * 6).pvalue)


def test_known_secrets_rank_first_and_others_do_not(tokenizer, plan):
    inside, seen = [c for c in plan.canaries if c.member], []
    found = measure_exposure(FakeScorer(tokenizer, inside), plan, PARAMS, progress=lambda *told: seen.append(told))
    assert seen == [("exposure", done, 12) for done in range(1, 13)]
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


@pytest.mark.parametrize(("behind", "rank"), [(0.9e-4, 50), (1.2e-4, 1)])
def test_what_is_behind_by_less_than_the_tie_counts_as_likelier(tokenizer, plan, behind, rank):
    class Close(FakeScorer):
        def features(self, records, **_options):
            for record in records:
                lp = np.array([-1 - (behind if record.id != "0" else 0)])
                yield Features(record.id, record.span[0], lp, lp, lp, lp > 1, lp)

    found = measure_exposure(Close(tokenizer), plan, PARAMS)
    assert {s.sampled_p for s in found.secrets} == {rank / 50}


def test_each_tier_is_told_apart(tokenizer, plan):
    order = {canary.id: number for number, canary in enumerate(c for c in plan.canaries if c.member)}
    outside = [c.id for c in plan.canaries if not c.member]
    late = {*list(order)[2:], *outside[1:]}
    canaries = tuple(dataclasses.replace(c, tier="late" if c.id in late else "early") for c in plan.canaries)
    known = [c for c in canaries if order.get(c.id) in {0, 2, 3, 4}]
    found = measure_exposure(FakeScorer(tokenizer, known), dataclasses.replace(plan, canaries=canaries), PARAMS)
    bits = [s.bits for s in found.secrets if s.member]
    early, later = found.per_tier
    assert (early.tier, early.n_in, early.n_out) == ("early", 2, 1)
    assert (later.tier, later.n_in, later.n_out) == ("late", 4, 5)
    assert early.max_bits == max(bits[:2]) > early.median_bits == sum(bits[:2]) / 2
    assert later.max_bits == max(bits[2:]) == math.log2(50)
    assert later.median_bits == np.median(bits[2:])


class Whole(FakeScorer):
    """A white box that says the digits of one secret, but prefers another first digit: the secret is the second."""

    white_box = True

    def __init__(self, tokenizer, plan, canary):
        super().__init__(tokenizer)
        self.table = symbol_table(canary, plan.symbols, [canary.secret], tokenizer)
        self.own = tokenise_canary(canary, tokenizer).ids[len(self.table.head) :][:8]
        self.first = next(token for token in self.table.rows[0].values() if token != self.own[0])

    def law(self, place, token):
        if place == 0:
            return math.log({self.own[0]: 0.3, self.first: 0.4}.get(token, 0.3 / 8))
        return math.log(0.91 if token == self.own[place] else 0.01)

    def features(self, records, **_options):
        for record in records:
            lp = np.array([self.law(place, token) for place, token in enumerate(record.ids[record.span[0] :])])
            yield Features(record.id, record.span[0], lp, lp, lp, lp > 1, lp)

    def continuations(self, prefix):
        assert prefix == self.table.head
        return lambda strings, tokens: np.array(
            [[self.law(len(string), token) for token in tokens.tolist()] for string in strings.tolist()]
        )


def test_a_secret_that_few_strings_precede_is_ranked_among_all(monkeypatch, tokenizer, plan):
    canary = next(c for c in plan.canaries if c.member)
    scorer = Whole(tokenizer, plan, canary)
    log_p = math.log(0.3 * 0.91**7)
    bound = math.ceil(search_bound(log_p, 8))
    params = dataclasses.replace(PARAMS, tree_budget=bound, exposure_secrets=1)

    def first(**changes):
        found = measure_exposure(scorer, plan, dataclasses.replace(params, **changes))
        assert [s.exact for s in found.secrets[1:]] == [False]
        return found.secrets[0]

    assert (first().exact, first().bits) == (True, pytest.approx(8 * math.log2(10) - 1))
    assert (first(tree_budget=bound - 1).exact, first(tree_budget=bound - 1).bits) == (False, math.log2(50))
    with monkeypatch.context() as patch:
        patch.setattr(exposure, "search_bound", lambda log_p, _length: bound if log_p > -9 else math.inf)
        assert first().exact
        assert not first(tree_budget=bound - 1).exact
        patch.setattr(exposure, "symbol_table", lambda *_: None)
        assert not first().exact
    scorer.white_box = False
    assert not first().exact


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
