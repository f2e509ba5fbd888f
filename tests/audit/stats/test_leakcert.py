import copy
import hashlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stanch.audit.cert_sections import CertDp, CertMembership, CertShift
from stanch.audit.evidence import Evidence, Reason
from stanch.audit.leakcert import LEAKCERT_TYPE, LeakCert, model_subjects, predicate
from stanch.audit.rates import clopper_pearson
from stanch.audit.report import Report, conclude, evidence_of
from stanch.audit.scan_test import ScanLaw, guess_grid
from stanch.audit.sections import (
    ModelSummary,
    NearVerbatim,
    RateAt,
    Reconstruction,
    RepeatedTier,
    Shift,
    Tool,
)
from stanch.audit.table_audit import audit_scores
from stanch.crypto import canonical_json, frame, parse_json
from stanch.errors import InvalidInput, VerificationError
from stanch.sign import Statement
from stanch.terms import ArtifactRef, Digest, Interval, NeighboringRelation, PrivacyBudget, Verdict

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit" / "leakcert.json").read_text())
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ref(model):
    return ArtifactRef("model", "m", model.root)


@pytest.fixture(scope="module")
def small_report(tables, reports):
    """The report of a planned audit with few coins, so that its figures take little to compute."""
    return reports(tables(m=32), claim=PrivacyBudget(8.0, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE))


def test_a_certificate_is_of_now_where_no_time_is_given(small_report, model):
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= predicate(small_report, ref(model)).issued_at <= datetime.now(UTC)


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


def test_version_1_judges_no_repeated_rows_and_version_2_does(small_report, model):
    """What an old certificate says of its own verdict stays true; the gate looks at the rows all the same."""
    tier = RepeatedTier(">=16", 40, 40, 40, clopper_pearson(40, 40, side="upper").upper)
    cert = replace(predicate(small_report, ref(model), now=NOW), repeated=(tier,))
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
def test_one_attributable_row_of_any_kind_is_a_demonstration(small_report, model, found):
    report = conclude(replace(small_report, extraction=replace(small_report.extraction, **found)))
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


def test_report_to_certificate_through_a_statement(small_report, model):
    cert = predicate(small_report, ref(model), now=NOW)
    statement = Statement(model_subjects(model), LEAKCERT_TYPE, cert.to_predicate())
    again = LeakCert.parse(Statement.parse(statement.to_bytes()).predicate)
    assert again == cert
    assert (again.issued, again.expires) == ("2026-01-02T03:04:05Z", "2026-04-02T03:04:05Z")
    assert again.report_digest == str(small_report.digest)


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


def test_inconsistent_report_gets_no_certificate(small_report, model):
    with pytest.raises(VerificationError, match="verdict"):
        predicate(replace(small_report, verdict=Verdict.LEAK_PROVEN), ref(model), now=NOW)


@pytest.mark.parametrize("days", [0, 91])
def test_validity_out_of_range_is_refused(small_report, model, days):
    with pytest.raises(InvalidInput, match="days"):
        predicate(small_report, ref(model), valid_days=days, now=NOW)


def test_untested_claim_stands_in_no_certificate(small_report, model):
    untested = replace(small_report, dp=replace(small_report.dp, p_value=None))
    assert predicate(untested, ref(model), now=NOW).dp is None


def test_falsified_claim_keeps_its_verdict(tables, reports, model):
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    report = reports(tables(shift=4.0), claim=claim)
    cert = LeakCert.parse(predicate(report, ref(model), now=NOW).to_predicate())
    assert cert.verdict is Verdict.DP_CLAIM_FALSIFIED
    assert cert.dp.p_value <= 0.01


def test_certificate_id_depends_on_report_model_and_time(small_report, model):
    first = predicate(small_report, ref(model), now=NOW)
    assert first.certificate_id == predicate(small_report, ref(model), now=NOW).certificate_id
    assert first.certificate_id != predicate(small_report, ref(model), now=NOW.replace(second=6)).certificate_id
    changed = replace(small_report, limits=("another",))
    assert first.certificate_id != predicate(changed, ref(model), now=NOW).certificate_id


def test_the_type_of_the_statement_is_pinned():
    assert LEAKCERT_TYPE == "urn:stanch:leakcert:v1"


@pytest.fixture(scope="module")
def valid():
    return LeakCert.parse(VECTORS["valid"])


def refusal(cert):
    """Return the field that a certificate is refused for."""
    with pytest.raises(VerificationError) as caught:
        LeakCert.parse(cert.to_predicate())
    return caught.value.what.partition(":")[0].removeprefix("field ")


WRONG = Interval(0.5, 0.6, 0.7, 0.95, "m")
RIGHT = Interval(0.5, 0.4, 0.6, 0.95, "m")


def test_every_interval_of_membership_and_shift_is_looked_at(valid):
    members = replace(valid.membership, tpr_1pct=RIGHT, tpr_01pct=RIGHT, tnr_1pct=RIGHT)
    full = replace(valid, membership=members, shift=CertShift(RIGHT, RIGHT, RIGHT))
    assert LeakCert.parse(full.to_predicate()) == full
    without = replace(valid, shift=CertShift(RIGHT, RIGHT, None))
    assert LeakCert.parse(without.to_predicate()) == without
    for name in ("auc", "tpr_1pct", "tpr_01pct", "tnr_1pct"):
        assert refusal(replace(full, membership=replace(members, **{name: WRONG}))) == f"membership.{name}"
    for name in ("blind_auc", "length_auc", "base_loss_auc"):
        assert refusal(replace(full, shift=replace(full.shift, **{name: WRONG}))) == f"shift.{name}"


def test_every_count_and_p_value_is_looked_at(valid):
    tier, guessed = (
        RepeatedTier("2-3", 0, 4, 0, clopper_pearson(0, 4, side="upper").upper),
        Reconstruction("k", 1, 1, 2, 2),
    )
    full = replace(valid, repeated=(valid.repeated[0], tier), reconstruction=(guessed, guessed))
    assert LeakCert.parse(full.to_predicate()) == full
    for change, field in (
        ({"k": 5}, "k"), ({"attributable": -1}, "attributable"), ({"upper": 0.5}, "upper"),
    ):  # fmt: skip
        wrong = (valid.repeated[0], replace(tier, **change))
        assert refusal(replace(full, repeated=wrong)) == f"repeated[1].{field}"
    for change, field in (({"k": 2}, "k"), ({"control_k": 3}, "control_k")):
        wrong = (guessed, replace(guessed, **change))
        assert refusal(replace(full, reconstruction=wrong)) == f"reconstruction[1].{field}"
    for name in ("fisher_in", "fisher_out"):
        assert refusal(replace(full, exposure=replace(full.exposure, **{name: 1.5}))) == f"exposure.{name}"
    assert refusal(replace(full, secrets=replace(full.secrets, k_out=999))) == "secrets.k_out"
    assert refusal(replace(full, dp=replace(full.dp, p_value=1.5))) == "dp.p_value"
    assert refusal(replace(full, membership=replace(full.membership, p=1.5))) == "membership.p"
    one = replace(full, exposure=replace(full.exposure, candidates=1))
    assert LeakCert.parse(one.to_predicate()) == one


@pytest.mark.parametrize("count", [2**53, 10**400], ids=["beyond exact", "beyond any float"])
def test_a_count_that_no_number_of_json_holds_is_refused(valid, count):
    told = valid.to_predicate()
    told["secrets"]["n_in"] = str(count)
    with pytest.raises(VerificationError, match="leak certificate"):
        LeakCert.parse(told)


def test_a_certificate_is_valid_for_at_most_ninety_days(valid):
    for expires, is_valid in (
        ("2026-01-02T00:00:01Z", True), ("2026-04-02T00:00:00Z", True), ("2026-04-02T00:00:01Z", False),
        ("2026-01-02T00:00:00Z", False),
    ):  # fmt: skip
        cert = replace(valid, expires=expires)
        if is_valid:
            assert LeakCert.parse(cert.to_predicate()).expires_at > valid.issued_at
        else:
            assert refusal(cert) == "expires"
    for issued in ("2026-1-02T00:00:00Z", "2026-01-02T00:00:00", "2026-13-02T00:00:00Z", ""):
        assert refusal(replace(valid, issued=issued)) == "issued"


@pytest.mark.parametrize(("entry", "start", "is_proven"), [(0, 1, True), (3, 4, True), (4, 4, False), (-1, 4, False)])
def test_a_plan_is_proven_to_be_older_than_the_tuning(valid, entry, start, is_proven):
    logged = replace(valid.commitment_evidence, entry_index=entry, tuning_start_index=start)
    cert = replace(valid, commitment_evidence=logged)
    assert cert.has_proven_commitment == is_proven
    assert is_proven or refusal(cert) == "epsilon.formal"
    informal = replace(cert, epsilon=replace(cert.epsilon, formal=False))
    assert LeakCert.parse(informal.to_predicate()) == informal


def test_an_audit_that_tested_nothing_gives_a_certificate_that_says_so(model):
    report = conclude(Report(attack_pack=2, created="2026-01-01T00:00:00Z", tool=Tool("stanch", "1"), mode="bare",
                             model=ModelSummary(str(model.root), ())))  # fmt: skip
    cert = predicate(report, ref(model), valid_days=1, release_context="partner", now=NOW)
    assert LeakCert.parse(cert.to_predicate()) == cert
    assert (cert.verdict, cert.reasons, cert.release_context) == (Verdict.INCONCLUSIVE, (Reason.BARE_MODE,), "partner")
    assert cert.expires == "2026-01-03T03:04:05Z"
    empty = [cert.plan_commitment, cert.commitment_evidence, cert.membership, cert.epsilon, cert.power, cert.dp,
             cert.exposure, cert.extraction, cert.secrets, cert.near_verbatim, cert.shift]  # fmt: skip
    assert empty == [None] * 11
    assert (cert.repeated, cert.reconstruction, cert.coverage, cert.limits) == ((), (), (), ())
    assert not cert.has_proven_commitment
    assert cert.evidence() == Evidence(mode="bare", reasons=frozenset({Reason.BARE_MODE}))


def test_a_certificate_says_what_its_report_says(small_report, model):
    at = [Interval(n / 10, n / 10, n / 10, 0.95, "m") for n in range(1, 7)]
    first = replace(
        small_report.scores[0], tpr=(RateAt(0.01, at[0], None), RateAt(0.001, at[1], None)),
        tnr=(RateAt(0.001, at[3], None), RateAt(0.01, at[2], None)),
    )  # fmt: skip
    near = NearVerbatim(0, 3000, 0, 0, small_report.extraction.rows.upper, 0, 0)
    tier = RepeatedTier("1", 0, 4, 0, clopper_pearson(0, 4, side="upper").upper)
    report = replace(
        small_report, scores=(*small_report.scores[1:], first),
        membership=replace(small_report.membership, score="ratio/1"),
        extraction=replace(small_report.extraction, near_verbatim=near, tiers=(tier,)),
        shift=Shift(at[4], at[5], at[0]), reconstruction=(Reconstruction("k", 1, 2, 0, 3),), dataset_digest="d",
        base="b", tokenizer_digest="t",
    )  # fmt: skip
    cert = predicate(report, ref(model), now=NOW)
    assert LeakCert.parse(cert.to_predicate()) == cert
    assert cert.membership == CertMembership("ratio/1", first.auc, at[0], at[1], at[2], report.membership.p)
    assert cert.dp == CertDp(
        8.0, 1e-5, NeighboringRelation.ADD_OR_REMOVE_ONE, "record", "pld", report.dp.p_value
    )  # fmt: skip
    assert cert.shift == CertShift(at[4], at[5], at[0])
    assert cert.exposure.candidates == 999
    assert (cert.extraction.n_budget, cert.extraction.p, cert.extraction.n) == (10_000, 0.9, 3000)
    assert (cert.near_verbatim, cert.repeated, cert.secrets) == (near, (tier,), report.extraction.secrets)
    assert (cert.plan_commitment, cert.commitment_evidence) == ("ab" * 32, report.plan.evidence)
    assert (cert.dataset_digest, cert.base_digest, cert.tokenizer_digest) == ("d", "b", "t")
    parts = (b"stanch/leakcert/v1", report.digest.value, model.root.value, b"2026-01-02T03:04:05Z")
    assert cert.certificate_id == hashlib.sha256(frame(*parts)).hexdigest()[:32]
    assert cert.evidence() == evidence_of(report)
    without = replace(report, extraction=replace(report.extraction, rows=None), membership=None, scores=())
    told = predicate(conclude(without), ref(model), now=NOW)
    assert (told.extraction, told.secrets, told.membership) == (None, report.extraction.secrets, None)


def test_members_that_score_lower_count_as_they_would_the_other_way_round(valid):
    low = replace(valid, mode="holdout", membership=replace(valid.membership, auc=Interval(0.1, 0.05, 0.2, 0.95, "m")))
    assert low.evidence().attack_auc_lower == 0.8
    assert replace(low, shift=CertShift(RIGHT, RIGHT, None)).evidence().blind_auc_upper == 0.6


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
