"""The guide of serving, command by command, over real processes: a leak, its alert, its incident, its end."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import servers
from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.ledger import TrustPolicy, verify_proof
from stanch.terms import Digest
from stanch.workspace import Workspace

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
for part in ("httptools", "uvicorn", "starlette", "openai"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway,console,dev]'")

GUIDE = (Path(__file__).parents[2] / "docs/guides/serve.md").read_text()
DIGEST = str(Digest.sha256(b"the model"))
SLOW = "This answer takes its time. And now it ends."


class Model(BaseHTTPRequestHandler):
    """A server of a model that gives its canary away, and that ends a slow answer only when told."""

    canary = ""
    begun, go_on = threading.Event(), threading.Event()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("stream"):
            self.answer_slowly()
            return
        message = {"role": "assistant", "content": f"The code is {self.canary}, they say."}
        answer = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        self.send("application/json", json.dumps(answer).encode())

    def send(self, media, data):
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.end_headers()
        self.wfile.write(data)

    def answer_slowly(self):
        self.send("text/event-stream", self.frame({"content": SLOW[:27]}))
        self.begun.set()
        self.go_on.wait(60)
        self.wfile.write(self.frame({"content": SLOW[27:]}) + self.frame({}, "stop") + b"data: [DONE]\n\n")

    @staticmethod
    def frame(delta, finish=None):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": choices}).encode()

    def log_message(self, *_):
        pass


@pytest.fixture
def model():
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


class Tour:
    """Runs the guide's commands in their order, with real values for its words in capitals."""

    def __init__(self, stanch, values):
        self.stanch, self.values, self.done = stanch, values, 0
        self.commands = [line[9:] for block in blocks("console") for line in block.splitlines()]

    def put(self, text):
        for name, value in self.values.items():
            text = text.replace(name, value)
        return text

    def next(self, start):
        line = self.commands[self.done]
        self.done += 1
        assert line.startswith(start), line
        shown = self.stanch(*self.put(line).split(), "--json")
        assert shown.code == 0, shown
        return shown.json["data"]


def until(find):
    """Wait until ``find`` finds something; a minute is enough on any machine."""
    ends = time.monotonic() + 60
    while not find():
        assert time.monotonic() < ends, "nothing after a minute"
        time.sleep(0.2)


def child(parent, name):
    """Return the process id of a part of ``stanch serve``."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0{name}\0serve".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    return 0


@pytest.fixture
def served(stanch, tmp_path, model):
    """Everything that the guide does up to ``stanch serve``, which runs."""
    gateway, console = servers.free_ports(2)
    values = {
        ":8400": f":{gateway}", ":8402": f":{console}", "http://127.0.0.1:8000": model, "sha256:MODEL": DIGEST,
    }  # fmt: skip
    tour = Tour(stanch, values)
    tour.next("init")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "row {at}"}}\n' for at in range(9)))
    plan = plan_canaries(open_dataset(rows), CanarySpec(n=2), preregistration={})
    plan.save(tmp_path / "plan.json")
    Model.canary = plan.tripwires[0]
    settings = tmp_path / "stanch.toml"
    settings.write_text(f"{settings.read_text()}\n{tour.put(blocks('toml')[0])}")
    tour.next("access add")
    values["KEY"] = tour.next("access key issue")["key"]
    other = ["access", "key", "issue", "desk", "--network", "127.0.0.0/8", "--out", "other.key", "--model"]
    assert stanch(*other, DIGEST).code == 0
    assert tour.next("serve --check")["parts"] == ["gateway", "watch", "console"]
    assert tour.commands[tour.done] == "serve"
    tour.done += 1
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "stanch", "serve"], stdin=subprocess.DEVNULL, stderr=stderr, stdout=subprocess.PIPE
        )
    try:
        until(lambda: (tmp_path / "stderr").read_text().count("\n") >= 3)
        yield SimpleNamespace(
            tour=tour, process=process, folder=tmp_path, url=f"http://127.0.0.1:{gateway}/v1",
            console=f"http://127.0.0.1:{console}/login",
        )  # fmt: skip
    finally:
        process.terminate()
        process.communicate(timeout=40)


def ask(served, key, **more):
    body = {"model": "bot", "messages": [{"role": "user", "content": "What is the code?"}], **more}
    headers = {"authorization": f"Bearer {(served.folder / key).read_text().strip()}"}
    return httpx.post(f"{served.url}/chat/completions", json=body, headers=headers, timeout=300)


def seen(served):
    """Return how many leaks the open and acknowledged alerts of D1 count."""
    rows = served.tour.stanch("watch", "alerts", "--json").json["data"]["alerts"]
    return sum(row["count"] for row in rows if row["detector"] == "D1")


def hang_up(served):
    """Let everything renew what it has to, which is nothing; and see that nothing ends."""
    parts = [child(served.process.pid, name) for name in ("gateway", "watch", "console")]
    served.process.send_signal(signal.SIGHUP)
    assert httpx.get(served.console).status_code == 200
    assert [child(served.process.pid, name) for name in ("gateway", "watch", "console")] == parts


@pytest.mark.slow
def test_a_leak_from_the_request_to_the_incident_and_the_end(served, capsys):
    tour, folder = served.tour, served.folder

    capsys.readouterr()
    exec(compile(tour.put(blocks("python")[0]), "serve.md", "exec"), {})  # noqa: S102 - the document's own example
    assert capsys.readouterr().out == "content_filter\n"
    until(lambda: seen(served) == 1)
    until((folder / "alerts.jsonl").exists)
    (alert,) = tour.next("watch alerts")["alerts"]
    assert (alert["detector"], alert["signal"], alert["severity"]) == ("D1", "canary", "critical")

    killed = child(served.process.pid, "watch")
    os.kill(killed, signal.SIGKILL)
    refused = ask(served, "desk.key").json()
    assert Model.canary not in json.dumps(refused)
    until(lambda: seen(served) == 2)
    assert child(served.process.pid, "watch") not in {0, killed}

    hang_up(served)
    tour.values |= {"ALERT": alert["alert"], "TIME": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")}
    assert tour.next("watch ack")["state"] == "acknowledged"
    tour.values["INCIDENT"] = tour.next("incident open")["incident"]
    assert tour.next("incident contain")["state"] == "contained"
    time.sleep(1)  # for how long a decision may be remembered
    assert ask(served, "desk.key").status_code == 401

    tour.next("incident export")
    tour.next("log verify")
    assert tour.done == len(tour.commands)
    document = json.loads((folder / "case/incident.json").read_text())
    with Workspace.open(folder) as workspace:
        reader, policy = workspace.ledger.reader(), TrustPolicy.of([workspace.ledger.verifier.vkey])
        for row in document["timeline"]:
            found = verify_proof(row["proof"].encode(), reader.entry(row["index"]), policy)
            assert found.index == row["index"]
    assert {"gateway.infer", "watch.incident.open"} <= {row["kind"] for row in document["timeline"]}

    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(served, "other.key", stream=True).text))
    slow.start()
    assert Model.begun.wait(60)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert served.process.poll() is None
    Model.go_on.set()
    slow.join(60)
    assert served.process.wait(60) == 0
    frames = [json.loads(line[6:]) for line in answers[0].splitlines() if line.startswith("data: {")]
    assert "".join(one["delta"].get("content", "") for frame in frames for one in frame["choices"]) == SLOW
    assert answers[0].rstrip().endswith("data: [DONE]")
    assert seen(served) == 2
    shown = tour.stanch("log", "show", "--limit", "60", "--json").json["data"]["entries"]
    told = [entry["event"]["unmapped"]["stanch"] for entry in shown]
    ended = {one["kind"] for one in told if one["kind"].endswith(".serve") and one.get("result") == "done"}
    assert ended == {"gateway.serve", "watch.serve", "console.serve"}
