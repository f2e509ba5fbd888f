"""Which anchor a URI names.

``file:/mnt/other-disk`` creates one file for each checkpoint. ``s3lock://bucket/prefix?days=400`` puts objects that
nobody can delete for so many days (S3 Object Lock in mode COMPLIANCE), and reads the lock back.
"""

from pathlib import Path

from stanch.errors import InvalidInput
from stanch.ledger.anchor import Anchor
from stanch.ledger.anchor_file import FileAnchor
from stanch.ledger.anchor_s3lock import open_s3lock


def open_anchor(uri: str, *, log_folder: Path) -> Anchor:
    """Open the anchor that a URI names; a relative path starts at ``log_folder``.

    Raises:
        InvalidInput: Not such a URI.
        MissingExtraError: It needs the extra ``aws``.
        StoreError: It cannot be used.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "s3lock":
        return open_s3lock(uri)
    path = rest.removeprefix("//")
    if scheme != "file" or not path or (rest.startswith("//") and not path.startswith("/")):
        raise InvalidInput(f"anchor: expected file:/folder or s3lock://bucket/prefix?days=N, found {uri[:200]!r}")
    return FileAnchor(log_folder / path, uri=uri, log_folder=log_folder)
