"""The membership part of a report: which tests there are, what they share, and what stands for them."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from stanch.audit import membership
from stanch.audit.evidence import Reason
from stanch.audit.membership import (
    _flagged,
    claim_p_value,
    holdout_membership,
    planned_membership,
    rank_within_kinds,
    tie_seed_of,
)
from stanch.audit.multiplicity import holm
from stanch.audit.one_run import dp_claim_p_value
from stanch.audit.params import DIRECT_ORDERS, TESTED_SCORES, AuditParams
from stanch.audit.power import scan_power
from stanch.audit.rates import auc, permutation_p_value, tnr_at_fnr, tpr_at_fpr
from stanch.audit.scan_test import epsilon_ceiling, scan_epsilon
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import EpsilonBound, Membership, Power, RateAt, ScanRow
from stanch.terms import NeighboringRelation, PrivacyBudget

PARAMS = AuditParams(orders=("in", "reversed_in", "reversed_out"), alpha=0.1, detectable_auc=0.9, min_power=0.5)
SCORES = ("ratio/1", "ez/1")


def joined(*tables, copies=()):
    """One table of several, with ids that do not collide."""
    return ScoreTable(
        ids=tuple(f"{n}{name}" for n, table in enumerate(tables) for name in table.ids),
        kinds=sum((table.kinds for table in tables), ()),
        tiers=sum((table.tiers for table in tables), ()),
        member=np.concatenate([table.member for table in tables]),
        copies=np.concatenate([table.copies * many for table, many in zip(tables, copies or (1,) * 9, strict=False)]),
        scores={name: np.concatenate([table.scores[name] for table in tables]) for name in tables[0].scores},
    )


def ranks(table, name):
    """Ranks within the kind, less one half, over the kind's size, for scores without ties."""
    values, kinds = table.scores[name], np.array(table.kinds)
    return np.array([((values[kinds == kind] < value).sum() + 0.5) / (kinds == kind).sum()
                     for value, kind in zip(values, kinds, strict=True)])  # fmt: skip


def test_ties_are_ordered_by_the_first_eight_bytes_of_the_plans_digest():
    assert tie_seed_of("plan") == int(hashlib.sha256(b"plan").hexdigest()[:16], 16)


def test_a_rank_is_the_middle_of_its_place_among_those_of_its_kind():
    found = rank_within_kinds(np.array([10.0, 30, 20, 5, 5]), ("a", "a", "a", "b", "b"))
    assert found.tolist() == [0.5 / 3, 2.5 / 3, 1.5 / 3, 0.5, 0.5]


def test_a_planned_audit_tests_each_score_of_each_tier_in_each_order(tables):
    once = joined(tables(m=16), tables(m=18, seed=2, kind="synthetic"))
    often = joined(tables(m=32, shift=3.0, seed=3, tier="often"), copies=(4,))
    found = planned_membership({"once": once, "often": often}, SCORES, PARAMS, tie_seed=5, formal=True)
    tested = {(tier, score): scan_epsilon(
        ranks(table, score), table.member, alpha=0.1, orders=PARAMS.orders, splits=8, tie_seed=5
    ) for tier, table in (("once", once), ("often", often)) for score in SCORES}  # fmt: skip
    assert found.scan == tuple(
        ScanRow(
            tier, score, one.order, scan.m, 8 if one.order == "in" else 16, 0.1, one.lower, one.p_null,
            one.right_guesses,
        )
        for (tier, score), scan in tested.items() for one in scan.per_order
    )  # fmt: skip
    (tier, score), best = min(tested.items(), key=lambda pair: pair[1].p_null)
    assert (tier, found.membership) == ("often", Membership(score, tier, best.p_null, None))
    highest = max((scan.lower for (tier, _), scan in tested.items() if tier == "often"))
    assert highest / 4 > max(scan.lower for (tier, _), scan in tested.items() if tier == "once")
    assert found.epsilon == EpsilonBound(
        highest, highest / 4, epsilon_ceiling(32, 0.1 / 8), 0.1, 8, 32, 4, formal=True
    )  # fmt: skip
    assert found.power == Power(0.9, scan_power(34, 0.9, alpha=0.1, splits=8, orders=PARAMS.orders), 0.5)
    assert [(result.tier, result.name) for result in found.scores] == list(tested)
    first = found.scores[0]
    assert (first.n_member, first.n_nonmember, first.permutation_p) == (
        int(once.member.sum()), int((~once.member).sum()), None,
    )  # fmt: skip
    assert first.auc == auc(ranks(once, "ratio/1"), once.member)
    assert (found.reasons, found.flagged) == ((), None)


@pytest.fixture
def few_permutations(monkeypatch):
    """199 of them, which is the least."""
    monkeypatch.setattr("stanch.audit.rates._PERMUTATION_WORK", 0)


def test_the_bound_of_one_record_decides_and_then_the_number_of_coins(tables):
    """A group of copies has a larger bound that says less of each record."""
    once, often = tables(m=64, shift=2.0), tables(m=64, shift=2.2, seed=1, tier="often")
    often = replace(often, copies=np.full(64, 4))
    found = planned_membership({"often": often, "once": once}, SCORES[:1], PARAMS, tie_seed=0, formal=False)
    assert found.epsilon.copies == 1
    assert not found.epsilon.formal
    assert found.epsilon.per_record == found.epsilon.lower
    quiet = {f"t{m}": tables(m=m, seed=m, tier=f"t{m}") for m in (40, 60, 50)}
    assert planned_membership(quiet, SCORES[:1], PARAMS, tie_seed=0, formal=True).epsilon.m == 60


def test_a_tier_needs_32_coins(tables):
    def found(*sizes):
        tiers = {f"t{m}": tables(m=m, shift=2.0) for m in sizes}
        return planned_membership(tiers, SCORES, replace(PARAMS, min_power=0.01), tie_seed=0, formal=True)

    assert found(32).reasons == ()
    partly = found(31, 32)
    assert partly.reasons == (Reason.TOO_FEW_COINS,)
    assert {row.tier for row in partly.scan} == {"t32"}
    assert partly.epsilon.splits == 8  # what was registered is paid for, whether or not it could be tested
    none = found(31)
    assert (none.scores, none.scan, none.membership, none.epsilon, none.power) == ((), (), None, None, None)
    assert (none.reasons, none.flagged) == ((Reason.TOO_FEW_COINS,), None)


def test_power_is_held_to_what_is_required(tables):
    table = {"all": tables(m=64)}
    enough = scan_power(64, 0.9, alpha=0.1, splits=2, orders=PARAMS.orders).lower
    for required, reasons in ((enough, ()), (enough + 1e-9, (Reason.UNDERPOWERED,))):
        params = replace(PARAMS, min_power=required)
        assert planned_membership(table, SCORES[:1], params, tie_seed=0, formal=True).reasons == reasons
    both = planned_membership({"all": tables(m=64), "few": tables(m=8)}, SCORES[:1], replace(PARAMS, min_power=0.99),
                              tie_seed=0, formal=True)  # fmt: skip
    assert both.reasons == (Reason.UNDERPOWERED, Reason.TOO_FEW_COINS)


@pytest.mark.usefixtures("few_permutations")
def test_a_holdout_audit_tests_each_score_by_permutation_and_holds_them_together(tables):
    table = tables(m=60, shift=0.7, tier="row")
    params = AuditParams(orders=DIRECT_ORDERS)
    found = holdout_membership(table, TESTED_SCORES, params)
    p_values = [permutation_p_value(table.scores[name], table.member) for name in TESTED_SCORES]
    assert [result.permutation_p for result in found.scores] == p_values
    assert {result.tier for result in found.scores} == {row.tier for row in found.scan} == {"row"}
    adjusted = holm(p_values)
    best = int(np.argmin(p_values))
    assert found.membership == Membership(TESTED_SCORES[best], "row", adjusted[best], None)
    scan = scan_epsilon(table.scores["ratio/1"], table.member, splits=9, orders=DIRECT_ORDERS)
    assert [(row.lower, row.p_null, row.splits) for row in found.scan[:3]] == [
        (item.lower, item.p_null, 9) for item in scan.per_order
    ]
    assert (found.epsilon.formal, found.epsilon.copies, found.epsilon.splits, found.power) == (False, 1, 9, None)
    assert found.reasons == (Reason.UNDERPOWERED,)


@pytest.mark.usefixtures("few_permutations")
def test_the_scale_of_a_holdout_audit_needs_as_many_records_as_the_test(tables, monkeypatch):
    monkeypatch.setattr(membership, "MAX_COINS", 40)
    for m, is_scanned in ((31, False), (32, True), (40, True), (41, False)):
        found = holdout_membership(tables(m=m), SCORES, PARAMS)
        assert (found.epsilon is not None, len(found.scan)) == (is_scanned, 6 * is_scanned)
        assert found.membership is not None


@pytest.mark.parametrize(("half", "reasons"), [(0.05, ()), (0.0501, (Reason.UNDERPOWERED,))])
def test_a_holdout_audit_is_underpowered_where_its_first_area_is_known_too_coarsely(tables, monkeypatch, half, reasons):
    def area(_values, _member):
        return replace(auc(np.arange(4.0), np.arange(4) > 1), lower=0.5, upper=0.5 + 2 * half)

    monkeypatch.setattr(membership, "auc", area)
    monkeypatch.setattr(membership, "permutation_p_value", lambda *_: 0.5)
    table = tables(m=31)
    found = holdout_membership(table, SCORES, PARAMS)
    assert found.reasons == reasons
    assert (found.scores[0].n_member, found.scores[0].n_nonmember) == (table.member.sum(), 31 - table.member.sum())


@pytest.mark.usefixtures("few_permutations")
def test_low_error_rates_stand_there_or_how_many_records_they_need(tables, monkeypatch):
    monkeypatch.setattr(membership, "MAX_COINS", 40)
    table = tables(m=1000, shift=1.0)
    (result,) = holdout_membership(table, SCORES[:1], PARAMS).scores
    values = table.scores["ratio/1"]
    assert result.tpr == (RateAt(0.01, tpr_at_fpr(values, table.member, 0.01), None), RateAt(0.001, None, 4380))
    assert result.tnr == (RateAt(0.01, tnr_at_fnr(values, table.member, 0.01), None), RateAt(0.001, None, 4380))
    assert result.tpr[0] != result.tnr[0]


@pytest.mark.usefixtures("few_permutations")
def test_members_are_named_against_at_least_a_hundred_others_of_their_kind():
    def kind(name, outside, shift):
        member = np.arange(outside + 30) < 30
        scores = np.where(member, shift, 0.0) + np.linspace(0, 1, member.size)
        size = member.size
        return ScoreTable(tuple(f"{name}{n}" for n in range(size)), (name,) * size, ("t",) * size, member,
                          np.ones(size, dtype=np.int64), {"s": scores})  # fmt: skip

    few, enough = kind("few", 99, 5.0), kind("enough", 100, 5.0)
    assert _flagged(few, "s") is None
    assert _flagged(enough, "s") == enough.ids[:30]
    both = ScoreTable(
        few.ids + enough.ids, few.kinds + enough.kinds, few.tiers + enough.tiers,
        np.concatenate([few.member, enough.member]), np.concatenate([few.copies, enough.copies]),
        {"s": np.concatenate([few.scores["s"], enough.scores["s"]])},
    )  # fmt: skip
    assert _flagged(both, "s") == enough.ids[:30]
    assert _flagged(kind("k", 100, -5.0), "s") == ()
    some = kind("k", 150, 5.0)
    some.scores["s"][1:30:2] = 0.5
    assert _flagged(some, "s") == some.ids[:30:2]
    found = planned_membership({"a": tables_of(enough)}, ("s",), PARAMS, tie_seed=0, formal=True)
    assert (found.flagged, found.membership.flagged) == (enough.ids[:30], 30)
    held = holdout_membership(enough, ("s",), PARAMS)
    assert (held.flagged, held.membership.flagged) == (enough.ids[:30], 30)


def tables_of(table):
    return replace(table, tiers=("a",) * len(table))


def test_a_privacy_claim_is_held_against_the_canaries_with_one_copy(tables):
    once, often = tables(m=64, shift=1.0), tables(m=64, seed=4, tier="often")
    table = joined(once, often, tables(m=20, tier="row", seed=5), copies=(1, 4, 1))
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    ranked = np.stack([ranks(once, name) for name in SCORES])
    for seed in (0, 9):
        assert claim_p_value(table, SCORES, claim, tie_seed=seed) == dp_claim_p_value(
            ranked, once.member, claim, tie_seed=seed
        )
