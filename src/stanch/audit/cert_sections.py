"""The sections of a leak certificate that say less than those of the report: aggregates, no figure of one record."""

from dataclasses import dataclass

from stanch.audit.params import Decoding
from stanch.audit.sections import ExposureTier, RowExtraction
from stanch.terms import Interval, NeighboringRelation


@dataclass(frozen=True, slots=True)
class CertMembership:
    """The membership family: the score that stands for it, its AUC, true rates at low false rates, and the p-value."""

    score: str
    auc: Interval
    tpr_1pct: Interval | None
    tpr_01pct: Interval | None
    tnr_1pct: Interval | None
    p: float


@dataclass(frozen=True, slots=True)
class CertDp:
    """A differential-privacy claim that was tested; an untested claim never stands in a certificate."""

    epsilon: float
    delta: float
    relation: NeighboringRelation
    unit: str
    accountant: str
    p_value: float


@dataclass(frozen=True, slots=True)
class CertExposure:
    """Exposure of the secrets by tier, and Fisher's combined p over those tuned on and those held back.

    Each was ranked among ``candidates`` uniform ones; None before version 3.
    """

    per_tier: tuple[ExposureTier, ...]
    fisher_in: float
    fisher_out: float | None
    candidates: int | None = None

    @property
    def ranked(self) -> int:
        """How many secrets that were tuned on were ranked."""
        return sum(tier.n_in for tier in self.per_tier)


@dataclass(frozen=True, slots=True)
class CertExtraction:
    """Rows that can be drawn out within ``n_budget`` samples with probability ``p``; see ``RowExtraction``."""

    k: int
    n: int
    base: int | None
    attributable: int
    upper: float
    n_budget: int
    p: float
    decoding: Decoding
    control_k: int
    control_n: int

    def as_rows(self) -> RowExtraction:
        """Return the counts as a section of a report."""
        return RowExtraction(
            k=self.k,
            n=self.n,
            base=self.base,
            attributable=self.attributable,
            upper=self.upper,
            control_k=self.control_k,
            control_n=self.control_n,
            too_short=0,
            census=False,
        )


@dataclass(frozen=True, slots=True)
class CertShift:
    """How well members are told from hold-out records without asking the model."""

    blind_auc: Interval
    length_auc: Interval
    base_loss_auc: Interval | None

    @property
    def upper(self) -> float:
        """The largest upper bound of any of the tests."""
        return max(i.upper for i in (self.blind_auc, self.length_auc, self.base_loss_auc) if i is not None)
