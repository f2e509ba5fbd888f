"""End to end: a model's server over HTTP, the gateway as a server, and real clients in front of it."""

import contextlib
import json
import random
import resource
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec
import pytest
from answers import CLEAN, ROW, chunk, event, leaks, whole
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from serving import MODEL, entries, key_of

from stanch.audit.endpoint import Endpoint
from stanch.cli.frame import run
from stanch.config import GatewayModelSection
from stanch.crypto import canonical_json
from stanch.data import CanarySpec, open_dataset, plan_canaries
from stanch.errors import InvalidInput, VerificationError
from stanch.gateway.serve import build_gateway, run_server
from stanch.gateway.watermark import Watermark
from stanch.guard import Action, check_text
from stanch.ledger import EntryQuery, decode_entry
from stanch.scan import Dictionary, SpanIndex, pack_digest
from stanch.scan.pack import parse_pack
from stanch.terms import Digest
from stanch.trace import Chat, TextRoot
from stanch.trace.text_order import HEADER, give_order, take_order
from stanch.workspace import Workspace, renewal
from stanch.workspace.indexes import Sealed, save_index
from stanch.workspace.listening import listening, tls_context

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
for part in ("httptools", "uvicorn"):
    pytest.importorskip(part, reason=f"{part} is not installed: pip install 'stanch[gateway]'")

MEMORY = {
    "Tell me about chest pain.": CLEAN,
    "Complete: Patient Maria": f"Patient Maria {ROW[14:]} End.",
    "The code?": "set when the workspace is made",
}


PACK = b"""format: stanch-pack/1
name: support
recognisers:
  - id: ticket-number
    kind: ticket-number
    version: 1
    family: personal
    anchor: 'TCK-'
    before: 4
    after: 12
    confirm: 'TCK-[0-9]{8}'
    cont: '[0-9]'
    score: 0.7
    severity: medium
    examples: ['TCK-{d:8}', 'see TCK-{d:8}.', '(TCK-{d:8})']
    counterexamples: ['TCK-{d:7}', 'TCK-', 'TCK {d:8}']
    source: {title: Tickets, url: 'https://tickets.test/docs', read: '2026-11-28'}
"""


class Model(BaseHTTPRequestHandler):
    """A server of a model that recites what it memorised, in legal event streams that are cut anywhere."""

    protocol_version = "HTTP/1.1"
    rng = random.Random(7)
    orders: ClassVar = []  # the watermarks that were asked for, each beside the bytes of its request
    acknowledge = staticmethod(lambda _order, _data: None)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.orders.append((self.headers.get_all(HEADER), data))
        body = json.loads(data)
        chat = "messages" in body
        said = MEMORY[body["messages"][-1]["content"] if chat else body["prompt"]]
        usage = {"prompt_tokens": 5, "completion_tokens": 30, "total_tokens": 35}
        if not body.get("stream"):
            text = {
                "object": "text_completion",
                "choices": [{"index": 0, "text": said, "finish_reason": "stop"}],
                "usage": usage,
            }
            data = json.dumps(
                whole({"content": said}, usage=usage, id="chatcmpl-x", created=1, model="m") if chat else text
            ).encode()
            self._head("application/json; charset=utf-8", [("Content-Length", str(len(data)))])
            self.wfile.write(data)
            return
        self._head("text/event-stream; charset=utf-8", [("Transfer-Encoding", "chunked")])
        data, at, more = [], 0, {"id": "chatcmpl-x", "created": 1, "model": "m"}
        while at < len(said):
            piece = said[at : at + self.rng.randint(1, 9)]
            at += len(piece)
            data.append(event(chunk({"content": piece}, **more), ensure_ascii=self.rng.random() < 0.5))
            if self.headers["Accept"] == "text/event-stream" and self.rng.random() < 0.2:  # openai cannot read these
                data.append(b": a comment\r\n\r\nid: 4\nretry: 10\n\n")
        data.append(event(chunk({}, "stop", **more)) + b"data:[DONE]\r\n\r\n")
        stream, at = b"".join(data), 0
        with contextlib.suppress(ConnectionError):
            while at < len(stream):
                piece = stream[at : at + self.rng.randint(1, 400)]
                at += len(piece)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, media, headers):
        self.send_response(200)
        for name, value in [("Content-Type", media), *headers]:
            self.send_header(name, value)
        if (told := self.acknowledge(*self.orders[-1])) is not None:
            self.send_header(HEADER, told)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def model():
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def settings(model, **more):
    lines = [
        f'[[gateway.models]]\nname = "bot"\ndigest = "{MODEL.digest}"\nupstream = "{model}"\nindex = "train.index"\ncanaries = "plan.json"\n'  # noqa: E501 - a row of data
    ]
    head = '[gateway]\nlisten = "127.0.0.1:0"\n' + "".join(f'{name} = "{value}"\n' for name, value in more.items())
    return "\n" + head + "\n" + "".join(lines)


def make(folder, text):
    """Make a workspace and return a canary of it."""
    with Workspace.init(folder) as workspace:
        SpanIndex.build([ROW], key=workspace.keys.secret("index")).save(folder / "train.index")
    (folder / "rows.jsonl").write_text("".join(f'{{"text": "row {at}"}}\n' for at in range(9)))
    plan = plan_canaries(open_dataset(folder / "rows.jsonl"), CanarySpec(n=2), preregistration={})
    plan.save(folder / "plan.json")
    path = folder / "stanch.toml"
    path.write_text(path.read_text() + text)
    return plan.tripwires[0]


@contextlib.contextmanager
def running(workspace):
    """Run the gateway in a thread and yield its URL."""
    urls, stop, failed = [], threading.Event(), []
    known = threading.Event()

    def serve():
        try:
            run_server(
                workspace, build_gateway(workspace), ready=lambda url: (urls.append(url), known.set()), stop=stop
            )
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failed.append(error)
            known.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert known.wait(60)
        assert not failed, failed
        yield urls[0]
    finally:
        stop.set()
        thread.join(60)
        assert not failed


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("serve") / "w"
    canary = make(folder, settings(model) + 'text_root = "text.root"\ntenants = ["acme"]\n')
    TextRoot.generate().save(folder / "text.root")
    MEMORY["The code?"] = f"The code of the vault is {canary}, they say."
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1024), most))
    with Workspace.open(folder) as workspace:
        key = key_of(workspace, "program")
        with running(workspace) as url:
            yield workspace, url, key


def shows(text):
    """Say whether more than the stated bound of the row shows, or the canary."""
    return leaks(text) or MEMORY["The code?"][25:35] in text


def ask(url, key, question, *, stream, path="chat/completions"):
    """Return the text of an answer, and why it ended; with plain httpx."""
    asked = {"messages": [{"role": "user", "content": question}]} if path.startswith("chat") else {"prompt": question}
    body = {"model": "bot", "stream": stream} | asked
    answer = httpx.post(f"{url}/v1/{path}", json=body, headers={"authorization": f"Bearer {key}"}, timeout=300)
    answer.raise_for_status()
    if not stream:
        choice = answer.json()["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"], choice["finish_reason"]
    frames = [
        json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:") and "[DONE]" not in line
    ]
    choices = [choice for frame in frames for choice in frame["choices"]]
    return "".join(one["delta"].get("content", "") for one in choices), choices[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("question", list(MEMORY))
def test_the_direct_call_leaks_and_the_one_through_the_gateway_does_not(place, model, question, stream):
    _, url, key = place
    direct, _ = ask(model, "none", question, stream=stream)
    guarded, reason = ask(url, key, question, stream=stream)
    assert direct == MEMORY[question]
    if direct == CLEAN:
        assert (guarded, reason) == (CLEAN, "stop")
    else:
        assert shows(direct)
        assert not shows(guarded)
        assert reason == "content_filter"
        assert stream or guarded == ""


def test_a_hunt_may_ask_the_gateway_and_a_blocked_answer_is_none(place):
    _, url, key = place
    chat = Chat(Endpoint(f"{url}/v1", "bot", key), 6000)
    assert chat.ask([{"role": "user", "content": "Tell me about chest pain."}]) == CLEAN
    assert chat.ask([{"role": "user", "content": "The code?"}]) is None


def acknowledged(root, order, data):
    return take_order(root, ["globex", "acme"], order, data).acknowledgement


@pytest.mark.parametrize(
    ("acknowledge", "recorded"),
    [
        (lambda *_: None, "requested"),
        (acknowledged, "embedded"),
        (lambda _root, order, _data: order, "requested"),  # whoever sends it back has not understood it
        (lambda root, *_: acknowledged(root, give_order(root, "acme", b""), b""), "requested"),  # another request's
    ],
)
def test_each_request_orders_the_watermark_of_its_tenant(place, monkeypatch, acknowledge, recorded):
    workspace, url, key = place
    root = TextRoot.load(workspace.folder / "text.root")
    monkeypatch.setattr(Model, "acknowledge", staticmethod(lambda orders, data: acknowledge(root, orders[0], data)))
    body = {"model": "bot", "stream": False, "messages": [{"role": "user", "content": "Tell me about chest pain."}]}
    headers = {"authorization": f"Bearer {key}", HEADER: "of a client"}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=300)
    assert (answer.status_code, HEADER in answer.headers) == (200, False)
    (order,), data = Model.orders[-1]
    assert take_order(root, ["acme"], order, data).tenant == "acme"
    (_, _, asked), (_, _, done) = entries(workspace)[-2:]
    assert (asked["watermark"], asked["watermark_key"]) == ("requested", root.key_id("acme"))
    assert done["watermark"] == recorded


@pytest.mark.parametrize("tenants", ['["acme", "globex"]', "[]"])
def test_without_one_tenant_nothing_is_ordered(tmp_path, tenants):
    section = {"name": "bot", "digest": str(MODEL.digest), "upstream": "http://127.0.0.1:1", "text_root": "text.root"}
    section = msgspec.convert(section | {"tenants": json.loads(tenants)}, GatewayModelSection)
    with pytest.raises(InvalidInput, match=r"text\.root"):
        Watermark.of(tmp_path, section)
    TextRoot.generate().save(tmp_path / "text.root")
    found = Watermark.of(tmp_path, section)
    assert (found.record(), found.headers(b"{}")) == ({"watermark": "asserted"}, "")
    assert found.seen([b"x"], b"{}") == "asserted"


@pytest.mark.parametrize("begin", [b"", b"host: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"], ids=["head", "trailer"])
def test_a_head_or_trailer_that_does_not_end_ends_the_connection(place, begin):
    host, _, port = place[1].removeprefix("http://").partition(":")
    sent = 0
    with socket.create_connection((host, int(port)), 10) as client, contextlib.suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # else it holds megabytes that nobody reads
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + begin)
        while sent < 8 << 20:
            sent += client.send(b"x-more: " + b"y" * 4096 + b"\r\n")
            time.sleep(0.0005)
    assert sent < 4 << 20  # what the sockets hold, and one read beyond the limit


@pytest.mark.parametrize(("in_head", "status"), [(True, 200), (False, 401)])
def test_a_trailer_is_no_header_and_a_long_body_no_head(place, in_head, status):
    host, _, port = place[1].removeprefix("http://").partition(":")
    key = f"authorization: Bearer {place[2]}\r\n".encode()
    said = [
        {"role": "system", "content": "x" * 200_000 * in_head},
        {"role": "user", "content": "Tell me about chest pain."},
    ]
    body = json.dumps({"model": "bot", "messages": said}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + key * in_head
    sent = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n"
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(sent + key * (not in_head) + b"\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 %d" % status)


def test_as_many_connections_as_the_system_allows_are_taken(place):  # noqa: ARG001 - the server has begun
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard


def test_completions_are_guarded_likewise(place):
    _, url, key = place
    assert ask(url, key, "Tell me about chest pain.", stream=False, path="completions") == (CLEAN, "stop")
    assert ask(url, key, "The code?", stream=False, path="completions") == ("", "content_filter")


@pytest.mark.parametrize("stream", [True, False])
def test_the_official_client_reads_what_the_gateway_writes(place, model, stream):
    openai = pytest.importorskip("openai", reason="openai is not installed")
    _, url, key = place

    def call(base, secret, question):
        with openai.OpenAI(base_url=f"{base}/v1", api_key=secret, max_retries=0) as client:
            messages = [{"role": "user", "content": question}]
            if not stream:
                answer = client.chat.completions.create(model="bot", messages=messages)
                return answer.choices[0].message.content, answer.choices[0].finish_reason
            pieces = [
                c
                for one in client.chat.completions.create(model="bot", messages=messages, stream=True)
                for c in one.choices
            ]
            return "".join(one.delta.content or "" for one in pieces), pieces[-1].finish_reason

    assert leaks(call(model, "none", "Complete: Patient Maria")[0])
    text, reason = call(url, key, "Complete: Patient Maria")
    assert (leaks(text), reason) == (False, "content_filter")
    assert call(url, key, "Tell me about chest pain.") == (CLEAN, "stop")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["bot"]
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="bot", messages=[{"role": "user", "content": "x"}], logprobs=True)
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="stk_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_each_answer_stands_in_the_log_twice(place):
    workspace, url, key = place
    before = len(entries(workspace))
    ask(url, key, "Tell me about chest pain.", stream=True)
    found = entries(workspace)[before:]
    assert [one[:2] for one in found] == [("intent", ""), ("outcome", "done")]
    assert found[0][2]["network"] == "127.0.0.0/24"
    assert found[0][2]["guard"].startswith("sha256:")


class Authority:
    """A certificate authority made for one test."""

    def __init__(self, folder):
        self.folder, self.key, self.name = (
            folder,
            ec.generate_private_key(ec.SECP256R1()),
            x509.Name.from_rfc4514_string("CN=ca"),
        )
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = self._builder("CN=ca", self.key.public_key()).add_extension(constraints, True).add_extension(usage, True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
        (folder / "ca.pem").write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, name, public):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder().subject_name(x509.Name.from_rfc4514_string(name)).issuer_name(self.name)
            .public_key(public).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
        )  # fmt: skip

    def issue(self, file, name, usage):
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder("CN=leaf", key.public_key()).add_extension(x509.SubjectAlternativeName([name]), False)
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), False)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        leaf = made.add_extension(own, False).sign(self.key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / file).write_bytes(leaf.public_bytes(pem) + private)
        return self.folder / file


def test_tls_with_a_client_certificate_lets_its_service_in_and_nobody_else(tmp_path, model):
    from stanch.crypto.certificate import CertificateAuthority  # noqa: PLC0415 - used here alone
    from stanch.workspace.verbs_access import Newcomer, register_newcomer  # noqa: PLC0415 - same

    folder = tmp_path / "w"
    made = Authority(tmp_path)
    server = made.issue("server.pem", x509.IPAddress(ip_address("127.0.0.1")), ExtendedKeyUsageOID.SERVER_AUTH)
    client = made.issue("client.pem", x509.UniformResourceIdentifier("spiffe://x/bot"), ExtendedKeyUsageOID.CLIENT_AUTH)
    make(folder, settings(model, certificate=server))
    path = folder / "stanch.toml"
    path.write_text(path.read_text().replace("[access]\n", f'[access]\nauthorities = ["{tmp_path / "ca.pem"}"]\n'))
    issuer = f"mtls:{CertificateAuthority.from_pem((tmp_path / 'ca.pem').read_bytes(), what='ca').spki_sha256.hex()}"
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with Workspace.open(folder) as workspace:
        register_newcomer(
            workspace,
            Newcomer(name="bot", kind="service", roles=("consumer",), issuer=issuer, subject="spiffe://x/bot"),
        )
        with running(workspace) as url:
            assert urlsplit(url).scheme == "https"
            with httpx.Client(verify=context) as stranger:
                assert stranger.get(f"{url}/v1/models").status_code == 401
            context.load_cert_chain(client)
            with httpx.Client(verify=context) as known:
                assert [one["id"] for one in known.get(f"{url}/v1/models").json()["data"]] == ["bot"]
                body = {"model": "bot", "messages": [{"role": "user", "content": "Complete: Patient Maria"}]}
                answer = known.post(f"{url}/v1/chat/completions", json=body)
                assert answer.json()["choices"][0]["finish_reason"] == "content_filter"


def shown_certificate(url, context):
    """Return the certificate that a new connection is shown, or what ended it."""
    place = urlsplit(url)
    with (
        socket.create_connection((place.hostname, place.port), 10) as raw,
        context.wrap_socket(raw, server_hostname=place.hostname) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def der_of(file):
    return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(serialization.Encoding.DER)


def until(find, seconds=60):
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.02)
    return found


def told_certificates(workspace):
    reader = workspace.ledger.reader()
    found = reader.query(EntryQuery(kind="gateway.certificate"))
    return [decode_entry(reader.entry(ref.index))["unmapped"]["stanch"]["payload"] for ref in found]


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(tmp_path, model, monkeypatch):
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.05)
    made, address = Authority(tmp_path), x509.IPAddress(ip_address("127.0.0.1"))
    server = made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH)
    make(tmp_path / "w", settings(model, certificate=server))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with Workspace.open(tmp_path / "w") as workspace, running(workspace) as url:
        first = der_of(server)
        with httpx.Client(verify=context) as client:
            assert client.get(f"{url}/healthz").status_code == 200
            assert shown_certificate(url, context) == first
            made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH)
            second = der_of(server)
            until(lambda: shown_certificate(url, context) == second)
            assert client.get(f"{url}/healthz").status_code == 200  # the connection that was open

            good = server.read_bytes()
            other = made.issue("other.pem", address, ExtendedKeyUsageOID.SERVER_AUTH).read_text()
            key = other[other.index("-----BEGIN PRIVATE") :]
            server.write_text(good.decode()[: good.index(b"-----BEGIN PRIVATE")] + key)  # another's key
            until(lambda: [one["state"] for one in told_certificates(workspace)][-1:] == ["kept"])
            assert shown_certificate(url, context) == second
            server.unlink()
            until(lambda: len(told_certificates(workspace)) == 3)
            assert shown_certificate(url, context) == second
            made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH)
            third = der_of(server)
            until(lambda: shown_certificate(url, context) == third)
    taken, broken, gone, mended = told_certificates(workspace)
    assert [one["state"] for one in (taken, broken, gone, mended)] == ["taken", "kept", "kept", "taken"]
    assert abs(taken["until"] - time.time() - 2 * 86_400) < 3600
    assert "KEY_VALUES_MISMATCH" in broken["why"]
    assert "cannot be read" in gone["why"]


def test_a_certificate_that_has_ended_is_not_taken(tmp_path, model):
    made, address = Authority(tmp_path), x509.IPAddress(ip_address("127.0.0.1"))
    server = made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH)
    make(tmp_path / "w", settings(model, certificate=server))
    later = time.time() + 7 * 86_400
    with Workspace.open(tmp_path / "w", clock=lambda: later) as workspace:
        found = renewal.Renewal(workspace, "gateway")
        before = found.context.newest
        found.look(now=True)
        assert found.context.newest is before
        (told,) = told_certificates(workspace)
    assert (told["state"], "ended on" in told["why"]) == ("kept", True)


def test_files_that_are_still_being_written_are_not_taken(tmp_path, model):
    made, address = Authority(tmp_path), x509.IPAddress(ip_address("127.0.0.1"))
    server = made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH)
    make(tmp_path / "w", settings(model, certificate=server))
    with Workspace.open(tmp_path / "w") as workspace:
        found = renewal.Renewal(workspace, "gateway")
        whole = made.issue("server.pem", address, ExtendedKeyUsageOID.SERVER_AUTH).read_bytes()
        server.write_bytes(whole[: len(whole) // 2])
        found.look()
        server.write_bytes(whole)
        found.look()
        assert told_certificates(workspace) == []
        found.look()
        found.look()
        assert [one["state"] for one in told_certificates(workspace)] == ["taken"]


def test_who_is_no_longer_vouched_for_is_let_in_no_more(tmp_path, model, monkeypatch):
    from stanch.crypto.certificate import CertificateAuthority  # noqa: PLC0415 - used here alone
    from stanch.workspace.verbs_access import Newcomer, register_newcomer  # noqa: PLC0415 - same

    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.05)
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes((tmp_path / "old/ca.pem").read_bytes())
    server = old.issue("server.pem", x509.IPAddress(ip_address("127.0.0.1")), ExtendedKeyUsageOID.SERVER_AUTH)
    make(tmp_path / "w", settings(model, certificate=server))
    path = tmp_path / "w/stanch.toml"
    path.write_text(path.read_text().replace("[access]\n", f'[access]\nauthorities = ["{trusted}"]\n'))
    contexts = []
    with Workspace.open(tmp_path / "w") as workspace:
        for at, one in enumerate((old, new)):
            uri = f"spiffe://x/bot{at}"
            spki = CertificateAuthority.from_pem((one.folder / "ca.pem").read_bytes(), what="ca").spki_sha256.hex()
            register_newcomer(
                workspace,
                Newcomer(name=f"bot{at}", kind="service", roles=("consumer",), issuer=f"mtls:{spki}", subject=uri),
            )
            context = ssl.create_default_context(cafile=str(tmp_path / "old/ca.pem"))
            name = x509.UniformResourceIdentifier(uri)
            context.load_cert_chain(one.issue("client.pem", name, ExtendedKeyUsageOID.CLIENT_AUTH))
            contexts.append(context)

        def lets_in(context):
            try:
                with httpx.Client(verify=context) as client:
                    return client.get(f"{url}/v1/models").status_code == 200
            except (httpx.TransportError, ssl.SSLError):
                return False

        with running(workspace) as url, httpx.Client(verify=contexts[0]) as open_one:
            assert open_one.get(f"{url}/v1/models").status_code == 200
            assert [lets_in(one) for one in contexts] == [True, False]
            trusted.write_bytes((tmp_path / "new/ca.pem").read_bytes())
            until(lambda: lets_in(contexts[1]))
            assert not lets_in(contexts[0])
            assert open_one.get(f"{url}/v1/models").status_code == 401  # the connection that was open
            trusted.write_bytes(b"nonsense")
            until(lambda: [one["state"] for one in told_certificates(workspace)][-1:] == ["kept"])
            assert [lets_in(one) for one in contexts] == [False, True]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("127.0.0.1:0", "0.0.0.0:0"), "certificate"), (("127.0.0.1:0", "127.0.0.1:70000"), "port"),
        (("train.index", "missing.index"), "missing.index"), (("http://127", "http://192"), "expected https"),
        (('listen = "127.0.0.1:0"', 'listen = "127.0.0.1:0"\ncertificate = "no.pem"'), "certificate"),
        (("plan.json", "train.index"), "canary plan"),
        (('index = "train.index"', 'dialects = ["embeddings"]'), "dimensions"),
    ],
)  # fmt: skip
def test_settings_that_are_unsafe_or_lead_nowhere_do_not_start(tmp_path, model, change, why):
    make(tmp_path / "w", settings(model).replace(*change))
    with Workspace.open(tmp_path / "w") as workspace, pytest.raises(InvalidInput, match=why):  # noqa: PT012 - any of the three
        listening(workspace, "gateway")
        tls_context(workspace, "gateway")
        build_gateway(workspace)


def test_the_own_terms_that_the_settings_name_end_an_answer(tmp_path, model):
    make(tmp_path / "w", settings(model) + 'dictionaries = ["terms.dict"]\n')
    with Workspace.open(tmp_path / "w") as workspace:
        with pytest.raises(InvalidInput, match=r"terms\.dict"):
            build_gateway(workspace)
        other = Dictionary.build(["the silver kestrel"], key=bytes(32), label="codename")
        other.save(tmp_path / "w/terms.dict")
        with pytest.raises(VerificationError):
            build_gateway(workspace)
        digests = set()
        for terms in (["violet heron"], ["the silver kestrel"]):
            (tmp_path / "w/terms.dict").unlink()
            (tmp_path / "terms.txt").write_text("\n".join(terms))
            build = ["data", "dictionary", "build", str(tmp_path / "terms.txt"), "--label", "codename", "--out"]
            assert run([*build, str(workspace.folder / "terms.dict"), "--workspace", str(workspace.folder)]) == 0
            served = build_gateway(workspace).models["bot"]
            digests.add(served.guard_digest)
        assert len(digests) == 2
        checked = check_text(served.guard, "They call it The Silver  Kestrel.")
        assert (checked.action, [one.kind for one in checked.findings]) == (Action.BLOCK, ["codename"])


def test_the_policy_of_a_model_is_that_of_its_settings(tmp_path, model, capsys):
    pack = tmp_path / "w/support.yaml"
    lines = f"""allow = ["support@example.org"]
packs = [{{ file = "support.yaml", digest = "{pack_digest(parse_pack(PACK, name="p"))}" }}]
actions = {{ phone = "allow", aws-access-key-id = "redact", ticket-number = "block" }}
"""
    make(tmp_path / "w", settings(model) + lines)
    pack.write_bytes(PACK)
    with Workspace.open(tmp_path / "w") as workspace:
        served = build_gateway(workspace).models["bot"]
        told = "Mail support@example.org or ana@example.org, call +1 415 555 2671, key AKIAIOSFODNN7EXAMPLQ."
        said = "Mail support@example.org or <EMAIL>, call +1 415 555 2671, key <AWS-ACCESS-KEY-ID>."
        assert (check_text(served.guard, told).text, check_text(served.guard, told).action) == (said, Action.REDACT)
        assert check_text(served.guard, "See TCK-48213377.").action == Action.BLOCK
        facts = served.guard_facts
        assert served.guard_digest == str(Digest.sha256(canonical_json(facts)))
        assert facts["actions"] == {"aws-access-key-id": "redact", "phone": "allow", "ticket-number": "block"}
        assert "support@example.org" not in str(facts)
        folder = ["--workspace", str(workspace.folder)]
    assert run(["gateway", "serve", "--check", *folder, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["data"]["models"]
    assert (row["guard"], row["guard_of"]) == (served.guard_digest, facts)
    # The same policy judges recorded answers.
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": told}) + "\n" + json.dumps({"text": "TCK-48213377"}) + "\n")
    check = ["guard", "check", str(tmp_path / "a.jsonl"), *folder, "--redact", str(tmp_path / "out"), "--json"]
    assert run([*check, "--model", "bot"]) == 1
    shown = json.loads(capsys.readouterr().out)["data"]
    assert (shown["blocked"], shown["redacted"], shown["guard"]) == (1, 1, served.guard_digest)
    assert json.loads((tmp_path / "out").read_text().splitlines()[0])["text"] == said
    assert run([*check, "--model", "other"]) == 2


@pytest.mark.parametrize(
    ("line", "error", "why"),
    [
        ('actions = { emial = "allow" }', InvalidInput, "no kind 'emial'"),
        ('actions = { email = "pass" }', InvalidInput, r"gateway\.models.*wrong value"),
        ('actions = { canary = "allow" }', InvalidInput, "always blocks"),
        ('actions = { training-text = "allow" }', InvalidInput, "never allowed"),
        ('allow = ["-"]', InvalidInput, "allowed value 0"),
        (f'packs = [{{ file = "support.yaml", digest = "sha256:{"0" * 64}" }}]', VerificationError, "not the pack"),
        (f'packs = [{{ file = "no.yaml", digest = "sha256:{"0" * 64}" }}]', InvalidInput, r"no\.yaml"),
        ('packs = [{ file = "support.yaml" }]', InvalidInput, "wrong value"),
    ],
)
def test_a_policy_that_is_not_understood_does_not_start(tmp_path, model, line, error, why):
    make(tmp_path / "w", settings(model) + line + "\n")
    (tmp_path / "w/support.yaml").write_bytes(PACK)
    with pytest.raises(error, match=why), Workspace.open(tmp_path / "w") as workspace:
        build_gateway(workspace)


def test_a_sealed_index_guards_like_its_file(tmp_path, model):
    make(tmp_path / "w", settings(model))
    with Workspace.open(tmp_path / "w") as workspace:
        plain, path = build_gateway(workspace).models["bot"], workspace.folder / "train.index"
        index = SpanIndex.open(path, workspace.keys.secret("index"))
        path.unlink()
        save_index(workspace.keys, index, Sealed(path))
        served = build_gateway(workspace).models["bot"]
        assert served.guard_digest != plain.guard_digest
        assert check_text(served.guard, ROW).action == Action.BLOCK
        assert [one for one in path.rglob("*") if one.is_file() and b"STXIDX" in one.read_bytes()] == []


def test_the_command_checks_and_shows(place, capsys):
    workspace, url, key = place
    ask(url, key, "Tell me about chest pain.", stream=False)
    folder = ["--workspace", str(workspace.folder), "--json"]
    assert run(["gateway", "serve", "--check", *folder]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["models"][0]["name"] == "bot"
    assert run(["gateway", "budgets", "program", *folder]) == 0
    shown = {row["budget"]: row["used"] for row in json.loads(capsys.readouterr().out)["data"]["budgets"]}
    assert shown["tokens/day"] > 30
    assert run(["gateway", "reset-budget", "program", "--budget", "tokens", "--reason", "a mistake", *folder]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["models"] == [str(MODEL.digest)]
    assert run(["gateway", "budgets", "program", *folder]) == 0
    assert "tokens/day" not in {row["budget"] for row in json.loads(capsys.readouterr().out)["data"]["budgets"]}
    assert run(["gateway", "budgets", "nobody", *folder]) == 2
