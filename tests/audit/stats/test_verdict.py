import dataclasses
import itertools

import pytest

from stanch.audit.evidence import Demonstration, Evidence, Family, Reason
from stanch.audit.verdict import CURES, MEANING, decide, is_shown
from stanch.terms import Verdict

COIN_BREAKERS = {
    Reason.COMMITMENT_MISMATCH,
    Reason.PREREGISTRATION_CHANGED,
    Reason.BROKEN_CANARY_PATH,
    Reason.CONTROL_FAILED,
    Reason.TOO_FEW_COINS,
}
HOLDOUT_BREAKERS = COIN_BREAKERS | {Reason.DISTRIBUTION_SHIFT, Reason.NO_SHIFT_GATE, Reason.HOLDOUT_NOT_DISJOINT}
SHOWN = Demonstration("rows", 3, 100, 0, 100)


def evidence(mode="planned", membership=None, exposure=None, **others):
    families = [Family("membership", membership, mode == "planned")] if membership is not None else []
    families += [Family("exposure", exposure, formal=True)] if exposure is not None else []
    return Evidence(mode=mode, families=tuple(families), **others)


def test_whole_table_of_single_reasons():
    """Every mode x reason x demonstration x p-value x claim, against the rules written out once more."""
    choices = itertools.product(
        ("planned", "holdout", "bare"), (None, *Reason), (False, True), (0.001, 0.5), (None, 0.001, 0.5)
    )
    for mode, reason, shown, p, dp in choices:
        reasons = frozenset() if reason is None else frozenset({reason})
        decision = decide(
            evidence(
                mode,
                membership=p,
                demonstrations=(SHOWN,) if shown else (),
                reasons=reasons,
                dp_p_value=dp,
                attack_auc_lower=0.7,
                blind_auc_upper=0.6,
            )
        )
        breakers = {"planned": COIN_BREAKERS, "holdout": HOLDOUT_BREAKERS, "bare": set(Reason)}[mode]
        is_valid = mode != "bare" and reason not in breakers
        if mode == "planned" and is_valid and dp == 0.001:
            expected = Verdict.DP_CLAIM_FALSIFIED
        elif shown or (is_valid and p == 0.001):
            expected = Verdict.LEAK_PROVEN
        elif reason is not None or mode == "bare":
            expected = Verdict.INCONCLUSIVE
        else:
            expected = Verdict.NO_LEAK_DETECTED
        assert decision.verdict is expected, (mode, reason, shown, p, dp)
        assert set(decision.reasons) == reasons | ({Reason.BARE_MODE} if mode == "bare" else set())


def test_two_families_pay_for_each_other():
    alone = decide(evidence(membership=0.03))
    assert alone.verdict is Verdict.LEAK_PROVEN
    both = decide(evidence(membership=0.03, exposure=0.04))
    assert [family.adjusted_p for family in both.families] == [0.06, 0.06]
    assert not any(family.significant for family in both.families)


@pytest.mark.parametrize("exposure", [0.04, 0.5])
def test_no_leak_is_never_said_beside_a_test_that_is_significant_alone(exposure):
    """Power and epsilon are stated at the whole of alpha, which Holm halves between two families."""
    item = evidence(membership=0.03, exposure=exposure)
    found = decide(item)
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, (Reason.BORDERLINE,))
    again = decide(dataclasses.replace(item, reasons=frozenset(found.reasons)))
    assert (again.verdict, again.reasons) == (found.verdict, found.reasons)
    assert decide(evidence(membership=0.051, exposure=0.9)).verdict is Verdict.NO_LEAK_DETECTED
    assert decide(evidence(membership=0.02, exposure=0.04)).reasons == ()


def test_a_p_value_of_exactly_alpha_counts():
    assert decide(evidence(membership=0.05)).verdict is Verdict.LEAK_PROVEN
    assert decide(evidence(membership=0.0501)).verdict is Verdict.NO_LEAK_DETECTED
    found = decide(evidence(membership=0.025, exposure=0.9))
    assert (found.verdict, found.reasons) == (Verdict.LEAK_PROVEN, ())
    assert decide(evidence(membership=0.05, exposure=0.9)).reasons == (Reason.BORDERLINE,)
    assert decide(evidence(membership=0.9, exposure=0.05)).reasons == (Reason.BORDERLINE,)


def test_a_family_says_what_became_of_it():
    found = decide(evidence(membership=0.01, exposure=0.5, reasons=frozenset({Reason.TOO_FEW_COINS})))
    membership, exposure = found.families
    assert (membership.name, membership.p, membership.adjusted_p, membership.valid) == ("membership", 0.01, 1, False)
    assert (exposure.name, exposure.p, exposure.adjusted_p, exposure.valid) == ("exposure", 0.5, 0.5, True)


def test_an_invalid_family_costs_nothing_and_proves_nothing():
    found = decide(evidence(membership=1e-9, exposure=0.04, reasons=frozenset({Reason.COMMITMENT_MISMATCH})))
    assert [family.significant for family in found.families] == [False, True]
    assert found.verdict is Verdict.LEAK_PROVEN


def test_exposure_needs_an_intact_path_and_control_alone():
    for reason in Reason:
        found = decide(evidence(exposure=1e-6, reasons=frozenset({reason})))
        is_broken = reason in {Reason.BROKEN_CANARY_PATH, Reason.CONTROL_FAILED}
        assert found.verdict is (Verdict.INCONCLUSIVE if is_broken else Verdict.LEAK_PROVEN)


@pytest.mark.parametrize("mode", ["planned", "holdout", "bare"])
def test_exposure_proves_a_leak_by_itself_in_every_mode(mode):
    found = decide(evidence(mode, exposure=1e-6, attack_auc_lower=0.5, blind_auc_upper=0.6))
    assert found.verdict is Verdict.LEAK_PROVEN
    assert Reason.DISTRIBUTION_SHIFT not in found.reasons


def test_holdout_attack_must_beat_the_blind_test():
    for lower, upper, verdict in (
        (0.61, 0.60, Verdict.LEAK_PROVEN),
        (0.60, 0.60, Verdict.INCONCLUSIVE),
        (None, 0.60, Verdict.INCONCLUSIVE),
        (0.61, None, Verdict.INCONCLUSIVE),
    ):
        item = evidence("holdout", membership=1e-4, attack_auc_lower=lower, blind_auc_upper=upper)
        found = decide(item)
        assert found.verdict is verdict
        assert found.reasons == ((Reason.DISTRIBUTION_SHIFT,) if verdict is Verdict.INCONCLUSIVE else ())
        # Deciding again with the reasons that were found changes nothing, so a reader can re-derive them.
        again = decide(dataclasses.replace(item, reasons=frozenset(found.reasons)))
        assert (again.verdict, again.reasons) == (found.verdict, found.reasons)


@pytest.mark.parametrize("exposure", [None, 0.5])
def test_a_hold_out_that_differs_is_said_whatever_else_was_tested(exposure):
    for p, reasons in ((0.05 if exposure is None else 0.025, (Reason.DISTRIBUTION_SHIFT,)), (0.0501, ())):
        item = evidence("holdout", membership=p, exposure=exposure, attack_auc_lower=0.6, blind_auc_upper=0.6)
        assert decide(item).reasons == reasons


def test_an_audit_that_tested_nothing_is_inconclusive():
    assert decide(evidence()).verdict is Verdict.INCONCLUSIVE
    assert decide(evidence()).reasons == ()
    assert decide(evidence(exposure=0.5)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("k", "n", "k_control", "n_control", "shown"),
    [
        (0, 100, 0, 100, False),
        (1, 100, 0, 0, True),
        (1, 100, 0, 100, True),
        (1, 100, 1, 100, False),
        (20, 100, 1, 100, True),
        (5, 100, 5, 100, False),
        (5, 10, 1, 400, True),
        (4, 4, 1, 9, True),
        (3, 3, 1, 10, False),
    ],
)
def test_demonstration_against_control(k, n, k_control, n_control, shown):
    assert is_shown(Demonstration("secrets", k, n, k_control, n_control)) is shown


@pytest.mark.parametrize(
    ("k", "n", "k_control", "n_control", "shown"),
    [
        (1, 3000, 0, 10, False),
        (1, 1, 0, 99, True),
        (1, 1, 0, 98, False),
        (6, 100, 0, 100, False),
        (3000, 3000, 0, 0, False),
        (1, 100, 0, 100, False),
        (7, 100, 0, 100, True),
    ],
)
def test_without_a_base_rows_must_come_out_more_often_than_controls(k, n, k_control, n_control, shown):
    item = Demonstration("rows", k, n, k_control, n_control, unknown_before=False)
    assert is_shown(item) is shown
    found = decide(evidence(membership=0.5, demonstrations=(item,)))
    expected = (Verdict.LEAK_PROVEN, ()) if shown else (Verdict.INCONCLUSIVE, (Reason.UNATTRIBUTED,))
    assert (found.verdict, found.reasons) == expected


def test_where_nothing_came_out_nothing_is_unattributed():
    quiet = (Demonstration("rows", 0, 3000, 0, 0, unknown_before=False), Demonstration("secrets", 0, 100, 3, 100))
    found = decide(evidence(membership=0.5, demonstrations=quiet))
    assert (found.verdict, found.reasons, found.demonstrated) == (Verdict.NO_LEAK_DETECTED, (), ())


def test_secrets_that_come_out_no_more_often_than_those_held_back_are_not_called_no_leak():
    found = decide(evidence(membership=0.5, demonstrations=(Demonstration("secrets", 2, 100, 2, 100),)))
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, (Reason.UNATTRIBUTED,))


def test_falsified_claim_at_exactly_one_percent():
    assert decide(evidence(membership=0.5, dp_p_value=0.01)).verdict is Verdict.DP_CLAIM_FALSIFIED
    assert decide(evidence(membership=0.5, dp_p_value=0.0101)).verdict is Verdict.NO_LEAK_DETECTED


def test_every_reason_has_a_cure_and_every_verdict_a_meaning():
    assert set(CURES) == set(Reason)
    assert set(MEANING) == set(Verdict)
    assert "not a privacy guarantee" in MEANING[Verdict.NO_LEAK_DETECTED]


@pytest.mark.parametrize(("alpha", "expected"), [(0.05, Verdict.LEAK_PROVEN), (0.01, Verdict.NO_LEAK_DETECTED)])
def test_the_registered_error_probability_decides(alpha, expected):
    assert decide(evidence(membership=0.03, alpha=alpha)).verdict is expected
