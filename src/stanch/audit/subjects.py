"""What an audit scores: canaries, training rows and hold-out records, as tokens, features and one table of scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stanch.audit.extraction import sample_rows, sampling_key
from stanch.audit.features import Adapter, AdapterOff, Features, Scorer
from stanch.audit.integrity import Problem
from stanch.audit.params import ROWS_TIER, AuditParams, Mode
from stanch.audit.passes import Passing, run_pass
from stanch.audit.repeated import count_copies, much_repeated
from stanch.audit.score_table import ScoreTable
from stanch.audit.scores import Observation, compressed_size, score
from stanch.audit.sections import ModelSummary
from stanch.data import CanaryPlan, Record, TokenRecord, tokenise, tokenise_canary, turns
from stanch.terms import CommitmentEvidence, PrivacyBudget, Progress

ROW_KIND = "record"

# Ids of the three sorts of records may be equal, so each sort has its own prefix while they share one feature pass.
CANARY, MEMBER, HOLDOUT = "c/", "m/", "h/"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditInput:
    """What an audit looks at besides the model; what is given decides its mode.

    Attributes:
        plan: Canaries put in by coins (mode ``planned``).
        members: The training set as it was tuned on, canaries included.
        holdout: Records of the same source that were kept out (mode ``holdout``, where there is no plan).
        commitment: Proof that the plan was logged before the tuning began.
        problems: What is known to be wrong with the way of the canaries into the tuning.
        limits: What a reader must know of the material, in sentences.
        dp_claim: A differential-privacy claim to test.
        accountant: What computed that claim.
        model: Digests of a model that was opened from memory, for the report.
        dataset_digest: Digest of the training set, for the report.
        tuned_from: Digest of the folder of the base model, where the tuning names it.
        max_tokens: As in the tuning.
        completion_only: As in the tuning.
    """

    plan: CanaryPlan | None = None
    members: Sequence[Record] = ()
    holdout: Sequence[Record] = ()
    commitment: CommitmentEvidence | None = None
    problems: tuple[Problem, ...] = ()
    limits: tuple[str, ...] = ()
    dp_claim: PrivacyBudget | None = None
    accountant: str = ""
    model: ModelSummary | None = None
    dataset_digest: str | None = None
    tuned_from: str | None = None
    max_tokens: int = 1024
    completion_only: bool = True

    @property
    def mode(self) -> Mode:
        """The strongest mode that the material allows."""
        return "planned" if self.plan is not None else "holdout" if self.holdout else "bare"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The token records of an audit.

    Attributes:
        trained: The whole training set.
        canaries: Every canary, with its secret as scored span.
        rows: The rows that are tested: all that are no canary, or a sample of them.
        holdout: The hold-out records.
        census: Whether ``rows`` are all rows.
        repeated: Rows outside that sample that stand in the data set four times or more: tested apart.
        copies: How many rows say nearly the same as each row, itself included; those that no other equals are left out.
        texts: The scored text of each of these records, for its compressed size.
    """

    trained: tuple[TokenRecord, ...]
    canaries: tuple[TokenRecord, ...]
    rows: tuple[TokenRecord, ...]
    holdout: tuple[TokenRecord, ...]
    census: bool
    texts: Mapping[str, str]
    repeated: tuple[TokenRecord, ...] = ()
    copies: Mapping[str, int] = field(default_factory=dict)

    @property
    def scored(self) -> tuple[TokenRecord, ...]:
        """The records of the score table: canaries; without any, rows and hold-out records.

        Beside canaries no test asks for the scores of a row.
        """
        return self.canaries or (*self.rows, *self.holdout)

    def __repr__(self) -> str:
        sizes = f"canaries={len(self.canaries)}, rows={len(self.rows)}, holdout={len(self.holdout)}"
        return f"Subjects(trained={len(self.trained)}, {sizes})"


@dataclass(frozen=True, slots=True)
class Passes:
    """What was put through the models, and the features of each record from the target and from the base, if any."""

    records: tuple[TokenRecord, ...]
    target: Mapping[str, Features]
    base: Mapping[str, Features] | None

    def joined(self, later: "Passes") -> "Passes":
        """Return these and ``later`` ones; where a record is in both, the later features."""
        base = None if self.base is None or later.base is None else {**self.base, **later.base}
        return Passes((*self.records, *later.records), {**self.target, **later.target}, base)


def gather(scorer: Scorer, material: AuditInput, params: AuditParams) -> Subjects:
    """Tokenise the material as the tuning did, tell canaries from rows, and draw the sample of rows."""
    plan, tokenizer = material.plan, scorer.tokenizer
    trained = tuple(
        tokenise(record, tokenizer, max_tokens=material.max_tokens, completion_only=material.completion_only)
        for record in material.members
    )
    canaries = () if plan is None else tuple(tokenise_canary(canary, tokenizer) for canary in plan.canaries)
    planted = {record.ids for record in canaries}
    tested = [_named(MEMBER, record) for record in trained if record.ids not in planted]
    key = sampling_key("" if plan is None else plan.plan_id)
    rows, census = sample_rows(tested, limit=params.rows, key=key)
    ordinary = {record.id for record in tested}
    copies = {MEMBER + name: size for name, size in count_copies(material.members).items() if MEMBER + name in ordinary}
    drawn = {record.id for record in rows}
    left = [record for record in tested if record.id not in drawn and much_repeated(copies.get(record.id, 1))]
    repeated, _ = sample_rows(left, limit=params.rows, key=key)
    held = tuple(
        _named(
            HOLDOUT,
            tokenise(record, tokenizer, max_tokens=material.max_tokens, completion_only=material.completion_only),
        )
        for record in material.holdout
    )
    texts = {MEMBER + record.id: _answer(record) for record in material.members}
    texts |= {HOLDOUT + record.id: _answer(record) for record in material.holdout}
    if plan is not None:
        texts |= {CANARY + canary.id: canary.secret for canary in plan.canaries}
    named = tuple(_named(CANARY, record) for record in canaries)
    return Subjects(trained, named, tuple(rows), held, census, texts, tuple(repeated), copies)


def run_passes(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    records: Sequence[TokenRecord],
    params: AuditParams,
    *,
    what: str,
    passing: Passing,
    progress: Progress,
) -> Passes:
    """Put every record once through the target and once through the base; ``what`` they are is told to ``progress``."""

    def put(stage: str, scorer: Scorer, *modes: Adapter) -> tuple[dict[str, Features], ...]:
        stage = f"{stage}: {what}"
        return run_pass(stage, scorer, records, modes, params.decoding, passing=passing, progress=progress)

    if isinstance(base, AdapterOff):
        return Passes(tuple(records), *put("target and base", target, "on", "off"))
    (found,) = put("target", target, "on")
    return Passes(tuple(records), found, None if base is None else put("base", base, "on")[0])


def tabulate(
    subjects: Subjects, passes: Passes, plan: CanaryPlan | None, *, without: frozenset[str] = frozenset()
) -> ScoreTable:
    """Return the scores of all scored records but those in ``without`` (ids with their prefix).

    Raises:
        InvalidInput: A score is not finite; the record is named by its id.
    """
    canaries = {} if plan is None else {CANARY + canary.id: canary for canary in plan.canaries}
    records = [record for record in subjects.scored if record.id not in without]
    columns: dict[str, list[float]] = {}
    for record in records:
        base = None if passes.base is None else passes.base[record.id]
        seen = Observation(passes.target[record.id], base, compressed_size(subjects.texts[record.id]))
        for name, value in score(seen).items():
            columns.setdefault(name, []).append(value)
    about = [canaries.get(record.id) for record in records]
    return ScoreTable(
        ids=tuple(table_id(record.id) for record in records),
        kinds=tuple(ROW_KIND if canary is None else canary.kind for canary in about),
        tiers=tuple(ROWS_TIER if canary is None else canary.tier for canary in about),
        member=np.array(
            [
                record.id.startswith(MEMBER) if canary is None else canary.member
                for record, canary in zip(records, about, strict=True)
            ],
            dtype=np.bool_,
        ),
        copies=np.array([1 if canary is None else canary.copies for canary in about], dtype=np.int64),
        scores={name: np.array(values) for name, values in columns.items()},
    )


def table_id(name: str) -> str:
    """Return the id that stands in the score table: hold-out records keep a prefix, since their ids may repeat."""
    return f"holdout/{name.removeprefix(HOLDOUT)}" if name.startswith(HOLDOUT) else name[len(MEMBER) :]


def _named(prefix: str, record: TokenRecord) -> TokenRecord:
    return dataclasses.replace(record, id=prefix + record.id)


def _answer(record: Record) -> str:
    """Return the text that is learned of a record: its last turn, or all of a plain text."""
    return turns(record)[-1].content
