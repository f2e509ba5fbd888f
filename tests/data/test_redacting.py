"""Redacted copies: operators over whole records, the vault, and nothing in place when anything is wrong."""

import json

import pytest

from stanch.crypto.identity import generate_identity
from stanch.data import open_dataset, scan_dataset
from stanch.errors import InvalidInput, LeakFound
from stanch.scan import Dictionary, Operator, Policy, Scanner, Vault, open_vault

KEY = bytes(range(32))
ME = generate_identity()
MAIL, OTHER = "ana.planted@nightjar-works.io", "eva.planted@nightjar-works.io"


def rows():
    return [
        {"id": 7, "messages": [{"role": "user", "content": f"{MAIL} or {OTHER}"},
                               {"role": "assistant", "content": f"so {OTHER}"}]},
        {"id": 8, "messages": [{"role": "user", "content": "nothing"}, {"role": "assistant", "content": "here"}]},
        {"id": 9, "messages": [{"role": "user", "content": "about Project Nightjar"},
                               {"role": "assistant", "content": f"ask {OTHER}"}]},
    ]  # fmt: skip


def run(write_rows, tmp_path, **options):
    out = tmp_path / "clean.jsonl"
    dataset = open_dataset(write_rows(rows()), key=KEY)
    report = scan_dataset(dataset, Scanner(Policy(pseudonym_key=KEY, **options)), out=out)
    return report, [json.loads(line) for line in out.read_text().splitlines()]


def test_labels_are_numbered_through_a_record(write_rows, tmp_path):
    _, clean = run(write_rows, tmp_path, operators={"*": Operator.NUMBERED})
    said = [[message["content"] for message in row["messages"]] for row in clean]
    assert said[0] == ["<EMAIL_1> or <EMAIL_2>", "so <EMAIL_2>"]
    assert said[2][1] == "ask <EMAIL_1>"
    assert [row["id"] for row in clean] == [7, 8, 9]
    assert [message["role"] for message in clean[0]["messages"]] == ["user", "assistant"]


def test_records_can_be_dropped_and_are_counted(write_rows, tmp_path):
    book = Dictionary.build(["Project Nightjar"], key=KEY, label="codename")
    report, clean = run(
        write_rows, tmp_path, dictionaries=(book,), operators={"codename": Operator.DROP_RECORD, "*": Operator.MASK}
    )
    assert (report.dropped, report.records, report.to_json()["dropped"]) == (1, 3, 1)
    assert [row["id"] for row in clean] == [7, 8]


def test_a_key_name_that_cannot_be_rewritten_can_drop_its_record(write_rows, tmp_path):
    dataset = open_dataset(write_rows([{"text": "one", MAIL: "x"}, {"text": "two"}]), key=KEY)
    with pytest.raises(LeakFound):
        scan_dataset(dataset, Scanner(Policy()), out=tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()
    drop = Scanner(Policy(operators={"email": Operator.DROP_RECORD}))
    assert scan_dataset(dataset, drop, out=tmp_path / "b.jsonl").dropped == 1
    assert [json.loads(line)["text"] for line in (tmp_path / "b.jsonl").read_text().splitlines()] == ["two"]


def test_the_vault_keeps_what_the_copy_hides(write_rows, tmp_path):
    vault = Vault(tmp_path / "v", [ME.recipient])
    _, clean = run(write_rows, tmp_path, operators={"email": Operator.VAULT}, vault=vault)
    opened = open_vault(tmp_path / "v", ME)
    names = clean[0]["messages"][0]["content"].split(" or ")
    assert [opened.reveal(name) for name in names] == [MAIL, OTHER]
    assert set(opened.kinds) == set(names)


def test_without_a_vault_file_no_copy_appears(write_rows, tmp_path):
    vault = Vault(tmp_path / "v", [ME.recipient])
    (tmp_path / "v").touch()
    with pytest.raises(InvalidInput, match="exists already"):
        run(write_rows, tmp_path, operators={"email": Operator.VAULT}, vault=vault)
    assert not (tmp_path / "clean.jsonl").exists()


def test_made_up_values_pass_the_check(write_rows, tmp_path):
    _, clean = run(write_rows, tmp_path, operators={"*": Operator.FAKE})
    first, second = clean[0]["messages"][0]["content"].split(" or ")
    assert first != second
    assert first.split("@")[1].startswith("example.")
    assert clean[2]["messages"][1]["content"] == f"ask {second}"
    again = open_dataset(tmp_path / "clean.jsonl", key=KEY)
    assert scan_dataset(again, Scanner(Policy(operators={"*": Operator.FAKE}, pseudonym_key=KEY))).findings == ()
