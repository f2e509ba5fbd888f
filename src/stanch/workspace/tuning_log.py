"""What the log says of how a model came about: how it was tuned, and where a plan's canaries went."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from stanch.audit.evidence import Reason
from stanch.audit.integrity import Problem
from stanch.data import CanaryPlan, Dataset
from stanch.ledger import EntryQuery, LedgerReader, decode_entry
from stanch.terms import CommitmentEvidence, Digest, JsonValue
from stanch.tune import Earlier, EarlierRun, JournalHead, PrivacyStatement, TuneSpec, UnfinishedRun
from stanch.tune.plan import DP
from stanch.tune.prepare import choose_duplicates
from stanch.tune.statement import NO_GUARANTEE
from stanch.workspace.opening import Workspace
from stanch.workspace.past_acts import DONE

_LEARNED = ("max_tokens", "completion_only", "duplicates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A tuning that the log holds, and what of each record it learned.

    Attributes:
        began: Index of its intent.
        dataset: Digest of the file that it was tuned on.
        max_tokens: What of a record went beyond was cut off.
        completion_only: Whether answers alone were learned.
        duplicates: What became of near-duplicates: ``group``, ``drop`` or ``keep``.
        is_told: Whether the log says the last three; earlier releases did not record them, and the defaults stand here.
    """

    began: int
    dataset: str
    max_tokens: int = 1024
    completion_only: bool = True
    duplicates: str = "keep"
    is_told: bool = False


def taught(spec: TuneSpec, dataset: Dataset) -> dict[str, JsonValue]:
    """Return what the outcome of a tuning records of what it learned of each record."""
    return {
        "max_tokens": spec.data.max_tokens, "completion_only": spec.data.completion_only,
        "duplicates": choose_duplicates(spec, dataset),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spent:
    """The private runs on a file that the log holds.

    Attributes:
        runs: Those of which it says what they spent.
        untold: Digests of the models of the others: earlier releases did not record it.
        unfinished: Those that never ended, as the heads of their journals tell.
    """

    runs: tuple[EarlierRun, ...]
    untold: frozenset[str]
    unfinished: tuple[UnfinishedRun, ...]

    @property
    def earlier(self) -> tuple[Earlier, ...]:
        """What a new run is told of."""
        return (*self.runs, *self.unfinished)


def tell_model(model: Digest, statement: PrivacyStatement | None) -> dict[str, JsonValue]:
    """Return what the outcome of a tuning records of the model, and of the privacy that it spent."""
    epsilon = None if statement is None else statement.epsilon
    run = None if statement is None else EarlierRun.stated(statement)
    told: dict[str, JsonValue] = {
        "model": str(model), "guarantee": NO_GUARANTEE if statement is None else statement.guarantee,
        "epsilon": "" if epsilon is None else repr(epsilon),
    }  # fmt: skip
    return told if run is None else {**told, "spent": {name: _text(value) for name, value in asdict(run).items()}}


def find_spent(workspace: Workspace, data: Digest, known: Collection[str | None] = ()) -> Spent:
    """Return the private runs on the file with this digest that the log holds.

    Args:
        workspace: Whose log is asked.
        data: Digest of the file.
        known: Names of journals that are counted elsewhere, or go on.
    """
    runs, untold = [], set()
    for told in _told_of(workspace, EntryQuery(kind="tune.run", phase="outcome", status=DONE), data):
        if told.get("guarantee") == DP and "spent" in told:
            # Numbers that are no integers stand there as text.
            runs.append(msgspec.convert(told["spent"], EarlierRun, strict=False))
        elif told.get("guarantee") == DP:
            untold.add(told["model"])
    heads = defaultdict(list)
    for told in _told_of(workspace, EntryQuery(kind="tune.anchor", phase="intent"), data):
        if told["journal"] not in known:
            heads[told["journal"]].append(JournalHead.parse(told["head"]))
    ended = {run.journal for run in runs}
    unfinished = tuple(
        UnfinishedRun(journal, max(head.charged for head in found))
        for journal, found in heads.items()
        if ended.isdisjoint(head.hash for head in found)
    )
    return Spent(tuple(runs), frozenset(untold), unfinished)


def _told_of(workspace: Workspace, query: EntryQuery, data: Digest) -> Iterator[dict[str, Any]]:
    reader = workspace.ledger.reader()
    for ref in reader.query(query):
        ours = _ours(reader, ref.index)
        if ours["subject"][0]["digest"] == str(data):
            yield ours.get("payload", {})


def _text(value: JsonValue) -> JsonValue:
    return repr(value) if isinstance(value, float) else value


def find_tuning(workspace: Workspace, model: Digest) -> Tuning | None:
    """Return the tuning that made ``model``; None if the log holds none."""
    reader = workspace.ledger.reader()
    for ref in reader.query(EntryQuery(kind="tune.run", phase="outcome")):
        ours = _ours(reader, ref.index)
        told = ours.get("payload", {})
        if told.get("model") != str(model):
            continue
        about: dict[str, Any] = {name: told[name] for name in _LEARNED if name in told}
        return Tuning(
            began=next(reader.query(EntryQuery(act=ref.act, phase="intent"))).index,
            dataset=ours["subject"][0]["digest"],
            is_told=len(about) == len(_LEARNED),
            **about,
        )
    return None


def find_commitment(
    workspace: Workspace, plan: CanaryPlan, tuning: Tuning, data: Digest | None
) -> CommitmentEvidence | Problem | None:
    """Return the proof that ``plan`` was committed to before its canaries went into what the model was tuned on.

    Args:
        workspace: Whose log is asked.
        plan: The canary plan.
        tuning: The tuning of the audited model.
        data: Digest of the file that the audit takes for the training set.

    Returns:
        None if the log never committed to the plan, or only after the tuning had begun. A problem if the model was
        tuned on another file than ``data``, or the canaries went into another, or the log does not say what was learned
        of each record: then nothing shows that the model ever saw the canaries.
    """
    if tuning.dataset != str(data):
        return _broken(f"the log says that the model was tuned on {tuning.dataset}, --data is {data or 'not given'}")
    if not tuning.is_told:
        return _broken("the log does not say how the tuning cut its records: an earlier release wrote it; tune again")
    reader = workspace.ledger.reader()
    planted: dict[int, str | None] = {}
    for ref in reader.query(EntryQuery(kind="data.inject", phase="intent")):
        if _ours(reader, ref.index).get("payload", {}).get("commitment") != plan.commitment:
            continue
        done = next(reader.query(EntryQuery(act=ref.act, phase="outcome")), None)
        told = {} if done is None else _ours(reader, done.index).get("payload", {})
        planted[ref.index] = told.get("inserted_dataset")
    committed = next((index for index, file in planted.items() if file == tuning.dataset), None)
    if committed is None:
        return _broken("the plan's canaries went into another file than the tuning read") if planted else None
    return CommitmentEvidence(plan.commitment, committed, tuning.began) if committed < tuning.began else None


def _broken(found: str) -> Problem:
    return Problem(Reason.BROKEN_CANARY_PATH, found)


def _ours(reader: LedgerReader, index: int) -> dict[str, Any]:
    found: dict[str, Any] = decode_entry(reader.entry(index))["unmapped"]["stanch"]
    return found
