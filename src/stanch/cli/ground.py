"""What most commands begin with: the workspace, opened as whoever acts."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from stanch.cli.frame import Frame
from stanch.cli.secrets import ask_passphrase
from stanch.errors import InvalidInput, NotFound
from stanch.workspace import Keyring, Workspace
from stanch.workspace.opening import KEYS, STATE, find_workspace


def open_workspace(frame: Frame) -> Workspace:
    """Open the workspace that the global flags name, or the nearest one; say who acts where several could."""
    workspace = Workspace.open(
        frame.workspace, principal=frame.principal, unlock=lambda: ask_passphrase(frame.passphrase_file)
    )
    if frame.principal is None and (others := len(workspace.keys.people()) - 1):
        frame.warnings = (f"acts as {workspace.people.name}; keys of {others} more are here: --as NAME chooses",)
    return workspace


def open_workspace_if_any(frame: Frame) -> Workspace | None:
    """Open the workspace that the global flags name, or the nearest one; None where none is named and none near."""
    if frame.workspace is None:
        try:
            find_workspace(None)
        except NotFound:
            return None
    return open_workspace(frame)


def keyring_of(frame: Frame) -> Keyring:
    """Return the keyring of the workspace that the global flags name, or of the nearest one."""
    return Keyring(find_workspace(frame.workspace) / STATE / KEYS)


def open_input(source: str) -> BinaryIO | nullcontext[BinaryIO]:
    """Open a file, or standard input for ``-``.

    Raises:
        InvalidInput: The file cannot be read.
    """
    if source == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise InvalidInput(f"{source}: cannot be read", why=error.strerror or "") from error
