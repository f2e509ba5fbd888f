"""What runs of base64, hexadecimal digits and percent-encoding hide; chunk borders; what passes."""

import base64
import itertools
import random
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.guard import CANARY, ENCODED_TEXT, ENCODED_TRAINING_TEXT, Action, Guard, GuardPolicy, check_text
from stanch.guard.decode import LONGEST_RUN, DecodedGate
from stanch.scan import Dictionary
from stanch.terms import Severity

ENCODINGS = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "percent": lambda text: quote(text, safe=""),
    "percent of all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "glued base64": lambda text: "x/y" + base64.b64encode(text.encode()).decode(),
    "glued hex": lambda text: "7" + text.encode().hex(),
}
TERM = "Project Blue Heron 44"
LABELLED = "codename"


@pytest.fixture(scope="module")
def guard(policy):
    terms = Dictionary.build([TERM], key=bytes(32), label=LABELLED, severity=Severity.LOW)
    return Guard(GuardPolicy(index=policy.index, canaries=policy.canaries, dictionaries=(terms,)))


def play(guard, chunks):
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return "".join(step.text for step in steps), steps[-1].action


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("what", ["training text", "canary", "reversed canary", "dictionary"])
def test_nothing_of_an_encoded_secret_leaves(guard, library, canary, encoding, what):
    secret, kind = {
        "training text": (library[2][7:107], ENCODED_TRAINING_TEXT),
        "canary": (canary, CANARY),
        "reversed canary": (canary[::-1], CANARY),
        "dictionary": (TERM, LABELLED),
    }[what]
    run = ENCODINGS[encoding](secret)
    text = f"It is: {run} and more"
    for chunks in ([text], list(text)):
        out, action = play(guard, chunks)
        assert action == Action.BLOCK
        assert "It is: ".startswith(out)
    (finding,) = [one for one in check_text(guard, text).findings if one.reason == "action: block"]
    assert (finding.kind, finding.start, finding.end) == (kind, 7, 7 + len(run))
    assert play(guard, ["It is: " + run])[1] == Action.BLOCK


def test_base64_of_text_outside_ascii(guard, library):
    """Both alphabets are needed to write these letters."""
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in library[4][:90])
    for encoding in ("base64", "base64url", "percent"):
        assert play(guard, [ENCODINGS[encoding](wide)]) == ("", Action.BLOCK)


@pytest.mark.parametrize(
    "text",
    [
        "See https://example.org/a/very-long/path/of_words?and=some%20query%20of%20it#here for more.",
        f"Picture: {base64.b64encode(random.Random(3).randbytes(900)).decode()} end",
        f"Digest {random.Random(3).randbytes(32).hex()} ok",
        "a" * LONGEST_RUN + " end",
        "https://example.org/" + "%C3%A9" * 40,
        "100% of it, or 5 %",
        "%zz" * 20,
        "",
        "漢字" * 3000,
    ],
)
def test_clean_text_passes(policy, text):
    gate = DecodedGate(policy)
    assert gate.feed(text) + gate.finish() == text
    assert gate.found is None
    gate = DecodedGate(policy)
    assert "".join(map(gate.feed, text)) + gate.finish() == text


def test_a_term_that_stands_in_the_text_is_labelled_as_ever(guard):
    """In a run of which other parts are encoded."""
    out, action = play(guard, ["at example.org/%41%42%43/Project-Blue-Heron-44 now"])
    assert (out, action) == ("at example.org/%41%42%43/<CODENAME> now", Action.REDACT)


@pytest.mark.parametrize("size", [LONGEST_RUN + 1, 2 * LONGEST_RUN])
@pytest.mark.parametrize("chunk", [7, 100_000])
def test_a_run_that_is_too_long_to_be_read_ends_the_answer(guard, size, chunk):
    text = "so: " + "QUJD" * (size // 4) + "Q" * (size % 4)
    stream = guard.open()
    steps = [stream.feed(text[at : at + chunk]) for at in range(0, len(text), chunk)]
    assert "so: ".startswith("".join(step.text for step in steps))
    assert steps[-1].action == Action.BLOCK
    (finding,) = [found for step in steps for found in step.findings]
    assert (finding.kind, finding.start, finding.end) == (ENCODED_TEXT, 4, 4 + LONGEST_RUN)
    assert max(step.held_chars for step in steps) <= LONGEST_RUN


def test_prose_is_held_by_a_word(policy):
    gate = DecodedGate(policy)
    assert [gate.feed(piece) for piece in ("All is", " well", ", they", " say")] == ["All ", "is ", "well, ", "they "]
    assert gate.held_chars == 3
    assert gate.finish() == "say"


def pieces(rng, library, canary, words):
    """Return a text of words, encoded secrets, halves of them, and look-alikes of runs."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        secret = rng.choice((canary, library[rng.randrange(12)][: rng.randint(20, 90)], words(rng, 8), TERM))
        run = ENCODINGS[rng.choice(list(ENCODINGS))](secret)
        parts += [
            words(rng, 2),
            rng.choice((run, run[: rng.randrange(len(run))], run[rng.randrange(6) :], secret, "x" * 23, "%4", "é/")),
        ]
    return rng.choice((" ", "", ", ", "\n")).join(parts)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chunks_leave_no_trace(guard, library, canary, words, seed):
    rng = random.Random(seed)
    text = pieces(rng, library, canary, words)
    whole = play(guard, [text])
    for count in (1, 3, 9):
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(count))
        assert play(guard, [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]) == whole
    assert play(guard, list(text)) == whole
