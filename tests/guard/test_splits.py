"""Texts cut in every way that chance finds: the same comes out as of the whole, and never the beginning of a secret.

STANCH_SPLITS says how many cuts are tried; `make nightly` tries 1,000,000.
"""

import base64
import itertools
import os
import random

import pytest

from stanch.guard import Action, Guard, GuardPolicy
from stanch.scan import FINE
from stanch.scan.compiler import COMPILER

SPLITS = int(os.environ.get("STANCH_SPLITS", "20000"))
EACH = 100
MAIL, SUPPORT = "ana.diaz@example.org", "support@example.org"
PHONE = "+1 415 555 2671"
TOKEN = "AKIAIOSFODNN7EXAMPLQ"


@pytest.fixture(scope="module")
def guards(policy, indexes, canary):
    """Return the plain guard, and one that replaces secrets and runs, and lets some numbers and an address pass."""
    actions = {"aws-access-key-id": Action.REDACT, "phone": Action.ALLOW, "training-text": Action.REDACT}
    chosen = GuardPolicy(indexes["fine"], (canary,), actions=actions, allow=(SUPPORT,), lead_hold=True)
    return Guard(policy), Guard(chosen)


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


def public(rng):
    """Return what the second guard lets pass, as it stands or after an escape."""
    return rng.choice(("", "", SUPPORT, SUPPORT.upper(), PHONE, "\\n" + SUPPORT, "\\n" + PHONE)) + " "


@pytest.mark.parametrize(("is_compiled", "splits"), [(False, SPLITS - SPLITS // 2), (True, SPLITS // 2)])
def test_every_split_gives_what_the_whole_gives(request, monkeypatch, guards, is_compiled, splits):
    library, words, canary = map(request.getfixturevalue, ("library", "words", "canary"))
    monkeypatch.setattr(COMPILER, "steps", request.getfixturevalue("steps") if is_compiled else None)
    monkeypatch.setattr(COMPILER, "_left", 1 << 62)
    rng = random.Random(41)
    done, verdicts = 0, set()
    while done < splits:
        is_chosen = rng.random() < 0.5
        guard = guards[is_chosen]
        before, (text, head), after = (
            # After many words all stages are read for at once.
            words(rng, rng.choice((1, 2, 3, 15))) + " " + (public(rng) if is_chosen else ""),
            secret(rng, library, canary),
            " " + words(rng, 1),
        )
        said = before + text + after
        whole = play(guard, [said])
        shown = whole[0][len(before) :]
        if is_chosen:
            head, tail = 0, before[-FINE.stride :].lstrip() if head else ""  # a run may have begun before it
            assert whole[1] == Action.BLOCK or whole[0].startswith(before.removesuffix(tail).rstrip())
        assert whole[1] != Action.ALLOW
        assert not shown.startswith(text[: head + 1])
        verdicts.add((is_chosen, text == TOKEN, whole[1]))
        for _ in range(min(EACH, splits - done)):
            cuts = sorted(rng.choices(range(1, len(said)), k=rng.choice((1, 1, 1, 2, 3))))
            assert play(guard, [said[a:b] for a, b in itertools.pairwise([0, *cuts, len(said)])]) == whole
            done += 1
    assert done == splits
    assert {(False, True, Action.BLOCK), (True, True, Action.REDACT), (True, False, Action.BLOCK)} <= verdicts
