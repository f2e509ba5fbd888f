"""Stage 1: exact bounds, chunk invariance, the two decision rules, what is held."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.guard import SpanGate
from stanch.guard.spans import HELD_LIMIT
from stanch.scan import IndexParams, SpanIndex, fold_text

BOUNDS = {"fine": (32, 16, 47, 63, 46), "standard": (50, 25, 74, 99, 73)}
KEY = bytes(range(32))
SPLITS = 60


def play(gate, chunks):
    """Return what came out, and where the text was cut."""
    out, run = [], None
    for chunk in chunks:
        step = gate.feed(chunk)
        out.append(step.text)
        run = step.run
    last = gate.finish()
    return "".join(out) + last.text, last.run or run


def split(text, rng):
    """Cut a text at a few random places, or now and then at every place."""
    if rng.random() < 0.02:
        return list(text)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.choice((1, 2, 3, 6))))
    return [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


def with_windows(texts, k=32, stride=16):
    """Index texts so widely that chance plays no part."""
    return SpanIndex.build(texts, key=KEY, params=IndexParams(k, stride, 64, None))


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_at_every_grid_phase(name, words):
    """One long word is indexed, so that every character is a folded one as soon as it is there."""
    k, stride, surely_hit, surely_cut, left = BOUNDS[name]
    source = words(random.Random(3), 400).replace(" ", "")[:400]
    index = with_windows([source], k, stride)
    hits, cuts, heads = [], [], []
    for at in range(100, 100 + stride):
        gate = SpanGate(index)
        released = -len("zq ") + len(gate.feed("zq ").text)
        hit = cut = None
        for count, char in enumerate(source[at:], start=1):
            step = gate.feed(char)
            released += len(step.text)
            if hit is None and gate.held_chars:
                hit = count
                heads.append(released)
            if step.run is not None:
                cut = count
                break
        assert (hit, cut, released) == (k + -at % stride, k + stride + -at % stride, k + -at % stride - 1)
        hits.append(hit)
        cuts.append(cut)
    assert (max(hits), max(cuts), max(heads)) == (surely_hit, surely_cut, left)
    assert (surely_hit, surely_cut, left) == (k + stride - 1, k + 2 * stride - 1, k + stride - 2)


@pytest.mark.parametrize("name", BOUNDS)
def test_with_a_lead_hold_nothing_of_a_run_leaves(name, words):
    """At every grid phase, however it is cut; and nothing but the last characters of other text waits."""
    k, stride, _, surely_cut, left = BOUNDS[name]
    rng = random.Random(4)
    source = words(rng, 400).replace(" ", "")[:400]
    index = with_windows([source], k, stride)
    for at in range(100, 100 + stride):
        before = "-- " * rng.randrange(3) + "zq" * 60 + " "
        said = before + source[at : at + surely_cut]
        out, run = play(SpanGate(index, lead_hold=True), [said])
        assert run is not None
        assert before.startswith(out)
        assert len(before) - len(out) <= stride  # the run may begin so much before its first window
        assert all(play(SpanGate(index, lead_hold=True), split(said, rng)) == (out, run) for _ in range(6))
    gate = SpanGate(index, lead_hold=True)
    for char in "zq" * 200:
        gate.feed(char)
        assert gate.held_chars <= left
    assert not gate.rests
    padded = "zq" * 60 + "\n" * 9000 + source[100 : 100 + surely_cut - 1] + "\u200b" * 9000
    whole = play(SpanGate(index, lead_hold=True), [padded])
    assert all(play(SpanGate(index, lead_hold=True), split(padded, rng)) == whole for _ in range(10))


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_in_prose(indexes, library, name):
    """In folded characters the same bounds hold with words, case and punctuation in between."""
    _, stride, _, surely_cut, left = BOUNDS[name]
    for at in range(100, 100 + 2 * stride):
        copied = library[4][at:].replace(" ", " -- ").upper()
        text, run = play(SpanGate(indexes[name]), ["zq ", *copied])
        assert run is not None
        assert len(fold_text(text.removeprefix("zq "), "index")) <= left
        start = next(n for n in range(len(copied)) if len(fold_text(copied[:n], "index")) >= surely_cut)
        assert play(SpanGate(indexes[name]), ["zq ", copied[: start + 4]])[1] is not None


def test_clean_text_passes_at_once_and_short_copies_pass_in_the_end(indexes, library, words):
    clean = words(random.Random(5), 200)
    gate = SpanGate(indexes["fine"])
    assert all(gate.feed(char).text == char for char in clean)
    for length in (20, 31, 32, 40, 47):
        text = "zq " + library[2][160 : 160 + length] + " zq"
        assert play(SpanGate(indexes["fine"]), text) == (text, None)


def test_a_lone_hit_is_held_for_one_stride_and_released(words):
    source = words(random.Random(6), 60).replace(" ", "")[:32]
    gate = SpanGate(with_windows([source]))
    assert gate.feed(source).text == source[:-1]
    assert gate.feed("q" * 15).text == ""
    assert gate.held_chars == 16
    assert gate.feed("q").text == source[-1] + "q" * 16
    assert gate.held_chars == 0
    assert gate.lone == {source.encode()}
    slow = SpanGate(with_windows([source]))
    for char in f"{source} and more {source}":
        slow.feed(char)
    slow.finish()
    assert slow.lone == {source.encode()}
    assert source not in repr(vars(slow)["_pending"])


def six(rng, words, count, gap):
    """Return text with ``count`` indexed windows that never lie one stride apart, and the indexed windows."""
    parts = [words(rng, 60).replace(" ", "")[:32] for _ in range(count)]
    return parts, "".join(part + "q" * gap for part in parts)


def test_five_hits_in_512_cut_and_four_do_not(words):
    rng = random.Random(7)
    parts, text = six(rng, words, 6, 30)
    index = with_windows(parts)
    out, run = play(SpanGate(index), [text])
    assert out == text[: 4 * 62 + 31]
    assert run == (0, 4 * 62 + 32)
    four = text[: 4 * 62]
    assert play(SpanGate(index), [four]) == (four, None)
    # Window starts 128 apart: the fifth is 512 after the first, so never five of them within 512.
    wide = "".join(part + "q" * 96 for part in parts)
    assert play(SpanGate(index), [wide]) == (wide, None)
    near = "".join(part + "q" * 95 for part in parts)
    assert play(SpanGate(index), list(near))[1] is not None


def test_cut_stays_cut(indexes, library):
    gate = SpanGate(indexes["fine"])
    run = gate.feed(library[0]).run
    assert run is not None
    assert gate.feed("harmless").text == gate.finish().text == ""
    assert gate.feed("harmless").run == gate.finish().run == run
    assert gate.held_chars == 0


def test_too_much_fill_in_held_text_is_cut_at_one_place(words):
    source = words(random.Random(8), 60).replace(" ", "")[:32]
    index = with_windows([source])
    # Held before the character that gives the hit up: its last one, the fill, and 14 letters.
    for fill, is_cut in ((HELD_LIMIT - 15, False), (HELD_LIMIT - 14, True), (9000, True)):
        text = source + "." * fill + "q" * 40
        for chunks in ([text], list(text), [text[:2000], text[2000:4500], text[4500:]]):
            out, run = play(SpanGate(index), chunks)
            assert (run is not None) is is_cut
            assert out == (source[:-1] if is_cut else text)


def recipe(rng, words, library):
    """Compose a text of prose, lone windows, copies, edited copies and odd characters."""
    parts = []
    for _ in range(rng.randint(2, 5)):
        source = rng.choice(library)
        at = rng.randrange(0, len(source) - 120)
        match rng.randrange(6):
            case 0:
                parts.append(words(rng, 8))
            case 1:
                parts.append(source[at : at + rng.randint(20, 62)])
            case 2:
                parts.append(source[at : at + rng.randint(55, 90)])
            case 3:
                parts.append(source[at : at + 60].upper().replace(" ", rng.choice((" — ", "\n\n", " \u200b", ". "))))
            case 4:
                parts.append("".join(rng.choice("Ω⒜ß가한 \ud835\udc00ﬁ…\u0301") for _ in range(12)))
            case 5:
                parts.append(source[at : at + 40] + rng.choice(("..", " ⒜ ", "x")) + source[at + 40 : at + 80])
    return rng.choice((" ", "", "  ")).join(parts)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chunks_leave_no_trace(indexes, library, words, seed):
    rng = random.Random(seed)
    text = recipe(rng, words, library)
    index = indexes["fine"]
    whole = play(SpanGate(index), [text])
    assert text.startswith(whole[0])
    assert whole[1] is not None or whole[0] == text
    for _ in range(SPLITS):
        assert play(SpanGate(index), split(text, rng)) == whole


def test_a_space_that_completes_a_window_is_no_chunk_border(words):
    """The folded space is known with the next word: what is released before must not depend on it."""
    word = words(random.Random(9), 60).replace(" ", "")[:31]
    index = with_windows([word + " " + "x" * 15])
    text = word + "   " + "x" * 15 + " and more"
    whole = play(SpanGate(index), [text])
    assert whole[1] is None
    copied = with_windows([word + " " + "x" * 47])
    text = word + "   " + "x" * 47
    whole = play(SpanGate(copied), [text])
    assert whole == (word + "   ", (0, 50))
    assert play(SpanGate(copied), text) == whole
    assert all(play(SpanGate(copied), [text[:at], text[at:]]) == whole for at in range(len(text)))


def test_memory_of_a_long_stream_is_bounded(indexes, words):
    gate = SpanGate(indexes["fine"])
    chunk = words(random.Random(10), 40) + " — é. "
    for _ in range(400):
        gate.feed(chunk)
    assert gate.cursor.position > 80_000
    # Two entries a word and a few for each odd character, over what is remembered and one chunk.
    assert len(gate._folder.offsets._derived) < 3000
    assert len(gate._raw) + len(gate._folded) + len(gate._tracker._recent) + len(gate._pending) < 1000
