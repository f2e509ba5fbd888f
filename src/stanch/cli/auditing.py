"""What an audit looks at, gathered from files and from the log."""

from dataclasses import dataclass, replace
from pathlib import Path

from stanch.audit import AuditInput
from stanch.audit.integrity import Problem
from stanch.cli.dataset import open_dataset_of
from stanch.data import CanaryPlan, Dataset, Record, find_near_duplicates
from stanch.terms import Digest, PrivacyBudget
from stanch.tune import PrivacyStatement, VerifiedPrivacyRun, VerifyExpectations, verify_run
from stanch.tune.prepare import find_dropped
from stanch.weights import directory_digest
from stanch.workspace import Workspace
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.tuning_log import Tuning, find_commitment, find_tuning

STATEMENT_NAME = "statement.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning left.

    Attributes:
        digest: Digest of the model's folder, if it is known.
        claim: The privacy that it claims, if any.
        base: Digest of the folder of its base model, if it is stated.
    """

    digest: Digest | None = None
    claim: PrivacyBudget | None = None
    base: str | None = None


def tuned_at(folder: Path) -> Tuned:
    """Return what the tuning of the model in ``folder`` left; its claim is computed again from plan and journal.

    Raises:
        VerificationError: The statement does not follow, or speaks of other files than these.
    """
    digest = directory_digest(folder).root
    if not (folder / STATEMENT_NAME).is_file():
        return Tuned(digest)
    verified = verify_run(folder, expect=VerifyExpectations(allow_void=True))
    return Tuned(digest, _claim_of(verified), base_of(verified.statement))


def gather_material(
    workspace: Workspace, tuned: Tuned, plan_file: Path | None, train: Path | None, holdout: Path | None
) -> AuditInput:
    """Read plan, training rows and hold-out, and find in the log how the model was tuned, on what, and when.

    Raises:
        InvalidInput: A file is missing or unreadable.
    """
    plan = CanaryPlan.load(plan_file) if plan_file is not None else None
    tuning = find_tuning(workspace, tuned.digest) if tuned.digest is not None else None
    data = dataset_ref(train).digest if train is not None else None
    found = find_commitment(workspace, plan, tuning, data) if plan is not None and tuning is not None else None
    material = AuditInput(
        plan=plan,
        members=() if train is None else _learned_rows(open_dataset_of(workspace, train), tuning),
        holdout=tuple(open_dataset_of(workspace, holdout)) if holdout is not None else (),
        commitment=None if isinstance(found, Problem) else found,
        problems=(found,) if isinstance(found, Problem) else (),
        dp_claim=tuned.claim,
        accountant="pld/dp-accounting" if tuned.claim is not None else "",
        dataset_digest=None if data is None else str(data),
        tuned_from=tuned.base,
    )
    if tuning is None or not tuning.is_told:
        cut = (
            f"rows were cut after {material.max_tokens:,} tokens, and of conversations the last answer alone was scored"
        )
        return replace(material, limits=(f"The log does not say how the model was tuned: {cut}, as stanch tunes.",))
    return replace(material, max_tokens=tuning.max_tokens, completion_only=tuning.completion_only)


def _learned_rows(dataset: Dataset, tuning: Tuning | None) -> tuple[Record, ...]:
    """Return the rows that the tuning read: near-duplicates that it dropped were never learned."""
    if tuning is None or tuning.duplicates != "drop":
        return tuple(dataset)
    dropped = find_dropped(dataset, find_near_duplicates(dataset))
    return tuple(record for record in dataset if record.id not in dropped)


def base_of(statement: PrivacyStatement) -> str | None:
    """Return the digest of the base model's folder, where a statement names that.

    The private trainers state a digest of the loaded weights instead; they are known by a package that they alone use.
    """
    versions = statement.fields.get("versions")
    is_of_folder = isinstance(versions, dict) and "accelerate" not in versions
    return str(statement.fields["base_digest"]) if is_of_folder else None


def _claim_of(verified: VerifiedPrivacyRun) -> PrivacyBudget | None:
    """Return the privacy of a run and of the earlier ones on its data; None where they do not add up to a bound."""
    budget, total = verified.budget, verified.statement.fields.get("composed_epsilon")
    if budget is None or not isinstance(total, int | float):
        return None
    return PrivacyBudget(float(total), budget.delta, budget.unit, budget.relation)
