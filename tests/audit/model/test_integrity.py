"""The footing of an audit: canary path, tokenizer, coins, commitment, pre-registration, disjoint sides."""

import dataclasses

import pytest

from stanch.audit.evidence import Reason
from stanch.audit.hf_torch import HfScorer
from stanch.audit.integrity import check_plan, find_overlap, is_formal
from stanch.audit.params import AuditParams
from stanch.data import TokenRecord, coins, tokenise
from stanch.terms import CommitmentEvidence


@pytest.fixture(scope="module")
def scorer(tiny):
    return HfScorer(tiny.tuned)


@pytest.fixture(scope="module")
def trained(tiny):
    return [tokenise(record, tiny.tokenizer) for record in tiny.members]


def reasons(problems):
    return [problem.reason for problem in problems]


def evidence(plan, entry=3, start=9):
    return CommitmentEvidence(plan.commitment, entry, start)


def test_sound_plan_has_no_problem(tiny, scorer, trained):
    assert check_plan(tiny.plan, trained, scorer, AuditParams(), evidence(tiny.plan)) == []


def test_lost_canary_breaks_the_path_and_is_named(tiny, scorer, trained):
    (problem,) = check_plan(tiny.plan, trained[:-1], scorer, AuditParams(), None)
    assert problem.reason is Reason.BROKEN_CANARY_PATH
    lost = [c.id for c in tiny.plan.canaries if c.member][-1]
    assert lost in problem.found


def test_canary_that_was_held_back_but_stands_in_the_data_breaks_the_path(tiny, scorer, trained, kit):
    out = next(c for c in tiny.plan.canaries if not c.member)
    extra = tokenise(kit.canary_record(out, 99), tiny.tokenizer)
    assert reasons(check_plan(tiny.plan, [*trained, extra], scorer, AuditParams(), None)) == [Reason.BROKEN_CANARY_PATH]


def test_secret_outside_the_loss_mask_breaks_the_path(tiny, scorer, trained):
    last = trained[-1]
    masked = TokenRecord(last.id, last.ids, (last.span[1] - 1, last.span[1]))
    problems = check_plan(tiny.plan, [*trained[:-1], masked], scorer, AuditParams(), None)
    assert reasons(problems) == [Reason.BROKEN_CANARY_PATH]


def test_other_tokenizer_breaks_the_path(tiny, scorer, trained):
    mine = dataclasses.replace(tiny.plan, tokenizer_digest=scorer.identity.tokenizer)
    assert check_plan(mine, trained, scorer, AuditParams(), None) == []
    other = dataclasses.replace(tiny.plan, tokenizer_digest="00" * 32)
    assert reasons(check_plan(other, trained, scorer, AuditParams(), None)) == [Reason.BROKEN_CANARY_PATH]


def test_unfair_coins_are_not_believed(tiny, scorer, trained, monkeypatch):
    everywhere = tuple(dataclasses.replace(c, member=True) for c in tiny.plan.canaries)
    monkeypatch.setattr("stanch.data.plan.coins", lambda _seed, count: (True,) * count)
    plan = dataclasses.replace(tiny.plan, canaries=everywhere)
    problems = check_plan(plan, trained, scorer, AuditParams(), None)
    assert any("64 of 64 coins" in problem.found for problem in problems)
    assert len(set(coins(tiny.plan.seed, 64))) == 2


@pytest.mark.parametrize(("entry", "start"), [(9, 9), (10, 9), (-1, 9)])
def test_commitment_after_the_start_of_the_tuning_is_a_mismatch(tiny, scorer, trained, entry, start):
    late = evidence(tiny.plan, entry, start)
    assert reasons(check_plan(tiny.plan, trained, scorer, AuditParams(), late)) == [Reason.COMMITMENT_MISMATCH]
    assert not is_formal(tiny.plan, late)


def test_commitment_to_another_plan_is_a_mismatch(tiny, scorer, trained):
    other = CommitmentEvidence("00" * 32, 3, 9)
    assert reasons(check_plan(tiny.plan, trained, scorer, AuditParams(), other)) == [Reason.COMMITMENT_MISMATCH]


def test_epsilon_is_formal_only_with_plan_and_log(tiny):
    assert is_formal(tiny.plan, evidence(tiny.plan))
    assert not is_formal(tiny.plan, None)
    uncommitted = dataclasses.replace(tiny.plan, committed=False)
    assert not is_formal(uncommitted, evidence(uncommitted))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"scores": ("suffix_loss/1",)}, "scores"),
        ({"alpha": 0.1}, "alpha"),
        ({"orders": ("in",)}, "orders"),
        ({"sample_budget": 99}, "sample_budget"),
    ],
)
def test_changed_pre_registration_is_named(tiny, scorer, trained, changed, name):
    (problem,) = check_plan(tiny.plan, trained, scorer, AuditParams(**changed), None)
    assert problem.reason is Reason.PREREGISTRATION_CHANGED
    assert name in problem.found


def test_near_duplicates_are_found_on_both_sides(kit):
    inside = kit.draw_records(1, 30, "m")
    outside = kit.draw_records(2, 30, "h")
    text = inside[3].fields[1].text
    outside[5] = kit.chat_record("h5", 5, inside[3].fields[0].text, text.replace("harbour", "haven", 1))
    outside[7] = kit.chat_record("h7", 7, inside[8].fields[0].text, inside[8].fields[1].text)
    outside[9] = kit.chat_record("h9", 9, "Yes", "No")
    inside[2] = kit.chat_record("m2", 2, "yes", "no")
    near_in, near_out = find_overlap(inside, outside)
    assert {"m8", "m2"} <= near_in <= {"m8", "m2", "m3"}
    assert {"h7", "h9"} <= near_out <= {"h7", "h9", "h5"}
    assert ("m3" in near_in) == ("h5" in near_out)


def test_different_records_do_not_overlap(kit):
    assert find_overlap(kit.draw_records(1, 50, "m"), kit.draw_records(2, 50, "h")) == (set(), set())
