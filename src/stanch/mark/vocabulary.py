"""Which row of an embedding belongs to which token: two models may number the same tokens as they like."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.weights import read_json_object

Numbers = npt.NDArray[np.int64]


def read_tokens(folder: Path) -> Mapping[str, int]:
    """Return the row of each token, as ``tokenizer.json`` says; nothing where none can be read."""
    try:
        document = read_json_object(folder / "tokenizer.json")
    except InvalidInput:
        return {}
    match document.get("model"):
        case {"vocab": dict(rows)}:
            listed: list[tuple[object, object]] = list(rows.items())
        case {"vocab": list(pieces)}:
            listed = [(piece[0], row) for row, piece in enumerate(pieces) if isinstance(piece, list) and piece]
        case _:
            listed = []
    added = document.get("added_tokens")
    for item in added if isinstance(added, list) else ():
        if isinstance(item, dict):
            listed.append((item.get("content"), item.get("id")))
    return {token: row for token, row in listed if isinstance(token, str) and isinstance(row, int) and row >= 0}


def match_tokens(ours: Mapping[str, int], theirs: Mapping[str, int], rows: int, their_rows: int) -> Numbers | None:
    """Return for each of our rows the row of the same token in theirs, −1 for none.

    None where both number all tokens that they share alike.
    """
    found = np.full(rows, -1)
    for token, row in ours.items():
        other = theirs.get(token, their_rows)
        if row < rows and other < their_rows:
            found[row] = other
    shared = np.flatnonzero(found >= 0)
    return None if np.array_equal(found[shared], shared) else found
