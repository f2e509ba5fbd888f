"""``stanch data dictionary`` and ``stanch data vault``: the customer's own terms, and values that were put away."""

from pathlib import Path

import click

from stanch.cli.frame import Group, Result, current
from stanch.errors import InvalidInput

FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_BYTES = 256 << 20


@click.group(cls=Group)
def dictionary() -> None:
    """Your own terms, found as keyed hashes."""


@dictionary.command("build")
@click.argument("terms", type=FILE)
@click.option("--label", default="customer-term", help="What its findings are called.")
@click.option("--key", type=FILE, help="A private file of 32 bytes; otherwise a key derived from the workspace's own.")
@click.option("--out", type=FILE, required=True, help="The dictionary; name it in a scan policy.")
def build(terms: Path, label: str, key: Path | None, out: Path) -> Result:
    """Hash the terms in TERMS, one a line, under a key: the file holds no term."""
    from stanch.cli.ground import keyring_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.key_places import read_key, secret_of  # noqa: PLC0415 - same
    from stanch.scan import Dictionary  # noqa: PLC0415 - same

    if out.exists():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another file name")
    secret = read_key(key) if key else secret_of(keyring_of(current()), "dictionary", None, Path())
    made = Dictionary.build(_lines(terms), key=secret, label=label)
    made.save(out)
    text = (
        f"built      {out}: {len(made)} terms, found as {made.label}, key {made.key_id}\n"
        "note       whoever holds both the file and its key can test guesses: keep them apart"
    )
    return Result({"terms": len(made), "label": made.label, "key_id": made.key_id}, text)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text that are not empty."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path}: expected at most {_MAX_BYTES} bytes")
    try:
        return [line for line in data.decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: terms are UTF-8 text") from None


@click.group(cls=Group)
def vault() -> None:
    """Values that pseudonyms stand for."""


@vault.command("open")
@click.argument("path", type=FILE)
@click.option("--identity", type=FILE, required=True, help="The key of one of the vault's recipients.")
@click.option("--pseudonym", "names", multiple=True, required=True, help="Whose value is shown; may be repeated.")
def open_(path: Path, identity: Path, names: tuple[str, ...]) -> Result:
    """Show the values that pseudonyms stand for: a permission of its own, and recorded."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.recipients import identity_of  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import reveal_values  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        values = reveal_values(workspace, path, lambda: identity_of(identity), names)
    lines = [f"{name}  {value}" for name, value in values.items()]
    return Result({"values": dict(values)}, "\n".join(lines))
