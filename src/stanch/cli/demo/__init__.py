"""``stanch demo``: a chatbot is tuned on customer records, recites them, and a copy is stolen; then stanch stops it."""

from pathlib import Path

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput


@click.command(cls=Leaf)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option(
    "--model", type=click.Choice(["smollm2", "tiny"]), default="smollm2",
    help="The real SmolLM2-135M, or a small model trained on the spot.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(1, 2**31), default=1, help="Other customers, other weights, same verdicts.")
def demo(folder: Path | None, model: str, seed: int) -> Result:
    """Show a leak happen on a real model, and stop it; everything stays in FOLDER for you to look at.

    Without FOLDER a new one is made beside the others (stanch-demo, stanch-demo-2, …). With the FOLDER of a demo that
    was interrupted, it goes on where it stopped.
    """
    from stanch.cli.demo.scene import Scene  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.demo.story import play  # noqa: PLC0415 - same

    frame = current()
    chosen = folder.absolute() if folder is not None else _free_folder(Path.cwd())
    scene = Scene.begin(chosen, model=model, seed=seed, progress=frame.progress(), quiet=frame.json)
    try:
        play(scene)
    except KeyboardInterrupt:
        click.echo(
            f"\ninterrupted; finished steps are kept. Go on with: stanch demo {chosen} --model {model}", err=True
        )
        raise
    text = (
        f"\ndone in {scene.seconds():.0f} s. Look at:\n"
        f"  {chosen / 'report.html'}     the pictures\n"
        f"  {chosen / 'evidence.zip'}    the evidence, with its own verifier inside"
    )
    return Result(scene.facts(), text)


def _free_folder(parent: Path) -> Path:
    for number in range(1, 1000):
        folder = parent / ("stanch-demo" if number == 1 else f"stanch-demo-{number}")
        if not folder.exists():
            return folder
    raise InvalidInput("there are 999 demos here already", next_step="name a folder: stanch demo FOLDER")
