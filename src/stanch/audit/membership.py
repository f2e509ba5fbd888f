"""The membership part of a report, from a score table alone: what an audit writes and a verifier computes again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.evidence import Reason
from stanch.audit.multiplicity import benjamini_hochberg, conformal_p_values, holm
from stanch.audit.one_run import dp_claim_p_value
from stanch.audit.params import MIN_COINS, ROWS_TIER, AuditParams, count_parts, count_sharers
from stanch.audit.power import scan_power
from stanch.audit.rates import Suppressed, auc, permutation_p_value, tnr_at_fnr, tpr_at_fpr
from stanch.audit.scan_test import MAX_COINS, OrderResult, ScanResult, epsilon_ceiling, scan_epsilon
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import EpsilonBound, Membership, Power, RateAt, ScanRow, ScoreResult
from stanch.crypto import sha256
from stanch.terms import Interval, PrivacyBudget

FloatArray: TypeAlias = npt.NDArray[np.float64]

LOW_RATES: Final = (0.01, 0.001)
"""The low error rates at which true rates are reported."""

MAX_HALF_WIDTH: Final = 0.05
"""Widest half of the AUC interval with which a hold-out audit may find no leak."""

_FEWEST_CALIBRATION = 100


@dataclass(frozen=True, slots=True)
class MembershipResult:
    """The membership sections of a report, what is wrong with them, and the ids of records found one by one."""

    scores: tuple[ScoreResult, ...]
    scan: tuple[ScanRow, ...]
    membership: Membership | None
    epsilon: EpsilonBound | None
    power: Power | None
    reasons: tuple[Reason, ...]
    flagged: tuple[str, ...] | None


def tie_seed_of(plan_id: str) -> int:
    """Return the seed of the order of ties: the first 8 bytes of SHA-256 of the plan's id."""
    return int.from_bytes(sha256(plan_id.encode())[:8], "big")


def rank_within_kinds(values: FloatArray, kinds: tuple[str, ...]) -> FloatArray:
    """Return (midrank within its kind - 1/2) / size of the kind: depends on scores alone; kinds can be pooled."""
    ranks = np.empty(values.size)
    labels = np.asarray(kinds)
    for kind in np.unique(labels):
        mask = labels == kind
        ranks[mask] = (scipy.stats.rankdata(values[mask]) - 0.5) / mask.sum()
    return ranks


def planned_membership(
    tiers: Mapping[str, ScoreTable], scores: tuple[str, ...], params: AuditParams, *, tie_seed: int, formal: bool
) -> MembershipResult:
    """Test canaries that were put in by independent fair coins.

    Args:
        tiers: The formal tiers.
        scores: Names of the tested scores; ``alpha`` is shared over scores, orders and tiers.
        params: Alpha, orders, and the power that is required.
        tie_seed: Seed of the order of ties.
        formal: Whether there is a proof of when the coins were fixed; without it the bound is no epsilon.
    """
    splits = len(scores) * count_parts(params.orders) * len(tiers)
    results: list[ScoreResult] = []
    tests: list[_Test] = []
    for tier, table in tiers.items():
        if len(table) < MIN_COINS:
            continue
        for score in scores:
            ranked = rank_within_kinds(table.scores[score], table.kinds)
            results.append(_score_result(score, tier, ranked, table, permutation_p=None))
            scanned = scan_epsilon(
                ranked, table.member, alpha=params.alpha, orders=params.orders, splits=splits, tie_seed=tie_seed
            )
            tests.append(_Test(tier, score, int(table.copies.max()), scanned))
    if not tests:
        return MembershipResult(tuple(results), (), None, None, None, (Reason.TOO_FEW_COINS,), None)
    power = _power(max(test.scan.m for test in tests), splits, params)
    best = min(tests, key=lambda test: test.scan.p_null)
    flagged = _flagged(tiers[best.tier], scores[0])
    reasons = [Reason.UNDERPOWERED] if power.probability.lower < power.required else []
    if len(tests) < len(scores) * len(tiers):
        reasons.append(Reason.TOO_FEW_COINS)
    return MembershipResult(
        scores=tuple(results),
        scan=tuple(_row(test, item, splits, params) for test in tests for item in test.scan.per_order),
        membership=Membership(best.score, best.tier, best.scan.p_null, None if flagged is None else len(flagged)),
        epsilon=_epsilon(tests, splits, params.alpha, formal=formal),
        power=power,
        reasons=tuple(reasons),
        flagged=flagged,
    )


def holdout_membership(table: ScoreTable, scores: tuple[str, ...], params: AuditParams) -> MembershipResult:
    """Test members against records of the same source that were kept out.

    The p-values are conditional on members and hold-out being alike but for the tuning, which the shift gate examines.
    The scan value is a scale of distinguishability and no epsilon: nobody threw coins.
    """
    results = [
        _score_result(
            score,
            ROWS_TIER,
            table.scores[score],
            table,
            permutation_p=permutation_p_value(table.scores[score], table.member),
        )
        for score in scores
    ]
    adjusted = holm([result.permutation_p if result.permutation_p is not None else 1.0 for result in results])
    best = int(np.argmin(adjusted))
    splits = len(scores) * count_parts(params.orders)
    tests = [
        _Test(
            ROWS_TIER,
            score,
            1,
            scan_epsilon(table.scores[score], table.member, alpha=params.alpha, orders=params.orders, splits=splits),
        )
        for score in scores
        if MIN_COINS <= len(table) <= MAX_COINS
    ]
    headline = results[0].auc
    flagged = _flagged(table, scores[0])
    return MembershipResult(
        scores=tuple(results),
        scan=tuple(_row(test, item, splits, params) for test in tests for item in test.scan.per_order),
        membership=Membership(
            scores[best], ROWS_TIER, float(adjusted[best]), None if flagged is None else len(flagged)
        ),
        epsilon=_epsilon(tests, splits, params.alpha, formal=False) if tests else None,
        power=None,
        reasons=(Reason.UNDERPOWERED,) if (headline.upper - headline.lower) / 2 > MAX_HALF_WIDTH else (),
        flagged=flagged,
    )


def claim_p_value(table: ScoreTable, scores: tuple[str, ...], claim: PrivacyBudget, *, tie_seed: int) -> float:
    """Return the p-value of a privacy claim from the canaries with one copy, over all tested scores together."""
    canaries = table.formal_tiers(("all",))["all"]
    ranked = np.stack([rank_within_kinds(canaries.scores[name], canaries.kinds) for name in scores])
    return dp_claim_p_value(ranked, canaries.member, claim, tie_seed=tie_seed)


@dataclass(frozen=True, slots=True)
class _Test:
    tier: str
    score: str
    copies: int
    scan: ScanResult


def _row(test: _Test, result: OrderResult, splits: int, params: AuditParams) -> ScanRow:
    return ScanRow(
        tier=test.tier,
        score=test.score,
        order=result.order,
        m=test.scan.m,
        splits=splits * count_sharers(result.order, params.orders),
        alpha=params.alpha,
        lower=result.lower,
        p_null=result.p_null,
        w_at_grid=result.right_guesses,
    )


def _epsilon(tests: list[_Test], splits: int, alpha: float, *, formal: bool) -> EpsilonBound:
    """Return the best of all bounds; which one is best may be looked at, since they hold together."""
    best = max(tests, key=lambda test: (test.scan.lower / test.copies, test.scan.m))
    return EpsilonBound(
        lower=best.scan.lower,
        per_record=best.scan.lower / best.copies,
        ceiling=epsilon_ceiling(best.scan.m, alpha / splits),
        alpha=alpha,
        splits=splits,
        m=best.scan.m,
        copies=best.copies,
        formal=formal,
    )


def _power(m: int, splits: int, params: AuditParams) -> Power:
    probability = scan_power(m, params.detectable_auc, alpha=params.alpha, splits=splits, orders=params.orders)
    return Power(params.detectable_auc, probability, params.min_power)


def _score_result(
    name: str, tier: str, values: FloatArray, table: ScoreTable, *, permutation_p: float | None
) -> ScoreResult:
    member = table.member
    return ScoreResult(
        name=name,
        tier=tier,
        n_member=int(member.sum()),
        n_nonmember=int((~member).sum()),
        auc=auc(values, member),
        tpr=tuple(_rate_at(rate, tpr_at_fpr(values, member, rate)) for rate in LOW_RATES),
        tnr=tuple(_rate_at(rate, tnr_at_fnr(values, member, rate)) for rate in LOW_RATES),
        permutation_p=permutation_p,
    )


def _rate_at(rate: float, result: Interval | Suppressed) -> RateAt:
    return RateAt(rate, None, result.needs) if isinstance(result, Suppressed) else RateAt(rate, result, None)


def _flagged(table: ScoreTable, score: str) -> tuple[str, ...] | None:
    """Return ids of members found with a false discovery rate of 5 %; None if there are too few to calibrate on.

    Each kind is held against non-members of its own: ranks that one kind's leak has moved are no measure of another.
    """
    labels, names = np.asarray(table.kinds), np.asarray(table.ids)
    ids: list[str] = []
    p_values: list[float] = []
    for kind in dict.fromkeys(table.kinds):
        inside, outside = (labels == kind) & table.member, (labels == kind) & ~table.member
        if int(outside.sum()) >= _FEWEST_CALIBRATION:
            ids += names[inside].tolist()
            p_values += conformal_p_values(table.scores[score][inside], table.scores[score][outside]).tolist()
    if not p_values:
        return None
    return tuple(name for name, is_found in zip(ids, benjamini_hochberg(p_values).tolist(), strict=True) if is_found)
