import gzip
import hashlib
import json
import stat

import pytest

from stanch.data import open_dataset, read_steps
from stanch.data import provenance as provenance_files
from stanch.data.provenance import derive, provenance_path
from stanch.errors import InvalidInput, Tampered


@pytest.fixture
def dataset(write_rows):
    return open_dataset(write_rows([{"text": f"row {index}"} for index in range(5)]))


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copy_of(dataset):
    return (record.raw for record in dataset)


def test_steps_add_up_along_the_chain(dataset, tmp_path):
    assert read_steps(dataset) == ()
    once = derive(dataset, tmp_path / "a.jsonl", ("deduplicate", {"removed": 0}), copy_of(dataset))
    twice = derive(once, tmp_path / "b.jsonl.gz", ("inject", {"plan_id": "p"}), copy_of(once))
    assert [(step.operation, step.parameters) for step in read_steps(twice)] == [
        ("deduplicate", {"removed": 0}),
        ("inject", {"plan_id": "p"}),
    ]
    digest = hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
    assert read_steps(twice)[0].parent == f"sha256:{digest}"
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == (tmp_path / "train.jsonl").read_bytes()
    assert [record.raw for record in twice] == [record.raw for record in dataset]


def test_files_are_private_and_equal_content_gives_equal_bytes(dataset, tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        derive(dataset, tmp_path / name, ("split", {}), copy_of(dataset))
        for path in (tmp_path / name, provenance_path(tmp_path / name)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.parametrize("existing", [False, True])
def test_nothing_appears_when_the_rows_fail(dataset, tmp_path, existing):
    out = tmp_path / "out.jsonl"
    if existing:
        derive(dataset, out, ("split", {}), copy_of(dataset))
    before = everything(tmp_path)

    def failing():
        yield b'{"text": "half"}'
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        derive(dataset, out, ("split", {}), failing())
    assert everything(tmp_path) == before


def test_nothing_appears_when_it_is_not_approved(dataset, tmp_path):
    before = everything(tmp_path)
    seen = []

    def refuse(path):
        seen.append([record.raw for record in open_dataset(path)])
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        derive(dataset, tmp_path / "out.jsonl.gz", ("redact", {}), copy_of(dataset), approve=refuse)
    assert seen == [[record.raw for record in dataset]]  # what is checked is the complete file
    assert everything(tmp_path) == before


def test_nothing_appears_when_the_provenance_cannot_be_written(dataset, tmp_path, monkeypatch):
    before = everything(tmp_path)

    def fail(*_args, **_kwargs):
        raise InvalidInput("disk full")

    monkeypatch.setattr(provenance_files, "write_atomic", fail)
    with pytest.raises(InvalidInput, match="disk full"):
        derive(dataset, tmp_path / "out.jsonl", ("split", {}), copy_of(dataset))
    assert everything(tmp_path) == before


def test_a_crash_before_the_rename_is_noticed(dataset, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    derive(dataset, out, ("split", {}), copy_of(dataset))

    replace = type(out).replace

    def crash(self, target):
        if target == out:
            raise OSError(5, "stopped")
        return replace(self, target)

    monkeypatch.setattr(type(out), "replace", crash)
    with pytest.raises(InvalidInput, match="cannot write"):
        derive(dataset, out, ("inject", {}), [b'{"text": "new"}'])
    with pytest.raises(Tampered, match=r"is not the file that out\.jsonl\.provenance\.json speaks of"):
        read_steps(open_dataset(out))


def test_the_source_is_never_replaced(dataset, tmp_path):
    linked = tmp_path / "linked.jsonl"
    linked.symlink_to(dataset.path)
    before = everything(tmp_path)
    for out in (dataset.path, linked):
        with pytest.raises(InvalidInput, match="would replace the dataset it is made from"):
            derive(dataset, out, ("split", {}), copy_of(dataset))
    assert everything(tmp_path) == before


def test_a_missing_folder_is_named(dataset, tmp_path):
    with pytest.raises(InvalidInput, match=r"cannot write .*nowhere"):
        derive(dataset, tmp_path / "nowhere" / "out.jsonl", ("split", {}), copy_of(dataset))


def test_a_changed_file_or_record_of_steps_is_refused(dataset, tmp_path):
    out = tmp_path / "out.jsonl"
    derive(dataset, out, ("inject", {}), copy_of(dataset))
    original = out.read_bytes()
    out.write_bytes(original + b'{"text": "more"}\n')
    with pytest.raises(Tampered):
        read_steps(open_dataset(out))
    out.write_bytes(original)
    assert len(read_steps(open_dataset(out))) == 1
    beside = provenance_path(out)
    for text in ("{}", "x", json.dumps(json.loads(beside.read_text()) | {"schema": "v2"})):
        beside.write_text(text)
        with pytest.raises(InvalidInput):
            read_steps(open_dataset(out))
