"""``stanch scan`` with policies, dictionaries, SARIF and a vault, and ``stanch data dictionary`` and ``vault``."""

import json
import re

import pytest

MAIL = "ana.planted@nightjar-works.io"


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    texts = [f"ask {MAIL}", "about project NIGHTJAR", "nothing"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def policy(tmp_path, stanch, files):
    terms = tmp_path / "terms.txt"
    terms.write_text("Project Nightjar\n\nOrion Belt\n")
    shown = stanch(
        "--workspace", files.w, "data", "dictionary", "build", terms, "--label", "codename", "--out", tmp_path / "d"
    )
    assert shown.code == 0, shown
    assert "2 terms" in shown.out
    assert "nightjar" not in shown.out.lower()
    path = tmp_path / "p.toml"
    path.write_text(
        'format = "stanch/scan-policy/v1"\n[operators]\ncodename = "drop-record"\n[[dictionaries]]\nfile = "d"\n'
    )
    path.chmod(0o644)
    return path


def test_a_policy_with_a_dictionary_finds_and_fails(stanch, files, rows, policy, tmp_path):
    sarif = tmp_path / "out.sarif"
    shown = stanch("--workspace", files.w, "scan", rows, "--policy", policy, "--sarif", sarif)
    assert shown.code == 1, shown
    lines = shown.out.splitlines()
    assert re.fullmatch(r"\S+rows\.jsonl  3 records  0\.0 MB", lines[0])
    assert lines[1].split() == ["high", "codename", "findings", "1", "records", "1", "text"]
    assert lines[2].split() == ["medium", "email", "findings", "1", "records", "1", "text"]
    assert lines[3] == "FAIL      1 findings at or above high; nothing was written"
    results = json.loads(sarif.read_text())["runs"][0]["results"]
    assert sorted(result["ruleId"] for result in results) == ["codename", "email"]
    assert "planted" not in shown.out + sarif.read_text()


def test_a_copy_has_the_operators_of_the_policy(stanch, files, rows, policy, tmp_path):
    out = tmp_path / "clean.jsonl"
    shown = stanch(
        "--workspace", files.w, "scan", rows, "--policy", policy, "--operator", "fake", "--redact", out, "--json"
    )
    assert shown.code == 0, shown
    assert shown.json["data"]["dropped"] == 1
    first, last = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert re.fullmatch(r"ask [a-z]+\.[a-z]+\d\d@example\.(com|net|org)", first)
    assert last == "nothing"
    again = stanch("--workspace", files.w, "scan", out, "--policy", policy, "--operator", "fake", "--fail-on", "info")
    assert again.code == 0, again


def test_fingerprints_are_the_same_in_every_run_of_a_workspace(stanch, files, rows):
    one, two = (stanch("--workspace", files.w, "scan", rows, "--json").json["data"]["findings"] for _ in range(2))
    assert one == two


def test_a_vault_is_filled_and_opened_by_its_recipient_and_the_opening_is_recorded(stanch, files, rows, tmp_path):
    out, vault = tmp_path / "clean.jsonl", tmp_path / "v"
    shown = stanch(
        "--workspace", files.w, "scan", rows, "--operator", "vault", "--redact", out,
        "--vault", vault, "--vault-to", files.recipient,
    )  # fmt: skip
    assert shown.code == 0, shown
    name = json.loads(out.read_text().splitlines()[0])["text"].removeprefix("ask ")
    words = ["--workspace", files.w, "data", "vault", "open", vault, "--pseudonym", name, "--identity"]
    shown = stanch(*words, files.acme_key)
    assert (shown.code, shown.out) == (0, f"{name}  {MAIL}\n"), shown
    assert stanch(*words, files.other_key).code == 1
    entries = stanch("--workspace", files.w, "log", "show", "--json").out
    assert "data.reveal" in entries
    assert "planted" not in entries


def test_keys_come_from_private_files(stanch, files, rows, tmp_path):
    key = tmp_path / "k"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    path = tmp_path / "p.toml"
    path.write_text('format = "stanch/scan-policy/v1"\n[keys]\npseudonym = "file:k"\n')
    path.chmod(0o644)
    words = ["--workspace", files.w, "scan", rows, "--policy", path, "--operator", "pseudonym", "--redact"]
    assert stanch(*words, tmp_path / "a.jsonl").code == 0
    key.chmod(0o644)
    shown = stanch(*words, tmp_path / "b.jsonl")
    assert (shown.code, "others may read" in shown.err) == (2, True)
    assert not (tmp_path / "b.jsonl").exists()


def test_a_table_without_a_chat_is_scanned_by_the_names_of_its_columns(stanch, files, tmp_path):
    (tmp_path / "people.csv").write_text("id,dob,passport\n1,1984-03-12,X1234567\n")
    shown = stanch("--workspace", files.w, "scan", tmp_path / "people.csv", "--redact", tmp_path / "clean.csv")
    assert shown.code == 0, shown
    assert "every string of each record" in shown.out
    assert (tmp_path / "clean.csv").read_text() == "id,dob,passport\n1,<DATE-OF-BIRTH>,<PASSPORT-NUMBER>\n"
