"""``stanch guard check`` as a person runs it."""

import io
import json
import random
import sys

import pytest

from stanch.cli.frame import run
from stanch.crypto import random_bytes
from stanch.data import CanarySpec, open_dataset, plan_canaries

SECRET = "AKIAIOSFODNN7EXAMPLQ"
MAIL = "ana.diaz@example.org"


@pytest.fixture(scope="module")
def rows(words):
    rng = random.Random(31)
    return [words(rng, 40) for _ in range(20)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory, rows):
    """A workspace, an index of its data and a canary plan."""
    folder = tmp_path_factory.mktemp("ground")
    data, index = folder / "t.jsonl", folder / "t.index"
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    assert run(["init", str(folder / "w")]) == 0
    build = ["data", "index", "build", str(data), "--window", "fine", "--out", str(index)]
    assert run(["--workspace", str(folder / "w"), *build]) == 0
    plan = plan_canaries(
        open_dataset(data, key=random_bytes(32)), CanarySpec(n=32, secret_length=12), preregistration={}
    )
    plan.save(folder / "plan.json")
    return folder


@pytest.fixture
def stanch(ground, monkeypatch, capsys):
    """Run a command in the workspace; returns exit code, lines of output, lines of errors."""
    monkeypatch.chdir(ground)
    capsys.readouterr()

    def call(*arguments):
        code = run(["--workspace", "w", "guard", "check", *arguments])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def write(path, *texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_answers_are_judged_and_written(stanch, ground, rows):
    write(ground / "a.jsonl", "All is well.", f"Mail {MAIL} now", "Well: " + rows[3][20:200], f"key {SECRET} is it")
    code, out, err = stanch("a.jsonl", "--index", "t.index", "--redact", "clean.jsonl")
    assert (code, err) == (1, [])
    assert out[0] == "a.jsonl  4 answers  2 BLOCK  1 REDACT  1 clean"
    assert [line.split()[1:3] for line in out[1:4]] == [
        ["2", "email"],
        ["3", "training-text"],
        ["4", "aws-access-key-id"],
    ]
    assert out[1].endswith("20 characters")
    assert out[2].endswith("characters in one run (limit 47)")
    assert out[4:] == [
        "written     clean.jsonl: what the guard releases; 2 empty",
        "LEAK FOUND  2 answers would have been blocked",
    ]
    written = [json.loads(line)["text"] for line in (ground / "clean.jsonl").read_text().splitlines()]
    assert written == ["All is well.", "Mail <EMAIL> now", "", ""]
    assert stanch("clean.jsonl", "--index", "t.index")[0] == 0


def test_no_output_holds_text(stanch, ground, rows):
    write(ground / "b.jsonl", f"Mail {MAIL} now", rows[5], SECRET)
    for more in ([], ["--json"]):
        _, out, err = stanch("b.jsonl", "--index", "t.index", *more)
        shown = "\n".join(out + err)
        assert not any(secret in shown for secret in (MAIL, SECRET, rows[5][:12], rows[5][-12:]))


def test_json(stanch, ground, rows):
    write(ground / "c.jsonl", "fine", rows[7][10:150])
    code, (line,), _ = stanch("c.jsonl", "--index", "t.index", "--json")
    answer = json.loads(line)
    assert (code, answer["ok"], answer["command"]) == (1, False, "guard check")
    data = answer["data"]
    assert (data["answers"], data["blocked"], data["redacted"], data["clean"]) == (2, 1, 0, 1)
    ((entry),) = data["lines"]
    assert (entry["line"], entry["verdict"]) == (2, "block")
    (finding,) = entry["findings"]
    assert finding["kind"] == "training-text"
    assert 0 <= finding["start"] < 16
    assert 124 < finding["end"] <= 140


def test_canaries_of_a_plan(stanch, ground):
    secret = json.loads((ground / "plan.json").read_text())["canaries"][0]["secret"]
    write(ground / "d.jsonl", "ok", f"it is {secret.lower()[::-1]}")
    code, out, _ = stanch("d.jsonl", "--canaries", "plan.json")
    assert code == 1
    assert out[1].split()[:3] == ["line", "2", "canary"]
    assert out[2] == "note        training text was not looked for: no --index"
    assert secret not in "\n".join(out)
    assert stanch("d.jsonl")[0] == 0


def test_plain_lines_and_standard_input(stanch, ground, rows, monkeypatch):
    text = f"\nAll is well — here.\nMail {MAIL} now\r\n\n{rows[2]}\n"
    (ground / "e.txt").write_bytes(text.encode())
    code, out, _ = stanch("e.txt", "--index", "t.index", "--redact", "e.clean")
    assert (code, out[0]) == (1, "e.txt  3 answers  1 BLOCK  1 REDACT  1 clean")
    assert [line.split()[1] for line in out[1:3]] == ["3", "5"]
    assert (ground / "e.clean").read_text() == "All is well — here.\nMail <EMAIL> now\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, _ = stanch("-", "--index", "t.index")
    assert (code, out[0]) == (1, "-  3 answers  1 BLOCK  1 REDACT  1 clean")


def test_lone_surrogates_survive_as_escapes(stanch, ground):
    (ground / "s.jsonl").write_text('{"text": "a \\ud800 \\u00e9 b"}\n')
    assert stanch("s.jsonl", "--redact", "s.clean")[0] == 0
    assert json.loads((ground / "s.clean").read_bytes()) == {"text": "a \ud800 é b"}


def test_an_empty_file_is_clean(stanch, ground):
    (ground / "empty").write_bytes(b"")
    code, out, _ = stanch("empty", "--index", "t.index")
    assert (code, out) == (
        0, ["empty  0 answers  0 BLOCK  0 REDACT  0 clean", "PASS        no answer would have been blocked"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "ok"}\n{"text": 7, "private": 1}\n', 'bad: line 2: expected an object with a string "text"'),
        (b'{"text": "ok"}\n{"private\n', "bad: line 2: not valid JSON at byte 9"),
        (b'{"answer": "private"}\n', 'bad: line 1: expected an object with a string "text"'),
        (b"ok\n\xff private\n", "bad: line 2: not UTF-8"),
    ],
)
def test_lines_that_are_no_answers(stanch, ground, content, message):
    (ground / "bad").write_bytes(content)
    code, _, err = stanch("bad", "--redact", "never")
    assert code == 2
    assert err[0] == f"error: {message}"
    assert "private" not in "\n".join(err)
    assert not (ground / "never").exists()


def test_wrong_files(stanch, ground, tmp_path):
    write(ground / "f.jsonl", "fine")
    assert stanch("missing.jsonl")[::2] == (
        2,
        ["error: missing.jsonl: cannot be read", "why:   No such file or directory"],
    )
    assert stanch("f.jsonl", "--index", "missing.index")[0] == 2
    code, _, err = stanch("f.jsonl", "--index", "t.jsonl")
    assert (code, err[0]) == (1, "error: t.jsonl: not a span index of version 1")
    assert stanch("f.jsonl", "--canaries", "missing.json")[0] == 2
    (ground / "no.plan").write_text("{}")
    (ground / "no.plan").chmod(0o600)
    assert stanch("f.jsonl", "--canaries", "no.plan")[0] == 2
    changed = bytearray((ground / "t.index").read_bytes())
    changed[4200] ^= 1
    (ground / "changed.index").write_bytes(changed)
    code, _, err = stanch("f.jsonl", "--index", "changed.index")
    assert (code, "changed after it was written" in err[0]) == (1, True)
    assert run(["init", str(tmp_path / "other")]) == 0
    code, _, err = stanch("f.jsonl", "--index", "t.index", "--workspace", str(tmp_path / "other"))
    assert (code, "made with another key" in err[0]) == (1, True)


def test_a_sealed_index_is_built_asked_merged_and_used(stanch, ground, rows):
    """All commands take either form, and no plaintext of a sealed one is on the disk."""
    base = ["--workspace", "w", "data", "index"]
    part = [*base, "build", "t.jsonl", "--window", "fine", "--sealed"]
    assert run([*part, "--for-chars", "20000", "--out", "a.sealed"]) == 0
    assert run([*part, "--like", "a.sealed", "--out", "b.sealed"]) == 0
    assert run([*base, "merge", "a.sealed", "b.sealed", "--sealed", "--out", "all.sealed"]) == 0
    assert run([*base, "merge", "a.sealed", "b.sealed", "--out", "all.index"]) == 0
    files = [path for path in ground.glob("*.sealed/**/*") if path.is_file()]
    assert len(files) > 3
    assert not any(b"STXIDX" in path.read_bytes() for path in files)
    (ground / "q.txt").write_text(rows[4] + "\n")
    assert run([*base, "query", "all.sealed", "q.txt"]) == 1
    write(ground / "g.jsonl", "fine", rows[3][20:200])
    for index in ("all.sealed", "all.index"):
        code, out, _ = stanch("g.jsonl", "--index", index)
        assert code == 1
        assert "g.jsonl  2 answers  1 BLOCK  0 REDACT  1 clean" in out
    assert run([*part, "--out", "a.sealed"]) != 0  # is there


def test_own_terms(stanch, ground):
    (ground / "terms.txt").write_text("violet heron\n")
    build = ["--workspace", "w", "data", "dictionary", "build", "terms.txt", "--label", "codename", "--out", "t.dict"]
    assert run(build) == 0
    write(ground / "h.jsonl", "They call it Violet  Heron.", "fine")
    assert stanch("h.jsonl")[0] == 0
    code, out, _ = stanch("h.jsonl", "--dictionaries", "t.dict")
    assert (code, out[1].split()[:3]) == (1, ["line", "1", "codename"])
    assert stanch("h.jsonl", "--dictionaries", "none.dict")[0] == 2


def test_a_model_of_the_settings_and_files_in_the_place_of_its_own(stanch, ground, rows):
    settings = ground / "w/stanch.toml"
    before = settings.read_text()
    lines = [
        "[[gateway.models]]", 'name = "bot"', f'digest = "sha256:{"1" * 64}"', 'upstream = "http://127.0.0.1:1"',
        'index = "missing.index"', f'allow = ["{MAIL}"]', "actions = { aws-access-key-id = 'redact' }",
    ]  # fmt: skip
    try:
        settings.write_text(before + "\n" + "\n".join(lines) + "\n")
        write(ground / "i.jsonl", f"Mail {MAIL} now", f"key {SECRET} is it", rows[3])
        assert stanch("i.jsonl", "--model", "bot")[0] == 2
        code, out, _ = stanch("i.jsonl", "--model", "bot", "--index", "t.index", "--redact", "i.clean")
        assert (code, out[0]) == (1, "i.jsonl  3 answers  1 BLOCK  1 REDACT  1 clean")
        written = [json.loads(line)["text"] for line in (ground / "i.clean").read_text().splitlines()]
        assert written == [f"Mail {MAIL} now", "key <AWS-ACCESS-KEY-ID> is it", ""]
        code, _, err = stanch("i.jsonl", "--model", "other")
        assert (code, err[0]) == (2, "error: the settings name no model 'other'")
    finally:
        settings.write_text(before)
