"""Snapshots in the cache of the Hugging Face hub: ``models--NAME/snapshots/REVISION`` links to ``../../blobs/HASH``.

Everywhere else a link is refused, since what it points to can lie anywhere. Here the link says which blob of the same
repository the file is, and nothing else is followed. Layout: huggingface_hub, "Understand caching".
"""

import os
import re
from pathlib import Path

_REPOSITORY = re.compile(r"(models|datasets|spaces)--[^/]+")
_BLOB = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def find_blob(root: Path, item: Path) -> Path | None:
    """Return the blob that the link ``item`` below the folder ``root`` names; None if it is no such link.

    The blob may not exist, and may be a link itself: whoever opens it must not follow that.
    """
    snapshot = root.resolve()
    repository = snapshot.parent.parent
    blobs = repository / "blobs"
    if snapshot.parent.name != "snapshots" or not _REPOSITORY.fullmatch(repository.name) or blobs.is_symlink():
        return None
    try:
        target = item.readlink()
    except OSError:
        return None
    # By its text alone: `..` is taken from where the link really lies, so no other link can lead it astray.
    blob = Path(os.path.normpath(snapshot / item.relative_to(root).parent / target))
    return blob if blob.parent == blobs and _BLOB.fullmatch(blob.name) else None
