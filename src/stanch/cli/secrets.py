"""Secrets come from files, never from arguments or the environment."""

import sys
from pathlib import Path

import click

from stanch.crypto import read_private
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotAuthenticated


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


def read_api_key(path: Path | None) -> str:
    """Return the key that a private file holds on one line; empty without a file.

    Raises:
        InvalidInput: It cannot be read, others may read it, or it holds no such key.
    """
    if path is None:
        return ""
    try:
        key = read_private(path).decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable():
        raise InvalidInput(f"{path}: expected a key on one line")
    return key
