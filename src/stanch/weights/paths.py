"""The rule for names of files in whatever is sealed or signed."""

import re
import unicodedata
from collections.abc import Iterable

from stanch.errors import InvalidInput

_MAX_PATH = 1024
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
"""Surrogates stand for bytes of a name that are no UTF-8."""
_DRIVE = re.compile(r"[A-Za-z]:")


def check_paths(paths: Iterable[str]) -> None:
    """Check that every path is safe to create below any directory where stanch runs, and that none hides another.

    Backslashes and drive letters are refused too, which lead elsewhere on Windows. What else Windows makes of names
    (``con``, ``a:b``, a dot or space at the end) is not looked at.

    Raises:
        InvalidInput: A path is absolute, escapes, is not in NFC, is too long, holds a backslash, a control character
            or a drive letter; or two paths are equal after case folding, or one is a folder of another.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if (
            any(part in {"", ".", ".."} for part in parts)
            or _FORBIDDEN.search(path)
            or _DRIVE.match(path)
            or unicodedata.normalize("NFC", path) != path
            or len(path.encode("utf-8", "surrogatepass")) > _MAX_PATH
        ):
            raise InvalidInput(f"path {path[:80]!r}: expected a short relative path with '/', in NFC, without '..'")
        folded = path.casefold()
        parents = {"/".join(parts[:depth]).casefold() for depth in range(1, len(parts))}
        if folded in seen or folded in folders or parents & seen:
            raise InvalidInput(
                f"path {path[:80]!r}: another path is equal to it or to a folder of it, letter case aside"
            )
        seen.add(folded)
        folders |= parents
