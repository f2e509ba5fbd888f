"""The object driver alone: what it refuses, and how it fails."""

import contextlib
import http.server
import os
import sys
import threading

import pytest

import servers
from stanch.errors import InvalidInput, MissingExtraError, NotFound, StoreError, StoreTimeout, StoreUnsafe
from stanch.store import CREATE, REPLACE, open_blobs


class Careless(http.server.BaseHTTPRequestHandler):
    """An S3 service that takes every PUT, whatever its condition."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def served(handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def variables(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "hunter2", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return monkeypatch


@pytest.mark.parametrize("mode", [CREATE, REPLACE])
def test_a_service_that_ignores_conditions_is_refused_before_anything_is_written(variables, mode):
    with served(Careless) as endpoint:
        variables.setenv("AWS_ENDPOINT_URL", endpoint)
        blobs = open_blobs("s3://bucket/prefix")
        for _ in range(2):  # it is not trusted the second time either
            with pytest.raises(StoreUnsafe, match="ignores the condition"):
                blobs.put("k", b"x", mode=mode)


def test_a_prefix_is_probed_once_and_the_probe_is_not_seen(s3):
    uri = s3.uri()
    open_blobs(uri).put("k", b"x", mode=CREATE)
    again = open_blobs(uri)
    again.put("l", b"x", mode=CREATE)
    assert [info.key for info in again.list()] == ["k", "l"]
    with pytest.raises(InvalidInput):
        again.get(".stanch-probe")


def test_a_large_blob_has_the_time_that_a_slow_line_takes(s3, monkeypatch):
    """Two megabytes at a megabyte and a half a second, where a request without them may take one second."""
    monkeypatch.setattr("stanch.store.blob_object._REQUEST_SECONDS", 1)
    with servers.slow_proxy(int(s3.endpoint.rpartition(":")[2]), 1_500_000) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        body = os.urandom(2_000_000)
        blobs = open_blobs(s3.uri())
        blobs.put("k", body, mode=CREATE)
        assert blobs.head("k").size == len(body)
        monkeypatch.setattr("stanch.store.blob_object._SLOWEST", 8_000_000)
        with pytest.raises(StoreTimeout, match="in time"):
            open_blobs(s3.uri()).put("k", body, mode=CREATE)


def test_reading_does_not_probe(s3):
    uri = s3.uri()
    with pytest.raises(NotFound):
        open_blobs(uri).get("k")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    assert list(open_blobs(f"s3://{bucket}").list(f"{prefix}/")) == []


def test_a_range_costs_one_request(variables):
    asked = []

    class Ten(http.server.BaseHTTPRequestHandler):
        """An object of ten bytes."""

        def do_GET(self):
            asked.append(self.headers["Range"])
            start, _, end = (self.headers["Range"] or "bytes=0-9").removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or 9), 9)
            status = 416 if first > 9 else 206 if self.headers["Range"] else 200
            self.send_response(status)
            self.send_header("Content-Length", "0" if status == 416 else str(last - first + 1))
            self.send_header("Content-Range", f"bytes {first}-{last}/10")
            self.send_header("Last-Modified", "Mon, 01 Jun 2026 00:00:00 GMT")
            self.end_headers()
            if status != 416:
                self.wfile.write(b"0123456789"[first : last + 1])

        def log_message(self, *_):
            """Say nothing."""

    with served(Ten) as endpoint:
        variables.setenv("AWS_ENDPOINT_URL", endpoint)
        blobs = open_blobs("s3://bucket/prefix")
        assert blobs.get("k", start=2, length=3) == b"234"
        assert blobs.get("k", start=7, length=100) == b"789"
        assert blobs.get("k", start=4) == b"456789"
        assert blobs.get("k", start=10, length=5) == b""
        assert blobs.get("k", start=11) == b""
        assert blobs.get("k") == b"0123456789"
    assert asked == ["bytes=2-4", "bytes=7-106", "bytes=4-", "bytes=10-14", "bytes=11-", None]


def test_wrong_credentials_are_a_store_error_that_shows_none(s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with pytest.raises(StoreError, match="failed") as caught:
        open_blobs(s3.uri()).put("k", b"x", mode=CREATE)
    said = caught.value.what + caught.value.why + caught.value.next_step
    assert "hunter2" not in said
    assert "stanchtest" not in said
    assert "127.0.0.1" not in said


def test_a_service_that_is_gone_is_a_store_error(variables):
    variables.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    with pytest.raises(StoreError):
        open_blobs("s3://bucket/prefix").get("k")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
@pytest.mark.parametrize("endpoint", ["http://s3.example.com", "HTTP://127.0.0.1.example.com", "http:s3"])
def test_an_endpoint_without_tls_elsewhere_is_refused(variables, name, endpoint):
    variables.setenv("AWS_ALLOW_HTTP", "true")
    variables.setenv(name, endpoint)
    with pytest.raises(InvalidInput, match="https"):
        open_blobs("s3://bucket/prefix")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:bucket",
        "s3://bucket/../x",
        "s3://bucket/Upper",
        "s3://user@bucket/x",
        "s3://bucket:80/x",
        "s3://bucket/x?endpoint=http://e",
        "s3://bucket/x#y",
        "gs://b/",
        "az://UPPER/x",
    ],
)
def test_uris_that_are_refused(variables, uri):  # noqa: ARG001 - no request may leave
    with pytest.raises(InvalidInput):
        open_blobs(uri)


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match="s3"):
        open_blobs("s3://bucket/prefix")


def test_the_other_two_services_open_with_the_same_driver(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{"private_key": "", "private_key_id": "", "client_email": ""}')
    assert open_blobs("az://container/prefix").__class__ is open_blobs("s3://bucket/prefix").__class__
