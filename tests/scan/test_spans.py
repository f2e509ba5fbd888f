"""The span index: goldens, scalar = bulk, guaranteed lengths, false hits, decisions."""

import importlib.util
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.errors import InvalidInput
from stanch.scan import (
    COMPACT,
    FINE,
    STANDARD,
    Evidence,
    Folder,
    Hit,
    IndexParams,
    Layout,
    MatchTracker,
    SpanIndex,
    fold_text,
)
from stanch.scan.spans.bloom import BlockedBloom, block_count, finalise, probe
from stanch.scan.spans.evidence import log10_tail
from stanch.scan.spans.rolling import P, RollingKey, WindowHasher, multiply, window_hash
from stanch.scan.spans.windows import Windows

HERE = Path(__file__).resolve()
GOLDEN = json.loads((HERE.parents[1] / "vectors/scan/index.json").read_text())
KEY = bytes(range(32))


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE.parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _load("span_texts")


@pytest.fixture(scope="module")
def library():
    return made.texts(120, 160, seed=1)


@pytest.fixture(scope="module")
def index(library):
    return SpanIndex.build(library, key=KEY, layout=Layout(bytes(range(16)), 300))


def test_golden():
    key = RollingKey.derive(bytes.fromhex(GOLDEN["key"]), bytes.fromhex(GOLDEN["salt"]))
    window = GOLDEN["window"].encode()
    assert (key.base, key.values[97]) == (GOLDEN["base"], GOLDEN["value_of_a"])
    assert window_hash(key, window) == GOLDEN["hash"]
    finalised = finalise(key.finaliser, WindowHasher(key, GOLDEN["k"]).all(window))
    assert finalised.tobytes().hex() == GOLDEN["finalised"]
    words = BlockedBloom.build(finalised, GOLDEN["blocks"]).words
    assert np.flatnonzero(words.any(axis=1)).tolist() == [GOLDEN["block"]]
    assert words[GOLDEN["block"]].tolist() == [1 << bit for bit in GOLDEN["bits"]]


@given(
    left=st.lists(st.integers(0, P - 1) | st.sampled_from([0, 1, P - 1, 2**31, 2**60]), min_size=1),
    right=st.integers(0, P - 1),
)
def test_multiplication_modulo_the_prime(left, right):
    for factor in (right, P - 1, 1, 0):
        product = multiply(np.array(left, dtype=np.uint64), factor)
        assert product.tolist() == [value * factor % P for value in left]


@settings(max_examples=40, deadline=None)
@given(text=st.binary(max_size=300), k=st.integers(1, 70))
def test_doubling_gives_the_hash_of_each_window(text, k):
    key = RollingKey.derive(KEY, bytes(16))
    expected = [window_hash(key, text[at : at + k]) for at in range(len(text) - k + 1)]
    assert WindowHasher(key, k).all(text).tolist() == expected


def test_tiles_do_not_show():
    key, text = RollingKey.derive(KEY, bytes(16)), random.Random(1).randbytes(10_000)
    hashes = WindowHasher(key, 50).all(text)
    assert len(hashes) == 9951
    for at in (0, 4045, 4095, 4096, 4097, 8191, 8192, 9950):
        assert hashes[at] == window_hash(key, text[at : at + 50])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cursor_gives_the_same_hits_for_every_chunking(index, library, data):
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    folded = fold_text(" ".join(made.words(20, rng)) + " " + rng.choice(library)[100:600] + " tail words", "index")
    whole = index.cursor().push(folded)
    assert whole
    cursor, hits, at = index.cursor(), [], 0
    while at < len(folded):
        size = data.draw(st.sampled_from([1, 3, 40, 255, 256, 400]))
        hits += cursor.push(folded[at : at + size])
        at += size
    assert hits == whole
    assert cursor.position == len(folded)


def test_scalar_probe_agrees_with_the_filter():
    rng = np.random.default_rng(5)
    inserted = rng.integers(0, 2**64, (500, 2), dtype=np.uint64)
    others = rng.integers(0, 2**64, (5000, 2), dtype=np.uint64)
    bloom = BlockedBloom.build(inserted, block_count(500, 12))
    assert bloom.holds(inserted).all()
    rows = np.concatenate([inserted, others])
    flat = bloom.words.data.cast("B").cast("Q")
    at = [((int(y0) >> 32) * len(bloom.words) >> 32) * 8 for y0, _ in rows]
    assert bloom.holds(rows).tolist() == [probe(flat, place, int(y1)) for place, (_, y1) in zip(at, rows, strict=True)]


def test_false_hits_are_as_frequent_as_the_fill_says():
    # 3 sigma, two-sided: a false failure in 0.3 % of seeds; the seed is fixed.
    rng = np.random.default_rng(6)
    bloom = BlockedBloom.build(rng.integers(0, 2**64, (40_000, 2), dtype=np.uint64), block_count(40_000, STANDARD.bits))
    count = 3_000_000
    expected = bloom.random_hit()
    hits = sum(int(bloom.holds(rng.integers(0, 2**64, (100_000, 2), dtype=np.uint64)).sum()) for _ in range(30))
    assert abs(hits - count * expected) <= 3 * (count * expected * (1 - expected)) ** 0.5
    assert 6.0e-4 < expected < 7.0e-4


@pytest.mark.parametrize("params", [COMPACT, STANDARD, FINE], ids=["compact", "standard", "fine"])
def test_guaranteed_lengths_hold_at_every_offset(library, params):
    index = SpanIndex.build(library[:20], key=KEY, params=params)
    folded = fold_text(library[3], "index")
    one, chain = params.k + params.stride - 1, params.k + 2 * params.stride - 1
    for at in range(len(folded) - chain):
        assert index.cursor().push(folded[at : at + one])
        assert MatchTracker(params.stride).push(index.cursor().push(folded[at : at + chain]))


def test_the_end_of_a_text_is_covered(index, library):
    tail = fold_text(library[0], "index")[-32:]
    assert [hit for hit in index.cursor().push(tail) if hit.start == 0]


def test_cut_spans_match_and_independent_text_does_not(index, library):
    rng = random.Random(9)
    for _ in range(1000):
        folded = fold_text(rng.choice(library), "index").decode()
        at = rng.randint(0, len(folded) - 100)
        (match,) = index.query(folded[at : at + 100])
        assert match.folded_length >= 57
        assert 0 <= match.start < match.end <= 100
    independent = "\n".join(made.texts(1, 180_000, seed=77))
    assert len(independent) >= 1_000_000
    # By the filter's fill about 0.4 chains are expected.
    assert len(index.query(independent)) <= 1


def test_case_and_punctuation_do_not_hide_a_copy(index, library):
    rng, found = random.Random(11), 0
    for _ in range(300):
        text = rng.choice(library)
        at = rng.randint(0, len(text) - 200)
        loud = "".join(c.upper() if c != " " else rng.choice([" ", ", ", " — ", "!  "]) for c in text[at : at + 200])
        found += bool(index.query(loud))
    assert found >= 297


def test_copies_survive_changed_words(index, library):
    # One word in ten: 0.975 of copies; 300 of them give less than 0.94 with probability 3e-4. The seed is fixed.
    rng, found = random.Random(12), 0
    for _ in range(300):
        folded = fold_text(rng.choice(library), "index").decode()
        at = rng.randint(0, len(folded) - 380)
        copy = [made.words(1, rng)[0] if rng.random() < 0.1 else word for word in folded[at : at + 380].split()]
        found += bool(index.query(" ".join(copy)))
    assert found >= 282


def test_a_match_points_at_the_copy_in_the_query(index, library):
    copy = library[5][37:317].strip()
    query = f"Entirely unrelated words first — then: «{copy.upper()}» and more of our own."
    (match,) = index.query(query)
    assert query.index(copy.upper()) - 2 <= match.start <= query.index(copy.upper()) + STANDARD.stride + 1
    assert match.end <= query.index("»")
    assert match.hits >= 2


def test_without_the_key_hits_are_chance(library, index):
    # The same array under another key.
    stranger = SpanIndex(index._content, bytes(32))
    folded = fold_text(" ".join(library), "index")
    hits = len(stranger.cursor().push(folded))
    expected = len(folded) * index.header.fill_fp
    assert abs(hits - expected) <= 5 * (expected**0.5 + 1)


def test_boilerplate_is_left_out(library):
    greeting = "thank you for writing to our support team we will answer within two working days as promised " * 2
    texts = [text[:20] + " " + greeting + text for text in library[:30]]
    params = replace(STANDARD, boilerplate_after=5)
    fewer = SpanIndex.build(texts, key=KEY, params=params)
    assert not fewer.query(greeting)
    assert fewer.header.boilerplate.left_out > 0
    assert SpanIndex.build(texts[:5], key=KEY, params=params).query(greeting)


def test_what_many_texts_hold_is_indexed_unless_it_is_to_be_left_out(library):
    index = SpanIndex.build([f"{text} {library[40]} {text}" for text in library[:9]], key=KEY)
    assert index.query(library[40])
    assert index.header.boilerplate is None


def test_copies_of_a_text_are_no_boilerplate(library):
    row, others = library[0], library[1:20]
    index = SpanIndex.build([*others, *[row] * 50, row.upper()], key=KEY)
    assert index.query(row)
    assert index.header.records == len(others) + 1


def test_texts_below_a_window_are_not_covered():
    index = SpanIndex.build(["too short to be seen", ""], key=KEY)
    assert (index.header.keys, index.header.records, index.header.blocks) == (0, 2, 1)
    assert index.query("too short to be seen") == []
    assert SpanIndex.build([], key=KEY).query("nothing at all " * 20) == []


@pytest.mark.parametrize(
    "wrong", [(31, 16, 16), (50, 0, 16), (50, 51, 16), (50, 25, 7), (50, 25, 65), (2000, 25, 16), (50, 25, 16, 0)]
)
def test_parameters_out_of_range(wrong):
    with pytest.raises(InvalidInput):
        IndexParams(*wrong)


def test_keys_have_32_bytes():
    with pytest.raises(InvalidInput):
        SpanIndex.build(["x"], key=b"short")


def test_too_many_windows_are_refused():
    assert block_count(0, 16) == 1
    with pytest.raises(InvalidInput):
        block_count(2**40, 16)


def hits(*starts):
    return [Hit(start, start + 50) for start in starts]


def test_one_hit_is_suspect_and_two_in_a_chain_match():
    tracker = MatchTracker(25)
    assert tracker.push(hits(100)) == []
    assert tracker.undecided(160) == 100
    assert tracker.undecided(175) is None
    assert tracker.push(hits(124)) == []
    assert tracker.push(hits(125)) == hits(100, 125)
    assert tracker.push(hits(150)) == hits(150)
    assert tracker.undecided(190) == 124


def test_five_hits_in_512_match():
    tracker = MatchTracker(25)
    assert tracker.push(hits(0, 90, 180, 270)) == []
    assert tracker.push(hits(511)) == hits(0, 90, 180, 270, 511)
    tracker = MatchTracker(25)
    assert tracker.push(hits(0, 90, 180, 270, 512)) == []
    assert tracker.push(hits(603)) == []


def test_the_folder_feeds_the_cursor_incrementally(index, library):
    folder, cursor, seen = Folder("index"), index.cursor(), []
    for char in library[7][:200]:
        seen += cursor.push(folder.push(char))
    assert seen == index.cursor().push(fold_text(library[7][:200], "index"))
    start, end = folder.offsets.span(seen[0].start, seen[0].end)
    assert fold_text(library[7][start:end], "index") == fold_text(library[7], "index")[seen[0].start : seen[0].end]


def test_repr_tells_sizes_only(index):
    assert repr(index).startswith("SpanIndex(")
    assert KEY.hex() not in repr(index._rolling)
    assert str(index._rolling.base) not in repr(index._rolling)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(alphabet="ab ", max_size=90).map(str.encode), max_size=12), stride=st.integers(1, 32))
def test_windows_against_the_definition(texts, stride):
    rolling = RollingKey.derive(KEY, bytes(16))
    hasher, windows = WindowHasher(rolling, 32), Windows(rolling, 32, texts)
    each = [hasher.all(text).tolist() for text in texts]
    sampled = {hashes[at] for hashes in each for at in range(len(hashes)) if at % stride == 0 or at == len(hashes) - 1}
    halves = finalise(rolling.finaliser, np.array(sorted(sampled), dtype=np.uint64)).tolist()
    count = {
        half: sum(key in hashes for hashes in each) for key, (half, _) in zip(sorted(sampled), halves, strict=True)
    }
    rows = windows.sampled(stride)
    assert rows.tolist() == sorted(halves)
    numbers, counts = windows.held(np.append(rows[:, 0], np.uint64(2**64 - 1)))
    assert counts.tolist() == [count[half] for half in rows[numbers, 0].tolist()]
    assert numbers.tolist() == list(range(len(rows)))


def test_a_gigabyte_of_text_takes_85_megabytes_and_two_bytes_a_text():
    rng = random.Random(21)
    texts = ["".join(rng.choices("abcdefgh", k=size)) for size in [*range(40, 400), 5000]]
    header = SpanIndex.build(texts, key=KEY).header
    assert 64 * header.blocks <= 0.085 * sum(map(len, texts)) + 2 * len(texts) + 64
    for params in (COMPACT, STANDARD, FINE, IndexParams(40, 1, 17)):
        for size in range(params.k, 300):
            windows = len({*range(0, size - params.k + 1, params.stride), size - params.k})
            room = Layout.for_chars(1000 * size, params).blocks
            assert room >= block_count(1000 * windows, params.bits)


def test_parts_merge_to_the_index_of_the_whole(library):
    params = IndexParams(50, 25, 17, None)
    layout = Layout.for_chars(sum(map(len, library)), params)
    parts = [SpanIndex.build(library[at::3], key=KEY, params=params, layout=layout) for at in range(3)]
    whole = SpanIndex.build(library, key=KEY, params=params, layout=layout)
    for order in (parts, parts[::-1], [SpanIndex.merge(parts[:2]), parts[2]]):
        assert SpanIndex.merge(order).to_bytes() == whole.to_bytes()


def test_parts_that_differ_are_not_merged(library):
    layout = Layout(bytes(16), 1000)
    one = SpanIndex.build(library[:9], key=KEY, layout=layout)
    others = [
        SpanIndex.build(library[:9], key=KEY),
        SpanIndex.build(library[:9], key=bytes(32), layout=layout),
        SpanIndex.build(library[:9], key=KEY, layout=Layout(bytes(16), 1001)),
        SpanIndex.build(library[:9], key=KEY, layout=Layout(bytes([1] * 16), 1000)),
        SpanIndex.build(library[:9], key=KEY, params=FINE, layout=layout),
        SpanIndex.build(library[:9], key=KEY, dataset_root="ab", layout=layout),
        SpanIndex.build(library[:9], key=KEY, params=IndexParams(50, 25, 17, 9), layout=layout),
    ]
    for other in others:
        with pytest.raises(InvalidInput, match="cannot be merged"):
            SpanIndex.merge([one, other])
    with pytest.raises(InvalidInput, match="cannot be merged"):
        SpanIndex.merge([])
    assert SpanIndex.merge([one]).to_bytes() == one.to_bytes()


def test_more_than_the_layout_has_room_for_is_refused(library):
    blocks = SpanIndex.build(library[:9], key=KEY).header.blocks
    layout = Layout(bytes(16), blocks)
    part = SpanIndex.build(library[:9], key=KEY, layout=layout)
    with pytest.raises(InvalidInput, match="more than the"):
        SpanIndex.build(library[:10], key=KEY, layout=layout)
    with pytest.raises(InvalidInput, match="more than the"):
        SpanIndex.merge([part, part])
    for wrong in ((b"short", 5), (bytes(16), 0), (bytes(16), 2**32)):
        with pytest.raises(InvalidInput, match="expected a salt"):
            Layout(*wrong)


def test_what_everybody_has_is_left_out(library):
    licence = library[100]
    texts = [*library[:20], library[20][:60] + " " + licence]
    assert SpanIndex.build(texts, key=KEY).query(licence)
    params = replace(STANDARD, boilerplate_after=5)
    index = SpanIndex.build(texts, key=KEY, params=params, public=["something else", "intro " + licence.upper()])
    assert not index.query(licence)
    assert index.query(texts[-1][:200])
    assert index.header.boilerplate.left_out > 10


@pytest.mark.parametrize(
    ("count", "chance", "hits"),
    [(1000, 6.5e-4, 1), (1000, 6.5e-4, 5), (1000, 6.5e-4, 40), (10**6, 6.5e-4, 600), (10**6, 6.5e-4, 700), (7, 0.5, 7),
     (7, 0.5, 0), (7, 0.5, 8), (10**7, 1e-3, 9900), (50, 0.99, 50), (1000, 1e-3, 300)],
)  # fmt: skip
def test_the_tail_of_the_binomial(count, chance, hits):
    # The terms, one by one, with sixty digits.
    mpmath.mp.dps = 60
    terms = (mpmath.binomial(count, j) * mpmath.mpf(chance) ** j * (1 - mpmath.mpf(chance)) ** (count - j)
             for j in range(hits, min(count, hits + 3000) + 1))  # fmt: skip
    exact = mpmath.fsum(terms)
    assert log10_tail(count, chance, hits) == pytest.approx(
        float(mpmath.log10(exact)) if exact else -math.inf, abs=1e-6
    )


def test_evidence_is_calibrated_on_independent_texts():
    """Of 500 texts that have nothing to do with the index, a share of at most p has evidence of p or less.

    The filter is full (random hits at about 4e-3), so that each text of about 800 windows has some hits; at each p the
    count may exceed the binomial mean by 4.5 deviations (false failure 3e-6), and the hits in all must be what fill_fp
    says, so that a bound that is merely never reached fails.
    """
    index = SpanIndex.build(made.texts(150, 400, seed=3), key=KEY, params=IndexParams(50, 25, 8))
    chance = index.header.fill_fp
    assert 1e-3 < chance < 1e-1
    seen = [index.evidence(text) for text in made.texts(500, 130, seed=4)]
    for p in (0.5, 0.1, 0.01):
        below = sum(one.log10_p <= math.log10(p) for one in seen)
        assert below <= len(seen) * p + 4.5 * math.sqrt(len(seen) * p * (1 - p)), p
    windows = sum(one.windows for one in seen)
    assert windows > 300_000
    hits = sum(one.hits for one in seen)
    assert abs(hits - windows * chance) < 4.5 * math.sqrt(windows * chance)


def test_evidence_grows_with_what_was_copied(library, index):
    stranger = index.evidence(" ".join(made.texts(1, 20_000, seed=99)))
    assert stranger.windows > 100_000
    assert stranger.log10_p > -4  # false failure 1e-4; the seed is fixed
    text = made.texts(1, 100, seed=98)[0]
    weights = [index.evidence(f"{text} {library[3][:size]}").log10_p for size in (0, 120, 400)]
    assert weights[0] > -4
    assert weights[2] < weights[1] < -4
    # Windows count once: a copy that is repeated says no more than one.
    assert index.evidence(f"{library[3]} " * 5).hits <= index.evidence(f"{library[3]} {library[3]}").hits
    assert index.evidence("short") == Evidence(0, 0, 0.0)
