"""The report ``leakreport/v2``: every figure of an audit, as frozen types that go to canonical JSON and back.

No part of it holds a row, a secret or a path: rows and secrets appear as keyed ids, texts never.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from stanch.audit.codec import from_json, to_json
from stanch.audit.evidence import Demonstration, DemonstrationKind, Evidence, Family, Reason
from stanch.audit.params import DEFAULT_ALPHA, Mode, PreRegistration
from stanch.audit.rates import either_way
from stanch.audit.sections import (
    Coverage,
    DpCheck,
    EpsilonBound,
    Exposure,
    Extraction,
    FeaturePass,
    Membership,
    ModelSummary,
    PlanSummary,
    Power,
    Reconstruction,
    RepeatedTier,
    RowsOut,
    ScanRow,
    ScoreResult,
    SecretExtraction,
    Shift,
    Tool,
)
from stanch.audit.verdict import decide
from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.terms import Digest, JsonValue, Verdict

SCHEMA: Final = "leakreport/v2"
FIRST_SCHEMA: Final = "leakreport/v1"
_LATER_REGISTERED = ("exposure_secrets", "exposure_candidates")
"""What version 1 did not register."""
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of one audit (``leakreport/v2``; version 1 is still read).

    Build it without a verdict and pass it to :func:`conclude`; until then it says INCONCLUSIVE. A report without
    ``model`` is of :func:`stanch.audit.audit_scores`. ``tie_seed`` is decimal text: JSON numbers hold no 64 bits.
    """

    schema: str = SCHEMA
    attack_pack: int
    created: str
    tool: Tool
    mode: Mode
    model: ModelSummary | None = None
    adapter: str | None = None
    base: str | None = None
    tokenizer_digest: str | None = None
    dataset_digest: str | None = None
    plan: PlanSummary | None = None
    preregistration: PreRegistration | None = None
    self_declared_coins: bool = False
    tie_seed: str = "0"
    features: FeaturePass | None = None
    scores: tuple[ScoreResult, ...] = ()
    scan: tuple[ScanRow, ...] = ()
    membership: Membership | None = None
    epsilon: EpsilonBound | None = None
    power: Power | None = None
    dp: DpCheck | None = None
    exposure: Exposure | None = None
    extraction: Extraction | None = None
    reconstruction: tuple[Reconstruction, ...] = ()
    shift: Shift | None = None
    coverage: tuple[Coverage, ...] = ()
    verdict: Verdict = Verdict.INCONCLUSIVE
    reasons: tuple[Reason, ...] = ()
    limits: tuple[str, ...] = ()
    scores_digest: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as a JSON object."""
        fields = to_json(self)
        if self.schema == FIRST_SCHEMA and isinstance(registered := fields["preregistration"], dict):
            for name in _LATER_REGISTERED:
                del registered[name]
        return fields

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the report."""
        return canonical_json(self.to_json())

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return Digest.sha256(self.to_bytes())

    @classmethod
    def parse(cls, data: bytes, *, what: str = "report") -> Self:
        """Read a report strictly: schema, types, no unknown field, canonical bytes.

        Raises:
            InvalidInput: It is not such a report; the field is named.
        """
        value = parse_json(data, what=what, max_bytes=_MAX_BYTES)
        if not isinstance(value, dict) or value.get("schema") not in (FIRST_SCHEMA, SCHEMA):
            raise InvalidInput(f"{what}: expected a report of schema {SCHEMA}")
        if canonical_json(value) != data:
            raise InvalidInput(f"{what}: expected canonical JSON (RFC 8785)", why="other spacing or order of keys")
        registered = value.get("preregistration")
        if value["schema"] == FIRST_SCHEMA and isinstance(registered, dict):
            if unknown := next((name for name in _LATER_REGISTERED if name in registered), None):
                raise InvalidInput(f"{what}: field preregistration.{unknown} is unknown in {FIRST_SCHEMA}")
            value = {**value, "preregistration": {**registered, **dict.fromkeys(_LATER_REGISTERED)}}
        return from_json(cls, value, what=what)


def evidence_of(report: Report) -> Evidence:
    """Return the evidence items that a report's figures stand for."""
    headline = headline_of(report)
    extraction = report.extraction
    return Evidence(
        mode=report.mode,
        families=families_of(
            report.mode,
            membership_p=report.membership.p if report.membership is not None else None,
            exposure_p=report.exposure.fisher_in if report.exposure is not None else None,
        ),
        demonstrations=()
        if extraction is None
        else demonstrations_of(
            extraction.rows, extraction.secrets, near=extraction.near_verbatim, tiers=extraction.tiers
        ),
        reasons=frozenset(report.reasons),
        dp_p_value=report.dp.p_value if report.dp is not None else None,
        attack_auc_lower=either_way(headline.auc).lower if headline is not None else None,
        blind_auc_upper=report.shift.upper if report.shift is not None else None,
        alpha=family_error(report.epsilon),
    )


def families_of(mode: Mode, *, membership_p: float | None, exposure_p: float | None) -> tuple[Family, ...]:
    """Return the statistical tests that were run, from their p-values."""
    families = []
    if membership_p is not None:
        families.append(Family("membership", membership_p, formal=mode == "planned"))
    if exposure_p is not None:
        families.append(Family("exposure", exposure_p, formal=True))
    return tuple(families)


def family_error(epsilon: EpsilonBound | None) -> float:
    """Return the error probability of a verdict: that of its epsilon bound, 5 % where none is stated."""
    return DEFAULT_ALPHA if epsilon is None else epsilon.alpha


def demonstrations_of(
    rows: RowsOut | None,
    secrets: SecretExtraction | None,
    *,
    near: RowsOut | None = None,
    tiers: Sequence[RepeatedTier] = (),
) -> tuple[Demonstration, ...]:
    """Return the extraction tests that were run, from their counts.

    Repeated rows are held against the controls of all rows, and the base was asked of them if it was asked of those.
    """
    shown = [_rows_out("rows", rows), _rows_out("near_verbatim", near), _repeated(rows, tiers)]
    if secrets is not None:
        shown.append(Demonstration("secrets", secrets.k_in, secrets.n_in, secrets.k_out, secrets.n_out))
    return tuple(one for one in shown if one is not None)


def _rows_out(kind: DemonstrationKind, rows: RowsOut | None) -> Demonstration | None:
    if rows is None:
        return None
    k, asked = (rows.k, False) if rows.base is None else (rows.attributable, True)
    return Demonstration(kind, k, rows.n, rows.control_k, rows.control_n, unknown_before=asked)


def _repeated(rows: RowsOut | None, tiers: Sequence[RepeatedTier]) -> Demonstration | None:
    several = [tier for tier in tiers if tier.is_repeated]
    if not several:
        return None
    asked = rows is not None and rows.base is not None
    k, n = sum(tier.attributable if asked else tier.k for tier in several), sum(tier.n for tier in several)
    control = (0, 0) if rows is None else (rows.control_k, rows.control_n)
    return Demonstration("repeated", k, n, *control, unknown_before=asked)


def headline_of(report: Report) -> ScoreResult | None:
    """Return the figures of the score that stands for the membership family."""
    if report.membership is None:
        return None
    wanted = (report.membership.score, report.membership.tier)
    return next((score for score in report.scores if (score.name, score.tier) == wanted), None)


def conclude(report: Report) -> Report:
    """Return the report with the verdict that its own figures and reasons give."""
    decision = decide(evidence_of(report))
    return replace(report, verdict=decision.verdict, reasons=decision.reasons)
