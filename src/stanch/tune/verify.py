"""Check a finished run from its files alone: plan, journal, statement and model. Needs no torch."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from stanch.errors import InvalidInput, NotFound, Tampered, UnexpectedFile, VerificationError
from stanch.terms import JsonValue, PrivacyBudget
from stanch.tune import journal as journals
from stanch.tune import statement as statements
from stanch.tune.accountant import accountant_version, check_reach
from stanch.tune.journal import JournalHead, check_anchor, read_journal
from stanch.tune.plan import VOID, PrivacyPlan
from stanch.tune.refusals import GuaranteeVoid
from stanch.tune.statement import ModelFile, PrivacyStatement, RunFacts, state_no_privacy, state_privacy
from stanch.weights import directory_digest

PLAN_NAME = "plan.json"
RUN_FILES = frozenset({PLAN_NAME, journals.NAME, journals.TORN_NAME, statements.NAME})
"""Files of a run's folder that are about the run; all others are the model."""

_SAME_VERSION = 1e-6
_OTHER_VERSION = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyExpectations:
    """What the verifier knows from elsewhere.

    Attributes:
        model: Folder with the model's files, when it is not the run's folder.
        dataset_root: Root of the dataset's manifest (hex).
        anchor: A head of the journal that was kept elsewhere, such as in the ledger.
        allow_void: Accept a run whose keys came from a public seed; it guarantees nothing.
    """

    model: Path | None = None
    dataset_root: str | None = None
    anchor: JournalHead | None = None
    allow_void: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedPrivacyRun:
    """A run whose files agree with each other and with the model.

    Attributes:
        path: The run's folder.
        statement: The statement, recomputed.
        plan: The plan; None for a run without privacy.
        head: The journal's head; None for a run without privacy.
        notes: What a reader should know, such as another accountant version.
    """

    path: Path
    statement: PrivacyStatement
    plan: PrivacyPlan | None
    head: JournalHead | None
    notes: tuple[str, ...]

    @property
    def budget(self) -> PrivacyBudget | None:
        """The guarantee; None for a run without privacy, or with keys from a public seed."""
        if self.plan is None or self.head is None or self.plan.guarantee == VOID:
            return None
        return self.plan.budget_after(self.head.charged)


def verify_run(run: Path, *, expect: VerifyExpectations | None = None) -> VerifiedPrivacyRun:
    """Recompute everything that a run states, and compare.

    Raises:
        VerificationError: The first thing that does not agree, by name, with what was expected and found.
        NotFound: The folder holds no run.
        PlanInfeasible: The plan protects nobody.
        GuaranteeVoid: All agrees, but the keys came from a public seed.
    """
    expect = expect or VerifyExpectations()
    statement = PrivacyStatement.from_json(_read(run, statements.NAME))
    facts = _read_facts(statement)
    notes: tuple[str, ...] = ()
    if statement.guarantee == statements.NO_GUARANTEE:
        plan, head = None, None
        for name in (PLAN_NAME, journals.NAME):
            if (run / name).exists():
                raise Tampered(f"{name}: present, but {statements.NAME} states no guarantee")
        _compare(statement, state_no_privacy(facts), _SAME_VERSION)
    else:
        plan, head = _check_journal(run, statement, expect.anchor)
        check_reach(plan.mechanism_after(head.charged), plan.delta)
        for earlier in facts.earlier_runs:
            check_reach(earlier.mechanism, earlier.delta)
        same = plan.accountant_version == accountant_version()
        notes = (
            () if same else (f"computed with dp-accounting {plan.accountant_version}, checked with another version",)
        )
        _compare(statement, state_privacy(plan, head, facts), _SAME_VERSION if same else _OTHER_VERSION)
    if expect.dataset_root is not None and expect.dataset_root != facts.dataset_root:
        raise Tampered(f"dataset root: expected {expect.dataset_root}, found {facts.dataset_root}")
    _check_files(expect.model or run, facts)
    if plan is not None and plan.guarantee == VOID:
        if not expect.allow_void:
            raise GuaranteeVoid(
                f"{run}: guarantee {plan.guarantee}",
                why="whoever knows the seed can take the noise away, so that nothing is protected",
                next_step="tune without --insecure-reproducible, or accept it with --allow-void",
            )
        notes = (*notes, f"guarantee {plan.guarantee}: nothing is protected")
    return VerifiedPrivacyRun(run, statement, plan, head, notes)


def model_files(folder: Path) -> tuple[ModelFile, ...]:
    """Return the files in ``folder`` that are the model."""
    return tuple(ModelFile(*file) for file in directory_digest(folder).files if file[0] not in RUN_FILES)


def _read(run: Path, name: str) -> bytes:
    try:
        return (run / name).read_bytes()
    except OSError as error:
        raise NotFound(
            f"{run / name}: cannot be read", why="the folder holds no whole run", next_step="name a run's output folder"
        ) from error


def _check_journal(
    run: Path, statement: PrivacyStatement, anchor: JournalHead | None
) -> tuple[PrivacyPlan, JournalHead]:
    """Return plan and head after checking plan.json and budget.jsonl against each other and the statement."""
    try:
        plan = PrivacyPlan.from_json(_read(run, PLAN_NAME))
    except InvalidInput as error:
        raise Tampered(f"{PLAN_NAME}: {error.what}", why=error.why) from error
    _expect(f"{PLAN_NAME}: digest", statement.fields.get("plan_digest"), plan.digest.hex)
    reading = read_journal(_read(run, journals.NAME), plan)
    if reading.torn or reading.lines[-1].event != "close":
        raise Tampered(f"{journals.NAME}: expected a closing line at the end")
    head = reading.head
    _expect(f"{journals.NAME}: head", statement.fields.get("journal_head"), {"hash": head.hash, "lines": head.lines})
    check_anchor(reading, anchor)
    return plan, head


def _read_facts(statement: PrivacyStatement) -> RunFacts:
    """Return the facts in a statement; a wrong type is found here, a wrong value by comparison."""
    plan = statement.fields.get("plan")
    planned = plan.get("excluded") if isinstance(plan, dict) else []
    try:
        facts = msgspec.convert(dict(statement.fields), RunFacts)
    except msgspec.ValidationError as error:
        raise Tampered(f"{statements.NAME}: {error}") from error
    return replace(facts, excluded=facts.excluded[len(planned) if isinstance(planned, list) else 0 :])


def _compare(found: PrivacyStatement, expected: PrivacyStatement, tolerance: float) -> None:
    """Raise on the first field that differs; floats may differ by ``tolerance``."""
    if found.guarantee != expected.guarantee or set(found.fields) != set(expected.fields):
        raise Tampered(f"{statements.NAME}: other fields than the run has")
    for name in sorted(expected.fields):
        one, other = found.fields[name], expected.fields[name]
        if not _close(one, other, tolerance):
            raise Tampered(
                f"{statements.NAME}: {name}: expected {str(other)[:80]}, found {str(one)[:80]}",
                why="recomputed from plan and journal",
            )


def _close(one: JsonValue, other: JsonValue, tolerance: float) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(_close(one[name], other[name], tolerance) for name in one)
    if isinstance(other, float) and isinstance(one, (int, float)) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return one == other


def _expect(what: str, stated: JsonValue, found: JsonValue) -> None:
    if stated != found:
        raise Tampered(f"{what}: the statement says {stated}, found {found}", why="a file of the run was exchanged")


def _check_files(folder: Path, facts: RunFacts) -> None:
    found = {file.name: file for file in model_files(folder)}
    for file in facts.files:
        if file.name not in found:
            raise VerificationError(f"{file.name}: a file of the model is missing")
        if found.pop(file.name) != file:
            raise Tampered(f"{file.name}: expected sha256 {file.sha256} ({file.size} bytes), found another file")
    if found:
        raise UnexpectedFile(f"{min(found)}: not a file of the stated model")
