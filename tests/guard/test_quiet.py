"""Quiet text leaves as the stages would let it, step by step; what is loud is theirs."""

import base64
import random

import pytest

from stanch.guard import Action, Guard, GuardPolicy, quiet
from stanch.guard.quiet import QuietReader
from stanch.guard.stream import _AT_ONCE, GuardStream
from stanch.scan import Dictionary
from stanch.scan import sheet as sheet_module
from stanch.scan.compiler import COMPILER
from stanch.scan.glance import hold

KEY, LOUD = bytes(range(32)), GuardStream._step_loud
PROSE = (
    'the of and Python Module class is in a The PEP 3 12 1990 __init__ foo.bar, it\'s (a.k.a. Mr Smith) "quoted" Jane '
    "Doe McDonald IV e.g. i.e. self. list[int] x=3; violet heron the violet harbour code 4417 blue lagoon New York "
    "555-1234 10 20 30 A B C O'Neill Dr. 12:30 + - <b> ghp_ sk-"
)
RARE = ("é", "中", "\n\n", "  ", " " * 300, "\t", "'", "\\u0041", "\x1e", "a" * 23, "b" * 24, "c" * 60, ",;" * 20)
MAILS = ("ana@example.org", "support@example.org", "\\nsupport@example.org")
TERMS = ("violet heron sings", "nightjar", "the blue lagoon", "zebra crossing point", "kilo")


@pytest.fixture(scope="module")
def policies(indexes, canary):
    terms = Dictionary.build(TERMS, key=KEY, label="codename")
    single = Dictionary.build(["nightjar", "lagoon"], key=KEY, label="bird")
    canaries = (canary, "the violet heron sings 48113")
    return [
        GuardPolicy(),
        GuardPolicy(index=indexes["fine"]),
        GuardPolicy(canaries=canaries),
        GuardPolicy(dictionaries=(terms, single)),
        GuardPolicy(
            index=indexes["fine"],
            dictionaries=(terms,),
            allow=("support@example.org", "nightjar"),
            actions={"phone": Action.ALLOW, "person": Action.ALLOW, "codename": Action.REDACT, "secret": Action.REDACT},
        ),
        GuardPolicy(index=indexes["fine"], canaries=canaries, dictionaries=(terms,)),
    ]


def play(guard, chunks):
    """Return all that a stream says, and its counts."""
    stream = guard.open()
    steps = [stream.feed(chunk) for chunk in chunks]
    steps.append(stream.finish())
    return steps, stream.compared


@pytest.fixture(scope="module")
def mixture(words, library, canary):
    """Return what makes prose with now and then something in it that some stage waits for."""
    prose = PROSE.split()

    def mix(rng):
        parts = [words(rng, 14)]
        for _ in range(rng.randint(5, 60)):
            row, at = rng.choice(library), rng.randrange(300)
            rare = (
                row[at : at + rng.randint(10, 60)], canary[: rng.randint(3, 30)], rng.choice(TERMS), rng.choice(MAILS),
                base64.b64encode(rng.randbytes(rng.randint(10, 40))).decode(), rng.choice(RARE),
            )  # fmt: skip
            word = rng.choice(prose)
            parts.append(rng.choice((*[word] * 20, word.upper(), word.capitalize(), words(rng, 1), rng.choice(rare))))
        return rng.choice(" \n").join(parts)

    return mix


def cut(rng, text):
    most, at, chunks = rng.choice((1, 3, 10, 10, 40, 120, 900)), 0, []
    while at < len(text):
        size = rng.randint(0, most)
        chunks.append(text[at : at + size])
        at += size
    return chunks


@pytest.mark.parametrize("seed", range(60))
def test_every_step_is_that_of_the_stages(policies, mixture, steps, monkeypatch, seed):
    rng = random.Random(seed)
    guard = Guard(policies[seed % len(policies)])
    monkeypatch.setattr(quiet, "_MOST_MISSED", rng.choice((1, 7, 1024)))
    for _ in range(4):
        chunks = cut(rng, mixture(rng))
        said = []
        for way in (None, steps):
            monkeypatch.setattr(COMPILER, "steps", way)
            monkeypatch.setattr(COMPILER, "_left", 1 << 62)
            said.append(play(guard, chunks))
        assert said[0][0] == said[1][0]
        # Of a long chunk that ends the answer, what stands behind is not read.
        ended_in_a_long_one = said[0][0][-1].action is Action.BLOCK and max(map(len, chunks)) > _AT_ONCE
        assert said[0][1] == said[1][1] or ended_in_a_long_one


def test_prose_is_quiet(policies, words, steps, monkeypatch):
    monkeypatch.setattr(COMPILER, "steps", steps)
    read, calls = QuietReader.read, []

    def counted(self, chunk):
        calls.append(passed := read(self, chunk))
        return passed

    monkeypatch.setattr(QuietReader, "read", counted)
    rng = random.Random(5)
    text = ". ".join(words(rng, 9).capitalize() for _ in range(60))
    chunks = [text[at : at + 5] for at in range(0, len(text), 5)]
    for policy in policies:
        calls.clear()
        steps, _ = play(Guard(policy), chunks)
        assert "".join(step.text for step in steps) == text
        assert len(calls) > len(chunks) * 0.9
        assert calls.count(None) < len(chunks) * 0.05


def test_long_chunks_and_the_beginning_are_quiet_too(policies, words, steps, monkeypatch):
    monkeypatch.setattr(COMPILER, "steps", steps)
    told = []
    monkeypatch.setattr(GuardStream, "_step_loud", lambda *_, **how: told.append(how) or LOUD(*_, **how))
    rng = random.Random(7)
    text = ". ".join(words(rng, 9).capitalize() for _ in range(30))
    for policy in policies:
        for chunks in ([text[:5], text[5:]], [text[at : at + 5] for at in range(0, 60, 5)]):
            told.clear()
            out, _ = play(Guard(policy), chunks)
            assert "".join(step.text for step in out) == "".join(chunks)
            assert len(told) <= 4  # the first letters, a name that is held, and the end


def test_what_was_missed_is_counted_and_has_its_place(policies, words, canary, steps, monkeypatch):
    rng = random.Random(6)
    chunks, said = cut(rng, words(rng, 90)), []
    for way in (None, steps):
        monkeypatch.setattr(COMPILER, "steps", way)
        stream = Guard(policies[-1]).open()
        told = []
        for chunk in chunks:
            told += [stream.feed(chunk), stream.compared]
        told += [stream.border(), stream.feed(" and " + canary), stream.finish()]
        said.append(told)
    assert said[0] == said[1]
    assert said[0][-1].action == Action.BLOCK


def test_too_many_literals_are_left_to_the_stages(steps, words, canary, monkeypatch):
    monkeypatch.setattr(COMPILER, "steps", steps)
    monkeypatch.setattr(sheet_module, "MOST_STATES", 10)
    text, policy = words(random.Random(7), 40), GuardPolicy(canaries=(canary,))
    assert quiet.policy_sheet(policy) is None
    stream = Guard(policy).open()
    assert "".join(stream.feed(letter).text for letter in text) + stream.finish().text == text


@pytest.mark.parametrize("seed", range(20))
def test_the_rules_hold_what_they_held(policies, mixture, seed):
    """The plain functions, without numba: what is held of each text is what the hold rules say."""
    rng = random.Random(seed)
    policy = policies[0]
    sheet, held = quiet.policy_sheet(policy).numbers, policy.scanner._rules.held_ends
    for _ in range(100):
        text = mixture(rng)
        at = rng.randrange(len(text))
        data = text[at : at + rng.randint(1, 90)].encode("ascii", "replace")
        literal = held.prefixes.held(held.prefixes.step(0, data))
        assert len(data) - hold(data, 0, len(data), literal, sheet) == held[data]
