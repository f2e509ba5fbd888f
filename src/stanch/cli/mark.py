"""``stanch mark``: mark copies and find them again, on any model directory. No workspace is needed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Result, current
from stanch.cli.mark_examine import detect, lineage, rehearse
from stanch.cli.strength import COPIES, show_colluders, show_distortion
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.mark import MarkPlan
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
BASE = click.option("--base", type=FOLDER, help="The public base model: a merged adapter is then refused.")
KEYS = click.option("--keys", type=FOLDER, required=True, help="The folder of the release's keys.")
_MAX_NAMES = 16 << 20


@click.group(cls=Group)
def mark() -> None:
    """Mark copies and find them again, without a workspace."""


mark.add_command(detect)
mark.add_command(lineage)
mark.add_command(rehearse)


@mark.command("plan")
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--kind", type=click.Choice(["full", "adapter"]), help="By default what DIR holds.")
@BASE
def plan(directory: Path, kind: "str | None", base: Path | None) -> Result:
    """Say what would be marked in DIR, how strongly, and how many colluders would still be found."""
    from stanch.mark import expected_score, plan_mark  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.mark.strength import TREATMENTS  # noqa: PLC0415 - same

    made = plan_mark(model_at(directory), kind="adapter" if kind == "adapter" else "full" if kind else None, base=base)
    size = made.layout.coordinates
    scores = {name: expected_score(size, made.alpha, noise) for name, noise in TREATMENTS.items()}
    lines = [
        f"marks      {size:,} weights in {len(made.layout.entries)} tensors ({made.kind}), alpha {made.alpha:.3g}",
        f"changes    {show_distortion(made.strength)}",
        *(
            f"  {name:<8} expected z {scores[name]:,.0f} · {show_colluders(most, even)}"
            for name, (most, even) in made.colluders.items()
        ),
        COPIES,
        f"next       stanch mark commit {directory} --recipients FILE --keys FOLDER",
    ]
    expected: dict[str, JsonValue] = dict(scores)
    return Result(made.to_json() | {"expected_z": expected}, "\n".join(lines))


def model_at(directory: Path) -> Path:
    """Return a folder that is there.

    Raises:
        InvalidInput: It is not.
    """
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: no such folder")
    return directory


@mark.command("commit")
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--recipients", type=FILE, required=True, help="Every recipient's name, one a line.")
@click.option("--keys", type=FOLDER, required=True, help="A new folder for the keys; keep it secret, and keep it.")
@click.option("--decoys", type=click.IntRange(1, 1_000_000), default=1024, show_default=True,
              help="Keys that are never issued; their scores show that the test is sound.")  # fmt: skip
@BASE
def commit(directory: Path, recipients: Path, keys: Path, decoys: int, base: Path | None) -> Result:
    """Make the keys for all recipients of DIR and commit to them."""
    from stanch.mark import KeyFolder, plan_mark  # noqa: PLC0415 - keeps `stanch --help` light

    made = KeyFolder.create(keys, plan_mark(model_at(directory), base=base), _names(recipients), decoys=decoys)
    root = made.commitment.root.hex()
    text = (
        f"committed  {keys}: {len(made.commitment.slots)} recipients, {decoys} decoys\n"
        f"root       {root}\n"
        "next       publish that root: in a public log, or with a time stamp; then, with the log's next checkpoint or\n"
        f"           the time stamp: stanch mark beacon {keys} FILE"
    )
    return Result({"keys": str(keys), "root": root, "recipients": len(made.commitment.slots), "decoys": decoys}, text)


def _names(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_NAMES + 1)
        lines = data.decode().splitlines()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text") from error
    if len(data) > _MAX_NAMES:
        raise InvalidInput(f"{path}: expected at most {_MAX_NAMES} bytes")
    return [line.strip() for line in lines if line.strip()]


@mark.command("beacon")
@click.argument("keys", type=FOLDER)
@click.argument("file", type=FILE)
def beacon(keys: Path, file: Path) -> Result:
    """Bind the keys to FILE, a public file that did not exist when their root was published.

    Its digest enters every mark, so nobody can say that keys were chosen to fit a model.
    """
    from stanch.mark import set_beacon  # noqa: PLC0415 - keeps `stanch --help` light

    digest = set_beacon(keys, file).hex()
    text = f"beacon     {digest}, kept in {keys}\nnext       stanch mark apply DIR --keys {keys} --to NAME --out COPY"
    return Result({"beacon": digest}, text)


@mark.command("apply")
@click.argument("directory", metavar="DIR", type=FOLDER)
@KEYS
@click.option("--to", "recipient", required=True, help="Whose copy it is.")
@click.option("--out", type=FOLDER, required=True, help="A new folder for the copy.")
def apply(directory: Path, keys: Path, recipient: str, out: Path) -> Result:
    """Write the marked copy of DIR for one recipient. It lies there in plain: `stanch release` seals it instead."""
    from stanch.mark import KeyFolder, embed  # noqa: PLC0415 - keeps `stanch --help` light

    made = _plan_at(directory)
    copy = embed(directory, out, made, KeyFolder.load(keys, made).copy_key(recipient), progress=current().progress())
    text = (
        f"marked     {out}: for {recipient}, {copy.coordinates:,} weights\n"
        f"digest     {copy.digest.root}\n"
        "note       whoever reads this folder holds that recipient's copy"
    )
    data: dict[str, JsonValue] = {
        "path": str(out), "recipient": recipient, "leaf": copy.leaf, "coordinates": copy.coordinates,
        "digest": str(copy.digest.root),
    }  # fmt: skip
    return Result(data, text)


def _plan_at(directory: Path) -> "MarkPlan":
    from stanch.mark import plan_mark  # noqa: PLC0415 - keeps `stanch --help` light

    return plan_mark(model_at(directory))
