import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.data import find_repeated_spans, open_dataset
from stanch.data.repeats import _Trigrams
from stanch.data.winnowing import CountMin, Winnower
from stanch.errors import InvalidInput
from stanch.scan import fold_text


def dataset_of(write_rows, texts):
    return open_dataset(write_rows([{"text": text} for text in texts]))


def shape(report):
    return sorted((span.length, span.records, span.occurrences, span.ids) for span in report.spans)


def test_every_shared_run_of_the_length_is_found_and_no_shorter_one(write_rows, prose):
    # 60 runs of 200 to 260 characters and 60 of 150 to 197, each at a place of its own in two texts. The spaces around
    # a run are common as well.
    rng = random.Random(1)
    texts, expected = [], []
    for number in range(120):
        length = rng.randint(200, 260) if number < 60 else rng.randint(150, 197)
        run = " ".join("".join(rng.choices("abcdefghij", k=9)) for _ in range(30))[:length].rstrip()
        run += "q" * (length - len(run))
        texts += [f"{prose(rng, rng.randint(0, 40))} {side} {run} {side} {prose(rng, 40)}" for side in "uv"]
        if number < 60:
            expected.append((length, 2, 2, (f"r{2 * number + 1}", f"r{2 * number + 2}")))
    assert shape(find_repeated_spans(dataset_of(write_rows, texts))) == sorted(expected)


def test_runs_end_at_whole_words_and_nested_runs_are_their_own(write_rows, prose):
    rng = random.Random(2)
    inner, outer = prose(rng, 60), [prose(rng, 30), prose(rng, 30)]
    whole = f"{outer[0]} {inner} {outer[1]}"
    texts = [f"zz{whole}xx end", f"yy{whole}vv end", f"one {inner} two", prose(rng, 300)]
    report = find_repeated_spans(dataset_of(write_rows, texts))
    folded = fold_text(whole, "index").split()
    assert shape(report) == sorted(
        [
            (len(b" ".join(folded[1:-1])), 2, 2, ("r1", "r2")),
            (len(inner), 3, 3, ("r1", "r2", "r3")),
        ]
    )


def test_case_layout_and_chat_turns_do_not_hide_a_run(write_rows, prose, chat_row):
    rng = random.Random(3)
    run = prose(rng, 60)
    rows = [
        chat_row("hello", f"a {run}"),
        chat_row(run.upper().replace(" ", ",\n"), "b"),
        chat_row("c", prose(rng, 60)),
    ]
    report = find_repeated_spans(open_dataset(write_rows(rows)))
    assert shape(report) == [(len(run), 2, 2, ("r1", "r2"))]


def test_a_run_within_one_record_is_no_repetition(write_rows, prose):
    rng = random.Random(4)
    run, other = prose(rng, 60), prose(rng, 60)
    report = find_repeated_spans(
        dataset_of(write_rows, [f"{run} x {run} y", f"a {other} b {other} c {other} d", f"e {other} f"])
    )
    assert shape(report) == [(len(other), 2, 4, ("r2", "r3"))]


def test_the_riskiest_come_first_and_no_text_is_told(write_rows, prose):
    rng = random.Random(5)
    often, long = prose(rng, 60), prose(rng, 120)
    texts = [f"{prose(rng, 3)} {often} {prose(rng, 3)}" for _ in range(9)] + [f"{i} {long} {i}" for i in ("aa", "bb")]
    report = find_repeated_spans(dataset_of(write_rows, texts))
    assert [span.occurrences for span in report.spans[:2]] == [9, 2]
    first = report.spans[0]
    assert first.risk == first.bits * 9 == first.length * report.bits_per_char * 9
    document = json.loads(report.to_json())
    assert document["schema"] == "stanch/repeat-report/v1"
    assert document["spans"][0]["ids"] == [f"r{n}" for n in range(1, 10)]
    words = set(often.split()) | set(long.split())
    assert not [word for word in words if len(word) > 3 and word in report.to_json().decode() + repr(report)]


def test_text_with_a_short_period(write_rows):
    report = find_repeated_spans(dataset_of(write_rows, ["ha " * 2000, "ha " * 3000, "other"]))
    assert {span.records for span in report.spans} == {2}
    assert max(span.length for span in report.spans) <= 6000


def test_no_long_text_no_run(write_rows):
    report = find_repeated_spans(dataset_of(write_rows, ["short", "short", ""]))
    assert (report.spans, report.records, report.bits_per_char) == ((), 3, 0.0)


@pytest.mark.parametrize("min_chars", [63, 4097])
def test_lengths_out_of_range(chats, min_chars):
    with pytest.raises(InvalidInput, match="expected 64 to 4096"):
        find_repeated_spans(chats, min_chars=min_chars)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_who_shares_a_run_shares_a_fingerprint(data):
    guaranteed = data.draw(st.integers(64, 240))
    letters = data.draw(st.sampled_from([b"ab", b"abcdefghijklmnop "]))
    rng = random.Random(data.draw(st.integers(0, 10**9)))
    winnower = Winnower(bytes(32), guaranteed)
    make = lambda count: bytes(rng.choices(letters, k=count))  # noqa: E731 - one line
    run = make(guaranteed)
    one, other = (winnower.winnow(make(rng.randint(0, 99)) + run + make(rng.randint(0, 99)))[0] for _ in range(2))
    assert np.intersect1d(one, other).size


def test_winnowing_chooses_few_windows():
    text = bytes(random.Random(6).choices(b"abcdefgh ", k=100_000))
    prints, starts = Winnower(bytes(32), 200).winnow(text)
    # Density 2 / (run + 1) for random text: Schleimer, Wilkerson, Aiken, section 2.2.
    assert abs(len(starts) / len(text) - 2 / 52) < 0.002
    assert len(set(prints.tolist())) == len(prints)
    assert int(np.diff(starts).max()) <= 51
    assert not np.intersect1d(prints, Winnower(bytes([1] * 32), 200).winnow(text)[0]).size


def test_counts_are_never_too_low_and_rarely_too_high():
    rng = np.random.default_rng(7)
    counts = CountMin()
    prints = rng.integers(0, 2**64, 50_000, dtype=np.uint64)
    counts.add(np.concatenate([prints, prints]))  # one record
    assert counts.in_several(prints).sum() <= 5
    counts.add(prints[:100])
    assert counts.in_several(prints[:100]).all()


def test_the_entropy_of_a_byte_after_two_others():
    trigrams = _Trigrams()
    trigrams.add(b"abcabcabcabc")
    assert trigrams.entropy() == 0
    fair = _Trigrams()
    fair.add(bytes(random.Random(8).choices(b"ab", k=20_000)))
    assert fair.entropy() == pytest.approx(1, abs=0.01)


def test_a_run_is_one_whatever_windows_its_occurrences_keep(write_rows, prose):
    """Of short records most windows lie at an edge, where what stands around decides which is kept."""
    rng = random.Random(6)
    often = prose(rng, 60)
    texts = [f"{prose(rng, 2)} {often} {prose(rng, 2)}" for _ in range(9)]
    dataset = dataset_of(write_rows, texts)
    for key in range(20):
        report = find_repeated_spans(dataset, rng=lambda count, key=key: bytes([key]) * count)
        assert [span.occurrences for span in report.spans].count(9) == 1
        assert len({span.length for span in report.spans}) == len(report.spans)
