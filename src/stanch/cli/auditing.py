"""What an audit looks at, gathered from files and from the log."""

from pathlib import Path

from stanch.audit import AuditInput
from stanch.cli.ground import open_dataset_of
from stanch.data import CanaryPlan
from stanch.errors import InvalidInput
from stanch.terms import NeighboringRelation, PrivacyBudget
from stanch.tune import PrivacyStatement
from stanch.weights import directory_digest
from stanch.workspace import Workspace
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.verbs_model import find_commitment

STATEMENT_NAME = "statement.json"


def gather_material(
    workspace: Workspace, model: Path, plan_file: Path | None, train: Path | None, holdout: Path | None
) -> AuditInput:
    """Read plan, training rows and hold-out, find the commitment in the log, and the privacy claim beside the model.

    Raises:
        InvalidInput: A file is missing or unreadable, or the model's folder does not exist.
    """
    if not model.is_dir():
        raise InvalidInput(f"{model}: expected a model folder", next_step="give the folder that tuning wrote")
    plan = CanaryPlan.load(plan_file) if plan_file is not None else None
    claim = read_claim(model)
    return AuditInput(
        plan=plan,
        members=tuple(open_dataset_of(workspace, train)) if train is not None else (),
        holdout=tuple(open_dataset_of(workspace, holdout)) if holdout is not None else (),
        commitment=find_commitment(workspace, plan, directory_digest(model).root) if plan is not None else None,
        dp_claim=claim,
        accountant="pld/dp-accounting" if claim is not None else "",
        dataset_digest=str(dataset_ref(train).digest) if train is not None else None,
    )


def read_claim(model: Path) -> PrivacyBudget | None:
    """Return the privacy that a tuned model's statement claims, if it claims any."""
    path = model / STATEMENT_NAME
    if not path.is_file():
        return None
    statement = PrivacyStatement.from_json(path.read_bytes())
    if statement.epsilon is None:
        return None
    plan = statement.fields["plan"]
    if not isinstance(plan, dict):
        raise InvalidInput(f"{path}: states an epsilon without its plan", next_step=f"stanch tune verify {model}")
    return PrivacyBudget(
        statement.epsilon,
        float(str(statement.fields["delta"])),
        str(plan["unit"]),
        NeighboringRelation(str(plan["neighboring_relation"])),
    )
