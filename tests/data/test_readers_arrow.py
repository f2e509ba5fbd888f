import datetime as dt
import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import build_manifest, open_dataset, prove_record, read_steps, scan_dataset, verify_record
from stanch.data import readers_arrow as module
from stanch.data.dataset import open_rows
from stanch.data.rows import BadRow, Row
from stanch.errors import InvalidInput, StanchError
from stanch.scan import Policy, Scanner
from stanch.terms import Digest

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

MAIL = "ana.planted@nightjar-works.io"
SCHEMA = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field(
            "turns", pa.list_(pa.struct([("role", pa.dictionary(pa.int8(), pa.string())), ("said", pa.large_string())]))
        ),
        pa.field("when", pa.timestamp("ns", "UTC")),
        pa.field("born", pa.date32()),
        pa.field("at", pa.time64("us")),
        pa.field("took", pa.duration("s")),
        pa.field("price", pa.decimal128(9, 2)),
        pa.field("score", pa.float32()),
        pa.field("scores", pa.list_(pa.float64(), 2)),
        pa.field("n", pa.uint8()),
        pa.field("ok", pa.bool_()),
        pa.field("raw", pa.binary()),
        pa.field("nothing", pa.null()),
    ],
    metadata={"huggingface": "{}"},
)
UTC = dt.UTC


def rows(count=300):
    rng = random.Random(3)
    return [
        {
            "text": f"row {n} to {MAIL}" if n % 9 == 0 else f"row {n}",
            "turns": [{"role": "user", "said": f"call {n}"}, {"role": "assistant", "said": None}] if n % 2 else None,
            "when": dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(microseconds=rng.randrange(10**12)),
            "born": dt.date(1990, 1, 1 + n % 28),
            "at": dt.time(1, 2, 3, n),
            "took": dt.timedelta(seconds=n),
            "price": None,
            "score": [0.1, math.nan, math.inf, -math.inf][n % 4],
            "scores": [n / 3, math.nan],
            "n": n % 256,
            "ok": None if n % 3 == 0 else n % 3 == 1,
            "raw": f"bytes {n}".encode(),
            "nothing": None,
        }
        for n in range(count)
    ]


def write(path, table, size=64):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=size)
        return path
    opened = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with opened(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=size)
    return path


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as source:
        return (pa.ipc.open_stream if path.suffix == ".arrows" else pa.ipc.open_file)(source).read_all()


@pytest.fixture(scope="module")
def scanner():
    return Scanner(Policy(kinds=frozenset({"email", "github-token"})))


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows"])
def test_redaction_changes_one_column_and_keeps_schema_order_and_every_other_value(
    tmp_path, scanner, name, monkeypatch
):
    monkeypatch.setattr(module, "PART_SIZE", 3_000)
    table = pa.Table.from_pylist(rows(), schema=SCHEMA)
    dataset = open_dataset(write(tmp_path / name, table), fields=["text"])
    assert len(list(dataset.file.parts())) > 1
    report = scan_dataset(dataset, scanner, out=tmp_path / f"clean.{name}")
    assert [location.record for location, _ in report.findings] == [f"r{n + 1}" for n in range(0, 300, 9)]
    clean = read(tmp_path / f"clean.{name}")
    assert clean.schema.equals(SCHEMA, check_metadata=name != "t.parquet")
    assert clean["text"].to_pylist() == [row["text"].replace(MAIL, "<EMAIL>") for row in rows()]
    for column in set(SCHEMA.names) - {"text"}:
        assert repr(clean[column].to_pylist()) == repr(table[column].to_pylist()), column


def test_the_parts_of_a_table_are_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_SIZE", 3_000)
    for name in ("t.parquet", "t.arrow", "t.arrows"):
        table = open_rows(write(tmp_path / name, pa.Table.from_pylist(rows(), schema=SCHEMA)))
        parts = list(table.parts())
        assert len(parts) > 1
        assert [row for part in parts for row in table.read(part)] == list(table.read())
        assert next(row.number for row in table.read(parts[1])) == parts[1].first + 1
        assert table.count() == 300


def save_to_disk(folder, tables):
    folder.mkdir()
    names = [f"data-{n:05}-of-{len(tables):05}.arrow" for n in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=16)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names], "_split": "train"}))
    return folder


def test_a_saved_folder_is_read_and_proven(tmp_path, scanner, key):
    table = pa.Table.from_pylist([{"prompt": f"p {n}", "completion": f"{MAIL} {n}"} for n in range(100)])
    folder = save_to_disk(tmp_path / "saved", [table.slice(0, 40), table.slice(40)])
    dataset = open_dataset(folder, key=key)
    assert (dataset.format, dataset.chat, len(dataset)) == ("saved-folder", "prompt", 100)
    manifest = build_manifest(dataset, key=key)
    record = list(dataset)[70]
    proof = prove_record(dataset, manifest, record.id, key=key)
    proven = verify_record(proof, Digest("sha256", bytes.fromhex(manifest.root)), count=100)
    assert json.loads(proven.row) == {"prompt": "p 70", "completion": f"{MAIL} 70"}
    report = scan_dataset(dataset, scanner, out=tmp_path / "clean.arrow")
    assert len(report.findings) == 100
    clean = open_dataset(tmp_path / "clean.arrow", key=key)
    assert [step.operation for step in read_steps(clean)] == ["redact"]
    assert build_manifest(clean, key=key).parents[0].root == f"sha256-rfc9162:{manifest.root}"


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        '{"_data_files": []}',
        '{"_data_files": [{"filename": "../x.arrow"}]}',
        '{"_data_files": [{"filename": 1}]}',
    ],
)
def test_a_folder_with_a_bad_list_is_refused(tmp_path, state):
    folder = save_to_disk(tmp_path / "saved", [pa.table({"text": ["a"]})])
    (folder / "state.json").write_text(state)
    with pytest.raises(InvalidInput, match=r"state\.json"):
        open_dataset(folder)


def test_files_of_a_folder_must_agree(tmp_path):
    with pytest.raises(InvalidInput, match="another schema"):
        list(open_dataset(save_to_disk(tmp_path / "s", [pa.table({"text": ["a"]}), pa.table({"text": [1]})])))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([b"ab"], pa.binary(2)),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    ],
)
def test_a_column_that_cannot_come_back_is_refused(tmp_path, column):
    write(tmp_path / "t.arrow", pa.table({"text": ["a"], "x": column}))
    with pytest.raises(InvalidInput, match="is not supported"):
        open_dataset(tmp_path / "t.arrow")


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path):
    raw = [b"ok"] * 10 + [b"\xff\xfe"] + [b"ok"] * 10
    path = write(tmp_path / "t.parquet", pa.table({"text": pa.array(["a"] * 21), "raw": pa.array(raw, pa.binary())}))
    found = list(open_rows(path).read())
    assert [row.number for row in found if isinstance(row, BadRow)] == [11]
    assert sum(isinstance(row, Row) for row in found) == 20
    assert len(open_dataset(path, skip_bad=True, chat="text")) == 20


def test_what_does_not_fit_its_column_is_refused_and_never_quoted(tmp_path, errors_text):
    dates = pa.array(["2020-01-02"], pa.string()).cast(pa.date32())
    path = write(
        tmp_path / "t.parquet", pa.table({"text": ["a"], "mail": pa.array([MAIL]).dictionary_encode(), "born": dates})
    )
    dataset = open_dataset(path)
    strict = Scanner(Policy(kinds=frozenset({"canary"}), literals=("2020-01-02",)))
    with pytest.raises(InvalidInput, match="does not fit its column of the type date32") as caught:
        scan_dataset(dataset, strict, out=tmp_path / "o.parquet")
    assert "CANARY" not in errors_text(caught.value)
    scan_dataset(dataset, strict, out=tmp_path / "o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text())["born"] == "<CANARY>"
    assert not (tmp_path / "o.parquet").exists()


FUZZ_CODE = """
import random, sys
from pathlib import Path
from stanch.data import open_dataset
from stanch.errors import StanchError
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
outcomes = {"read": 0, "refused": 0}
for source in sorted(folder.glob("t.*")):
    whole = source.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)):]
        damaged = folder / f"d{source.suffix}"
        damaged.write_bytes(data)
        try:
            list(open_dataset(damaged, fields=["text"], skip_bad=rng.random() < 0.5))
            outcomes["read"] += 1
        except StanchError as error:
            outcomes["refused"] += 1
            assert "planted" not in str(error)
print(outcomes)
"""


def test_damaged_tables_never_crash_the_reader(tmp_path):
    # In a process of its own: what is tested is that no damage takes the interpreter down.
    table = pa.table(
        {"text": [f"planted {n}" for n in range(50)], "n": list(range(50)), "l": [[str(n)] for n in range(50)]}
    )
    for name in ("t.parquet", "t.arrow", "t.arrows"):
        write(tmp_path / name, table, size=20)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ_CODE, str(tmp_path), "11"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'refused': 0" not in done.stdout


TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
VALUE = st.fixed_dictionaries(
    {
        "text": TEXT,
        "x": st.none() | st.lists(st.none() | TEXT, max_size=3),
        "f": st.none() | st.floats(width=32),
        "s": st.none() | st.fixed_dictionaries({"f": st.floats(), "t": st.none() | TEXT | st.just("NaN")}),
    }
)
FORM = pa.schema(
    [
        ("text", pa.string()),
        ("x", pa.large_list(pa.string())),
        ("f", pa.float32()),
        ("s", pa.struct([("f", pa.float64()), ("t", pa.string())])),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(values=st.lists(VALUE, min_size=1, max_size=5), name=st.sampled_from(["t.parquet", "t.arrow", "t.arrows"]))
def test_any_row_comes_back_from_its_json_form(tmp_path, values, name):
    table = pa.Table.from_pylist(values, schema=FORM)
    source = open_rows(write(tmp_path / name, table))
    from stanch.data.arrow_rows import batch_of  # noqa: PLC0415 - only where pyarrow is installed

    back = batch_of([row.raw for row in source.read()], source.schema, source.form)
    assert repr(back.to_pylist()) == repr(table.to_pylist())


def test_a_table_that_expands_too_far_is_refused(tmp_path):
    pq.write_table(
        pa.table({"text": ["a" * 40_000_000]}), tmp_path / "b.parquet", compression="zstd", use_dictionary=False
    )
    with pytest.raises(InvalidInput, match="expands more than 200-fold"):
        open_dataset(tmp_path / "b.parquet")


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(StanchError, match="empty"):
        open_dataset(write(tmp_path / "t.arrow", pa.table({"text": pa.array([], pa.string())})))
