"""HTTP: one bounded exchange, and blobs that a web server hands out."""

import contextlib
import functools
import http.server
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

import servers
from stanch.errors import ExternalError, InvalidInput, NotFound, StoreError
from stanch.store import CREATE, REPLACE, FileBlobs, open_blobs
from stanch.store.http import HttpRequest, check_url, exchange


class Web(http.server.SimpleHTTPRequestHandler):
    """A plain web server, as anybody would run; some of its paths misbehave."""

    def do_GET(self):
        behave = getattr(self, "do_" + self.path.strip("/").replace("-", "_"), None)
        (behave or super().do_GET)()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, body[::-1], {"X-Asked": self.headers["X-Ask"]})

    def do_redirect(self):
        self.answer(302, b"", {"Location": "/k"})

    def do_long(self):
        self.answer(200, b"x" * 5000)

    def do_endless(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x" * 65536)

    def do_drops(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)

    def do_cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)

    def do_noise(self):
        self.wfile.write(b"\x00\xff nothing like HTTP\r\n\r\n")

    def do_error(self):
        self.answer(500, b"oops")

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


class Ranges(Web):
    """One that knows ranges (RFC 9110, section 14)."""

    def do_GET(self):
        path = self.translate_path(self.path)
        asked = self.headers.get("Range")
        if asked is None:
            super().do_GET()
            return
        with open(path, "rb") as file:  # noqa: PTH123 - the path is a string here
            data = file.read()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        if int(first) >= len(data):
            self.answer(416, b"no")
            return
        self.answer(206, data[int(first) : int(last) + 1 if last else None])


@contextlib.contextmanager
def served(folder, kind=Web, context=None):
    handler = functools.partial(kind, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # clients that leave early
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def blobs(tmp_path):
    return FileBlobs(tmp_path)


@pytest.fixture(params=[Web, Ranges])
def web(request, tmp_path):
    with served(tmp_path, request.param) as port:
        yield f"http://127.0.0.1:{port}"


def test_blobs_are_read_as_they_were_written(blobs, web):
    blobs.put("log/a", b"0123456789", mode=CREATE)
    blobs.put("log/empty", b"", mode=CREATE)
    mirror = open_blobs(f"{web}/log/")
    assert mirror.get("a") == b"0123456789"
    assert mirror.get("empty") == b""
    assert mirror.head("a").size == 10
    for length in (None, *range(13)):
        for start in range(0, 13, 3):
            assert mirror.get("a", start=start, length=length) == b"0123456789"[start:][:length]
    for call in (mirror.get, mirror.head):
        with pytest.raises(NotFound):
            call("missing")
        with pytest.raises(InvalidInput):
            call("../a")
    with pytest.raises(InvalidInput):
        mirror.get("a", start=-1)


def test_nothing_is_written_through_a_web_server(blobs, web):
    blobs.put("a", b"x", mode=CREATE)
    mirror = open_blobs(web)
    for call in (lambda: mirror.put("b", b"x", mode=REPLACE), lambda: mirror.delete("a"), lambda: list(mirror.list())):
        with pytest.raises(StoreError):
            call()
    assert [info.key for info in blobs.list()] == ["a"]


@pytest.mark.parametrize("path", ["redirect", "error"])
def test_an_answer_that_is_no_blob_is_none(web, path):
    with pytest.raises(StoreError, match="status"):
        open_blobs(web).get(path)


def test_a_request_carries_its_body_and_headers(web):
    answer = exchange(HttpRequest("POST", f"{web}/x?y=1", {"X-Ask": "why"}, b"body"))
    assert (answer.status, answer.body, answer.headers["x-asked"]) == (200, b"ydob", "why")


def test_redirects_are_answers(web):
    answer = exchange(HttpRequest("GET", f"{web}/redirect"))
    assert (answer.status, answer.headers["location"], answer.body) == (302, "/k", b"")


@pytest.mark.parametrize("path", ["long", "endless"])
def test_a_body_beyond_the_limit_is_refused(web, path):
    with pytest.raises(ExternalError) as caught:
        exchange(HttpRequest("GET", f"{web}/{path}"), max_bytes=4999)
    assert "longer than 4999" in caught.value.why
    assert len(exchange(HttpRequest("GET", f"{web}/long"), max_bytes=5000).body) == 5000


@pytest.mark.parametrize("path", ["cut", "noise"])
def test_half_an_answer_is_none(web, path):
    with pytest.raises(ExternalError):
        exchange(HttpRequest("GET", f"{web}/{path}"))


def test_the_time_limit_is_for_the_whole_answer(web):
    start = time.monotonic()
    with pytest.raises(ExternalError) as caught:
        exchange(HttpRequest("GET", f"{web}/drops"), timeout_seconds=0.5)
    assert "in time" in caught.value.why or "within" in caught.value.why
    assert time.monotonic() - start < 5


def test_nobody_listens():
    with pytest.raises(ExternalError):
        exchange(HttpRequest("GET", f"http://127.0.0.1:{servers.free_port()}/"))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://user@example.com/",
        "https://user:hunter2@example.com/",
        "https:///x",
        "https://example.com:port/",
        "https://example.com:0/",
        "https://example.com/\r\nHost: other",
        "https://example.com/a b",
        "https://example.com/#x",
        "ftp://example.com/",
        "file:///etc/passwd",
        "example.com",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(InvalidInput) as caught:
        exchange(HttpRequest("GET", url))
    assert "hunter2" not in caught.value.what + caught.value.why


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_refused(text):
    try:
        url = check_url(f"https://{text}")
    except InvalidInput:
        return
    assert url.hostname
    assert url.username is None


def make_certificate(folder, name, *, authority=None, address="127.0.0.1"):
    """Make a key and a certificate, signed by ``authority`` or by itself; return both with their file."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, issuer_key = authority or (None, key)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority is None:
        usage = x509.KeyUsage(*(index in {5, 6} for index in range(9)))
        builder = builder.add_extension(usage, critical=True)
    else:
        parent = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        builder = builder.add_extension(parent, critical=False).add_extension(names, critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    path = folder / f"{name}.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return (certificate, key), path


@pytest.mark.parametrize(
    ("trusted", "address", "holds"),
    [("ours", "127.0.0.1", True), ("ours", "127.0.0.2", False), ("theirs", "127.0.0.1", False)],
)
def test_certificates_are_verified(tmp_path, monkeypatch, trusted, address, holds):
    ours, file = make_certificate(tmp_path, "ours")
    _, other = make_certificate(tmp_path, "theirs")
    _, leaf = make_certificate(tmp_path, "server", authority=ours, address=address)
    monkeypatch.setenv("SSL_CERT_FILE", str(file if trusted == "ours" else other))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf)
    FileBlobs(tmp_path / "blobs").put("k", b"x", mode=CREATE)
    with served(tmp_path / "blobs", Web, context) as port:
        blobs = open_blobs(f"https://127.0.0.1:{port}")
        if holds:
            assert blobs.get("k") == b"x"
            return
        with pytest.raises(ExternalError) as caught:
            blobs.get("k")
        assert "certificate" in caught.value.why
