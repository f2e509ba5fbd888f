"""Whether the audit's own footing holds: canaries in the tokens, fair coins, commitment, the same pre-registration."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy

from stanch.audit.evidence import Reason
from stanch.audit.features import AdapterOff, Scorer
from stanch.audit.params import AuditParams, preregister
from stanch.data import CanaryPlan, ChatTokenizer, Record, TokenRecord, check_injected
from stanch.data.shingles import folded_text, jaccard, shingles
from stanch.errors import InvalidInput
from stanch.terms import CommitmentEvidence

COIN_P: Final = 1e-6
"""Two-sided binomial p below which coins are not believed to be fair."""

MAX_BASE_DIFFERENCE: Final = 0.05
"""Largest difference of log-probabilities between a base given and the target without its adapter."""

SIMILAR: Final = 0.8
_COMPARED_ROWS = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that breaks the footing of an audit: the reason, and in one sentence what was found."""

    reason: Reason
    found: str


def check_plan(
    plan: CanaryPlan,
    trained: Sequence[TokenRecord],
    scorer: Scorer,
    params: AuditParams,
    commitment: CommitmentEvidence | None,
) -> list[Problem]:
    """Return what is wrong with a canary plan: its way into the tokens, its coins, commitment and pre-registration."""
    checks = (
        _check_path(plan, trained, scorer.tokenizer),
        _check_tokenizer(plan, scorer),
        _check_coins(plan),
        _check_commitment(plan, commitment),
        _check_preregistration(plan, params),
    )
    return [problem for problem in checks if problem is not None]


def is_formal(plan: CanaryPlan, commitment: CommitmentEvidence | None) -> bool:
    """Say whether it is proven that the coins were fixed before the tuning, so that a bound is an epsilon."""
    return plan.committed and commitment is not None and _check_commitment(plan, commitment) is None


def require_same_base(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    records: Sequence[TokenRecord],
    params: AuditParams,
    *,
    tuned_from: str | None = None,
) -> None:
    """Make sure that ``base``, or what an adapter lies on, is what the target was tuned from, as far as can be seen.

    Args:
        target: The tuned model.
        base: The model that it is compared with.
        records: Records of which the shortest are compared.
        params: The decoding.
        tuned_from: Digest (``sha256:…``) of the base model's folder, where the tuning names it.

    Raises:
        InvalidInput: The base has another digest than the tuning names, the adapter cannot be switched off, the
            tokenizers differ, or the base given differs by more than 0.05 in some token's log-probability from the
            target without its adapter (seen only of an adapter that can be switched off).
    """
    beside = "" if base is None or isinstance(base, AdapterOff) else base.identity.model
    used = target.identity.base or beside
    if tuned_from is not None and used and f"sha256:{used}" != tuned_from:
        raise _wrong_base(f"the tuning names {tuned_from}, found sha256:{used}")
    if isinstance(base, AdapterOff):
        target.require_adapter_off()
        return
    if base is None:
        return
    if base.identity.tokenizer != target.identity.tokenizer:
        raise _wrong_base("its tokenizer is another one")
    if not target.switchable:
        return
    rows = sorted(records, key=lambda r: (len(r.ids), r.id))[:_COMPARED_ROWS]
    given = {f.record_id: f.lp for f in base.features(rows, decoding=params.decoding)}
    for features in target.features(rows, adapter="off", decoding=params.decoding):
        difference = float(np.abs(features.lp - given[features.record_id]).max())
        if not difference <= MAX_BASE_DIFFERENCE:
            raise _wrong_base(f"log-probabilities differ by {difference:.3g} from the target without its adapter")


def find_overlap(members: Sequence[Record], holdout: Sequence[Record]) -> tuple[set[str], set[str]]:
    """Return ids of members and of hold-out records that say nearly the same as one of the other side (Jaccard >= 0.8).

    Compared are the shingles of :mod:`stanch.data.shingles`, exactly; records too short for one, as a whole.
    """
    posting: dict[int, list[int]] = {}
    whole: dict[bytes, list[int]] = {}
    sizes = []
    for index, record in enumerate(members):
        view = folded_text(record)
        hashes = shingles(view)
        sizes.append(hashes)
        whole.setdefault(hashlib.sha256(view).digest(), []).append(index)
        for value in hashes.tolist():
            posting.setdefault(value, []).append(index)
    inside: set[str] = set()
    outside: set[str] = set()
    for record in holdout:
        view = folded_text(record)
        hashes = shingles(view)
        shared = Counter(index for value in hashes.tolist() for index in posting.get(value, ()))
        near = {index for index in shared if jaccard(sizes[index], hashes) >= SIMILAR}
        near.update(whole.get(hashlib.sha256(view).digest(), ()))
        if near:
            outside.add(record.id)
            inside.update(members[index].id for index in near)
    return inside, outside


def _check_path(plan: CanaryPlan, trained: Sequence[TokenRecord], tokenizer: ChatTokenizer) -> Problem | None:
    try:
        check_injected(plan, trained, tokenizer)
    except InvalidInput as error:
        return Problem(Reason.BROKEN_CANARY_PATH, error.what)
    return None


def _check_tokenizer(plan: CanaryPlan, scorer: Scorer) -> Problem | None:
    if plan.tokenizer_digest in ("", scorer.identity.tokenizer):
        return None
    return Problem(Reason.BROKEN_CANARY_PATH, "the model's tokenizer is not the one the canaries were planned for")


def _check_coins(plan: CanaryPlan) -> Problem | None:
    inside, count = sum(canary.member for canary in plan.canaries), len(plan.canaries)
    p = float(scipy.stats.binomtest(inside, count).pvalue)
    if p >= COIN_P:
        return None
    return Problem(Reason.BROKEN_CANARY_PATH, f"{inside} of {count} coins say in: fair coins do not (p = {p:.1e})")


def _check_commitment(plan: CanaryPlan, commitment: CommitmentEvidence | None) -> Problem | None:
    if commitment is None:
        return None
    if commitment.commitment != plan.commitment:
        return Problem(Reason.COMMITMENT_MISMATCH, "the log committed to another plan")
    if not 0 <= commitment.entry_index < commitment.tuning_start_index:
        return Problem(Reason.COMMITMENT_MISMATCH, "the plan was committed to after the tuning had started")
    return None


def _check_preregistration(plan: CanaryPlan, params: AuditParams) -> Problem | None:
    name = preregister(params).differs_from(plan.preregistration)
    if name is None:
        return None
    return Problem(Reason.PREREGISTRATION_CHANGED, f"the audit differs from the plan's pre-registration in {name}")


def _wrong_base(why: str) -> InvalidInput:
    return InvalidInput(
        f"this is not the base model of the target: {why}",
        why="scores compare the target with the model it was tuned from",
        next_step="give the directory of the base model the target was tuned from, in the same data type",
    )
