"""The matcher: block = stream, the cache of compiled databases, errors by name, threads and forks."""

import hashlib
import os
import random
import stat
import threading

import pytest

from stanch.errors import InvalidInput
from stanch.scan.engine import Pattern
from stanch.scan.engine_hyperscan import Databases, HyperscanEngine, cache_dir

PATTERNS = [
    Pattern("abc", b"abc", caseless=False),
    Pattern("digits", b"[0-9]{3}", caseless=False),
    Pattern("key", b"ke?y", caseless=True),
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STANCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_hits_are_sorted_ends(cache):
    engine = HyperscanEngine(PATTERNS, cached=False)
    assert engine.scan(b"1234 abc KEY") == [(3, 1), (4, 1), (8, 0), (12, 2)]
    assert not cache.exists()


def test_no_patterns_no_hits():
    engine = HyperscanEngine([], cached=True)
    stream = engine.open_stream()
    assert (engine.scan(b"abc"), stream.feed(b"abc")) == ([], [])
    stream.close()


def test_streams_report_what_blocks_report():
    engine, rng = HyperscanEngine(PATTERNS, cached=False), random.Random(3)
    for _ in range(300):
        data = bytes(rng.choice(b"abc123KEYkey ") for _ in range(60))
        stream, hits, at = engine.open_stream(), [], 0
        while at < len(data):
            size = rng.randint(1, 9)
            hits += stream.feed(data[at : at + size])
            at += size
        stream.close()
        assert hits == engine.scan(data)


def test_a_stream_outlives_its_engine():
    stream = HyperscanEngine(PATTERNS, cached=False).open_stream()
    assert stream.feed(b"ab") == []
    assert stream.feed(b"c") == [(3, 0)]


def test_a_bad_pattern_is_named():
    with pytest.raises(InvalidInput, match="broken"):
        HyperscanEngine([*PATTERNS, Pattern("broken", b"a(", caseless=False)], cached=False)


def test_the_cache_is_the_owners_alone_and_used(cache, monkeypatch):
    HyperscanEngine(PATTERNS, cached=True)
    (path,) = cache.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    monkeypatch.setattr(Databases, "_compile", lambda *_: pytest.fail("compiled although cached"))
    assert HyperscanEngine(PATTERNS, cached=True).scan(b"abc") == [(3, 0)]


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "open to others", "foreign payload"])
def test_a_damaged_cache_is_made_anew(cache, damage):
    HyperscanEngine(PATTERNS, cached=True)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(good[:-7])
    elif damage == "changed":
        path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "open to others":
        path.chmod(0o644)
    else:
        path.write_bytes(hashlib.sha256(b"not a database").digest() + b"not a database")
    assert HyperscanEngine(PATTERNS, cached=True).scan(b"abc") == [(3, 0)]
    assert path.read_bytes() == good
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_patterns_have_another_cache_file(cache):
    HyperscanEngine(PATTERNS, cached=True)
    HyperscanEngine(PATTERNS[:2], cached=True)
    assert len(list(cache.iterdir())) == 2


def test_an_unwritable_cache_costs_only_time(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("STANCH_CACHE_DIR", str(blocked / "cache"))
    assert HyperscanEngine(PATTERNS, cached=True).scan(b"abc") == [(3, 0)]


def test_the_default_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("STANCH_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "stanch"


def test_threads_have_their_own_databases():
    engine, results = HyperscanEngine(PATTERNS, cached=False), []
    data = b"abc 123 key " * 2000
    expected = engine.scan(data)
    threads = [threading.Thread(target=lambda: results.append(engine.scan(data))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_a_forked_child_makes_its_own_database():
    engine = HyperscanEngine(PATTERNS, cached=False)
    before = engine._whole.database("block")
    child = os.fork()
    if child == 0:
        fresh = engine._whole.database("block") is not before and engine.scan(b"abc") == [(3, 0)]
        os._exit(0 if fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
