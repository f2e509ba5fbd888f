"""What an audit looks at, gathered from files and from the log."""

from dataclasses import dataclass
from pathlib import Path

from stanch.audit import AuditInput
from stanch.cli.dataset import open_dataset_of
from stanch.data import CanaryPlan
from stanch.errors import InvalidInput
from stanch.terms import Digest, NeighboringRelation, PrivacyBudget
from stanch.tune import PrivacyStatement
from stanch.weights import directory_digest
from stanch.workspace import Workspace
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.verbs_model import find_commitment

STATEMENT_NAME = "statement.json"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning left: the digest of its folder, if it is known, and the privacy that it claims, if any."""

    digest: Digest | None
    claim: PrivacyBudget | None


def tuned_at(folder: Path) -> Tuned:
    """Return what the tuning of the model in ``folder`` left."""
    return Tuned(directory_digest(folder).root, read_claim(folder))


def gather_material(
    workspace: Workspace, tuned: Tuned, plan_file: Path | None, train: Path | None, holdout: Path | None
) -> AuditInput:
    """Read plan, training rows and hold-out, and find in the log the commitment that came before the tuning.

    Raises:
        InvalidInput: A file is missing or unreadable.
    """
    plan = CanaryPlan.load(plan_file) if plan_file is not None else None
    claim, digest = tuned.claim, tuned.digest
    return AuditInput(
        plan=plan,
        members=tuple(open_dataset_of(workspace, train)) if train is not None else (),
        holdout=tuple(open_dataset_of(workspace, holdout)) if holdout is not None else (),
        commitment=None if plan is None or digest is None else find_commitment(workspace, plan, digest),
        dp_claim=claim,
        accountant="pld/dp-accounting" if claim is not None else "",
        dataset_digest=str(dataset_ref(train).digest) if train is not None else None,
    )


def read_claim(model: Path) -> PrivacyBudget | None:
    """Return the privacy that a tuned model's statement claims, if it claims any."""
    path = model / STATEMENT_NAME
    return claim_of(path.read_bytes(), what=str(path)) if path.is_file() else None


def claim_of(stated: bytes, *, what: str) -> PrivacyBudget | None:
    """Return the privacy that a statement claims, if it claims any.

    Raises:
        InvalidInput: It is no statement; ``what`` names it.
    """
    statement = PrivacyStatement.from_json(stated)
    if statement.epsilon is None:
        return None
    plan = statement.fields["plan"]
    if not isinstance(plan, dict):
        raise InvalidInput(f"{what}: states an epsilon without its plan", next_step="stanch tune verify FOLDER")
    return PrivacyBudget(
        statement.epsilon,
        float(str(statement.fields["delta"])),
        str(plan["unit"]),
        NeighboringRelation(str(plan["neighboring_relation"])),
    )
