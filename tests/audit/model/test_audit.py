"""Whole audits of a tiny model: positive and negative control, the three modes, refusals, and what is never written."""

import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import peft
import pytest
import transformers

from stanch.audit.evidence import Reason
from stanch.audit.features import AdapterOff
from stanch.audit.hf_torch import HfScorer
from stanch.audit.html import render_html
from stanch.audit.integrity import Problem, check_plan, require_same_base
from stanch.audit.params import ROWS_TIER, AuditParams, preregister
from stanch.audit.report import Report
from stanch.audit.run import AuditInput, audit
from stanch.audit.sections import ModelFile, ModelSummary
from stanch.audit.subjects import gather
from stanch.audit.table_audit import recompute
from stanch.cli.models import load_base
from stanch.data import tokenise
from stanch.errors import InvalidInput, VerificationError
from stanch.terms import CommitmentEvidence, NeighboringRelation, PrivacyBudget, Verdict

PARAMS = AuditParams(exposure_candidates=49, exposure_secrets=6)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def registered(plan, params=PARAMS):
    """The plan as it would have been made for an audit with these parameters."""
    return dataclasses.replace(plan, preregistration=preregister(params).to_json())


@pytest.fixture(scope="session")
def tiny(tiny):
    return tiny._replace(plan=registered(tiny.plan))


def examine(target, base, params=PARAMS, **material):
    return audit(target, base=base, material=AuditInput(**material), params=params, clock=lambda: NOW)


def logged(plan):
    return CommitmentEvidence(plan.commitment, 3, 9)


@pytest.fixture(scope="module")
def base(tiny):
    return HfScorer(tiny.base)


@pytest.fixture(scope="module")
def tuned(tiny):
    return HfScorer(tiny.tuned)


@pytest.fixture(scope="module")
def planned(tiny, tuned, base):
    """A planned audit of the overfit model, with everything that can be given."""
    return examine(
        tuned, base, plan=tiny.plan, members=tiny.members, holdout=tiny.holdout, commitment=logged(tiny.plan)
    )


def test_positive_control_finds_the_planted_rows_by_id(tiny, planned):
    assert planned.report.verdict is Verdict.LEAK_PROVEN
    found = {row.record_id for row in planned.extracted if row.attributable}
    assert len(found & tiny.planted) >= 15
    rows = planned.report.extraction.rows
    assert rows.attributable == len(found)
    assert (rows.control_k, rows.control_n, rows.census) == (0, 24, True)
    assert rows.n == 24


def test_extracted_spans_are_positions_in_the_answer(planned):
    for row in planned.extracted:
        start, end = row.span
        assert 16 <= end - start <= 50
        assert row.chance.log_p <= 0


def test_positive_control_bounds_epsilon(planned):
    epsilon = planned.report.epsilon
    assert epsilon.formal
    assert 1 < epsilon.lower <= epsilon.ceiling
    assert planned.report.exposure.fisher_in < 1e-4
    assert planned.report.membership.p < 1e-6


def test_negative_control_is_called_a_leak_in_at_most_3_of_20_plans(tiny, base, kit):
    """The model saw none of the plans' canaries; a correct 5 % test exceeds 3 of 20 with probability 1.6 %."""
    untuned = HfScorer(tiny.untuned)
    rows = tiny.members[:4]
    called = 0
    for number in range(20):
        params = dataclasses.replace(PARAMS, exposure_candidates=19, exposure_secrets=3)
        plan = kit.make_plan(40, params, number=number)
        planted = [kit.canary_record(c, i) for i, c in enumerate(plan.canaries) if c.member]
        result = examine(untuned, base, params, plan=plan, members=[*rows, *planted], commitment=logged(plan))
        assert result.report.reasons == (Reason.UNDERPOWERED,)
        assert result.extracted == ()
        called += result.report.verdict is Verdict.LEAK_PROVEN
    assert called <= 3


def test_negative_control_is_not_called_a_leak(tiny, base):
    result = examine(HfScorer(tiny.untuned), base, plan=tiny.plan, members=tiny.members, commitment=logged(tiny.plan))
    assert result.report.verdict is Verdict.INCONCLUSIVE
    assert result.report.reasons == (Reason.UNDERPOWERED,)
    assert result.extracted == ()


def test_report_goes_to_json_and_back_and_follows_from_its_scores(planned):
    report = Report.parse(planned.report.to_bytes())
    assert report == planned.report
    assert recompute(report, planned.table) == report
    assert report.created == "2026-01-02T03:04:05Z"
    assert report.features.tokens > 0
    assert report.features.batches >= 1


def test_edited_figure_is_noticed(planned):
    edited = dataclasses.replace(planned.report, epsilon=dataclasses.replace(planned.report.epsilon, lower=0.5))
    with pytest.raises(VerificationError, match="epsilon"):
        recompute(edited, planned.table)


def test_report_says_what_was_audited(tiny, planned, tuned, base):
    report = planned.report
    assert report.model.digest == f"sha256:{tuned.identity.model}"
    assert "model.safetensors" in [file.name for file in report.model.files]
    assert report.base == f"sha256:{base.identity.model}"
    assert report.tokenizer_digest == f"sha256:{tuned.identity.tokenizer}"
    assert report.adapter is None
    assert report.plan.plan_id == tiny.plan.plan_id
    assert not all(row.run for row in report.coverage)
    assert {row.attack for row in report.coverage if not row.run} >= {"model inversion", "attribute inference"}


def test_table_has_every_canary_once_and_members_as_they_were(tiny, planned):
    table = planned.table
    assert set(table.scores) == {"ratio/1", "suffix_loss/1", "ez/1", "min_k_pp/1", "zlib/1", "wbc/1"}
    canaries = {c.id: c.member for c in tiny.plan.canaries}
    rows = dict(zip(table.ids, table.member.tolist(), strict=True))
    assert rows == canaries
    assert len(table) == 64


def test_no_row_no_secret_and_no_prompt_is_written(tiny, planned):
    written = "\n".join(
        [
            planned.report.to_bytes().decode(),
            json.dumps(planned.report.to_json()),
            render_html(planned.report, planned.table),
            planned.table.to_csv().decode(),
            repr(planned),
            repr(planned.report),
        ]
    )
    for record in (*tiny.members, *tiny.holdout):
        for field in record.fields:
            assert field.text not in written
            assert field.text[:24] not in written
    for canary in tiny.plan.canaries:
        assert canary.secret not in written
        assert canary.messages[0].content not in written
    assert tiny.plan.seed.hex() not in written


def test_canaries_removed_by_deduplication_are_named(tiny, base):
    members = [record for record in tiny.members if not record.id.startswith("x3")]
    result = examine(HfScorer(tiny.untuned), base, plan=tiny.plan, members=members, commitment=logged(tiny.plan))
    assert result.report.verdict is Verdict.INCONCLUSIVE
    assert Reason.BROKEN_CANARY_PATH in result.report.reasons
    assert any("canaries are not in the tokens" in limit for limit in result.report.limits)


def test_plan_without_log_gives_no_epsilon(tiny, tuned, base):
    result = examine(tuned, base, plan=tiny.plan, members=tiny.members)
    assert not result.report.epsilon.formal
    assert result.report.verdict is Verdict.LEAK_PROVEN


def test_commitment_after_the_tuning_began_is_a_mismatch(tiny, base):
    late = CommitmentEvidence(tiny.plan.commitment, 9, 3)
    result = examine(HfScorer(tiny.untuned), base, plan=tiny.plan, members=tiny.members, commitment=late)
    assert Reason.COMMITMENT_MISMATCH in result.report.reasons
    assert not result.report.epsilon.formal
    assert recompute(result.report, result.table) == result.report


def test_changed_parameters_make_the_audit_inconclusive(tiny, base):
    params = dataclasses.replace(PARAMS, alpha=0.2)
    result = examine(HfScorer(tiny.untuned), base, params, plan=tiny.plan, members=tiny.members)
    assert Reason.PREREGISTRATION_CHANGED in result.report.reasons


@pytest.mark.parametrize("changed", [{"exposure_secrets": 1}, {"exposure_candidates": 19}])
def test_exposure_is_tested_as_registered_or_not_at_all(tiny, tuned, base, changed):
    """Whoever chose secrets and candidates after a look would have any p-value."""
    params = dataclasses.replace(PARAMS, **changed)
    report = examine(tuned, base, params, plan=tiny.plan, members=tiny.members, commitment=logged(tiny.plan)).report
    assert (report.exposure, report.reasons[0]) == (None, Reason.PREREGISTRATION_CHANGED)
    assert any("Exposure was not tested" in limit for limit in report.limits)


def test_without_base_only_the_loss_is_tested_and_it_is_said(tiny, tuned):
    result = examine(tuned, None, plan=tiny.plan, members=tiny.members, commitment=logged(tiny.plan))
    assert {score.name for score in result.report.scores} == {"suffix_loss/1"}
    assert Reason.PREREGISTRATION_CHANGED in result.report.reasons
    assert any("Without the base model" in limit for limit in result.report.limits)
    assert result.report.extraction.rows.attributable == 0
    with pytest.raises(InvalidInput, match="none of the chosen scores"):
        examine(tuned, None, dataclasses.replace(PARAMS, scores=("ez/1",)), members=tiny.members)


def test_holdout_mode_proves_a_leak_that_the_blind_test_does_not_explain(tiny, tuned, base):
    rows = [record for record in tiny.members if record.id[0] in "po"]
    result = examine(tuned, base, members=rows, holdout=tiny.holdout)
    report = result.report
    assert report.mode == "holdout"
    assert report.verdict is Verdict.LEAK_PROVEN
    assert not report.epsilon.formal
    assert report.scores[0].permutation_p < 0.001
    assert report.scores[0].auc.lower > report.shift.upper
    assert recompute(report, result.table) == report
    ids = {record.id for record in rows} | {f"holdout/{record.id}" for record in tiny.holdout}
    assert set(result.table.ids) == ids
    assert set(result.table.tiers) == {ROWS_TIER}


def test_holdout_from_another_source_is_inconclusive(tiny, base, kit):
    rows = [record for record in tiny.members if record.id[0] in "po"]
    said = "Number {} of the other list, nothing more."
    other = [kit.chat_record(f"h{i}", i, "Another thing?", said.format(i)) for i in range(20)]
    result = examine(HfScorer(tiny.untuned), base, members=rows, holdout=other)
    assert result.report.verdict is Verdict.INCONCLUSIVE
    assert Reason.DISTRIBUTION_SHIFT in result.report.reasons


def test_holdout_that_repeats_members_is_not_disjoint(tiny, base):
    rows = [record for record in tiny.members if record.id[0] in "po"]
    result = examine(HfScorer(tiny.untuned), base, members=rows, holdout=[*tiny.holdout, *rows[:6]])
    assert Reason.HOLDOUT_NOT_DISJOINT in result.report.reasons
    assert len(result.table) == len(rows) - 6 + len(tiny.holdout)


def test_bare_mode_shows_what_comes_out_and_decides_nothing_else(tiny, tuned, base):
    leaking = examine(tuned, base, members=tiny.members)
    assert (leaking.report.mode, leaking.report.verdict) == ("bare", Verdict.LEAK_PROVEN)
    silent = examine(HfScorer(tiny.untuned), base, members=tiny.members)
    assert (silent.report.verdict, silent.report.reasons) == (Verdict.INCONCLUSIVE, (Reason.BARE_MODE,))
    assert Report.parse(silent.report.to_bytes()) == silent.report


def test_rows_that_are_all_too_short_are_too_few(tiny, base, kit):
    short = [kit.chat_record(f"s{i}", i, "Which?", f"Number {i}.") for i in range(5)]
    result = examine(HfScorer(tiny.untuned), base, members=short)
    assert result.report.extraction.rows is None
    assert Reason.TOO_FEW_ROWS in result.report.reasons


def test_adapter_off_is_the_base_of_an_adapter(tiny, adapter, base):
    target = HfScorer(adapter, base=tiny.base)
    rows = tiny.members[:12]
    switched = examine(target, AdapterOff(), members=rows)
    given = examine(target, base, members=rows)
    assert switched.report.base == given.report.base
    assert switched.report.adapter == switched.report.model.digest
    for name, values in switched.table.scores.items():
        np.testing.assert_allclose(values, given.table.scores[name], atol=1e-3)


@pytest.mark.parametrize("options", [{"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_an_adapter_that_changed_its_base_is_compared_with_the_base_itself(tiny, adapter, base, kit, tmp_path, options):
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.base)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", **options))
    kit.fit(tuned, tiny.members[:16], tiny.tokenizer, steps=4)
    target = HfScorer(kit.save(tuned, tiny.tokenizer, tmp_path / "adapter"), base=tiny.base)
    found = load_base(target, tiny.base)
    assert isinstance(found, HfScorer)
    result = examine(target, found, members=tiny.members[:6])
    assert result.report.base == f"sha256:{base.identity.model}"
    assert np.abs(result.table.scores["ratio/1"]).min() > 0
    assert load_base(HfScorer(adapter, base=tiny.base), tiny.base) == AdapterOff()
    assert isinstance(load_base(base, tiny.base), HfScorer)
    assert load_base(base, None) is None


def test_wrong_base_and_no_switch_are_refused(tiny, adapter, tuned):
    with pytest.raises(InvalidInput, match="not the base model"):
        examine(HfScorer(adapter, base=tiny.base), tuned, members=tiny.members)
    with pytest.raises(InvalidInput, match="cannot be switched off"):
        examine(tuned, AdapterOff(), members=tiny.members)


def test_nothing_to_audit_with_is_refused(tuned, base, tiny):
    with pytest.raises(InvalidInput, match="nothing to audit"):
        examine(tuned, base)
    with pytest.raises(InvalidInput, match="at least 10"):
        examine(tuned, base, members=tiny.members, holdout=tiny.holdout[:9])


def test_model_from_memory_takes_its_digests_from_the_caller(tiny, tuned, base):
    loaded = HfScorer.from_loaded(tuned._model, tiny.tokenizer)
    summary = ModelSummary("sha256:" + "ab" * 32, (ModelFile("m", 1, "sha256:" + "cd" * 32),))
    result = examine(loaded, base, members=tiny.members, model=summary)
    assert result.report.model == summary


def test_false_privacy_claim_is_falsified_only_with_proven_coins(tiny, tuned, base):
    claim = PrivacyBudget(0.1, 1e-9, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    material = {"plan": tiny.plan, "members": tiny.members, "dp_claim": claim, "accountant": "test"}
    proven = examine(tuned, base, commitment=logged(tiny.plan), **material)
    assert proven.report.verdict is Verdict.DP_CLAIM_FALSIFIED
    assert proven.report.dp.p_value <= 0.01
    assert recompute(proven.report, proven.table) == proven.report
    unproven = examine(tuned, base, **material)
    assert unproven.report.dp.p_value is None
    assert unproven.report.verdict is Verdict.LEAK_PROVEN


def test_a_claim_that_no_leak_could_falsify_is_said_to_be_one(tiny, tuned, base):
    for epsilon, delta, is_said in ((0.1, 1e-9, False), (8.0, 1e-2, True)):
        claim = PrivacyBudget(epsilon, delta, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
        found = examine(
            tuned, base, plan=tiny.plan, members=tiny.members, commitment=logged(tiny.plan), dp_claim=claim,
            accountant="test",
        )  # fmt: skip
        assert any("No leak could have falsified" in limit for limit in found.report.limits) == is_said


def test_privacy_claim_under_other_neighbours_is_not_compared(tiny, tuned, base):
    claim = PrivacyBudget(0.1, 1e-9, "record", NeighboringRelation.REPLACE_ONE)
    result = examine(tuned, base, plan=tiny.plan, members=tiny.members, commitment=logged(tiny.plan), dp_claim=claim)
    assert result.report.dp.p_value is None
    assert any("relation_not_comparable" in limit for limit in result.report.limits)


def test_claims_of_other_units_are_not_compared_and_known_problems_are_told(tiny, tuned, base):
    """A unit may hold several canaries; and what is known of the canaries' way stands in the report."""
    claim = PrivacyBudget(0.1, 1e-9, "column:customer_id", NeighboringRelation.ADD_OR_REMOVE_ONE)
    problem = Problem(Reason.BROKEN_CANARY_PATH, "the model was tuned on another file")
    material = {"plan": tiny.plan, "members": tiny.members, "commitment": logged(tiny.plan), "dp_claim": claim}
    report = examine(tuned, base, problems=(problem,), **material).report
    assert report.dp.p_value is None
    assert report.reasons[0] is Reason.BROKEN_CANARY_PATH
    assert all(any(said in limit for limit in report.limits) for said in ("unit_not_comparable", "tuned on another"))


def test_secrets_that_the_tuning_cut_off_break_the_path(tiny, tuned):
    shortest = max(tokenise(record, tiny.tokenizer).span[0] for record in tiny.members) + 1
    for max_tokens, broken in ((1024, []), (shortest, [Reason.BROKEN_CANARY_PATH])):
        material = AuditInput(plan=tiny.plan, members=tiny.members, max_tokens=max_tokens)
        trained = gather(tuned, material, PARAMS).trained
        problems = check_plan(tiny.plan, trained, tuned, PARAMS, logged(tiny.plan))
        assert [problem.reason for problem in problems] == broken


def test_another_base_than_the_tuning_names_is_refused(tiny, tuned, base):
    require_same_base(tuned, base, (), PARAMS, tuned_from=f"sha256:{base.identity.model}")
    with pytest.raises(InvalidInput, match="not the base model of the target: the tuning names sha256:abab"):
        examine(tuned, base, members=tiny.members, tuned_from=f"sha256:{'ab' * 32}")


def test_progress_tells_each_stage_to_its_end(tiny, tuned, base):
    seen = {}
    audit(
        tuned,
        base=base,
        material=AuditInput(plan=tiny.plan, members=tiny.members),
        params=PARAMS,
        progress=lambda stage, done, total: seen.__setitem__(stage, (done, total)),
    )
    both = {f"{model}: {part}" for model in ("target", "base") for part in ("canaries", "rows left open")}
    assert set(seen) == {"exposure", "target: first tokens of rows", *both}
    assert all(done == total for done, total in seen.values())
