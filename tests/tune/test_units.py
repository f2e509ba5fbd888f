"""Records into units: columns, duplicates, ids and the digest."""

import json
from collections import Counter

import pytest

from stanch.crypto import frame, sha256
from stanch.data import (
    CanarySpec,
    DuplicateReport,
    find_near_duplicates,
    inject_uncommitted,
    open_dataset,
    plan_canaries,
)
from stanch.errors import InvalidInput, UnitColumnMissing, UnitNotChosen
from stanch.tune.units import ColumnUnit, RecordUnit, form_units, parse_unit

KEY = bytes(range(32))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def report(*clusters):
    return DuplicateReport(tuple(clusters), tuple(1.0 for _ in clusters), 0, 0, 0.8, 128)


def rows(*customers):
    return [{"text": f"text number {n}", "customer_id": customer} for n, customer in enumerate(customers)]


def test_each_record_is_a_unit(tmp_path):
    table = form_units(open_dataset(write(tmp_path / "a.jsonl", rows(1, 2, 3))), unit=RecordUnit(), duplicates=None)
    assert [unit.id for unit in table.units] == ["r1", "r2", "r3"]
    assert [unit.record_ids for unit in table.units] == [("r1",), ("r2",), ("r3",)]
    assert "not joined" in table.rule


def test_a_column_joins_records(tmp_path):
    ds = open_dataset(write(tmp_path / "a.jsonl", rows("ann", "bob", "ann", 7, "7")), key=KEY)
    ids = [record.id for record in ds]
    table = form_units(ds, unit=ColumnUnit("customer_id"), duplicates=None)
    assert {unit.record_ids for unit in table.units} == {(ids[0], ids[2]), (ids[1],), (ids[3], ids[4])}
    assert [unit.id for unit in table.units] == sorted(unit.id for unit in table.units)
    assert not any("ann" in unit.id for unit in table.units)
    assert "ann" not in repr(table)


def test_duplicates_join_across_columns(tmp_path):
    ds = open_dataset(write(tmp_path / "a.jsonl", rows("ann", "bob", "ann", "cid", "dan")))
    table = form_units(ds, unit=ColumnUnit("customer_id"), duplicates=report(("r2", "r3"), ("r4", "r5")))
    assert {unit.record_ids for unit in table.units} == {("r1", "r2", "r3"), ("r4", "r5")}
    assert table.joined == 2


def test_copies_are_one_unit(tmp_path):
    texts = ["the same long text that stands here several times over"] * 3 + ["another text that is quite different"]
    ds = open_dataset(write(tmp_path / "a.jsonl", [{"text": text} for text in texts]), key=KEY)
    table = form_units(ds, unit=None, duplicates=find_near_duplicates(ds))
    assert sorted(len(unit.record_ids) for unit in table.units) == [1, 3]


def test_removing_a_unit_leaves_the_others_as_they_are(tmp_path):
    customers = ["ann", "bob", "cid", "ann", "dan", "bob"]
    whole = open_dataset(write(tmp_path / "a.jsonl", rows(*customers)), key=KEY)
    table = form_units(whole, unit=ColumnUnit("customer_id"), duplicates=None)
    kept = [row for row in rows(*customers) if row["customer_id"] != "bob"]
    rest = form_units(
        open_dataset(write(tmp_path / "b.jsonl", kept), key=KEY), unit=ColumnUnit("customer_id"), duplicates=None
    )
    assert set(rest.units) < set(table.units)
    assert len(table.units) - len(rest.units) == 1


def test_the_digest_is_the_published_construction(tmp_path):
    table = form_units(
        open_dataset(write(tmp_path / "a.jsonl", rows("ann", "bob"))),
        unit=RecordUnit(),
        duplicates=report(("r1", "r2")),
    )
    assert [unit.record_ids for unit in table.units] == [("r1", "r2")]
    expected = sha256(frame(b"stanch/tune/v1/units", b"r1", b"\0\0\0\2", b"r1", b"r2"))
    assert table.digest.value == expected


def test_persons_in_the_data_demand_a_choice(tmp_path):
    ds = open_dataset(write(tmp_path / "a.jsonl", rows("ann", "bob")))
    with pytest.raises(UnitNotChosen, match="customer_id"):
        form_units(ds, unit=None, duplicates=None)
    assert len(form_units(ds, unit=RecordUnit(), duplicates=None).units) == 2


def test_a_person_in_a_later_row_demands_a_choice_too(tmp_path):
    mixed = [{"text": "no person here"}, {"text": "another", "Patient_ID": 7}]
    with pytest.raises(UnitNotChosen, match="Patient_ID"):
        form_units(open_dataset(write(tmp_path / "a.jsonl", mixed)), unit=None, duplicates=None)


@pytest.mark.parametrize("value", [None, "", "  ", ["ann"], {"name": "ann"}])
def test_a_record_without_its_unit_is_refused_by_number(tmp_path, value):
    ds = open_dataset(write(tmp_path / "a.jsonl", rows("ann", value)))
    with pytest.raises(UnitColumnMissing, match="record 1") as caught:
        form_units(ds, unit=ColumnUnit("customer_id"), duplicates=None)
    assert "ann" not in str(caught.value)


def test_canaries_of_a_table_are_units_of_their_own(tmp_path):
    lines = "".join(f"question {n:03} of many,answer {n * 7:04},c{n % 6}\n" for n in range(60))
    (tmp_path / "a.csv").write_text(f"prompt,completion,customer_id\n{lines}")
    ds = open_dataset(tmp_path / "a.csv", key=KEY)
    plan = plan_canaries(ds, CanarySpec(n=32), preregistration={})
    members = sum(canary.member for canary in plan.canaries)
    unit = ColumnUnit("customer_id")
    own = inject_uncommitted(ds, plan, out=tmp_path / "own.csv", unit_column="customer_id").dataset
    sizes = Counter(len(one.record_ids) for one in form_units(own, unit=unit, duplicates=None).units)
    assert sizes == {10: 6, 1: members}
    empty = inject_uncommitted(ds, plan, out=tmp_path / "empty.csv").dataset
    with pytest.raises(UnitColumnMissing, match="customer_id") as caught:
        form_units(empty, unit=unit, duplicates=None)
    assert "plant canaries" in caught.value.next_step


def test_a_report_about_other_records_is_refused(tmp_path):
    ds = open_dataset(write(tmp_path / "a.jsonl", rows("ann", "bob")))
    with pytest.raises(InvalidInput, match="duplicate report"):
        form_units(ds, unit=RecordUnit(), duplicates=report(("r1", "r9")))


def test_the_root_follows_the_rows(tmp_path):
    roots = set()
    for key in (None, KEY):
        for customers in (("ann",), ("bob",)):
            ds = open_dataset(write(tmp_path / "a.jsonl", rows(*customers)), key=key)
            roots.add(form_units(ds, unit=RecordUnit(), duplicates=None).dataset_root)
    assert len(roots) == 4


def test_unit_names():
    assert parse_unit("record") == RecordUnit()
    assert parse_unit("column:user") == ColumnUnit("user")
    assert ColumnUnit("user").name == "column:user"
    for text in ("", "column:", "person", "column"):
        with pytest.raises(InvalidInput):
            parse_unit(text)
