"""Lists a page at a time: each answer says where the next one begins."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

T = TypeVar("T")
MOST = 200
Limit = Annotated[int, Meta(ge=1, le=MOST)]
Cursor = Annotated[str, Meta(max_length=512)]


class Paged(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list is wanted: what follows ``after``, at most ``limit`` rows."""

    after: Cursor = ""
    limit: Limit = 50


def take(rows: Sequence[T], key: Callable[[T], str], asked: Paged) -> tuple[tuple[T, ...], str]:
    """Return the rows after the cursor, by their keys, and the cursor of the next part; empty at the end."""
    ordered = sorted((row for row in rows if key(row) > asked.after), key=key)
    shown = ordered[: asked.limit]
    return tuple(shown), key(shown[-1]) if len(ordered) > len(shown) else ""
