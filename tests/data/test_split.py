import hmac
import math
import random

import pytest

from stanch.data import (
    DuplicateReport,
    find_near_duplicates,
    open_dataset,
    read_steps,
    split_members,
    write_split,
)
from stanch.data.groups import group_records
from stanch.errors import InvalidInput, UnitColumnMissing


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


def test_the_records_of_a_person_are_never_on_both_sides(write_rows, key):
    rows = [{"text": f"note {n}", "customer_id": f"c{n % 40}"} for n in range(400)]
    dataset = open_dataset(write_rows(rows), key=key)
    alone = split_members(dataset, holdout=0.5, key=key)
    assert "--unit-column customer_id" in alone.warnings[0]
    split = split_members(dataset, holdout=0.5, key=key, unit_column="customer_id")
    assert not any("unit-column" in warning for warning in split.warnings)
    split_key = hmac.digest(hmac.digest(bytes(32), key, "sha256"), b"stanch/split/v1\x01", "sha256")
    for record, row in zip(dataset, rows, strict=True):
        draw = int.from_bytes(hmac.digest(split_key, row["customer_id"].encode(), "sha256")[:8], "little") / 2**64
        assert (record.id in split.nonmembers) == (draw < 0.5)
    straddling = {
        row["customer_id"] for record, row in zip(dataset, rows, strict=True) if record.id in alone.members
    } & {row["customer_id"] for record, row in zip(dataset, rows, strict=True) if record.id in alone.nonmembers}
    assert straddling  # otherwise this test could not fail


def test_a_person_named_as_a_record_is_joined_like_any_other(write_rows):
    dataset = open_dataset(write_rows([{"text": str(n), "user": "r3" if n % 2 else f"u{n}"} for n in range(6)]))
    groups = list(group_records(dataset, lambda _, row: row["user"], [("r1", "r3")]))
    assert groups == [("u0", ("r1", "r3")), ("r3", ("r2", "r4", "r6")), ("u4", ("r5",))]
    alone = list(group_records(dataset, lambda *_: None, []))
    assert alone == [(f"r{n}", (f"r{n}",)) for n in range(1, 7)]


def test_persons_and_near_duplicates_are_joined_transitively(write_rows, prose, key):
    """Customers 2i and 2i + 1 share one near-duplicate each: all records of both are one group."""
    rng = random.Random(7)
    rows = []
    for pair in range(30):
        shared = prose(rng, 40)
        for side in (0, 1):
            rows += [{"text": shared + " so" * side, "user": 2 * pair + side}]
            rows += [{"text": prose(rng, 40), "user": 2 * pair + side} for _ in range(2)]
    dataset = open_dataset(write_rows(rows), key=key)
    report = find_near_duplicates(dataset)
    assert len(report.clusters) == 30
    split = split_members(dataset, holdout=0.5, key=key, groups=report, unit_column="user")
    sides = {}
    for record, row in zip(dataset, rows, strict=True):
        sides.setdefault(row["user"] // 2, set()).add(record.id in split.members)
    assert all(len(side) == 1 for side in sides.values())
    unjoined = split_members(dataset, holdout=0.5, key=key, unit_column="user")
    assert any(set(c) & unjoined.members and set(c) & unjoined.nonmembers for c in report.clusters)


def test_new_records_of_a_person_go_where_the_person_is(write_rows, key):
    rows = [{"text": f"note {n}", "user": n % 50} for n in range(300)]
    before = split_members(open_dataset(write_rows(rows), key=key), holdout=0.3, key=key, unit_column="user")
    more = [{"text": f"new {n}", "user": n % 50} for n in range(100)]
    after = split_members(
        open_dataset(write_rows([*more, *rows], "b.jsonl"), key=key), holdout=0.3, key=key, unit_column="user"
    )
    assert before.members <= after.members
    assert before.nonmembers <= after.nonmembers


def test_a_record_without_its_unit_and_a_foreign_report_are_refused(write_rows, chats, key):
    dataset = open_dataset(write_rows([{"text": "a", "user": "ann"}, {"text": "b", "user": " "}], "u.jsonl"), key=key)
    with pytest.raises(UnitColumnMissing, match="record 1") as caught:
        split_members(dataset, key=key, unit_column="user")
    assert "ann" not in str(caught.value)
    foreign = DuplicateReport((("r1", "r2"),), (1.0,), 2, 0, 0.8, 128)
    with pytest.raises(InvalidInput, match="duplicate report"):
        split_members(chats, key=key, groups=foreign)


def test_the_provenance_names_the_column(write_rows, key, tmp_path):
    rows = [{"text": f"note {n}", "user": n} for n in range(40)]
    dataset = open_dataset(write_rows(rows), key=key)
    split = split_members(dataset, holdout=0.5, key=key, unit_column="user")
    members, _ = write_split(dataset, split, members=tmp_path / "m.jsonl", nonmembers=tmp_path / "n.jsonl")
    assert read_steps(members)[0].parameters == {"holdout": 0.5, "side": "members", "unit_column": "user"}


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
