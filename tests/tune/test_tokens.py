"""The tokens of a run: what goes in comes out, in little memory, and any other token is seen."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.data import TokenRecord
from stanch.tune.tokens import TokenTable

RECORD = TokenRecord("a", (5, 70_000, 9, 2**31), (1, 4), (2,))


@st.composite
def records(draw):
    ids = draw(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=9).map(tuple))
    span = (1, draw(st.integers(2, len(ids))))
    skipped = tuple(sorted(draw(st.sets(st.integers(*span).filter(lambda place: place < span[1])))))
    return TokenRecord(draw(st.text(max_size=3)), ids, span, skipped)


@given(st.lists(records(), unique_by=lambda record: record.id, max_size=5))
def test_what_goes_in_comes_out_in_order(given_records):
    table = TokenTable(iter(given_records))
    assert list(table.values()) == given_records
    assert len(table) == len(given_records)
    assert table.longest == max((len(record.ids) for record in given_records), default=0)
    assert table.digest == TokenTable(reversed(given_records)).digest


@pytest.mark.parametrize(
    "other",
    [
        TokenRecord("b", RECORD.ids, RECORD.span, RECORD.skipped),
        TokenRecord("a", (5, 70_000, 8, 2**31), RECORD.span, RECORD.skipped),
        TokenRecord("a", RECORD.ids, (2, 4), RECORD.skipped),
        TokenRecord("a", RECORD.ids, RECORD.span, ()),
    ],
)
def test_whatever_is_learned_otherwise_has_another_digest(other):
    assert TokenTable([RECORD]).digest != TokenTable([other]).digest


def test_a_token_takes_four_bytes():
    tracemalloc.start()
    table = TokenTable(TokenRecord(str(number), tuple(range(10**6, 10**6 + 4000)), (1, 4000)) for number in range(50))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 50
    assert held < 5 * 50 * 4000
