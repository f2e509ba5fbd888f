"""``stanch guard conformance``: prove from outside that a gateway lets nothing out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.guard.conformance import Report
    from stanch.guard.matrix import Phrase

IN = click.Path(path_type=Path, dir_okay=False)
_SHORTEST_ROW = 150


@click.command(cls=Leaf)
@click.option("--target", required=True, metavar="URL", help="Where the gateway listens.")
@click.option("--model", required=True, metavar="NAME", help="The model of it whose server this run plays.")
@click.option(
    "--upstream-listen",
    "listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8499",
    show_default=True,
    help="Where to play that server: the model's upstream in the gateway's settings.",
)
@click.option("--rows", type=IN, help="Training text that the gateway's index was built from; one row is tried.")
@click.option("--canaries", type=IN, help="The canary plan that the gateway looks for; one canary is tried.")
@click.option("--key-file", type=IN, help="The file that holds the API key of the client.")
def conformance(
    target: str, model: str, *, listen: str, rows: Path | None, canaries: Path | None, key_file: Path | None
) -> Result:
    """Play a server that leaks in every place and every disguise, and read what the gateway's client gets.

    Ends with 1 if a single answer leaks, cannot be read, or changes a clean text. No output holds a phrase.
    """
    from stanch.guard.conformance import Target, run_matrix  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.guard.leaking import LeakingServer  # noqa: PLC0415 - same
    from stanch.guard.matrix import ROWS, cells  # noqa: PLC0415 - same

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInput("--upstream-listen: expected HOST:PORT")
    phrases = _phrases(rows, canaries)
    if not phrases:
        raise InvalidInput("there is nothing to look for", next_step="give --rows FILE, --canaries FILE, or both")
    made = list(cells(ROWS, phrases))
    bar = current().progress()
    with LeakingServer(host.strip("[]"), int(port)) as server:
        report = run_matrix(
            Target(target, model, _key(key_file)), server, made, progress=lambda done, total: bar("asking", done, total)
        )
    return Result(report.to_json(), _text(report), 0 if report.is_passed else 1)


def _text(report: "Report") -> str:
    shown = json.loads(json.dumps(report.to_json()))
    lines = [f"answers     {shown['cells']} asked, {report.leaks} leaked"]
    for heading in ("places", "disguises"):
        lines.append(heading)
        for name, counts in shown[heading].items():
            lines.append(f"  {name:<34} " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if report.not_offered:
        lines.append(f"note        not offered by the target: {', '.join(report.not_offered)}")
    lines += [f"changed     {place}" for place in shown["changed"]]
    lines += [f"unreadable  {place}" for place in shown["malformed"]]
    if report.leaks:
        lines.append(f"LEAK FOUND  {report.leaks} answers leaked")
    else:
        lines.append("PASS        nothing came out" if report.is_passed else "FAILED      clean answers suffered")
    return "\n".join(lines)


def _phrases(rows: Path | None, canaries: Path | None) -> "list[Phrase]":
    from stanch.data import CanaryPlan  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.guard.matrix import canary_phrase, training_phrase  # noqa: PLC0415 - same

    found = []
    if rows is not None:
        found.append(training_phrase(_row(rows)))
    if canaries is not None:
        found.append(canary_phrase(CanaryPlan.load(canaries).tripwires[0]))
    return found


def _row(path: Path) -> str:
    """Return the first row that is long enough for every gateway to have to see it."""
    from stanch.cli.answers import read_answers  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_input  # noqa: PLC0415 - same

    with open_input(str(path)) as file:
        for answer in read_answers(file, str(path)):
            if sum(map(str.isalnum, answer.text)) >= _SHORTEST_ROW:
                return answer.text
    raise InvalidInput(
        f"{path}: no row has {_SHORTEST_ROW} letters and digits",
        next_step="name rows that the target's index was built from",
    )


def _key(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read") from error
