"""The privacy statement ``urn:stanch:privacy-statement:v1``: what a run guarantees, for machines and in plain words."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from msgspec import Meta

from stanch.crypto import canonical_json, frame, parse_json, sha256
from stanch.errors import InvalidInput, Tampered
from stanch.terms import Digest, JsonValue
from stanch.tune import accountant
from stanch.tune.accountant import AttackBound, Mechanism
from stanch.tune.journal import JournalHead, journal_name
from stanch.tune.plan import DP, VOID, PrivacyPlan
from stanch.tune.plan import SCHEMA as PLAN_SCHEMA
from stanch.tune.units import JOINED

SCHEMA = "urn:stanch:privacy-statement:v1"
NAME = "statement.json"
NO_GUARANTEE = "none"
_DOMAIN = b"stanch/tune/v1/statement"
_MAX_SIZE = 64 << 20


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A finished private run on the same dataset, whose privacy loss adds up with this one's.

    ``journal`` is the hash of its journal's last line. No two runs have one: two with the same plan count twice.
    """

    plan: str
    journal: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    units_digest: str
    rate: Annotated[float, Meta(gt=0, le=1)]
    noise_multiplier: Annotated[float, Meta(gt=0)]
    charged_steps: Annotated[int, Meta(ge=0)]
    delta: Annotated[float, Meta(gt=0, lt=1)]

    @classmethod
    def of(cls, plan: PrivacyPlan, head: JournalHead) -> Self:
        """Describe a run by its plan and the head of its journal."""
        run = plan.mechanism_after(head.charged)
        return cls(
            plan.digest.hex, head.hash, plan.units_digest, run.rate, run.noise_multiplier, head.charged, plan.delta
        )

    @classmethod
    def stated(cls, statement: "PrivacyStatement") -> Self | None:
        """Describe the run of a verified statement; None without a guarantee."""
        if statement.guarantee != DP:
            return None
        fields: Mapping[str, Any] = statement.fields
        plan = PrivacyPlan.from_json(canonical_json({**fields["plan"], "schema": PLAN_SCHEMA}))
        head = fields["journal_head"]
        return cls.of(plan, JournalHead(head["lines"], head["hash"], fields["charged_steps"]))

    @property
    def mechanism(self) -> Mechanism:
        """What the accountant composes."""
        return Mechanism(self.rate, self.noise_multiplier, self.charged_steps)


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A private run on the same dataset that a log saw begin and not end: what it charged is known from below alone.

    ``journal`` is the hash of its journal's first line; ``charged_steps`` are those that its last known head tells.
    """

    journal: str
    charged_steps: int


Earlier: TypeAlias = EarlierRun | UnfinishedRun
"""What a log tells of private runs on a dataset: what they spent, or that they never ended."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of the model: its name, size in bytes and SHA-256 (hex)."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run knows beside plan and journal.

    Attributes:
        files: The model's files.
        base_digest: Digest of the base model's folder.
        dataset_root: Root of the dataset's manifest.
        updates: Updates in the model; fewer than charges where a crash lost some.
        dtype: Of the frozen weights and the matrix products.
        device: Where it ran.
        ranks: How many processes shared the steps.
        versions: Of the packages that computed it.
        anchored: Whether heads of the journal were handed out.
        excluded: What else the guarantee does not cover.
        earlier_runs: Earlier private runs on the same dataset, and those that they name, each once.
    """

    files: tuple[ModelFile, ...]
    base_digest: str
    dataset_root: str
    updates: int
    dtype: str
    device: str
    versions: Mapping[str, str]
    ranks: int = 1
    anchored: bool = False
    excluded: tuple[str, ...] = ()
    earlier_runs: tuple[EarlierRun, ...] = ()

    @property
    def model_digest(self) -> Digest:
        """Digest of the model's files, as :func:`stanch.weights.directory_digest` of a folder with them alone."""
        return Digest.sha256(canonical_json(self._listing()))

    def to_fields(self) -> dict[str, JsonValue]:
        """Return the facts as statement fields."""
        return {
            "anchored": self.anchored,
            "base_digest": self.base_digest,
            "dataset_root": self.dataset_root,
            "device": self.device,
            "dtype": self.dtype,
            "files": self._listing(),
            "model_digest": str(self.model_digest),
            "ranks": self.ranks,
            "updates": self.updates,
            "versions": dict(self.versions),
        }

    def _listing(self) -> JsonValue:
        return [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in self.files]


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """A statement: its fields as JSON values, and the ones that programs ask for.

    Attributes:
        guarantee: ``dp``, ``none``, or ``void: public seed``.
        fields: All fields but schema and checksum.
    """

    guarantee: str
    fields: Mapping[str, JsonValue]

    @property
    def epsilon(self) -> float | None:
        """Epsilon of the charged steps of this run; None without a guarantee."""
        return self._epsilon("epsilon")

    @property
    def composed_epsilon(self) -> float | None:
        """Epsilon of this run and the earlier ones together; None without a guarantee, or where they have other units.

        What somebody who sees all of these models can learn is bounded by this one.
        """
        return self._epsilon("composed_epsilon")

    def _epsilon(self, name: str) -> float | None:
        value = self.fields.get(name)
        return float(value) if self.guarantee == DP and isinstance(value, (int, float)) else None

    @property
    def reading(self) -> str:
        """The statement in plain words."""
        return str(self.fields["reading"])

    @property
    def model_digest(self) -> str:
        """Digest of the model's files."""
        return str(self.fields["model_digest"])

    def to_json(self) -> bytes:
        """Return canonical JSON with a checksum over it (not a signature: ``sign`` makes that)."""
        body: dict[str, JsonValue] = {"schema": SCHEMA, "guarantee": self.guarantee, **self.fields}
        return canonical_json({**body, "digest": _checksum(body)})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a statement.

        Raises:
            Tampered: Not canonical, or its checksum does not hold.
            InvalidInput: Of another schema.
        """
        try:
            value = parse_json(data, what=NAME, max_bytes=_MAX_SIZE)
        except InvalidInput as error:
            raise Tampered(error.what, why=error.why) from error
        if not isinstance(value, dict) or canonical_json(value) != data:
            raise Tampered(f"{NAME}: not canonical JSON")
        body = {name: item for name, item in value.items() if name != "digest"}
        if value.get("digest") != _checksum(body):
            raise Tampered(f"{NAME}: its checksum does not hold", why="the file was edited")
        if body.pop("schema", None) != SCHEMA:
            raise InvalidInput(f"{NAME}: expected schema {SCHEMA}")
        return cls(str(body.pop("guarantee", "")), body)


def _checksum(body: dict[str, JsonValue]) -> str:
    return sha256(frame(_DOMAIN, canonical_json(body))).hex()


def exclude_rounding(precision: str) -> str:
    """Return why the guarantee does not cover how products are rounded: in one chunk units touch each other there."""
    tested = " (tested to stay within the slack, not proven)" if precision == "float32" else ""
    return f"rounding by which units of one chunk touch each other in {precision}{tested}"


def exclude_unfinished(runs: Iterable[UnfinishedRun], own: str | None) -> tuple[str, ...]:
    """Return what the guarantee does not cover of runs that never ended; one that goes on is not one of them.

    Args:
        runs: Those on the same dataset.
        own: Name of the journal of the run that is stated.
    """
    left = [run for run in runs if run.journal != own]
    steps = sum(run.charged_steps for run in left)
    told = f"runs on the same data that never ended ({len(left)}, with at least {steps} charged steps together)"
    return (told,) if left else ()


def exclude_of_run(runs: Iterable[UnfinishedRun], folder: Path, precision: str) -> tuple[str, ...]:
    """Return what the guarantee of the run in ``folder`` does not cover, beside what its plan says."""
    return (*exclude_unfinished(runs, journal_name(folder)), exclude_rounding(precision))


def state_privacy(plan: PrivacyPlan, journal: JournalHead, facts: RunFacts) -> PrivacyStatement:
    """State what the charged steps guarantee; everything but ``facts`` is computed from plan and journal."""
    mechanism, earlier = plan.mechanism_after(journal.charged), facts.earlier_runs
    excluded = (*plan.excluded, *facts.excluded)
    counted, composed = (mechanism, *(run.mechanism for run in earlier)), None
    if all(run.units_digest == plan.units_digest for run in earlier):
        composed = accountant.compose_epsilon(counted, plan.delta, plan.discretization)
    else:
        counted = (mechanism,)
    bounds = accountant.attack_bounds(counted)
    return PrivacyStatement(
        plan.guarantee,
        {
            **facts.to_fields(),
            "plan": plan.to_fields(),
            "plan_digest": plan.digest.hex,
            "charged_steps": journal.charged,
            "epsilon": plan.epsilon_after(journal.charged),
            "delta": plan.delta,
            "epsilon_rdp": accountant.rdp_epsilon(mechanism, plan.delta),
            "journal_head": {"hash": journal.hash, "lines": journal.lines},
            "earlier_runs": [_earlier_fields(run, plan) for run in earlier],
            "composed_epsilon": composed,
            "excluded": list(excluded),
            "attack_bound": [{"fpr": bound.fpr, "tpr_max": bound.tpr_max} for bound in bounds],
            "reading": read_aloud(plan, bounds, excluded, earlier=len(earlier), composed=composed),
        },
    )


def state_no_privacy(facts: RunFacts) -> PrivacyStatement:
    """State that a run without differential privacy guarantees nothing."""
    reading = (
        "This model was tuned without differential privacy. Nothing bounds what it reveals about a record it was tuned "
        "on. An audit can show leaks, but cannot prove that there are none."
    )
    return PrivacyStatement(NO_GUARANTEE, {**facts.to_fields(), "excluded": list(facts.excluded), "reading": reading})


def _earlier_fields(run: EarlierRun, plan: PrivacyPlan) -> JsonValue:
    return {
        **asdict(run),
        "epsilon": accountant.spent_epsilon(run.mechanism, run.delta, plan.discretization),
        "composable": run.units_digest == plan.units_digest,
    }


def read_plan(plan: PrivacyPlan) -> str:
    """Return in plain words what a plan would guarantee when all its steps are charged."""
    return read_aloud(plan, accountant.attack_bounds((plan.mechanism,)), plan.excluded)


def read_aloud(
    plan: PrivacyPlan,
    bounds: tuple[AttackBound, ...],
    excluded: tuple[str, ...],
    *,
    earlier: int = 0,
    composed: float | None = None,
) -> str:
    """Say what a unit is, what an attacker can reach, and what is not covered.

    Args:
        plan: The plan.
        bounds: What an attacker can reach.
        excluded: What is not covered.
        earlier: The number of earlier runs on the same dataset.
        composed: Epsilon of this run and the earlier ones; without it ``bounds`` are those of this run alone.
    """
    if plan.guarantee == VOID:
        return (
            "This run took its noise from a public seed: whoever knows the seed can take the noise away. Nothing "
            "bounds what the model reveals about a record it was tuned on. It shows that a run can be repeated; do not "
            "release it."
        )
    share = next(bound.tpr_max for bound in bounds if bound.fpr == 0.01)
    # Rounded up: a bound that is rounded down is no bound.
    percent = math.ceil(share * 1000) / 10
    runs, seen, alone = f"{earlier} earlier run{'s' * (earlier > 1)} on the same data", "the model", ""
    if earlier and composed is not None:
        seen += f" and those of {runs} (epsilon {math.ceil(composed * 100) / 100:.2f} together)"
    elif earlier:
        alone = f"That is the bound of this run alone: {runs} with other units add to it what nobody can compute. "
    return (
        f"{_read_unit(plan)} "
        f"Whoever sees {seen} and is wrong about 1 % of outsiders recognises at most {percent:.1f} % of those "
        f"whose data was used (without protection: up to 100 %). {alone}"
        f"Not covered: {', '.join(excluded)}."
    )


def _read_unit(plan: PrivacyPlan) -> str:
    column = plan.unit.partition(":")[2]
    unit = f"everything with one value of {column}" if column else "one record"
    formed = f"({plan.unit_rule}; {plan.n_units} units)."
    if not plan.unit_rule.endswith(JOINED):
        return f"Protected is {unit} {formed}"
    return (
        f"Protected is a whole unit: {unit}, together with all that near-duplicates join to it {formed} "
        f"The part of one {f'value of {column}' if column else 'record'} in a joined unit is protected less: it moves "
        "a step by up to 2 times what the noise is made for, and by more where it alone joins others."
    )
