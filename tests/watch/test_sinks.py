"""Sinks, each against a small server of its own: what arrives, and what happens while it is down."""

import contextlib
import email
import email.policy
import json
import re
import resource
import signal
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from watching import count_outbox

from stanch.errors import ExternalError, InvalidInput
from stanch.store import open_tables
from stanch.terms import SecretStr
from stanch.watch import Alarm, Severity
from stanch.watch.alert import Conclusion, close_alert, raise_alert
from stanch.watch.incident import new_incident
from stanch.watch.ocsf import alert_event
from stanch.watch.outbox import Notice, deliver_due, describe, describe_incident, raise_alarm
from stanch.watch.sinks import AlertmanagerSink, AppriseSink, FileSink, SyslogSink, WebhookSink, syslog_message

ALARM = Alarm("D1", "canary", "p_a", "sha256:aa", 0, 5, Severity.CRITICAL, 1.0, 1.0, (1, 2))
NOTICE = Notice("ab" * 16, describe(raise_alert(ALARM, at_ms=1_700_000_000_000), "raised"))
TOKEN = SecretStr("a-secret-token")


@contextlib.contextmanager
def http(port=0, status=200):
    """A server that remembers what was posted, and answers each with ``status``."""
    found = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((self.path, dict(self.headers), body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port, found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_the_facts_the_key_and_the_token():
    with http() as (port, found):
        WebhookSink("w", 1, f"http://127.0.0.1:{port}/hook", TOKEN).deliver(NOTICE)
    ((path, headers, body),) = found
    assert (path, headers["Authorization"], headers["Idempotency-Key"]) == (
        "/hook", "Bearer a-secret-token", NOTICE.key,
    )  # fmt: skip
    assert json.loads(body) == {**NOTICE.facts, "key": NOTICE.key}


def test_a_webhook_may_want_another_scheme_than_bearer():
    with http() as (port, found):
        WebhookSink("w", 1, f"http://127.0.0.1:{port}/", TOKEN, scheme="Splunk").deliver(NOTICE)
    assert found[0][1]["Authorization"] == "Splunk a-secret-token"


def test_a_webhook_may_be_given_ocsf():
    with http(status=204) as (port, found):
        WebhookSink("w", 1, f"http://127.0.0.1:{port}/", describe=alert_event).deliver(NOTICE)
    assert json.loads(found[0][2])["type_uid"] == 200401


def test_alertmanager_knows_a_repeat_by_its_labels():
    with http() as (port, found):
        for _ in range(2):
            AlertmanagerSink("a", 1, f"http://127.0.0.1:{port}/").deliver(NOTICE)
    alerts = [json.loads(body) for _, _, body in found]
    assert {path for path, _, _ in found} == {"/api/v2/alerts"}
    assert [one["labels"] for one in alerts[0]] == [one["labels"] for one in alerts[1]]
    assert alerts[0][0]["labels"] == {
        "alertname": "stanch-D1", "detector": "D1", "signal": "canary", "severity": "critical",
        "alert": NOTICE.facts["alert"],
    }  # fmt: skip
    assert alerts[0][0]["startsAt"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("status", [302, 400, 500])
def test_whatever_is_not_taken_is_said_without_the_url(status):
    with http(status=status) as (port, _), pytest.raises(ExternalError, match=str(status)) as caught:
        WebhookSink("w", 1, f"http://127.0.0.1:{port}/SECRETPATH", TOKEN).deliver(NOTICE)
    with pytest.raises(ExternalError, match="no answer") as closed:
        WebhookSink("w", 1, "http://127.0.0.1:9/SECRETPATH", TOKEN).deliver(NOTICE)
    for error in (caught.value, closed.value):
        assert "SECRET" not in f"{error.what}{error.why}{error.next_step}"


def test_plain_http_to_another_machine_is_refused():
    with pytest.raises(InvalidInput, match="https"):
        WebhookSink("w", 1, "http://192.0.2.1/").deliver(NOTICE)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise's own import
def test_apprise_posts_what_a_person_reads():
    pytest.importorskip("apprise", reason="apprise is not installed: pip install 'stanch[watch]'")
    with http() as (port, found):
        AppriseSink("chat", 1, SecretStr(f"json://127.0.0.1:{port}/x")).deliver(NOTICE)
    shown = json.loads(found[0][2])
    assert shown["title"] == "stanch: critical D1 canary"
    assert f"key {NOTICE.key}" in shown["message"]
    with http(status=500) as (port, _), pytest.raises(ExternalError, match="not taken"):
        AppriseSink("chat", 1, SecretStr(f"json://127.0.0.1:{port}/SECRETPATH")).deliver(NOTICE)
    with pytest.raises(InvalidInput) as caught:
        AppriseSink("chat", 1, SecretStr("nonsense-SECRET")).deliver(NOTICE)
    assert "SECRET" not in caught.value.what


def test_every_sink_words_an_incident_as_it_words_an_alert():
    incident = new_incident(5, by="p_x", at_ms=9)
    notice = Notice("ab" * 16, describe_incident(incident, "opened", 1_700_000_000_000))
    assert f'alert="{incident.id}"'.encode() in syslog_message(notice, "h")
    with http() as (port, found):
        AlertmanagerSink("m", 1, f"http://127.0.0.1:{port}").deliver(notice)
        WebhookSink("w", 1, f"http://127.0.0.1:{port}/").deliver(notice)
    labels = json.loads(found[0][2])[0]["labels"]
    assert labels == {
        "alertname": "stanch-incident", "alert": incident.id, "detector": "incident", "severity": "critical",
    }  # fmt: skip
    assert json.loads(found[1][2])["deadline_ms"] == incident.deadline_ms


def smtp(server, said, *, refuse=False):
    """Take one mail over SMTP (RFC 5321) on the next connection; ``said`` gets each line of the client."""
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as stream:

        def answer(text):
            stream.write(text + b"\r\n")
            stream.flush()

        answer(b"220 here")
        while line := stream.readline():
            said.append(line[:4].upper() + line[4:].rstrip(b"\r\n"))  # verbs are of any case
            match line[:4].upper():
                case b"EHLO" | b"HELO":
                    answer(b"250 here")
                case b"DATA":
                    answer(b"354 go on")
                    while (text := stream.readline()) not in {b".\r\n", b""}:
                        said.append(text.rstrip(b"\r\n"))
                    answer(b"250 taken")
                case b"QUIT":
                    answer(b"221 bye")
                    return
                case b"RCPT" if refuse:
                    answer(b"550 nobody here")
                case _:
                    answer(b"250 fine")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise's own import
@pytest.mark.parametrize("refuse", [False, True])
def test_a_mail_arrives_over_smtp_and_one_that_is_refused_is_not_taken(refuse):
    pytest.importorskip("apprise", reason="apprise is not installed: pip install 'stanch[watch]'")
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        taking = threading.Thread(target=smtp, args=(server, said), kwargs={"refuse": refuse})
        taking.start()
        port = server.getsockname()[1]
        where = f"mailto://127.0.0.1:{port}?mode=insecure&from=watch@here.example&to=lead@here.example&format=text"
        sink = AppriseSink("mail", 1, SecretStr(where))
        if refuse:
            with pytest.raises(ExternalError, match="not taken"):
                sink.deliver(NOTICE)
        else:
            sink.deliver(NOTICE)
        taking.join()
    assert b"MAIL FROM:<watch@here.example>" in [line.split(b" size=")[0] for line in said]
    assert b"RCPT TO:<lead@here.example>" in said
    if not refuse:
        mail = email.message_from_bytes(b"\r\n".join(said[said.index(b"DATA") + 1 :]), policy=email.policy.default)
        assert mail["Subject"] == "stanch: critical D1 canary"
        assert f"key {NOTICE.key}" in mail.get_body(("plain",)).get_content()


def test_a_sink_that_is_down_for_an_hour_gets_everything_then_and_nothing_twice(tmp_path):
    """Alarms before, during and after the hour, a pass a minute, a restart in the middle; some are raised twice."""
    minute, hours = 60_000, 60 * 60_000
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    sink, found, ids, retried = WebhookSink("w", 1, f"http://127.0.0.1:{port}/"), [], set(), 0
    open_tables("sqlite:a.db", base=tmp_path, create=True).close()

    def watch(start, end):
        nonlocal retried
        with contextlib.closing(open_tables("sqlite:a.db", base=tmp_path)) as tables:
            for at in range(start, end, minute):
                if at % (5 * minute) == 0 and at <= 70 * minute:
                    for _ in range(1 + at // (5 * minute) % 2):
                        with tables.write() as connection:
                            ids.add(raise_alarm(connection, alarm_at(at // minute), [sink], at).id)
                retried += deliver_due(tables, [sink], at).retried
            with tables.read() as connection:
                return count_outbox(connection)

    with http(port) as (_, before):
        assert watch(0, minute) == {("w", "sent"): 1}
    found += before
    watch(minute, 30 * minute)
    assert watch(30 * minute, hours) == {("w", "sent"): 1, ("w", "waiting"): 11}
    assert retried > 30
    with http(port) as (_, after):
        assert watch(hours, 3 * hours) == {("w", "sent"): 15}
    found += after
    bodies = [json.loads(body) for _, _, body in found]
    assert sorted(body["alert"] for body in bodies) == sorted(ids)
    assert len({body["key"] for body in bodies}) == len(bodies) == 15


def alarm_at(number):
    return Alarm("D1", "canary", "p_a", "m", number, 5, Severity.CRITICAL, 1.0, 1.0, (1,))


def test_a_file_gets_one_event_a_line_and_nobody_else_reads_it(tmp_path):
    sink = FileSink("f", 1, tmp_path / "events.jsonl", alert_event)
    sink.deliver(NOTICE)
    sink.deliver(NOTICE)
    lines = [json.loads(line) for line in sink.path.read_text().splitlines()]
    assert [line["metadata"]["uid"] for line in lines] == [NOTICE.key] * 2
    assert sink.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ExternalError, match="cannot be written"):
        FileSink("f", 1, tmp_path / "no" / "file", alert_event).deliver(NOTICE)


def test_a_line_that_is_not_whole_spoils_no_other(tmp_path):
    """The disk fills up in the middle of a line; another time the machine lost power there."""
    sink = FileSink("f", 1, tmp_path / "events.jsonl", lambda notice: {"key": notice.key, "text": "x" * 200})
    first, second, third = (Notice(letter * 32, NOTICE.facts) for letter in "abc")
    sink.deliver(first)
    before, (_, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sink.path.stat().st_size + 50, hard))
    try:
        with pytest.raises(ExternalError, match="the disk is full"):
            sink.deliver(second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    sink.deliver(second)
    with sink.path.open("ab") as file:
        file.write(b'{"key": "cut')
    sink.deliver(third)
    lines = sink.path.read_text().splitlines()
    assert [json.loads(line)["key"][0] for line in lines if not line.endswith("cut")] == ["a", "b", "c"]
    assert len(lines) == 4


def test_alertmanager_is_told_when_an_alert_is_over_and_not_before():
    raised = raise_alert(replace(ALARM, severity=Severity.HIGH), at_ms=1_700_000_000_000)
    closed = close_alert(raised, Conclusion.TRUE, by="p_x", at_ms=1_700_000_001_000).alert
    with http() as (port, found):
        for alert, event in ((raised, "raised"), (closed, "closed-1")):
            AlertmanagerSink("m", 1, f"http://127.0.0.1:{port}").deliver(Notice("ab" * 16, describe(alert, event)))
    now = datetime.now(UTC)
    first, last = (
        {
            one["labels"]["severity"]: (datetime.strptime(one["endsAt"], "%Y-%m-%dT%H:%M:%S%z") - now).total_seconds()
            for one in json.loads(body)
        }
        for _, _, body in found
    )
    assert 6.9 * 86_400 < first.pop("high") < 7.1 * 86_400
    assert first.keys() == {"low", "medium"}, "the milder alert, had it been one, is over"
    assert last.keys() == {"low", "medium", "high"}
    assert all(-60 < ends < 1 for ends in (*first.values(), *last.values()))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that is its own authority, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "collector.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@contextlib.contextmanager
def collector(certificate, *, polite=True):
    """A collector that reads one connection by octet counting (RFC 5425 section 4.3), and may just hang up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    found = []

    def serve():
        with contextlib.suppress(OSError):
            raw, _ = listening.accept()
            with raw, context.wrap_socket(raw, server_side=True) as secure:
                data = b""
                while piece := secure.recv(4096):
                    data += piece
                while data:
                    length, _, rest = data.partition(b" ")
                    found.append(rest[: int(length)])
                    data = rest[int(length) :]
                if polite:
                    secure.unwrap()

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], found
        thread.join(60)


@pytest.mark.parametrize("polite", [True, False], ids=["closes TLS", "hangs up"])
def test_syslog_arrives_over_tls_with_its_length(certificate, polite):
    with collector(certificate, polite=polite) as (port, found):
        SyslogSink("s", 1, f"syslog+tls://127.0.0.1:{port}", certificate).deliver(NOTICE)
    (message,) = found
    # Facility 13, severity 2; the shape is that of RFC 5424 section 6.
    head, _, text = message.partition(b"\xef\xbb\xbf")
    shape = rb'<106>1 2023-11-14T22:13:20Z [!-~]+ stanch - alert \[stanch@32473 key="[0-9a-f]{32}" alert="[0-9a-f]{32}" event="raised"\] '  # noqa: E501 - one pattern
    assert re.fullmatch(shape, head)
    assert json.loads(text) == dict(NOTICE.facts)


def test_syslog_to_somebody_else_is_refused(certificate):
    with collector(certificate) as (port, found), pytest.raises(ExternalError, match="not delivered"):
        SyslogSink("s", 1, f"syslog+tls://127.0.0.1:{port}").deliver(NOTICE)
    assert found == []
    with pytest.raises(InvalidInput, match="syslog"):
        SyslogSink("s", 1, "syslog://127.0.0.1:1").deliver(NOTICE)


def test_syslog_escapes_what_would_end_a_parameter():
    odd = Notice(NOTICE.key, {**NOTICE.facts, "event": 'a"]\\'})
    assert rb'event="a\"\]\\"]' in syslog_message(odd, "häst\n")
    assert b" hst stanch " in syslog_message(odd, "häst\n")
