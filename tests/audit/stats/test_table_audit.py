import io
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

import stanch
from stanch.audit.evidence import Reason
from stanch.audit.membership import (
    _flagged,
    claim_p_value,
    holdout_membership,
    planned_membership,
    rank_within_kinds,
)
from stanch.audit.params import ATTACK_PACK, TESTED_SCORES, AuditParams, preregister
from stanch.audit.rates import clopper_pearson
from stanch.audit.report import Report, conclude, evidence_of
from stanch.audit.score_table import ScoreTable, parse_table
from stanch.audit.sections import DpCheck, ModelSummary, NearVerbatim, RateAt, RepeatedTier, Tool
from stanch.audit.table_audit import audit_scores, check_report, recompute
from stanch.crypto import canonical_json
from stanch.errors import InvalidInput, VerificationError
from stanch.terms import CommitmentEvidence, Interval, NeighboringRelation, PrivacyBudget, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VECTORS = Path(__file__).parents[2] / "vectors" / "audit"


def test_coins_without_leak(quiet_table):
    report = audit_scores(quiet_table, coins=True, now=NOW)
    assert report.verdict is Verdict.NO_LEAK_DETECTED
    assert (report.epsilon.lower, report.epsilon.formal, report.epsilon.splits) == (0, True, 12)
    assert report.self_declared_coins
    assert any("user's statement" in limit for limit in report.limits)


def test_coins_with_leak(tables):
    report = audit_scores(tables(shift=2.0), coins=True, now=NOW)
    assert report.verdict is Verdict.LEAK_PROVEN
    assert 1 < report.epsilon.lower <= report.epsilon.ceiling
    assert report.membership.flagged > 50


def test_the_verdict_errs_as_often_as_was_registered(tables):
    between = set()
    for seed, alpha in itertools.product(range(6), (0.2, 0.001)):
        report = audit_scores(tables(m=256, shift=0.5, seed=seed), coins=True, alpha=alpha, now=NOW)
        check_report(report)
        proven = report.verdict is Verdict.LEAK_PROVEN
        assert proven == (report.membership.p <= alpha)
        if 0.001 < report.membership.p <= 0.2:
            between.add(proven)
    assert between == {True, False}


def test_without_coins_nothing_is_decided_and_no_epsilon_is_claimed(tables):
    report = audit_scores(tables(shift=2.0), coins=False, now=NOW)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert Reason.NO_SHIFT_GATE in report.reasons
    assert report.membership.p < 0.01
    assert not report.epsilon.formal


def test_members_first_file_of_ties_is_no_leak():
    rows = [f"{0 if i % 3 else 1},{int(i < 150)}" for i in range(300)]
    table = parse_table(io.StringIO("score,member\n" + "\n".join(rows) + "\n"), what="members_first_ties.csv")
    report = audit_scores(table, coins=False, now=NOW)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.membership.p > 0.05
    assert audit_scores(table, coins=True, now=NOW).membership.p > 0.05


def test_unfair_coins_are_refused_and_exact_halves_are_remarked(tables):
    table = tables(m=512)
    unfair = replace(table, member=np.arange(512) < 500)
    with pytest.raises(InvalidInput, match="fair coins"):
        audit_scores(unfair, coins=True, now=NOW)
    half = replace(table, member=np.arange(512) % 2 == 0)
    assert any("Exactly half" in limit for limit in audit_scores(half, coins=True, now=NOW).limits)


def test_few_coins_are_underpowered(tables):
    report = audit_scores(tables(m=64), coins=True, now=NOW)
    assert (report.verdict, report.reasons) == (Verdict.INCONCLUSIVE, (Reason.UNDERPOWERED,))


def test_kinds_are_ranked_apart():
    ranks = rank_within_kinds(np.array([10.0, 20.0, 0.1, 0.1, 0.3, 0.4]), ("a", "a", "b", "b", "b", "b"))
    assert ranks.tolist() == [0.25, 0.75, 0.25, 0.25, 0.625, 0.875]


def test_tier_with_too_few_coins(tables):
    small, params = tables(m=20), AuditParams()
    found = planned_membership({"all": small}, params.scores, params, tie_seed=0, formal=True)
    assert (found.reasons, found.membership, found.scan) == ((Reason.TOO_FEW_COINS,), None, ())


def test_copies_share_the_bound(tables):
    table = tables(shift=2.5)
    params = AuditParams(formal_tiers=("often",))
    often = replace(table, tiers=("often",) * len(table), copies=np.full(len(table), 4))
    found = planned_membership(often.formal_tiers(("often",)), params.scores, params, tie_seed=0, formal=True)
    assert found.epsilon.copies == 4
    assert found.epsilon.per_record == found.epsilon.lower / 4


def test_report_reads_back(quiet_report, tables):
    for report in (quiet_report, audit_scores(tables(shift=1.0), coins=False, now=NOW)):
        assert Report.parse(report.to_bytes()) == report


def test_recompute_agrees(quiet_report, quiet_table, tables):
    recompute(quiet_report, quiet_table)
    for coins in (True, False):
        table = tables(m=100, shift=1.0)
        recompute(audit_scores(table, coins=coins, alpha=0.1, now=NOW), table)


def edits(report):
    """One edited figure each: what is changed, and the field that must be named."""
    first_score, first_scan = report.scores[0], report.scan[0]
    auc = replace(first_score.auc, lower=first_score.auc.lower - 1e-6)
    return {
        "scores[0].auc.lower": replace(report, scores=(replace(first_score, auc=auc), *report.scores[1:])),
        "scores[1]": replace(report, scores=report.scores[:1]),
        "scan[0].lower": replace(report, scan=(replace(first_scan, lower=0.5), *report.scan[1:])),
        "scan[0].p_null": replace(report, scan=(replace(first_scan, p_null=1e-3), *report.scan[1:])),
        "membership.p": replace(report, membership=replace(report.membership, p=0.06)),
        "membership.flagged": replace(report, membership=replace(report.membership, flagged=99)),
        "epsilon.lower": replace(report, epsilon=replace(report.epsilon, lower=0.1, per_record=0.1)),
        "power.probability.estimate": replace(
            report,
            power=replace(report.power, probability=replace(report.power.probability, estimate=0.85)),
        ),
        "dp.p_value": replace(report, dp=replace(report.dp, p_value=0.5)),
    }


def test_every_edited_figure_is_found_and_named(quiet_report, quiet_table):
    for field, edited in edits(quiet_report).items():
        with pytest.raises(VerificationError, match="field") as caught:
            recompute(edited, quiet_table)
        assert f"field {field}" in caught.value.what, caught.value.what


@pytest.fixture(scope="module")
def small_report(tables, reports):
    """A report whose figures take little to compute again."""
    claim = PrivacyBudget(8.0, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    return reports(tables(m=40), claim=claim)


def test_every_figure_that_is_checked_is_named_by_its_place(small_report):
    wrong = Interval(0.5, 0.6, 0.7, 0.95, "m")
    last = small_report.scores[-1]
    near = NearVerbatim(1, 10, 0, 0, clopper_pearson(0, 10, side="upper").upper, 0, 0)
    tier = RepeatedTier("2-3", 1, 10, 0, clopper_pearson(0, 10, side="upper").upper)
    extraction = replace(small_report.extraction, near_verbatim=near, tiers=(tier, tier))
    full = check_report(replace(small_report, extraction=extraction))

    def score(**change):
        return replace(full, scores=(*full.scores[:-1], replace(last, **change)))

    def part(name, **change):
        return replace(full, **{name: replace(getattr(full, name), **change)})

    check_report(score(permutation_p=1.0, tpr=(RateAt(0.01, None, 437),)))
    for field, edited in (
        ("scores[2].auc", score(auc=wrong)), ("scores[2].permutation_p", score(permutation_p=1.5)),
        ("scores[2] at 0.01", score(tpr=(RateAt(0.01, wrong, None),))),
        ("scores[2] at 0.001", score(tnr=(RateAt(0.01, None, 9), RateAt(0.001, wrong, None)))),
        ("membership.score", part("membership", score="other")), ("membership.score", part("membership", tier="other")),
        ("dp.p_value", part("dp", p_value=1.5)), ("exposure.fisher_in", part("exposure", fisher_in=-0.1)),
        ("exposure.fisher_out", part("exposure", fisher_out=1.1)), ("power", part("power", required=1.0)),
        ("extraction.near_verbatim.k", part("extraction", near_verbatim=replace(near, k=11))),
        ("extraction.tiers[1].k", part("extraction", tiers=(tier, replace(tier, k=11)))),
        ("extraction.tiers[1].attributable", part("extraction", tiers=(tier, replace(tier, attributable=2)))),
        ("extraction.tiers[1].upper", part("extraction", tiers=(tier, replace(tier, upper=0.5)))),
    ):  # fmt: skip
        with pytest.raises(VerificationError) as caught:
            check_report(edited)
        assert caught.value.what.startswith(f"field {field}:"), field


@pytest.mark.parametrize(("entry", "start", "is_proven"), [(0, 1, True), (4, 4, False), (-1, 4, False)])
def test_an_epsilon_needs_a_plan_logged_before_the_tuning_or_the_users_word(small_report, entry, start, is_proven):
    evidence = CommitmentEvidence("ab" * 32, entry, start)
    planned = replace(small_report, plan=replace(small_report.plan, evidence=evidence))
    unproven = [replace(small_report, plan=None), replace(planned, plan=replace(planned.plan, commitment="cd" * 32))]
    if is_proven:
        check_report(planned)
    else:
        unproven.append(planned)
    for report in unproven:
        check_report(replace(report, self_declared_coins=True))
        check_report(replace(report, epsilon=replace(report.epsilon, formal=False)))
        with pytest.raises(VerificationError, match=r"field epsilon\.formal:"):
            check_report(report)


def computed(table, params, *, mode="planned", tie_seed="5"):
    """The report of an audit of a model with other parameters than the usual ones."""
    seed = int(tie_seed) if tie_seed in {"0", "5"} else 0
    if mode == "planned":
        tiers = table.formal_tiers(params.formal_tiers)
        found = planned_membership(tiers, params.scores, params, tie_seed=seed, formal=False)
    else:
        found = holdout_membership(table.rows(), params.scores, params)
    claim = PrivacyBudget(0.1, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    p = claim_p_value(table, params.scores, claim, tie_seed=seed) if mode == "planned" else None
    return conclude(Report(
        attack_pack=ATTACK_PACK, created="2026-01-01T00:00:00Z", tool=Tool("stanch", "1"), mode=mode,
        model=ModelSummary("sha256:00", ()), preregistration=preregister(params), tie_seed=tie_seed,
        scores=found.scores, scan=found.scan, membership=found.membership, epsilon=found.epsilon, power=found.power,
        dp=DpCheck(claim, "pld", p), reasons=found.reasons, scores_digest=str(table.digest),
    ))  # fmt: skip


def joined(one, other):
    """The table of both, the ids of the second with a letter before them."""
    return ScoreTable(
        ids=(*one.ids, *(f"o{name}" for name in other.ids)), kinds=one.kinds + other.kinds,
        tiers=one.tiers + other.tiers, member=np.concatenate([one.member, other.member]),
        copies=np.concatenate([one.copies, other.copies]),
        scores={name: np.concatenate([one.scores[name], other.scores[name]]) for name in one.scores},
    )  # fmt: skip


OTHER = AuditParams(
    alpha=0.2, scores=("ez/1",), orders=("out",), formal_tiers=("once",), detectable_auc=0.9, min_power=0.3
)


@pytest.fixture(scope="module")
def tied(tables):
    """A table of canaries, many of which have equal scores."""
    table = tables(m=32, shift=2.0)
    return replace(table, scores={name: np.round(values) for name, values in table.scores.items()})


@pytest.mark.parametrize("tie_seed", ["5", "x", "٣", ""])
def test_a_planned_audit_is_computed_again_as_it_was_registered(tied, tie_seed):
    """A seed that is no number in ASCII digits is that of a report without a plan: 0."""
    report = computed(tied, OTHER, tie_seed=tie_seed)
    assert recompute(report, tied) == report
    with pytest.raises(VerificationError, match="field scan"):
        recompute(replace(report, tie_seed="7"), tied)


@pytest.mark.parametrize("field", ["alpha", "scores", "orders", "formal_tiers"])
def test_what_was_registered_is_what_is_computed(tied, field):
    report = computed(tied, OTHER)
    registered = replace(report.preregistration, **{field: getattr(AuditParams(), field)})
    with pytest.raises(VerificationError, match="differs from what the score table gives"):
        recompute(replace(report, preregistration=registered), tied)


def test_a_report_without_a_bound_or_a_claim_is_computed_again(tables, tied):
    table = joined(tables(m=20), tables(m=40, seed=2, tier="other"))
    report = computed(table, OTHER)
    assert (report.epsilon, report.reasons) == (None, (Reason.TOO_FEW_COINS,))
    assert recompute(report, table) == report
    unclaimed = conclude(replace(computed(tied, OTHER), dp=None))
    assert recompute(unclaimed, tied) == unclaimed


def test_what_is_computed_again_follows_from_itself_first(small_report, tables):
    broken = replace(small_report, exposure=replace(small_report.exposure, fisher_in=-0.1))
    with pytest.raises(VerificationError, match=r"exposure\.fisher_in"):
        recompute(broken, tables(m=40))


def test_a_holdout_audit_of_a_model_is_computed_again_from_its_rows_alone(tables):
    rows = tables(m=40, tier="row")
    table = joined(rows, tables(m=40, seed=2))
    report = computed(table, replace(OTHER, formal_tiers=("all",)), mode="holdout")
    assert report.scores[0].n_member == rows.member.sum()
    assert recompute(report, table) == report


def test_a_bare_audit_has_nothing_that_scores_could_contradict(tables):
    table = tables(m=32)
    report = conclude(Report(
        attack_pack=ATTACK_PACK, created="2026-01-01T00:00:00Z", tool=Tool("stanch", "1"), mode="bare",
        model=ModelSummary("sha256:00", ()), scores_digest=str(table.digest),
    ))  # fmt: skip
    assert recompute(report, table) == report


def test_a_report_of_scores_says_what_it_is(tables):
    table = tables(m=41, tier="row")
    now = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    planned, held = audit_scores(table, coins=True, alpha=0.2, now=now), audit_scores(table, coins=False, now=now)
    for report, mode in ((planned, "planned"), (held, "holdout")):
        assert (report.created, report.mode, report.model) == ("2026-01-01T00:00:00Z", mode, None)
        assert report.tool == Tool("stanch", stanch.__version__)
        assert (report.attack_pack, report.scores_digest, report.tie_seed) == (ATTACK_PACK, str(table.digest), "0")
        assert {row.attack for row in report.coverage if row.run} == {
            "membership inference", "infer training data membership"
        }  # fmt: skip
        assert report.limits[0].startswith("Tests the given scores alone")
    assert [len(planned.limits), len(held.limits)] == [2, 1]
    assert (planned.epsilon.alpha, planned.epsilon.formal, held.epsilon.formal) == (0.2, True, False)
    assert {row.tier for row in planned.scan} == {"all"}
    assert planned.reasons == (Reason.UNDERPOWERED,)
    assert held.reasons == (Reason.NO_SHIFT_GATE, Reason.UNDERPOWERED)


def test_a_report_of_scores_is_of_now_at_five_percent_with_ties_in_the_first_order(tables):
    table = tables(m=33, tier="row")
    table = replace(table, scores={name: values.round(0) for name, values in table.scores.items()})
    report, before = audit_scores(table, coins=True), datetime.now(UTC)
    assert before - timedelta(minutes=10) < datetime.fromisoformat(report.created) <= before
    names = tuple(table.scores)
    first, second = (
        planned_membership({"all": table}, names, AuditParams(alpha=0.05), tie_seed=seed, formal=True)
        for seed in (0, 1)
    )
    assert report.scan == first.scan != second.scan


@pytest.mark.parametrize(
    ("m", "members", "is_believed"),
    [(64, 51, True), (64, 52, False), (64, 13, True), (64, 12, False), (85, 65, True)],  # 1.03 in a million
)
def test_coins_that_fall_so_less_than_once_in_a_million_times_are_not_believed(tables, m, members, is_believed):
    table = replace(tables(m=m), member=np.arange(m) < members)
    if is_believed:
        assert len(audit_scores(table, coins=True, now=NOW).limits) == 2
    else:
        with pytest.raises(InvalidInput, match=f"{members} of {m} are members"):
            audit_scores(table, coins=True, now=NOW)


def test_other_table_is_refused(quiet_report, tables):
    with pytest.raises(VerificationError, match="scores_digest"):
        recompute(quiet_report, tables(seed=2))


def inconsistencies(report):
    rows = report.extraction.rows
    return {
        "verdict": replace(report, verdict=Verdict.LEAK_PROVEN),
        "epsilon.ceiling": replace(report, epsilon=replace(report.epsilon, ceiling=9.0)),
        "epsilon.lower": replace(report, epsilon=replace(report.epsilon, lower=5.0, per_record=5.0)),
        "epsilon.per_record": replace(report, epsilon=replace(report.epsilon, per_record=0.5)),
        "epsilon.formal": replace(report, plan=replace(report.plan, evidence=None)),
        "extraction.rows.upper": replace(
            report, extraction=replace(report.extraction, rows=replace(rows, upper=rows.upper / 2))
        ),
        "extraction.rows.k": replace(report, extraction=replace(report.extraction, rows=replace(rows, k=-1))),
        "membership.p": replace(report, membership=replace(report.membership, p=-0.1)),
        "secrets.k_in": replace(
            report,
            extraction=replace(report.extraction, secrets=replace(report.extraction.secrets, k_in=251)),
        ),
    }


def test_every_inconsistency_is_named(quiet_report):
    check_report(quiet_report)
    for field, edited in inconsistencies(quiet_report).items():
        with pytest.raises(VerificationError) as caught:
            check_report(edited)
        assert f"field {field}:" in caught.value.what, caught.value.what


def test_hidden_lack_of_power_is_refused(quiet_report):
    weak = replace(quiet_report.power, required=0.99)
    with pytest.raises(VerificationError, match="underpowered"):
        check_report(replace(quiet_report, power=weak))


@pytest.mark.parametrize("tamper", [b"  ", b"\n"])
def test_reports_in_another_form_are_refused(quiet_report, tamper):
    with pytest.raises(InvalidInput, match="canonical"):
        Report.parse(quiet_report.to_bytes() + tamper)


def test_reports_with_unknown_missing_or_ill_typed_fields_are_refused(quiet_report):
    good = quiet_report.to_bytes()
    for old, new, named in (
        (b'"adapter":null,', b'"adapter":null,"adapters":1,', "adapters"),
        (b'"adapter":null,', b"", "adapter"),
        (b'"adapter":null', b'"adapter":1', "adapter"),
        (b'"alpha":0.05', b'"alpha":"0.05"', "alpha"),
        (b'"schema":"leakreport/v2"', b'"schema":"leakreport/v3"', "leakreport/v2"),
        (b'"verdict":"NO LEAK DETECTED"', b'"verdict":"SAFE"', "verdict"),
        (b'"mode":"planned"', b'"mode":"other"', "mode"),
    ):
        assert good.count(old) >= 1
        with pytest.raises(InvalidInput, match=named):
            Report.parse(good.replace(old, new))


def test_a_report_of_version_1_is_read_as_it_was_written_and_not_computed_again(quiet_report, quiet_table):
    data = (VECTORS / "report-first.json").read_bytes()
    first = Report.parse(data)
    assert (first.schema, first.attack_pack, first.verdict) == ("leakreport/v1", 1, Verdict.NO_LEAK_DETECTED)
    assert first.to_bytes() == data
    check_report(first)
    later = data.replace(b'"epsilon_grid"', b'"exposure_secrets":null,"epsilon_grid"')
    with pytest.raises(InvalidInput, match="exposure_secrets"):
        Report.parse(canonical_json(json.loads(later)))
    with pytest.raises(InvalidInput, match="made with attack pack 1"):
        recompute(replace(quiet_report, attack_pack=1), quiet_table)


def test_members_that_score_lower_are_a_leak_in_every_mode(tables):
    """What unlearning by gradient ascent leaves: AUC near 0."""
    low = tables(shift=2.0).negated()
    planned = audit_scores(low, coins=True, now=NOW)
    assert planned.verdict is Verdict.LEAK_PROVEN
    assert planned.epsilon.lower > 1
    assert planned.scan[3].splits == 3 * planned.epsilon.splits == 36
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    assert claim_p_value(low, TESTED_SCORES, claim, tie_seed=0) <= 0.01
    held = audit_scores(low, coins=False, now=NOW)
    assert held.scores[0].auc.upper < 0.2
    assert held.membership.p < 0.01
    assert evidence_of(held).attack_auc_lower > 0.8


def test_members_of_a_kind_that_leaks_nothing_are_not_named_for_another_kind_that_does(tables):
    """Mean share of false names over 100 audits: fails only above 5 % plus 3.1 standard errors (0.1 %)."""
    shares = []
    for seed in range(100):
        leaking, quiet = tables(m=256, shift=3.0, seed=seed), tables(m=768, seed=1000 + seed, kind="synthetic")
        both = joined(leaking, quiet)
        found = _flagged(both, "ratio/1")
        shares.append(sum(name.startswith("o") for name in found) / max(len(found), 1))
    assert np.mean(shares) <= 0.05 + 3.1 * np.std(shares) / 10


def test_a_kind_with_too_few_non_members_names_nobody(tables):
    small = tables(m=64, shift=4.0)
    assert _flagged(small, "ratio/1") is None
    large = tables(m=512, shift=4.0)
    assert set(_flagged(large, "ratio/1")) <= {f"c{i}" for i in np.flatnonzero(large.member)}


def test_falsified_claim_end_to_end(tables, reports):
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    report = reports(tables(shift=4.0), claim=claim)
    assert report.verdict is Verdict.DP_CLAIM_FALSIFIED
