"""The sinks of a workspace, as its settings say; their secrets are read here and never shown."""

import os
from collections.abc import Mapping

from stanch.config import SinkSection
from stanch.crypto import sha256
from stanch.errors import InvalidInput
from stanch.terms import JsonValue
from stanch.watch.ocsf import Attested, notice_event
from stanch.watch.outbox import Notice, Sink
from stanch.watch.sinks import AlertmanagerSink, AppriseSink, Describe, FileSink, SyslogSink, WebhookSink
from stanch.workspace.opening import Workspace
from stanch.workspace.secret import read_secret


def sinks_of(workspace: Workspace, *, environ: Mapping[str, str] = os.environ) -> tuple[Sink, ...]:
    """Return every sink of the settings.

    Raises:
        InvalidInput: Two have one name, a secret cannot be read, or a part of one is missing.
    """
    sections = workspace.config.alerts.sinks
    if len({section.name for section in sections}) != len(sections):
        raise InvalidInput("alerts.sinks: two have the same name")
    return tuple(_sink(workspace, section, environ) for section in sections)


def _sink(workspace: Workspace, section: SinkSection, environ: Mapping[str, str]) -> Sink:
    name, tier, url = section.name, section.tier, section.url
    what = f"alerts.sinks: the secret of {name}"
    secret = read_secret(section.secret, workspace.folder, what=what, environ=environ) if section.secret else None
    if section.kind == "apprise":
        if secret is None:
            raise InvalidInput(f"alerts.sinks: {name} has no secret", next_step="its secret is its apprise URL")
        return AppriseSink(name, tier, secret)
    if not url:
        raise InvalidInput(f"alerts.sinks: {name} has no url")
    match section.kind:
        case "webhook":
            return WebhookSink(name, tier, url, secret, scheme=section.scheme)
        case "alertmanager":
            return AlertmanagerSink(name, tier, url, secret)
        case "ocsf-http":
            return WebhookSink(name, tier, url, secret, _describe(workspace), section.scheme)
        case "ocsf-file":
            return FileSink(name, tier, workspace.folder / url, _describe(workspace))
    return SyslogSink(name, tier, url, workspace.folder / section.authority if section.authority else None)


def _describe(workspace: Workspace) -> Describe:
    """Return what turns a notice into an OCSF event with the ledger's attestation of its evidence."""

    def describe(notice: Notice) -> dict[str, JsonValue]:
        entries = notice.facts["entries"]
        found = entries if isinstance(entries, list) else []
        return notice_event(notice, tuple(attested(workspace, index) for index in found if isinstance(index, int)))

    return describe


def attested(workspace: Workspace, index: int) -> Attested:
    """Return where the log holds an entry, and the hash of its bytes."""
    ledger = workspace.ledger
    return Attested(
        index, sha256(ledger.reader().entry(index)).hex(), ledger.origin, ledger.verifier.vkey.split("+")[1]
    )
