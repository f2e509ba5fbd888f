"""Repetition of an answer: runs of four words that stood earlier in it, however the answer is cut."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stanch.gateway.dialect import Channel, Entry
from stanch.gateway.rebuild import Tally
from stanch.gateway.repetition import Repetition


def count(text, cuts=()):
    found = Repetition()
    for start, end in pairwise([0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]):
        found.push(text[start:end])
    return found.finish()


def test_runs_of_four_words_are_counted_once():
    assert count("") == count("one two three") == (0, 0)
    assert count("one two three four") == (1, 0)
    assert count("one two three four one two three four") == (5, 1)
    assert count("a b c d " * 100) == (397, 393)
    draws = random.Random(1)
    prose = " ".join("".join(draws.choices("abcdefgh", k=5)) for _ in range(1000))
    assert count(prose) == (997, 0)
    # Text without spaces is cut into pieces of 32.
    assert count("x" * 32 * 50) == (47, 46)
    # Only the first 4,096 runs count, so that a long answer costs no more.
    assert count("a b c d " * 3000) == (4096, 4092)


@given(
    st.text(st.sampled_from("ab \n\u3042"), max_size=1500),
    st.lists(st.integers(0, 1500), max_size=40),
    st.integers(0, 6),
)
def test_however_it_is_cut_the_counts_are_the_same(text, cuts, times):
    text *= 1 + times  # some are longer than what is gathered
    assert count(text, cuts) == count(text) == count(text, range(len(text)))


def test_the_tally_counts_each_channel_by_itself_and_forgets():
    tally = Tally()
    for choice in (0, 1):
        tally.release(Channel(choice, "content"), "the same four words the same four words")
    tally.release_entries([Entry("a", -0.25, (), 0), Entry("b", -1.5, (), 1)])
    assert tally.repetition() == (10, 2)
    assert (tally.entries, tally.surprisal) == (2, 175)
    tally.forget()
    assert tally.repetition() == (0, 0)
