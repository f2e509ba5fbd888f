"""The secrets that settings refer to: read where they lie, and never shown."""

import os
from collections.abc import Mapping
from pathlib import Path

from stanch.crypto import read_private
from stanch.errors import InvalidInput
from stanch.terms import SecretStr


def read_secret(reference: str, folder: Path, *, what: str, environ: Mapping[str, str] = os.environ) -> SecretStr:
    """Return the secret, one line of text, that a setting refers to.

    Args:
        reference: ``file:PATH`` (mode 0600) or ``env:NAME``, as :data:`stanch.config.model.SecretReference` says.
        folder: Where a relative path starts: the workspace's folder.
        what: The setting, for the message.
        environ: The environment.

    Raises:
        InvalidInput: Nothing lies there, others may read the file, or it is no line of text; the text is not shown.
    """
    scheme, _, place = reference.partition(":")
    if scheme == "file":
        text = read_private(folder / place).decode("utf-8", "replace").strip()
    else:
        text = environ.get(place, "")
    if not text or "\ufffd" in text or any(c < " " for c in text):
        raise InvalidInput(
            f"{what}: expected a secret of one line of text, found none at {reference[:80]!r}",
            next_step="write it to the file with mode 0600 (file:PATH), or set the variable (env:NAME)",
        )
    return SecretStr(text)
