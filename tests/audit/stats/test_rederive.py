"""What a verifier computes again: each check at the last value that it lets pass, and the field that it names."""

import math
from dataclasses import replace

import pytest

from stanch.audit import rederive
from stanch.audit.evidence import Demonstration, Evidence, Family, Reason
from stanch.audit.params import MIN_ALPHA
from stanch.audit.rates import clopper_pearson
from stanch.audit.scan_test import epsilon_ceiling
from stanch.audit.sections import EpsilonBound, NearVerbatim, Power, SecretExtraction
from stanch.errors import VerificationError
from stanch.terms import Interval, Verdict


def refused(check, *given):
    """Return what a check says when it refuses."""
    with pytest.raises(VerificationError) as caught:
        check(*given)
    return caught.value.what


@pytest.mark.parametrize(
    ("expected", "last", "first"),
    [(0.0, 1e-9, 1.01e-9), (0.5, 0.5 - 0.999e-9, 0.5 - 1.01e-9), (1e3, 1e3 + 0.999e-6, 1e3 + 1.01e-6),
     (-1e3, -1e3 - 0.999e-6, -1e3 - 1.01e-6), (0.0, 0.0, math.nan), (0.0, 0.0, math.inf)],
)  # fmt: skip
def test_a_figure_may_differ_by_a_billionth(expected, last, first):
    rederive.require_equal("f", expected, last)
    said = f"field f: expected {expected:.12g}, found {first:.12g}"
    assert refused(rederive.require_equal, "f", expected, first) == said


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_a_count_lies_between_nothing_and_all(k, n):
    for good in ((0, 0), (0, 5), (5, 5)):
        rederive.require_count("f.k", *good)
    assert refused(rederive.require_count, "f.k", k, n) == f"field f.k: expected a count between 0 and {n}, found {k}"


def test_rows_that_come_out_are_counts_with_the_bound_of_those_that_count():
    upper = clopper_pearson(2, 50, side="upper").upper
    rows = NearVerbatim(k=4, n=50, base=1, attributable=2, upper=upper, control_k=3, control_n=3)
    rederive.require_rows_out("rows", rows)
    all_out = clopper_pearson(4, 4, side="upper").upper
    rederive.require_rows_out("rows", replace(rows, n=4, attributable=4, upper=all_out))
    for change, field in (
        ({"k": 51}, "rows.k"), ({"k": -1}, "rows.k"), ({"k": 1}, "rows.attributable"),
        ({"attributable": -1}, "rows.attributable"), ({"upper": upper + 1e-8}, "rows.upper"),
        ({"attributable": 1}, "rows.upper"), ({"control_k": 4}, "rows.control_k"),
        ({"control_k": -1}, "rows.control_k"),
    ):  # fmt: skip
        assert refused(rederive.require_rows_out, "rows", replace(rows, **change)).startswith(f"field {field}:")
    assert refused(rederive.require_upper_bound, "tier", 3, 2, 0.5).startswith("field tier.k:")
    assert refused(rederive.require_upper_bound, "tier", 2, 3, 0.5).startswith("field tier.upper: expected 0.983")


@pytest.mark.parametrize(
    "bounds",
    [(-1e-9, 0.5, 0.6, 0.95), (0.5, 0.4, 0.6, 0.95), (0.5, 0.7, 0.6, 0.95), (0.5, 0.6, 1 + 1e-9, 0.95),
     (0.4, 0.5, 0.6, 0.0), (0.4, 0.5, 0.6, 1.0), (0.4, math.nan, 0.6, 0.95)],
)  # fmt: skip
def test_an_interval_of_a_rate_holds_its_estimate(bounds):
    for lower, estimate, upper in ((0, 0, 0), (1, 1, 1), (0, 0.5, 1)):
        rederive.require_ordered("f", Interval(estimate, lower, upper, 0.95, "m"))
    lower, estimate, upper, confidence = bounds
    said = refused(rederive.require_ordered, "f", Interval(estimate, lower, upper, confidence, "m"))
    assert said.endswith(f"found {lower}, {estimate}, {upper}")


def test_a_p_value_is_a_probability():
    for good in (None, 0, 1, 0.5):
        rederive.require_p_value("p", good)
    for bad in (-1e-9, 1 + 1e-9, math.nan):
        assert refused(rederive.require_p_value, "p", bad) == f"field p: expected a number between 0 and 1, found {bad}"


def bound(*, lower=1.0, alpha=0.05, splits=12, m=512, copies=2):
    return EpsilonBound(lower, lower / copies, epsilon_ceiling(m, alpha / splits), alpha, splits, m, copies, True)


def test_an_epsilon_bound_stays_within_what_its_coins_can_show():
    rederive.require_epsilon(bound())
    rederive.require_epsilon(bound(lower=bound().ceiling))
    blind = bound(lower=0.0, alpha=MIN_ALPHA, splits=1, m=1, copies=1)  # its ceiling is below 0
    rederive.require_epsilon(blind)
    assert refused(rederive.require_epsilon, replace(blind, lower=0.5, per_record=0.5)).startswith(
        "field epsilon.lower:"
    )
    most = 0.999999
    rederive.require_epsilon(bound(alpha=most, splits=1))
    for change in ({"copies": 0}, {"splits": 0}, {"m": 0}, {"alpha": MIN_ALPHA * 0.999}, {"alpha": 1.0}):
        said = refused(rederive.require_epsilon, replace(bound(), **change))
        wanted = "copies, splits and m of at least 1 and alpha in [0.001, 1)"
        assert said == f"field epsilon: expected {wanted}, found others"
    good = bound()
    for change, field in (
        ({"ceiling": good.ceiling + 1e-6}, "epsilon.ceiling"), ({"m": 511}, "epsilon.ceiling"),
        ({"splits": 13}, "epsilon.ceiling"), ({"alpha": 0.051}, "epsilon.ceiling"),
        ({"lower": good.ceiling + 1e-6}, "epsilon.lower"), ({"lower": -1e-6}, "epsilon.lower"),
        ({"per_record": 0.51}, "epsilon.per_record"), ({"copies": 1}, "epsilon.per_record"),
    ):  # fmt: skip
        assert refused(rederive.require_epsilon, replace(good, **change)).startswith(f"field {field}:")


def test_a_lack_of_power_is_said():
    enough = Power(0.6, Interval(0.85, 0.8, 0.9, 0.95, "m"), 0.8)
    rederive.require_power(None, ())
    rederive.require_power(enough, ())
    weak = replace(enough, required=0.81)
    rederive.require_power(weak, (Reason.BORDERLINE, Reason.UNDERPOWERED))
    said = "field reasons: expected underpowered since the power is below 0.81, found no such reason"
    assert refused(rederive.require_power, weak, (Reason.BORDERLINE,)) == said
    for change in ({"auc": 0.5}, {"auc": 1.0}, {"required": 0.0}, {"required": 1.0}):
        said = refused(rederive.require_power, replace(enough, **change), (Reason.UNDERPOWERED,))
        odd = replace(enough, **change)
        assert said.endswith(f"in (0, 1), found {odd.auc}, {odd.required}")
        assert said.startswith("field power:")
    unordered = replace(enough, probability=replace(enough.probability, estimate=0.7))
    assert refused(rederive.require_power, unordered, ()).startswith("field power.probability:")


def test_secrets_are_counts_on_both_sides():
    rederive.require_secrets(None)
    rederive.require_secrets(SecretExtraction(5, 5, 3, 3))
    assert refused(rederive.require_secrets, SecretExtraction(6, 5, 0, 3)).startswith("field secrets.k_in:")
    assert refused(rederive.require_secrets, SecretExtraction(0, 5, 4, 3)).startswith("field secrets.k_out:")


def test_a_verdict_and_its_reasons_follow_from_the_evidence_in_their_order():
    two = (Reason.UNDERPOWERED, Reason.BORDERLINE)
    evidence = Evidence(mode="planned", families=(Family("membership", 0.5, formal=True),), reasons=frozenset(two))
    rederive.require_verdict(evidence, Verdict.INCONCLUSIVE, two)
    quiet = replace(evidence, reasons=frozenset())
    rederive.require_verdict(quiet, Verdict.NO_LEAK_DETECTED, ())
    said = "field verdict: expected INCONCLUSIVE, found NO LEAK DETECTED"
    assert refused(rederive.require_verdict, evidence, Verdict.NO_LEAK_DETECTED, two) == said
    said = "field reasons: expected underpowered, borderline, found borderline, underpowered"
    assert refused(rederive.require_verdict, evidence, Verdict.INCONCLUSIVE, two[::-1]) == said
    said = "field reasons: expected underpowered, borderline, found none"
    assert refused(rederive.require_verdict, evidence, Verdict.INCONCLUSIVE, ()) == said
    said = "field reasons: expected none, found borderline"
    assert refused(rederive.require_verdict, quiet, Verdict.NO_LEAK_DETECTED, (Reason.BORDERLINE,)) == said


@pytest.mark.parametrize("p", [math.nan, -0.5, 1.5])
def test_evidence_that_cannot_be_judged_gives_no_verdict(p):
    evidence = Evidence(mode="planned", families=(Family("membership", p, formal=True),))
    more_than_all = Evidence(mode="planned", demonstrations=(Demonstration("secrets", 5, 3, 1, 3),))
    for unusable in (evidence, more_than_all):
        said = refused(rederive.require_verdict, unusable, Verdict.INCONCLUSIVE, ())
        assert said == "field verdict: does not follow from unusable evidence"
