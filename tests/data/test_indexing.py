import random

import pytest

from stanch.data import build_index, build_manifest, open_dataset
from stanch.errors import InvalidInput
from stanch.scan import FINE, SpanIndex

INDEX_KEY = bytes(range(100, 132))


def test_spans_of_every_string_are_found_and_others_are_not(write_rows, prose, key, tmp_path):
    rng = random.Random(43)
    texts = [prose(rng, 60) for _ in range(30)]
    rows = [
        {
            "messages": [{"role": "user", "content": texts[i]}, {"role": "assistant", "content": texts[i + 10]}],
            "note": texts[i + 20],
        }
        for i in range(10)
    ]
    index = build_index(open_dataset(write_rows(rows), key=key), key=INDEX_KEY)
    index.save(tmp_path / "train.spans")
    reopened = SpanIndex.open(tmp_path / "train.spans", INDEX_KEY)
    for text in texts:
        start = rng.randrange(len(text) - 130)
        assert reopened.query("He said: " + text[start : start + 130].upper())
    assert not [text for text in (prose(rng, 60) for _ in range(50)) if reopened.query(text)]
    assert reopened.header.records == 30


def test_no_window_runs_over_the_border_of_two_strings(write_rows, prose):
    rng = random.Random(47)
    one, two = prose(rng, 9)[:45], prose(rng, 9)[:45]
    index = build_index(open_dataset(write_rows([{"text": one, "more": two}])), key=INDEX_KEY)
    assert index.header.keys == 0  # each is shorter than a window
    assert not index.query(f"{one} {two}")


def test_the_header_names_the_salted_root_only_when_there_is_a_key(chats, key):
    assert build_index(chats, key=INDEX_KEY).header.dataset_root == build_manifest(chats, key=key).root
    assert build_index(open_dataset(chats.path), key=INDEX_KEY, params=FINE).header.dataset_root == ""


def test_a_short_key_is_refused(chats):
    with pytest.raises(InvalidInput, match="expected 32"):
        build_index(chats, key=b"short")
