"""``audit run`` on a sealed bundle and on a served model, and what goes together on its command line."""

import json
import shlex
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stanch.cli.frame import Frame
from stanch.cli.watch_serve import checks_of, judge
from stanch.crypto.identity import generate_identity
from stanch.ledger import EntryQuery, decode_entry
from stanch.seal import SealParams, seal
from stanch.sign import sign_manifest
from stanch.terms import Verdict
from stanch.weights import directory_digest
from stanch.workspace import Workspace
from stanch.workspace.schedule import do_check, last_done
from stanch.workspace.verbs_check import CheckState

WORDS = [f"w{n}" for n in range(40)]
QUICK = ("--values", "0", "--rows", "4")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace, a model of one layer, its sealed copy, a key that opens it, and rows of text."""
    folder = tmp_path_factory.mktemp("targets")
    torch.manual_seed(0)
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<e>", *WORDS])}, unk_token="<e>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    config = LlamaConfig(
        vocab_size=41, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>").save_pretrained(folder / "model")
    rows = [" ".join(WORDS[(n * k + k) % 40] for k in range(40)) for n in range(1, 5)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    identity = generate_identity()
    identity.save(folder / "id.key")
    with Workspace.init(folder / "w") as workspace:
        signer = workspace.keys.signer("publisher")
        params = SealParams(kind="model", lineage="acme/bot", release_number=1)
        sealed = folder / "sealed"
        seal(
            folder / "model", sealed, [identity.recipient], params, lambda data: sign_manifest(data, signer).to_bytes()
        )
    return folder


def read(path):
    return json.loads(path.read_text())


def stanch_line(out):
    """The words of the command that the last line of ``out`` names."""
    return shlex.split(out.splitlines()[-1].partition(" stanch ")[2])


def test_a_sealed_model_gets_the_report_and_certificate_of_its_folder(stanch, world, tmp_path):
    words = ("--workspace", world / "w", "audit", "run")
    more = ("--data", world / "rows.jsonl", *QUICK, "--out")
    plain_shown = stanch(*words, world / "model", *more, tmp_path / "plain")
    assert plain_shown.code == 5
    shown = stanch(*words, world / "sealed", "--identity", world / "id.key", *more, tmp_path / "report")
    assert shown.code == 5, shown.err
    plain, sealed = read(tmp_path / "plain/report.json"), read(tmp_path / "report/report.json")
    assert sealed["model"] == plain["model"]
    assert sealed["model"]["digest"] == f"sha256:{directory_digest(world / 'model').root.hex}"
    assert sealed["scores_digest"] == plain["scores_digest"]
    assert not list(tmp_path.rglob("*.safetensors"))
    # The certificate holds for the files that the recipient opens; and the printed lines lead to the gate.
    plain_line = stanch_line(plain_shown.out)
    sealed_line = stanch_line(shown.out)
    assert plain_line == ["audit", "gate", str(world / "model"), "--cert", str(tmp_path / "plain/leakcert.json")]
    assert sealed_line[:3] == ["audit", "gate", "FOLDER"]
    sealed_line[2] = world / "model"
    for line in (plain_line, sealed_line):
        asked = stanch("--workspace", world / "w", *line)
        assert (asked.code, asked.out.startswith("UNDECIDED")) == (5, True), asked.err
        assert "pass          model_digest" in asked.out


def test_a_bundle_needs_a_key_and_a_publisher_that_is_trusted(stanch, world, template, tmp_path):
    words = ("--workspace", world / "w", "audit", "run", world / "sealed", "--data", world / "rows.jsonl")
    refused = stanch(*words, "--out", tmp_path / "a")
    assert (refused.code, "--identity" in refused.err) == (2, True)
    identity = ("--identity", world / "id.key")
    strange = stanch(*words, *identity, "--trust", template.folder / "other.pub.pem", "--out", tmp_path / "a")
    assert strange.code == 1
    other = stanch(*words, "--identity", template.folder / "acme.key", "--out", tmp_path / "a")
    assert other.code == 1
    assert not (tmp_path / "a").exists()


@pytest.fixture
def server(world):
    """A server that runs the model and answers ``/completions`` to who knows the key."""
    model = LlamaForCausalLM.from_pretrained(world / "model").eval()
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body["model"], self.headers["Authorization"]))
            data = json.dumps({"choices": [choice(n, ids) for n, ids in enumerate(body["prompt"])]}).encode()
            self.send_response(200 if self.headers["Authorization"] == "Bearer the-key" else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    @torch.no_grad()
    def choice(index, ids):
        found = model(torch.tensor([ids])).logits[0].log_softmax(1)
        own = [None] + [float(found[n - 1, ids[n]]) for n in range(1, len(ids))]
        tops = [None] + [{"best": float(found[n - 1].max())} for n in range(1, len(ids))]
        return {"index": index, "text": "", "logprobs": {"token_logprobs": own, "top_logprobs": tops}}

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1", asked
        http.shutdown()
        thread.join()


def test_a_served_model_is_audited_without_a_certificate(stanch, world, server, tmp_path):
    url, asked = server
    (tmp_path / "key").write_text("the-key\n")
    (tmp_path / "key").chmod(0o600)
    words = (
        "--workspace", world / "w", "audit", "run", world / "model", "--data", world / "rows.jsonl", *QUICK,
        "--base", world / "model", "--endpoint", url, "--model", "bot", "--api-key-file", tmp_path / "key",
    )  # fmt: skip
    shown = stanch(*words, "--out", tmp_path / "report")
    assert shown.code == 5, shown.err
    assert "no certificate" in shown.out
    assert "the-key" not in shown.out + shown.err
    assert set(asked) == {("bot", "Bearer the-key")}
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json", "scores.csv"]
    report = read(tmp_path / "report/report.json")
    assert report["model"] is None
    assert report["extraction"]["rows"]["attributable"] == 0
    (tmp_path / "key").chmod(0o644)
    assert stanch(*words, "--out", tmp_path / "again").code == 2
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_text("\n")
    assert stanch(*words, "--out", tmp_path / "again").code == 2
    (tmp_path / "key").write_text("another")
    assert "status 401" in stanch(*words, "--out", tmp_path / "again").err
    assert not (tmp_path / "again").exists()


GATEWAY = """
[[gateway.models]]
name = "bot"
digest = "{digest}"
upstream = "{upstream}"
upstream_name = "bot-on-the-server"
require_certificate = "leakcert.json"

[[watch.audits]]
name = "bot"
gateway = "bot"
model = "{model}"
data = "{data}"
api_key_file = "key"
"""


@pytest.fixture
def gateway(stanch, world, server, tmp_path):
    """The workspace with settings that serve the model, whose certificate says INCONCLUSIVE, and audit it again."""
    folder, settings = world / "w", world / "w" / "stanch.toml"
    words = ("--workspace", folder, "audit", "run", world / "model", "--data", world / "rows.jsonl", *QUICK)
    assert stanch(*words, "--out", tmp_path / "first").code == 5
    shutil.copyfile(tmp_path / "first/leakcert.json", folder / "leakcert.json")
    (folder / "key").write_text("the-key\n")
    (folder / "key").chmod(0o600)
    plain = settings.read_text()
    settings.write_text(plain + GATEWAY.format(
        digest=directory_digest(world / "model").root, upstream=server[0].removesuffix("/v1"),
        model=world / "model", data=world / "rows.jsonl",
    ))  # fmt: skip
    yield folder
    settings.write_text(plain)


def test_the_watch_audits_a_model_of_the_gateway_against_its_certificate(stanch, gateway, world, server, monkeypatch):
    # The audit's own words, though not in a process of its own: loading torch again would take long.
    monkeypatch.setattr("stanch.cli.watch_serve.end_of", lambda command, *_: stanch(*command[3:], *QUICK).code)
    frame = Frame()
    frame.workspace = gateway
    digest = str(directory_digest(world / "model").root)
    with Workspace.open(gateway) as workspace:
        (check,) = checks_of(workspace, frame, threading.Event())[1:]
        assert (check.name, check.model) == ("audit of bot", digest)
        assert do_check(workspace, check) is None
        reader = workspace.ledger.reader()
        refs = [*reader.query(EntryQuery(kind="audit.run", phase="outcome"))]
        audited, done = (
            decode_entry(reader.entry(index))["unmapped"]["stanch"]
            for index in (refs[-1].index, last_done(workspace, check).entry)
        )
        # In the log it is the model that the gateway serves, though only its server was seen.
        assert audited["subject"] == [{"digest": digest, "kind": "model", "name": "bot"}]
        assert "certificate" not in audited["payload"]
        assert done["payload"]["found"] == "inconclusive, inconclusive is allowed"
        assert set(server[1]) == {("bot-on-the-server", "Bearer the-key")}

        (report,) = (workspace.state / "audits").iterdir()
        assert judge(5, report, Verdict.NO_LEAK_DETECTED).state is CheckState.BAD
        assert judge(5, report, Verdict.LEAK_PROVEN).state is CheckState.GOOD
        (gateway / "leakcert.json").write_text("{}")
        alarm = do_check(workspace, check)
        assert (alarm.model, alarm.severity, alarm.signal.startswith("audit of bot: ")) == (digest, "high", True)
        assert "not a leak certificate" in alarm.signal
        assert len([*reader.query(EntryQuery(kind="audit.run", phase="outcome"))]) == len(refs)


def test_a_name_that_the_gateway_does_not_serve_is_refused(stanch, gateway, world, tmp_path):
    words = ("--workspace", gateway, "audit", "run", world / "model", "--data", world / "rows.jsonl", *QUICK)
    refused = stanch(*words, "--gateway", "other", "--out", tmp_path / "a")
    assert (refused.code, "none has the name 'other'" in refused.err) == (2, True)
