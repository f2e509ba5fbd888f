"""``stanch data`` from the command line: what a command shows, and what it must not."""

import io
import json
import random
import sys
import tempfile

import pytest

from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.workspace import Workspace


@pytest.fixture
def w(stanch):
    """Make a workspace of one person, once a test."""
    assert stanch("init", "w").code == 0

    def call(*words):
        return stanch("--workspace", "w", *words)

    return call


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_split_keeps_the_records_of_a_person_together(w, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"text": f"note {n} of many", "customer_id": n % 20} for n in range(200)])
    sides = ("--members", tmp_path / "in.jsonl", "--held-out", tmp_path / "out.jsonl", "--holdout", "0.5")
    assert "--unit-column customer_id" in w("data", "split", rows, *sides).err
    shown = w("data", "split", rows, *sides, "--unit-column", "customer_id")
    assert (shown.code, "unit-column" in shown.err, "too few" in shown.err) == (0, False, True)
    members, held = ({row["customer_id"] for row in read(tmp_path / name)} for name in ("in.jsonl", "out.jsonl"))
    assert members
    assert held == set(range(20)) - members


def test_one_record_is_proven_without_showing_the_others(w, stanch, tmp_path, monkeypatch):
    rows = write(tmp_path / "rows.jsonl", [{"text": f"the fact number {n}"} for n in range(9)])
    made = w("data", "manifest", rows, "--out", "m.json")
    assert w("data", "verify", rows, "--manifest", "m.json").code == 0
    with Workspace.open(tmp_path / "w") as workspace:
        ids = [record.id for record in open_dataset(rows, key=workspace.keys.secret("dataset"))]
    assert w("data", "prove", rows, ids[4], "--manifest", "m.json", "--out", "proof.json").code == 0
    shown = (tmp_path / "proof.json").read_text()
    assert [f"fact number {n}" in shown for n in range(9)] == [n == 4 for n in range(9)]
    assert (tmp_path / "proof.json").stat().st_mode & 0o077 == 0
    monkeypatch.chdir(tmp_path.parent)  # whoever checks has no workspace
    checked = stanch("data", "check", tmp_path / "proof.json", "--manifest", tmp_path / "m.json", "--json")
    root = made.out.split()[-1]
    assert checked.code == 0, checked
    assert checked.json["data"] == {"record": 5, "records": 9, "root": root}
    assert "fact number" not in checked.out


def test_what_is_not_the_data_set_of_the_manifest_is_refused(w, stanch, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"text": f"the fact number {n}"} for n in range(9)])
    w("data", "manifest", rows, "--out", "m.json")
    other = write(tmp_path / "other.jsonl", [{"text": f"the fact number {n}"} for n in range(8, -1, -1)])
    shown = w("data", "verify", other, "--manifest", "m.json", "--json")
    assert (shown.code, shown.json["error"]["slug"]) == (1, "tampered")
    shown = w("data", "prove", rows, "r1", "--manifest", "m.json", "--out", "proof.json", "--json")
    assert (shown.code, shown.json["error"]["slug"]) == (2, "not-found")
    assert not (tmp_path / "proof.json").exists()
    with Workspace.open(tmp_path / "w") as workspace:
        first = next(iter(open_dataset(rows, key=workspace.keys.secret("dataset")))).id
    w("data", "prove", rows, first, "--manifest", "m.json", "--out", "proof.json")
    proof = json.loads((tmp_path / "proof.json").read_text())
    for name, value in (("row", '{"text":"another fact"}'), ("index", 1), ("salt", "00" * 16), ("count", 10)):
        (tmp_path / "bad.json").write_text(json.dumps(proof | {name: value}))
        shown = stanch("data", "check", "bad.json", "--manifest", "m.json", "--json")
        assert (shown.code, shown.json["error"]["slug"]) == (1, "proof-invalid"), name
    manifest = json.loads((tmp_path / "m.json").read_text())
    for root in ("no root", "00" * 31, "0g" * 32):
        (tmp_path / "bad.json").write_text(json.dumps(manifest | {"root": root}))
        assert stanch("data", "check", "proof.json", "--manifest", "bad.json").code == 2


SAID = "the same long sentence stands here and there and everywhere in the data of this house"


def test_a_report_of_near_duplicates_writes_no_data_set(w, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"text": SAID}, {"text": SAID + "!"}, {"text": "quite another text " * 9}])
    before = set(tmp_path.iterdir())
    shown = w("data", "dedup", rows, "--report-only", "--report", "clusters.json", "--json")
    assert shown.json["data"] == {"before": 3, "after": 2, "clusters": 1, "different": 0}
    assert set(tmp_path.iterdir()) - before == {tmp_path / "clusters.json"}
    (cluster,) = json.loads((tmp_path / "clusters.json").read_text())["clusters"]
    assert cluster["size"] == 2
    assert "sentence" not in (tmp_path / "clusters.json").read_text()
    kept = w("data", "dedup", rows, "--out", "kept.jsonl", "--json")
    assert kept.json["data"] == shown.json["data"]
    assert len(read(tmp_path / "kept.jsonl")) == 2
    for flags in ((), ("--report-only", "--out", "x.jsonl")):
        assert w("data", "dedup", rows, *flags).code == 2


def test_a_list_of_canaries_tells_neither_texts_nor_coins(stanch, tmp_path):
    data = open_dataset(write(tmp_path / "rows.jsonl", [{"text": f"the fact number {n}"} for n in range(9)]))
    plan = plan_canaries(data, CanarySpec(n=64, repetitions=(1, 4)), preregistration={})
    plan.save(tmp_path / "plan.json")
    shown, told = (stanch("data", "canaries", "list", "plan.json", *flag) for flag in ((), ("--json",)))
    listed = told.json["data"]["canaries"]
    assert [row["id"] for row in listed] == [canary.id for canary in plan.canaries]
    assert all(set(row) == {"id", "kind", "copies", "tier"} for row in listed)
    for canary in plan.canaries:
        assert canary.id in shown.out
        assert not any(text in shown.out + told.out for text in (canary.secret, canary.messages[-1].content))
    assert plan.seed.hex() not in told.out
    assert "not planted" in shown.out


@pytest.mark.parametrize(
    ("given", "records"),
    [
        ('\n{"text": "write to ana.ruiz@corp-mail.com"}\n{"text": "nothing"}\n', 2),
        ("a first paragraph\n\nwrite to ana.ruiz@corp-mail.com\nnow\n", 2),
    ],
)
def test_standard_input_is_scanned_and_leaves_no_file(w, tmp_path, monkeypatch, given, records):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    shown = w("scan", "-", "--fail-on", "low", "--json")
    assert (shown.code, shown.json["data"]["records"]) == (1, records)
    assert [count["kind"] for count in shown.json["data"]["counts"]] == ["email"]
    assert "ana.ruiz" not in shown.out
    assert not list(folder.iterdir())


def test_empty_standard_input_is_refused(w, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
    shown = w("scan", "-")
    assert (shown.code, "empty" in shown.err) == (2, True)


def test_a_whole_text_is_held_against_the_index_with_its_evidence(w, tmp_path):
    rng = random.Random(5)
    words = ["".join(rng.choice("abcdefghij") for _ in range(6)) for _ in range(3000)]
    rows = write(tmp_path / "rows.jsonl", [{"text": " ".join(words[n : n + 60])} for n in range(0, 1800, 60)])
    w("data", "index", "build", rows, "--out", "i.index")
    stranger = " ".join(words[1800:2400]).replace(" ", "\n")
    copied = stranger + "\n" + "\n".join(words[30:90])
    (tmp_path / "suspect.txt").write_text(copied)
    (tmp_path / "stranger.txt").write_text(stranger)
    # One word a line: no line alone holds a window, the whole text does.
    assert w("data", "index", "query", "i.index", "suspect.txt").code == 0
    shown = w("data", "index", "query", "i.index", "suspect.txt", "--whole")
    assert (shown.code, words[40] in shown.out, "bounds chance alone" in shown.out) == (1, False, True)
    (row,) = w("data", "index", "query", "i.index", "suspect.txt", "--whole", "--json").json["data"]["lines"]
    assert row["log10_p"] < -6
    clean = w("data", "index", "query", "i.index", "stranger.txt", "--whole", "--json")
    (row,) = clean.json["data"]["lines"]
    assert clean.code == 0
    assert row["windows"] > 3000
    assert row["log10_p"] > -4
