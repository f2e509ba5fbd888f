"""Rows as other people's trainers take them, each with the id of its record."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from stanch.crypto import parse_json
from stanch.data import ChatTokenizer, Dataset, TokenRecord, tokenise
from stanch.errors import InvalidInput
from stanch.tune.tokens import TokenTable
from stanch.tune.units import UnitTable

RECORD_ID: Final = "record_id"
"""The column that says which record a row is."""
IGNORED: Final = -100
"""The label of a token that is not learned."""
_MAX_ROW = 64 << 20


def training_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``dataset`` with a column ``record_id``, for a trainer that tokenises them itself.

    Raises:
        InvalidInput: A row is no JSON object, or has such a column already.
    """
    for record in dataset:
        row = parse_json(record.raw, what=f"{record.source}: record {record.index}", max_bytes=_MAX_ROW)
        if not isinstance(row, dict) or RECORD_ID in row:
            raise InvalidInput(
                f"{record.source}: record {record.index} is no object without a column {RECORD_ID!r}",
                next_step="rename that column; trainers need named columns",
            )
        yield {RECORD_ID: record.id, **row}


def token_rows(
    dataset: Dataset, tokenizer: ChatTokenizer, *, max_tokens: int = 1024, completion_only: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield ``record_id``, ``input_ids`` and ``labels`` of each record, tokenised as stanch does it."""
    for record in dataset:
        tokens = tokenise(record, tokenizer, max_tokens=max_tokens, completion_only=completion_only)
        labels = [IGNORED] * len(tokens.ids)
        for place in tokens.labelled:
            labels[place] = tokens.ids[place]
        yield {RECORD_ID: record.id, "input_ids": list(tokens.ids), "labels": labels}


def read_row(row: Mapping[str, Any], *, name: str) -> TokenRecord:
    """Return a tokenised row as a record; without labels everything but the first token is learned.

    Raises:
        InvalidInput: It has no token ids, padding, labels of other tokens, or nothing to learn.
    """
    ids = tuple(int(token) for token in row.get("input_ids", ()))
    labels = tuple(int(label) for label in row.get("labels", ids))
    mask = tuple(int(seen) for seen in row.get("attention_mask", (1,) * len(ids)))
    if not ids or len(labels) != len(ids) or mask != (1,) * len(ids):
        raise InvalidInput(
            f"{name}: expected input_ids and as many labels, without padding",
            next_step="give one row a record, tokenised and not padded",
        )
    learned = [place for place in range(1, len(ids)) if labels[place] != IGNORED]
    if any(labels[place] != ids[place] for place in learned):
        raise InvalidInput(
            f"{name}: a label is not the token at its place",
            why="a causal model learns the tokens that follow",
            next_step=f"use the token ids as labels, and {IGNORED} where nothing is learned",
        )
    if not learned:
        raise InvalidInput(f"{name}: no token is left to learn from", next_step="allow more tokens, or remove it")
    span = (learned[0], learned[-1] + 1)
    wanted = frozenset(learned)
    return TokenRecord(name, ids, span, tuple(place for place in range(*span) if place not in wanted))


def read_rows(rows: Iterable[Mapping[str, Any]], units: UnitTable) -> TokenTable:
    """Return the records of all units by id.

    Raises:
        InvalidInput: Rows and units are not about the same records, or as :func:`read_row`.
    """
    found = TokenTable(_read_named(rows))
    known = {record_id for unit in units.units for record_id in unit.record_ids}
    if found.keys() != known:
        raise InvalidInput(
            f"{len(known - found.keys())} records of units have no row, {len(found.keys() - known)} rows no unit",
            why="units must be formed from the very records that are tuned on",
            next_step="form the units again from this dataset; a short max_length may have dropped rows",
        )
    return found


def _read_named(rows: Iterable[Mapping[str, Any]]) -> Iterator[TokenRecord]:
    seen: set[str] = set()
    for number, row in enumerate(rows):
        record_id = row.get(RECORD_ID)
        if not isinstance(record_id, str) or record_id in seen:
            raise InvalidInput(
                f"row {number + 1}: expected a column {RECORD_ID!r} with an id of its own",
                why="without it nobody knows whose row it is",
                next_step="make the rows with training_rows or token_rows",
            )
        seen.add(record_id)
        yield read_row(row, name=record_id)
