"""``stanch trace hunt``: does this endpoint serve our release?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current

if TYPE_CHECKING:
    from stanch.trace import Hunt

FILE = click.Path(path_type=Path, dir_okay=False)
EXITS = {"found": 1, "nothing": 0, "undecided": 5}


@click.command("hunt", cls=Leaf)
@click.argument("url")
@click.option("--canaries", type=FILE, required=True, help="The canary plan of the data that the release learned.")
@click.option("--model", required=True, metavar="NAME", help="The model's name there.")
@click.option("--grounds", required=True, help="Why you may ask there; the log holds a commitment to it.")
@click.option("--api-key-file", type=FILE, help="A private file with the key that the server asks for.")
@click.option("--queries", type=click.IntRange(1, 32_768), default=512, show_default=True, help="The most questions.")
@click.option(
    "--per-minute", type=click.IntRange(1, 6000), default=60, show_default=True, help="The most questions in a minute."
)
def hunt(
    url: str, *, canaries: Path, model: str, grounds: str, api_key_file: Path | None, queries: int, per_minute: int
) -> Result:
    """Ask the OpenAI-compatible API at URL (its root, as https://host/v1) for planted canaries and their twins.

    Exit 1 if it serves our release or something made from it, 0 if planted texts do not come back, 5 if that is
    undecided.
    """
    from stanch.audit.endpoint import Endpoint  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - same
    from stanch.cli.secrets import read_api_key  # noqa: PLC0415 - same
    from stanch.data import CanaryPlan  # noqa: PLC0415 - same
    from stanch.workspace.verbs_hunt import HuntOrder, hunt_release  # noqa: PLC0415 - same

    frame, endpoint = current(), Endpoint(url, model, read_api_key(api_key_file))
    order = HuntOrder(
        endpoint=endpoint, plan=CanaryPlan.load(canaries), grounds=grounds, queries=queries, per_minute=per_minute
    )
    with open_workspace(frame) as workspace:
        found = hunt_release(workspace, order, progress=frame.progress())
    return Result(found.to_json(), describe_hunt(found), EXITS[str(found.verdict)])


def describe_hunt(found: "Hunt") -> str:
    """Return a result in a few lines."""
    wealth = found.wealth
    lines = [
        f"{found.verdict:<11}{wealth.answered} of {found.pairs} pairs answered, {wealth.unanswered} not",
        f"  came back  {wealth.wins} planted, {wealth.losses} of their twins   log10 p <= {found.log10_p:.1f}",
    ]
    if found.reason:
        lines.append(f"  why        {found.reason}")
    return "\n".join([*lines, found.sentence])
