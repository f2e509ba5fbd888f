"""The leak certificate ``leakcert/v3``: the predicate of a signed statement about every file of an audited model.

The predicate holds aggregates alone, and numbers as decimal text that reads back exactly. A reader believes nothing
that it can compute: bounds, ceiling and verdict are derived again, and a certificate in which one does not follow is
refused. Version 1, which had no rows that come out nearly word for word, and version 2, which did not say among how
many candidates a secret was ranked, are still read. See ``docs/spec/leakcert.md``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Self

import msgspec

from stanch.audit.cert_sections import CertDp, CertExposure, CertExtraction, CertMembership, CertShift
from stanch.audit.codec import first_difference, to_json
from stanch.audit.evidence import Evidence, Reason
from stanch.audit.params import Mode
from stanch.audit.rates import either_way
from stanch.audit.rederive import (
    refuse,
    require_count,
    require_epsilon,
    require_ordered,
    require_p_value,
    require_power,
    require_rows_out,
    require_secrets,
    require_upper_bound,
    require_verdict,
)
from stanch.audit.report import Report, demonstrations_of, families_of, family_error, headline_of
from stanch.audit.sections import (
    Coverage,
    EpsilonBound,
    NearVerbatim,
    Power,
    RateAt,
    Reconstruction,
    RepeatedTier,
    SecretExtraction,
    Shift,
)
from stanch.audit.table_audit import check_report
from stanch.crypto import canonical_json, frame, sha256
from stanch.errors import InvalidInput, VerificationError
from stanch.sign import Subject
from stanch.terms import (
    ArtifactRef,
    CommitmentEvidence,
    Digest,
    Interval,
    JsonValue,
    NeighboringRelation,
    Verdict,
)

SCHEMA: Final = "leakcert/v3"
SECOND_SCHEMA: Final = "leakcert/v2"
FIRST_SCHEMA: Final = "leakcert/v1"
LEAKCERT_TYPE: Final = "urn:stanch:leakcert:v1"
ROOT_SUBJECT: Final = "."
"""Name of the subject that carries the root digest over the whole directory; no file can have it."""

MAX_VALID_DAYS: Final = 90
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class ModelDirectory(Protocol):
    """The digest of a model directory: its root, and ``(name, size, SHA-256 in hex)`` of every file."""

    @property
    def root(self) -> Digest:
        """Digest over the list of files."""
        ...

    @property
    def files(self) -> tuple[tuple[str, int, str], ...]:
        """Every file below the directory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCert:
    """The predicate of a leak certificate; :func:`predicate` makes one, :meth:`parse` reads and re-derives one."""

    schema: str = SCHEMA
    certificate_id: str
    issued: str
    expires: str
    attack_pack: int
    report_digest: str
    scores_digest: str | None
    plan_commitment: str | None
    commitment_evidence: CommitmentEvidence | None
    dataset_digest: str | None
    base_digest: str | None
    tokenizer_digest: str | None
    mode: Mode
    verdict: Verdict
    reasons: tuple[Reason, ...]
    membership: CertMembership | None
    epsilon: EpsilonBound | None
    power: Power | None
    dp: CertDp | None
    exposure: CertExposure | None
    extraction: CertExtraction | None
    secrets: SecretExtraction | None
    reconstruction: tuple[Reconstruction, ...]
    repeated: tuple[RepeatedTier, ...]
    near_verbatim: NearVerbatim | None = None
    shift: CertShift | None
    coverage: tuple[Coverage, ...]
    release_context: str | None
    limits: tuple[str, ...]

    def to_predicate(self) -> dict[str, JsonValue]:
        """Return the predicate: numbers as decimal text (as RFC 8785 writes them), so that they read back exactly."""
        fields = {name: _numbers_as_text(value) for name, value in to_json(self).items()}
        if self.schema == FIRST_SCHEMA:
            del fields["near_verbatim"]
        if self.schema in (FIRST_SCHEMA, SECOND_SCHEMA) and isinstance(exposure := fields["exposure"], dict):
            del exposure["candidates"]
        return fields

    @classmethod
    def parse(cls, value: Mapping[str, JsonValue]) -> Self:
        """Read a predicate strictly and derive again what follows from it.

        Raises:
            VerificationError: Names the first field that is unknown, missing, malformed, or does not follow.
        """
        try:
            cert = msgspec.convert(dict(value), cls, strict=False)
            difference = first_difference(cert.to_predicate(), dict(value))
        except (msgspec.ValidationError, InvalidInput) as error:
            raise VerificationError(f"leak certificate: {error}", why="the certificate is malformed") from error
        if difference is not None:
            raise VerificationError(
                f"leak certificate: field {difference} is unknown, missing or not in its normal form",
                why="each version has a fixed set of fields, with numbers as the shortest decimal text",
            )
        _check(cert)
        return cert

    @property
    def issued_at(self) -> datetime:
        """When the certificate was made (UTC)."""
        return _read_time("issued", self.issued)

    @property
    def expires_at(self) -> datetime:
        """When the gate stops accepting it (UTC)."""
        return _read_time("expires", self.expires)

    @property
    def has_proven_commitment(self) -> bool:
        """Whether the canary plan was logged before the tuning started."""
        evidence = self.commitment_evidence
        return (
            evidence is not None
            and evidence.commitment == self.plan_commitment
            and 0 <= evidence.entry_index < evidence.tuning_start_index
        )

    def evidence(self) -> Evidence:
        """Return the evidence items that the figures stand for, as its version counts them."""
        rows = self.extraction.as_rows() if self.extraction is not None else None
        tiers = () if self.schema == FIRST_SCHEMA else self.repeated
        return Evidence(
            mode=self.mode,
            families=families_of(
                self.mode,
                membership_p=self.membership.p if self.membership is not None else None,
                exposure_p=self.exposure.fisher_in if self.exposure is not None else None,
            ),
            demonstrations=demonstrations_of(rows, self.secrets, near=self.near_verbatim, tiers=tiers),
            reasons=frozenset(self.reasons),
            dp_p_value=self.dp.p_value if self.dp is not None else None,
            attack_auc_lower=either_way(self.membership.auc).lower if self.membership is not None else None,
            blind_auc_upper=self.shift.upper if self.shift is not None else None,
            alpha=family_error(self.epsilon),
        )


def model_subjects(model: ModelDirectory) -> tuple[Subject, ...]:
    """Return the subjects of a certificate's statement: the root digest, and every file by name."""
    files = (Subject(name, Digest.parse(f"sha256:{value}")) for name, _, value in model.files)
    return (Subject(ROOT_SUBJECT, model.root), *files)


def predicate(
    report: Report,
    model: ArtifactRef,
    *,
    valid_days: int = MAX_VALID_DAYS,
    release_context: str | None = None,
    now: datetime | None = None,
) -> LeakCert:
    """Return the certificate of a report, for :func:`stanch.sign.sign_statement` to sign.

    Args:
        report: The report of an audit of ``model``.
        model: The audited model; its digest must be the report's.
        valid_days: After how many days the gate stops accepting it; at most 90.
        release_context: If given, the only release context that the certificate is for.
        now: Time of issue; the system clock if not given.

    Raises:
        InvalidInput: The report is of another model or of none, or ``valid_days`` is out of range.
        VerificationError: The report is not consistent.
    """
    _check_subject(report, model, valid_days)
    issued = (now or datetime.now(UTC)).astimezone(UTC)
    parts = (b"stanch/leakcert/v1", report.digest.value, model.digest.value, issued.strftime(_TIME_FORMAT).encode())
    return LeakCert(
        certificate_id=sha256(frame(*parts))[:16].hex(),
        issued=issued.strftime(_TIME_FORMAT),
        expires=(issued + timedelta(days=valid_days)).strftime(_TIME_FORMAT),
        attack_pack=report.attack_pack,
        report_digest=str(report.digest),
        scores_digest=report.scores_digest,
        plan_commitment=report.plan.commitment if report.plan is not None else None,
        commitment_evidence=report.plan.evidence if report.plan is not None else None,
        dataset_digest=report.dataset_digest,
        base_digest=report.base,
        tokenizer_digest=report.tokenizer_digest,
        mode=report.mode,
        verdict=report.verdict,
        reasons=report.reasons,
        membership=_membership(report),
        epsilon=report.epsilon,
        power=report.power,
        dp=_dp(report),
        exposure=_exposure(report),
        extraction=_extraction(report),
        secrets=report.extraction.secrets if report.extraction is not None else None,
        reconstruction=report.reconstruction,
        repeated=report.extraction.tiers if report.extraction is not None else (),
        near_verbatim=report.extraction.near_verbatim if report.extraction is not None else None,
        shift=_shift(report.shift),
        coverage=report.coverage,
        release_context=release_context,
        limits=report.limits,
    )


def _check_subject(report: Report, model: ArtifactRef, valid_days: int) -> None:
    check_report(report)
    if report.model is None or report.model.digest != str(model.digest):
        raise InvalidInput(
            f"leak certificate: expected a report of {model.digest}, found one of "
            f"{report.model.digest if report.model is not None else 'no model (scores alone)'}",
            why="a certificate is bound to the files that were audited",
            next_step="audit this model",
        )
    if not 1 <= valid_days <= MAX_VALID_DAYS:
        raise InvalidInput(f"leak certificate: expected 1 to {MAX_VALID_DAYS} days, found {valid_days}")


def _membership(report: Report) -> CertMembership | None:
    headline = headline_of(report)
    if report.membership is None or headline is None:
        return None
    return CertMembership(
        score=headline.name,
        auc=headline.auc,
        tpr_1pct=_at(headline.tpr, 0.01),
        tpr_01pct=_at(headline.tpr, 0.001),
        tnr_1pct=_at(headline.tnr, 0.01),
        p=report.membership.p,
    )


def _at(rates: tuple[RateAt, ...], rate: float) -> Interval | None:
    return next((item.interval for item in rates if item.rate == rate), None)


def _dp(report: Report) -> CertDp | None:
    if report.dp is None or report.dp.p_value is None:
        return None
    claim = report.dp.claim
    return CertDp(claim.epsilon, claim.delta, claim.relation, claim.unit, report.dp.accountant, report.dp.p_value)


def _exposure(report: Report) -> CertExposure | None:
    found = report.exposure
    return None if found is None else CertExposure(found.per_tier, found.fisher_in, found.fisher_out, found.candidates)


def _extraction(report: Report) -> CertExtraction | None:
    if report.extraction is None or report.extraction.rows is None:
        return None
    rows = report.extraction.rows
    return CertExtraction(
        k=rows.k,
        n=rows.n,
        base=rows.base,
        attributable=rows.attributable,
        upper=rows.upper,
        n_budget=report.extraction.n_budget,
        p=report.extraction.p,
        decoding=report.extraction.decoding,
        control_k=rows.control_k,
        control_n=rows.control_n,
    )


def _shift(shift: Shift | None) -> CertShift | None:
    return None if shift is None else CertShift(shift.blind_auc, shift.length_auc, shift.base_loss_auc)


def _check(cert: LeakCert) -> None:
    """Derive again all that follows from other fields."""
    if cert.schema not in (FIRST_SCHEMA, SECOND_SCHEMA, SCHEMA):
        refuse("schema", SCHEMA, cert.schema)
    if cert.expires_at <= cert.issued_at or cert.expires_at - cert.issued_at > timedelta(days=MAX_VALID_DAYS):
        refuse("expires", f"at most {MAX_VALID_DAYS} days after {cert.issued}", cert.expires)
    _check_membership(cert)
    if cert.epsilon is not None:
        require_epsilon(cert.epsilon)
        if cert.epsilon.formal and not cert.has_proven_commitment:
            refuse("epsilon.formal", "false without a commitment logged before the tuning", "true")
    require_power(cert.power, cert.reasons)
    if cert.dp is not None:
        require_p_value("dp.p_value", cert.dp.p_value)
        if cert.dp.relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
            refuse("dp.relation", NeighboringRelation.ADD_OR_REMOVE_ONE, cert.dp.relation)
    if cert.exposure is not None:
        require_p_value("exposure.fisher_in", cert.exposure.fisher_in)
        require_p_value("exposure.fisher_out", cert.exposure.fisher_out)
        if cert.schema == SCHEMA and (cert.exposure.candidates is None or cert.exposure.candidates < 1):
            refuse("exposure.candidates", "at least 1", cert.exposure.candidates)
    _check_extraction(cert)
    require_verdict(cert.evidence(), cert.verdict, cert.reasons)


def _check_membership(cert: LeakCert) -> None:
    if cert.membership is not None:
        require_p_value("membership.p", cert.membership.p)
        require_ordered("membership.auc", cert.membership.auc)
        for name in ("tpr_1pct", "tpr_01pct", "tnr_1pct"):
            interval = getattr(cert.membership, name)
            if interval is not None:
                require_ordered(f"membership.{name}", interval)
    if cert.shift is not None:
        require_ordered("shift.blind_auc", cert.shift.blind_auc)
        require_ordered("shift.length_auc", cert.shift.length_auc)
        if cert.shift.base_loss_auc is not None:
            require_ordered("shift.base_loss_auc", cert.shift.base_loss_auc)


def _check_extraction(cert: LeakCert) -> None:
    if cert.extraction is not None:
        require_rows_out("extraction", cert.extraction.as_rows())
    if cert.near_verbatim is not None:
        require_rows_out("near_verbatim", cert.near_verbatim)
    require_secrets(cert.secrets)
    for index, tier in enumerate(cert.repeated):
        require_count(f"repeated[{index}].k", tier.k, tier.n)
        require_count(f"repeated[{index}].attributable", tier.attributable, tier.k)
        require_upper_bound(f"repeated[{index}]", tier.attributable, tier.n, tier.upper)
    for index, item in enumerate(cert.reconstruction):
        require_count(f"reconstruction[{index}].k", item.k, item.n)
        require_count(f"reconstruction[{index}].control_k", item.control_k, item.control_n)


def _numbers_as_text(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {name: _numbers_as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers_as_text(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return canonical_json(value).decode() if isinstance(value, int) or math.isfinite(value) else "not finite"
    return value


def _read_time(field: str, text: str) -> datetime:
    try:
        found = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise VerificationError(f"field {field}: expected a time like 2026-01-31T12:00:00Z") from error
    if found.strftime(_TIME_FORMAT) != text:
        refuse(field, found.strftime(_TIME_FORMAT), text)
    return found
