"""The footing of an audit: canary path, tokenizer, coins, commitment, pre-registration, disjoint sides."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from stanch.audit.evidence import Reason
from stanch.audit.features import AdapterOff, Features, tokenizer_digest
from stanch.audit.integrity import check_plan, find_overlap, is_formal, require_same_base
from stanch.audit.params import AuditParams
from stanch.data import TokenRecord, coins, tokenise
from stanch.errors import InvalidInput
from stanch.terms import CommitmentEvidence


@pytest.fixture(scope="module")
def scorer(tokenizer):
    """What these checks look at of a model: its tokenizer."""
    return SimpleNamespace(tokenizer=tokenizer, identity=SimpleNamespace(tokenizer=tokenizer_digest(tokenizer)))


@pytest.fixture(scope="module")
def trained(tokenizer, members):
    return [tokenise(record, tokenizer) for record in members]


def reasons(problems):
    return [problem.reason for problem in problems]


def evidence(plan, entry=3, start=9):
    return CommitmentEvidence(plan.commitment, entry, start)


def test_sound_plan_has_no_problem(plan, scorer, trained):
    assert check_plan(plan, trained, scorer, AuditParams(), evidence(plan)) == []


def test_lost_canary_breaks_the_path_and_is_named(plan, scorer, trained):
    (problem,) = check_plan(plan, trained[:-1], scorer, AuditParams(), None)
    assert problem.reason is Reason.BROKEN_CANARY_PATH
    lost = [c.id for c in plan.canaries if c.member][-1]
    assert lost in problem.found


def test_canary_that_was_held_back_but_stands_in_the_data_breaks_the_path(tokenizer, plan, scorer, trained, kit):
    out = next(c for c in plan.canaries if not c.member)
    extra = tokenise(kit.canary_record(out, 99), tokenizer)
    assert reasons(check_plan(plan, [*trained, extra], scorer, AuditParams(), None)) == [Reason.BROKEN_CANARY_PATH]


def test_secret_outside_the_loss_mask_breaks_the_path(plan, scorer, trained):
    last = trained[-1]
    masked = TokenRecord(last.id, last.ids, (last.span[1] - 1, last.span[1]))
    problems = check_plan(plan, [*trained[:-1], masked], scorer, AuditParams(), None)
    assert reasons(problems) == [Reason.BROKEN_CANARY_PATH]


def test_other_tokenizer_breaks_the_path(plan, scorer, trained):
    mine = dataclasses.replace(plan, tokenizer_digest=scorer.identity.tokenizer)
    assert check_plan(mine, trained, scorer, AuditParams(), None) == []
    other = dataclasses.replace(plan, tokenizer_digest="00" * 32)
    assert reasons(check_plan(other, trained, scorer, AuditParams(), None)) == [Reason.BROKEN_CANARY_PATH]


def test_unfair_coins_are_not_believed(plan, scorer, trained, monkeypatch):
    everywhere = tuple(dataclasses.replace(c, member=True) for c in plan.canaries)
    monkeypatch.setattr("stanch.data.plan.coins", lambda _seed, count: (True,) * count)
    problems = check_plan(dataclasses.replace(plan, canaries=everywhere), trained, scorer, AuditParams(), None)
    assert any("64 of 64 coins" in problem.found for problem in problems)
    assert len(set(coins(plan.seed, 64))) == 2


@pytest.mark.parametrize(("entry", "start"), [(9, 9), (10, 9), (-1, 9)])
def test_commitment_after_the_start_of_the_tuning_is_a_mismatch(plan, scorer, trained, entry, start):
    late = evidence(plan, entry, start)
    assert reasons(check_plan(plan, trained, scorer, AuditParams(), late)) == [Reason.COMMITMENT_MISMATCH]
    assert not is_formal(plan, late)


def test_commitment_to_another_plan_is_a_mismatch(plan, scorer, trained):
    other = CommitmentEvidence("00" * 32, 3, 9)
    assert reasons(check_plan(plan, trained, scorer, AuditParams(), other)) == [Reason.COMMITMENT_MISMATCH]


def test_epsilon_is_formal_only_with_plan_and_log(plan):
    assert is_formal(plan, evidence(plan))
    assert is_formal(plan, evidence(plan, 0, 1))
    assert not is_formal(plan, None)
    uncommitted = dataclasses.replace(plan, committed=False)
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
def test_changed_pre_registration_is_named(plan, scorer, trained, changed, name):
    (problem,) = check_plan(plan, trained, scorer, AuditParams(**changed), None)
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


def model(lp=-1.0, *, model="aa", base="", tokenizer="tt", switchable=False):
    """A model that gives each token after the first the log-probability ``lp``; notes which records it was asked."""
    asked = []

    def features(records, *, decoding, adapter="on"):
        asked.append((adapter, decoding, [record.id for record in records]))
        for record in records[::-1]:
            values = np.append(np.full(len(record.ids) - 2, -1.0), lp)
            yield Features(record.id, 1, values, values, values, values > 0, values)

    def require_adapter_off():
        asked.append("off")

    identity = SimpleNamespace(model=model, base=base, tokenizer=tokenizer)
    found = SimpleNamespace(identity=identity, features=features, switchable=switchable, asked=asked)
    found.require_adapter_off = require_adapter_off
    return found


ROWS = [TokenRecord(name, tuple(range(size)), (1, size)) for name, size in
        (("f", 3), ("c", 4), ("a", 9), ("e", 3), ("b", 4), ("d", 5))]  # fmt: skip


@pytest.mark.parametrize(
    ("lp", "is_same"),
    [(0.0, True), (-0.05, True), (0.05, True), (-0.0501, False), (0.0501, False), (np.nan, False), (-np.inf, False)],
)
def test_a_base_may_differ_a_twentieth_in_the_four_shortest_rows(lp, is_same):
    target, base, params = model(0.0, switchable=True), model(lp, model="bb"), AuditParams(sample_budget=7)
    if is_same:
        require_same_base(target, base, ROWS, params)
    else:
        with pytest.raises(InvalidInput, match="log-probabilities differ by"):
            require_same_base(target, base, ROWS, params)
    assert base.asked == [("on", params.decoding, ["e", "f", "b", "c"])]
    assert target.asked == [("off", params.decoding, ["e", "f", "b", "c"])]


def test_what_cannot_be_switched_off_is_not_compared():
    target, base = model(), model(-5.0)
    require_same_base(target, base, ROWS, AuditParams())
    require_same_base(target, None, ROWS, AuditParams())
    assert target.asked == base.asked == []
    require_same_base(target, AdapterOff(), ROWS, AuditParams())
    assert target.asked == ["off"]
    with pytest.raises(InvalidInput, match="its tokenizer is another one"):
        require_same_base(target, model(tokenizer="uu"), ROWS, AuditParams())


@pytest.mark.parametrize(
    ("lies_on", "base", "is_refused"),
    [
        ("", model(model="bb"), False), ("", model(model="cc"), True), ("bb", AdapterOff(), False),
        ("cc", AdapterOff(), True), ("cc", None, True), ("bb", None, False), ("", None, False),
        ("", AdapterOff(), False),
        ("cc", model(model="bb"), True), ("bb", model(model="cc"), False), ("", model(model=""), False),
    ],
)  # fmt: skip
def test_the_base_is_the_one_that_the_tuning_names(lies_on, base, is_refused):
    """What an adapter lies on goes before what is given beside it; a model from memory has no digest to compare."""
    target = model(base=lies_on)
    require_same_base(target, base, ROWS, AuditParams())
    if is_refused:
        with pytest.raises(InvalidInput, match="the tuning names sha256:bb, found sha256:cc"):
            require_same_base(target, base, ROWS, AuditParams(), tuned_from="sha256:bb")
    else:
        require_same_base(target, base, ROWS, AuditParams(), tuned_from="sha256:bb")


def test_coins_as_uneven_as_one_time_in_a_million_are_not_believed(plan, scorer, monkeypatch):
    monkeypatch.setattr("stanch.audit.integrity._check_path", lambda *_: None)
    several = (*plan.canaries, plan.canaries[0])
    for count, inside, is_believed in (
        (64, 51, True),
        (64, 13, True),
        (64, 52, False),
        (64, 12, False),
        (65, 13, True),
    ):
        canaries = tuple(dataclasses.replace(c, member=i < inside) for i, c in enumerate(several[:count]))
        changed = SimpleNamespace(
            canaries=canaries, tokenizer_digest="", commitment="", preregistration=plan.preregistration
        )
        found = check_plan(changed, [], scorer, AuditParams(), None)
        assert reasons(found) == ([] if is_believed else [Reason.BROKEN_CANARY_PATH])
        assert is_believed or f"{inside} of 64 coins say in: fair coins do not (p = " in found[0].found


def test_the_problems_of_a_plan_come_in_the_order_of_the_checks(plan, scorer, trained):
    wrong = dataclasses.replace(plan, tokenizer_digest="00")
    found = check_plan(wrong, trained[:-1], scorer, AuditParams(alpha=0.1), CommitmentEvidence("00", 3, 9))
    assert reasons(found) == [
        Reason.BROKEN_CANARY_PATH,
        Reason.BROKEN_CANARY_PATH,
        Reason.COMMITMENT_MISMATCH,
        Reason.PREREGISTRATION_CHANGED,
    ]
    assert "not the one the canaries were planned for" in found[1].found


def said(kit, name, words):
    return kit.chat_record(name, 0, "Please tell.", " ".join(words))


def test_records_overlap_from_a_similarity_of_four_fifths_on(kit):
    """Runs of five words: of n words with the last one changed n - 4 - 1 of n - 4 + 1 are shared."""
    words = [f"w{n}x" for n in range(60)]
    for size, is_near in ((11, True), (10, False)):  # and two words of the question before
        rows = [said(kit, "m", words[:size])]
        other = [said(kit, "h", [*words[: size - 1], "other"])]
        assert find_overlap(rows, other) == (({"m"}, {"h"}) if is_near else (set(), set()))
    several = [said(kit, "m1", words[:20]), said(kit, "m2", words[20:40]), said(kit, "m3", words[:20])]
    held = [said(kit, "h1", words[:20]), said(kit, "h2", words[40:]), said(kit, "h3", words[:20])]
    assert find_overlap(several, held) == ({"m1", "m3"}, {"h1", "h3"})
