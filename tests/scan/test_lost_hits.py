"""No hit is lost: Hyperscan finds what RE2 finds in dense text, in small and large blocks and in streams cut anywhere.

Vectorscan 5.4.12 loses matches that begin at the end of a piece, where it skips bytes by twos; see
:data:`stanch.scan.engine_hyperscan._BEFORE`.
"""

import random

import pytest
from anchor_texts import Maker, random_pattern

from stanch.scan import engine_hyperscan, load_pack
from stanch.scan.engine import Pattern
from stanch.scan.engine_hyperscan import HyperscanEngine
from stanch.scan.engine_re2 import Re2Engine
from stanch.scan.rules import anchor_pattern

SHIPPED = [anchor_pattern(rule) for rule in load_pack()]
NUMBERS = [pattern for pattern in SHIPPED if pattern.expression.count(b"[0-9]") > 1]
OTHERS = {"payment-card", "phone-nanp"}  # whose matches cut a block for phone-grouped
TAIL = b"(?:[ ./)-]{0,2}[0-9]){6}"
CUT = {
    "few pairs": (b"0[0-9]" + TAIL, b""),
    "few pairs after a digit": (b"[0-9]0[0-9]" + TAIL, b""),
    "few pairs after three": (b"[0-9]{3}0[0-9]" + TAIL, b""),
    "a dot": (b"[0-9]\\.[0-9]{3,12}[, ]{1,2}-?[0-9]{1,3}\\.[0-9]{3}", b""),
    "few bytes may stand left": (b"0[0-9]" + TAIL, bytes(set(range(256)) - set(b" ,;x."))),
}


def streamed(engine, pieces):
    """Return the hits of a stream."""
    stream = engine.open_stream()
    hits = [hit for piece in pieces for hit in stream.feed(piece)]
    return hits + stream.close()


def lost(engine, patterns, texts, maker):
    """Return the names of the patterns that lose hits, and where: a block, small blocks or a stream."""
    reference, data = Re2Engine(patterns, cached=False), b"\x1e".join(texts)
    wanted = set(reference.scan(data))
    ways = {"block": set(engine.scan(data)), "stream": set(streamed(engine, maker.pieces(data)))}
    assert all(hits <= wanted for hits in ways.values())
    found = {(way, patterns[index].name) for way, hits in ways.items() for _, index in wanted - hits}
    low = 0
    for text in texts:
        inside = {(end - low, index) for end, index in wanted if low < end <= low + len(text)}
        small = set(engine.scan(text))
        assert small <= inside
        found |= {("small block", patterns[index].name) for _, index in inside - small}
        low += len(text) + 1
    return found


@pytest.mark.parametrize("name", CUT)
def test_no_hit_is_lost_where_a_chunk_ends(name):
    expression, lead = CUT[name]
    pattern = Pattern(name, expression, caseless=False, lead=lead)
    engine, reference, rng = (
        HyperscanEngine([pattern], cached=False),
        Re2Engine([pattern], cached=False),
        Maker([pattern], 1),
    )
    for text in (b" ;, x" * 8 + rng.text() for _ in range(12)):
        wanted = reference.scan(text)
        for cut in range(len(text)):
            assert streamed(engine, [text[:cut], text[cut:]]) == wanted, cut


@pytest.mark.parametrize("large", [False, True])
def test_no_hit_is_lost_where_another_rule_matches(large, monkeypatch):
    if large:
        monkeypatch.setattr(engine_hyperscan, "_LARGE", 0)
    patterns = [pattern for pattern in SHIPPED if pattern.name in {"phone-grouped", *OTHERS}]
    maker = Maker(patterns, 3)
    texts = [maker.text() for _ in range(900)]
    assert not lost(HyperscanEngine(patterns, cached=False), patterns, texts, maker)


@pytest.mark.parametrize("patterns", [SHIPPED, NUMBERS], ids=["all", "numbers"])
def test_no_shipped_rule_loses_a_hit(patterns):
    maker = Maker(patterns, 7)
    texts = [maker.text() for _ in range(600)]
    assert not lost(HyperscanEngine(SHIPPED, cached=True), SHIPPED, texts, maker)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(40))
def test_no_shipped_rule_loses_a_hit_in_much_text(seed):
    maker = Maker([pattern for pattern in SHIPPED if b"[" in pattern.expression], 1000 + seed)
    texts = [maker.text() for _ in range(2000)]
    assert not lost(HyperscanEngine(SHIPPED, cached=True), SHIPPED, texts, maker)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(200))
def test_no_anchor_of_any_shape_loses_a_hit(seed):
    rng = random.Random(seed)
    patterns = [random_pattern(rng, f"{seed}-{number}") for number in range(rng.choice((1, 1, 2, 4)))]
    maker = Maker(patterns, seed)
    texts = [maker.text() for _ in range(300)]
    assert not lost(HyperscanEngine(patterns, cached=False), patterns, texts, maker)
