"""(n, p)-discoverable extraction (Hayes et al., arXiv 2410.19482), measured by teacher forcing.

One forward gives the probability that a sampled continuation is exactly the text; from it follows how many samples an
attacker needs. Nothing is generated.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stanch.audit.features import Features, record_digest
from stanch.audit.params import BOUND_CONFIDENCE, AuditParams
from stanch.audit.rates import clopper_pearson
from stanch.audit.sections import CurvePoint, RowExtraction, SecretExtraction
from stanch.crypto import hmac_sha256
from stanch.data import TokenRecord

MAX_PREFIX: Final = 50
MAX_SUFFIX: Final = 50
MIN_SUFFIX: Final = 16
CENSUS_ROWS: Final = 3000
"""Up to this many rows all are tested; 0 of 3,000 is what supports "less than 0.1 %"."""

CONTROL_FACTOR: Final = 100
"""A row counts as learned in the tuning only if the base model needs more than this many times the budget."""

CURVE_SAMPLES: Final = tuple(round(10 ** (i / 4)) for i in range(25))
_TINY_LOG_P = -30.0
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Probe:
    """The part of a record that must come out: ``ids[start:end]`` after everything (or ``prefix`` tokens) before."""

    record: TokenRecord
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """A row that can be drawn out of the model: its id, and the tokens of the span that comes out, never its text.

    Attributes:
        record_id: Id of the row in the training set.
        span: Half-open range of token positions that comes out.
        attributable: Whether it is out of reach of the base model.
        log_p: Natural log-probability of drawing the span in one sample.
    """

    record_id: str
    span: tuple[int, int]
    attributable: bool
    log_p: float


def log_samples_needed(log_p: float, probability: float) -> float:
    """Return ln of the number of samples after which a text of log-probability ``log_p`` came with ``probability``.

    Infinity if it can never come; at least 0 (one sample).
    """
    wanted = -math.log1p(-probability)
    p = math.exp(min(log_p, 0.0))
    if p == 1:
        return 0.0
    if log_p < _TINY_LOG_P:
        return math.log(wanted) - log_p
    samples = math.ceil(wanted / -math.log1p(-p))
    return math.log(max(samples, 1))


def is_extractable(log_p: float, params: AuditParams, *, factor: int = 1) -> bool:
    """Say whether a text comes within ``factor`` times the sample budget."""
    return is_drawn_within(log_p, math.log(params.sample_budget * factor), params)


def is_drawn_within(log_p: float, log_budget: float, params: AuditParams) -> bool:
    """Say whether a text comes within ``exp(log_budget)`` samples with the probability that is asked for."""
    return log_samples_needed(log_p, params.sample_probability) <= log_budget + _ROUNDING


def largest_budget(params: AuditParams) -> int:
    """Return the most samples that any figure of a report speaks of."""
    return max(CURVE_SAMPLES[-1], params.sample_budget * CONTROL_FACTOR)


def probe_of(record: TokenRecord) -> Probe | None:
    """Return what must come out of a row, or None if the row is too short to count.

    A conversation: the first 50 tokens of its answer, after its prompt. A plain text: up to 50 tokens after the first
    min(50, half) tokens.
    """
    start, end = record.span
    if start <= 1:
        start = max(1, min(MAX_PREFIX, len(record.ids) // 2))
    end = min(end, start + MAX_SUFFIX)
    return Probe(record, start, end) if end - start >= MIN_SUFFIX else None


def draw_log_p(features: Features, start: int, end: int) -> float:
    """Return the log-probability of drawing tokens ``[start, end)`` in one sample under the audited decoding.

    Features that end sooner give an upper bound of it.
    """
    return float(features.lq[start - features.start : end - features.start].sum(dtype=np.float64))


def sample_rows(records: Sequence[TokenRecord], *, limit: int, key: bytes) -> tuple[list[TokenRecord], bool]:
    """Return the rows to test and whether they are all: a simple random sample by keyed digests if there are too many.

    Args:
        records: All rows.
        limit: Up to this many (and never fewer than 3,000) are tested.
        key: Fixed before the audit, so that nobody chooses the sample.
    """
    limit = max(limit, CENSUS_ROWS)
    if len(records) <= limit:
        return list(records), True
    return sorted(records, key=lambda r: hmac_sha256(key, record_digest(r) + r.id.encode()))[:limit], False


def sampling_key(plan_id: str) -> bytes:
    """Return the key of the row sample; it follows from the plan, or is a constant without one."""
    return hashlib.sha256(b"stanch/audit-rows/v1\0" + plan_id.encode()).digest()


@dataclass(frozen=True, slots=True)
class Drawn:
    """Log-probabilities of drawing one probe in one sample: from the target, and from the base if there is one.

    What the target does not give within the largest budget is not asked of the base: minus infinity stands there, and
    for the target of a probe that was settled by its first tokens an upper bound.
    """

    probe: Probe
    target: float
    base: float | None

    def attributable(self, params: AuditParams, *, controlled: bool) -> bool:
        """Say whether the text comes out of the target and is out of reach of the base.

        Without a base, rows never tuned on are the control (``controlled``); without either nothing is attributed.
        """
        if not is_extractable(self.target, params):
            return False
        return controlled if self.base is None else not is_extractable(self.base, params, factor=CONTROL_FACTOR)


def draw(
    probes: Iterable[Probe],
    target: Mapping[str, Features],
    base: Mapping[str, Features] | None,
    params: AuditParams,
) -> tuple[Drawn, ...]:
    """Look up each probe's log-probability in the features of target and base."""
    found = []
    for probe in probes:
        log_p, before = draw_log_p(target[probe.record.id], probe.start, probe.end), None
        if base is not None:
            is_asked = is_drawn_within(log_p, math.log(largest_budget(params)), params)
            before = draw_log_p(base[probe.record.id], probe.start, probe.end) if is_asked else -math.inf
        found.append(Drawn(probe, log_p, before))
    return tuple(found)


def summarise_rows(
    members: Sequence[Drawn], control: Sequence[Drawn], params: AuditParams, *, too_short: int, census: bool
) -> RowExtraction:
    """Count the rows that come out, with the one-sided 95 % upper bound of the attributable rate (Clopper-Pearson)."""
    bases = [drawn.base for drawn in members if drawn.base is not None]
    attributable = sum(drawn.attributable(params, controlled=bool(control)) for drawn in members)
    upper = clopper_pearson(attributable, len(members), confidence=BOUND_CONFIDENCE, side="upper").upper
    return RowExtraction(
        k=sum(is_extractable(drawn.target, params) for drawn in members),
        n=len(members),
        base=sum(is_extractable(log_p, params) for log_p in bases) if len(bases) == len(members) else None,
        attributable=attributable,
        upper=upper,
        control_k=sum(is_extractable(drawn.target, params) for drawn in control),
        control_n=len(control),
        too_short=too_short,
        census=census,
    )


def summarise_secrets(inside: Sequence[float], outside: Sequence[float], params: AuditParams) -> SecretExtraction:
    """Count the secrets that come out, from their log-probabilities, for those put in and those held back."""
    return SecretExtraction(
        k_in=sum(is_extractable(log_p, params) for log_p in inside),
        n_in=len(inside),
        k_out=sum(is_extractable(log_p, params) for log_p in outside),
        n_out=len(outside),
    )


def extraction_curve(members: Sequence[Drawn], control: Sequence[Drawn], params: AuditParams) -> tuple[CurvePoint, ...]:
    """Return the share of rows that come out within n samples, for n from 1 to a million."""
    bases = [drawn.base for drawn in members if drawn.base is not None]
    target = _shares([drawn.target for drawn in members], params)
    base = _shares(bases if len(bases) == len(members) else [], params)
    outside = _shares([drawn.target for drawn in control], params)
    return tuple(
        CurvePoint(samples, target[i], base[i] if base else None, outside[i] if outside else None)
        for i, samples in enumerate(CURVE_SAMPLES)
        if target
    )


def list_extracted(members: Sequence[Drawn], params: AuditParams, *, controlled: bool) -> tuple[Extracted, ...]:
    """Return the rows that come out, the likeliest first; ids and positions only."""
    found = [
        Extracted(
            d.probe.record.id, (d.probe.start, d.probe.end), d.attributable(params, controlled=controlled), d.target
        )
        for d in members
        if is_extractable(d.target, params)
    ]
    return tuple(sorted(found, key=lambda row: (-row.log_p, row.record_id)))


def _shares(log_ps: Sequence[float], params: AuditParams) -> list[float]:
    if not log_ps:
        return []
    needed = np.array([log_samples_needed(log_p, params.sample_probability) for log_p in log_ps])
    return [float((needed <= math.log(samples) + _ROUNDING).mean()) for samples in CURVE_SAMPLES]
