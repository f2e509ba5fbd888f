"""What ``stanch doctor`` looks at: each part of a workspace on its own, so that one broken part hides no other."""

import importlib.metadata
import importlib.util
import os
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from stanch import __version__
from stanch.access import Directory, PolicyVersions
from stanch.access.glass import Glasses
from stanch.access.policy import missing_forbids, parse_policies, permits_role
from stanch.config import Config, load_config
from stanch.config.load import SETTINGS, user_config_file
from stanch.errors import InvalidInput, StanchError
from stanch.ledger import Ledger, LedgerReader, TrustPolicy
from stanch.store import Tables, open_blobs, open_tables
from stanch.workspace.health_check import Check, State
from stanch.workspace.health_serving import examine_alerts, examine_certificates, examine_grants, examine_parts
from stanch.workspace.keyring import SIGNERS, Keyring
from stanch.workspace.lease import Leases
from stanch.workspace.opening import KEYS, STATE, log_verifiers
from stanch.workspace.rights import compare_rights
from stanch.workspace.witnessing import ledger_params

EXTRAS = {
    "train": "torch", "dp": "dp_accounting", "gguf": "gguf", "demo": "faker", "gateway": "uvicorn", "aws": "boto3",
    "postgres": "psycopg", "s3": "obstore", "age": "pyrage", "pkcs11": "pkcs11", "arrow": "pyarrow",
    "ids": "stdnum", "rules": "kingfisher_sdk", "ner": "spacy", "presidio": "presidio_analyzer", "ray": "ray",
    "timestamp": "rfc3161_client", "trl": "trl", "console": "starlette", "watch": "apprise", "pdf": "fpdf",
    "fast": "numba",
}  # fmt: skip
"""A module of each optional part, by which one sees whether it is installed."""
_PACKAGES = ("cryptography", "sqlalchemy", "cedarpy", "click", "msgspec", "numpy")
_OLDEST_PYTHON = (3, 11)


def examine(
    folder: Path | None, *, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.time
) -> tuple[Check, ...]:
    """Look at the environment and, if there is one, at the workspace in ``folder``. Nothing is changed, no key is used.

    An error of a part is the answer of its check; the parts that rest on it are then left out.
    """
    return (*_environment(), *(_workspace(folder, environ, clock) if folder is not None else ()))


def _environment() -> Iterator[Check]:
    python = ".".join(str(part) for part in sys.version_info[:3])
    old = sys.version_info < _OLDEST_PYTHON
    yield Check("python", State.FAILED if old else State.OK, python, "use Python 3.11 or newer" if old else "")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    yield Check("versions", State.OK, f"stanch {__version__}, {versions}")
    present = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module) is not None]
    yield Check("optional parts", State.OK, ", ".join(present) or "none")


def _workspace(folder: Path, environ: Mapping[str, str], clock: Callable[[], float]) -> Iterator[Check]:
    try:
        config = load_config(folder / SETTINGS, environ=environ, user_file=user_config_file(environ))
    except StanchError as error:
        yield _failed("settings", error)
        return
    variables = sorted(place for place in config.origins.values() if place.startswith("environment "))
    also = f"; from the {', '.join(variables)}" if variables else ""
    yield Check("settings", State.OK, f"{folder / SETTINGS}: profile {config.access.profile}{also}")
    keys = Keyring(folder / STATE / KEYS)
    yield from _keys(keys, folder / STATE / KEYS, team=config.access.profile == "team")
    now = datetime.fromtimestamp(clock(), UTC)
    yield from examine_parts(config)
    yield from examine_certificates(config, folder, keys, now)
    try:
        tables = open_tables(config.workspace.tables, base=folder)
    except StanchError as error:
        yield _failed("database", error)
        return
    try:
        yield _database(tables)
        leases = Leases(tables, clock)
        reader = yield from _log(folder, config, keys, tables, clock)
        yield _acts(leases)
        if config.gateway.models or config.alerts.sinks or config.watch.audits:
            yield from examine_alerts(config, tables, reader, leases.running(), now)
        yield examine_grants(tables, config.ledger.origin, now)
        yield from _policies(tables, config.ledger.origin)
        yield from _emergencies(tables, clock)
    except StanchError as error:
        yield _failed("log", error)
    finally:
        tables.close()
    yield from _watchers(config)


def _keys(keys: Keyring, folder: Path, *, team: bool) -> Iterator[Check]:
    files = keys.private_files()
    found = [check for path in (folder, folder / "people", *files) for check in _private(path)]
    absent = [name for name in SIGNERS if not keys.versions(name)]
    if not found:
        try:
            for name in (name for name in SIGNERS if name not in absent):
                for version in keys.versions(name):
                    if keys.signer(name, version).public != keys.public(name, version):
                        what = f"{keys.public_path(name, version)}: is not the public half of key {name}"
                        found.append(Check("keys", State.FAILED, what, "restore the folder of keys"))
        except StanchError as error:
            found.append(_failed("keys", error))
    yield from found or [Check("keys", State.OK, f"{len(files)} private files; people: {', '.join(keys.people())}")]
    if absent:
        what = f"the private half is not here of {', '.join(absent)}: so it should be where nothing is signed with it"
        yield Check("keys", State.WARNING, what, "where it is signed with, copy it from the host that has it")
    if team and not found and (unlocked := keys.unlocked()):
        what = f"no passphrase locks the keys of {', '.join(unlocked)}: whoever has a file acts as its owner"
        yield Check("keys", State.WARNING, what, f"stanch access rekey {unlocked[0]} --new-passphrase-file FILE")


def _private(path: Path) -> Iterator[Check]:
    status = path.stat()
    mode, wanted = stat.S_IMODE(status.st_mode), 0o700 if path.is_dir() else 0o600
    if mode & ~wanted:
        what = f"{path}: others may use it (mode {mode:04o})"
        yield Check("keys", State.FAILED, what, f"chmod {wanted:o} {path}; if somebody may have read it, rotate it")
    if status.st_uid != os.geteuid():
        what = f"{path}: belongs to user {status.st_uid}, not to you"
        yield Check("keys", State.WARNING, what, "run stanch as the owner of its workspace")


def _database(tables: Tables) -> Check:
    """Return what the database promises; opening it has compared every setting that durability rests on."""
    if tables.dialect == "postgresql":
        return _server(tables)
    with tables.read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
        broken = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    shown = ", ".join(f"{name} {value}" for name, value in settings.items())
    if broken != "ok":
        return Check(
            "database", State.FAILED, f"sqlite: {broken}", "restore the newest backup, then: stanch log verify"
        )
    return Check("database", State.OK, f"sqlite: {shown}")


def _server(tables: Tables) -> Check:
    with tables.read() as connection:
        standbys, waits_for = connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names')"
        ).one()
    if standbys and not waits_for:
        what = f"postgresql: {standbys} others receive its changes, and a commit waits for none of them"
        next_step = "set synchronous_standby_names: after a fail-over entries that were acknowledged may be missing"
        return Check("database", State.WARNING, what, next_step)
    return Check("database", State.OK, "postgresql: its settings were compared when it was opened")


def _log(
    folder: Path, config: Config, keys: Keyring, tables: Tables, clock: Callable[[], float]
) -> Generator[Check, None, LedgerReader]:
    blobs = open_blobs(config.workspace.blobs, base=folder)
    params = ledger_params(config, folder, STATE, log_verifiers(config, keys))
    if params.policy is not None and (config.ledger.witnesses or config.ledger.policy):
        yield _quorum(params.policy)
    # Without a timer nothing is published; opening compares the rows with every checkpoint that is remembered.
    params = replace(params, checkpoint_seconds=0)
    ledger = Ledger.open(
        tables, blobs, origin=config.ledger.origin, keys=keys.signers("log"), params=params, clock=clock
    )
    reader = ledger.reader()
    size, published = reader.size(), reader.checkpoint().checkpoint.size
    yield Check("log", State.OK, f"{reader.origin}: {size} entries, {published} in the published checkpoint")
    yield from _rights(tables, reader)
    if params.highwater.parent.stat().st_dev == folder.stat().st_dev:
        what = "its high-water file lies on the workspace's own disk, and is restored with it from an old backup"
        yield Check("log", State.WARNING, what, "set [ledger] highwater to a file on another disk")
    return reader


def _quorum(policy: TrustPolicy) -> Check:
    """Say how many witnesses would have to lie before two histories could be shown."""
    shared = policy.overlap()
    what = f"{len(policy.witnesses)} configured; any two quorums share {shared} of them (2k - n for k of n)"
    if shared < 1:
        what += ": two histories could both be cosigned, even if no witness lies"
        return Check("witnesses", State.WARNING, what, "raise the quorum in [ledger] policy over half of the witnesses")
    what += f": while the number f of those that lie stays under {shared} (2k - n > f), only one history is cosigned"
    return Check("witnesses", State.OK, what)


def _rights(tables: Tables, reader: LedgerReader) -> Iterator[Check]:
    """Hold principals, keys, grants and policies in the database against the entries that made them."""
    compared = compare_rights(tables, reader)
    next_step = "look the entry up: stanch log show; undo what no act did, and find out who writes to the database"
    found = [Check("rights", State.FAILED, what, next_step) for what in compared.differences]
    if compared.silent:
        what = f"rows of {compared.excused} people not compared: {compared.silent}: an older release wrote it"
        found.append(
            Check("rights", State.WARNING, what, "compare by hand: stanch access who, beside stanch log query")
        )
    if compared.unsigned:
        what = (
            f"{len(compared.unsigned)} of {compared.acts} acts about rights came without a key of whoever acted, the "
            f"last in entry {compared.unsigned[-1]}: whoever writes the database could have added them"
        )
        found.append(Check("rights", State.WARNING, what, "ask whoever they name: stanch log query --kind access"))
    if not found:
        what = f"the database holds what {compared.acts} acts of the log say of people, keys, policies and gates"
        if not compared.acts:
            what = "the log holds no act about rights yet: nothing was compared with it"
        found = [Check("rights", State.OK, what)]
    yield from found


def _acts(leases: Leases) -> Check:
    running, expired = leases.running(), leases.expired()
    if expired:
        what = f"{len(expired)} acts have neither an outcome nor a sign of life"
        return Check("acts", State.WARNING, what, "stanch status records them as abandoned")
    return Check("acts", State.OK, f"{len(running)} running")


def _policies(tables: Tables, origin: str) -> Iterator[Check]:
    """Say which policies are in force, what they lack of the shipped ones, and who holds a role that they forgot."""
    try:
        active = PolicyVersions(tables).active()
        missing = missing_forbids(active.text)
        policies = parse_policies(active.text, without=missing)
    except InvalidInput as error:
        yield _failed("policies", error)
        return
    if missing:
        what = f"version {active.version} is in force, which lacks or changes forbids of the shipped set: "
        next_step = "stanch access policy show; rollback takes it back"
        yield Check("policies", State.WARNING, what + ", ".join(missing), next_step)
    else:
        yield Check("policies", State.OK, f"version {active.version} is in force, with every forbid of the shipped set")
    directory = Directory(tables, origin=origin)
    held = {grant.role for who in directory.principals() for grant in directory.facts_of(who.id).grants}
    if idle := sorted(role for role in held if not permits_role(policies, role)):
        what = f"version {active.version} permits nothing to {', '.join(idle)}, which somebody holds"
        next_step = f"copy role-{idle[0]} from stanch/access/default.cedar; then: stanch access policy activate FILE"
        yield Check("policies", State.WARNING, what, next_step)


def _emergencies(tables: Tables, clock: Callable[[], float]) -> Iterator[Check]:
    """Say which emergency rights are open, and which nobody reviewed in time."""
    glasses = Glasses(tables, clock=clock)
    if opened := glasses.open_now():
        what = f"emergency rights are open now: {', '.join(f'{key} of {who}' for who, key in sorted(opened.items()))}"
        yield Check(
            "emergency", State.WARNING, what, "they end within the hour: stanch log query --kind access.break-glass"
        )
    yield _reviews(glasses, clock)


def _reviews(glasses: Glasses, clock: Callable[[], float]) -> Check:
    waiting = glasses.unreviewed()
    overdue = [glass.id for glass in waiting if glass.overdue(int(clock() * 1000))]
    if overdue:
        what = f"nobody reviewed in time how emergency rights were used: {', '.join(overdue)}"
        return Check("reviews", State.FAILED, what, f"as another principal: stanch access review {overdue[0]}")
    return Check("reviews", State.OK, f"{len(waiting)} waiting, none overdue")


def _watchers(config: Config) -> Iterator[Check]:
    ledger = config.ledger
    if not ledger.witnesses and not ledger.policy:
        what = (
            "no witness configured: whoever holds the log key and every copy of its checkpoints could rewrite history"
        )
        yield Check(
            "witnesses", State.WARNING, what, "set [[ledger.witnesses]]; run one with: stanch log witness serve"
        )
    if ledger.anchors:
        yield Check("anchors", State.OK, ", ".join(uri.partition(":")[0] for uri in ledger.anchors))
    else:
        what = "no anchor configured: checkpoints lie beside the log only"
        yield Check("anchors", State.WARNING, what, 'set [ledger] anchors, for example ["file:/mnt/other-disk"]')


def _failed(name: str, error: StanchError) -> Check:
    return Check(name, State.FAILED, error.what + (f" ({error.why})" if error.why else ""), error.next_step)
