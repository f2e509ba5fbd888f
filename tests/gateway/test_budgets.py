"""Budgets: never overspent, corrected to what was used, and kept."""

import pytest

from stanch.gateway.budgets import DAY_MS, MINUTE_MS, Budgets, Charge, Limits, default_protected_windows
from stanch.gateway.problem import QuotaExhausted
from stanch.store import open_tables

LIMITS = Limits(requests_per_minute=3, tokens_per_day=100, protected_windows=2)
NOON = 20_000 * DAY_MS + DAY_MS // 2


@pytest.fixture
def budgets(tmp_path):
    tables = open_tables("sqlite:./b.db", base=tmp_path, create=True)
    yield Budgets(tables)
    tables.close()


def charge(tokens=10, at=NOON, who="p_a", model="m"):
    return Charge(who, model, tokens, at)


def reserve(budgets, one):
    with budgets._tables.write() as connection:
        budgets.reserve(connection, one, LIMITS)
    return one


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
    budgets.settle_alone(first, 40)
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
    budgets.settle_alone(late, 5)
    assert used(budgets)["m", "tokens", NOON - DAY_MS // 2] == 5
    assert used(budgets)["m", "tokens", NOON + DAY_MS // 2] == 50
    reserve(budgets, charge(1, NOON + 3 * DAY_MS))
    assert ("m", "tokens", NOON - DAY_MS // 2) not in used(budgets)


def test_protected_windows_are_a_set_that_only_grows(budgets):
    one = reserve(budgets, charge())
    budgets.settle_alone(one, 1, ["aa"])
    budgets.settle_alone(one, 1, ["aa"])
    later = reserve(budgets, charge(at=NOON + 400 * DAY_MS))
    budgets.settle_alone(later, 1, ["bb"])
    assert used(budgets)["m", "protected-windows", 0] == 2
    with pytest.raises(QuotaExhausted):
        reserve(budgets, charge(at=NOON + 800 * DAY_MS))


def test_vectors_are_counted_by_the_day_and_bits_ever_too(budgets):
    limits = Limits(99, 10**9, 2, vectors_per_day=5, bits_per_day=100, bits_ever=150)

    def take(at, **amounts):
        one = Charge("p_a", "m", 1, at, **amounts)
        with budgets._tables.write() as connection:
            budgets.reserve(connection, one, limits)
        return one

    failed = take(NOON, vectors=5)
    with pytest.raises(QuotaExhausted):
        take(NOON, vectors=1)
    budgets.settle_alone(failed, 1)
    take(NOON, vectors=5)
    take(NOON + DAY_MS, vectors=5)
    first = take(NOON, bits=100)
    budgets.settle_alone(first, 1, bits=90)
    for at, bits in ((NOON, 11), (NOON + DAY_MS, 61), (NOON + DAY_MS, 101)):
        with pytest.raises(QuotaExhausted):
            take(at, bits=bits)
    take(NOON + DAY_MS, bits=60)
    with pytest.raises(QuotaExhausted):
        take(NOON + 400 * DAY_MS, bits=1)
    assert used(budgets)["m", "logprob-bits-ever", 0] == 150


@pytest.mark.parametrize(("keys", "cap"), [(1, 8), (80_000, 8), (80_001, 9), (1_000_000, 100), (10**9, 256)])
def test_the_default_cap(keys, cap):
    assert default_protected_windows(keys) == cap
