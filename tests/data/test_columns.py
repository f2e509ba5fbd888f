"""Columns whose name announces what is in them, in every format and on every way through a scan."""

import csv
import itertools
import json
import random

import orjson
import pytest

from stanch.data import open_dataset, scan_dataset
from stanch.data.part_scan import PartScanner
from stanch.scan import Policy, Scanner

ROW = {"dob": "1984-03-12", "passport": "X1234567", "password": "Tr0ub4dor!", "text": "nothing here"}
KINDS = {"dob": "date-of-birth", "passport": "passport-number", "password": "password"}
HEADS = ("dob", "passportNumber", "password", "user_id", "zip", "note", "pin", "tags", "a b")
VALUES = ("1984-03-12", "X1234567", "Tr0ub4dor!", "ana_diaz7", "90210", "say", 'a "quoted" one', "C:\\x", "4821", "")
TALK = ("What is your passport number?", "And the password", "Born when?", "Hello there", 'a "dob":', "x" * 120)


@pytest.fixture(scope="module", params=["hyperscan", "re2"])
def scanner(request):
    return Scanner(Policy(), engine=request.param)


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_values_are_found_by_the_name_of_their_column_and_redacted(tmp_path, scanner, ending):
    clean = dict.fromkeys(ROW, "nothing here")
    dataset = open_dataset(write(tmp_path / f"people.{ending}", [clean, ROW, clean]))
    report = scan_dataset(dataset, scanner)
    places = {(location.field, finding.kind) for location, finding in report.findings}
    assert set(KINDS.items()) <= places
    assert {location.record for location, _ in report.findings} == {list(dataset)[1].id}
    scan_dataset(dataset, scanner, out=tmp_path / f"clean.{ending}")
    rows = [row for _, _, row in open_dataset(tmp_path / f"clean.{ending}").rows()]
    assert rows[0] == rows[2] == clean
    assert rows[1]["text"] == ROW["text"]
    assert not [value for value in ROW.values() if value in json.dumps(rows[1]) and value != ROW["text"]]


def test_objects_lists_and_numbers_under_such_a_name_are_found(tmp_path, scanner):
    row = {"text": "a", "passport": {"number": "X1234567"}, "passwords": ["Tr0ub4dor!"], "pin": 4821}
    report = scan_dataset(open_dataset(write(tmp_path / "t.jsonl", [row])), scanner)
    assert {location.field for location, _ in report.findings} == {"passport.number", "passwords[0]", "pin"}


def chat(*said):
    roles = itertools.cycle(["assistant", "user"])
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_answer_is_found_by_its_question_and_redacted(tmp_path, scanner, ending):
    rows = [chat("Hello", "X1234567"), chat("What is your passport number?", "X1234567", "Thanks", "Bye")]
    dataset = open_dataset(write(tmp_path / f"chat.{ending}", rows))
    report = scan_dataset(dataset, scanner)
    assert [(place.record, place.field, f.kind) for place, f in report.findings] == [
        ("r2", "messages[1].content", "passport-number")
    ]
    scan_dataset(dataset, scanner, out=tmp_path / f"clean.{ending}")
    _, written = (row for _, _, row in open_dataset(tmp_path / f"clean.{ending}").rows())
    assert [turn["content"] for turn in written["messages"]] == [
        "What is your passport number?", "<PASSPORT-NUMBER>", "Thanks", "Bye",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": "Your passport number?", "completion": "X1234567"}, "completion"),
        ({"instruction": "Read it.", "input": "Passport number", "output": "X1234567"}, "output"),
        ({"conversations": [{"from": "gpt", "value": "Passport?"}, {"from": "human", "value": "X1234567"}]}, "value"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_every_form_of_talk_has_answers(tmp_path, scanner, row, field, ending):
    report = scan_dataset(open_dataset(write(tmp_path / f"t.{ending}", [row])), scanner)
    assert [(place.field.rpartition(".")[2], f.kind) for place, f in report.findings] == [(field, "passport-number")]


def made_row(rng):
    row = {name: rng.choice(VALUES) for name in rng.sample(HEADS, 3)}
    if rng.random() < 0.3:
        row["meta"] = {rng.choice(HEADS): rng.choice([rng.choice(VALUES), [rng.choice(VALUES)], 4821, None])}
    said = [rng.choice((rng.choice(TALK), rng.choice(VALUES[:6]))) for _ in range(3)]
    return {**chat(*said), **row}


@pytest.mark.parametrize("written", [json.dumps, lambda row: orjson.dumps(row).decode()], ids=["spaced", "tight"])
def test_no_line_is_passed_over_that_holds_anything(tmp_path, scanner, monkeypatch, written):
    rng = random.Random(5)
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(written(made_row(rng)) for _ in range(150)))
    dataset = open_dataset(path)
    (part,) = dataset.file.parts()
    quick = PartScanner(dataset, scanner, redact=False).scan(part)
    monkeypatch.setattr(PartScanner, "clean", lambda *_: ())
    whole = PartScanner(dataset, scanner, redact=False).scan(part)
    assert [(text.position, text.field) for text in quick.texts] == [(t.position, t.field) for t in whole.texts]
    assert 40 < len({text.position for text in whole.texts}) < 150


def test_tables_are_scanned_by_columns_as_by_rows(tmp_path, scanner):
    rng = random.Random(6)
    rows = [{**dict.fromkeys(HEADS, "x"), **made_row(rng)} for _ in range(80)]
    for row in rows:
        row.pop("meta", None)
    found = []
    for ending in ("jsonl", "parquet"):
        report = scan_dataset(open_dataset(write(tmp_path / f"t.{ending}", rows), chat="messages"), scanner)
        found.append([(p.record, p.field, f.kind, f.start, f.end, f.score) for p, f in report.findings])
    assert sorted(found[0]) == sorted(found[1])
    assert found[0]
