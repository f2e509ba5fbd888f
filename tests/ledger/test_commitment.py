"""Commitments to personal values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.errors import InvalidInput, ProofInvalid
from stanch.ledger import Opening, commit


def test_golden(load):
    golden = load("ledger/commitment.json")
    salt = bytes.fromhex(golden["salt"])
    assert commit(golden["value"], golden["field"], salt) == golden["commitment"]
    Opening(golden["field"], salt, golden["value"]).check(golden["commitment"])


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_salts_of_another_length_are_refused(length):
    with pytest.raises(InvalidInput):
        commit("x", "field", bytes(length))


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_another_field_or_value_does_not_open(field, value, other_field, other_value):
    salt = bytes(32)
    made = Opening(field, salt, value)
    other = Opening(other_field, salt, other_value)
    if (field, value) == (other_field, other_value):
        other.check(made.commitment)
    else:
        with pytest.raises(ProofInvalid):
            other.check(made.commitment)


def test_types_are_told_apart():
    assert len({commit(value, "f", bytes(32)) for value in ("1", 1, True, "true", None, "null")}) == 6


def test_each_opening_has_its_own_salt():
    assert Opening.make("f", "v").commitment != Opening.make("f", "v").commitment


def test_what_is_printed_of_an_opening_opens_nothing():
    for opening in (Opening("actor.user.name", bytes(32), "alice"), Opening.make("actor.user.name", "alice")):
        assert repr(opening) == "Opening(field='actor.user.name', principal='', retain_until_ms=None)"
