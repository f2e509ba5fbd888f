"""``stanch log witness``: cosign the checkpoints of other people's logs."""

import re
from pathlib import Path

import click

from stanch.cli.frame import Group, Result, current

_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


@click.group("witness", cls=Group)
def witness() -> None:
    """Watch other people's logs: cosign what extends what was seen before."""


@witness.command("key")
@click.option("--name", required=True, help="The witness's name, for example w.example.com/witness.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new private file (mode 0600).")
def key(name: str, out: Path) -> Result:
    """Make a witness's key, and show its public half for trust policies."""
    from stanch.crypto import SigningKey  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.ledger import Cosigner  # noqa: PLC0415 - same

    signer = SigningKey.generate("ed25519")
    vkey = Cosigner(name, signer).verifier.vkey
    signer.save(out)
    return Result({"file": str(out), "vkey": vkey}, f"witness key  {out} (keep it)\nvkey         {vkey} (give it away)")


@witness.command("serve")
@click.option("--log", "logs", multiple=True, required=True, help="The key of a log to watch; may be repeated.")
@click.option("--name", required=True, help="The witness's name.")
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="Its private key.")
@click.option("--state", type=click.Path(path_type=Path), default=Path("witness.db"), help="What it remembers.")
@click.option("--listen", default="127.0.0.1:8080", help="HOST:PORT; behind a server that speaks TLS.")
def serve(logs: tuple[str, ...], name: str, key_file: Path, state: Path, listen: str) -> Result:
    """Serve C2SP tlog-witness until told to end."""
    from contextlib import closing  # noqa: PLC0415 - keeps `stanch --help` light

    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.errors import InvalidInput  # noqa: PLC0415 - same
    from stanch.ledger import Cosigner, NoteVerifier  # noqa: PLC0415 - same
    from stanch.ledger.witness_http import serve as run  # noqa: PLC0415 - same
    from stanch.ledger.witness_store import WitnessStore  # noqa: PLC0415 - same
    from stanch.store import open_tables  # noqa: PLC0415 - same

    match = _LISTEN.fullmatch(listen)
    if match is None or int(match[3]) > 65_535:
        raise InvalidInput(f"--listen: expected HOST:PORT, found {listen[:80]!r}")
    cosigner = Cosigner(name, SigningKey.load(key_file))
    keys = [NoteVerifier.parse(vkey) for vkey in logs]
    quiet = current().quiet

    def ready(port: int) -> None:
        if not quiet:
            click.echo(f"witness    {cosigner.verifier.vkey} listens on port {port}", err=True)

    with closing(open_tables(f"sqlite:{state.absolute()}", create=True)) as tables:
        run(WitnessStore(tables, cosigner, keys), match[1] or match[2], int(match[3]), ready=ready)
    return Result({"vkey": cosigner.verifier.vkey}, "witness    ended")
