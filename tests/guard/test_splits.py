"""Texts cut in every way that chance finds: the same comes out as of the whole, and never the beginning of a secret.

STANCH_SPLITS says how many cuts are tried; `make nightly` tries 1,000,000.
"""

import base64
import itertools
import os
import random

import pytest

from stanch.guard import Action, Guard
from stanch.scan import FINE
from stanch.scan.compiler import COMPILER

SPLITS = int(os.environ.get("STANCH_SPLITS", "20000"))
EACH = 100
MAIL = "ana.diaz@example.org"
TOKEN = "AKIAIOSFODNN7EXAMPLQ"


@pytest.fixture(scope="module")
def guard(policy):
    return Guard(policy)


def play(guard, chunks):
    """Return what came out, and the verdict; a chunk after the block gets nothing."""
    stream = guard.open()
    out, action = [], Action.ALLOW
    for chunk in chunks:
        step = stream.feed(chunk)
        out.append(step.text)
        if (action := step.action) == Action.BLOCK:
            return "".join(out), action
    step = stream.finish()
    return "".join([*out, step.text]), step.action


def secret(rng, library, canary):
    """Return something that must not come out, and how much of its head may."""
    row = rng.choice(library)
    copied = row[(at := rng.randrange(40)) : at + FINE.k + 2 * FINE.stride + rng.randrange(20)]
    code = base64.b64encode(canary.encode()).decode()
    return rng.choice([
        (copied, FINE.k + 2 * FINE.stride),
        (canary, 0), (canary.upper(), 0), (canary[::-1], 0), (" ".join(canary), 0), (code, 0), (MAIL, 0), (TOKEN, 0),
        ("".join(f"\\u{ord(letter):04x}" for letter in canary), 0),
    ])  # fmt: skip


@pytest.mark.parametrize(("is_compiled", "splits"), [(False, SPLITS - SPLITS // 2), (True, SPLITS // 2)])
def test_every_split_gives_what_the_whole_gives(request, monkeypatch, guard, is_compiled, splits):
    library, words, canary = map(request.getfixturevalue, ("library", "words", "canary"))
    monkeypatch.setattr(COMPILER, "steps", request.getfixturevalue("steps") if is_compiled else None)
    monkeypatch.setattr(COMPILER, "_left", 1 << 62)
    rng = random.Random(41)
    done = verdicts = 0
    while done < splits:
        before, (text, head), after = (
            words(rng, rng.choice((1, 2, 3, 15))) + " ",  # after many words all stages are read for at once
            secret(rng, library, canary),
            " " + words(rng, 1),
        )
        said = before + text + after
        whole = play(guard, [said])
        shown = whole[0].removeprefix(before)
        assert whole[1] != Action.ALLOW
        assert not shown.startswith(text[: head + 1])
        verdicts += whole[1] == Action.BLOCK
        for _ in range(min(EACH, splits - done)):
            cuts = sorted(rng.choices(range(1, len(said)), k=rng.choice((1, 1, 1, 2, 3))))
            assert play(guard, [said[a:b] for a, b in itertools.pairwise([0, *cuts, len(said)])]) == whole
            done += 1
    assert done == splits
    assert verdicts > 0
