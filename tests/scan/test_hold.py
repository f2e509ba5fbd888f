"""Hold rules: several together hold what the one that holds most does; prefixes of literals in any case."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.scan import load_pack
from stanch.scan.hold import CapitalsHold, HeldEnds, HoldsAfter, LiteralPrefixes, RunHold, byte_class, parse_hold

SHIPPED = [rule.hold for rule in load_pack() if isinstance(rule.hold, RunHold | CapitalsHold)]
MADE = [parse_hold(text) for text in ("run:[0-9]:2", "run:[ab]:3", "run:[ab ]:5", "run:[0-9a]:4", "capitals:9")]
LITERALS = [b"ab: @", b"01-", b"-----AB", b"a a"]
ENDS, PREFIXES = HeldEnds([*SHIPPED, *MADE], LITERALS), LiteralPrefixes(LITERALS)
AFTER = [HoldsAfter([*SHIPPED, *MADE], byte) for byte in range(256)]


@settings(max_examples=400, deadline=None)
@given(
    holds=st.sampled_from([SHIPPED, MADE, MADE[:4], MADE[4:]]),
    text=st.text(alphabet="ab01 :@AZ.-", min_size=1, max_size=90).map(str.encode),
)
def test_holds_together_hold_what_the_longest_does(holds, text):
    # A run that is part of a shorter one of more bytes counts as long as that one may be.
    runs = [hold for hold in holds if isinstance(hold, RunHold)]
    reach = {run: max(r.longest for r in runs if set(r.members) <= set(run.members)) for run in runs}
    longer = [RunHold(run.members, reach[run]) for run in runs]
    low = 0
    for size in range(1, len(text) + 1):
        able, more = ([hold for hold in some if hold.may_end_with(text[size - 1])] for some in (holds, longer))
        start = HoldsAfter(holds, text[size - 1]).start(text[:size], low)
        exact = min((hold.start(text, 0, size) for hold in able), default=size)
        assert min([exact, *(hold.start(text, 0, size) for hold in more)]) <= start <= exact
        low = start


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="abABc", max_size=20).map(str.encode), cut=st.integers(0, 20))
def test_the_longest_suffix_that_begins_a_literal_is_held(text, cut):
    literals = [b"abab", b"BAC", b"aab", b"c"]
    prefixes = LiteralPrefixes(literals)
    proper = {literal.lower()[:size] for literal in literals for size in range(1, len(literal))}
    expected = max((size for size in range(1, len(text) + 1) if text.lower()[-size:] in proper), default=0)
    assert prefixes.held(prefixes.step(prefixes.step(0, text[:cut]), text[cut:])) == expected


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab01 :@AZ.-", max_size=90).map(str.encode), data=st.data())
def test_what_is_held_is_known_from_what_was_held_and_what_came(text, data):
    held, low, state, at = b"", 0, 0, 0
    while at < len(text):
        new = text[at : at + data.draw(st.integers(1, 12))]
        at += len(new)
        end = held + new
        held = end[len(end) - ENDS[end] :]
        state = PREFIXES.step(state, new)
        low = min(AFTER[text[at - 1]].start(text[:at], low), at - PREFIXES.held(state))
        assert held == text[low:at]


@pytest.mark.parametrize("members", [bytes(range(256)), b"\x00", b"\xff", b"ace", bytes([0, 1, 254, 255])])
def test_a_class_matches_its_bytes_alone(members):
    expression = re.compile(byte_class(members), re.DOTALL)
    assert {byte for byte in range(256) if expression.fullmatch(bytes([byte]))} == set(members)


def test_the_automaton_of_the_next_scanner_remembers_no_word():
    seen = LiteralPrefixes([b"abc"])
    walked = seen.walk(0, b"xab")
    again = seen.forgetful()
    assert (seen._walks, again._walks) == ({(0, b"xab"): walked}, {})
    assert again.walk(0, b"xab") == walked == (seen.step(0, b"ab"), ())
    made = [HeldEnds([], [b"abc"]) for _ in range(2)]
    made[0].prefixes.walk(0, b"xab")
    assert made[1].prefixes._walks == {}
