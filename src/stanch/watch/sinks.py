"""Sinks: webhook, Alertmanager, apprise (e-mail, chat), syslog over TLS, and OCSF events to a file or over HTTP.

Each returns only once the other side took the notice. A secret (a token, a URL with one in it) is a
:class:`stanch.terms.SecretStr`; no message carries it.
"""

import fcntl
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stanch.crypto import canonical_json
from stanch.errors import ExternalError, InvalidInput, MissingExtraError
from stanch.store import HttpRequest, exchange
from stanch.terms import JsonValue, SecretStr
from stanch.watch.alarm import Severity
from stanch.watch.alert import AlertState
from stanch.watch.outbox import Notice

SECONDS = 10.0
STANDS_MS = 7 * 86_400_000
"""So long an Alertmanager takes an alert for open after it was last told of it."""
_SYSLOG_SEVERITY = {Severity.CRITICAL: 2, Severity.HIGH: 3, Severity.MEDIUM: 4, Severity.LOW: 5}
_FACILITY = 13  # log audit, RFC 5424 section 6.2.1
_SYSLOG_PORT = 6514  # RFC 5425 section 4.1


Describe = Callable[[Notice], dict[str, JsonValue]]
"""Turns a notice into an event of another format."""


@dataclass(frozen=True, slots=True)
class WebhookSink:
    """Posts JSON; any status 2xx says that it was taken. ``Idempotency-Key`` is the notice's key.

    Attributes:
        name: Its name.
        tier: Its tier.
        url: Where to.
        token: A token, if one is asked for.
        describe: What is posted instead of the notice's own facts.
        scheme: What stands before the token (RFC 9110 section 11.4).
    """

    name: str
    tier: int
    url: str
    token: SecretStr | None = None
    describe: Describe | None = None
    scheme: str = "Bearer"

    def deliver(self, notice: Notice) -> None:
        """Post the notice.

        Raises:
            ExternalError: It was not taken.
        """
        event = {**notice.facts, "key": notice.key} if self.describe is None else self.describe(notice)
        _post(self.name, self.url, event, token=self.token, key=notice.key, scheme=self.scheme)


@dataclass(frozen=True, slots=True)
class AlertmanagerSink:
    """Posts to ``/api/v2/alerts`` of an Alertmanager, which knows repeats by their labels.

    An Alertmanager calls an alert resolved after its ``resolve_timeout``, five minutes, unless it is told an end
    (prometheus.io, "Alerts API"). An alert is not over because nobody repeats it: its end lies a week ahead until it
    is closed. One that got worse has another label, so that the end of the milder one is told with it.

    Attributes:
        name: Its name.
        tier: Its tier.
        url: Its address, without the path.
        token: Bearer token, if one is asked for.
    """

    name: str
    tier: int
    url: str
    token: SecretStr | None = None

    def deliver(self, notice: Notice) -> None:
        """Post the alert; its id is a label, so that another alert of the same detector is another one there.

        Raises:
            ExternalError: It was not taken.
        """
        facts, now_ms, known = notice.facts, 1000 * time.time(), list(Severity)
        labels: dict[str, JsonValue] = {"alertname": f"stanch-{facts['detector']}"}
        # The signal of an incident is its state: as a label it would make another alert of each.
        names = ("alert", "detector") if facts["detector"] == "incident" else ("alert", "detector", "signal")
        labels |= {name: str(facts[name]) for name in names}
        notes: dict[str, JsonValue] = {name: str(facts[name]) for name in ("event", "signal", "count")}
        over = facts.get("state") == AlertState.CLOSED
        alerts: list[JsonValue] = [
            {
                "labels": labels | {"severity": severity.value},
                "annotations": notes | {"key": notice.key},
                "startsAt": _moment(facts["raised_ms"]),
                "endsAt": _moment(now_ms if over or severity.value != facts["severity"] else now_ms + STANDS_MS),
            }
            for severity in known[: known.index(Severity(str(facts["severity"]))) + 1]
        ]
        _post(self.name, f"{self.url.rstrip('/')}/api/v2/alerts", alerts[::-1], token=self.token, key=notice.key)


@dataclass(frozen=True, slots=True)
class AppriseSink:
    """E-mail, Slack and whatever else apprise has a URL for. The URL holds the secret.

    Attributes:
        name: Its name.
        tier: Its tier.
        url: The apprise URL.
    """

    name: str
    tier: int
    url: SecretStr

    def deliver(self, notice: Notice) -> None:
        """Send a short text.

        Raises:
            InvalidInput: apprise does not know such a URL.
            ExternalError: It was not taken.
            MissingExtraError: apprise is not installed.
        """
        try:
            import apprise  # noqa: PLC0415 - an optional part
        except ImportError as error:
            raise MissingExtraError("watch") from error
        sender = apprise.Apprise()
        if not sender.add(self.url.reveal()):
            raise InvalidInput(f"sink {self.name}: apprise does not know such a URL")
        facts = notice.facts
        title = f"stanch: {facts['severity']} {facts['detector']} {facts['signal']}"
        lines = [f"{name} {facts[name]}" for name in ("alert", "event", "principal", "model", "count") if facts[name]]
        if not sender.notify(title=title, body="\n".join([*lines, f"key {notice.key}"])):
            raise ExternalError(f"sink {self.name}: the notice was not taken")


@dataclass(frozen=True, slots=True)
class SyslogSink:
    """Syslog over TLS (RFC 5424 in RFC 5425): each message after its length in octets.

    TLS tells nothing about the last bytes that were sent, so a collector that ends right after may lose one message.

    Attributes:
        name: Its name.
        tier: Its tier.
        url: ``syslog+tls://HOST:PORT``.
        authority: PEM file of the collector's authority; None: those of the system.
    """

    name: str
    tier: int
    url: str
    authority: Path | None = None

    def deliver(self, notice: Notice) -> None:
        """Send one message and close the connection properly.

        Raises:
            ExternalError: There is no connection, or no valid certificate.
        """
        url = urlsplit(self.url)
        if url.scheme != "syslog+tls" or not url.hostname:
            raise InvalidInput(f"sink {self.name}: expected syslog+tls://HOST:PORT")
        message = syslog_message(notice, socket.gethostname())
        try:
            context = ssl.create_default_context(cafile=self.authority)
            with (
                socket.create_connection((url.hostname, url.port or _SYSLOG_PORT), timeout=SECONDS) as raw,
                context.wrap_socket(raw, server_hostname=url.hostname) as secure,
            ):
                secure.sendall(str(len(message)).encode() + b" " + message)
                # Waits for the other side's end, which comes after it read what came before. Many a collector ends its
                # connection without a close of TLS; ours was sent by then, and nothing is read that could be cut off.
                with suppress(ssl.SSLEOFError):
                    secure.unwrap()
        except OSError as error:
            raise ExternalError(f"sink {self.name}: not delivered", why=type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class FileSink:
    """Appends one OCSF event a line; a line is durable before the notice counts as taken.

    A line that could not be written whole is taken back: the next one begins at the start of a line.

    Attributes:
        name: Its name.
        tier: Its tier.
        path: The file; made with mode 0600.
        describe: Turns a notice into an event.
    """

    name: str
    tier: int
    path: Path
    describe: Describe

    def deliver(self, notice: Notice) -> None:
        """Append the event.

        Raises:
            ExternalError: The file cannot be written.
        """
        line = canonical_json(self.describe(notice)) + b"\n"
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # of several processes one appends; closing gives it back
                end = file.seek(0, os.SEEK_END)
                if end and os.pread(handle, 1, end - 1) != b"\n":
                    line = b"\n" + line  # a process was killed, or the machine lost power, in the middle of one
                if file.write(line) != len(line):
                    file.truncate(end)
                    raise ExternalError(f"sink {self.name}: the disk is full")
                os.fsync(handle)
        except OSError as error:
            raise ExternalError(f"sink {self.name}: cannot be written", why=error.strerror or "") from error


def syslog_message(notice: Notice, host: str) -> bytes:
    """Return a message as RFC 5424 section 6 says; its structured data carries the key, its text the facts in JSON."""
    facts = notice.facts
    priority = 8 * _FACILITY + _SYSLOG_SEVERITY[Severity(str(facts["severity"]))]
    name = "".join(c for c in host if "!" <= c <= "~")[:255] or "-"
    # 32473 is the enterprise number for examples (RFC 5612); stanch has none.
    data = f'[stanch@32473 key="{notice.key}" alert="{_escaped(facts["alert"])}" event="{_escaped(facts["event"])}"]'
    head = f"<{priority}>1 {_moment(facts['raised_ms'])} {name} stanch - alert {data} "
    return head.encode() + b"\xef\xbb\xbf" + canonical_json(dict(facts))


def _escaped(value: object) -> str:
    """Return a parameter's value, escaped as RFC 5424 section 6.3.3 says."""
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _moment(time_ms: Any) -> str:  # noqa: ANN401 - a value of a notice's facts
    return datetime.fromtimestamp(int(time_ms) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _post(name: str, url: str, body: JsonValue, *, token: SecretStr | None, key: str, scheme: str = "Bearer") -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    if token is not None:
        headers["Authorization"] = f"{scheme} {token.reveal()}"
    try:
        answer = exchange(HttpRequest("POST", url, headers, canonical_json(body)), timeout_seconds=SECONDS)
    except ExternalError as error:
        # A chat's webhook URL is a secret: the message must not name it.
        raise ExternalError(f"sink {name}: no answer") from error
    if not 200 <= answer.status < 300:
        raise ExternalError(f"sink {name}: answered {answer.status}")
