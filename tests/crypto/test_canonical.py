"""Canonical JSON against RFC 8785's own examples, and a reader that refuses everything ambiguous."""

import functools
import json
import math
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanch.crypto import canonical_json, parse_json
from stanch.errors import InvalidInput

# RFC 8785, appendix B: IEEE 754 bits and their serialisation.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_the_rfc_lists_them(bits, text):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value).decode() == text
    assert canonical_json([1, {"a": "b", "c": [None, value]}]).decode() == f'[1,{{"a":"b","c":[null,{text}]}}]'


def test_keys_are_sorted_by_utf16_code_units():
    # RFC 8785, section 3.2.3.
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(value)).values()) == [2, 4, 6, 7, 1, 5, 3]


@given(json_values)
def test_canonical_json_is_a_fixed_point_and_loses_nothing(value):
    data = canonical_json(value)
    assert parse_json(data, what="test") == value
    assert canonical_json(parse_json(data, what="test")) == data


@given(json_values)
@example({"a": [{"b\x7f": "".join(map(chr, range(0x300))) + "\u2028\U0001f600", "a": None, "B": True}, [], {}, -1]})
@example(functools.reduce(lambda inner, _: [inner], range(60), 0))
def test_a_float_beside_it_changes_nothing_of_how_a_value_is_written(value):
    """Values without floats are written by another program than the rest."""
    assert canonical_json([value, 0.5]) == b"[" + canonical_json(value) + b",0.5]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1.5e-7, "-1.5e-7"),
        (1.25e21, "1.25e+21"),
        (-12.0, "-12"),
        (120.5, "120.5"),
        (1.25, "1.25"),
        (0.5, "0.5"),
        ((1, True, None), "[1,true,null]"),
    ],
)
def test_what_else_is_written(value, text):
    assert canonical_json(value).decode() == text


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), {1: 2}, b"bytes", "\ud800", {"a": {1}}, {"\ud800": 1}],
    ids=ascii,
)
def test_what_json_cannot_say_is_refused(value):
    for beside in ([], [0.5]):  # values without floats are written by another program
        with pytest.raises(InvalidInput):
            canonical_json([value, *beside])


def test_the_largest_integers_are_integers_and_the_next_ones_floats_without_loss():
    for value in (2**53 - 1, -(2**53) + 1):
        assert canonical_json([value]) == f"[{value}]".encode()
        assert canonical_json([value, 0.5]) == f"[{value},0.5]".encode()
        assert type(parse_json(str(value).encode(), what="test")) is int
    for text in (b"9007199254740992", b"-999999999999999900000"):
        assert type(parse_json(text, what="test")) is float
    for text in (b"9007199254740993", b"1000000000000000000000", b"-1" + b"0" * 400):
        with pytest.raises(InvalidInput, match="not valid JSON") as caught:
            parse_json(text, what="test")
        assert caught.value.why == "an integer is outside ±(2^53 − 1)"


@pytest.mark.parametrize("inner", [1, "é", 0.5, {}, []])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "objects"])
def test_values_are_nested_64_deep_at_most(inner, wrap):
    value = functools.reduce(lambda inside, _: wrap(inside), range(64), inner)
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert canonical_json(value) == data
    assert parse_json(data, what="test") == value
    for refuse in (lambda: canonical_json([value]), lambda: parse_json(b"[" + data + b"]", what="test")):
        with pytest.raises(InvalidInput, match="deeper than 64"):
            refuse()


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\uDbFf":1}', r'["\udc00"]', r'"\uDFFF\uD83d"'])
def test_half_a_surrogate_pair_is_read_only_where_it_may_be(text):
    with pytest.raises(InvalidInput) as caught:
        parse_json(text.encode(), what="test")
    assert caught.value.why == "a text holds half a surrogate pair"
    assert parse_json(text.encode(), what="test", allow_halves=True) == json.loads(text)


def test_a_whole_surrogate_pair_and_an_escaped_backslash_are_text():
    assert parse_json(rb'["\ud83d\uDE00", "\\ud800"]', what="test") == ["\U0001f600", "\\ud800"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b"\xff", b'"\xed\xa0\x80"', b"[" * 100_000, b"1 2",
     b"1e999", b'{"a":[-1e999]}', b'{"a":{"b":1,"b":1}}'],
)  # fmt: skip
def test_a_reader_of_outside_json_refuses(data):
    with pytest.raises(InvalidInput, match=r"^outside\.json: "):
        parse_json(data, what="outside.json")


def test_size_is_checked_before_parsing_and_the_content_is_never_quoted():
    with pytest.raises(InvalidInput, match="at most 8 bytes"):
        parse_json(b'"123456789"', what="outside.json", max_bytes=8)
    with pytest.raises(InvalidInput) as caught:
        parse_json(b'{"password": hunter2}', what="outside.json")
    assert "hunter2" not in caught.value.what + caught.value.why


def test_json_of_16_mib_is_read_and_no_more():
    data = b'"%s"' % (b"x" * ((16 << 20) - 2))
    assert len(parse_json(data, what="test")) == len(data) - 2
    with pytest.raises(InvalidInput, match="at most 16777216 bytes"):
        parse_json(data + b" ", what="test")


@pytest.mark.parametrize(
    ("data", "what", "why"),
    [
        ('["é", x]'.encode(), "test: not valid JSON at byte 7", "Expecting value"),
        (b'"\xff"', "test: not valid JSON", "not UTF-8"),
        (b"[NaN]", "test: not valid JSON", "NaN is not JSON"),
        (b'{"a":1,"a":1}', "test: not valid JSON", "a key stands twice"),
    ],
)
def test_a_refusal_says_where_and_why(data, what, why):
    with pytest.raises(InvalidInput) as caught:
        parse_json(data, what="test")
    assert (caught.value.what, caught.value.why) == (what, why)
