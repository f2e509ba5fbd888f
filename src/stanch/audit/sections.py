"""The sections of a report: what each part of an audit found, as frozen types."""

from dataclasses import dataclass
from typing import Final

from stanch.audit.params import Decoding, Order
from stanch.terms import CommitmentEvidence, Interval, PrivacyBudget

SINGLE: Final = "1"
"""Tier of the rows that no other row equals."""


@dataclass(frozen=True, slots=True)
class Tool:
    """The program that made the report."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of the audited model: its name in the directory, size in bytes, and SHA-256 as ``sha256:<hex>``."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The audited model: root digest over its directory (``sha256:<hex>``) and its files."""

    digest: str
    files: tuple[ModelFile, ...]


@dataclass(frozen=True, slots=True)
class PlanTier:
    """Canaries of one tier: copies of each, how many went in and how many stayed out, and if they count formally."""

    tier: str
    copies: int
    n_in: int
    n_out: int
    formal: bool


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """The canary plan: its id, its commitment (hex), the proof of when that was logged, and its tiers."""

    plan_id: str
    commitment: str
    evidence: CommitmentEvidence | None
    tiers: tuple[PlanTier, ...]


@dataclass(frozen=True, slots=True)
class FeaturePass:
    """How the model was run: data type of the weights, batches, and tokens scored."""

    dtype: str
    batches: int
    tokens: int


@dataclass(frozen=True, slots=True)
class RateAt:
    """A true rate at a fixed false rate; without interval if there are too few records, with how many are needed."""

    rate: float
    interval: Interval | None
    needs: int | None


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """How well one score tells members of a tier from non-members."""

    name: str
    tier: str
    n_member: int
    n_nonmember: int
    auc: Interval
    tpr: tuple[RateAt, ...]
    tnr: tuple[RateAt, ...]
    permutation_p: float | None


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One scan test: a tier, a score and a guess order; ``w_at_grid`` are the right guesses at each grid point."""

    tier: str
    score: str
    order: Order
    m: int
    splits: int
    alpha: float
    lower: float
    p_null: float
    w_at_grid: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """The membership family: its p-value, and the score and tier whose figures stand for it."""

    score: str
    tier: str
    p: float
    flagged: int | None


@dataclass(frozen=True, slots=True)
class EpsilonBound:
    """The epsilon lower bound: for the group of copies and for one record, with the best value any score could reach.

    If not ``formal``, there is no proof of fair coins: the value is a scale of distinguishability and no epsilon.
    """

    lower: float
    per_record: float
    ceiling: float
    alpha: float
    splits: int
    m: int
    copies: int
    formal: bool


@dataclass(frozen=True, slots=True)
class Power:
    """With which probability an attack of strength ``auc`` would have been seen, and what was required."""

    auc: float
    probability: Interval
    required: float


@dataclass(frozen=True, slots=True)
class DpCheck:
    """A differential-privacy claim; ``p_value`` is None if it cannot be compared with what was tested."""

    claim: PrivacyBudget
    accountant: str
    p_value: float | None


@dataclass(frozen=True, slots=True)
class SecretExposure:
    """Exposure of one secret in bits: exact, or (not ``exact``) as the sampled rank shows it; and its p-value."""

    id: str
    tier: str
    member: bool
    bits: float
    exact: bool
    sampled_p: float


@dataclass(frozen=True, slots=True)
class ExposureTier:
    """Exposure over the secrets of one tier that were tuned on: the median bits, the largest, and the most possible."""

    tier: str
    n_in: int
    n_out: int
    median_bits: float
    max_bits: float
    space_bits: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """Exposure of the secrets, and Fisher's combined p over those tuned on (``in``) and those not (``out``).

    Each secret was ranked among ``candidates`` uniform ones, so that log2(candidates + 1) bits can be resolved.
    """

    candidates: int
    per_tier: tuple[ExposureTier, ...]
    secrets: tuple[SecretExposure, ...]
    fisher_in: float
    fisher_out: float | None


@dataclass(frozen=True, slots=True)
class RowsOut:
    """Rows that come out of the target, out of the base, and out of the target though it was never tuned on them.

    Attributes:
        k: Come out of the target.
        n: Rows tested.
        base: Come out of the base, of those in reach of the target; None without base.
        attributable: Come out of the target and are out of reach in the base.
        upper: One-sided 95 % upper bound of the attributable rate.
        control_k: Come out among rows never tuned on.
        control_n: Rows never tuned on that were tested.
    """

    k: int
    n: int
    base: int | None
    attributable: int
    upper: float
    control_k: int
    control_n: int


@dataclass(frozen=True, slots=True)
class RowExtraction(RowsOut):
    """Rows that can be drawn out word for word.

    Attributes:
        too_short: Rows too short to be tested.
        census: Whether all rows were tested, and not a sample.
    """

    too_short: int
    census: bool


@dataclass(frozen=True, slots=True)
class SecretExtraction:
    """Canary secrets that can be drawn out: of those tuned on, and of those held back."""

    k_in: int
    n_in: int
    k_out: int
    n_out: int


@dataclass(frozen=True, slots=True)
class RepeatedTier:
    """Extraction of rows that stand in the data set several times, apart from the rate of all rows."""

    tier: str
    k: int
    n: int
    attributable: int
    upper: float

    @property
    def is_repeated(self) -> bool:
        """Whether its rows stand there more than once; the rate of all rows speaks of the others."""
        return self.tier != SINGLE


@dataclass(frozen=True, slots=True)
class NearVerbatim(RowsOut):
    """Rows that come out nearly word for word by the likeliest tokens."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Share of rows that can be drawn out with a number of samples: target, base, rows never tuned on."""

    samples: int
    target: float
    base: float | None
    control: float | None


@dataclass(frozen=True, slots=True)
class Extraction:
    """(n, p)-discoverable extraction (Hayes et al., arXiv 2410.19482) of rows and of canary secrets."""

    decoding: Decoding
    n_budget: int
    p: float
    rows: RowExtraction | None
    secrets: SecretExtraction | None
    tiers: tuple[RepeatedTier, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    near_verbatim: NearVerbatim | None = None


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Personal data of one type guessed first of 100 candidates: ``k`` of ``n`` values, and the same on a control."""

    kind: str
    k: int
    n: int
    control_k: int
    control_n: int


@dataclass(frozen=True, slots=True)
class Shift:
    """How well members are told from hold-out records without asking the model; ``features`` name what differs."""

    blind_auc: Interval
    length_auc: Interval
    base_loss_auc: Interval | None
    features: tuple[str, ...] = ()

    @property
    def upper(self) -> float:
        """The largest upper bound of any of the tests."""
        return max(i.upper for i in (self.blind_auc, self.length_auc, self.base_loss_auc) if i is not None)


@dataclass(frozen=True, slots=True)
class Coverage:
    """One attack class of a public list: whether it was run, and why not or with what."""

    reference: str
    attack: str
    run: bool
    why: str
