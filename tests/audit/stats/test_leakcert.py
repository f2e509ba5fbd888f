import copy
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stanch.audit.evidence import Reason
from stanch.audit.leakcert import LEAKCERT_TYPE, LeakCert, model_subjects, predicate
from stanch.audit.rates import clopper_pearson
from stanch.audit.report import conclude
from stanch.audit.scan_test import ScanLaw, guess_grid
from stanch.audit.sections import NearVerbatim, RepeatedTier
from stanch.audit.table_audit import audit_scores
from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput, VerificationError
from stanch.sign import Statement
from stanch.terms import ArtifactRef, Digest, NeighboringRelation, PrivacyBudget, Verdict

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit" / "leakcert.json").read_text())
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ref(model):
    return ArtifactRef("model", "m", model.root)


def test_valid_vector_is_accepted_and_written_back_exactly():
    cert = LeakCert.parse(VECTORS["valid"])
    assert cert.verdict is Verdict.NO_LEAK_DETECTED
    assert cert.to_predicate() == VECTORS["valid"]


def test_a_certificate_of_version_1_is_read_as_it_was_written():
    cert = LeakCert.parse(VECTORS["first"])
    assert (cert.schema, cert.near_verbatim) == ("leakcert/v1", None)
    assert cert.to_predicate() == VECTORS["first"]
    with pytest.raises(VerificationError, match="near_verbatim"):
        LeakCert.parse({**VECTORS["first"], "near_verbatim": None})


def test_a_certificate_of_version_2_is_read_as_it_was_written():
    cert = LeakCert.parse(VECTORS["second"])
    assert (cert.schema, cert.exposure.candidates) == ("leakcert/v2", None)
    assert cert.to_predicate() == VECTORS["second"]
    told = copy.deepcopy(VECTORS["second"])
    told["exposure"]["candidates"] = "999"
    with pytest.raises(VerificationError, match=r"exposure\.candidates"):
        LeakCert.parse(told)


def test_version_1_judges_no_repeated_rows_and_version_2_does(quiet_report, model):
    """What an old certificate says of its own verdict stays true; the gate looks at the rows all the same."""
    tier = RepeatedTier(">=16", 40, 40, 40, clopper_pearson(40, 40, side="upper").upper)
    cert = replace(predicate(quiet_report, ref(model), now=NOW), repeated=(tier,))
    assert LeakCert.parse(replace(cert, schema="leakcert/v1").to_predicate()).repeated == (tier,)
    with pytest.raises(VerificationError, match="verdict: expected LEAK PROVEN"):
        LeakCert.parse(cert.to_predicate())


@pytest.mark.parametrize(
    "found",
    [
        {"tiers": (RepeatedTier("4-15", 1, 40, 1, clopper_pearson(1, 40, side="upper").upper),)},
        {"near_verbatim": NearVerbatim(1, 3000, 0, 1, clopper_pearson(1, 3000, side="upper").upper, 0, 0)},
    ],
)
def test_one_attributable_row_of_any_kind_is_a_demonstration(quiet_report, model, found):
    report = conclude(replace(quiet_report, extraction=replace(quiet_report.extraction, **found)))
    assert report.verdict is Verdict.LEAK_PROVEN
    cert = LeakCert.parse(predicate(report, ref(model), now=NOW).to_predicate())
    assert (cert.verdict, cert.near_verbatim) == (Verdict.LEAK_PROVEN, found.get("near_verbatim"))


def test_repeated_rows_that_nobody_can_attribute_prove_nothing(quiet_report):
    """Without the base they are held against the controls, and tier 1 speaks of no repeated row."""
    rows = replace(quiet_report.extraction.rows, base=None)
    tiers = (RepeatedTier("1", 9, 90, 0, 0.1), RepeatedTier("2-3", 1, 40, 0, 0.1))
    several = conclude(replace(quiet_report, extraction=replace(quiet_report.extraction, rows=rows, tiers=tiers)))
    assert (several.verdict, several.reasons) == (Verdict.INCONCLUSIVE, (Reason.UNATTRIBUTED,))
    single = conclude(replace(quiet_report, extraction=replace(quiet_report.extraction, rows=rows, tiers=tiers[:1])))
    assert single.verdict is Verdict.NO_LEAK_DETECTED


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_invalid_vector_is_refused_and_its_field_is_named(case):
    value = copy.deepcopy(VECTORS["valid"])
    place = value
    for name in case["path"][:-1]:
        place = place[name]
    if "value" not in case:
        del place[case["path"][-1]]
    else:
        place[case["path"][-1]] = None if case["value"] == "null" else case["value"]
    with pytest.raises(VerificationError) as caught:
        LeakCert.parse(value)
    assert case["field"] in caught.value.what, caught.value.what


def test_report_to_certificate_through_a_statement(quiet_report, model):
    cert = predicate(quiet_report, ref(model), now=NOW)
    statement = Statement(model_subjects(model), LEAKCERT_TYPE, cert.to_predicate())
    again = LeakCert.parse(Statement.parse(statement.to_bytes()).predicate)
    assert again == cert
    assert (again.issued, again.expires) == ("2026-01-02T03:04:05Z", "2026-04-02T03:04:05Z")
    assert again.report_digest == str(quiet_report.digest)


def test_subjects_are_the_root_and_every_file(model):
    names = [subject.name for subject in model_subjects(model)]
    assert names == [".", "adapter_model.safetensors", "tokenizer.json"]
    assert model_subjects(model)[0].digest == model.root


def test_certificate_of_another_model_or_of_scores_alone_is_refused(quiet_report, quiet_table, model):
    other = ArtifactRef("model", "m", Digest.sha256(b"other"))
    with pytest.raises(InvalidInput, match="expected a report of"):
        predicate(quiet_report, other, now=NOW)
    with pytest.raises(InvalidInput, match="scores alone"):
        predicate(audit_scores(quiet_table, coins=True, now=NOW), ref(model), now=NOW)


def test_inconsistent_report_gets_no_certificate(quiet_report, model):
    with pytest.raises(VerificationError, match="verdict"):
        predicate(replace(quiet_report, verdict=Verdict.LEAK_PROVEN), ref(model), now=NOW)


@pytest.mark.parametrize("days", [0, 91])
def test_validity_out_of_range_is_refused(quiet_report, model, days):
    with pytest.raises(InvalidInput, match="days"):
        predicate(quiet_report, ref(model), valid_days=days, now=NOW)


def test_untested_claim_stands_in_no_certificate(quiet_report, model):
    untested = replace(quiet_report, dp=replace(quiet_report.dp, p_value=None))
    assert predicate(untested, ref(model), now=NOW).dp is None


def test_falsified_claim_keeps_its_verdict(tables, reports, model):
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    report = reports(tables(shift=4.0), claim=claim)
    cert = LeakCert.parse(predicate(report, ref(model), now=NOW).to_predicate())
    assert cert.verdict is Verdict.DP_CLAIM_FALSIFIED
    assert cert.dp.p_value <= 0.01


def test_certificate_id_depends_on_report_model_and_time(quiet_report, model):
    first = predicate(quiet_report, ref(model), now=NOW)
    assert first.certificate_id == predicate(quiet_report, ref(model), now=NOW).certificate_id
    assert first.certificate_id != predicate(quiet_report, ref(model), now=NOW.replace(second=6)).certificate_id
    changed = replace(quiet_report, limits=("another",))
    assert first.certificate_id != predicate(changed, ref(model), now=NOW).certificate_id


# A second reader with the standard library alone. It shares no code with the package: exact rationals and big integers.


def oracle_upper(k, n, alpha=Fraction(1, 20)):
    """One-sided Clopper-Pearson bound by bisection on the exact binomial sum."""
    low, high = Fraction(k, n), Fraction(1)
    for _ in range(60):
        middle = (low + high) / 2
        middle = Fraction(round(middle * 2**70), 2**70)
        mass = sum(math.comb(n, i) * middle**i * (1 - middle) ** (n - i) for i in range(k + 1))
        low, high = (middle, high) if mass > alpha else (low, middle)
    return float(low)


def oracle_ceiling(m, alpha, splits):
    q = math.exp(math.log(alpha / splits) / m)
    return math.log(q / (1 - q))


def oracle_read(payload):
    """Read a predicate and re-derive its bound, ceiling and order of bounds; returns the verdict as text."""
    value = json.loads(payload)
    rows, epsilon = value["extraction"], value["epsilon"]
    n = int(rows["n"])
    assert abs(float(rows["upper"]) - oracle_upper(int(rows["attributable"]), n)) < 1e-9
    ceiling = oracle_ceiling(int(epsilon["m"]), float(epsilon["alpha"]), int(epsilon["splits"]))
    assert abs(float(epsilon["ceiling"]) - ceiling) < 1e-9
    assert float(epsilon["lower"]) <= ceiling
    return value["verdict"]


def test_second_reader_agrees(tables, reports, model):
    for rows in ((0, 3000), (2, 60), (7, 40)):
        report = reports(tables(m=64, shift=3.0), rows=rows)
        payload = canonical_json(predicate(report, ref(model), now=NOW).to_predicate())
        assert oracle_read(payload) == LeakCert.parse(parse_json(payload, what="predicate")).verdict


def test_second_reader_computes_the_scan_of_48_coins_in_exact_rationals():
    grid = guess_grid(48).tolist()
    right = [min(r, r * 3 // 4 + 2) for r in grid]
    q = Fraction(1, 2)
    tails = {r: [Fraction(0)] * (r + 2) for r in grid}
    for r in grid:
        for w in range(r, -1, -1):
            tails[r][w] = tails[r][w + 1] + math.comb(r, w) * q**r
    level = min(tails[r][w] for r, w in zip(grid, right, strict=True))
    law, crossed, before = {0: Fraction(1)}, Fraction(0), 0
    for r in grid:
        step = r - before
        after = {}
        for w, mass in law.items():
            for more in range(step + 1):
                after[w + more] = after.get(w + more, 0) + mass * math.comb(step, more) * q**step
        crossed += sum(mass for w, mass in after.items() if tails[r][w] <= level)
        law, before = {w: mass for w, mass in after.items() if tails[r][w] > level}, r
    found = ScanLaw(tuple(grid))
    assert found.statistic(np.array(right), 0.0) == pytest.approx(float(level), rel=1e-12)
    assert found.crossing_probability(float(level), 0.0) == pytest.approx(float(crossed), rel=1e-11)
