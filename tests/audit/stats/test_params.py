import subprocess
import sys
from fractions import Fraction

import pytest

from stanch.audit import params
from stanch.audit.params import (
    DIRECT_ORDERS,
    ORDERS,
    REVERSED_ORDERS,
    AuditParams,
    Decoding,
    as_registered,
    count_parts,
    count_sharers,
    preregister,
    registers_exposure,
)
from stanch.errors import InvalidInput

COUNTS = ("sample_budget", "rows", "tree_budget", "exposure_candidates", "exposure_secrets")


def test_preregistration_holds_what_could_be_chosen_afterwards():
    fields = preregister(AuditParams()).to_json()
    assert fields["scores"] == ["ratio/1", "suffix_loss/1", "ez/1"]
    assert fields["orders"] == ["in", "out", "two_sided", "reversed_in", "reversed_out", "reversed_two_sided"]
    assert (fields["alpha"], fields["splits"], fields["attack_pack"]) == (0.05, 12, 2)
    assert (fields["exposure_secrets"], fields["exposure_candidates"]) == (16, 999)
    assert fields["decoding"] == {"top_k": 40, "temperature": 1.0}
    assert fields["guess_grid"] == "floor(8*(m/8)^(i/39)+1/2),i=0..39"
    assert fields["epsilon_grid"] == "k/100,k=0..2000"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"alpha": 0.1}, "alpha"),
        ({"scores": ("ratio/1", "ez/1")}, "scores"),
        ({"orders": ("in",)}, "orders"),
        ({"formal_tiers": ("once",)}, "formal_tiers"),
        ({"decoding": Decoding(top_k=50)}, "decoding"),
        ({"sample_budget": 1}, "sample_budget"),
        ({"sample_probability": 0.5}, "sample_probability"),
        ({"exposure_secrets": 1}, "exposure_secrets"),
        ({"exposure_candidates": 19}, "exposure_candidates"),
    ],
)
def test_a_change_after_registration_is_named(changed, field):
    registered = preregister(AuditParams()).to_json()
    assert preregister(AuditParams()).differs_from(registered) is None
    assert preregister(AuditParams(**changed)).differs_from(registered) == field


def test_power_and_effort_may_be_chosen_later():
    registered = preregister(AuditParams()).to_json()
    later = AuditParams(detectable_auc=0.7, min_power=0.5, rows=10, tree_budget=5)
    assert preregister(later).differs_from(registered) is None


def test_missing_and_extra_fields_are_differences():
    registered = preregister(AuditParams()).to_json()
    assert preregister(AuditParams()).differs_from({}) is not None
    assert preregister(AuditParams()).differs_from({**registered, "zzz": 1}) == "zzz"


def test_what_reports_and_certificates_take_for_granted():
    """Each is published, and a document that was made with another would be read wrongly."""
    assert (params.ATTACK_PACK, params.MIN_COINS, params.MIN_CANDIDATES, params.ROWS_TIER) == (2, 32, 99, "row")
    assert (params.DEFAULT_ALPHA, params.MIN_ALPHA, params.BOUND_CONFIDENCE) == (0.05, 0.001, 0.95)


def test_what_an_audit_does_by_default():
    assert AuditParams() == AuditParams(
        alpha=0.05, scores=("ratio/1", "suffix_loss/1", "ez/1"),
        orders=("in", "out", "two_sided", "reversed_in", "reversed_out", "reversed_two_sided"), formal_tiers=("all",),
        detectable_auc=0.6, min_power=0.8, decoding=Decoding(40, 1.0), sample_budget=10_000, sample_probability=0.9,
        rows=3000, tree_budget=6000, exposure_candidates=999, exposure_secrets=16, reconstruction_values=32,
        near_verbatim=False,
    )  # fmt: skip
    assert AuditParams().splits == 12


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"scores": ()}, "audit scores: .* found none"),
        ({"scores": ("ratio/1", "ratio/1")}, "audit scores: expected"),
        ({"scores": ("min_k_pp/1",)}, "audit scores: .* found min_k_pp/1"),
        ({"orders": ("sideways",)}, "audit orders: expected"),
        ({"orders": ("in", "in")}, "audit orders: expected"),
        ({"orders": ()}, "audit orders: expected"),
        ({"formal_tiers": ()}, "audit formal tiers: expected"),
        ({"formal_tiers": ("a", "a")}, "audit formal tiers: expected"),
        ({"alpha": 0.0009}, "alpha: expected"),
        ({"alpha": 1.0}, "alpha: expected"),
        ({"min_power": 0.0}, "min_power: expected"),
        ({"min_power": 1.0}, "min_power: expected"),
        ({"sample_probability": 0.0}, "sample_probability: expected"),
        ({"sample_probability": 1.0}, "sample_probability: expected"),
        ({"detectable_auc": 0.5}, "detectable_auc: expected"),
        ({"detectable_auc": 1.0}, "detectable_auc: expected"),
        *(({name: 0}, f"{name}: expected at least 1") for name in COUNTS),
        ({"reconstruction_values": -1}, "reconstruction_values: expected at least 0"),
    ],
)
def test_unusable_parameters_are_refused_by_name(wrong, named):
    with pytest.raises(InvalidInput, match=f"^{named}"):
        AuditParams(**wrong)


def test_parameters_at_their_ends():
    AuditParams(alpha=0.001, reconstruction_values=0, **dict.fromkeys(COUNTS, 1))
    AuditParams(alpha=0.99, min_power=0.99, sample_probability=0.99, detectable_auc=0.99)
    AuditParams(min_power=0.01, sample_probability=0.01, detectable_auc=0.51)


def test_exposure_is_what_the_plan_registered():
    chosen = AuditParams(exposure_secrets=3, exposure_candidates=49, alpha=0.1)
    registered = preregister(chosen).to_json()
    assert as_registered(AuditParams(alpha=0.1), registered) == chosen
    assert registers_exposure(chosen, registered)
    assert not registers_exposure(AuditParams(exposure_secrets=3), registered)
    for silent in ({}, {**registered, "exposure_secrets": "3"}, {**registered, "exposure_candidates": None}):
        assert as_registered(AuditParams(), silent) == AuditParams()
        assert not registers_exposure(chosen, silent)


@pytest.mark.parametrize(
    ("orders", "parts", "sharers"),
    [(ORDERS, 4, [1, 1, 1, 3, 3, 3]), (DIRECT_ORDERS, 3, [1] * 3), (REVERSED_ORDERS, 1, [3] * 3), (("in",), 1, [1])],
)
def test_parts_of_alpha_add_up_to_all_of_it(orders, parts, sharers):
    assert count_parts(orders) == parts
    assert [count_sharers(order, orders) for order in orders] == sharers
    assert sum(Fraction(1, parts * share) for share in sharers) == 1
    assert AuditParams(orders=orders, formal_tiers=("a", "b")).splits == 6 * parts


def test_statistics_need_no_torch():
    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import stanch.audit, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
