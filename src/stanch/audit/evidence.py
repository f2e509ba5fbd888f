"""The evidence items that a verdict is made of, and the named reasons that make an audit inconclusive."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from stanch.audit.params import DEFAULT_ALPHA, Mode

FamilyName = Literal["membership", "exposure"]
DemonstrationKind = Literal["rows", "near_verbatim", "repeated", "secrets"]


class Reason(StrEnum):
    """Why an audit cannot decide; :data:`stanch.audit.verdict.CURES` says what helps."""

    BROKEN_CANARY_PATH = "broken_canary_path"
    COMMITMENT_MISMATCH = "commitment_mismatch"
    PREREGISTRATION_CHANGED = "preregistration_changed"
    DISTRIBUTION_SHIFT = "distribution_shift"
    NO_SHIFT_GATE = "no_shift_gate"
    HOLDOUT_NOT_DISJOINT = "holdout_not_disjoint"
    CONTROL_FAILED = "control_failed"
    UNDERPOWERED = "underpowered"
    TOO_FEW_COINS = "too_few_coins"
    BARE_MODE = "bare_mode"
    TOO_FEW_ROWS = "too_few_rows"
    BORDERLINE = "borderline"
    UNATTRIBUTED = "unattributed"


@dataclass(frozen=True, slots=True)
class Family:
    """A statistical test of one kind of leak: its p-value against "nothing leaks".

    Attributes:
        name: Which family.
        p: p-value of the whole family (adjusted within it).
        formal: Whether the p-value rests on coins or on uniform secrets, and not on comparable hold-out records.
    """

    name: FamilyName
    p: float
    formal: bool


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Texts that came out: ``k`` of ``n`` that were tuned on, against ``k_control`` of ``n_control`` that were not.

    Attributes:
        kind: Rows of the training set, word for word or nearly, those that stand there several times, or secrets that
            were planted in it.
        k: How many came out; where the base was asked too, without those that it knows.
        n: Of how many.
        k_control: How many came out that were not tuned on.
        n_control: Of how many.
        unknown_before: Whether one such text shows the tuning by itself: a random secret, or a row that the base does
            not know.
    """

    kind: DemonstrationKind
    k: int
    n: int
    k_control: int
    n_control: int
    unknown_before: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a verdict depends on.

    Attributes:
        mode: Where the evidence comes from.
        families: The statistical tests that were run.
        demonstrations: The extraction tests that were run.
        reasons: What was found wrong with the audit itself.
        dp_p_value: p-value against a differential-privacy claim; None if there is none or it cannot be compared.
        attack_auc_lower: Lower confidence bound of the attack's AUC (hold-out mode).
        blind_auc_upper: Largest upper confidence bound of a test that never saw the model (hold-out mode).
        alpha: Probability that any family is called significant although nothing leaks; registered before the tuning.
    """

    mode: Mode
    families: tuple[Family, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    reasons: frozenset[Reason] = frozenset()
    dp_p_value: float | None = None
    attack_auc_lower: float | None = None
    blind_auc_upper: float | None = None
    alpha: float = DEFAULT_ALPHA
