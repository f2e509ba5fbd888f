"""The process that watches gateway and console: it starts what dies again, gives up in time, and ends all."""

import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import life
import pytest

from stanch.cli import serve
from stanch.cli.serve import Child, supervise
from stanch.errors import StanchError
from stanch.workspace import Workspace
from stanch.workspace.health import examine
from stanch.workspace.health_check import State
from stanch.workspace.verbs_access import revoke_grant


def child(code, name="part"):
    return Child(name, [sys.executable, "-S", "-c", code])


def test_a_child_that_dies_is_started_again_and_ended_at_the_end(tmp_path):
    mark, stop = tmp_path / "mark", threading.Event()
    again = child(
        f"import os,time; f=open({str(mark)!r},'a'); f.write('x'); f.close();"
        f"os.stat({str(mark)!r}).st_size<2 and os._exit(9); time.sleep(60)"
    )
    lasting = child("import time; time.sleep(60)")
    threading.Thread(target=lambda: (wait_for(lambda: mark.exists() and mark.stat().st_size == 2), stop.set())).start()
    assert supervise([again, lasting], stop) == 0
    assert mark.read_text() == "xx"
    assert len(again.deaths) == 1
    assert lasting.process.poll() == -signal.SIGTERM


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


def test_five_deaths_in_a_minute_end_all(monkeypatch):
    monkeypatch.setattr(serve, "_FIRST_WAIT", 0.0)
    monkeypatch.setattr(serve, "_POLL", 0.01)
    lasting = child("import time; time.sleep(60)")
    with pytest.raises(StanchError, match="died 5 times in a minute"):
        supervise([child("raise SystemExit(1)"), lasting], threading.Event())
    assert lasting.process.poll() is not None


@pytest.mark.parametrize("code", [2, 3])
def test_settings_that_are_wrong_are_not_tried_again(code):
    assert supervise([child(f"raise SystemExit({code})")], threading.Event()) == code


@pytest.mark.parametrize("code", [1, 3, 4])
def test_a_watch_that_ends_again_and_again_does_not_end_the_gateway(code, monkeypatch, capfd):
    monkeypatch.setattr(serve, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(serve, "_LONGEST_WAIT", 0.01)
    monkeypatch.setattr(serve, "_POLL", 0.01)
    gateway, watch = child("import time; time.sleep(60)"), child(f"raise SystemExit({code})", "watch")
    watch.vital, stop = False, threading.Event()
    if code == 3:
        # It served: its rights ended meanwhile.
        times = iter([0.0, 0.0])
        clock = lambda: next(times, serve.WITHIN_SECONDS + time.monotonic())  # noqa: E731 - short
    else:
        clock = time.monotonic
    waiting = lambda: (wait_for(lambda: len(watch.deaths) > serve.MOST_DEATHS), stop.set())  # noqa: E731 - short
    threading.Thread(target=waiting).start()
    assert supervise([gateway, watch], stop, clock=clock) == 0
    assert len(watch.deaths) > serve.MOST_DEATHS
    assert gateway.deaths == []
    assert f"watch ended with {code}; it is started again in" in capfd.readouterr().err


def test_a_child_that_does_not_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(serve, "DRAIN_SECONDS", 0.3)
    mark, stop = tmp_path / "mark", threading.Event()
    deaf = child(
        f"import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(mark)!r},'w'); time.sleep(60)"
    )
    threading.Thread(target=lambda: (wait_for(mark.exists), stop.set())).start()
    assert supervise([deaf], stop) == 0
    assert deaf.process.poll() == -signal.SIGKILL


DEAF = """
import os, signal, threading, time
from stanch.cli.attended import end_with_input
{before}
threading.Thread(target=end_with_input, kwargs={{"seconds": 0.2}}, daemon=True).start()
open({mark!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""
PARENT = """
import sys, threading
from stanch.cli.serve import Child, supervise
supervise([Child(str(n), [sys.executable, "-c", code]) for n, code in enumerate(sys.argv[1:])], threading.Event())
"""


def test_parts_end_with_a_parent_that_is_killed_also_one_that_is_deaf(tmp_path):
    marks = [tmp_path / "heeds", tmp_path / "deaf"]
    befores = ("", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    codes = [DEAF.format(mark=str(mark), before=before) for mark, before in zip(marks, befores, strict=True)]
    with subprocess.Popen([sys.executable, "-c", PARENT, *codes]) as parent:
        wait_for(lambda: all(mark.exists() and mark.read_text() for mark in marks))
        parts = [int(mark.read_text()) for mark in marks]
        assert all(is_running(part) for part in parts)
        parent.kill()
    wait_for(lambda: not any(is_running(part) for part in parts))
    assert not any(is_running(part) for part in parts)


def is_running(process):
    """Whether a process is there and no corpse that nobody has collected yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


HUNG_UP = """
import signal, sys, time
def told(*_):
    open(sys.argv[1] + ".told", "w").close()
signal.signal(signal.SIGHUP, told)
open(sys.argv[1], "w").close()
time.sleep(60)
"""
SUPERVISOR = """
import sys
from stanch.cli.serve import Child, _supervise
_supervise([Child("gateway", [sys.executable, "-c", *sys.argv[1:]])])
"""


def test_a_hangup_is_handed_on(tmp_path):
    mark, told = tmp_path / "mark", tmp_path / "mark.told"
    command = [sys.executable, "-c", SUPERVISOR, HUNG_UP, str(mark)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as parent:
        wait_for(mark.exists)
        parent.send_signal(signal.SIGHUP)
        wait_for(told.exists)
        assert parent.poll() is None
        parent.terminate()
        assert parent.wait(20) == 0


def test_a_part_of_stanch_is_started_attended():
    assert serve.command_of(serve.Frame(), "watch")[1:] == ["-m", "stanch.cli.attended", "watch", "serve"]


@pytest.fixture
def place(stanch, tmp_path):
    """A workspace, and what adds to its settings."""
    assert stanch("init", tmp_path / "w").code == 0
    settings = tmp_path / "w/stanch.toml"
    start = settings.read_text()

    def serve_with(text, *words):
        settings.write_text(f"{start}\n{text}")
        return stanch("--workspace", tmp_path / "w", "serve", *words, "--json")

    return serve_with


@pytest.fixture
def signals():
    """Give back the handlers that a run of ``stanch serve`` in this process sets."""
    known = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_the_command_ends_with_70_when_a_part_dies_too_often(place, monkeypatch):
    monkeypatch.setattr(serve, "_FIRST_WAIT", 0.0)
    monkeypatch.setattr(serve, "command_of", lambda *_: [sys.executable, "-S", "-c", "raise SystemExit(1)"])
    shown = place("", "--watch-only")
    assert (shown.code, "watch died 5 times in a minute" in shown.json["error"]["what"]) == (70, True)


MODEL = f'[[gateway.models]]\nname = "bot"\ndigest = "sha256:{"0" * 64}"\nupstream = "http://127.0.0.1:1"\n'
SINK = '[[alerts.sinks]]\nname = "a"\nkind = "webhook"\nurl = "https://x/"\nsecret = "file:missing"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'[gateway]\nlisten = "0.0.0.0:8400"\n{MODEL}', "gateway.listen"),
        ('[console]\nlisten = "[::]:8402"\n', "console.listen"),
        (f'[gateway]\ncertificate = "no.pem"\n{MODEL}', "certificate"),
        (SINK, "missing"),
        (MODEL.replace("127.0.0.1", "192.0.2.1"), "expected https"),
    ],
)
def test_what_is_unsafe_or_wrong_starts_nothing(place, monkeypatch, text, says):
    monkeypatch.setattr(Child, "start", lambda _: pytest.fail("a part was started"))
    shown = place(text, "--check")
    assert (shown.code, says in json.dumps(shown.json["error"])) == (2, True)
    if "https" not in says:  # the guards and the models' servers are opened by --check and by the gateway itself
        assert place(text).code == 2


AUDIT = '[[watch.audits]]\nname = "b"\nmodel = "model"\nendpoint = "http://127.0.0.1:1"\nserved = "m"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a model folder"),
        ('api_key_file = "no.key"\n', "no.key"),
        ('plan = "no.json"\n', "no.json"),
        ('data = "no.jsonl"\n', "no.jsonl"),
        ('holdout = "no.jsonl"\n', "no.jsonl"),
    ],
)
def test_the_check_opens_what_the_audits_of_the_watch_name(place, monkeypatch, tmp_path, text, says):
    monkeypatch.setattr("stanch.cli.audit_targets.load_endpoint", lambda *_: SimpleNamespace(sampling=None))
    if text:
        (tmp_path / "w/model").mkdir()
    shown = place(AUDIT + text, "--check")
    assert (shown.code, says in json.dumps(shown.json["error"])) == (2, True), shown
    if text:
        assert place(AUDIT, "--check").code == 0


def test_the_check_asks_whether_the_watch_may_audit_and_has_the_part_for_it(place, monkeypatch, tmp_path):
    (tmp_path / "w/model").mkdir()
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "stanch.audit.loading_torch", raising=False)  # another test may have loaded it
    shown = place(AUDIT, "--check")
    assert (shown.code, "stanch[train]" in json.dumps(shown.json["error"])) == (4, True), shown
    monkeypatch.setattr("stanch.cli.audit_targets.load_endpoint", lambda *_: SimpleNamespace(sampling=None))
    with Workspace.open(tmp_path / "w") as workspace:
        grants = workspace.people.facts().grants
        revoke_grant(workspace, next(grant.id for grant in grants if grant.role == "ml_engineer"))
    shown = place(AUDIT, "--check")
    assert (shown.code, "model:audit" in json.dumps(shown.json["error"])) == (3, True), shown


@pytest.mark.parametrize(("module", "extra"), [("httptools", "gateway"), ("starlette", "console")])
def test_a_part_that_is_not_installed_is_named(place, monkeypatch, module, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    shown = place(MODEL, f"--{extra}-only", "--check")
    assert (shown.code, f"stanch[{extra}]" in json.dumps(shown.json["error"])) == (4, True)


def test_the_check_says_what_would_be_started(place):
    shown = place("", "--check")
    assert shown.json["data"] == {"parts": ["watch", "console"], "ready": True}


GATEWAYS = ("log.pem", "log.pub.pem", "pepper.key", "publisher.pub.pem", "people/server.json")


def test_the_host_of_a_gateway_needs_few_keys_and_acts_as_a_server(stanch, tmp_path):
    """As docs/guides/serve.md says it: no key there signs a release, a certificate or a grant."""
    folder, secret = tmp_path / "w", life.passphrase("server")
    with Workspace.init(folder, profile="team", owner="olga", passphrase=life.passphrase()) as workspace:
        life.bring_person(workspace, "server", ["server"])
    (folder / "stanch.toml").write_text(f"{(folder / 'stanch.toml').read_text()}\n{MODEL}")
    (tmp_path / "phrase").write_text("the passphrase of server")
    (tmp_path / "phrase").chmod(0o600)
    keys = folder / ".stanch/keys"
    for path in [path for path in keys.rglob("*") if path.is_file()]:
        if str(path.relative_to(keys)) not in GATEWAYS:
            path.unlink()
    acting = ("--workspace", folder, "--as", "server", "--passphrase-file", tmp_path / "phrase")
    shown = stanch(*acting, "serve", "--gateway-only", "--check", "--json")
    assert (shown.code, shown.json["data"]["parts"]) == (0, ["gateway"])
    with Workspace.open(folder, principal="server", unlock=lambda: secret) as workspace:
        assert len(workspace.keys.publics("publisher")) == 1
    for words in (
        ("access", "add", "mallory"),
        ("key", "rotate", "log"),
        ("log", "show"),
        ("access", "policy", "show"),
    ):
        shown = stanch(*acting, *words, "--json")
        assert (shown.code, shown.json["error"]["slug"]) == (3, "not-permitted"), words
    (log,) = [check for check in examine(folder) if check.name == "keys" and check.state is not State.OK]
    assert (log.state, "publisher, case" in log.found) == (State.WARNING, True)
