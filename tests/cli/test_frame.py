"""What all commands share: help, one JSON object, exit codes, interruption, and no secret in any output."""

import importlib
import json
import subprocess
import sys

import click
import pytest

from stanch.cli import data, frame
from stanch.cli.commands import COMMANDS
from stanch.errors import LedgerUnavailable


def commands():
    """Return the words of every command and group."""
    found = []

    def walk(command, words):
        found.append(words)
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, (*words, name))

    for name, entry in COMMANDS.items():
        walk(getattr(importlib.import_module(entry.module), name), (name,))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there(name):
    command = getattr(importlib.import_module(COMMANDS[name].module), name)
    assert isinstance(command, frame.Leaf | click.Group)
    assert COMMANDS[name].summary
    assert COMMANDS[name].section


def test_every_command_has_help_and_the_global_flags(stanch):
    for words in commands():
        shown = stanch(*words, "--help")
        assert shown.code == 0, words
        assert shown.out.startswith("Usage: stanch " + " ".join(words)), shown.out
        assert len(shown.out.splitlines()) > 4
        assert shown.err == ""
        if "COMMAND" not in shown.out.splitlines()[0]:
            assert "--json" in shown.out, words


def test_the_root_help_lists_every_command(stanch):
    shown = stanch("--help")
    assert all(f"  {name} " in shown.out and entry.summary[:30] in shown.out for name, entry in COMMANDS.items())


def test_the_root_help_imports_no_command():
    code = "import sys; from stanch.cli.frame import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "torch", "sqlalchemy", "cedarpy", "cryptography", "rich"}
    assert not loaded & {entry.module for entry in COMMANDS.values()}


WORKING = [
    "status", "doctor", "config show", "config show access --origin", "key list",
    "scan {data}", "data manifest {data}", "audit scores {scores_csv} --coins",
    "audit verify {report_json} --scores {scores_csv}", "key show {acme_key}",
    "key show {sign_pub_pem}", "seal ls {sealed}", "seal verify {sealed} --trust {sign_pub_pem}", "access who",
    "access why owner log:read", "log verify", "log show --limit 3", "log prove 0",
    "release open {sealed} --identity {acme_key} --trust {sign_pub_pem}",
]  # fmt: skip


@pytest.mark.parametrize("line", WORKING)
def test_success_as_json_is_one_object(line, stanch, files):
    words = line.format(**vars(files)).split(" ")
    shown = stanch("--workspace", files.w, *words, "--json")
    answer = shown.json
    assert set(answer) == {"schema", "command", "ok", "exit", "data", "warnings"}
    assert (answer["schema"], answer["ok"], answer["exit"]) == ("stanch.cli/1", shown.code == 0, shown.code)
    assert shown.code in {0, 5}, shown
    assert shown.err == ""
    assert answer["command"].split() == [word for word in words if word in answer["command"].split()]


def test_the_flags_stand_before_or_after_the_command(stanch, files):
    before = stanch("--json", "--workspace", files.w, "access", "who").json
    assert stanch("access", "who", "--workspace", files.w, "--json").json == before


def test_a_blocked_model_is_exit_1_with_all_rules(stanch, files):
    shown = stanch("--workspace", files.w, "audit", "gate", files.model, "--cert", files.leak, "--json")
    answer = shown.json
    assert (shown.code, answer["ok"], answer["exit"]) == (1, False, 1)
    assert answer["data"]["outcome"] == "breach"
    assert len(answer["data"]["rules"]) > 5
    after = stanch("--workspace", files.w, "access", "why", "owner", "release:create", files.model)
    assert after.code == 3
    assert "gate" in after.out


def test_a_denied_question_is_exit_3(stanch, files):
    shown = stanch("--workspace", files.w, "access", "why", "owner", "model:logprobs", files.model)
    assert shown.code == 3
    assert shown.out.startswith("DENIED")


def stop_with(error):
    def stop(*_, **__):
        raise error

    return stop


def test_interruption_is_exit_130_and_recorded_as_cancelled(stanch, files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("stanch.workspace.verbs_data.scan_dataset", stop_with(KeyboardInterrupt()))
        shown = stanch("--workspace", files.w, "scan", files.data)
    assert (shown.code, shown.out) == (130, "")
    latest = stanch("--workspace", files.w, "log", "show", "--kind", "data.scan", "--limit", "1")
    assert "cancelled" in latest.out


def test_a_log_that_takes_no_entry_is_exit_4(stanch, files, monkeypatch):
    monkeypatch.setattr("stanch.ledger.log.Ledger.append_nowait", stop_with(LedgerUnavailable("the disk is full")))
    shown = stanch("--workspace", files.w, "scan", files.data)
    assert (shown.code, shown.out) == (4, "")
    assert shown.err.startswith("error: the disk is full")


def test_a_bug_is_exit_70_without_a_traceback_unless_asked_for(stanch, files, monkeypatch):
    monkeypatch.setattr("stanch.workspace.verbs_data.scan_dataset", stop_with(RuntimeError("a row: my password")))
    shown = stanch("--workspace", files.w, "scan", files.data)
    assert shown.code == 70
    assert "a bug in stanch: RuntimeError" in shown.err
    assert "password" not in shown.err
    assert "Traceback" in stanch("--workspace", files.w, "scan", files.data, "--debug").err


def test_secrets_are_never_shown(stanch, files, tmp_path):
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse battery\n")
    phrase.chmod(0o600)
    shown = [
        stanch("key", "new", "--out", tmp_path / "k", "--new-passphrase-file", phrase),
        stanch("key", "new", "--kind", "sign", "--out", tmp_path / "s.pem"),
        stanch("--workspace", files.w, "access", "add", "new", "--new-passphrase-file", phrase, "--debug"),
        stanch("--workspace", files.w, "--as", "new", "--passphrase-file", phrase, "access", "who", "--debug"),
        stanch("release", "open", files.sealed, "--identity", tmp_path / "k", "--trust", files.sign_pub_pem,
               "--passphrase-file", phrase, "--debug"),
        stanch("key", "show", tmp_path / "s.pem", "--debug"),
    ]  # fmt: skip
    assert [one.code for one in shown[:4]] == [0, 0, 0, 0]
    text = "".join(one.out + one.err for one in shown)
    secrets = ["correct horse", (tmp_path / "s.pem").read_text().splitlines()[1]]
    secrets += [json.loads((files.w / ".stanch/keys/people/owner.json").read_text())["secret"]]
    assert not [secret for secret in secrets if secret in text]


def test_a_passphrase_that_others_can_read_is_refused(stanch, files, tmp_path):
    (tmp_path / "phrase").write_text("correct horse battery")
    (tmp_path / "phrase").chmod(0o644)
    shown = stanch("key", "new", "--out", tmp_path / "k", "--new-passphrase-file", tmp_path / "phrase")
    assert shown.code == 2
    assert "others may read it" in shown.err
    assert files.w.is_dir()
    assert not (tmp_path / "k").exists()


def test_version_in_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "stanch", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("stanch ")


def test_a_closed_pipe_is_silent(files):
    command = f"{sys.executable} -m stanch --workspace {files.w} --as owner log show | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""


def test_the_group_of_data_commands_is_whole():
    assert set(data.data.commands) == {
        "manifest", "verify", "prove", "check", "dedup", "repeats", "split", "canaries", "index", "dictionary", "vault"
    }  # fmt: skip
