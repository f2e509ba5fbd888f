import csv
import gzip
import io
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import Dataset, open_dataset, read_steps, records, scan_dataset, split_members, write_split
from stanch.data import lines as line_files
from stanch.data import readers as text_readers
from stanch.data import readers_json as array_reader
from stanch.data.dataset import open_rows
from stanch.data.records import QuoteState
from stanch.data.rows import BadRow, Row
from stanch.errors import InvalidInput, StanchError
from stanch.scan import Policy, Scanner

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
MAIL = "ana.planted@nightjar-works.io"


def values(path):
    return [row.values for row in open_rows(path).read()]


@FUZZ
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8), separator=st.sampled_from(",\t"))
def test_a_table_is_read_as_the_standard_library_reads_it(tmp_path, rows, separator):
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator="\n").writerows([("text", "b", "c"), *rows])
    path = tmp_path / ("t.csv" if separator == "," else "t.tsv")
    path.write_text(stream.getvalue(), newline="")
    assert [tuple(row.values()) for row in values(path)] == rows


def test_rows_of_a_table_are_numbered_by_the_line_they_start_in(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbftext,n\r\n"a\nb",1\r\n\r\nc,2')
    assert [(record.id, record.fields[0].text) for record in open_dataset(path)] == [("r2", "a\nb"), ("r5", "c")]
    assert len(open_dataset(path)) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'a"b,1\n', "a record as in RFC 4180"),
        (b'"a"b,1\n', "a record as in RFC 4180"),
        (b"a\n", "2 fields"),
        (b"a,b,c\n", "2 fields"),
        (b"\xff,1\n", "text in UTF-8"),
        (b'"never closed,1\n', "a closing quote"),
    ],
)
def test_a_malformed_record_is_named_or_skipped(tmp_path, line, expected):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text,n\nfine,1\n" + line)
    with pytest.raises(InvalidInput, match=rf"^t\.csv:3: expected ({expected})"):
        list(open_dataset(path, skip_bad=False))
    dataset = open_dataset(path, skip_bad=True)
    skipped = {}
    assert [record.fields[0].text for record, _, _ in dataset.entries(skipped=skipped)] == ["fine"]
    assert len(dataset) == len(skipped) == 1
    assert skipped[3].startswith("t.csv:3: expected ")


@pytest.mark.parametrize("head", [b"text,text\n", b"text,\n", b'te"xt\n', b"\xff\n", b"", b"text\n"])
def test_a_table_without_a_usable_head_is_refused(tmp_path, head):
    path = tmp_path / "t.csv"
    path.write_bytes(head)
    with pytest.raises(InvalidInput):
        open_dataset(path)


def test_paragraphs_are_texts_and_keep_their_lines(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\n\none\r\n  two\n \t\nthree")
    dataset = open_dataset(path)
    assert (dataset.format, dataset.chat, len(dataset)) == ("text", "text", 2)
    assert [(record.id, record.fields[0].text) for record in dataset] == [("r3", "one\n  two"), ("r6", "three")]


def test_a_long_line_is_skipped_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(line_files, "MAX_LINE", 64)
    monkeypatch.setattr(line_files, "_CHUNK", 16)
    long = b'{"text": "' + b"x" * 500 + b'"}\n'
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n' + long + b'{"text": "b"}\n')
    (tmp_path / "t.csv").write_bytes(b"text\na\n" + b"x" * 500 + b'\n"' + b"y\n" * 40 + b"b\n")
    (tmp_path / "t.txt").write_bytes(b"a\n\n" + b"x\n" * 99 + b"\n" + b"x" * 500 + b"\n\nb\n")
    for name, bad in (("t.jsonl", 1), ("t.txt", 2)):
        rows = list(open_rows(tmp_path / name).read())
        assert [row.values["text"] for row in rows if isinstance(row, Row)] == ["a", "b"]
        assert sum(isinstance(row, BadRow) for row in rows) == bad
    assert [type(row) for row in open_rows(tmp_path / "t.csv").read()][:3] == [Row, BadRow, BadRow]


@FUZZ
@given(
    data=st.binary(max_size=300)
    | st.lists(st.sampled_from(list(b'{}[]":,\\u0dtexa\n\r\t\x00 \xff"')), max_size=80).map(bytes),
    ending=st.sampled_from(["jsonl", "csv", "tsv", "txt", "jsonl.gz"]),
    skip=st.booleans(),
)
def test_no_bytes_crash_a_reader_and_none_are_quoted(tmp_path, data, ending, skip):
    path = tmp_path / f"fuzz.{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    head = b'{"text": "fine"}\n' if ending == "jsonl" else b"text\nfine\n"
    for content in (data, head + data):
        path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
        try:
            dataset = open_dataset(path, fields=["text"], skip_bad=skip)
            assert len(list(dataset)) == len(dataset)
        except StanchError as error:
            assert path.name in str(error)  # noqa: PT017 - most inputs are refused, some are not


@FUZZ
@given(texts=st.lists(CELL.filter(lambda t: t.strip()), min_size=1, max_size=30), size=st.integers(1, 60))
def test_the_parts_of_a_file_are_the_file(tmp_path, texts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_readers, "PART_SIZE", size)
        (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\r\n").writerows([("text", "n"), *((text, "1") for text in texts)])
        (tmp_path / "t.csv").write_text(stream.getvalue(), newline="")
        for name in ("t.jsonl", "t.csv"):
            rows = open_rows(tmp_path / name)
            parts = list(rows.parts())
            assert [row for part in parts for row in rows.read(part)] == list(rows.read())
            assert parts[0].start == 0
            assert all(one.stop == two.start for one, two in itertools.pairwise(parts))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.txt", "t.jsonl.gz"])
def test_redaction_and_split_keep_the_format(tmp_path, name, key):
    separator = "\t" if ".tsv" in name else ","
    text = {
        "csv": f'text,n\n"to {MAIL}, say",1\n' + "".join(f'"row {n}, ""x""\nlast",2\n' for n in range(40)),
        "txt": f"to {MAIL}, say\n\n" + "".join(f"row {n}\nlast\n\n" for n in range(40)),
        "jsonl": f'{{"text":"to {MAIL}, say"}}\n' + "".join(f'{{"text":"row {n}"}}\n' for n in range(40)),
    }[name.split(".")[1].replace("tsv", "csv")]
    if separator == "\t":
        text = text.replace(",1", "\t1").replace(",2", "\t2").replace("text,n", "text\tn")
    path, out = tmp_path / name, tmp_path / f"clean.{name}"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    dataset = open_dataset(path, key=key)
    scan_dataset(dataset, Scanner(Policy()), out=out)
    clean = open_dataset(out, key=key)
    assert clean.format == dataset.format
    expected = [row | {"text": row["text"].replace(MAIL, "<EMAIL>")} for row in values(path)]
    assert values(out) == expected
    sides = tmp_path / f"m.{name}", tmp_path / f"h.{name}"
    members, held = write_split(clean, split_members(clean, key=key), members=sides[0], nonmembers=sides[1])
    assert sorted(json.dumps(row) for side in sides for row in values(side)) == sorted(map(json.dumps, expected))
    assert [step.operation for step in read_steps(held)] == ["redact", "split"]
    assert members.format == dataset.format


@pytest.mark.parametrize(
    ("name", "out"), [("t.jsonl", "o.csv"), ("t.csv", "o.txt"), ("t.txt", "o.csv"), ("t.csv", "o.parquet")]
)
def test_rows_that_a_format_cannot_hold_are_refused(tmp_path, name, out):
    (tmp_path / name).write_text('{"text":"a"}\n' if name == "t.jsonl" else "text\na\n")
    with pytest.raises(InvalidInput, match="cannot be written as this file"):
        scan_dataset(open_dataset(tmp_path / name), Scanner(Policy()), out=tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_any_format_can_become_lines(tmp_path):
    (tmp_path / "t.csv").write_text("text,n\na,1\n")
    scan_dataset(open_dataset(tmp_path / "t.csv"), Scanner(Policy()), out=tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_bytes() == b'{"text":"a","n":"1"}\n'


def test_a_binary_file_is_refused_or_all_skipped(tmp_path):
    path = tmp_path / "photo.jsonl"
    path.write_bytes(bytes(range(256)) * 40)
    for skip in (False, True):
        with pytest.raises(InvalidInput, match=r"photo\.jsonl"):
            open_dataset(path, skip_bad=skip)


def test_skipping_leaves_ids_and_says_what_was_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    deep = '{"text": "a", "x": ' + "[" * 80 + "]" * 80 + "}"
    path.write_text('{"text": "a"}\nnonsense\n{"text": 3}\n' + deep + '\n{"text": "\\ud800"}\n{"text": "b"}\n')
    dataset = open_dataset(path, skip_bad=True)
    assert [record.id for record in dataset] == ["r1", "r6"]
    report = scan_dataset(dataset, Scanner(Policy()), out=tmp_path / "clean.jsonl")
    assert [line.split(": ")[0] for line in report.skipped] == [f"t.jsonl:{number}" for number in (2, 4, 5)]
    assert report.records == 3  # the row of another shape is scanned all the same
    assert (tmp_path / "clean.jsonl").read_text() == '{"text": "a"}\n{"text": 3}\n{"text": "b"}\n'
    (step,) = read_steps(Dataset(tmp_path / "clean.jsonl", chat=dataset.chat))
    assert step.parameters["skipped"] == 3


STRAYS = {
    "a mark in a bare field": '5" pipe',
    "a mark at its end": '5"',
    "two marks": '5" x 7"',
    "text behind a quoted field": '"5" pipe',
    "a quote that is never closed": '"5 pipe',
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
@pytest.mark.parametrize("later", ["", '"a, ""quoted""\nfield"'], ids=["no quote later", "a field of two lines later"])
def test_a_stray_quote_costs_its_own_row(tmp_path, monkeypatch, stray, later):
    monkeypatch.setattr(text_readers, "PART_SIZE", 500)
    rows = [f"row {number}" for number in range(1000)]
    rows[10], rows[500] = stray, later or rows[500]
    (tmp_path / "t.csv").write_text("text,n\n" + "".join(f"{text},{n}\n" for n, text in enumerate(rows)))
    skipped: dict[int, str] = {}
    dataset = open_dataset(tmp_path / "t.csv", skip_bad=True)
    read = [row["n"] for _, _, row in dataset.entries(skipped=skipped)]
    assert read == [str(number) for number in range(1000) if number != 10]
    assert list(skipped) == [12]
    parts = list(dataset.file.parts())
    assert len(parts) > 10 or '"5 pipe' in stray
    assert [row.values["n"] for part in parts for row in dataset.read(part, skipped=skipped)] == read


def test_lines_behind_a_quote_that_is_never_closed_are_read_in_linear_time(tmp_path):
    lines = ["text,n", *(f'"row {n},{n}' if n % 50 == 0 else f"row {n},{n}" for n in range(4000))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    taken = 0

    class Counted(QuoteState):
        def take(self, line):
            nonlocal taken
            taken += 1
            return super().take(line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "QuoteState", Counted)
        read = list(open_rows(tmp_path / "t.csv").read())
    assert sum(isinstance(row, Row) for row in read) == 4000 - 80
    assert taken < 5 * len(lines)


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_in_parts_and_written_again(tmp_path, monkeypatch, key, name, indent):
    monkeypatch.setattr(text_readers, "PART_SIZE", 200)
    monkeypatch.setattr(array_reader, "_CHUNK", 64)
    rows = [{"text": f"row {n} \u00e9 [{{,}}] to {MAIL}", "n": n} for n in range(60)]
    data = ("\n " + json.dumps(rows, indent=indent, ensure_ascii=False)).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    dataset = open_dataset(path, key=key)
    assert (dataset.format, len(dataset)) == (name[2:], 60)
    assert [row for _, _, row in dataset.rows()] == rows
    parts = list(dataset.file.parts())
    assert len(parts) > 2
    assert [row.values for part in parts for row in dataset.read(part)] == rows
    assert [row.number for part in parts for row in dataset.read(part)] == list(range(1, 61))
    scan_dataset(dataset, Scanner(Policy(kinds=frozenset({"email"}))), out=tmp_path / f"clean.{name[2:]}")
    written = (tmp_path / f"clean.{name[2:]}").read_bytes()
    told = json.loads(gzip.decompress(written) if name.endswith("gz") else written)
    assert told == json.loads(json.dumps(rows).replace(MAIL, "<EMAIL>"))


@pytest.mark.parametrize(
    "data", ["[", '[{"text": "a"}', '[{"text": "a"}, {', "[nope]", '[{"text": "a"} {"text": nul}]']
)
def test_a_broken_array_is_refused(tmp_path, data):
    (tmp_path / "t.json").write_text(data)
    with pytest.raises(InvalidInput, match="expected an array of objects"):
        list(open_dataset(tmp_path / "t.json"))


def test_elements_that_are_no_objects_are_bad_rows(tmp_path):
    (tmp_path / "t.json").write_text('[1, {"text": "a"}, "x", [2], {"text": "b", "text": "c"}]')
    rows = list(open_rows(tmp_path / "t.json").read())
    assert [isinstance(row, Row) for row in rows] == [False, True, False, False, False]


def test_lines_may_be_named_json(tmp_path):
    (tmp_path / "t.json").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert open_dataset(tmp_path / "t.json").format == "jsonl"


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.csv.gz", "t.txt.gz", "t.json.gz"])
def test_parts_in_order_expand_a_compressed_file_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_readers, "PART_SIZE", 40)
    monkeypatch.setattr(array_reader, "_CHUNK", 64)
    said = [f"row number {number}" for number in range(400)]
    rows = [json.dumps({"text": text}) for text in said]
    whole = {
        "jsonl": "\n".join(rows), "csv": "\n".join(["text", *said]), "txt": "\n\n".join(said),
        "json": f"[{','.join(rows)}]",
    }[name.split(".")[1]]  # fmt: skip
    (tmp_path / name).write_bytes(gzip.compress(whole.encode()))
    dataset = open_dataset(tmp_path / name)
    parts = list(dataset.file.parts())
    assert len(parts) > 10
    opened = []

    class Counted(gzip.GzipFile):
        def __init__(self, *given, **named):
            opened.append(1)
            super().__init__(*given, **named)

    monkeypatch.setattr(line_files.gzip, "GzipFile", Counted)
    read = [row.values["text"] for part in parts for row in dataset.read(part)]
    assert read == said
    assert len(opened) <= 2  # the head line of a table is read for itself
    again = [[row.values["text"] for row in dataset.read(part)] for part in reversed(parts)]
    assert [text for part in reversed(again) for text in part] == said
