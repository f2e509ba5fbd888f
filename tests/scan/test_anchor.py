"""The language of anchors, byte sets and hold rules: what is read, what is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan.anchor import parse_anchor, parse_byte_set, read_anchor
from stanch.scan.hold import CapitalsHold, HeadedHold, LiteralHold, LiteralPrefixes, RunHold, SwallowHold, parse_hold


@pytest.mark.parametrize(
    ("anchor", "shortest", "longest", "count"),
    [
        ("gh[pousr]_", 4, 4, 5),
        ("a|bcd", 1, 3, 2),
        ("(?:secret|key)[_-]?", 3, 7, 6),
        ("x{3}y{0,2}", 3, 5, 3),
        (r"\.\x41\+", 3, 3, 1),
        ("[0-9]{2}", 2, 2, 100),
        ("[0-9A-Za-z]{4}", 4, 4, None),
    ],
)
def test_shapes(anchor, shortest, longest, count):
    shape = parse_anchor(anchor)
    assert (shape.shortest, shape.longest) == (shortest, longest)
    assert (shape.literals is None) == (count is None)
    if shape.literals is not None:
        assert len(shape.literals) == count
        assert all(re.fullmatch(anchor.encode(), literal) for literal in shape.literals)


@pytest.mark.parametrize(
    ("anchor", "least"),
    [("[0-9]{3}-?[0-9]", 4), ("x[0-9a]5", 1), ("(?:12|3|[0-9]{4})7?", 1), ("(?:[0-9][ -]){2,3}", 2), ("[0-9]?", 0)],
)
def test_the_least_number_of_digits(anchor, least):
    assert read_anchor(anchor).digits == least


@pytest.mark.parametrize(
    "anchor",
    [
        "",
        "a*",
        "a+",
        "a.",
        "^a",
        "a$",
        r"\ba",
        "(a)",
        "(?=a)",
        "(?:a",
        "a)",
        "[a",
        "a?",
        "a{3,1}",
        "x{129}",
        "é",
        "\\",
        "a\x1e",
    ],
)
def test_refused_anchors(anchor):
    with pytest.raises(InvalidInput):
        parse_anchor(anchor)


def test_byte_sets():
    assert parse_byte_set("[a-c]") == b"abc"
    assert parse_byte_set("") == b""
    assert parse_byte_set(r"[\x80-\x81\]]") == b"]\x80\x81"
    assert 0x1E not in parse_byte_set("[^a]")
    assert len(parse_byte_set("[^a]")) == 254
    for wrong in ("a", "[a", "[a]]", "[\x1e]", "[z-a]", r"[\x00-\x20]"):
        with pytest.raises(InvalidInput):
            parse_byte_set(wrong)


def test_hold_rules():
    assert parse_hold("literal") == LiteralHold()
    assert parse_hold("run:[0-9:]:16") == RunHold(b"0123456789:", 16)
    assert parse_hold("run:[0-9a ]:6:[0-9]") == HeadedHold(b"0123456789", b" 0123456789a", 6)
    assert parse_hold("capitals:64") == CapitalsHold(64)
    assert parse_hold("swallow:[ab]:-:-END") == SwallowHold(b"ab", b"-:-END")
    for wrong in ("", "run:[0-9]:0", "run:[0-9]", "capitals:", "swallow:ab:c", "word"):
        with pytest.raises(InvalidInput):
            parse_hold(wrong)


def test_run_and_capitals_hold_the_longest_suffix():
    assert RunHold(b"0123", 4).start(b"x123", 0, 4) == 1
    assert RunHold(b"0123", 2).start(b"x123", 0, 4) == 2
    assert HeadedHold(b"01", b"01ab ", 5).start(b"xa b1a a", 0, 8) == 4
    assert HeadedHold(b"01", b"01ab ", 3).start(b"xa b1a a", 0, 8) == 8
    assert CapitalsHold(64).start(b"met Alice Bo", 0, 12) == 4
    assert CapitalsHold(64).start(b"A Bc De Fg", 0, 10) == 2
    assert CapitalsHold(64).start(b"Alice ", 0, 6) == 0
    assert CapitalsHold(64).start(b"Alice wrote", 0, 11) == 11
    assert CapitalsHold(3).start(b"Alice", 0, 5) == 5


@given(text=st.text(alphabet="Aab. '-", max_size=40).map(str.encode), longest=st.integers(1, 12))
def test_the_held_start_never_moves_back(text, longest):
    for rule in (RunHold(b"Aab", longest), HeadedHold(b"A", b"Aab", longest), CapitalsHold(longest)):
        starts = [rule.start(text, 0, at) for at in range(len(text) + 1)]
        assert starts == sorted(starts)
        for at, start in enumerate(starts):
            if start < at:
                assert rule.may_end_with(text[at - 1])


@given(
    literals=st.lists(st.text(alphabet="abA", min_size=1, max_size=5).map(str.encode), min_size=1, max_size=6),
    text=st.text(alphabet="abAx", max_size=20).map(str.encode),
)
def test_literal_prefixes_against_the_definition(literals, text):
    prefixes = LiteralPrefixes(literals)
    proper = {literal.lower()[:size] for literal in literals for size in range(1, len(literal))}
    state = 0
    for end in range(1, len(text) + 1):
        state = prefixes.step(state, text[end - 1 : end])
        seen = text[:end].lower()
        assert prefixes.held(state) == max((n for n in range(1, end + 1) if seen[-n:] in proper), default=0)
