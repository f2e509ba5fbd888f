import itertools
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from stanch.audit.evidence import Reason
from stanch.audit.gate import GateBreached, GateInconclusive, Outcome, decide_gate, gate
from stanch.audit.gate_policy import GatePolicy
from stanch.audit.leakcert import LEAKCERT_TYPE, LeakCert, model_subjects, predicate
from stanch.audit.params import ATTACK_PACK, DIRECT_ORDERS, Decoding
from stanch.audit.power import scan_power
from stanch.audit.rates import clopper_pearson
from stanch.audit.sections import NearVerbatim, RepeatedTier
from stanch.audit.verdict import CURES, MEANING
from stanch.errors import GateFailed, Inconclusive, InvalidInput, VerificationError
from stanch.sign import Statement, VerifiedStatement
from stanch.terms import ArtifactRef, Digest, Interval, NeighboringRelation, PrivacyBudget, Verdict

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = GatePolicy.for_context("open-weights")


@pytest.fixture
def cert():
    """The certificate of the vectors, of an audit that did not look for rows nearly word for word."""
    vectors = json.loads((Path(__file__).parents[2] / "vectors" / "audit" / "leakcert.json").read_text())
    return replace(LeakCert.parse(vectors["valid"]), near_verbatim=None)


@pytest.fixture(autouse=True)
def power_of_the_vectors(cert, monkeypatch):
    """The power that the coins of this certificate reach, which takes a second to simulate, stands in it."""
    own = (512, 0.6, {"alpha": 0.05, "splits": 12, "orders": DIRECT_ORDERS})
    monkeypatch.setattr(
        sys.modules["stanch.audit.gate"],  # not the function of that name
        "scan_power",
        lambda m, auc, **others: cert.power.probability if (m, auc, others) == own else scan_power(m, auc, **others),
    )


def verified(cert, model, kind=LEAKCERT_TYPE):
    return VerifiedStatement(Statement(model_subjects(model), kind, cert.to_predicate()), ("p256:00",))


def decide(cert, model, policy=POLICY, *, audited=None, now=NOW):
    subjects = {subject.name: subject.digest for subject in model_subjects(audited or model)}
    return decide_gate(cert, subjects, model, policy, now=now)


def rule_of(decision, name):
    return next(item for item in decision.rules if item.rule == name)


def outcome_of(decision, rule):
    return rule_of(decision, rule).outcome


def change(policy, **keys):
    return msgspec.structs.replace(policy, **keys)


def test_good_model_passes(cert, model):
    passed = gate(verified(cert, model), model, POLICY, now=NOW)
    assert passed.model == model.root
    assert passed.certificate == cert
    assert {rule.outcome for rule in passed.decision.rules} == {Outcome.PASS}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ((("adapter_model.safetensors", 3, "00" * 32),), "tokenizer.json was audited and is missing"),
        (
            (
                ("adapter_model.safetensors", 3, "00" * 32),
                ("chat.jinja", 1, "22" * 32),
                ("tokenizer.json", 4, "11" * 32),
            ),
            "chat.jinja is there and was not audited",
        ),
        (
            (("adapter_model.safetensors", 3, "00" * 32), ("tokenizer.json", 4, "33" * 32)),
            "tokenizer.json is another file",
        ),
        (
            (("adapter_model.safetensors", 9, "00" * 32), ("tokenizer.json", 4, "11" * 32)),
            "the root digest is not the audited one",
        ),
    ],
)
def test_other_files_are_a_breach_that_names_the_file(cert, model, files, named):
    other = replace(model, files=files)
    with pytest.raises(GateBreached, match=named) as caught:
        gate(verified(cert, model), other, POLICY, now=NOW)
    assert caught.value.exit_code == 1
    assert caught.value.what.startswith("the gate refuses the model: model_digest: ")
    assert caught.value.why == f"policy for open-weights; certificate {cert.certificate_id}"
    assert len(caught.value.decision.rules) > 10  # all rules are listed, not only the first


def test_the_first_of_several_wrong_files_is_named(cert, model):
    named = tuple((f"{n:02d}.bin", 1, "00" * 32) for n in range(12))
    for files, audited, said in (
        ((), named[::-1], "00.bin was audited and is missing"),
        (named[::-1], (), "00.bin is there and was not audited"),
    ):
        decision = decide(cert, replace(model, files=files), audited=replace(model, files=audited))
        assert rule_of(decision, "model_digest").found == said
    assert rule_of(decide(cert, model), "model_digest").found == "2 files as audited"


def test_statement_without_root_is_a_breach(cert, model):
    subjects = tuple(s for s in model_subjects(model) if s.name != ".")
    statement = VerifiedStatement(Statement(subjects, LEAKCERT_TYPE, cert.to_predicate()), ("k",))
    with pytest.raises(GateBreached, match="root digest"):
        gate(statement, model, POLICY, now=NOW)


def test_other_statements_and_edited_certificates_are_refused(cert, model):
    with pytest.raises(VerificationError, match="expected a statement of type"):
        gate(verified(cert, model, "urn:stanch:sealed-bundle:v1"), model, POLICY, now=NOW)
    edited = replace(cert, extraction=replace(cert.extraction, upper=1e-9))
    with pytest.raises(VerificationError, match=r"extraction\.upper"):
        gate(verified(edited, model), model, POLICY, now=NOW)


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (NOW - timedelta(minutes=6), Outcome.BREACH),
        (NOW - timedelta(minutes=5), Outcome.PASS),
        (NOW + timedelta(days=90, seconds=-1), Outcome.PASS),
        (NOW + timedelta(days=90), Outcome.BREACH),
    ],
)
def test_validity(cert, model, now, outcome):
    assert outcome_of(decide(cert, model, now=now), "certificate_validity") is outcome


def test_certificate_for_one_context_is_not_for_another(cert, model):
    bound = replace(cert, release_context="internal-api")
    assert outcome_of(decide(bound, model), "certificate_validity") is Outcome.BREACH
    assert (
        outcome_of(decide(replace(cert, release_context="open-weights"), model), "certificate_validity") is Outcome.PASS
    )


def test_older_attack_packs(cert, model):
    old = replace(cert, attack_pack=ATTACK_PACK - 1)
    assert outcome_of(decide(old, model), "attack_pack") is Outcome.BREACH
    assert outcome_of(decide(old, model, change(POLICY, allow_older_attack_pack=1)), "attack_pack") is Outcome.PASS


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict.NO_LEAK_DETECTED, Outcome.PASS),
        (Verdict.LEAK_PROVEN, Outcome.PASS),
        (Verdict.INCONCLUSIVE, Outcome.INCONCLUSIVE),
        (Verdict.DP_CLAIM_FALSIFIED, Outcome.BREACH),
    ],
)
def test_verdicts(cert, model, verdict, outcome):
    decision = decide(replace(cert, verdict=verdict, reasons=(Reason.BORDERLINE,)), model)
    assert outcome_of(decision, "verdict") is outcome
    assert decision.outcome is outcome


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.BORDERLINE])
def test_a_proven_leak_makes_up_for_nothing_that_was_wrong_with_the_audit(cert, model, reason):
    """The same audit without the leak is inconclusive: one row more that comes out opens no gate."""
    leaking = replace(with_rows(cert, 1, 3000), verdict=Verdict.LEAK_PROVEN, reasons=(reason,), power=None)
    cert = LeakCert.parse(leaking.to_predicate())
    decision = decide(cert, model, change(POLICY, max_extraction_rate=0.01))
    assert outcome_of(decision, "verdict") is Outcome.INCONCLUSIVE
    assert reason in next(rule.found for rule in decision.rules if rule.rule == "verdict")


def test_a_verdict_says_each_of_its_reasons_and_what_helps(cert, model):
    def said(verdict, *reasons):
        return rule_of(decide(replace(cert, verdict=verdict, reasons=reasons), model), "verdict").found

    two = (Reason.UNDERPOWERED, Reason.BARE_MODE)
    cures = f"(underpowered: {CURES[two[0]]}; bare_mode: {CURES[two[1]]})"
    assert said(Verdict.INCONCLUSIVE, *two) == f"INCONCLUSIVE: {MEANING[Verdict.INCONCLUSIVE]} {cures}"
    assert said(Verdict.INCONCLUSIVE) == f"INCONCLUSIVE: {MEANING[Verdict.INCONCLUSIVE]}"
    assert said(Verdict.LEAK_PROVEN, *two, Reason.BORDERLINE).endswith(cures)
    assert said(Verdict.NO_LEAK_DETECTED, *two) == f"NO LEAK DETECTED: {MEANING[Verdict.NO_LEAK_DETECTED]}"


def test_falsified_claim_is_a_breach_under_the_most_permissive_policy(tables, reports, model):
    claim = PrivacyBudget(0.5, 1e-5, "record", NeighboringRelation.ADD_OR_REMOVE_ONE)
    report = reports(tables(shift=4.0), claim=claim)
    cert = predicate(report, ArtifactRef("model", "m", model.root), now=NOW)
    lax = change(
        POLICY, max_extraction_rate=1.0, max_extractable_secrets=999, max_epsilon_lower_bound=100.0, max_auc=1.0,
        min_power=0.0, detectable_auc=1.0, require_mode="any-but-bare", require_witnessed_commitment=False,
    )  # fmt: skip
    with pytest.raises(GateBreached) as caught:
        gate(verified(cert, model), model, lax, now=NOW)
    breached = {rule.rule for rule in caught.value.decision.rules if rule.outcome is Outcome.BREACH}
    assert breached == {"verdict", "dp_claim"}


def with_rows(cert, k, n):
    upper = clopper_pearson(k, n, side="upper").upper
    return replace(cert, extraction=replace(cert.extraction, k=k, attributable=k, n=n, upper=upper))


@pytest.mark.parametrize(
    ("rows", "limit", "outcome", "said"),
    [
        ((0, 3000), 0.001, Outcome.PASS, "upper bound 0.0998%"),
        ((0, 300), 0.001, Outcome.INCONCLUSIVE, "needs about 2,995 rows"),
        ((0, 2994), 0.001, Outcome.INCONCLUSIVE, "needs about 2,995 rows"),
        ((0, 2995), 0.001, Outcome.PASS, ""),
        ((3, 3000), 0.001, Outcome.INCONCLUSIVE, ""),
        ((9, 3000), 0.001, Outcome.BREACH, "9 of 3,000"),
        ((9, 3000), 0.01, Outcome.PASS, ""),
        ((0, 10), 0.0, Outcome.INCONCLUSIVE, "no number of rows"),
        ((10, 10), 1.0, Outcome.PASS, ""),
    ],
)
def test_extraction_rate_is_judged_by_its_bounds(cert, model, rows, limit, outcome, said):
    decision = decide(with_rows(cert, *rows), model, change(POLICY, max_extraction_rate=limit))
    rule = next(item for item in decision.rules if item.rule == "max_extraction_rate")
    assert rule.outcome is outcome
    assert said in rule.found


@pytest.mark.parametrize(
    ("k", "control_n", "outcome", "said"),
    [
        (3000, 0, "inconclusive", "give the base model"),
        (1, 0, "inconclusive", "1 of 3,000"),
        (0, 0, "pass", ""),
        (9, 100, "pass", ""),
        (9, 1, "pass", ""),
    ],
)
def test_rows_that_nobody_can_attribute_count_as_they_come_out(cert, model, k, control_n, outcome, said):
    rows = replace(cert.extraction, k=k, base=None, attributable=0, control_n=control_n)
    decision = decide(replace(cert, extraction=rows), model)
    rule = next(item for item in decision.rules if item.rule == "max_extraction_rate")
    assert rule.outcome == outcome
    assert said in rule.found


@pytest.mark.parametrize(
    ("tier", "base", "outcome"),
    [
        ((">=16", 40, 40, 40), 0, "inconclusive"),
        (("2-3", 40, 40, 1), 0, "inconclusive"),
        (("2-3", 40, 40, 0), 0, "pass"),
        (("2-3", 1, 40, 0), None, "inconclusive"),
        (("1", 40, 40, 40), 0, "pass"),
    ],
)
def test_repeated_rows_that_come_out_are_at_least_inconclusive(cert, model, tier, base, outcome):
    changed = replace(cert, repeated=(RepeatedTier(*tier, 1.0),), extraction=replace(cert.extraction, base=base))
    assert outcome_of(decide(changed, model), "repeated_rows") == outcome
    if base is not None:
        assert outcome_of(decide(replace(changed, extraction=None), model), "repeated_rows") == (
            "inconclusive" if tier[0] != "1" else "pass"
        )


def test_too_few_rows_are_said_to_be_too_few_where_none_of_them_comes_out(cert, model):
    rows = replace(cert.extraction, k=0, n=300, base=None)
    rule = rule_of(decide(replace(cert, extraction=rows), model), "max_extraction_rate")
    assert rule.found.endswith(" limit 0.1000%; needs about 2,995 rows")


def test_repeated_rows_are_attributed_where_one_other_row_was_asked_too(cert, model):
    tiers = (RepeatedTier("2-3", 40, 40, 0, 1.0), RepeatedTier("4-15", 7, 1000, 0, 1.0))
    for control_n, outcome, said in (
        (0, Outcome.INCONCLUSIVE, "47 of 1,040 rows"),
        (1, Outcome.PASS, "0 of 1,040 rows"),
    ):
        rows = replace(cert.extraction, base=None, control_n=control_n)
        rule = rule_of(decide(replace(cert, repeated=tiers, extraction=rows), model), "repeated_rows")
        assert rule.outcome == outcome
        assert rule.found.startswith(said)


@pytest.mark.parametrize(("k", "outcome"), [(0, "pass"), (3, "inconclusive"), (900, "breach")])
def test_rows_nearly_word_for_word_are_held_to_the_same_limit(cert, model, k, outcome):
    assert "near_verbatim" not in {rule.rule for rule in decide(cert, model).rules}
    near = NearVerbatim(k, 3000, 0, k, clopper_pearson(k, 3000, side="upper").upper, 0, 0)
    assert outcome_of(decide(replace(cert, near_verbatim=near), model), "near_verbatim") == outcome


@pytest.mark.parametrize(
    ("effort", "outcome"),
    [
        ({}, "pass"),
        ({"n_budget": 20_000, "p": 0.5}, "pass"),
        ({"n_budget": 9_999}, "inconclusive"),
        ({"p": 0.91}, "inconclusive"),
        ({"decoding": Decoding(1, 1.0)}, "inconclusive"),
        ({"decoding": Decoding(40, 0.5)}, "inconclusive"),
    ],
)
def test_an_audit_that_did_not_try_as_hard_as_the_attack_pack_is_inconclusive(cert, model, effort, outcome):
    changed = replace(cert, extraction=replace(cert.extraction, **effort))
    assert outcome_of(decide(changed, model), "attack_effort") == outcome


@pytest.mark.parametrize(("n_in", "outcome"), [(0, "inconclusive"), (9, "inconclusive"), (10, "pass")])
def test_too_few_secrets_show_nothing(cert, model, n_in, outcome):
    changed = replace(cert, secrets=replace(cert.secrets, n_in=n_in))
    assert outcome_of(decide(changed, model), "min_secrets") == outcome


@pytest.mark.parametrize(
    ("ranked", "candidates", "outcome"),
    [(10, 99, "pass"), (9, 999, "inconclusive"), (16, 98, "inconclusive"), (1, 19, "inconclusive")],
)
def test_secrets_that_were_hardly_ranked_show_nothing(cert, model, ranked, candidates, outcome):
    tier = replace(cert.exposure.per_tier[0], n_in=ranked)
    changed = replace(cert, exposure=replace(cert.exposure, per_tier=(tier,), candidates=candidates))
    assert outcome_of(decide(changed, model), "min_secrets") == outcome
    few = change(POLICY, min_secrets=1)
    assert outcome_of(decide(changed, model, few), "min_secrets") == ("pass" if candidates >= 99 else "inconclusive")


def test_secrets_that_were_not_ranked_show_nothing_but_in_a_version_that_did_not_tell(cert, model):
    unranked = replace(cert, exposure=None)
    for untold in (unranked, replace(cert, exposure=replace(cert.exposure, per_tier=(), candidates=None))):
        found = rule_of(decide(untold, model), "min_secrets").found
        assert found == "250 secrets tested, 0 ranked among 0 (at least 99), required are 10"
    assert outcome_of(decide(unranked, model), "min_secrets") is Outcome.INCONCLUSIVE
    assert outcome_of(decide(replace(unranked, schema="leakcert/v2"), model), "min_secrets") is Outcome.PASS


def test_untested_parts_are_inconclusive(cert, model):
    for field, rules in (
        ("extraction", ("max_extraction_rate",)),
        ("secrets", ("max_extractable_secrets", "min_secrets")),
        ("epsilon", ("max_epsilon_lower_bound", "min_coins")),
        ("power", ("min_power",)),
    ):
        decision = decide(replace(cert, **{field: None}), model)
        for rule in rules:
            assert outcome_of(decision, rule) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("k_in", "limit", "outcome"), [(0, 0, "pass"), (1, 0, "breach"), (2, 2, "pass")])
def test_extractable_secrets(cert, model, k_in, limit, outcome):
    changed = replace(cert, secrets=replace(cert.secrets, k_in=k_in))
    decision = decide(changed, model, change(POLICY, max_extractable_secrets=limit))
    assert outcome_of(decision, "max_extractable_secrets") == outcome


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "pass"), (0.51, "breach")])
def test_epsilon_limit_is_per_record(cert, model, value, outcome):
    changed = replace(cert, epsilon=replace(cert.epsilon, lower=4 * value, per_record=value, copies=4))
    assert outcome_of(decide(changed, model), "max_epsilon_lower_bound") == outcome


@pytest.mark.parametrize(("copies", "limit"), [(16, 0.5), (16, 0.29), (16, 0.28), (1, 0.5), (1, 4.6)])
def test_a_limit_that_no_leak_could_exceed_is_not_passed(cert, model, copies, limit):
    """Canaries that stand there 16 times: the clearest leak of 512 coins shows 4.53 / 16 a record."""
    most = cert.epsilon.ceiling / copies
    assert 4.5 < cert.epsilon.ceiling < 4.6
    policy = change(POLICY, max_epsilon_lower_bound=limit)
    for lower, outcome in ((cert.epsilon.ceiling, "breach"), (0.0, "pass")):
        epsilon = replace(cert.epsilon, lower=lower, per_record=lower / copies, copies=copies)
        found = outcome_of(decide(replace(cert, epsilon=epsilon), model, policy), "max_epsilon_lower_bound")
        assert found == (outcome if most > limit else "inconclusive")


def test_a_limit_at_the_ceiling_is_not_passed_and_more_coins_are_asked_for(cert, model):
    policy = change(POLICY, max_epsilon_lower_bound=cert.epsilon.ceiling)
    rule = rule_of(decide(cert, model, policy), "max_epsilon_lower_bound")
    assert rule.outcome is Outcome.INCONCLUSIVE
    assert rule.found.endswith(", ceiling 4.53; no leak could exceed the limit: use more coins, each with one copy")


@pytest.mark.parametrize(
    ("m", "auc", "lower", "outcome"),
    [
        (512, 0.6, 0.80, "pass"),
        (512, 0.6, 0.79, "inconclusive"),
        (1024, 0.58, 0.85, "pass"),
        (512, 0.65, 0.99, "inconclusive"),
        # What these coins cannot see, whatever the certificate says of itself.
        (32, 0.6, 0.87, "inconclusive"),
        (31, 0.6, 0.87, "inconclusive"),
        (512, 0.55, 0.87, "inconclusive"),
    ],
)
def test_power(cert, model, m, auc, lower, outcome):
    probability = Interval(max(lower, 0.9), lower, 1.0, 0.95, "clopper-pearson/two")
    changed = replace(
        cert, power=replace(cert.power, auc=auc, probability=probability), epsilon=replace(cert.epsilon, m=m)
    )
    assert outcome_of(decide(changed, model), "min_power") == outcome
    assert outcome_of(decide(replace(changed, epsilon=None), model), "min_power") == "inconclusive"


def test_the_power_of_at_most_8192_coins_is_simulated_as_the_certificate_tests_them(cert, model, monkeypatch):
    asked = []

    def simulated(*given, **named):
        asked.append((given, named))
        return cert.power.probability

    monkeypatch.setattr(sys.modules["stanch.audit.gate"], "scan_power", simulated)
    for m, splits, orders in ((8192, 12, DIRECT_ORDERS), (9000, 2, DIRECT_ORDERS[:2]), (33, 1, DIRECT_ORDERS[:1])):
        decide(replace(cert, epsilon=replace(cert.epsilon, m=m, alpha=0.01, splits=splits)), model)
        assert asked.pop() == ((min(m, 8192), 0.6), {"alpha": 0.01, "splits": splits, "orders": orders})


def test_thirty_two_coins_have_the_power_that_they_have(cert, model):
    reached = scan_power(32, 0.75, alpha=0.05, splits=12, orders=DIRECT_ORDERS).lower
    assert 0 < reached < cert.power.probability.lower
    told = replace(cert, power=replace(cert.power, auc=0.75), epsilon=replace(cert.epsilon, m=32))
    for least, outcome in ((reached, "pass"), (reached + 1e-9, "inconclusive")):
        policy = change(POLICY, detectable_auc=0.75, min_power=least)
        assert outcome_of(decide(told, model, policy), "min_power") == outcome


def test_minimum_counts(cert, model):
    assert outcome_of(decide(cert, model, change(POLICY, min_rows=3001)), "min_rows") is Outcome.INCONCLUSIVE
    assert outcome_of(decide(cert, model, change(POLICY, min_rows=3000)), "min_rows") is Outcome.PASS
    assert outcome_of(decide(cert, model, change(POLICY, min_coins=513)), "min_coins") is Outcome.INCONCLUSIVE
    assert outcome_of(decide(cert, model, change(POLICY, min_coins=512)), "min_coins") is Outcome.PASS
    untested = decide(replace(cert, extraction=None), model, change(POLICY, min_rows=1))
    assert outcome_of(untested, "min_rows") is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("p_value", "outcome"), [(0.0101, "pass"), (0.01, "inconclusive"), (1e-9, "inconclusive")])
def test_a_contradicted_claim_that_could_not_be_tested_is_inconclusive(cert, model, p_value, outcome):
    decision = decide(replace(cert, dp=replace(cert.dp, p_value=p_value)), model)
    assert outcome_of(decision, "dp_claim") == outcome
    said = "contradicted" if outcome == "inconclusive" else "not contradicted"
    told = f"epsilon 8, delta 1e-05 per record; p = {p_value:.3g}"
    assert rule_of(decision, "dp_claim").found == f"{said}: {told}"
    assert "dp_claim" not in {rule.rule for rule in decide(replace(cert, dp=None), model).rules}


def test_commitment(cert, model):
    late = replace(cert, commitment_evidence=replace(cert.commitment_evidence, entry_index=5))
    for changed in (late, replace(cert, commitment_evidence=None), replace(cert, plan_commitment="cd" * 32)):
        assert outcome_of(decide(changed, model), "require_witnessed_commitment") is Outcome.INCONCLUSIVE
        free = change(POLICY, require_witnessed_commitment=False)
        assert outcome_of(decide(changed, model, free), "require_witnessed_commitment") is Outcome.PASS


@pytest.mark.parametrize(
    ("mode", "required", "outcome"),
    [
        ("planned", "planned", "pass"),
        ("holdout", "planned", "inconclusive"),
        ("bare", "planned", "inconclusive"),
        ("planned", "any-but-bare", "pass"),
        ("holdout", "any-but-bare", "pass"),
        ("bare", "any-but-bare", "inconclusive"),
    ],
)
def test_modes(cert, model, mode, required, outcome):
    decision = decide(replace(cert, mode=mode), model, change(POLICY, require_mode=required))
    assert outcome_of(decision, "require_mode") == outcome


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [
        (0.50, 0.60, "pass"),
        (0.55, 0.61, "inconclusive"),
        (0.61, 0.70, "breach"),
        (0.60, 0.70, "inconclusive"),
        (0.40, 0.50, "pass"),
        (0.39, 0.45, "inconclusive"),
        (0.02, 0.08, "breach"),
    ],
)
def test_holdout_auc_is_judged_by_its_bounds(cert, model, lower, upper, outcome):
    bounds = Interval((lower + upper) / 2, lower, upper, 0.95, "delong")
    changed = replace(cert, mode="holdout", membership=replace(cert.membership, auc=bounds))
    decision = decide(changed, model)
    assert outcome_of(decision, "max_auc") == outcome
    assert "max_epsilon_lower_bound" not in {rule.rule for rule in decision.rules}
    untested = decide(replace(cert, mode="holdout", membership=None), model)
    assert outcome_of(untested, "max_auc") is Outcome.INCONCLUSIVE


def test_breach_beats_inconclusive_beats_pass(cert, model):
    """All combinations of three rules in their three states."""
    states = {
        "pass": (with_rows(cert, 0, 3000), 0),
        "inconclusive": (with_rows(cert, 0, 300), 0),
        "breach": (with_rows(cert, 30, 3000), 0),
    }
    for (name, (rows, _)), secrets, verdict in itertools.product(
        states.items(), (0, 1), (Verdict.NO_LEAK_DETECTED, Verdict.INCONCLUSIVE)
    ):
        changed = replace(rows, secrets=replace(rows.secrets, k_in=secrets), verdict=verdict)
        decision = decide(changed, model)
        if secrets or name == "breach":
            expected = Outcome.BREACH
        elif name == "inconclusive" or verdict is Verdict.INCONCLUSIVE:
            expected = Outcome.INCONCLUSIVE
        else:
            expected = Outcome.PASS
        assert decision.outcome is expected
        assert decision.decisive.outcome is expected


def test_inconclusive_has_its_own_exit_code_and_carries_the_decision(cert, model):
    cert = with_rows(cert, 0, 300)
    with pytest.raises(GateInconclusive, match="needs about 2,995 rows") as caught:
        gate(verified(cert, model), model, POLICY, now=NOW)
    assert caught.value.exit_code == 5
    assert caught.value.what.startswith("the gate cannot decide: max_extraction_rate: 0 of 300 rows")
    assert caught.value.why == f"policy for open-weights; certificate {cert.certificate_id}"
    assert isinstance(caught.value, Inconclusive)
    assert not isinstance(caught.value, GateFailed)
    assert caught.value.decision.outcome is Outcome.INCONCLUSIVE


def test_proven_leak_within_policy_passes_and_says_so(tables, reports, model):
    report = reports(tables(shift=1.0))
    assert report.verdict is Verdict.LEAK_PROVEN
    cert = predicate(report, ArtifactRef("model", "m", model.root), now=NOW)
    lax = change(POLICY, max_epsilon_lower_bound=4.0)
    decision = gate(verified(cert, model), model, lax, now=NOW).decision
    assert "whether that is too much" in next(rule.found for rule in decision.rules if rule.rule == "verdict")
    with pytest.raises(GateBreached, match="max_epsilon_lower_bound"):
        gate(verified(cert, model), model, change(POLICY, max_epsilon_lower_bound=0.1), now=NOW)


def test_time_without_zone_is_refused(cert, model):
    with pytest.raises(InvalidInput, match="time zone"):
        decide(cert, model, now=datetime(2026, 1, 2))  # noqa: DTZ001 - that is what must be refused


def test_certificate_of_another_model_is_a_breach(cert, model):
    other = replace(model, files=(("adapter_model.safetensors", 3, "44" * 32), model.files[1]))
    decision = decide(cert, other, audited=model)
    assert decision.outcome is Outcome.BREACH
    assert decision.model == other.root
    assert isinstance(decision.model, Digest)
    assert isinstance(cert, LeakCert)
