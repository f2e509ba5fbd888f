"""A real OpenID provider (npm oidc-provider) on loopback, for the tests of whoever believes one."""

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

HERE = Path(__file__).parent / "oidc"
NEEDED = pytest.mark.skipif(
    shutil.which("node") is None or not (HERE / "node_modules").is_dir(),
    reason="npm's oidc-provider is not installed (`make test` does it where npm is)",
)


@contextlib.contextmanager
def running_provider(callback, **environment):
    """Run the provider for a client whose callback that is; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["node", str(HERE / "server.mjs"), str(port), callback], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"NODE_ENV": "test"} | environment,
    )  # fmt: skip
    try:
        assert process.stdout.readline().strip() == "ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def exchange(method, url, *, headers, body=b""):
    """One HTTP exchange without redirects: status, headers, body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def access_token(url, audience):
    """Return an access token of the subject ``service`` for whoever has that name; it is good for five minutes."""
    form = {
        "grant_type": "client_credentials", "client_id": "service", "client_secret": "another secret",
        "resource": audience,
    }  # fmt: skip
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = exchange("POST", f"{url}/token", headers=headers, body=urlencode(form).encode())
    assert status == 200, body
    return re.search(rb'"access_token":"([^"]+)"', body)[1].decode()
