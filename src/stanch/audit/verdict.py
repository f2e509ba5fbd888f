"""From evidence to a verdict: a pure function, and the wording that goes with each answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import scipy

from stanch.audit.evidence import Demonstration, DemonstrationKind, Evidence, Family, FamilyName, Reason
from stanch.audit.multiplicity import holm
from stanch.terms import Verdict

DP_CLAIM_ERROR: Final = 0.01
"""Probability that a true differential-privacy claim is called false."""

CONTROL_P: Final = 0.01
"""Fisher's exact p up to which texts come out more often than controls do."""

_BREAKS_COINS: Final = frozenset(
    {
        Reason.COMMITMENT_MISMATCH,
        Reason.PREREGISTRATION_CHANGED,
        Reason.BROKEN_CANARY_PATH,
        Reason.CONTROL_FAILED,
        Reason.TOO_FEW_COINS,
    }
)
_BREAKS_HOLDOUT: Final = _BREAKS_COINS | {
    Reason.DISTRIBUTION_SHIFT,
    Reason.NO_SHIFT_GATE,
    Reason.HOLDOUT_NOT_DISJOINT,
}
_BREAKS_EXPOSURE: Final = frozenset({Reason.BROKEN_CANARY_PATH, Reason.CONTROL_FAILED})

CURES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.BROKEN_CANARY_PATH: "tune on the file with canaries, untouched: de-duplication usually drops them",
        Reason.COMMITMENT_MISMATCH: "log the plan's commitment before tuning starts and audit with that plan",
        Reason.PREREGISTRATION_CHANGED: "audit with what the plan registered; after a new attack pack, plan again",
        Reason.DISTRIBUTION_SHIFT: "use a hold-out drawn at random from the same source, or plan canaries",
        Reason.NO_SHIFT_GATE: "scores alone cannot show that members and others are alike: plan canaries by coins",
        Reason.HOLDOUT_NOT_DISJOINT: "keep near-duplicates on one side when splitting off the hold-out",
        Reason.CONTROL_FAILED: "the test also fires on secrets never tuned on: check base, tokenizer and prefix",
        Reason.UNDERPOWERED: "use more coins or more hold-out records; 512 coins see an AUC of 0.60",
        Reason.TOO_FEW_COINS: "plan at least 32 canaries; 512 is the default",
        Reason.BARE_MODE: "add a hold-out of the same source, or plan canaries before tuning",
        Reason.TOO_FEW_ROWS: "let the extraction test finish, or give it more rows",
        Reason.BORDERLINE: "one test is significant alone, not beside the others: audit with more coins",
        Reason.UNATTRIBUTED: "texts come out, nothing shows that the tuning is why: give the base, or more controls",
    }
)

MEANING: Final[Mapping[Verdict, str]] = MappingProxyType(
    {
        Verdict.LEAK_PROVEN: "the model shows what it was tuned on",
        Verdict.NO_LEAK_DETECTED: "evidence of resistance to the attacks run; this is not a privacy guarantee",
        Verdict.INCONCLUSIVE: "the audit cannot decide either way",
        Verdict.DP_CLAIM_FALSIFIED: "the accounting or the tuning code is wrong",
    }
)


@dataclass(frozen=True, slots=True)
class FamilyOutcome:
    """What became of one family: its p-value adjusted by Holm over the valid families, and whether it counts."""

    name: FamilyName
    p: float
    adjusted_p: float
    valid: bool
    significant: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with everything that led to it."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    families: tuple[FamilyOutcome, ...]
    demonstrated: tuple[DemonstrationKind, ...]


def decide(evidence: Evidence) -> Decision:
    """Return the verdict: the first rule that applies of falsified claim, proven leak, reasons, no leak.

    Error rates: a true privacy claim is called false with probability at most 1 %; without any leak a family is
    significant with probability at most ``evidence.alpha``. A demonstration has no error rate where the texts were
    unknown before: what comes out has come out. Texts that are only held against controls err with probability at most
    ``CONTROL_P``.
    """
    reasons = set(evidence.reasons)
    if evidence.mode == "bare":
        reasons.add(Reason.BARE_MODE)
    families = _judge_families(evidence)
    if any(family.adjusted_p <= evidence.alpha and not family.significant for family in families):
        # Members differ from the hold-out, but no more than their texts alone tell: shift or leak, nobody knows.
        reasons.add(Reason.DISTRIBUTION_SHIFT)
    if any(family.valid and family.p <= evidence.alpha < family.adjusted_p for family in families):
        # Power and epsilon bound are those of one test at the whole of alpha: "no leak" must not contradict them.
        reasons.add(Reason.BORDERLINE)
    demonstrated = tuple(item.kind for item in evidence.demonstrations if is_shown(item))
    if any(item.k and not is_shown(item) for item in evidence.demonstrations):
        reasons.add(Reason.UNATTRIBUTED)
    return Decision(
        verdict=_first_rule(evidence, reasons, families, demonstrated),
        reasons=tuple(reason for reason in Reason if reason in reasons),
        families=families,
        demonstrated=demonstrated,
    )


def _first_rule(
    evidence: Evidence,
    reasons: set[Reason],
    families: tuple[FamilyOutcome, ...],
    demonstrated: tuple[DemonstrationKind, ...],
) -> Verdict:
    claim_is_tested = evidence.mode == "planned" and not reasons & _BREAKS_COINS
    if evidence.dp_p_value is not None and claim_is_tested and evidence.dp_p_value <= DP_CLAIM_ERROR:
        return Verdict.DP_CLAIM_FALSIFIED
    if demonstrated or any(family.significant for family in families):
        return Verdict.LEAK_PROVEN
    # An audit that tested nothing has shown nothing, whatever else is in order.
    if reasons or not any(family.name == "membership" and family.valid for family in families):
        return Verdict.INCONCLUSIVE
    return Verdict.NO_LEAK_DETECTED


def is_shown(item: Demonstration) -> bool:
    """Return whether texts came out because of the tuning.

    One is enough where it was unknown before and no control came out; else they must come out more often than controls
    do (Fisher's exact test, one-sided).
    """
    if item.k < 1:
        return False
    if item.unknown_before and item.k_control == 0:
        return True
    table = [[item.k, item.n - item.k], [item.k_control, item.n_control - item.k_control]]
    return float(scipy.stats.fisher_exact(table, alternative="greater").pvalue) <= CONTROL_P


def _judge_families(evidence: Evidence) -> tuple[FamilyOutcome, ...]:
    valid = [family for family in evidence.families if _is_valid(family, evidence)]
    adjusted = {family.name: p for family, p in zip(valid, holm([family.p for family in valid]).tolist(), strict=True)}
    return tuple(
        FamilyOutcome(
            name=family.name,
            p=family.p,
            adjusted_p=adjusted.get(family.name, 1.0),
            valid=family.name in adjusted,
            significant=adjusted.get(family.name, 1.0) <= evidence.alpha and _beats_blind(family, evidence),
        )
        for family in evidence.families
    )


def _is_valid(family: Family, evidence: Evidence) -> bool:
    if family.name == "exposure":
        return not evidence.reasons & _BREAKS_EXPOSURE
    if evidence.mode == "bare":
        return False
    return not evidence.reasons & (_BREAKS_COINS if evidence.mode == "planned" else _BREAKS_HOLDOUT)


def _beats_blind(family: Family, evidence: Evidence) -> bool:
    """Return whether a hold-out attack tells more than the texts alone do; coins need no such comparison."""
    if family.name == "exposure" or evidence.mode == "planned":
        return True
    if evidence.attack_auc_lower is None or evidence.blind_auc_upper is None:
        return False
    return evidence.attack_auc_lower > evidence.blind_auc_upper
