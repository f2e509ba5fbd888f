"""Every command, found by walking: it has the global flags, declares its acts, and explains itself without acting."""

import ast
import importlib
import inspect
import io
import json
import re
import textwrap
from pathlib import Path

import click
import life
import pytest

from stanch import workspace as package
from stanch.cli import frame
from stanch.cli.actions import ACTIONS
from stanch.cli.commands import COMMANDS
from stanch.cli.progress import PLAIN_SECONDS, Bar
from stanch.terms import SecretStr, redact


def leaves():
    """Return every command that is not a group, by its words."""
    found = {}

    def walk(command, words):
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, (*words, name))
        else:
            found[" ".join(words)] = command

    for name, entry in COMMANDS.items():
        walk(getattr(importlib.import_module(entry.module), name), (name,))
    return found


LEAVES = leaves()
ASKED_ELSEWHERE = {
    "tune run": {"tune.event"},  # by the recorder that a run tells its events
    "gateway serve": {"gateway.embed", "gateway.infer"},
    "console serve": {"release.read"},
    "watch serve": {"audit.run", "watch.alert.raise", "watch.check", "watch.deliver"},
    "serve": {
        "gateway.serve",
        "gateway.embed",
        "gateway.infer",
        "watch.serve",
        "audit.run",
        "watch.check",
        "watch.alert.raise",
        "watch.deliver",
        "console.serve",
        "release.read",
    },
}


def test_every_command_is_a_leaf_with_the_global_flags():
    wanted = {"--json", "--workspace", "--as", "--quiet", "--debug", "--no-color", "--explain", "--progress"}
    for name, leaf in LEAVES.items():
        assert isinstance(leaf, frame.Leaf), name
        assert wanted <= {flag for parameter in leaf.params for flag in parameter.opts}, name


def test_every_command_answers_wrong_usage_with_one_json_object(stanch):
    for name in LEAVES:
        shown = stanch(*name.split(), "--json", "--no-such-flag")
        assert (shown.code, shown.err) == (2, ""), name
        assert shown.json["error"]["slug"] == "invalid-input", name


def kinds_by_verb():
    """Return the kinds of acts of every verb: those that its source asks for, and those of the verbs that it calls."""
    sources = {}
    for path in sorted(Path(package.__file__).parent.glob("verbs_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                sources[node.name] = node
    found = {}
    for name, node in sources.items():
        calls = [c for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)]
        found[name] = {c.args[0].value for c in calls if c.func.id == "Request"}
        found[name] |= {c.func.id for c in calls if c.func.id in sources}

    def flat(name):
        return {kind for part in found[name] for kind in (flat(part) if part in found else {part})}

    return {name: flat(name) for name in found}


def imported_names(source):
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stanch.workspace.verbs_"):
            yield from (alias.name for alias in node.names)


def test_what_a_command_declares_is_what_its_verbs_ask_for():
    verbs = kinds_by_verb()
    for name, leaf in LEAVES.items():
        source = inspect.getsource(leaf.callback)
        asked = {kind for verb in imported_names(source) for kind in verbs.get(verb, ())}
        assert asked | ASKED_ELSEWHERE.get(name, set()) == set(ACTIONS[name].kinds), name


def test_every_command_explains_itself_and_does_nothing(stanch, tmp_path):
    for name in LEAVES:
        shown = stanch("--explain", *name.split(), "--json")
        answer = shown.json
        assert (shown.code, shown.err, answer["command"]) == (0, "", name)
        assert [act["kind"] for act in answer["data"]["acts"]] == list(ACTIONS[name].kinds), name
        assert bool(answer["data"]["reason"]) == bool(ACTIONS[name].why_none), name
        assert all(all(act.values()) for act in answer["data"]["acts"]), name
        assert stanch(*name.split(), "--explain").out.startswith(f"explains   {name}; nothing was done\n")
        assert life.tree(tmp_path) == [], name


def test_an_act_that_is_only_explained_is_not_in_the_log(stanch, files, unchanged):
    watch = unchanged(files.w)
    before = stanch("--workspace", files.w, "status", "--json").json["data"]["entries"]
    shown = stanch("--workspace", files.w, "scan", files.data, "--redact", files.out, "--explain")
    assert "data:read on the dataset" in shown.out
    assert stanch("--workspace", files.w, "status", "--json").json["data"]["entries"] == before
    assert not files.out.exists()
    watch.check()


@pytest.mark.parametrize("line", ["log show --limit 5", "key list"])
def test_a_stream_is_one_object_a_line(line, stanch, files):
    shown = stanch("--workspace", files.w, *line.split(), "--jsonl")
    assert (shown.code, shown.err) == (0, "")
    rows = [json.loads(text) for text in shown.out.splitlines()]
    whole = stanch("--workspace", files.w, *line.split(), "--json").json["data"]
    assert len(rows) >= 5
    assert set(rows[0]) == set(next(iter(whole.values()))[0])
    assert stanch("--workspace", files.w, *line.split(), "--jsonl", "--as", "nobody", "--limit", "x").code == 2


def test_interruption_as_json_is_one_object(stanch, files, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("stanch.workspace.verbs_data.scan_dataset", stop)
    shown = stanch("--workspace", files.w, "scan", files.data, "--json")
    assert (shown.code, shown.json["exit"], shown.json["error"]["slug"]) == (130, 130, "interrupted")


def test_only_our_own_output_may_meet_a_closed_pipe(stanch, files, monkeypatch):
    def stop(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("stanch.workspace.verbs_data.scan_dataset", stop)
    assert stanch("--workspace", files.w, "scan", files.data).code == 70


def test_a_traceback_shows_no_living_secret(stanch, files, monkeypatch):
    secret = SecretStr("hunter2-hunter2")

    def stop(*_, **__):
        raise RuntimeError(f"the password {secret.reveal()} of {secret} is wrong")

    monkeypatch.setattr("stanch.workspace.verbs_data.scan_dataset", stop)
    shown = stanch("--workspace", files.w, "scan", files.data, "--debug")
    assert "the password … of SecretStr(…) is wrong" in shown.err
    assert "Traceback" in shown.err
    assert "hunter2" not in shown.err


def test_secrets_are_redacted_the_longest_first_while_they_live():
    long, short = SecretStr("abcdef"), SecretStr("abc")
    assert redact("abcdef abc") == "… …"
    assert (repr(long), f"{short}", long == SecretStr("abcdef"), long == short) == (
        "SecretStr(…)", "SecretStr(…)", True, False,
    )  # fmt: skip
    del long
    assert redact("abcdef") == "…def"


def test_plain_progress_is_a_line_every_ten_seconds():
    stream, now = io.StringIO(), [0.0]
    bar = Bar(stream, plain=True, clock=lambda: now[0])
    for second in range(35):
        now[0] = float(second)
        bar("reading", second, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == f"reading: {PLAIN_SECONDS:.0f} of 100, 90 s left"


def test_no_color_means_no_escape_codes(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def draw(color):
        stream, now = Terminal(), iter(range(0, 100, 5))
        bar = Bar(stream, plain=False, color=color, clock=lambda: float(next(now)))
        for done in range(4):
            bar("reading", done, 10)
        bar.close()
        return re.findall(r"\x1b\[[0-9;]*m", stream.getvalue())

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not [code for code in draw(color=False) if re.search(r"3\d|4\d|9\d", code)]
    assert [code for code in draw(color=True) if re.search(r"3\d|4\d|9\d", code)]


def test_the_flag_for_no_colours_reaches_the_bar():
    plain = frame.Frame()
    plain.no_color = True
    assert plain.progress()._color is False
    assert frame.Frame().progress()._color is True


def test_status_says_who_there_is(stanch, files):
    (owner,) = [
        one
        for one in stanch("--workspace", files.w, "status", "--json").json["data"]["people"]
        if one["name"] == "owner"
    ]
    assert owner["principal"].startswith("p_")
    assert (owner["kind"], owner["suspended"]) == ("user", False)
    assert "platform_admin" in owner["roles"]
