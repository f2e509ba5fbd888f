"""``stanch log``: verify with a witness over a real server, export, anchor, erase, recover, proofs offline."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys

import pytest

from stanch.workspace import Workspace
from stanch.workspace.verbs_access import add_person


@pytest.fixture
def w(tmp_path, stanch):
    folder = tmp_path / "w"
    assert stanch("init", folder).code == 0
    return folder


@pytest.fixture
def witness(tmp_path, stanch, w):
    """A witness as its own process that watches the log of ``w``; its vkey and URL."""
    origin = stanch("--json", "--workspace", w, "status").json["data"]["origin"]
    with Workspace.open(w) as workspace:
        log = workspace.ledger.verifier.vkey
    made = stanch("--json", "log", "witness", "key", "--name", "w.example", "--out", tmp_path / "witness.pem")
    vkey = made.json["data"]["vkey"]
    assert (tmp_path / "witness.pem").stat().st_mode & 0o777 == 0o600
    command = [
        sys.executable, "-m", "stanch", "log", "witness", "serve", "--log", log, "--name", "w.example",
        "--key", str(tmp_path / "witness.pem"), "--state", str(tmp_path / "witness.db"), "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ, cwd=tmp_path)
    try:
        line = process.stderr.readline()
        port = re.search(r"listens on port (\d+)", line)[1]
        yield origin, vkey, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def configure(folder, vkey, url):
    with (folder / "stanch.toml").open("a") as file:
        file.write(f'\n[[ledger.witnesses]]\nvkey = "{vkey}"\nurl = "{url}"\n')


def test_a_witness_cosigns_and_verify_says_so(w, witness, stanch):
    origin, vkey, url = witness
    assert stanch("--json", "--workspace", w, "log", "verify").json["data"]["conclusion"] == "self-consistent only"
    configure(w, vkey, url)
    assert stanch("--workspace", w, "log", "show").code == 0
    data = stanch("--json", "--workspace", w, "log", "verify").json["data"]
    assert (data["origin"], data["witnesses"], data["quorum"]) == (origin, 1, "met")
    assert data["conclusion"] == "consistent with the given anchors and its witnesses"
    assert data["cosignatures"] >= 1
    assert data["signed_acts"] >= 1


def test_a_whole_workspace_that_was_put_back_is_found_by_its_witness(w, witness, stanch, tmp_path):
    """5.9: everything at home is of the old state; only the witness remembers more."""
    _, vkey, url = witness
    configure(w, vkey, url)
    assert stanch("--workspace", w, "log", "show").code == 0
    shutil.copytree(w, tmp_path / "old")
    for _ in range(2):
        assert stanch("--workspace", w, "log", "show").code == 0
    shutil.rmtree(w)
    shutil.copytree(tmp_path / "old", w)
    shown = stanch("--json", "--workspace", w, "log", "verify")
    assert (shown.code, shown.json["error"]["slug"]) == (1, "log-rolled-back")
    shown = stanch("--json", "--workspace", w, "log", "show")
    assert shown.code in {1, 4}


def test_an_act_that_needs_a_witness_does_not_run_without(w, stanch, monkeypatch):
    made = stanch("--json", "log", "witness", "key", "--name", "w.example", "--out", w.parent / "k.pem")
    configure(w, made.json["data"]["vkey"], "http://127.0.0.1:9")
    monkeypatch.setattr("stanch.workspace.door.WITNESS_SECONDS", 0.2)
    with Workspace.open(w) as workspace:
        person = workspace.people.session.principal
    shown = stanch("--json", "--workspace", w, "log", "erase", "--principal", person, "--basis", "gdpr-17-1-b")
    assert (shown.code, shown.json["error"]["slug"]) == (1, "quorum-unmet")
    with Workspace.open(w) as workspace:
        assert workspace.people.find("owner") == person


def test_export_and_check_offline(w, stanch, tmp_path):
    assert stanch("--workspace", w, "log", "show").code == 0
    out = tmp_path / "out"
    count = stanch("--json", "--workspace", w, "log", "export", out).json["data"]["entries"]
    lines = (out / "entries.jsonl").read_text().splitlines()
    assert len(lines) == count == len(list((out / "proofs").iterdir()))
    assert out.stat().st_mode & 0o777 == 0o700
    assert stanch("--workspace", w, "log", "export", out).code == 2
    shown = stanch("--json", "--workspace", w, "log", "export", tmp_path / "sys", "--format", "syslog", "--start", "1")
    assert shown.json["data"]["entries"] > 0
    start = shown.json["data"]["next_start"]
    later = stanch("--json", "--workspace", w, "log", "export", tmp_path / "on", "--start", str(start), "--no-proofs")
    (first, *_) = (tmp_path / "on" / "entries.jsonl").read_text().splitlines()
    assert later.json["data"]["next_start"] == start + later.json["data"]["entries"]
    assert first not in lines
    assert "log.export" in first
    assert not list((tmp_path / "on" / "proofs").iterdir())
    assert (tmp_path / "sys" / "entries.log").read_text().startswith("<1")
    entry = tmp_path / "entry.json"
    assert stanch("--workspace", w, "log", "prove", 0, "--out", entry).code == 0
    with Workspace.open(w) as workspace:
        policy = f"log {workspace.ledger.verifier.vkey}\nquorum none\n"
    (tmp_path / "policy").write_text(policy)
    check = ("log", "check", entry, f"{entry}.tlog-proof", "--policy", tmp_path / "policy")
    assert stanch("--json", *check).json["data"]["index"] == 0
    entry.write_bytes(entry.read_bytes() + b" ")
    assert stanch("--json", *check).json["error"]["slug"] == "proof-invalid"


def test_query(w, stanch):
    assert stanch("--workspace", w, "log", "show").code == 0
    found = stanch("--json", "--workspace", w, "log", "query", "--kind", "log.read", "--phase", "outcome").json["data"]
    assert [e["event"]["unmapped"]["stanch"]["phase"] for e in found["entries"]] == ["outcome"]
    act = found["entries"][0]["event"]["metadata"]["correlation_uid"]
    person = found["entries"][0]["event"]["actor"]["user"]["uid"]
    mine = stanch("--json", "--workspace", w, "log", "query", "--principal", person, "--limit", 1).json["data"]
    assert len(mine["entries"]) == 1
    nobody = "p_" + "a" * 26
    assert not stanch("--json", "--workspace", w, "log", "query", "--principal", nobody).json["data"]["entries"]
    assert len(stanch("--json", "--workspace", w, "log", "query", "--act", act).json["data"]["entries"]) == 2
    assert stanch("--json", "--workspace", w, "log", "query", "--until", "2001-01-01").json["data"]["entries"] == []
    assert stanch("--workspace", w, "log", "query", "--subject", "nonsense").code == 2


def test_anchor_warns_where_it_is_not_outside(w, stanch):
    shown = stanch("--json", "--workspace", w, "log", "anchor")
    assert shown.json["warnings"]
    assert list((w / ".stanch" / "anchors").rglob("*.note"))


def test_erase(w, stanch):
    with Workspace.open(w) as workspace:
        owner, person = workspace.people.session.principal, add_person(workspace, "bob", ["auditor"])
    erase = ("--json", "--workspace", w, "log", "erase")
    assert stanch(*erase, "--principal", person, "--basis", "because Alice asked").code == 2
    assert stanch(*erase, "--basis", "gdpr-17-1-b").code == 2
    shown = stanch(*erase, "--principal", person, "--basis", "gdpr-17-1-b")
    assert shown.code == 0
    assert shown.json["data"]["columns"] >= 1
    assert stanch(*erase, "--principal", owner, "--basis", "gdpr-17-1-b").code == 2
    assert stanch("--workspace", w, "--as", "bob", "log", "show").code == 3
    shown = stanch("--workspace", w, "status").out
    assert f"person     {person}: auditor" in shown
    assert "None" not in shown


def test_recover_after_an_old_database_was_put_back(w, stanch, tmp_path):
    with contextlib.closing(sqlite3.connect(w / ".stanch" / "stanch.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "old.db"),))
    for _ in range(2):
        assert stanch("--workspace", w, "log", "show").code == 0
    for suffix in ("-wal", "-shm"):
        (w / ".stanch" / f"stanch.db{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", w / ".stanch" / "stanch.db")
    shown = stanch("--json", "--workspace", w, "log", "show")
    assert shown.json["error"]["slug"] == "log-rolled-back"
    shown = stanch("--json", "--workspace", w, "log", "recover")
    assert shown.code == 0, shown
    assert shown.json["data"]["restored"] == 4
    assert stanch("--json", "--workspace", w, "log", "verify").code == 0
    found = stanch("--json", "--workspace", w, "log", "query", "--kind", "log.recover", "--phase", "intent").json
    payload = found["data"]["entries"][0]["event"]["unmapped"]["stanch"]["payload"]
    assert json.dumps(payload["restored"]) == "4"
