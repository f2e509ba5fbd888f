"""The gate: may this model out? A decision from a verified certificate, the files as they are now, and a policy.

Pure: reads no file and no clock. Breach beats inconclusive beats pass; every rule is listed with what it found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from stanch.audit.cert_sections import CertExtraction
from stanch.audit.evidence import Reason
from stanch.audit.gate_policy import GatePolicy
from stanch.audit.leakcert import LEAKCERT_TYPE, ROOT_SUBJECT, SCHEMA, LeakCert, ModelDirectory, model_subjects
from stanch.audit.params import (
    ATTACK_PACK,
    BOUND_CONFIDENCE,
    DIRECT_ORDERS,
    MIN_CANDIDATES,
    MIN_COINS,
    AuditParams,
    Decoding,
)
from stanch.audit.power import scan_power
from stanch.audit.rates import clopper_pearson, either_way
from stanch.audit.sections import EpsilonBound, RowsOut
from stanch.audit.verdict import CURES, DP_CLAIM_ERROR, MEANING
from stanch.errors import GateFailed, Inconclusive, InvalidInput, VerificationError
from stanch.sign import VerifiedStatement
from stanch.terms import Digest, Verdict

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far in the future a certificate may have been issued."""

_MOST_SIMULATED = 8192


class Outcome(StrEnum):
    """What a rule, or the gate as a whole, says."""

    PASS = "pass"  # noqa: S105 - not a password
    INCONCLUSIVE = "inconclusive"
    BREACH = "breach"


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One rule of the gate: its name (the key of the policy where it has one), its outcome, and what was found."""

    rule: str
    outcome: Outcome
    found: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The decision with all its rules, in the order in which they were examined."""

    outcome: Outcome
    model: Digest
    certificate_id: str
    release_context: str
    verdict: Verdict
    rules: tuple[RuleOutcome, ...]

    @property
    def decisive(self) -> RuleOutcome:
        """The first rule with the outcome of the whole."""
        return next(rule for rule in self.rules if rule.outcome is self.outcome)


@dataclass(frozen=True, slots=True)
class GatePassed:
    """A model that may be released; only :func:`gate` makes one."""

    model: Digest
    certificate: LeakCert
    decision: GateDecision


class GateBreached(GateFailed):
    """The gate refuses the model; ``decision`` lists every rule."""

    def __init__(self, decision: GateDecision) -> None:
        rule = decision.decisive
        super().__init__(
            f"the gate refuses the model: {rule.rule}: {rule.found}",
            why=f"policy for {decision.release_context}; certificate {decision.certificate_id}",
            next_step="tune again with less leakage, or release the very files that were audited",
        )
        self.decision = decision


class GateInconclusive(Inconclusive):
    """The gate cannot decide; ``decision`` lists every rule."""

    def __init__(self, decision: GateDecision) -> None:
        rule = decision.decisive
        super().__init__(
            f"the gate cannot decide: {rule.rule}: {rule.found}",
            why=f"policy for {decision.release_context}; certificate {decision.certificate_id}",
            next_step="audit again with what the rule asks for",
        )
        self.decision = decision


def gate(cert: VerifiedStatement, model: ModelDirectory, policy: GatePolicy, *, now: datetime) -> GatePassed:
    """Let the model pass, or raise.

    Args:
        cert: The verified statement that carries the leak certificate.
        model: Digest of the directory that is to be released, computed now.
        policy: The limits.
        now: The time of the decision.

    Raises:
        VerificationError: The statement is no leak certificate, or one that does not follow from itself.
        GateBreached: A rule is broken.
        GateInconclusive: No rule is broken, but one cannot be decided.
    """
    if cert.statement.predicate_type != LEAKCERT_TYPE:
        raise VerificationError(
            f"expected a statement of type {LEAKCERT_TYPE}, found {cert.statement.predicate_type}",
            next_step="give the leak certificate of the model",
        )
    certificate = LeakCert.parse(cert.statement.predicate)
    subjects = {subject.name: subject.digest for subject in cert.statement.subjects}
    decision = decide_gate(certificate, subjects, model, policy, now=now)
    if decision.outcome is Outcome.BREACH:
        raise GateBreached(decision)
    if decision.outcome is Outcome.INCONCLUSIVE:
        raise GateInconclusive(decision)
    return GatePassed(model.root, certificate, decision)


def decide_gate(
    cert: LeakCert, subjects: Mapping[str, Digest], model: ModelDirectory, policy: GatePolicy, *, now: datetime
) -> GateDecision:
    """Return the decision with all its rules; :func:`gate` is what callers use.

    Args:
        cert: The certificate, parsed.
        subjects: What its statement is about, by name.
        model: The directory that is to be released.
        policy: The limits.
        now: The time of the decision; must know its time zone.
    """
    if now.tzinfo is None:
        raise InvalidInput("gate: expected a time with a time zone")
    rules = (
        _files(subjects, model),
        _validity(cert, policy, now),
        _attack_pack(cert, policy),
        _verdict(cert),
        *_privacy_claim(cert),
        _mode(cert, policy),
        _commitment(cert, policy),
        *_rows(cert, policy),
        *(_planned_rules(cert, policy) if cert.mode == "planned" else ()),
        *(_holdout_rules(cert, policy) if cert.mode == "holdout" else ()),
    )
    found = {rule.outcome for rule in rules}
    worst = next(outcome for outcome in (Outcome.BREACH, Outcome.INCONCLUSIVE, Outcome.PASS) if outcome in found)
    return GateDecision(worst, model.root, cert.certificate_id, policy.release_context, cert.verdict, rules)


def _files(subjects: Mapping[str, Digest], model: ModelDirectory) -> RuleOutcome:
    """Compare every file; a merged, quantised or converted model has other files and needs its own audit."""
    present = {subject.name: subject.digest for subject in model_subjects(model)}
    for name in sorted({*subjects, *present} - {ROOT_SUBJECT}):
        if name not in present:
            return RuleOutcome("model_digest", Outcome.BREACH, f"{name} was audited and is missing")
        if name not in subjects:
            return RuleOutcome("model_digest", Outcome.BREACH, f"{name} is there and was not audited")
        if subjects[name] != present[name]:
            return RuleOutcome("model_digest", Outcome.BREACH, f"{name} is another file than the audited one")
    if subjects.get(ROOT_SUBJECT) != model.root:
        return RuleOutcome("model_digest", Outcome.BREACH, "the root digest is not the audited one")
    return RuleOutcome("model_digest", Outcome.PASS, f"{len(model.files)} files as audited")


def _validity(cert: LeakCert, policy: GatePolicy, now: datetime) -> RuleOutcome:
    name = "certificate_validity"
    if cert.issued_at > now + CLOCK_SKEW:
        return RuleOutcome(name, Outcome.BREACH, f"issued in the future, at {cert.issued}")
    if now >= cert.expires_at:
        return RuleOutcome(name, Outcome.BREACH, f"expired at {cert.expires}")
    if cert.release_context not in (None, policy.release_context):
        return RuleOutcome(name, Outcome.BREACH, f"issued for the release context {cert.release_context}")
    return RuleOutcome(name, Outcome.PASS, f"valid until {cert.expires}")


def _attack_pack(cert: LeakCert, policy: GatePolicy) -> RuleOutcome:
    behind = ATTACK_PACK - cert.attack_pack
    is_accepted = behind <= policy.allow_older_attack_pack
    return RuleOutcome(
        "attack_pack",
        Outcome.PASS if is_accepted else Outcome.BREACH,
        f"made with attack pack {cert.attack_pack}, installed is {ATTACK_PACK}",
    )


def _verdict(cert: LeakCert) -> RuleOutcome:
    found = f"{cert.verdict}: {MEANING[cert.verdict]}"
    match cert.verdict:
        case Verdict.DP_CLAIM_FALSIFIED:
            return RuleOutcome("verdict", Outcome.BREACH, found)
        case Verdict.INCONCLUSIVE:
            cures = _cures(cert.reasons)
            return RuleOutcome("verdict", Outcome.INCONCLUSIVE, f"{found} ({cures})" if cures else found)
        case Verdict.LEAK_PROVEN:
            # What was wrong with the audit may have hidden more: a proven leak makes up for none of it.
            wrong = [reason for reason in cert.reasons if reason is not Reason.BORDERLINE]
            if wrong:
                return RuleOutcome("verdict", Outcome.INCONCLUSIVE, f"{found} ({_cures(wrong)})")
            return RuleOutcome("verdict", Outcome.PASS, f"{found}; whether that is too much, the other rules say")
        case Verdict.NO_LEAK_DETECTED:
            return RuleOutcome("verdict", Outcome.PASS, found)


def _cures(reasons: Sequence[Reason]) -> str:
    return "; ".join(f"{reason}: {CURES[reason]}" for reason in reasons)


def _privacy_claim(cert: LeakCert) -> tuple[RuleOutcome, ...]:
    if cert.dp is None:
        return ()
    claim = f"epsilon {cert.dp.epsilon:g}, delta {cert.dp.delta:g} per {cert.dp.unit}; p = {cert.dp.p_value:.3g}"
    if cert.dp.p_value > DP_CLAIM_ERROR:
        return (RuleOutcome("dp_claim", Outcome.PASS, f"not contradicted: {claim}"),)
    is_falsified = cert.verdict is Verdict.DP_CLAIM_FALSIFIED
    return (
        RuleOutcome("dp_claim", Outcome.BREACH if is_falsified else Outcome.INCONCLUSIVE, f"contradicted: {claim}"),
    )


def _mode(cert: LeakCert, policy: GatePolicy) -> RuleOutcome:
    is_enough = cert.mode == "planned" or (cert.mode == "holdout" and policy.require_mode == "any-but-bare")
    found = f"the audit was {cert.mode}, required is {policy.require_mode}"
    return RuleOutcome("require_mode", Outcome.PASS if is_enough else Outcome.INCONCLUSIVE, found)


def _commitment(cert: LeakCert, policy: GatePolicy) -> RuleOutcome:
    if cert.has_proven_commitment:
        found, outcome = "the canary plan was logged before the tuning started", Outcome.PASS
    else:
        found = "there is no proof that a canary plan was logged before the tuning started"
        outcome = Outcome.INCONCLUSIVE if policy.require_witnessed_commitment else Outcome.PASS
    return RuleOutcome("require_witnessed_commitment", outcome, found)


def _rows(cert: LeakCert, policy: GatePolicy) -> tuple[RuleOutcome, ...]:
    rows = cert.extraction
    tested = rows.n if rows is not None else 0
    enough = RuleOutcome(
        "min_rows",
        Outcome.PASS if tested >= policy.min_rows else Outcome.INCONCLUSIVE,
        f"{tested:,} rows tested, required are {policy.min_rows:,}",
    )
    if rows is None:
        none = RuleOutcome("max_extraction_rate", Outcome.INCONCLUSIVE, "no rows were tested for extraction")
        return enough, none, _repeated(cert)
    near = () if cert.near_verbatim is None else (_rate("near_verbatim", cert.near_verbatim, policy),)
    return enough, _effort(rows), _rate("max_extraction_rate", rows.as_rows(), policy), *near, _repeated(cert)


def _effort(rows: CertExtraction) -> RuleOutcome:
    """Hold the attacker that rows and secrets were tested against to the one of the attack pack."""
    pack = AuditParams()
    is_enough = (
        rows.n_budget >= pack.sample_budget and rows.p <= pack.sample_probability and rows.decoding == pack.decoding
    )
    found = f"{rows.n_budget:,} samples by {_describe(rows.decoding)}, with probability {rows.p:g}"
    required = f"{pack.sample_budget:,} by {_describe(pack.decoding)}, with {pack.sample_probability:g}"
    outcome = Outcome.PASS if is_enough else Outcome.INCONCLUSIVE
    return RuleOutcome("attack_effort", outcome, f"{found}; required are {required}")


def _describe(decoding: Decoding) -> str:
    return f"top {decoding.top_k} at temperature {decoding.temperature:g}"


def _rate(rule: str, rows: RowsOut, policy: GatePolicy) -> RuleOutcome:
    """Hold a rate of rows by its bounds against the limit.

    Without base and controls nothing can be attributed: then all that comes out must stay below the limit.
    """
    limit, is_attributed = policy.max_extraction_rate, rows.base is not None or rows.control_n > 0
    k = rows.attributable if is_attributed else rows.k
    lower = clopper_pearson(k, rows.n, confidence=BOUND_CONFIDENCE, side="lower").lower
    upper = clopper_pearson(k, rows.n, confidence=BOUND_CONFIDENCE, side="upper").upper
    found = f"{k} of {rows.n:,} rows, upper bound {upper:.4%}, limit {limit:.4%}"
    if upper <= limit:
        return RuleOutcome(rule, Outcome.PASS, found)
    if not is_attributed and k:
        return RuleOutcome(rule, Outcome.INCONCLUSIVE, f"{found}; nothing shows why they come out: give the base model")
    if lower > limit:
        return RuleOutcome(rule, Outcome.BREACH, found)
    return RuleOutcome(rule, Outcome.INCONCLUSIVE, f"{found}; {_rows_needed(limit)}")


def _repeated(cert: LeakCert) -> RuleOutcome:
    """Rows that stand in the data set several times are tested apart from the rate, and none of them may come out."""
    tiers = [tier for tier in cert.repeated if tier.is_repeated]
    asked = cert.extraction is not None and (cert.extraction.base is not None or cert.extraction.control_n > 0)
    out = sum(tier.attributable if asked else tier.k for tier in tiers)
    found = f"{out} of {sum(tier.n for tier in tiers):,} rows that stand in the data set several times come out"
    return RuleOutcome("repeated_rows", Outcome.INCONCLUSIVE if out else Outcome.PASS, found)


def _rows_needed(limit: float) -> str:
    """Say how many rows without a hit put the upper bound at the limit."""
    if limit <= 0:
        return "no number of rows shows a rate of zero"
    return f"needs about {math.ceil(math.log(1 - BOUND_CONFIDENCE) / math.log1p(-limit)):,} rows"


def _planned_rules(cert: LeakCert, policy: GatePolicy) -> tuple[RuleOutcome, ...]:
    return (*_secrets(cert, policy), *_epsilon(cert, policy), _power(cert, policy))


def _secrets(cert: LeakCert, policy: GatePolicy) -> tuple[RuleOutcome, RuleOutcome]:
    if cert.secrets is None:
        none = RuleOutcome("max_extractable_secrets", Outcome.INCONCLUSIVE, "no secrets were tested")
        return none, RuleOutcome("min_secrets", Outcome.INCONCLUSIVE, "no secrets were tested")
    is_within = cert.secrets.k_in <= policy.max_extractable_secrets
    found = f"{cert.secrets.k_in} of {cert.secrets.n_in} secrets, limit {policy.max_extractable_secrets}"
    rate = RuleOutcome("max_extractable_secrets", Outcome.PASS if is_within else Outcome.BREACH, found)
    return rate, _secrets_tested(cert, cert.secrets.n_in, policy.min_secrets)


def _secrets_tested(cert: LeakCert, tested: int, least: int) -> RuleOutcome:
    """Hold the number of secrets, drawn out and ranked, to the limit, and the candidates of a rank to the least.

    Certificates before version 3 do not say how many candidates there were.
    """
    found, is_enough = f"{tested:,} secrets tested", tested >= least
    if cert.schema == SCHEMA:
        ranked, among = (0, 0) if cert.exposure is None else (cert.exposure.ranked, cert.exposure.candidates or 0)
        found += f", {ranked:,} ranked among {among:,} (at least {MIN_CANDIDATES})"
        is_enough = is_enough and ranked >= least and among >= MIN_CANDIDATES
    outcome = Outcome.PASS if is_enough else Outcome.INCONCLUSIVE
    return RuleOutcome("min_secrets", outcome, f"{found}, required are {least:,}")


def _epsilon(cert: LeakCert, policy: GatePolicy) -> tuple[RuleOutcome, RuleOutcome]:
    if cert.epsilon is None:
        none = RuleOutcome("max_epsilon_lower_bound", Outcome.INCONCLUSIVE, "no coins were tested")
        return none, RuleOutcome("min_coins", Outcome.INCONCLUSIVE, "no coins were tested")
    bound = _bound(cert.epsilon, policy.max_epsilon_lower_bound)
    coins = RuleOutcome(
        "min_coins",
        Outcome.PASS if cert.epsilon.m >= policy.min_coins else Outcome.INCONCLUSIVE,
        f"{cert.epsilon.m:,} coins, required are {policy.min_coins:,}",
    )
    return bound, coins


def _bound(epsilon: EpsilonBound, limit: float) -> RuleOutcome:
    """A lower bound has no upper bound: above the limit is a breach, below it a pass if the power rule holds.

    Where even the clearest leak would have stayed within the limit, nothing was asked.
    """
    most = epsilon.ceiling / epsilon.copies
    found = f"epsilon >= {epsilon.per_record:.2f} per record, limit {limit:g}, ceiling {most:.2f}"
    if epsilon.per_record > limit:
        return RuleOutcome("max_epsilon_lower_bound", Outcome.BREACH, found)
    if most <= limit:
        few = "no leak could exceed the limit: use more coins, each with one copy"
        return RuleOutcome("max_epsilon_lower_bound", Outcome.INCONCLUSIVE, f"{found}; {few}")
    return RuleOutcome("max_epsilon_lower_bound", Outcome.PASS, found)


def _power(cert: LeakCert, policy: GatePolicy) -> RuleOutcome:
    required = f"required is {policy.min_power:.2f} at AUC {policy.detectable_auc:.2f}"
    if cert.power is None:
        return RuleOutcome("min_power", Outcome.INCONCLUSIVE, f"no power was computed, {required}")
    # Power grows with the strength of the attack, so power at a weaker one is enough.
    most = min(cert.power.probability.lower, _reachable_power(cert.epsilon, cert.power.auc))
    is_enough = cert.power.auc <= policy.detectable_auc and most >= policy.min_power
    found = f"power at least {most:.2f} at AUC {cert.power.auc:.2f}, {required}"
    return RuleOutcome("min_power", Outcome.PASS if is_enough else Outcome.INCONCLUSIVE, found)


def _reachable_power(epsilon: EpsilonBound | None, auc: float) -> float:
    """Return the power that follows from coins, alpha and splits of the certificate itself, whatever it states."""
    if epsilon is None or epsilon.m < MIN_COINS:
        return 0.0
    # More coins only see more, and simulating them takes long.
    coins, orders = min(epsilon.m, _MOST_SIMULATED), DIRECT_ORDERS[: epsilon.splits]
    return scan_power(coins, auc, alpha=epsilon.alpha, splits=epsilon.splits, orders=orders).lower


def _holdout_rules(cert: LeakCert, policy: GatePolicy) -> tuple[RuleOutcome, ...]:
    if cert.membership is None:
        return (RuleOutcome("max_auc", Outcome.INCONCLUSIVE, "membership was not tested"),)
    bounds = either_way(cert.membership.auc)  # members that score lower are told apart as well
    found = f"AUC {bounds.estimate:.3f} [{bounds.lower:.3f}, {bounds.upper:.3f}], limit {policy.max_auc:.3f}"
    if bounds.upper <= policy.max_auc:
        return (RuleOutcome("max_auc", Outcome.PASS, found),)
    if bounds.lower > policy.max_auc:
        return (RuleOutcome("max_auc", Outcome.BREACH, found),)
    # The half-width shrinks with the square root of the number of records.
    return (RuleOutcome("max_auc", Outcome.INCONCLUSIVE, f"{found}; needs more hold-out records"),)
