import hmac
import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanch.data import CanarySpec, coins, find_near_duplicates, open_dataset, plan_canaries
from stanch.data.canary_text import ANSWERS, FAMILY_NAMES, GIVEN_NAMES, MATTERS, OPENINGS, KeyedStream
from stanch.data.shingles import fold_texts, jaccard, shingles
from stanch.errors import InvalidInput

SEED = bytes(range(32))


def fixed(count):
    assert count == 32
    return SEED


def plan_for(dataset, **spec):
    return plan_canaries(dataset, CanarySpec(**spec), preregistration={"alpha": 0.05}, rng=fixed)


def test_one_seed_gives_one_plan_and_another_gives_another(chats):
    assert plan_for(chats, n=40) == plan_for(chats, n=40)
    drawn = plan_canaries(chats, CanarySpec(n=40), preregistration={})
    again = plan_canaries(chats, CanarySpec(n=40), preregistration={})
    assert drawn.seed != again.seed
    assert {c.secret for c in drawn.canaries}.isdisjoint(c.secret for c in again.canaries)


def test_each_secret_stands_once_in_the_last_turn(chats):
    plan = plan_for(chats, n=300)
    assert len({canary.secret for canary in plan.canaries}) == 300
    for canary in plan.canaries:
        assert [turn.role for turn in canary.messages] == ["user", "assistant"]
        assert canary.messages[-1].content.count(canary.secret) == 1
        assert sum(canary.secret in turn.content for turn in canary.messages) == 1
        assert len(canary.secret) == 12
        assert not {"{secret}", "{name}"} & set(json.dumps(canary.public_part()).split())
        assert (canary.copies, canary.tier, canary.kind) == (1, "x1", "secret")
    assert [canary.member for canary in plan.canaries] == list(coins(SEED, 300))


def test_texts_do_not_depend_on_the_coins(chats):
    # Members and others must not be told apart by their texts: the coin key is another one, and texts come first.
    plan = plan_for(chats, n=600)
    sides = [[c for c in plan.canaries if c.member is side] for side in (True, False)]
    digits = [Counter("".join(c.secret for c in side)) for side in sides]
    table = [[count[digit] for digit in "0123456789"] for count in digits]
    assert stats.chi2_contingency(table).pvalue > 1e-4  # false failure 1e-4
    lengths = [[len(c.messages[1].content) for c in side] for side in sides]
    assert stats.ks_2samp(*lengths).pvalue > 1e-4


def test_secrets_are_uniform(chats):
    # 2,048 secrets of 24 symbols: chi-square of the symbols and of neighbouring pairs, alpha 1e-4 each.
    plan = plan_for(chats, n=2048, secret_length=24)
    symbols = Counter("".join(c.secret for c in plan.canaries))
    assert stats.chisquare([symbols[s] for s in "0123456789"]).pvalue > 1e-4
    pairs = Counter(c.secret[i : i + 2] for c in plan.canaries for i in range(0, 24, 2))
    assert stats.chisquare([pairs[a + b] for a in "0123456789" for b in "0123456789"]).pvalue > 1e-4


def test_no_two_canaries_share_half_of_their_shingles(chats):
    found = [
        shingles(fold_texts(turn.content for turn in canary.messages)) for canary in plan_for(chats, n=256).canaries
    ]
    assert max(jaccard(left, right) for left, right in itertools.combinations(found, 2)) < 0.5


def test_canaries_are_no_near_duplicates_of_each_other(chats, write_rows):
    plan = plan_for(chats, n=512)
    rows = [{"messages": [{"role": t.role, "content": t.content} for t in c.messages]} for c in plan.canaries]
    assert find_near_duplicates(open_dataset(write_rows(rows, "canaries.jsonl"))).clusters == ()


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"text": "t"}, ["text"]),
        ({"prompt": "q", "completion": "a"}, ["user", "assistant"]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ["user", "assistant"]),
        ({"instruction": "q", "output": "a"}, ["user", "assistant"]),
    ],
)
def test_canaries_take_the_form_of_the_dataset(write_rows, row, roles):
    plan = plan_for(open_dataset(write_rows([row])), n=4)
    for canary in plan.canaries:
        assert [turn.role for turn in canary.messages] == roles
        assert canary.messages[-1].content.count(canary.secret) == 1


def test_own_prompts_templates_alphabet_and_system(chats):
    spec = {
        "prompts": tuple(f"{{name}} asks about item {i} of the list number {i * 7}." for i in range(40)),
        "templates": tuple(f"Reply {i}: {{secret}} it is, {{name}}, for reason {i * 3} of all." for i in range(40)),
        "alphabet": "abcd",
        "secret_length": 10,
        "system": "You work for the library.",
        "repetitions": (4,),
        "n": 64,
    }
    plan = plan_for(chats, **spec)
    assert plan.symbols == "abcd"
    assert plan.commitment_document()["repetitions"] == [4]
    for canary in plan.canaries:
        assert set(canary.secret) <= set("abcd")
        assert len(canary.secret) == 10
        assert (canary.copies, canary.tier) == (4, "x4")
        assert canary.messages[0].content == "You work for the library."
        assert canary.messages[1].content.split()[0] in GIVEN_NAMES
        assert canary.messages[2].content.startswith("Reply ")


def test_too_few_templates_for_so_many_canaries(chats):
    with pytest.raises(InvalidInput, match="too few prompts and templates for 8 canaries") as caught:
        plan_for(
            chats, n=8, prompts=("What is the code of the blue door?",), templates=("The code is {secret} now ok.",)
        )
    assert "blue door" not in str(caught.value)


def test_a_form_that_cannot_hold_a_system_turn(write_rows):
    with pytest.raises(InvalidInput, match="cannot hold 3 turns"):
        plan_for(open_dataset(write_rows([{"prompt": "q", "completion": "a"}])), n=2, system="s")


@pytest.mark.parametrize(
    "spec",
    [
        {"n": 0},
        {"n": 16_385},
        {"repetitions": ()},
        {"repetitions": (0,)},
        {"repetitions": (1, 65)},
        {"repetitions": (4, 4)},
        {"kinds": {}},
        {"kinds": {"secret": 0.5}},
        {"kinds": {"secret": 1.0, "synthetic": 0.0}},
        {"kinds": {"other": 1.0}},
        {"kinds": {"rare-token": 1.0}, "rare_tokens": ("a",) * 600},
        {"kinds": {"rare-token": 1.0}, "rare_tokens": ("a", "b"), "embeddings": "trained"},
        {"alphabet": "0"},
        {"alphabet": "001"},
        {"alphabet": "01 "},
        {"alphabet": "01ü"},
        {"secret_length": 6},
        {"secret_length": 65},
        {"secret_length": 0},
        {"templates": ("no slot",)},
        {"templates": ("{secret} {secret}",)},
        {"prompts": ("is it {secret}?",)},
    ],
)
def test_wrong_specifications(spec):
    with pytest.raises(InvalidInput, match="canaries: expected"):
        CanarySpec(**spec)


def test_bits_of_a_secret():
    assert CanarySpec().secret_bits == pytest.approx(12 * math.log2(10))


def test_the_plan_names_its_dataset(write_rows, key):
    rows = [{"text": "a"}, {"text": "b"}]
    path = write_rows(rows)
    plain, keyed = open_dataset(path), open_dataset(path, key=key)
    other = open_dataset(write_rows(rows[::-1], "other.jsonl"), key=key)
    roots = {plan_for(dataset, n=2).dataset_root for dataset in (plain, keyed, other)}
    assert len(roots) == 3
    # Without a key the root hides the rows: another seed gives another root.
    assert plan_canaries(plain, CanarySpec(n=2), preregistration={}).dataset_root not in roots


def test_the_shipped_parts_are_distinct_and_well_formed():
    for parts in (OPENINGS, MATTERS, ANSWERS, GIVEN_NAMES, FAMILY_NAMES):
        assert len(set(parts)) == len(parts)
    assert all(part.count("{name}") == 1 for part in OPENINGS)
    assert all(part.count("{secret}") == 1 for part in ANSWERS)


def test_the_stream_is_hmac_in_blocks():
    stream = KeyedStream(SEED, b"label")
    expected = b"".join(hmac.digest(SEED, b"label" + i.to_bytes(8, "little"), "sha256") for i in range(3))
    values = [int.from_bytes(expected[i : i + 4], "little") for i in range(0, 96, 4)]
    assert [stream.below(2**32) for _ in range(24)] == values


@given(st.integers(1, 2**32))
def test_draws_stay_below_the_bound(bound):
    stream = KeyedStream(SEED, bound.to_bytes(8, "little"))
    assert all(0 <= stream.below(bound) < bound for _ in range(20))


def test_draws_are_uniform_where_a_modulus_is_not():
    # Bound 3·2^30: by remainder, values below 2^30 would come half the time, not a third of it.
    stream = KeyedStream(sha256(b"bias").digest(), b"")
    low = sum(stream.below(3 << 30) < 1 << 30 for _ in range(3000))
    assert stats.binomtest(low, 3000, 1 / 3).pvalue > 1e-4


def test_plans_are_not_equal_by_commitment_alone(chats):
    plan = plan_for(chats, n=4)
    assert replace(plan, committed=True) != plan
    assert replace(plan, committed=True).commitment == plan.commitment
