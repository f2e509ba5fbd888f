"""``stanch data`` from the command line: what a command shows, and what it must not."""

import json

import pytest


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
