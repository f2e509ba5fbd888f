"""Compiled steps give the hits of the plain ones; nothing of them is kept, and numba is imported only where it pays."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from stanch.scan import FINE, IndexParams, SpanIndex, fold_text
from stanch.scan.compiler import COMPILER, Compiler
from stanch.scan.kernels import BLOCKS, HASH
from stanch.scan.spans.bloom import BlockedBloom

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def library():
    rng = random.Random(6)
    return ["".join(rng.choices("abcdefghij ", k=900)) for _ in range(40)]


@pytest.fixture(scope="module")
def index(library):
    # With few bits a window in six is a chance hit.
    return SpanIndex.build(library, key=KEY, params=IndexParams(FINE.k, FINE.stride, 8, None))


def walk(index, text, sizes):
    cursor, hits, at = index.cursor(), [], 0
    hashes = []
    for size in sizes:
        hits += cursor.push(text[at : at + size])
        hashes.append(cursor._hash if COMPILER.steps is None else int(cursor.room[HASH]))
        at += size
    return hits, hashes


@pytest.mark.parametrize("seed", range(8))
def test_compiled_steps_give_the_hits_and_hashes_of_the_plain_ones(index, library, steps, monkeypatch, seed):
    rng = random.Random(seed)
    alphabet = "abcdefghij é中" if seed % 2 else "abcdefghij "
    text = fold_text("".join(rng.choices(alphabet, k=1500)) + library[seed][100:300], "index")
    sizes = [rng.choice((1, 2, 5, 31, 32, 33, 255, 256)) for _ in range(len(text))]
    found = []
    for way in (None, steps):
        monkeypatch.setattr(COMPILER, "steps", way)
        found.append(walk(index, text, sizes))
    assert found[0] == found[1]
    assert len(found[0][0]) > 10


def test_a_roll_writes_the_hashes_and_nothing_else(index, steps):
    room = index.cursor().room
    room[HASH] = 12345
    before = room.copy()
    steps.roll(bytes(range(40)), 7, room)
    assert room[BLOCKS + 12] == room[HASH]
    changed = np.flatnonzero(room != before)
    assert changed.tolist() == [HASH, *range(BLOCKS, BLOCKS + 14, 2)]


def test_looking_agrees_with_the_filter(steps):
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 2**64, (4000, 2), dtype=np.uint64)
    bloom = BlockedBloom.build(rows[:500], 12)
    words = bloom.words.reshape(-1)
    words.flags.writeable = False
    one_by_one = [steps.look(row.tobytes(), words) for row in rows]
    assert one_by_one == bloom.holds(rows).astype(int).tolist()
    assert steps.look(rows.tobytes(), words) == sum(one_by_one)
    assert 500 < sum(one_by_one) < 3000


def test_the_steps_are_compiled_beside_the_work_once_enough_was_walked_over(monkeypatch):
    made, calls = object(), []
    monkeypatch.setattr("stanch.scan.compiler.compile_steps", lambda: calls.append(1) or made)
    compiler = Compiler(10)
    compiler.count(10)
    assert compiler.steps is None
    compiler.count(1)
    compiler.count(1)
    until = time.monotonic() + 30
    while compiler.steps is None and time.monotonic() < until:
        time.sleep(0.001)
    assert compiler.steps is made
    assert calls == [1]


def test_walking_counts(index, monkeypatch):
    counted = []
    monkeypatch.setattr(COMPILER, "steps", None)
    monkeypatch.setattr(COMPILER, "count", counted.append)
    cursor = index.cursor()
    for size in (32, 5, 300):
        cursor.push(b"a" * size)
    assert counted == [1, 5]


def test_without_numba_the_plain_ones_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    compiler = Compiler(0)
    compiler.compile()
    assert compiler.steps is None


def test_nothing_compiled_is_kept_on_a_disk(steps):
    for step in (steps.roll, steps.look):
        assert type(step._cache).__name__ == "NullCache"


def test_numba_is_not_imported_before_it_is_worth_it():
    program = "import sys; from stanch.guard import Guard, GuardPolicy; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
