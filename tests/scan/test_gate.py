"""Where an anchor may stand: no slice leaves out a match or a byte beside it, and most of a text is in none."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.scan import gate
from stanch.scan.anchor import read_anchor

DIGITS, RUN = "[0-9](?:[ -]?[0-9]){3,5}", "[a-z_.]{15,20}"
TEXT = st.lists(
    st.sampled_from(
        [b"1", b"23", b"4567", b" ", b"-", b"a", b"words", b".", b"long_run_of_word", b"\x1e", b"\xc3\xa9"]
    ),
    max_size=60,
).map(b"".join)


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        (DIGITS, gate.digits),
        (RUN, gate.runs),
        ("[0-9]{3}", None),
        ("[a-z]{14}", None),
        ("[a-z ]{15}", None),
        ("1234 5678", None),
        ("-----BEGIN OPENSSH", None),
    ],
)
def test_gates(anchor, expected):
    assert gate.gate_of(read_anchor(anchor)) is expected


@pytest.mark.parametrize("anchor", [DIGITS, RUN])
@settings(max_examples=300, deadline=None)
@given(data=TEXT)
def test_every_match_is_in_a_slice_with_the_bytes_beside_it(anchor, data):
    shape = read_anchor(anchor)
    slices = gate.gate_of(shape)(data, shape.longest)
    # Where each byte of the block stands in the slices.
    ends = [*(slices.begins[1:] - 1), len(slices.data)]
    pieces = zip(slices.begins.tolist(), ends, slices.moved.tolist(), strict=True) if slices.data else ()
    inside = {at + moved: at for begin, end, moved in pieces for at in range(begin, end)}
    assert all(slices.data[at] == data[place] for place, at in inside.items())
    for start in range(len(data)):
        for end in range(start + shape.shortest, min(len(data), start + shape.longest) + 1):
            if re.fullmatch(anchor.encode(), data[start:end]):
                assert set(range(max(0, start - 1), min(len(data), end + 1))) <= inside.keys()
                assert slices.placed([(inside[end - 1] + 1, 7)]) == [(end, 7)]


def test_ordinary_text_is_passed_over():
    data = b"In about 20 minutes, or at 9, we shall see 3 of the changes. " * 100
    assert not gate.digits(data, 20).data
    assert not gate.runs(data, 40).data
