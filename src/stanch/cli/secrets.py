"""Secrets come from files, never from arguments or the environment."""

import sys
from pathlib import Path

import click

from stanch.crypto.passphrase import Passphrase
from stanch.errors import NotAuthenticated


def ask_passphrase(path: Path | None) -> Passphrase:
    """Read the passphrase from ``path``, or ask for it on a terminal.

    Raises:
        NotAuthenticated: Neither is possible.
    """
    if path is not None:
        return Passphrase.read(path)
    if not sys.stdin.isatty():
        raise NotAuthenticated("the key is locked", next_step="give the passphrase with --passphrase-file FILE")
    return Passphrase(click.prompt("passphrase", hide_input=True, err=True))
