"""Budgets: never overspent, corrected to what was used, and kept."""

from typing import get_args

import pytest

from stanch.cli.gateway import _BUDGETS
from stanch.gateway.budgets import (
    CUT,
    DAY_MS,
    DRAWN,
    MINUTE_MS,
    Amounts,
    Budget,
    Budgets,
    Charge,
    Grown,
    Limits,
    default_protected_windows,
)
from stanch.gateway.problem import QuotaExhausted
from stanch.store import open_tables
from stanch.store.schema.gateway import budget_drawn
from stanch.workspace.verbs_serve import BudgetReset

LIMITS = Limits(requests_per_minute=3, tokens_per_day=100, protected_windows=2)
NOON = 20_000 * DAY_MS + DAY_MS // 2


@pytest.fixture
def budgets(tmp_path):
    tables = open_tables("sqlite:./b.db", base=tmp_path, create=True)
    yield Budgets(tables)
    tables.close()


def charge(tokens=10, at=NOON, who="p_a", model="m", index=""):
    return Charge(who, model, Amounts(tokens=tokens), at, index=index)


def reserve(budgets, one, limits=LIMITS):
    with budgets.tables.write() as connection:
        return budgets.reserve(connection, one, limits)


def settle(budgets, one, tokens, drawn=()):
    with budgets.tables.write() as connection:
        return budgets.settle(connection, one, Amounts(tokens=tokens), {DRAWN: drawn}).get(DRAWN)


def used(budgets, who="p_a"):
    return {(use.model, use.budget, use.window_ms): use.used for use in budgets.uses(who)}


def test_requests_are_counted_by_the_minute_for_each_principal_and_model(budgets):
    for _ in range(3):
        reserve(budgets, charge(1))
    for refused in (charge(1), charge(1, NOON + MINUTE_MS - 1)):
        with pytest.raises(QuotaExhausted):
            reserve(budgets, refused)
    reserve(budgets, charge(1, NOON + MINUTE_MS))
    reserve(budgets, charge(1, who="p_b"))
    reserve(budgets, charge(1, model="other"))


def test_tokens_are_reserved_whole_and_settled_to_what_was_used(budgets):
    first = reserve(budgets, charge(100))
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(1))
    settle(budgets, first, 40)
    reserve(budgets, charge(60))
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(1))


def test_a_refusal_charges_nothing(budgets):
    before = used(budgets)
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(101))
    assert used(budgets) == before


def test_what_is_settled_late_is_settled_in_its_own_day(budgets):
    late = reserve(budgets, charge(90, NOON))
    reserve(budgets, charge(50, NOON + DAY_MS))
    settle(budgets, late, 5)
    assert used(budgets)["m", "tokens/day", NOON - DAY_MS // 2] == 5
    assert used(budgets)["m", "tokens/day", NOON + DAY_MS // 2] == 50
    reserve(budgets, charge(1, NOON + 3 * DAY_MS))
    assert ("m", "tokens/day", NOON - DAY_MS // 2) not in used(budgets)


def test_protected_windows_are_a_set_that_only_grows(budgets):
    one = reserve(budgets, charge())
    settle(budgets, one, 1, ["aa"])
    settle(budgets, one, 1, ["aa"])
    later = reserve(budgets, charge(at=NOON + 400 * DAY_MS))
    settle(budgets, later, 1, ["bb"])
    assert used(budgets)["m", "protected-windows", 0] == 2
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(at=NOON + 800 * DAY_MS))


def test_models_of_one_index_have_one_cap(budgets):
    old, new, other = (charge(model=model, index=index) for model, index in (("m", "i"), ("n", "i"), ("m", "j")))
    settle(budgets, reserve(budgets, old), 1, ["aa", "bb"])
    for one in (old, new):
        with pytest.raises(QuotaExhausted) as refused:
            reserve(budgets, one)
        assert refused.value.budget == DRAWN
    reserve(budgets, other)
    assert used(budgets)["i", DRAWN, 0] == 2
    budgets.name_corpora({"n": "i"})
    reset(budgets, DRAWN, "n")
    reserve(budgets, old)


def test_windows_that_were_counted_by_model_are_taken_over_once_and_reset_for_good(budgets):
    with budgets.tables.write() as connection:
        for fingerprint in ("aa", "bb"):
            connection.execute(budget_drawn.insert().values(principal="p_a", model="m", fingerprint=fingerprint))
    for _ in range(2):
        budgets.name_corpora({"m": "i"})
        assert used(budgets) == {("i", DRAWN, 0): 2}
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(model="n", index="i"))
    reset(budgets, DRAWN)
    budgets.name_corpora({"m": "i"})
    reserve(budgets, charge(model="n", index="i"))


@pytest.mark.parametrize(("limits", "most"), [(LIMITS, 16), (Limits(cut_windows=3), 3)])
def test_answers_are_cut_for_so_many_windows(budgets, limits, most):
    def cut(*windows):
        with budgets.tables.write() as connection:
            return budgets.settle(connection, charge(), Amounts(), {DRAWN: [], CUT: windows})

    cut(*(f"{at}" for at in range(most - 1)), "0")
    reserve(budgets, charge(), limits)
    assert cut("0", "last") == {CUT: Grown(most - 1, most)}
    with pytest.raises(QuotaExhausted) as refused:
        reserve(budgets, charge(at=NOON + 400 * DAY_MS), limits)
    assert refused.value.budget == CUT
    reset(budgets, CUT)
    reserve(budgets, charge(), limits)


def test_vectors_are_counted_by_the_day_and_bits_ever_too(budgets):
    limits = Limits(99, 10**9, 2, vectors_per_day=5, bits_per_day=100, bits_in_total=150)

    def take(at, **amounts):
        return reserve(budgets, Charge("p_a", "m", Amounts(**amounts), at), limits)

    def give_back(one, **amounts):
        with budgets.tables.write() as connection:
            budgets.settle(connection, one, Amounts(**amounts))

    failed = take(NOON, vectors=5)
    with pytest.raises(QuotaExhausted):
        take(NOON, vectors=1)
    give_back(failed)
    take(NOON, vectors=5)
    take(NOON + DAY_MS, vectors=5)
    first = take(NOON, bits=100)
    give_back(first, bits=90)
    for at, bits in ((NOON, 11), (NOON + DAY_MS, 61), (NOON + DAY_MS, 101)):
        with pytest.raises(QuotaExhausted):
            take(at, bits=bits)
    take(NOON + DAY_MS, bits=60)
    with pytest.raises(QuotaExhausted):
        take(NOON + 400 * DAY_MS, bits=1)
    assert used(budgets)["m", "bits/total", 0] == 150


@pytest.mark.parametrize(("keys", "cap"), [(1, 8), (80_000, 8), (80_001, 9), (1_000_000, 100), (10**9, 256)])
def test_the_default_cap(keys, cap):
    assert default_protected_windows(keys) == cap


@pytest.mark.parametrize("budget", ["requests", "tokens", "vectors", "bits"])
@pytest.mark.parametrize(("window", "later"), [("per_minute", MINUTE_MS), ("per_day", DAY_MS), ("in_total", None)])
def test_every_amount_has_a_limit_in_every_window(budgets, budget, window, later):
    none = {"requests_per_minute": None, "tokens_per_day": None, "bits_per_day": None, "bits_in_total": None}
    limits = Limits(**(none | {f"{budget}_{window}": 10}))

    def ask(amount, at=NOON):
        return reserve(budgets, Charge("p_a", "m", Amounts(**({"requests": 0} | {budget: amount})), at), limits)

    ask(4)
    ask(6)
    for at in (NOON, NOON + 99 * DAY_MS if later is None else NOON + min(later, DAY_MS // 2) - 1):
        with pytest.raises(QuotaExhausted):
            ask(1, at)
    if later is not None:
        ask(10, NOON + later)


def test_no_bits_of_log_probabilities_are_given_unless_somebody_says_so(budgets):
    with pytest.raises(QuotaExhausted):
        reserve(budgets, Charge("p_a", "m", Amounts(bits=1), NOON), Limits())


def test_a_minute_that_begins_a_day_is_counted_apart_from_the_day(budgets):
    limits = Limits(5, None, 9, requests_per_day=7)
    midnight = NOON - DAY_MS // 2
    for at in (midnight,) * 5 + (midnight + MINUTE_MS,) * 2:
        reserve(budgets, charge(at=at), limits)
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(at=midnight + MINUTE_MS), limits)


def reset(budgets, budget, model="m"):
    with budgets.tables.write() as connection:
        budgets.reset(connection, BudgetReset("p_a", (model,), budget, "why"))


def test_a_reset_budget_is_empty_and_requests_on_their_way_give_nothing_back(budgets):
    before = reserve(budgets, charge(80))
    reset(budgets, "tokens")
    assert ("m", "tokens/day", NOON - DAY_MS // 2) not in used(budgets)
    assert used(budgets)["m", "requests/minute", NOON] == 1
    later = reserve(budgets, charge(90))
    settle(budgets, before, 1)
    assert used(budgets)["m", "tokens/day", NOON - DAY_MS // 2] == 90
    settle(budgets, later, 20)
    assert used(budgets)["m", "tokens/day", NOON - DAY_MS // 2] == 20
    reset(budgets, "tokens")
    settle(budgets, reserve(budgets, charge(90)), 30)
    assert used(budgets)["m", "tokens/day", NOON - DAY_MS // 2] == 30


def test_a_reset_of_the_protected_windows_forgets_them(budgets):
    one = reserve(budgets, charge())
    assert settle(budgets, one, 1, ["aa", "bb"]) == Grown(0, 2)
    reset(budgets, "protected-windows")
    assert settle(budgets, one, 1, ["aa", "aa"]) == Grown(0, 1)


@pytest.mark.parametrize(
    ("grown", "crossed"),
    [((0, 3), 0), ((3, 4), 50), ((4, 4), 0), ((4, 7), 80), ((0, 7), 80), ((7, 8), 100), ((8, 9), 0)],
)
def test_half_four_fifths_and_all_of_the_cap_are_told_once(grown, crossed):
    assert Grown(*grown).crossed(8) == crossed


def test_the_command_knows_the_budgets():
    assert get_args(Budget) == _BUDGETS
