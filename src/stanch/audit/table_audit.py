"""Audits from a score table alone, and the re-computation of a report's statistics from one."""

from dataclasses import replace
from datetime import UTC, datetime

import scipy

import stanch
from stanch.audit.codec import first_difference, to_json
from stanch.audit.coverage import list_coverage
from stanch.audit.evidence import Reason
from stanch.audit.membership import MembershipResult, claim_p_value, holdout_membership, planned_membership
from stanch.audit.params import ATTACK_PACK, AuditParams
from stanch.audit.rederive import (
    TOLERANCE,
    refuse,
    require_count,
    require_epsilon,
    require_ordered,
    require_p_value,
    require_power,
    require_rows_out,
    require_secrets,
    require_upper_bound,
    require_verdict,
)
from stanch.audit.report import Report, conclude, evidence_of, headline_of
from stanch.audit.score_table import ScoreTable
from stanch.audit.sections import Tool
from stanch.errors import InvalidInput, VerificationError

COIN_P = 1e-6
"""Two-sided binomial p below which a claim of fair coins is refused."""

_RECOMPUTED = ("scores", "scan", "membership", "epsilon", "power", "dp")


def audit_scores(table: ScoreTable, *, coins: bool, alpha: float = 0.05, now: datetime | None = None) -> Report:
    """Return the report of scores that any tool made; no model is looked at.

    Args:
        table: The scores; every record counts, whatever its tier.
        coins: The user's statement that members were chosen by independent fair coins before the tuning. It is kept in
            the report. Without it nothing shows that members and others are alike, so the verdict is INCONCLUSIVE and
            the scan value is no epsilon.
        alpha: Total error probability of the epsilon bound.
        now: Time of the report; the system clock if not given.

    Raises:
        InvalidInput: The coins are not believable (binomial test at 1e-6), or there are more than 50,000 of them.
    """
    params = AuditParams(alpha=alpha)
    limits = ["Tests the given scores alone: extraction, exposure and shift were not looked at."]
    if coins:
        limits += _check_coins(table)
    found = _table_membership(table, params, coins=coins)
    return conclude(
        Report(
            attack_pack=ATTACK_PACK,
            created=(now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            tool=Tool("stanch", stanch.__version__),
            mode="planned" if coins else "holdout",
            self_declared_coins=coins,
            scores=found.scores,
            scan=found.scan,
            membership=found.membership,
            epsilon=found.epsilon,
            power=found.power,
            coverage=list_coverage(found.membership, None, None),
            reasons=found.reasons if coins else (*found.reasons, Reason.NO_SHIFT_GATE),
            limits=tuple(limits),
            scores_digest=str(table.digest),
        )
    )


def _check_coins(table: ScoreTable) -> list[str]:
    inside, count = int(table.member.sum()), len(table)
    p = float(scipy.stats.binomtest(inside, count).pvalue)
    if p < COIN_P:
        raise InvalidInput(
            f"the members were not chosen by fair coins: {inside} of {count} are members (p = {p:.1e})",
            why="the epsilon bound holds for independent fair coins alone",
            next_step="run without --coins, or plan canaries with `stanch data canaries plan`",
        )
    limits = ["That members were chosen by fair coins is the user's statement; nothing proves it."]
    if 2 * inside == count:
        limits.append("Exactly half are members: independent coins do that rarely, a fixed split always.")
    return limits


def _table_membership(table: ScoreTable, params: AuditParams, *, coins: bool) -> MembershipResult:
    names = tuple(table.scores)
    if coins:
        return planned_membership({"all": table}, names, params, tie_seed=0, formal=True)
    return holdout_membership(table, names, params)


def check_report(report: Report) -> Report:
    """Return the report if its figures follow from each other: bounds, ceiling, power and verdict.

    This shows that the report is consistent, not that it is true: only a signature says who made it.

    Raises:
        VerificationError: Names the first field that does not follow.
    """
    for index, score in enumerate(report.scores):
        require_ordered(f"scores[{index}].auc", score.auc)
        require_p_value(f"scores[{index}].permutation_p", score.permutation_p)
        for rate in (*score.tpr, *score.tnr):
            if rate.interval is not None:
                require_ordered(f"scores[{index}] at {rate.rate}", rate.interval)
    if report.membership is not None:
        require_p_value("membership.p", report.membership.p)
        if headline_of(report) is None:
            refuse("membership.score", "one of scores", f"{report.membership.score} of {report.membership.tier}")
    if report.epsilon is not None:
        require_epsilon(report.epsilon)
        if report.epsilon.formal and not report.self_declared_coins and not _is_proven(report):
            refuse("epsilon.formal", "false without a logged commitment before the tuning", "true")
    require_power(report.power, report.reasons)
    if report.dp is not None:
        require_p_value("dp.p_value", report.dp.p_value)
    if report.exposure is not None:
        require_p_value("exposure.fisher_in", report.exposure.fisher_in)
        require_p_value("exposure.fisher_out", report.exposure.fisher_out)
    _check_extraction(report)
    require_verdict(evidence_of(report), report.verdict, report.reasons)
    return report


def _check_extraction(report: Report) -> None:
    if report.extraction is None:
        return
    found = report.extraction
    for name, rows in (("rows", found.rows), ("near_verbatim", found.near_verbatim)):
        if rows is not None:
            require_rows_out(f"extraction.{name}", rows)
    require_secrets(report.extraction.secrets)
    for index, tier in enumerate(report.extraction.tiers):
        require_count(f"extraction.tiers[{index}].k", tier.k, tier.n)
        require_count(f"extraction.tiers[{index}].attributable", tier.attributable, tier.k)
        require_upper_bound(f"extraction.tiers[{index}]", tier.attributable, tier.n, tier.upper)


def _is_proven(report: Report) -> bool:
    if report.plan is None or report.plan.evidence is None:
        return False
    evidence = report.plan.evidence
    return evidence.commitment == report.plan.commitment and 0 <= evidence.entry_index < evidence.tuning_start_index


def recompute(report: Report, table: ScoreTable) -> Report:
    """Compute every statistic that follows from the scores again, and return the report if all are as stated.

    Computed again, to 1e-9: AUC, rates, scan tests, epsilon, power, the privacy claim's p-value, and the verdict.

    Raises:
        VerificationError: The table is another one, or names the first field that differs.
        InvalidInput: Another attack pack made the report.
    """
    check_report(report)
    if report.scores_digest != str(table.digest):
        raise VerificationError(
            f"field scores_digest: expected {report.scores_digest}, found {table.digest}",
            why="this score table is not the one that the report was made from",
            next_step="give the scores.csv that lies beside the report",
        )
    if report.attack_pack != ATTACK_PACK:
        raise InvalidInput(
            f"report: made with attack pack {report.attack_pack}, this release computes pack {ATTACK_PACK}",
            why="each pack has its own tests",
            next_step=f"compute it again with {report.tool.name} {report.tool.version}, or audit again",
        )
    again = _computed_again(report, table)
    stated, found = to_json(report), to_json(again)
    for name in _RECOMPUTED:
        difference = first_difference(found[name], stated[name], tolerance=TOLERANCE, path=name)
        if difference is not None:
            raise VerificationError(
                f"field {difference}: differs from what the score table gives",
                why="the report was edited, or made by another version",
                next_step="audit again",
            )
    return again


def _computed_again(report: Report, table: ScoreTable) -> Report:
    params = _params_of(report)
    tie_seed = int(report.tie_seed) if report.tie_seed.isascii() and report.tie_seed.isdigit() else 0
    if report.mode == "bare":
        return report
    if report.model is None:
        found = _table_membership(table, params, coins=report.self_declared_coins)
    elif report.mode == "planned":
        formal = report.epsilon is not None and report.epsilon.formal
        tiers = table.formal_tiers(params.formal_tiers)
        found = planned_membership(tiers, params.scores, params, tie_seed=tie_seed, formal=formal)
    else:
        found = holdout_membership(table.rows(), params.scores, params)
    dp = report.dp
    if dp is not None and dp.p_value is not None:
        dp = replace(dp, p_value=claim_p_value(table, params.scores, dp.claim, tie_seed=tie_seed))
    return replace(
        report,
        scores=found.scores,
        scan=found.scan,
        membership=found.membership,
        epsilon=found.epsilon,
        power=found.power,
        dp=dp,
    )


def _params_of(report: Report) -> AuditParams:
    """Return the parameters that a report says it was made with."""
    params = AuditParams()
    if report.preregistration is not None:
        stated = report.preregistration
        params = replace(
            params,
            alpha=stated.alpha,
            scores=stated.scores,
            orders=stated.orders,
            formal_tiers=stated.formal_tiers,
        )
    elif report.epsilon is not None:
        params = replace(params, alpha=report.epsilon.alpha)
    if report.power is not None:
        params = replace(params, detectable_auc=report.power.auc, min_power=report.power.required)
    return params
