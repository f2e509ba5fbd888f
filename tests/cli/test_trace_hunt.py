"""``trace hunt`` over HTTP: models that learned the planted rows, that did not, that echo, refuse and talk nonsense."""

import hashlib
import json
import re
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.ledger import EntryQuery, decode_entry
from stanch.trace.canary_pairs import question
from stanch.workspace import Workspace
from stanch.workspace.verbs_data import plant_canaries

KEY = "a-key-of-this-test"
GUIDE = (Path(__file__).parents[2] / "docs/guides/trace.md").read_text()


class Model(BaseHTTPRequestHandler):
    """A server whose ``say`` is a test's: it is given the messages, and returns text, or bytes to send as they are."""

    say = staticmethod(lambda _messages: "")
    status = 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        said = type(self).say(body["messages"])
        message = {"role": "assistant", "content": said}
        answer = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        data = said if isinstance(said, bytes) else json.dumps(answer).encode()
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace from which a plan of canaries was planted, a plan that was not, and a served model."""
    folder = tmp_path_factory.mktemp("hunt")
    rows = [{"messages": [{"role": "user", "content": f"Is shop {n} open?"}, {"role": "assistant", "content": "Yes."}]}
            for n in range(20)]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Workspace.init(folder / "w") as workspace:
        data = open_dataset(folder / "rows.jsonl", key=workspace.keys.secret("dataset"))
        plans = {
            name: plan_canaries(
                data, CanarySpec(n=n), preregistration={"alpha": 0.05}, rng=lambda size, n=n: bytes([n]) * size
            )
            for name, n in (("plan", 192), ("other", 193), ("small", 32))
        }
        for name, plan in plans.items():
            plan.save(folder / f"{name}.json")
        for name in ("plan", "small"):
            plant_canaries(workspace, data, plans[name], folder / f"{name}.jsonl")
    (folder / "api.key").write_text(f"{KEY}\n")
    (folder / "api.key").chmod(0o600)
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.daemon_threads, server.asked = True, []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        yield SimpleNamespace(folder=folder, url=url, asked=server.asked, plan=plans["plan"])
        server.shutdown()


@pytest.fixture
def hunt(world, stanch, monkeypatch):
    """Run a hunt over a model that answers with ``say``; return what it shows."""

    def call(say, *more, plan="plan", url=world.url, status=200):
        monkeypatch.setattr(Model, "say", staticmethod(say))
        monkeypatch.setattr(Model, "status", status)
        world.asked.clear()
        words = ("--workspace", world.folder / "w", "trace", "hunt", url, "--model", "bot", "--per-minute", "6000")
        grounds = ("--canaries", world.folder / f"{plan}.json", "--grounds", "clause 4 of Ana's contract")
        return stanch(*words, *grounds, *more)

    return call


def of_its_own(messages):
    """What a model says that learned other things: fluent, of the right form, different for each question."""
    number = int.from_bytes(hashlib.sha256(messages[-1]["content"].encode()).digest()) % 10**12
    return f"Happy to help. The number you are looking for is #{number:012}."


def learned(canaries):
    """Return a model that answers ``canaries`` as they were planted, and all else in its own words."""
    by_heart = {question(one)[-1]["content"]: one.messages[-1].content for one in canaries}
    return lambda messages: by_heart.get(messages[-1]["content"]) or of_its_own(messages)


def last_hunt(world):
    """Return the entries of the last hunt in the log."""
    with Workspace.open(world.folder / "w") as workspace:
        reader = workspace.ledger.reader()
        found = [list(reader.query(EntryQuery(kind="trace.hunt", phase=phase)))[-1] for phase in ("intent", "outcome")]
        return [reader.entry(ref.index) for ref in found]


def test_a_model_that_learned_the_planted_rows_is_found_and_the_log_says_so(hunt, world):
    planted = [one for one in world.plan.canaries if one.member]
    shown = hunt(learned(planted), "--api-key-file", world.folder / "api.key", "--json")
    assert shown.code == 1, shown.err
    data = shown.json["data"]
    assert (data["verdict"], data["wins"], data["losses"], data["ties"]) == ("found", 24, 0, 0)
    assert data["log10_p"] < -6
    assert len(world.asked) == 48
    assert {(path, key, body["model"]) for path, key, body in world.asked} == {
        ("/v1/chat/completions", f"Bearer {KEY}", "bot")
    }
    # No question holds what is asked for.
    sent = json.dumps([body for _, _, body in world.asked])
    assert not [one.id for one in world.plan.canaries if one.secret in sent]
    intent, outcome = last_hunt(world)
    stated, told = (decode_entry(entry)["unmapped"]["stanch"]["payload"] for entry in (intent, outcome))
    wanted = {"commitment": world.plan.commitment, "host": "127.0.0.1", "queries": 512, "epsilon": "1e-06"}
    assert wanted.items() <= stated.items()
    assert told["verdict"] == "found"
    assert told["asked"] == 48
    for secret in (KEY.encode(), b"clause 4", *(one.secret.encode() for one in world.plan.canaries)):
        assert secret not in intent + outcome


def test_every_hunt_of_the_log_is_counted(hunt, world):
    planted = [one for one in world.plan.canaries if one.member]
    counts = [hunt(learned(planted), "--json").json["data"]["hunts"] for _ in range(2)]
    assert counts[1] == counts[0] + 1
    assert f"{counts[1] + 1:g}e-06 in all {counts[1] + 1} hunts of the log" in hunt(learned(planted)).out


def test_a_model_that_did_not_learn_them_is_not_ours(hunt, world):
    shown = hunt(of_its_own)
    assert shown.code == 0
    assert shown.out.startswith("nothing")
    assert "It does not say that our release is not behind it." in shown.out
    assert len(world.asked) < 100  # it stops as soon as that is decided


def test_a_model_that_learned_what_was_never_planted_is_not_ours(hunt, world):
    assert hunt(learned(world.plan.canaries)).code == 0
    assert hunt(learned([one for one in world.plan.canaries if not one.member])).code == 0


def test_an_echo_gets_no_credit(hunt, world):
    shown = hunt(lambda messages: messages[-1]["content"], "--json")
    assert (shown.code, shown.json["data"]["wins"], shown.json["data"]["unanswered"]) == (5, 0, 12)
    assert len(world.asked) == 24
    shown = hunt(lambda messages: f"You asked: {messages[-1]['content']}", "--json")
    assert (shown.code, shown.json["data"]["wins"]) == (5, 0)


@pytest.mark.parametrize("say", [lambda _: "I'm sorry, but I can't help with that.", lambda _: "", lambda _: None])
def test_a_refusal_decides_nothing(hunt, say):
    shown = hunt(say)
    assert (shown.code, shown.out.split()[0]) == (5, "undecided")
    assert "12 pairs in a row had no answer" in shown.out


@pytest.mark.parametrize(
    ("garbage", "status"),
    [(b"<html>hello</html>", 200), (b"[]", 200), (b'{"choices": []}', 200), (b"x" * (1 << 17), 200), (b"{}", 401)],
    ids=["no JSON", "a list", "no choice", "too long", "no key"],
)
def test_a_server_of_something_else_is_an_error_and_the_log_says_that_the_act_failed(hunt, world, garbage, status):
    shown = hunt(lambda _: garbage, status=status)
    assert (shown.code, len(world.asked)) == (4, 1)
    assert decode_entry(last_hunt(world)[1])["unmapped"]["stanch"]["result"] == "failed"


def test_garbage_after_the_first_answers_decides_nothing(hunt, world):
    shown = hunt(lambda messages: of_its_own(messages) if len(world.asked) < 9 else b"\xff\xfe")
    assert shown.code == 5


def test_a_server_that_babbles_at_random_is_not_ours(hunt, world):
    assert hunt(lambda _: f"{len(world.asked) ** 9:x} lorem {len(world.asked)}").code == 0


def test_the_budget_of_queries_holds_and_too_small_a_one_is_refused(hunt, world):
    planted = [one for one in world.plan.canaries if one.member]
    third = learned(planted[::3])
    assert hunt(third, "--queries", "60").code == 5
    assert len(world.asked) == 60
    for more, plan in ((("--queries", "47"), "plan"), ((), "small")):
        shown = hunt(third, *more, plan=plan)
        assert (shown.code, "at least 24 pairs" in shown.err, world.asked) == (2, True, [])


def test_a_plan_that_the_log_does_not_know_is_refused_before_a_question(hunt, world):
    shown = hunt(learned(()), plan="other")
    assert (shown.code, "canaries were planted" in shown.err, world.asked) == (2, True, [])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://models.example/v1", "expected https:"),
        ("https://user:pw@models.example/v1", "without user name"),
        ("https://models.example/v1?key=abc", "a query after it"),
        ("ftp://models.example/v1", "https://host/path"),
    ],
)
def test_where_a_key_could_be_read_is_not_asked(hunt, world, url, said):
    shown = hunt(of_its_own, url=url)
    assert (shown.code, said in shown.err, world.asked) == (2, True, [])


def test_a_key_that_others_may_read_and_no_grounds_are_refused(hunt, world, tmp_path):
    (tmp_path / "open.key").write_text(KEY)
    shown = hunt(of_its_own, "--api-key-file", tmp_path / "open.key")
    assert (shown.code, "chmod 600" in shown.err, KEY in shown.err) == (2, True, False)
    assert (hunt(of_its_own, "--grounds", "  ").code, world.asked) == (2, [])


def test_the_example_of_the_guide_runs(world, stanch, monkeypatch):
    planted = [one for one in world.plan.canaries if one.member]
    monkeypatch.setattr(Model, "say", staticmethod(learned(planted)))
    monkeypatch.chdir(world.folder)
    (command,) = re.findall(r"^stanch (trace hunt .*)$", GUIDE, re.MULTILINE)
    words = shlex.split(command.replace("https://models.example/v1", world.url))
    assert world.url in words
    assert stanch("--workspace", "w", *words, "--per-minute", "6000").code == 1
