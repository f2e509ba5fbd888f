"""Literals in a stream: the same however the text is cut, never late, and nothing is held that begins none."""

import random

import pytest

from stanch.scan.engine_re2 import Re2Engine
from stanch.scan.fold import fold_text
from stanch.scan.literals import LiteralLane, LiteralSearch
from stanch.terms import Severity

LITERALS = ["the violet heron", "heron 7", "éclair au café", "aaab"]
PIECES = [
    "the ", "violet", "heron", "7", "THE", "noreh", "telo", "aaa", "aab", "éclair", "CAFÉ", "au ", "t", "th", "- ",
    "the violet heron", "He-ron 7", "7norEh", "a.a.a.b", "éclair\u00ad au CAFÉ", "THE VIOLET\u200b ",
    "\u200b", "ｔｈｅ", "x" * 40, "\u200b" * 300, " " * 300, "plain words. ", "名", "\x1e", "of the heron's ",
]  # fmt: skip


@pytest.fixture(scope="module")
def search():
    return LiteralSearch(LITERALS, Re2Engine, kind="canary", severity=Severity.CRITICAL)


def cut(text, rng):
    places = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((0, 1, 4, 15, 60))))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def test_every_cut_gives_what_the_whole_gives_and_what_may_begin_a_literal_is_held(search):
    rng, seen = random.Random(2), 0
    for _ in range(150):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
        whole = sorted({(found.start, found.end) for found in search.find(text)})
        for chunks in (cut(text, rng), cut(text, rng), list(text)):
            lane, spans, floor = LiteralLane(search), set(), 0
            for chunk in chunks:
                found = lane.feed(chunk)
                assert all(item.start >= floor for item in found)
                spans |= {(item.start, item.end) for item in found}
                assert lane.floor() >= floor
                floor = lane.floor()
            assert sorted(spans) == whole
        seen += len(whole)
    assert seen > 100


def test_no_more_is_held_than_begins_a_literal(search):
    rng = random.Random(3)
    prefixes = {literal[:size] for literal in search._literals for size in range(1, len(literal))}
    pieces = [piece for piece in PIECES if piece.isascii() and len(piece) < 50]
    for _ in range(100):
        lane, text = LiteralLane(search), ""
        for chunk in rng.choices(pieces, k=20):
            lane.feed(chunk)
            text += chunk
            folded = fold_text(text, "squeezed")
            longest = next((size for size in range(min(30, len(folded)), 0, -1) if folded[-size:] in prefixes), 0)
            assert fold_text(text[lane.floor() :], "squeezed") == folded[len(folded) - longest :]
