"""Coins and the cap on records: golden values, and counts that chance allows (false alarm at most 1e-6 a test)."""

import json
from pathlib import Path

import numpy as np
from scipy.stats import binom, chi2

from stanch.tune.sampler import StreamKeys, UnitSampler, seeded_bytes, stream_words
from stanch.tune.units import Unit, UnitTable

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors/tune/streams.json").read_text())
KEYS = StreamKeys.fresh(lambda _: bytes.fromhex(GOLDEN["root"]))


def sampler(count: int, threshold: int, *, records: int = 1, cap: int = 8) -> UnitSampler:
    units = tuple(Unit(f"u{n:05d}", tuple(f"u{n}r{m}" for m in range(records))) for n in range(count))
    return UnitSampler(KEYS, threshold, count, cap, UnitTable("record", "each record", "00", units))


def test_keys_are_the_published_ones():
    for name, start in GOLDEN["keys"].items():
        assert getattr(KEYS, name).hex().startswith(start)
        assert start not in repr(KEYS)


def test_coins_are_the_published_ones():
    drawn = sampler(GOLDEN["units"], int(GOLDEN["threshold"]))
    assert drawn.draw(0) == tuple(GOLDEN["step_0"])
    assert drawn.draw(1)[:6] == tuple(GOLDEN["step_1_first"])
    assert len(drawn.draw(1)) == GOLDEN["step_1_count"]


def test_stream_is_the_published_one():
    assert stream_words(KEYS.noise, 0, 0, 2).tobytes().hex() == GOLDEN["noise_stream"]
    assert np.array_equal(stream_words(KEYS.noise, 0, 0, 100)[:2], stream_words(KEYS.noise, 0, 0, 2))


def test_fresh_keys_differ_at_every_start():
    assert len({StreamKeys.fresh().noise for _ in range(20)}) == 20


def test_counts_per_step_and_per_unit_are_binomial():
    rate, units, steps = 0.1, 200, 300
    drawn = sampler(units, int(rate * 2**64))
    taken = np.zeros((steps, units))
    for step in range(steps):
        taken[step, list(drawn.draw(step))] = 1
    for counts, trials in ((taken.sum(1), units), (taken.sum(0), steps)):
        # Two-sided, Bonferroni over at most 300 counts: 1e-6 in all.
        low, high = binom.ppf([1e-9, 1 - 1e-9], trials, rate)
        assert low <= counts.min()
        assert counts.max() <= high
        statistic = ((counts - trials * rate) ** 2 / (trials * rate * (1 - rate))).sum()
        assert chi2.ppf(1e-7, len(counts)) < statistic < chi2.ppf(1 - 1e-7, len(counts))


def test_a_unit_never_enters_twice_and_an_empty_draw_is_possible():
    drawn = sampler(30, int(0.05 * 2**64))
    draws = [drawn.draw(step) for step in range(200)]
    assert all(len(set(one)) == len(one) for one in draws)
    assert () in draws


def test_the_cap_takes_records_at_random_in_record_order():
    drawn = sampler(3, 0, records=10, cap=4)
    chosen = [drawn.records_of(step, 1) for step in range(400)]
    ids = drawn.table.units[1].record_ids
    assert all(len(one) == 4 for one in chosen)
    assert all(list(one) == sorted(one, key=ids.index) for one in chosen)
    counts = np.array([sum(name in one for one in chosen) for name in ids])
    low, high = binom.ppf([5e-8, 1 - 5e-8], 400, 0.4)
    assert low <= counts.min()
    assert counts.max() <= high


def test_few_records_are_all_taken_and_an_empty_unit_gives_none():
    drawn = sampler(3, 0, records=4, cap=4)
    assert drawn.records_of(5, 2) == drawn.table.units[2].record_ids
    assert drawn.records_of(5, 3) == ()


def test_a_seed_gives_the_same_keys_again_and_another_seed_others():
    one, same, other = (StreamKeys.fresh(seeded_bytes(seed)) for seed in (7, 7, 8))
    assert one == same
    assert not {one.noise, one.sample, one.records} & {other.noise, other.sample, other.records}
    source = seeded_bytes(7)
    assert source(32) != source(32)
