"""The process that watches gateway and console: it starts what dies again, gives up in time, and ends all."""

import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from stanch.cli import serve
from stanch.cli.serve import Child, supervise
from stanch.errors import StanchError


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


def wait_for(condition, seconds=20):
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


@pytest.mark.parametrize("code", [2, 3, 4])
def test_settings_that_are_wrong_are_not_tried_again(code):
    assert supervise([child(f"raise SystemExit({code})")], threading.Event()) == code


def test_a_child_that_does_not_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(serve, "DRAIN_SECONDS", 0.3)
    mark, stop = tmp_path / "mark", threading.Event()
    deaf = child(
        f"import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(mark)!r},'w'); time.sleep(60)"
    )
    threading.Thread(target=lambda: (wait_for(mark.exists), stop.set())).start()
    assert supervise([deaf], stop) == 0
    assert deaf.process.poll() == -signal.SIGKILL


def test_the_console_is_served_and_its_end_is_recorded(stanch, files):
    settings = files.w / "stanch.toml"
    settings.write_text(f'{settings.read_text()}\n[console]\nlisten = "127.0.0.1:48402"\n')
    words = [sys.executable, "-m", "stanch", "--workspace", str(files.w), "serve", "--console-only"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline() == "serving    http://127.0.0.1:48402/\n"
        with urllib.request.urlopen("http://127.0.0.1:48402/login", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.endswith("ended\n")
    shown = stanch("--workspace", files.w, "log", "show", "--kind", "console.serve", "--json")
    told = [entry["event"]["unmapped"]["stanch"].get("result") for entry in shown.json["data"]["entries"]]
    assert "done" in told
