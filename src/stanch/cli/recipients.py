"""What the options ``--to``, ``--identity`` and ``--trust`` name, for the commands that work with sealed bundles."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import current
from stanch.crypto.identity import load_identity
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.recipient import parse_recipient
from stanch.errors import InvalidInput, NotAuthenticated

if TYPE_CHECKING:
    from stanch.crypto import VerifyKey
    from stanch.crypto.stanza import KeyProvider
    from stanch.sign import TrustedKeys


def recipient_of(text: str) -> "KeyProvider":
    """Read a recipient; the new passphrase of ``passphrase:`` is asked for twice on a terminal.

    Raises:
        InvalidInput: No recipient of any kind.
        NotAuthenticated: A passphrase is wanted and nobody is there to give one.
    """
    return parse_recipient(text, passphrase=_new_passphrase)


def identity_of(path: Path) -> "KeyProvider":
    """Read the file of a key that opens bundles; a passphrase comes from ``--passphrase-file`` or the terminal.

    Raises:
        InvalidInput: The file holds no such key.
    """
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - what unlocks is needed by locked files only

    frame = current()
    return load_identity(path, passphrase=lambda: ask_passphrase(frame.passphrase_file))


def trust_of(path: Path) -> "TrustedKeys":
    """Read a publisher's public key, or a TOML file of trusted keys.

    Raises:
        InvalidInput: There is neither in the file.
    """
    from stanch.sign import read_trusted_keys  # noqa: PLC0415 - not needed by the others

    return read_trusted_keys(path)


def public_key_of(path: Path) -> "VerifyKey":
    """Read a public signing key.

    Raises:
        InvalidInput: There is none in the file.
    """
    from stanch.crypto import VerifyKey  # noqa: PLC0415 - not needed by the others

    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", next_step="ask the publisher for the public signing key")
    return VerifyKey.from_pem(path.read_bytes(), what=str(path))


def _new_passphrase() -> Passphrase:
    if not sys.stdin.isatty():
        raise NotAuthenticated(
            "passphrase: nobody is there to choose one", next_step="name a private file that holds it: passphrase:FILE"
        )
    return Passphrase(click.prompt("new passphrase", hide_input=True, confirmation_prompt=True, err=True))
