"""``stanch log export --follow``: every entry once, however it ends, and on from where the reader was."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import orjson
import pytest

from stanch.cli.log_follow import Pipe, read_cursor
from stanch.errors import InvalidInput, NotAuthenticated, NotPermitted
from stanch.ledger import EntryQuery, TrustPolicy, verify_proof
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import add_person, suspend_principal
from stanch.workspace.verbs_follow import Following, follow_log
from stanch.workspace.verbs_log import list_entries, verify_log


@pytest.fixture
def w(tmp_path, stanch):
    folder = tmp_path / "w"
    assert stanch("init", folder).code == 0
    return folder


def follow(folder, *words):
    command = [sys.executable, "-m", "stanch", "--workspace", str(folder), "log", "export", "--follow", *words]
    # Unbuffered, so that no more is taken out of the pipe than a test has read.
    return subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def look(folder, times=1):
    """Make two entries for each time."""
    with Workspace.open(folder) as workspace:
        for _ in range(times):
            list_entries(workspace, EntryQuery(limit=1))
        return workspace.ledger.reader().size()


def finish(process):
    """Tell it to end, and return the lines that were left and what it said."""
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    return [json.loads(line) for line in out.splitlines()], told.decode()


def test_it_goes_on_as_the_log_grows_and_later_where_it_ended(w, tmp_path):
    cursor = str(tmp_path / "cursor")
    look(w, 2)
    process = follow(w, "--cursor", cursor)
    seen = [json.loads(process.stdout.readline()) for _ in range(5)]
    grown = look(w, 3)
    seen += [json.loads(process.stdout.readline()) for _ in range(grown - 5)]
    rest, told = finish(process)
    seen += rest
    assert f"later: --start {len(seen)}" in told
    with Workspace.open(w) as workspace:
        reader, trusted = workspace.ledger.reader(), TrustPolicy.of([workspace.ledger.verifier.vkey])
        for at, row in enumerate(seen):
            event = dict(row["event"])
            assert (row["index"], event.pop("fingerprint")["algorithm_id"]) == (at, 3)
            entry = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
            assert entry == reader.entry(at)
            assert verify_proof(row["proof"].encode(), entry, trusted).index == at
        assert read_cursor(tmp_path / "cursor", workspace.ledger.origin) == len(seen)
        assert verify_log(workspace).intents_open == ()
    kinds = [row["event"]["unmapped"]["stanch"]["kind"] for row in seen]
    assert kinds.count("log.export") == 1  # its own intent; how it ended comes first the next time

    process = follow(w, "--cursor", cursor, "--no-proofs")
    first = json.loads(process.stdout.readline())
    assert (first["index"], "proof" in first) == (len(seen), False)
    ours = first["event"]["unmapped"]["stanch"]
    assert (ours["kind"], ours["phase"], ours["payload"]["entries"]) == ("log.export", "outcome", len(seen))
    rest, _ = finish(process)
    indexes = [row["index"] for row in [first, *rest]]
    assert indexes == [*range(len(seen), len(seen) + len(indexes))]


def test_a_reader_that_goes_away_ends_it_and_misses_nothing_later(w, tmp_path):
    cursor = tmp_path / "cursor"
    total = look(w, 40)
    process = follow(w, "--cursor", str(cursor), "--no-proofs")
    taken = b""
    while taken.count(b"\n") < 3:
        taken += os.read(process.stdout.fileno(), 700)
    process.stdout.close()
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    read = [json.loads(line)["index"] for line in taken.splitlines(keepends=True) if line.endswith(b"\n")]
    with Workspace.open(w) as workspace:
        start = read_cursor(cursor, workspace.ledger.origin)
    assert start == len(read) < total
    process = follow(w, "--cursor", str(cursor), "--no-proofs")
    read += [json.loads(process.stdout.readline())["index"] for _ in range(total - start)]
    finish(process)
    assert read == [*range(total)]


def test_a_line_counts_when_its_last_byte_was_taken(tmp_path):
    reader, writer = os.pipe()
    pipe = Pipe(writer, 7, tmp_path / "cursor", "log.example")
    for index in (7, 8, 9):
        assert pipe.put(index, b"x" * 99 + b"\n")
    found = []
    for size in (99, 1, 150, 50):
        os.read(reader, size)
        found.append(pipe.next_start)
    assert found == [7, 8, 9, 10]
    assert pipe.put(10, b"y" * 100)
    os.read(reader, 10)
    os.close(reader)
    assert not pipe.rest(0)
    assert pipe.end() == 10
    assert (tmp_path / "cursor").read_text() == "log.example 10\n"
    assert not pipe.put(11, b"z\n")
    assert pipe.end() == 10
    os.close(writer)


def test_a_reader_that_does_not_read_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("stanch.cli.log_follow._END_SECONDS", 0.1)
    reader, writer = os.pipe()
    pipe = Pipe(writer, 0, None, "log.example")
    threading.Timer(0.5, pipe.stop.set).start()
    begun = time.monotonic()
    assert not pipe.put(0, b"x" * (1 << 21))  # more than a pipe takes
    assert time.monotonic() - begun < 60
    assert pipe.end() == 0  # a part of a line is none
    os.close(reader)
    os.close(writer)


def test_what_goes_into_a_file_was_taken(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        pipe = Pipe(file.fileno(), 0, None, "log.example")
        assert pipe.put(0, b"line\n")
        assert pipe.rest(0)
        assert pipe.end() == 1


class Reader:
    """Takes every line; does something when nothing is left."""

    def __init__(self, rest):
        self.lines, self.do = [], rest

    def put(self, _index, line):
        self.lines.append(line)
        return True

    def rest(self, _seconds):
        return self.do()

    def end(self):
        return len(self.lines)


def test_whoever_loses_the_right_reads_no_further(w):
    with Workspace.open(w) as workspace:
        add_person(workspace, "ada", roles=("auditor",))
        ada = workspace.acting_as("ada")
        rests = []

        def rest():
            rests.append(1)
            if len(rests) == 2:
                suspend_principal(workspace, "ada")
            return len(rests) < 9

        reader = Reader(rest)
        with pytest.raises((NotPermitted, NotAuthenticated)):
            follow_log(ada, Following(0, proofs=False, renew=lambda: ada), reader)
        assert len(rests) == 2
        assert reader.lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--follow", "folder"), "into no folder"), (("--follow", "--format", "syslog"), "JSON lines"),
        ((), "a folder"), (("folder", "--cursor", "c"), "a folder, or --follow"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(w, stanch, words, said):
    shown = stanch("--json", "--workspace", w, "log", "export", *words)
    assert (shown.code, said in shown.json["error"]["what"]) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"), [("other 3", "another log"), ("log.example -3", "expected"), ("x", "expected")]
)
def test_a_cursor_of_something_else_is_refused(tmp_path, text, said):
    (tmp_path / "c").write_text(text)
    with pytest.raises(InvalidInput, match=said):
        read_cursor(tmp_path / "c", "log.example")
    assert read_cursor(tmp_path / "none", "log.example") is None
