"""What the doctor says of serving: parts, certificates, grants that end, and whether alerts reach anybody."""

import importlib.util
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import func, select

from stanch.access import Directory
from stanch.config import Config
from stanch.crypto.certificate import certificate_end
from stanch.errors import StanchError
from stanch.ledger import EntryQuery, LedgerReader
from stanch.sign import TrustedKeys
from stanch.store import Tables
from stanch.store.schema.alerts import outbox
from stanch.workspace.health_check import Check, State
from stanch.workspace.keyring import Keyring

SOON = timedelta(days=14)
_DEAD_DAYS = 7


def examine_parts(config: Config) -> Iterator[Check]:
    """Say which optional parts the settings need and this installation lacks."""
    sinks, anchors = config.alerts.sinks, config.ledger.anchors
    needed = {
        "gateway": ("uvicorn", bool(config.gateway.models)),
        "watch": ("apprise", any(sink.kind == "apprise" for sink in sinks)),
        "train": ("transformers", bool(config.watch.audits)),
        "aws": ("boto3", any(uri.startswith("s3lock:") for uri in anchors)),
        "s3": ("obstore", config.workspace.blobs.startswith("s3:")),
    }
    for part, (module, wanted) in needed.items():
        if wanted and importlib.util.find_spec(module) is None:
            yield Check("optional parts", State.FAILED, f"the settings need {part}, which is not installed",
                        f"pip install 'stanch[{part}]'")  # fmt: skip


def examine_certificates(config: Config, folder: Path, keys: Keyring, now: datetime) -> Iterator[Check]:
    """Say which certificates of servers and of models have ended or end soon."""
    for part, settings in (("gateway", config.gateway), ("console", config.console)):
        if settings.certificate:
            path = folder / settings.certificate
            yield _ending(
                f"TLS of the {part}",
                partial(certificate_end, path),
                now,
                "renew it; no restart is needed",
            )
    for model in config.gateway.models:
        if model.require_certificate:
            path = folder / model.require_certificate
            yield _ending(
                f"certificate of {model.name}", partial(_leak_certificate_end, path, keys), now,
                "audit the model again: stanch audit run MODEL",
            )  # fmt: skip


def examine_grants(tables: Tables, origin: str, now: datetime) -> Check:
    """Say whose grants end soon: a server whose grant ends does not start again."""
    directory, soon = Directory(tables, origin=origin, clock=now.timestamp), (now + SOON).timestamp() * 1000
    ending = [
        f"{grant.role} of {principal.display or principal.id} on {_date(grant.expires_ms)}"
        for principal in directory.principals()
        for grant in directory.facts_of(principal.id).grants
        if grant.expires_ms is not None and grant.expires_ms <= soon
    ]
    if not ending:
        return Check("grants", State.OK, f"none ends within {SOON.days} days")
    what = f"{len(ending)} end within {SOON.days} days: {', '.join(ending[:5])}{' and others' if ending[5:] else ''}"
    return Check("grants", State.WARNING, what, "stanch access grant NAME ROLE --days N")


def examine_alerts(
    config: Config, tables: Tables, reader: LedgerReader, running: tuple[str, ...], now: datetime
) -> Iterator[Check]:
    """Say whether somebody watches what is served, and whether alerts reach anybody."""
    watches = any(reader.query(EntryQuery(act=act, kind="watch.serve", limit=1)) for act in running)
    if watches:
        yield Check("watch", State.OK, "runs")
    else:
        yield Check("watch", State.WARNING, "no watch runs: nobody reads the log for alerts",
                    "stanch serve, or: stanch watch serve")  # fmt: skip
    names = [sink.name for sink in config.alerts.sinks]
    if not names:
        yield Check("alerts", State.WARNING, "nobody is told of alerts: no sink is set", "set [[alerts.sinks]]")
        return
    since = (now - timedelta(days=_DEAD_DAYS)).timestamp() * 1000
    with tables.read() as connection:
        dead = select(func.count()).where(outbox.c.state == "dead", outbox.c.created_ms >= since)
        count = connection.execute(dead).scalar_one()
    if count:
        what = f"{count} notices of the last {_DEAD_DAYS} days were tried for a day and given up"
        yield Check("alerts", State.WARNING, what, "repair the sink; what they said: stanch watch alerts")
    else:
        yield Check("alerts", State.OK, f"tells {', '.join(names)}")


def _ending(name: str, find: Callable[[], datetime], now: datetime, next_step: str) -> Check:
    try:
        end = find()
    except StanchError as error:
        return Check(name, State.FAILED, error.what, error.next_step or next_step)
    if end <= now:
        return Check(name, State.FAILED, f"ended on {end:%Y-%m-%d}", next_step)
    state = State.WARNING if end <= now + SOON else State.OK
    return Check(name, state, f"good until {end:%Y-%m-%d}", next_step if state is State.WARNING else "")


def _leak_certificate_end(path: Path, keys: Keyring) -> datetime:
    from stanch.audit import LeakCert  # noqa: PLC0415 - a workspace that serves nothing loads no audit
    from stanch.audit.certificate_file import read_certificate  # noqa: PLC0415 - as above

    statement = read_certificate(path, TrustedKeys(keys.publics("publisher"))).statement
    return LeakCert.parse(statement.predicate).expires_at


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
