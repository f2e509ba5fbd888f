import random

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import open_dataset, scan_dataset
from stanch.data.arrow_rows import json_batch, json_rows, json_schema, json_size
from stanch.data.part_scan import PartScanner
from stanch.data.rows import Row
from stanch.scan import Policy, Scanner

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

MAIL = "ana.planted@nightjar-works.io"
CARD = 4539578763621486
PIECES = [
    MAIL,
    "ana.planted@",
    "nightjar-works.io",
    "\x1e",
    "\x00\x1f\x7f",
    '"\\\n\t\b',
    "é",
    "😀",
    "\u200b" * 40,
    "word ",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
NUMBERS = st.none() | st.sampled_from([0, -1, 7, CARD, 2**63 - 1, -(2**63)])
FLOATS = st.none() | st.sampled_from([0.0, -1.5, 1e300, float("nan"), float("inf"), float(CARD)])
ROLES = st.sampled_from(["user", "assistant", "system"])
STRING = pa.string()
TURN = pa.struct([("role", pa.dictionary(pa.int8(), STRING)), ("content", STRING), ("name", pa.large_string())])
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(TURN)),
        ("tags", pa.large_list(pa.list_(STRING))),
        ("note", STRING),
        ("kind", pa.dictionary(pa.int8(), STRING)),
        ("number", pa.int64()),
        ("score", pa.float64()),
        ("ok", pa.bool_()),
        ("nothing", pa.null()),
        ("raw", pa.binary()),
        ("meta", pa.struct([("source", STRING), ("page", pa.int16())])),
    ]
)


def turn(*, sound):
    name = st.none() | TEXTS
    role, content = (ROLES, TEXTS) if sound else (st.none() | ROLES | st.just("nobody"), st.none() | TEXTS)
    made = st.fixed_dictionaries({"role": role, "content": content, "name": name})
    return made if sound else st.none() | made


def rows_of(*, sound):
    turns = st.lists(turn(sound=sound), min_size=1 if sound else 0, max_size=3)
    return st.fixed_dictionaries(
        {
            "messages": turns if sound else st.none() | turns,
            "tags": st.none() | st.lists(st.none() | st.lists(st.none() | TEXTS, max_size=2), max_size=2),
            "note": st.none() | TEXTS,
            "kind": st.none() | st.sampled_from(["a", MAIL]),
            "number": NUMBERS,
            "score": FLOATS,
            "ok": st.none() | st.booleans(),
            "nothing": st.none(),
            "raw": st.none() | st.sampled_from([b"bytes", MAIL.encode(), *([] if sound else [b"\xff"])]),
            "meta": st.none() | st.fixed_dictionaries({"source": st.none() | TEXTS, "page": st.none() | st.just(3)}),
        }
    )


@pytest.fixture(scope="module")
def scanner():
    return Scanner(Policy())


def write(path, rows, schema=SCHEMA, size=1024):
    with pa.ipc.new_file(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema), max_chunksize=size)
    return path


def both(dataset, scanner):
    """What is found, and what is found if every row is read one by one."""
    quick = [found(part) for part in parts_of(dataset, scanner)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartScanner, "_quick", lambda _self: None)
        return quick, [found(part) for part in parts_of(dataset, scanner)]


def parts_of(dataset, scanner):
    return [PartScanner(dataset, scanner, redact=False).scan(part) for part in dataset.file.parts()]


def found(part):
    texts = [(text.record, text.field, text.findings, text.residuals) for text in part.texts]
    return part.records, part.size, part.skipped, texts


@given(st.lists(rows_of(sound=True) | rows_of(sound=False), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_report_is_that_of_the_rows(tmp_path, scanner, rows, size):
    first = dict.fromkeys(SCHEMA.names) | {"messages": [{"role": "user", "content": "x"}]}
    path = write(tmp_path / "t.arrow", [first, *rows], size=size)
    quick, slow = both(open_dataset(path, chat="messages", skip_bad=True), scanner)
    assert quick == slow


@given(st.lists(rows_of(sound=True), max_size=5), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_the_size_is_that_of_the_rows_as_json(rows, cut):
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA).slice(cut)
    form = json_schema(SCHEMA, name="t")
    assert json_size(json_batch(batch, form)) == sum(len(orjson.dumps(row)) for row in json_rows(batch, form))


@pytest.mark.parametrize(
    ("chat", "rows"),
    [
        ("text", [{"text": "a"}, {"text": None}, {"text": f"b {MAIL}"}]),
        ("prompt", [{"prompt": "a", "completion": MAIL}, {"prompt": None, "completion": "b"}]),
        ("prompt", [{"prompt": [{"role": r, "content": MAIL}], "completion": "b"} for r in ("user", "x")]),
        ("instruction", [{"instruction": "a", "input": i, "output": o} for i in (None, MAIL) for o in ("b", None)]),
        ("instruction", [{"system": 1, "instruction": "a", "output": "b"}]),
        ("sharegpt", [{"conversations": [{"from": f, "value": f"hi {MAIL}"}]} for f in ("human", "gpt", "tool", "x")]),
        ("messages", [{"messages": [{"role": "user", "content": [{"type": "text", "text": MAIL}]}]}]),
        ("messages", [{"messages": [{"role": "human", "content": "a"}]}, {"messages": []}]),
    ],
)
def test_every_form_of_chat(tmp_path, scanner, chat, rows):
    table = pa.Table.from_pylist(rows)
    quick, slow = both(open_dataset(write(tmp_path / "t.arrow", rows, table.schema), chat=chat, skip_bad=True), scanner)
    assert quick == slow


def test_rows_without_findings_are_not_made(tmp_path, scanner, monkeypatch):
    rng = random.Random(1)
    rows = [{"text": f"row {n}" + (f" to {MAIL}" if n % 100 == 7 else "")} for n in range(5000)]
    rng.shuffle(rows)
    dataset = open_dataset(write(tmp_path / "t.arrow", rows, pa.Table.from_pylist(rows).schema))
    made = []
    monkeypatch.setattr(Row, "__init__", made_by(Row.__init__, made))
    report = scan_dataset(dataset, scanner)
    places = [location.record for location, _ in report.findings]
    assert places == [f"r{number}" for number, row in enumerate(rows, 1) if MAIL in row["text"]]
    assert report.records == 5000
    assert len(made) == 50


def made_by(init, made):
    def record(self, number, raw, values):
        made.append(number)
        init(self, number, raw, values)

    return record


@pytest.mark.parametrize("name", [MAIL, "a.b", "a[]", "a[0]"])
def test_a_key_name_that_is_a_finding_or_a_path_is_read_row_by_row(tmp_path, scanner, name):
    rows = [{"text": "a", name: MAIL}, {"text": "b", name: "c"}]
    dataset = open_dataset(write(tmp_path / "t.arrow", rows, pa.Table.from_pylist(rows).schema))
    quick, slow = both(dataset, scanner)
    assert quick == slow
    assert len(scan_dataset(dataset, scanner).findings) == (3 if name == MAIL else 1)


def test_literals_are_looked_for_row_by_row(tmp_path):
    rows = [{"text": "nothing"}, {"text": "the Blue-Heron plan"}]
    dataset = open_dataset(write(tmp_path / "t.arrow", rows, pa.Table.from_pylist(rows).schema))
    report = scan_dataset(dataset, Scanner(Policy(literals=("blue heron",))))
    assert [location.record for location, _ in report.findings] == ["r2"]


def test_a_keyed_dataset_names_records_by_content(tmp_path, scanner, key):
    rows = [{"text": MAIL}, {"text": "a"}, {"text": MAIL}]
    dataset = open_dataset(write(tmp_path / "t.arrow", rows, pa.Table.from_pylist(rows).schema), key=key)
    names = [location.record for location, _ in scan_dataset(dataset, scanner).findings]
    assert names == [names[0], f"{names[0]}-2"]
    assert names == [record.id for record in dataset if record.fields[0].text == MAIL]
