"""The rows that come out of a model as one HTML page: in full for who may read the data set, masked for others."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from stanch.audit.extraction import Chance, Extracted, samples_needed
from stanch.audit.page import grid, page
from stanch.data import Record, turns

MASKED = "masked: you may not read the data set"
_NOT_GIVEN = "stands in no row that was given"
_SURE = 0.9


def texts_of(extracted: Sequence[Extracted], records: Sequence[Record]) -> dict[str, str]:
    """Return the text of the rows that come out, by their ids in reports."""
    wanted = {row.record_id for row in extracted}
    return {r.id: "\n".join(f"{t.role}: {t.content}" for t in turns(r)) for r in records if r.id in wanted}


def render_rows(extracted: Sequence[Extracted], texts: Mapping[str, str] | None) -> str:
    """Return the page; without ``texts`` it shows that rows come out and how easily, and nothing of what they say.

    A row's length says something about it, so what is masked looks the same for every row.
    """
    rows = [
        (
            row.record_id,
            "the tuning" if row.attributable else "the base model knows it, too",
            _queries(row.chance),
            MASKED if texts is None else texts.get(row.record_id, _NOT_GIVEN),
        )
        for row in sorted(extracted, key=lambda row: (not row.attributable, _queries(row.chance), row.record_id))
    ]
    count = sum(row.attributable for row in extracted)
    said = f"{len(rows):,} rows can be drawn out of the model word for word; {count:,} of them because of the tuning."
    header = ("Row", "Because of", f"Queries for {_SURE:.0%}", "Text")
    body = grid(header, rows) if rows else "<p>None.</p>"
    return page("Rows that come out", f"<header><h1>Rows that come out</h1><p>{escape(said)}</p></header>{body}")


def _queries(chance: Chance) -> int:
    return round(math.exp(samples_needed(chance, _SURE)))
