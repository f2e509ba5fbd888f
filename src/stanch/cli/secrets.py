"""Secrets come from files, never from arguments or the environment."""

import sys
from pathlib import Path

import click

from stanch.crypto import read_private
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotAuthenticated


def read_passphrase(path: Path) -> Passphrase:
    """Read a passphrase from a private file; one final newline is not part of it."""
    try:
        text = read_private(path).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: a passphrase is UTF-8 text") from error
    return Passphrase(text.removesuffix("\n"))


def ask_passphrase(path: Path | None) -> Passphrase:
    """Read the passphrase from ``path``, or ask for it on a terminal.

    Raises:
        NotAuthenticated: Neither is possible.
    """
    if path is not None:
        return read_passphrase(path)
    if not sys.stdin.isatty():
        raise NotAuthenticated("the key is locked", next_step="give the passphrase with --passphrase-file FILE")
    return Passphrase(click.prompt("passphrase", hide_input=True, err=True))
