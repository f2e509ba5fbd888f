"""What the options ``--to``, ``--identity`` and ``--trust`` name, for the commands that work with sealed bundles."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import current
from stanch.errors import InvalidInput, NotAuthenticated

if TYPE_CHECKING:
    from stanch.crypto.passphrase import Passphrase
    from stanch.crypto.stanza import KeyProvider
    from stanch.crypto.timestamp import TimestampRoots
    from stanch.sign import TimestampAuthority, Timestamped, TrustedKeys

_MAX_ROOTS = 1 << 20
TIMESTAMP_ROOTS = click.option(
    "--timestamp-roots", type=click.Path(path_type=Path, dir_okay=False),
    help="Demand a time-stamp by an authority of these; keys count if they were trusted then.",
)  # fmt: skip
TSA = click.option("--tsa", "tsa", metavar="URL", help="A time-stamping authority that confirms when this was signed.")
TSA_ROOTS = click.option(
    "--tsa-roots", type=click.Path(path_type=Path, dir_okay=False),
    help="With --tsa: PEM certificates that the authority must descend from.",
)  # fmt: skip


def recipient_of(text: str) -> "KeyProvider":
    """Read a recipient; the new passphrase of ``passphrase:`` is asked for twice on a terminal.

    Raises:
        InvalidInput: No recipient of any kind.
        NotAuthenticated: A passphrase is wanted and nobody is there to give one.
    """
    from stanch.crypto.recipient import parse_recipient  # noqa: PLC0415 - keeps `stanch --help` light

    return parse_recipient(text, passphrase=_new_passphrase)


def identity_of(path: Path) -> "KeyProvider":
    """Read the file of a key that opens bundles; a passphrase comes from ``--passphrase-file`` or the terminal.

    Raises:
        InvalidInput: The file holds no such key.
    """
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - what unlocks is needed by locked files only
    from stanch.crypto.identity import load_identity  # noqa: PLC0415 - keeps `stanch --help` light

    frame = current()
    return load_identity(path, passphrase=lambda: ask_passphrase(frame.passphrase_file))


def trust_of(path: Path) -> "TrustedKeys":
    """Read a publisher's public key, or a TOML file of trusted keys.

    Raises:
        InvalidInput: There is neither in the file.
    """
    from stanch.sign import read_trusted_keys  # noqa: PLC0415 - not needed by the others

    return read_trusted_keys(path)


def roots_of(path: Path) -> "TimestampRoots":
    """Read the PEM certificates that time-stamping authorities must descend from.

    Raises:
        InvalidInput: There are none in the file.
    """
    from stanch.crypto.timestamp import TimestampRoots  # noqa: PLC0415 - not needed by the others

    if not path.is_file():
        raise InvalidInput(
            f"{path}: no such file", next_step="ask the time-stamping authority for its root certificate"
        )
    with path.open("rb") as stream:
        return TimestampRoots.from_pem(stream.read(_MAX_ROOTS), what=str(path))


def authority_of(tsa: str | None, roots: Path | None) -> "TimestampAuthority | None":
    """Read whom ``--tsa`` and ``--tsa-roots`` name to be asked for time-stamps; None where they name nobody.

    Raises:
        InvalidInput: One of them stands without the other, or the file holds no certificates.
    """
    from stanch.sign import TimestampAuthority  # noqa: PLC0415 - not needed by the others

    if tsa is None and roots is None:
        return None
    if tsa is None or roots is None:
        raise InvalidInput("--tsa and --tsa-roots go together", why="an answer that nobody vouches for proves nothing")
    return TimestampAuthority(tsa, roots_of(roots))


def publisher_of(trust: Path, roots: Path | None) -> "TrustedKeys | Timestamped":
    """Read what a bundle's signature must satisfy: trusted keys and, where roots are named, a time-stamp.

    Raises:
        InvalidInput: There is neither in the files.
    """
    from stanch.sign import Timestamped  # noqa: PLC0415 - not needed by the others

    trusted = trust_of(trust)
    return trusted if roots is None else Timestamped(trusted, roots_of(roots))


def _new_passphrase() -> "Passphrase":
    from stanch.crypto.passphrase import Passphrase  # noqa: PLC0415 - keeps `stanch --help` light

    if not sys.stdin.isatty():
        raise NotAuthenticated(
            "passphrase: nobody is there to choose one", next_step="name a private file that holds it: passphrase:FILE"
        )
    return Passphrase(click.prompt("new passphrase", hide_input=True, confirmation_prompt=True, err=True))
