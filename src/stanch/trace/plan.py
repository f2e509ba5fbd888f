"""The plan of a case: what will be analysed, and at what risk, fixed and logged before the first score."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import msgspec

from stanch.crypto import canonical_json, parse_json, sha256
from stanch.errors import InvalidInput, VerificationError
from stanch.mark import Commitment, Kind, MarkKeys, MarkPlan, Originals, ScorePlan, Variant
from stanch.terms import Digest, EntryRef
from stanch.trace.budget import ErrorBudget
from stanch.trace.case import Case
from stanch.weights import directory_digest


class PlanMismatch(VerificationError):
    """A plan is not about this case, this suspect or this release."""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """What tracing needs of one release.

    Attributes:
        name: Its name.
        original: Folder of the unmarked original.
        base: Folder of the public base model, or None; needed to read an adapter's mark out of a merged suspect.
        plan: Its mark plan.
        commitment: Its batch of keys.
        keys: All keys of the batch, derived with ``beacon``.
        beacon: SHA-256 of the checkpoint note in the commitment's tlog-proof.
        checkpoint_size: Size of that checkpoint.
        entry_index: Index of the log entry that commits to the batch.
        receipts: What recipients signed when they got their copies, by name; see :mod:`stanch.trace.receipt`.
    """

    name: str
    original: Path
    base: Path | None
    plan: MarkPlan
    commitment: Commitment
    keys: MarkKeys
    beacon: bytes
    checkpoint_size: int
    entry_index: int
    receipts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def originals(self) -> Originals:
        """What the suspect is compared with."""
        return Originals(self.original, self.base)

    def check_original(self) -> None:
        """Re-hash the original.

        Raises:
            InvalidInput: It is not the one that the marks were planned for.
        """
        found = directory_digest(self.original).root
        if found != self.plan.original:
            raise InvalidInput(
                f"{self.original}: not the original of release {self.name}",
                why=f"expected {self.plan.original}, found {found}",
                next_step="restore the original; scores against another one mean nothing",
            )


class PlannedRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The release that a plan is about: digests of its original and batch, and what its mark's power follows from."""

    name: str
    original: str
    kind: Kind
    batch: int
    batch_root: str
    entry: int
    coordinates: int
    alpha: float

    @classmethod
    def of(cls, release: ReleaseRecord) -> Self:
        """Describe a release."""
        plan, commitment = release.plan, release.commitment
        return cls(
            name=release.name,
            original=str(plan.original),
            kind=plan.kind,
            batch=commitment.batch,
            batch_root=commitment.root.hex(),
            entry=release.entry_index,
            coordinates=plan.layout.coordinates,
            alpha=plan.alpha,
        )


class CasePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What will be examined and how; its digest goes into the log before the first score.

    Attributes:
        case: Id of the case.
        case_digest: SHA-256 (hex) of the case file.
        custody: Head of the chain of custody when the plan was made.
        suspect: Digest of the suspect.
        release: The release that it is compared with.
        n: Recipients that the bound counts: every issued leaf.
        variants: In order.
        rounds: Rounds of each variant.
        analyses: T: variants × rounds.
        epsilon: Error probability of the case, as a decimal.
        threshold: τ = √(2 ln(nT/ε)).
    """

    case: str
    case_digest: str
    custody: str
    suspect: str
    release: PlannedRelease
    n: int
    variants: tuple[Variant, ...]
    rounds: int
    analyses: int
    epsilon: str
    threshold: float
    schema: Literal["urn:stanch:trace-plan:v1"] = "urn:stanch:trace-plan:v1"

    def __post_init__(self) -> None:
        scores = self.score_plan
        if (scores.analyses, scores.threshold) != (self.analyses, self.threshold):
            raise InvalidInput(
                "case plan: analyses and threshold do not follow from variants, rounds, n and epsilon",
                why=f"expected {scores.analyses} and {scores.threshold}",
            )

    @property
    def score_plan(self) -> ScorePlan:
        """The plan that detection follows."""
        return ScorePlan(tuple(self.variants), self.n, self.rounds, float(self.epsilon))

    @property
    def digest(self) -> Digest:
        """SHA-256 of the plan's canonical JSON: what the log records."""
        return Digest("sha256", sha256(self.to_bytes()))

    def to_bytes(self) -> bytes:
        """Return the plan as canonical JSON."""
        return canonical_json(msgspec.to_builtins(self))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a plan strictly.

        Raises:
            InvalidInput: The bytes are not the canonical form of a plan.
        """
        try:
            plan = msgspec.convert(parse_json(data, what="case plan"), cls)
        except msgspec.ValidationError as error:
            raise InvalidInput("case plan: not a plan", why=str(error)) from error
        if plan.to_bytes() != data:
            raise InvalidInput("case plan: not in canonical form")
        return plan

    def check(self, case: Case, release: ReleaseRecord) -> None:
        """Check that the plan is about this case, as it was then, and about this release.

        Raises:
            PlanMismatch: It is about another case, suspect, custody or release, or counts fewer recipients than
                there are keys.
            CustodyBroken: The chain of custody was changed.
        """
        about = {
            "case": (self.case, case.id),
            "case file": (self.case_digest, case.digest.hex),
            "suspect": (self.suspect, str(case.suspect)),
            "release": (self.release, PlannedRelease.of(release)),
        }
        for name, (planned, found) in about.items():
            if planned != found:
                raise PlanMismatch(
                    f"case {case.id}: the plan is about another {name}", next_step="make a plan for this case"
                )
        if self.custody not in case.custody().heads:
            raise PlanMismatch(f"case {case.id}: the plan was made on another chain of custody")
        if self.n < len(release.keys.copies):
            raise PlanMismatch(f"case {case.id}: the plan counts {self.n} recipients, the release has more")


@dataclass(frozen=True, slots=True)
class VerifiedCasePlan:
    """A plan whose digest is in the log: the only kind that may be examined.

    Whoever writes the log makes it, after the entry is durable.
    """

    plan: CasePlan
    entry: EntryRef


def fix_plan(case: Case, release: ReleaseRecord, *, epsilon: str, budget: ErrorBudget) -> CasePlan:
    """Fix what will be analysed: every variant that applies, two rounds each, against all recipients of the release.

    Args:
        case: An opened case.
        release: The release that the suspect may come from.
        epsilon: Error probability of this case, as a decimal such as ``1e-9``.
        budget: What earlier plans spent; whoever logs the plan thereby spends ``epsilon``.

    Raises:
        ErrorBudgetExhausted: The lifetime budget does not allow ``epsilon``.
        InvalidInput: ``epsilon`` is not a probability, or the keys are not those of the batch.
        CustodyBroken: Chain or suspect were changed.
    """
    budget.charge(epsilon)
    case.check_suspect()
    issued = {slot.id for slot in release.commitment.slots}
    if {key.recipient for key in release.keys.copies} != issued:
        raise InvalidInput(
            f"release {release.name}: the keys are not those of batch {release.commitment.batch}",
            next_step="derive them with stanch.mark.mark_keys from this batch and its beacon",
        )
    scores = ScorePlan.default(release.plan.kind, len(issued), epsilon=float(epsilon))
    return CasePlan(
        case=case.id,
        case_digest=case.digest.hex,
        custody=case.custody().head,
        suspect=str(case.suspect),
        release=PlannedRelease.of(release),
        n=scores.n,
        variants=scores.variants,
        rounds=scores.rounds,
        analyses=scores.analyses,
        epsilon=epsilon,
        threshold=scores.threshold,
    )
