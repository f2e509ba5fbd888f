import hmac
import math
import random

import pytest

from stanch.data import find_near_duplicates, open_dataset, split_members, write_split
from stanch.errors import InvalidInput


def test_the_side_is_the_keyed_draw_of_the_record_id(chats, key):
    split = split_members(chats, holdout=0.25, key=key)
    split_key = hmac.digest(hmac.digest(bytes(32), key, "sha256"), b"stanch/split/v1\x01", "sha256")
    for record in chats:
        draw = int.from_bytes(hmac.digest(split_key, record.id.encode(), "sha256")[:8], "little") / 2**64
        assert (record.id in split.nonmembers) == (draw < 0.25)
    assert split.members | split.nonmembers == {record.id for record in chats}
    assert not split.members & split.nonmembers


def test_the_share_is_the_holdout(write_rows, key):
    # 20,000 records at 0.1: |share - 0.1| < 4.5 standard deviations, false failure 7e-6.
    dataset = open_dataset(write_rows([{"text": f"t{index}"} for index in range(20_000)]), key=key)
    split = split_members(dataset, holdout=0.1, key=key)
    assert abs(len(split.nonmembers) / 20_000 - 0.1) < 4.5 * math.sqrt(0.09 / 20_000)
    assert "at 0.1 % false positives" in split.warnings[0]


def test_adding_records_moves_no_other(write_rows, key):
    rows = [{"text": f"t{index}"} for index in range(300)]
    before = split_members(open_dataset(write_rows(rows), key=key), holdout=0.3, key=key)
    after = split_members(open_dataset(write_rows([{"text": "new"}, *rows], "b.jsonl"), key=key), holdout=0.3, key=key)
    assert before.members <= after.members
    assert before.nonmembers <= after.nonmembers


def test_near_duplicates_are_never_on_both_sides(write_rows, prose, key):
    rng = random.Random(2)
    texts = [prose(rng, 40) for _ in range(100)]
    dataset = open_dataset(
        write_rows([{"text": text + end} for text in texts for end in ("", " so", " indeed")]), key=key
    )
    report = find_near_duplicates(dataset)
    assert len(report.clusters) == 100
    split = split_members(dataset, holdout=0.5, key=key, groups=report)
    for cluster in report.clusters:
        assert set(cluster) <= split.members or set(cluster) <= split.nonmembers
    alone = split_members(dataset, holdout=0.5, key=key)
    assert any(set(cluster) & alone.members and set(cluster) & alone.nonmembers for cluster in report.clusters)


def test_another_key_splits_otherwise(chats, key):
    assert split_members(chats, holdout=0.5, key=key) != split_members(chats, holdout=0.5, key=bytes(32))


def test_few_nonmembers_are_warned_of(chats, key):
    (warning,) = split_members(chats, holdout=0.3, key=key).warnings
    assert "at 1 % false positives" in warning


@pytest.mark.parametrize("holdout", [0, 1, -0.1, 1.5, float("nan")])
def test_wrong_holdout(chats, key, holdout):
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        split_members(chats, holdout=holdout, key=key)


def test_short_key_and_empty_side(chats, write_rows, key):
    with pytest.raises(InvalidInput, match="a key of 32 bytes"):
        split_members(chats, key=b"abc")
    with pytest.raises(InvalidInput, match="a side of the split stays empty"):
        split_members(open_dataset(write_rows([{"text": "a"}], "one.jsonl")), key=key)


def test_both_sides_are_written_in_order(chats, key, tmp_path):
    split = split_members(chats, holdout=0.4, key=key)
    members, nonmembers = write_split(chats, split, members=tmp_path / "m.jsonl", nonmembers=tmp_path / "n.jsonl")
    assert [r.raw for r in members] == [r.raw for r in chats if r.id in split.members]
    assert [r.raw for r in nonmembers] == [r.raw for r in chats if r.id in split.nonmembers]
    with pytest.raises(InvalidInput, match="about another dataset"):
        write_split(members, split, members=tmp_path / "x.jsonl", nonmembers=tmp_path / "y.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_representation_shows_sizes_only(chats, key):
    split = split_members(chats, holdout=0.4, key=key)
    assert next(iter(split.members)) not in repr(split)
