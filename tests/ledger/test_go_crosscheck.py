"""Go's own ``sumdb/note`` and ``sumdb/tlog`` read what stanch writes, where Go and that module are installed."""

import base64
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from stanch.errors import NoTrustedSignature
from stanch.ledger import NoteVerifier, TlogProof, open_note

MODULE = Path("/usr/share/gocode/src/golang.org/x/mod")

PROGRAM = """
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}

func hash(text string) (h tlog.Hash) {
	raw, err := base64.StdEncoding.DecodeString(text)
	check(err)
	copy(h[:], raw)
	return h
}

func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	check(err)
	checkpoint, err := os.ReadFile(os.Args[2])
	check(err)
	opened, err := note.Open(checkpoint, note.VerifierList(verifier))
	check(err)
	fmt.Print(opened.Text)
	lines := bufio.NewScanner(os.Stdin)
	count := 0
	for lines.Scan() {
		f := strings.Split(lines.Text(), " ")
		var n, m int64
		fmt.Sscan(f[1], &n)
		fmt.Sscan(f[2], &m)
		path := []tlog.Hash{}
		for _, text := range f[5:] {
			path = append(path, hash(text))
		}
		if f[0] == "inclusion" {
			check(tlog.CheckRecord(path, n, hash(f[3]), m, hash(f[4])))
		} else {
			check(tlog.CheckTree(path, n, hash(f[3]), m, hash(f[4])))
		}
		count++
	}
	fmt.Println("checked", count)
	secret, vkey, err := note.GenerateKey(rand.Reader, "example.com/go")
	check(err)
	signer, err := note.NewSigner(secret)
	check(err)
	made, err := note.Sign(&note.Note{Text: opened.Text}, signer)
	check(err)
	check(os.WriteFile(os.Args[3], append(append([]byte(vkey), 10), made...), 0o600))
}
"""


@pytest.mark.skipif(
    shutil.which("go") is None or not MODULE.exists(),
    reason="Go and golang-golang-x-mod-dev are not installed: no cross-check with sumdb/note and sumdb/tlog",
)
def test_go_opens_checkpoints_and_checks_proofs(ground, tmp_path, load):
    folder = tmp_path / "go" / "src" / "crosscheck"
    folder.mkdir(parents=True)
    (folder / "main.go").write_text(PROGRAM)
    golden = load("note/checkpoint.json")
    with ground.create() as log:
        roots = {}
        for size in (1, 2, 3, 100, 256, 300, 700):
            ground.fill(log, size - len(list(log.reader().tail())))
            roots[size] = log.publish().checkpoint.root
        reader = log.reader()
        dice = random.Random(7)
        requests = []
        for _ in range(1000):
            size = dice.choice(list(roots))
            index = dice.randrange(size)
            old = dice.choice([other for other in roots if other <= size])
            requests.append(
                line("inclusion", size, index, roots[size], leaf(reader, index), inclusion(reader, index, size))
            )
            requests.append(
                line("consistency", size, old, roots[size], roots[old], reader.prove_consistency(old, size))
            )
        (tmp_path / "checkpoint").write_bytes(reader.checkpoint().note)
    environment = os.environ | {
        "GOPATH": f"{tmp_path / 'go'}:/usr/share/gocode",
        "GO111MODULE": "off",
        "GOCACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["go", "run", "crosscheck", golden["vkey"], str(tmp_path / "checkpoint"), str(tmp_path / "made")],
        input="\n".join(requests),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.stdout.endswith("checked 2000\n"), done.stdout + done.stderr
    vkey, _, made = (tmp_path / "made").read_bytes().partition(b"\n")
    opened = open_note(made, [NoteVerifier.parse(vkey.decode())])
    assert opened.text == reader.checkpoint().checkpoint.text()
    with pytest.raises(NoTrustedSignature):
        open_note(made, [NoteVerifier.parse(golden["vkey"])])


def leaf(reader, index):
    with reader.tables.read() as connection:
        return connection.exec_driver_sql("SELECT leaf_hash FROM ledger_entry WHERE idx = ?", (index,)).scalar_one()


def inclusion(reader, index, size):
    return TlogProof.parse(reader.prove(index, size)).path


def line(kind, size, number, root, old, path):
    return " ".join([kind, str(size), str(number), *(base64.b64encode(node).decode() for node in (root, old, *path))])
