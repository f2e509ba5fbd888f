"""The plan of a case: what will be analysed, and at what risk, fixed and logged before the first score."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import msgspec

from stanch.crypto import canonical_json, parse_json, sha256
from stanch.errors import InvalidInput, VerificationError
from stanch.mark import Commitment, Kind, MarkKeys, MarkPlan, Originals, ScorePlan, Variant
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.trace.budget import ErrorBudget
from stanch.trace.case import Case
from stanch.trace.custody import utc
from stanch.trace.verifier.verify import MIN_DECOYS, VIEWS
from stanch.weights import directory_digest


class PlanMismatch(VerificationError):
    """A plan is not about this case, this suspect or this release."""


@dataclass(frozen=True)
class ReleaseRecord:
    """What tracing needs of one release.

    Attributes:
        name: Its name.
        original: Folder of the unmarked original.
        base: Folder of the public base model, or None; needed to read an adapter's mark out of a merged suspect.
        plan: Its mark plan.
        commitment: Its batch of keys.
        keys: All keys of the batch, derived with ``beacon``.
        beacon: SHA-256 of the text of the checkpoint in the commitment's tlog-proof; see :func:`beacons`.
        checkpoint_size: Size of that checkpoint.
        entry_index: Index of the log entry that commits to the batch.
        base_digest: Digest of the base model's folder, where there is one.
        receipts: What recipients signed when they got their copies, by name; see :mod:`stanch.trace.receipt`.
        disclosed: When each leaf, of a recipient or a decoy, was first opened to anybody.
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
    base_digest: Digest | None = None
    receipts: Mapping[str, bytes] = field(default_factory=dict)
    disclosed: Mapping[int, datetime] = field(default_factory=dict)

    @property
    def originals(self) -> Originals:
        """What the suspect is compared with."""
        return Originals(self.original, self.base)

    @cached_property
    def decoys(self) -> tuple[int, ...]:
        """The leaves of the batch that were never issued, in order."""
        leaves = enumerate(self.commitment.leaves)
        return tuple(number for number, leaf in leaves if leaf.recipient.startswith("decoy:"))

    def closed_decoys(self, acquired: str) -> tuple[int, ...]:
        """Return the decoys that nobody could know when a suspect was taken into custody.

        Whoever was shown a decoy can put its mark into a suspect: it says nothing about later ones.
        """
        early = opened_before(self.disclosed, acquired)
        return tuple(leaf for leaf in self.decoys if leaf not in early)

    def closed_keys(self, acquired: str) -> MarkKeys:
        """Return the keys to score a suspect with: of the decoys those alone that were closed; none if too few are."""
        closed = self.closed_decoys(acquired)
        streams = dict(zip(self.decoys, self.keys.decoys, strict=True))
        return replace(self.keys, decoys=tuple(streams[n] for n in closed) if len(closed) >= MIN_DECOYS else ())

    def check_original(self) -> None:
        """Re-hash the original and the base.

        Raises:
            InvalidInput: They are not those that the marks were planned for.
        """
        expected = {self.original: self.plan.original}
        if self.base is not None and self.base_digest is not None:
            expected[self.base] = self.base_digest
        for folder, digest in expected.items():
            found = directory_digest(folder).root
            if found != digest:
                what = "original" if folder == self.original else "base model"
                raise InvalidInput(
                    f"{folder}: not the {what} of release {self.name}",
                    why=f"expected {digest}, found {found}",
                    next_step=f"restore the {what}; scores against another one mean nothing",
                )


def opened_before(disclosed: Mapping[int, datetime], acquired: str) -> frozenset[int]:
    """Return the leaves that were opened to somebody before ``acquired``, ``YYYY-MM-DDTHH:MM:SSZ``.

    Within one second the order is not known; a case's own pack must not undo it.
    """
    return frozenset(leaf for leaf, moment in disclosed.items() if utc(moment) < acquired)


def beacons(proof: bytes) -> tuple[bytes, bytes]:
    """Return both beacons that a commitment's tlog-proof can give: of its checkpoint's text, and of the whole note.

    The text alone is what the log signs; releases of format 1 took the note with all its signatures.
    """
    note = proof.partition(b"\n\n")[2]
    return sha256(note.partition(b"\n\n")[0] + b"\n"), sha256(note)


class PlannedRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The release that a plan is about.

    Attributes:
        original, base, batch_root: Their digests; ``base`` is None where there is none.
        entry: Index of the log entry that commits to the batch.
        beacon, checkpoint: What the streams are bound to, and the size of the checkpoint that it is of.
        extent: One more than the highest global coordinate: what a pack shows follows from it.
        coordinates, alpha: What the mark's power follows from.
    """

    name: str
    original: str
    base: str | None
    kind: Kind
    batch: int
    batch_root: str
    entry: int
    beacon: str
    checkpoint: int
    extent: int
    coordinates: int
    alpha: float

    @classmethod
    def of(cls, release: ReleaseRecord) -> Self:
        """Describe a release."""
        plan, commitment = release.plan, release.commitment
        return cls(
            name=release.name,
            original=str(plan.original),
            base=None if release.base_digest is None else str(release.base_digest),
            kind=plan.kind,
            batch=commitment.batch,
            batch_root=commitment.root.hex(),
            entry=release.entry_index,
            beacon=release.beacon.hex(),
            checkpoint=release.checkpoint_size,
            extent=plan.layout.extent,
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
        n: Recipients that the bound counts: every leaf but the ownership mark's, since whoever reads a pack cannot tell
            a recipient's from a decoy's that stays closed.
        variants: In order.
        rounds: Rounds of each variant.
        analyses: T: variants × rounds × views; what a pack shows is counted beside the examination.
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
    schema: Literal["urn:stanch:trace-plan:v2"] = "urn:stanch:trace-plan:v2"

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
        return ScorePlan(tuple(self.variants), self.n, self.rounds, float(self.epsilon), views=VIEWS)

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
        fields = parse_json(data, what="case plan")
        refuse_old_plan(fields, "case plan")
        try:
            plan = msgspec.convert(fields, cls)
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


def refuse_old_plan(fields: JsonValue, what: str) -> None:
    """Refuse a plan of format 1.

    Raises:
        InvalidInput: It is one: it fixed neither the beacon nor the coordinates of a pack.
    """
    if isinstance(fields, dict) and fields.get("schema") == "urn:stanch:trace-plan:v1":
        raise InvalidInput(
            f"{what}: the plan is of format 1, which fixed neither the beacon nor what a pack shows",
            next_step="take the suspect into custody again: stanch trace run SUSPECT --release NAME",
        )


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
    possible = len(release.commitment.leaves) - 1
    scores = replace(ScorePlan.default(release.plan.kind, possible, epsilon=float(epsilon)), views=VIEWS)
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
