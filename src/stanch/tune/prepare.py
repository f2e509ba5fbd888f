"""What a run will do, found out before any weight is touched: units, plan, and what must not change on resume."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from stanch.crypto import canonical_json
from stanch.data import Dataset, DuplicateReport, find_near_duplicates, read_steps
from stanch.data.copies import find_copies
from stanch.errors import InvalidInput, MissingExtraError
from stanch.terms import Digest, JsonValue
from stanch.tune.earlier import read_earlier
from stanch.tune.intake import check_base
from stanch.tune.plan import ParameterShape, PrivacyPlan
from stanch.tune.spec import MethodSpec, TuneSpec
from stanch.tune.statement import Earlier, EarlierRun, UnfinishedRun
from stanch.tune.units import RecordUnit, UnitTable, form_units, parse_unit

_PLAIN_BATCH = 16
_FREE = frozenset({"checkpoint_every", "chunk_tokens", "device", "gradient_checkpointing"})
"""Settings of ``[train]`` that change time and memory, and results by no more than rounding."""
_GROUPED = "thresholds by which near-duplicates were joined"


@dataclass(frozen=True, slots=True)
class Preparation:
    """A run that could start.

    Attributes:
        spec: What was asked for.
        base_digest: Digest of the base model's folder.
        units: Units (with privacy), or the single records that are left after dropping duplicates.
        trainable: The trainable parameters, sorted by name.
        plan: The privacy plan; None without privacy.
        earlier: Private runs on the same dataset whose loss adds to this one's.
        unfinished: Private runs on it that never ended; nobody knows what they spent.
        tokens: Digest of all records' tokens; None before they are made.
    """

    spec: TuneSpec
    base_digest: Digest
    units: UnitTable
    trainable: tuple[ParameterShape, ...] = field(repr=False)
    plan: PrivacyPlan | None
    earlier: tuple[EarlierRun, ...] = ()
    unfinished: tuple[UnfinishedRun, ...] = ()
    tokens: Digest | None = None

    @property
    def batch(self) -> int:
        """Expected number of units in a step."""
        if self.plan is not None:
            return self.plan.expected_batch
        return min(self.spec.train.batch or _PLAIN_BATCH, len(self.units.units))

    @property
    def steps(self) -> int:
        """Planned logical steps."""
        if self.plan is not None:
            return self.plan.steps
        train = self.spec.train
        return train.steps or max(1, math.floor(train.epochs * len(self.units.units) / self.batch))

    @property
    def digest(self) -> Digest:
        """Digest of everything that must not change between start and resume."""
        settings = msgspec.to_builtins(self.spec)
        kept: dict[str, JsonValue] = {name: settings[name] for name in ("method", "privacy", "extra")}
        kept["data"] = {name: settings["data"][name] for name in ("max_tokens", "completion_only")}
        kept["train"] = {name: value for name, value in settings["train"].items() if name not in _FREE}
        kept["base"] = str(self.base_digest)
        kept["plan"] = self.plan.digest.hex if self.plan is not None else None
        kept["dataset_root"] = self.units.dataset_root
        kept["units"] = self.units.digest.hex
        kept["tokens"] = self.tokens.hex if self.tokens is not None else None
        return Digest.sha256(canonical_json(kept))

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """What a log may know: digests and counts."""
        return {
            "base_digest": str(self.base_digest),
            "dataset_root": self.units.dataset_root,
            "earlier": [run.journal for run in (*self.earlier, *self.unfinished)],
            "plan_digest": self.plan.digest.hex if self.plan is not None else None,
            "guarantee": self.plan.guarantee if self.plan is not None else "none",
            "run_digest": self.digest.hex,
            "steps": self.steps,
            "units": len(self.units.units),
        }


def prepare(spec: TuneSpec, dataset: Dataset, *, earlier: Sequence[Earlier] = ()) -> Preparation:
    """Check the base model, form the units, and with privacy make the plan and verify the earlier runs.

    Args:
        spec: What to tune and how.
        dataset: The private records.
        earlier: Earlier private runs on this dataset beside those that the spec names.

    Raises:
        PrivacySpent: The base was tuned on this dataset without a guarantee.
        VerificationError: The files of an earlier run do not agree.
        InvalidInput: The spec, the base model or the data do not allow the run; see :mod:`stanch.tune.refusals`.
    """
    base = Path(spec.base.path)
    base_digest = check_base(base, spec.base.digest)
    duplicates = _find_duplicates(spec, dataset)
    trainable = trainable_shapes(base, spec.method)
    if not spec.privacy.enabled:
        units = form_units(dataset, unit=RecordUnit(), duplicates=None)
        return Preparation(spec, base_digest, _drop(units, dataset, duplicates), trainable, None)
    unit = parse_unit(spec.data.unit) if spec.data.unit is not None else None
    units = form_units(dataset, unit=unit, duplicates=duplicates)
    params = replace(spec.privacy_params(), excluded=(_GROUPED,) if duplicates is not None else ())
    plan = PrivacyPlan.make(units, trainable, params)
    before, unfinished = read_earlier([*map(Path, spec.privacy.earlier), *earlier], base, units.dataset_root)
    return Preparation(spec, base_digest, units, trainable, plan, before, unfinished)


def trainable_shapes(base: Path, method: MethodSpec) -> tuple[ParameterShape, ...]:
    """Return what would be trained, from the base model's configuration alone: no weights are read."""
    try:
        from stanch.tune import model_torch  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("train") from error
    return model_torch.trainable_shapes(base, method)


def choose_duplicates(spec: TuneSpec, dataset: Dataset) -> Literal["group", "drop", "keep"]:
    """Return what becomes of near-duplicates: what the spec says, or else the default for this data."""
    if spec.extra.duplicates is not None:
        return spec.extra.duplicates
    return "group" if spec.privacy.enabled else "keep" if _is_planted(dataset) else "drop"


def find_dropped(dataset: Dataset, duplicates: DuplicateReport) -> frozenset[str]:
    """Return the ids of the records that ``drop`` leaves out: all but the first of those that say the same.

    Columns beside the text are not tuned on and do not count.
    """
    return find_copies(dataset, duplicates.clusters, ignore_columns=True)


def _is_planted(dataset: Dataset) -> bool:
    return any(step.operation == "inject" for step in read_steps(dataset))


def _find_duplicates(spec: TuneSpec, dataset: Dataset) -> DuplicateReport | None:
    private, chosen = spec.privacy.enabled, choose_duplicates(spec, dataset)
    if chosen == "keep":
        return None
    if private and chosen == "drop":
        raise InvalidInput(
            'duplicates = "drop" is refused with privacy',
            why="whether a record stays would depend on another unit's record",
            next_step='use duplicates = "group", which makes one unit of them',
        )
    if not private and _is_planted(dataset):
        raise InvalidInput(
            f'duplicates = "{chosen}" is refused for data that holds canaries',
            why="planted copies would be dropped, and an audit would count canaries that were never tuned on",
            next_step='de-duplicate before canaries are planted, and use duplicates = "keep", the default then',
        )
    return find_near_duplicates(dataset)


def _drop(units: UnitTable, dataset: Dataset, duplicates: DuplicateReport | None) -> UnitTable:
    if duplicates is None:
        return units
    dropped = find_dropped(dataset, duplicates)
    kept = tuple(unit for unit in units.units if unit.id not in dropped)
    return replace(units, rule="each record; near-duplicates dropped", units=kept, joined=len(duplicates.clusters))
