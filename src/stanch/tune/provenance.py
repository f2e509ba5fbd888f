"""A finished run as the provenance statement that :mod:`stanch.sign` makes of it."""

from datetime import datetime
from typing import Any

from stanch.sign import PrivateTraining, Subject, TuningRun
from stanch.terms import Digest, NeighboringRelation
from stanch.tune import journal as journals
from stanch.tune import statement as statements
from stanch.tune.journal import JournalLine, read_journal
from stanch.tune.verify import PLAN_NAME, VerifiedPrivacyRun
from stanch.weights import is_adapter

BUILDER = "urn:stanch:tune:v1"


def describe_run(run: VerifiedPrivacyRun) -> TuningRun:
    """Return what provenance says of a verified run.

    Only a private run keeps a plan and a journal: without them neither the configuration nor the times are stated.
    """
    fields: dict[str, Any] = dict(run.statement.fields)  # verify_run recomputed them all
    names = (statements.NAME, PLAN_NAME, journals.NAME)
    byproducts = {name: Digest.sha256((run.path / name).read_bytes()) for name in names if (run.path / name).exists()}
    lines = _journal_lines(run)
    return TuningRun(
        model=tuple(Subject(file["name"], Digest.parse(f"sha256:{file['sha256']}")) for file in fields["files"]),
        method="lora" if is_adapter(run.path) else "full",
        privacy=_describe_privacy(run),
        base=Digest.parse(fields["base_digest"]),
        dataset=Digest.parse(f"sha256:{fields['dataset_root']}"),
        invocation=f"urn:stanch:run:{byproducts[statements.NAME].hex}",
        builder=BUILDER,
        config=byproducts.get(PLAN_NAME),
        versions=fields["versions"],
        started=datetime.fromisoformat(lines[0].at) if lines else None,
        finished=datetime.fromisoformat(lines[-1].at) if lines else None,
        byproducts=byproducts,
    )


def _journal_lines(run: VerifiedPrivacyRun) -> tuple[JournalLine, ...]:
    if run.plan is None:
        return ()
    return read_journal((run.path / journals.NAME).read_bytes(), run.plan).lines


def _describe_privacy(run: VerifiedPrivacyRun) -> PrivateTraining | None:
    # The model's recipients may hold the earlier models too; where no epsilon bounds all of them, none is stated.
    plan, head, epsilon = run.plan, run.head, run.statement.composed_epsilon
    if plan is None or head is None or epsilon is None:
        return None
    mechanism = plan.mechanism_after(head.charged)
    return PrivateTraining(
        epsilon=epsilon,
        delta=plan.delta,
        noise_multiplier=mechanism.noise_multiplier,
        max_grad_norm=plan.max_grad_norm,
        sample_rate=mechanism.rate,
        steps=head.charged,
        accountant=plan.accountant,
        neighboring_relation=NeighboringRelation(plan.neighboring_relation),
    )
