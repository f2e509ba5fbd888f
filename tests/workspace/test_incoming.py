"""What the settings accept from outside."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stanch.access import ApiKeyOrder
from stanch.access.authenticator import Bearer, ClientLeaf
from stanch.errors import ExternalError, InvalidInput, NotAuthenticated
from stanch.terms import Digest
from stanch.workspace import Workspace
from stanch.workspace.incoming import authenticator_of, code_flows, fetch_web
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer, revoke_key

ISSUER = '\n[[access.issuers]]\nissuer = "https://issuer.example"\n'


def nobody_answers(_method, url, **_):
    raise ExternalError(url)


@pytest.fixture
def folder(tmp_path):
    with Workspace.init(tmp_path / "w"):
        pass
    return tmp_path / "w"


def with_settings(folder, text):
    with (folder / "stanch.toml").open("a") as file:
        file.write(text)
    return Workspace.open(folder)


def test_an_api_key_comes_in_and_goes_out(folder):
    with Workspace.open(folder) as workspace:
        bot = register_newcomer(workspace, Newcomer(name="bot", kind="service", roles=("consumer",)))
        order = ApiKeyOrder(principal=bot, models=(str(Digest.sha256(b"m")),), networks=("127.0.0.0/8",))
        record, secret = issue_key(workspace, order)
        door = authenticator_of(workspace, nobody_answers)
        assert door.authenticate(Bearer(secret.text, "127.0.0.1")).principal == bot
        revoke_key(workspace, record.id)
        for credential in (Bearer(secret.text, "127.0.0.1"), Bearer("a.b.c", "127.0.0.1"), ClientLeaf(b"")):
            with pytest.raises(NotAuthenticated):
                door.authenticate(credential)


class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(self.headers["X-Name"].encode() + body)

    def log_message(self, *_):
        pass


def test_issuers_are_asked_in_one_bounded_exchange():
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/token"
        assert fetch_web("POST", url, headers={"X-Name": "a="}, body=b"b") == (400, b"a=b")
        thread.join()
    with pytest.raises(ExternalError):
        fetch_web("GET", url, headers={}, body=b"")


def test_an_issuer_that_does_not_answer_lets_nobody_in(folder):
    with with_settings(folder, ISSUER) as workspace, pytest.raises(NotAuthenticated):
        authenticator_of(workspace, nobody_answers).authenticate(Bearer("a.b.c", "127.0.0.1"))


def test_the_secret_of_a_browser_login_is_a_line_of_a_private_file(folder):
    client = ISSUER + 'client_id = "us"\nclient_secret = "file:secret"\n'
    (folder / "secret").write_bytes(b"a client's secret\n")
    (folder / "secret").chmod(0o600)
    with with_settings(folder, client) as workspace:
        assert (
            code_flows(workspace, "https://us/back", nobody_answers)["https://issuer.example"]._issuer.client.secret
            == "a client's secret"
        )
        (folder / "secret").write_bytes(b"\xff\xfe")
        with pytest.raises(InvalidInput, match="client_secret: expected a secret of one line"):
            code_flows(workspace, "https://us/back", nobody_answers)


@pytest.mark.parametrize(
    "settings",
    [
        ISSUER + 'kind = "workload"\n', ISSUER.replace("https", "http"),
        '\nauthorities = ["missing.pem"]\n', '\nauthorities = ["stanch.toml"]\n',
    ],
)  # fmt: skip
def test_unsafe_settings_are_refused(folder, settings):
    with with_settings(folder, settings) as workspace, pytest.raises(InvalidInput):
        authenticator_of(workspace, nobody_answers)
