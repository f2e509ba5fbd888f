"""The privacy plan ``urn:stanch:privacy-plan:v1``: every constant of the mechanism, fixed before the first step.

Sampler, clipping, noise, accountant, journal and statement take their constants from this one object and from nowhere
else, so that they cannot disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, Self, get_type_hints

from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput
from stanch.terms import Digest, JsonValue, NeighboringRelation, PrivacyBudget
from stanch.tune import accountant
from stanch.tune.accountant import Mechanism
from stanch.tune.refusals import DeltaTooLarge, PlanInfeasible
from stanch.tune.units import UnitTable

SCHEMA = "urn:stanch:privacy-plan:v1"
NOISE_DRAWS = 2
SLACK = 2.0**-10
MIN_UNITS = 20
DP = "dp"
VOID = "void: public seed"
PRIVATE_METRICS = "private training metrics, which were logged"
_SMALL_NOISE = 0.3
_MAX_COUNT = 2**32
"""Steps and units are counted in 32 bits where their key streams are made."""
_ALWAYS_EXCLUDED = ("base model's pre-training", "tokenizer", "choice of hyper-parameters", "number of units")

Clipping = Literal["flat", "automatic"]


@dataclass(frozen=True, slots=True, order=True)
class ParameterShape:
    """A trainable parameter: its name in the adapter, without a framework's prefixes, and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyParams:
    """What a user chooses; the rest of the plan follows.

    Attributes:
        epsilon: Target epsilon.
        delta: Default 1/(10 N), rounded down to one significant digit.
        epochs: Expected number of times that a unit takes part; ignored when ``steps`` is given.
        expected_batch: Expected number of units in a step; default min(max(256, ⌈2√N⌉), ⌊N/10⌋).
        steps: Number of logical steps.
        max_grad_norm: Clipping bound C of a unit's gradient.
        clipping: ``flat`` min(1, C/n), or ``automatic`` C/(n + 0.01).
        max_records_per_unit: Records of a unit used in one step.
        units_public: A public number of units, at least the number found; the difference takes part as empty units.
        allow_small_noise_unsafe: Accept a noise multiplier below 0.3.
        log_private_metrics_unsafe: Let a trainer log the loss, which the guarantee then does not cover.
        insecure_reproducible: The keys will come from a public seed, which voids the guarantee.
        excluded: What else the guarantee does not cover, beside what it never covers.
    """

    epsilon: float = 8.0
    delta: float | None = None
    epochs: float = 3.0
    expected_batch: int | None = None
    steps: int | None = None
    max_grad_norm: float = 0.5
    clipping: Clipping = "flat"
    max_records_per_unit: int = 8
    units_public: int | None = None
    allow_small_noise_unsafe: bool = False
    log_private_metrics_unsafe: bool = False
    insecure_reproducible: bool = False
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """The mechanism: Poisson samples of units, clipped sums, Gaussian noise. Fields: ``docs/spec/privacy-plan.md``."""

    unit: str
    unit_rule: str
    units_digest: str
    dataset_root: str
    n_units: int
    expected_batch: int
    sampling_threshold: int
    neighboring_relation: str
    steps: int
    sampler: str
    max_records_per_unit: int
    max_grad_norm: float
    clipping: str
    loss: str
    denominator: int
    noise_multiplier: float
    noise: str
    draws: int
    slack: float
    epsilon: float
    delta: float
    accountant: str
    accountant_version: str
    discretization: float
    method: str
    trainable: tuple[ParameterShape, ...]
    excluded: tuple[str, ...]
    guarantee: str

    @classmethod
    def make(cls, units: UnitTable, trainable: Sequence[ParameterShape], params: PrivacyParams | None = None) -> Self:
        """Make the plan for these units and trainable parameters: calibrate the noise to the target epsilon.

        Raises:
            InvalidInput: A number is out of its range.
            DeltaTooLarge: Delta is not below 1/N.
            PlanInfeasible: The units come from a dataset without a key, or there are fewer than 20 of them, a sampling
                rate above 1/2, too little noise, or no solution.
        """
        params = params or PrivacyParams()
        count = _count_units(units, params)
        batch = _expected_batch(count, params)
        delta = default_delta(count) if params.delta is None else params.delta
        _check_numbers(count, batch, delta, params)
        steps = max(1, math.floor(params.epochs * count / batch)) if params.steps is None else params.steps
        sigma = accountant.calibrate(sampling_rate(batch, count), steps, delta, params.epsilon)
        if sigma < _SMALL_NOISE and not params.allow_small_noise_unsafe:
            raise PlanInfeasible(
                f"noise multiplier {sigma:g} is below 0.3",
                why="so little noise protects in the accounting only",
                next_step="lower epsilon, or raise the number of epochs",
            )
        return cls(
            unit=units.policy,
            unit_rule=units.rule,
            units_digest=units.digest.hex,
            dataset_root=units.dataset_root,
            n_units=count,
            expected_batch=batch,
            sampling_threshold=(batch << 64) // count,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE.value,
            steps=steps,
            sampler="poisson-units/v1",
            max_records_per_unit=params.max_records_per_unit,
            max_grad_norm=float(params.max_grad_norm),
            clipping=params.clipping,
            loss="token-mean-per-record/v1",
            denominator=batch,
            noise_multiplier=sigma,
            noise="aes256ctr-boxmuller-grid/v1",
            draws=NOISE_DRAWS,
            slack=SLACK,
            epsilon=float(params.epsilon),
            delta=delta,
            accountant=accountant.ACCOUNTANT,
            accountant_version=accountant.accountant_version(),
            discretization=accountant.DISCRETIZATION,
            method=_method_of(trainable),
            trainable=tuple(sorted(trainable)),
            excluded=(
                *_ALWAYS_EXCLUDED,
                *((PRIVATE_METRICS,) if params.log_private_metrics_unsafe else ()),
                *params.excluded,
            ),
            guarantee=VOID if params.insecure_reproducible else DP,
        )

    @property
    def mechanism(self) -> Mechanism:
        """What the accountant composes when every planned step was charged."""
        return self.mechanism_after(self.steps)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return Digest.sha256(self.to_json())

    @property
    def coordinates(self) -> int:
        """Number of trainable coordinates, P."""
        return sum(parameter.size for parameter in self.trainable)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before starting."""
        found = []
        if self.guarantee == VOID:
            found.append("the keys come from a public seed: nothing is protected")
        if self.epsilon > 8:
            found.append(f"epsilon {self.epsilon:g} is above 8: the guarantee says little")
        if self.n_units < 1000:
            found.append(f"{self.n_units} units are few: utility will suffer; about 1,000 or more are advised")
        return tuple(found)

    def mechanism_after(self, charged: int) -> Mechanism:
        """What the accountant composes after ``charged`` steps."""
        return Mechanism(sampling_rate(self.expected_batch, self.n_units), self.noise_multiplier, charged)

    def epsilon_after(self, charged: int, *, discretization: float | None = None) -> float:
        """Return an upper bound of epsilon, at the plan's delta, after ``charged`` steps."""
        return accountant.spent_epsilon(
            self.mechanism_after(charged), self.delta, discretization or self.discretization
        )

    def budget_after(self, charged: int) -> PrivacyBudget:
        """Return the guarantee after ``charged`` steps."""
        relation = NeighboringRelation(self.neighboring_relation)
        return PrivacyBudget(self.epsilon_after(charged), self.delta, self.unit, relation)

    def to_fields(self) -> dict[str, JsonValue]:
        """Return the fields as JSON values; the 64-bit threshold as decimal text."""
        values: dict[str, JsonValue] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["sampling_threshold"] = str(self.sampling_threshold)
        values["trainable"] = [[parameter.name, list(parameter.shape)] for parameter in self.trainable]
        values["excluded"] = list(self.excluded)
        return values

    def to_json(self) -> bytes:
        """Return the plan in canonical JSON."""
        return canonical_json({"schema": SCHEMA, **self.to_fields()})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a plan strictly: all fields, no others, the right types, in canonical form.

        Raises:
            InvalidInput: The bytes are not such a plan.
        """
        value = parse_json(data, what="privacy plan")
        if not isinstance(value, dict) or value.get("schema") != SCHEMA or canonical_json(value) != data:
            raise InvalidInput(f"privacy plan: expected canonical JSON of {SCHEMA}")
        plan = cls.from_fields({name: item for name, item in value.items() if name != "schema"})
        _check_mechanism(plan)
        return plan

    @classmethod
    def from_fields(cls, values: dict[str, JsonValue]) -> Self:
        """Read the plan's fields; the inverse of :meth:`to_fields`."""
        kinds = get_type_hints(cls)
        if set(values) != set(kinds):
            raise InvalidInput(f"privacy plan: missing or unknown fields {sorted(set(values) ^ set(kinds))[:4]}")
        found: dict[str, Any] = {name: _read_field(name, kind, values[name]) for name, kind in kinds.items()}
        return cls(**found)


def sampling_rate(batch: int, count: int) -> float:
    """Return the smallest float that is at least batch/count."""
    rate = batch / count
    return rate if Fraction(rate) >= Fraction(batch, count) else math.nextafter(rate, math.inf)


def default_delta(count: int) -> float:
    """Return 1/(10·count), rounded down to one significant digit."""
    places = len(str(10 * count - 1))
    return float(f"{10**places // (10 * count)}e-{places}")


def _count_units(units: UnitTable, params: PrivacyParams) -> int:
    if not units.is_keyed:
        raise PlanInfeasible(
            "the units come from a dataset that was opened without a key",
            why="the plan publishes digests of it: whoever knows all records but one could test for that one",
            next_step="open the dataset with its key, and form the units again",
        )
    found = len(units.units)
    count = found if params.units_public is None else params.units_public
    if not found <= count < _MAX_COUNT:
        raise InvalidInput(
            f"units_public: expected at least the {found} units found and less than 2^32",
            next_step="declare a public number in between",
        )
    if count < MIN_UNITS:
        raise PlanInfeasible(
            f"expected at least {MIN_UNITS} units, found {count}",
            why="with so few, either nothing is learned or nobody is protected",
            next_step="add data",
        )
    return count


def _expected_batch(count: int, params: PrivacyParams) -> int:
    if params.expected_batch is not None:
        return params.expected_batch
    return max(1, min(max(256, math.ceil(2 * math.sqrt(count))), count // 10))


def _check_numbers(count: int, batch: int, delta: float, params: PrivacyParams) -> None:
    ranges = {
        "epsilon": 0 < params.epsilon < math.inf,
        "max_grad_norm": 0 < params.max_grad_norm < math.inf,
        "epochs": params.steps is not None or 0 < params.epochs * count < _MAX_COUNT * max(1, batch),
        "steps": params.steps is None or 0 < params.steps < _MAX_COUNT,
        "expected_batch": batch > 0,
        "max_records_per_unit": params.max_records_per_unit > 0,
        "clipping": params.clipping in {"flat", "automatic"},
        "delta": delta > 0,
    }
    for name, holds in ranges.items():
        if not holds:
            raise InvalidInput(f"privacy plan: {name} is out of range", next_step=f"choose a finite, positive {name}")
    if delta >= 1 / count:
        raise DeltaTooLarge(
            f"delta {delta:g} is not below 1/{count}",
            why="publishing one whole unit at random would satisfy such a guarantee",
            next_step=f"choose at most {default_delta(count):g}",
        )
    if 2 * batch > count:
        raise PlanInfeasible(
            f"expected batch {batch} is more than half of {count} units",
            why="sampling then hardly hides who takes part",
            next_step=f"choose at most {count // 2}",
        )


def _method_of(trainable: Sequence[ParameterShape]) -> str:
    """Return ``lora`` where only low-rank factors are trained, else ``full``."""
    return "lora" if all(".lora_" in parameter.name for parameter in trainable) else "full"


def _check_mechanism(plan: PrivacyPlan) -> None:
    """Refuse a plan whose fields contradict each other or name what this release does not run."""
    fixed = {
        "sampling_threshold": (plan.expected_batch << 64) // max(1, plan.n_units),
        "denominator": plan.expected_batch,
        "neighboring_relation": NeighboringRelation.ADD_OR_REMOVE_ONE.value,
        "sampler": "poisson-units/v1",
        "loss": "token-mean-per-record/v1",
        "noise": "aes256ctr-boxmuller-grid/v1",
        "draws": NOISE_DRAWS,
        "slack": SLACK,
        "accountant": accountant.ACCOUNTANT,
        "discretization": accountant.DISCRETIZATION,
        "method": _method_of(plan.trainable),
        "trainable": tuple(sorted(plan.trainable)),
        "guarantee": VOID if plan.guarantee == VOID else DP,
    }
    for name, expected in fixed.items():
        if getattr(plan, name) != expected:
            raise InvalidInput(f"privacy plan: unexpected value of {name}")
    params = PrivacyParams(
        epsilon=plan.epsilon,
        steps=plan.steps,
        max_grad_norm=plan.max_grad_norm,
        clipping="flat" if plan.clipping == "flat" else "automatic",
        max_records_per_unit=plan.max_records_per_unit,
    )
    _check_numbers(plan.n_units, plan.expected_batch, plan.delta, params)
    if plan.clipping not in {"flat", "automatic"} or not 0 < plan.noise_multiplier < math.inf:
        raise InvalidInput("privacy plan: unexpected clipping or noise multiplier")


def _read_field(name: str, kind: object, value: JsonValue) -> object:
    """Return one field from its JSON value, of exactly its type."""
    if name == "trainable" and isinstance(value, list):
        return tuple(_read_shape(item) for item in value)
    if name == "excluded" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if name == "sampling_threshold" and isinstance(value, str) and value.isdecimal() and len(value) <= 20:
        return int(value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and type(value) is int and value >= 0 and name != "sampling_threshold":
        return value
    if kind is str and isinstance(value, str):
        return value
    raise InvalidInput(f"privacy plan: field {name} has another type")


def _read_shape(item: JsonValue) -> ParameterShape:
    match item:
        case [str(name), list(shape)] if shape and all(type(size) is int and size > 0 for size in shape):
            return ParameterShape(name, tuple(size for size in shape if isinstance(size, int)))
    raise InvalidInput("privacy plan: field trainable has another form")
