import subprocess
import sys

import pytest

from stanch.audit.codec import first_difference
from stanch.audit.params import AuditParams, Decoding, preregister
from stanch.errors import InvalidInput


def test_preregistration_holds_what_could_be_chosen_afterwards():
    fields = preregister(AuditParams()).to_json()
    assert fields["scores"] == ["ratio/1", "suffix_loss/1", "ez/1"]
    assert fields["orders"] == ["in", "out", "two_sided"]
    assert (fields["alpha"], fields["splits"], fields["attack_pack"]) == (0.05, 9, 1)
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": ()},
        {"scores": ("ratio/1", "ratio/1")},
        {"scores": ("min_k_pp/1",)},
        {"orders": ("sideways",)},
        {"orders": ()},
        {"formal_tiers": ()},
        {"alpha": 0.0},
        {"alpha": 0.0009},
        {"alpha": 1.0},
        {"min_power": 1.0},
        {"detectable_auc": 0.5},
        {"rows": 0},
        {"sample_budget": 0},
    ],
)
def test_unusable_parameters_are_refused(wrong):
    with pytest.raises(InvalidInput):
        AuditParams(**wrong)


def test_split_counts_all_tests():
    assert AuditParams(formal_tiers=("a", "b")).splits == 18


def test_first_difference_names_the_place():
    left = {"a": [1, {"b": 2.0}], "c": True}
    assert first_difference(left, {"a": [1, {"b": 2.0}], "c": True}) is None
    assert first_difference(left, {"a": [1, {"b": 2.5}], "c": True}) == "a[1].b"
    assert first_difference(left, {"a": [1], "c": True}) == "a[1]"
    assert first_difference(left, {"a": [1, {"b": 2.0}], "c": 1}) == "c"
    assert first_difference(left, {"a": [1, {"b": 2.0}]}) == "c"
    assert first_difference({}, {"z": 1}) == "z"
    assert first_difference(1.0, 1.0 + 1e-10, tolerance=1e-9) is None
    assert first_difference(1.0, float("nan"), tolerance=1e-9) == "(whole value)"


def test_statistics_need_no_torch():
    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import stanch.audit, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
