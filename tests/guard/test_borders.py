"""An answer in several places, such as blocks: what lies across a border ends it, and what does not keeps its place."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.guard import Action, Guard, check_text

EMAIL = "ana.diaz@example.org"
TOKEN = "AKIAIOSFODNN7EXAMPLQ"
CLEAN = ("Chest pain has many causes.", " Ask a doctor: only an examina", "", "tion can tell. 😀", "\nSo: a\\nb ", "é")


@pytest.fixture(scope="module")
def guard(policy):
    return Guard(policy)


def play(guard, places, size=1 << 20):
    """Return what came out of each place, and the verdict."""
    stream = guard.open()
    steps = []
    for number, place in enumerate(places):
        if number:
            steps.append(stream.border())
        steps += [stream.feed(place[at : at + size]) for at in range(0, len(place), size)]
    steps.append(stream.finish())
    out = [""]
    for step in steps:
        first, *others = step.places()
        out[-1] += first
        out += others
    return out, steps[-1].action


def follow(guard, before, place, size=1 << 20):
    """Return what came out of a place after one that has left, with something in between, and the verdict."""
    stream = guard.open(after=before)
    steps = [stream.feed(place[at : at + size]) for at in range(0, len(place), size)]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


def cuts(text, step):
    return [(text[:at], text[at:]) for at in range(1, len(text), step)]


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_clean_places_come_out_as_they_were(guard, size):
    assert play(guard, CLEAN, size) == ([*CLEAN], Action.ALLOW)
    assert check_text(guard, *CLEAN).texts == CLEAN
    assert follow(guard, CLEAN[1], CLEAN[3], size) == (CLEAN[3], Action.ALLOW)


@pytest.mark.parametrize("how", ["canary", "reversed", "without the space"])
def test_a_canary_is_stopped_wherever_it_is_cut_and_nothing_of_it_leaves(guard, canary, how):
    text = canary[::-1] if how == "reversed" else canary
    for halves in cuts(text, 3):
        left, right = (half.strip() for half in halves) if how == "without the space" else halves
        for size in (1, 1 << 20):
            out, action = play(guard, [f"Well. {left}", f"{right} so"], size)
            assert action is Action.BLOCK
            assert "Well. ".startswith("".join(out))
            assert follow(guard, f"Well. {left}", f"{right} so", size) == ("", Action.BLOCK)


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.parametrize("loses", ["nothing", "a space"])
def test_training_text_is_stopped_whether_a_border_cuts_a_word_or_takes_a_space(guard, library, parts, loses, size):
    row = library[3][5:205]
    for shift in range(0, 9, 4):
        at = [0, *(shift + number * len(row) // parts for number in range(1, parts)), len(row)]
        places = [row[a:b] for a, b in itertools.pairwise(at)]
        if loses == "a space":
            places = [row[: row.index(" ", 60)], row[row.index(" ", 60) + 1 :]]
        out, action = play(guard, ["Well. ", *places, " so"], size)
        assert action is Action.BLOCK
        assert len("".join(out)) <= len("Well. ") + guard.policy.index.params.k + guard.policy.index.params.stride - 2
        assert check_text(guard, *places).text == ""


@pytest.mark.parametrize("secret", [EMAIL, TOKEN])
def test_a_secret_that_a_border_cuts_ends_the_answer(guard, secret):
    for left, right in cuts(secret, 2):
        assert check_text(guard, f"It is {left}", f"{right} so").texts == ("", "")
        out, action = play(guard, [f"It is {left}", f"{right} so"])
        assert (out[0].removesuffix(" "), action) == ("It is", Action.BLOCK)
        assert follow(guard, f"It is {left}", f"{right} so", 3) == ("", Action.BLOCK)


def test_a_finding_in_one_place_is_replaced_there_whatever_stands_before_it(guard):
    assert play(guard, ["Well,", f"{EMAIL}, ", "end"]) == (["Well,", "<EMAIL>, ", "end"], Action.REDACT)
    assert play(guard, ["the key", f"{TOKEN} so"])[1] is Action.BLOCK  # glued to the word it would be none
    assert follow(guard, "to <EMAIL>", f"and {EMAIL}.") == ("and <EMAIL>.", Action.REDACT)
    assert check_text(guard, f"to {EMAIL}", ", and", f" {EMAIL}.").texts == ("to <EMAIL>", ", and", " <EMAIL>.")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chunks_leave_no_trace(guard, library, canary, words, seed):
    rng = random.Random(seed)
    secret = rng.choice((canary, library[2][:130], EMAIL, TOKEN, words(rng, 8), 'so \\u0061 "x"', "a\x1fb",
                         "".join(f"\\u{ord(letter):04x}" for letter in canary)))  # fmt: skip
    text = f"{words(rng, 4)} {secret} {words(rng, 3)}"
    at = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randint(1, 3)))
    places = [text[a:b] for a, b in itertools.pairwise([0, *at, len(text)])]
    whole, followed = play(guard, places), follow(guard, places[0], places[1])
    for size in (1, 2, 7):
        assert play(guard, places, size) == whole
        assert follow(guard, places[0], places[1], size) == followed
    if whole[1] is Action.ALLOW:
        assert whole[0] == places
