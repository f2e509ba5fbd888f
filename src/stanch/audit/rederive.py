"""What a verifier computes again from the figures of a report or certificate; each check names the field that fails."""

from typing import NoReturn

from stanch.audit.evidence import Evidence, Reason
from stanch.audit.params import BOUND_CONFIDENCE, MIN_ALPHA
from stanch.audit.rates import clopper_pearson
from stanch.audit.scan_test import epsilon_ceiling
from stanch.audit.sections import EpsilonBound, Power, RowsOut, SecretExtraction
from stanch.audit.verdict import decide
from stanch.errors import InvalidInput, VerificationError
from stanch.terms import Interval, Verdict

TOLERANCE = 1e-9
"""Largest difference between a stated and a re-computed figure, absolute below 1 and relative above."""


def refuse(field: str, expected: object, found: object) -> NoReturn:
    """Say that a field does not follow from the others."""
    raise VerificationError(
        f"field {field}: expected {expected}, found {found}",
        why="the figure does not follow from the other figures of the same document",
        next_step="do not use it; ask whoever made it for a new audit",
    )


def require_equal(field: str, expected: float, found: float) -> None:
    """Refuse a figure that differs from what was computed again."""
    if not abs(expected - found) <= TOLERANCE * max(1.0, abs(expected)):
        refuse(field, f"{expected:.12g}", f"{found:.12g}")


def require_upper_bound(field: str, k: int, n: int, upper: float) -> None:
    """Refuse counts that are no counts, and a bound that is not the one-sided 95 % Clopper-Pearson bound of them."""
    require_count(f"{field}.k", k, n)
    require_equal(f"{field}.upper", clopper_pearson(k, n, confidence=BOUND_CONFIDENCE, side="upper").upper, upper)


def require_rows_out(field: str, rows: RowsOut) -> None:
    """Refuse counts of rows that come out that are no counts, and a bound that does not follow."""
    require_count(f"{field}.k", rows.k, rows.n)
    require_count(f"{field}.attributable", rows.attributable, rows.k)
    require_upper_bound(field, rows.attributable, rows.n, rows.upper)
    require_count(f"{field}.control_k", rows.control_k, rows.control_n)


def require_count(field: str, k: int, n: int) -> None:
    """Refuse ``k`` of ``n`` unless 0 <= k <= n."""
    if not 0 <= k <= n:
        refuse(field, f"a count between 0 and {n}", k)


def require_ordered(field: str, interval: Interval) -> None:
    """Refuse an interval of a rate that does not hold its own estimate, or leaves [0, 1]."""
    if not 0 <= interval.lower <= interval.estimate <= interval.upper <= 1 or not 0 < interval.confidence < 1:
        refuse(
            field, "0 <= lower <= estimate <= upper <= 1", f"{interval.lower}, {interval.estimate}, {interval.upper}"
        )


def require_p_value(field: str, value: float | None) -> None:
    """Refuse a p-value outside [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        refuse(field, "a number between 0 and 1", value)


def require_epsilon(epsilon: EpsilonBound) -> None:
    """Refuse an epsilon bound above its ceiling, with another ceiling, or another share for one record."""
    if epsilon.copies < 1 or epsilon.splits < 1 or not MIN_ALPHA <= epsilon.alpha < 1 or epsilon.m < 1:
        refuse("epsilon", f"copies, splits and m of at least 1 and alpha in [{MIN_ALPHA}, 1)", "others")
    require_equal("epsilon.ceiling", epsilon_ceiling(epsilon.m, epsilon.alpha / epsilon.splits), epsilon.ceiling)
    if not 0 <= epsilon.lower <= max(epsilon.ceiling, 0.0):
        refuse("epsilon.lower", f"a number between 0 and the ceiling {epsilon.ceiling:.6g}", epsilon.lower)
    require_equal("epsilon.per_record", epsilon.lower / epsilon.copies, epsilon.per_record)


def require_power(power: Power | None, reasons: tuple[Reason, ...]) -> None:
    """Refuse a document that lacks the power it requires of itself and does not say so."""
    if power is None:
        return
    require_ordered("power.probability", power.probability)
    if not 0.5 < power.auc < 1 or not 0 < power.required < 1:
        refuse("power", "an AUC in (0.5, 1) and a required power in (0, 1)", f"{power.auc}, {power.required}")
    if power.probability.lower < power.required and Reason.UNDERPOWERED not in reasons:
        refuse("reasons", f"{Reason.UNDERPOWERED} since the power is below {power.required}", "no such reason")


def require_secrets(secrets: SecretExtraction | None) -> None:
    """Refuse counts of secrets that are no counts."""
    if secrets is not None:
        require_count("secrets.k_in", secrets.k_in, secrets.n_in)
        require_count("secrets.k_out", secrets.k_out, secrets.n_out)


def require_verdict(evidence: Evidence, verdict: Verdict, reasons: tuple[Reason, ...]) -> None:
    """Refuse a verdict, or an order of reasons, that does not follow from the evidence."""
    try:
        decision = decide(evidence)
    except (InvalidInput, ValueError) as error:
        raise VerificationError("field verdict: does not follow from unusable evidence", why=str(error)) from error
    if decision.verdict is not verdict:
        refuse("verdict", decision.verdict, verdict)
    if decision.reasons != reasons:
        refuse("reasons", ", ".join(decision.reasons) or "none", ", ".join(reasons) or "none")
