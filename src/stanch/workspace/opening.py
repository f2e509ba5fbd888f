"""A workspace: one folder with settings, keys, tables, blobs and the log, and somebody who acts in it."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from stanch.config import Algorithms, Config, load_config
from stanch.config.load import user_config_file
from stanch.crypto import random_bytes, sync_folder, write_atomic
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import Ledger, LedgerReader, NoteSigner, NoteVerifier
from stanch.ledger.entry import read_event
from stanch.store import BlobStore, Tables, open_blobs, open_tables
from stanch.workspace.door import Door
from stanch.workspace.keyring import Keyring
from stanch.workspace.lease import Leases
from stanch.workspace.people import Ground, People, Profile, Unlock, register_owner
from stanch.workspace.recover import record_abandoned
from stanch.workspace.witnessing import ledger_params, witnessing

SETTINGS = "stanch.toml"
STATE = ".stanch"
KEYS, UNFINISHED = "keys", "keys.partial"
_LATEST = 64
"""How many of the newest entries are looked at: what is noted of strangers says nothing of the profile."""


@dataclass(slots=True)
class Workspace:
    """An opened workspace. Use it as a context manager: closing publishes the log's last checkpoint.

    Attributes:
        folder: Where it lies.
        config: Its settings.
        keys: Its keys.
        ledger: Its log; only :attr:`door` appends.
        leases: Signs of life of the acts that run now.
        people: Who there is, and who acts.
        door: Does acts: authorised and recorded.
    """

    folder: Path
    config: Config
    keys: Keyring
    tables: Tables
    blobs: BlobStore
    ledger: Ledger
    leases: Leases
    people: People
    door: Door

    @classmethod
    def init(
        cls,
        folder: Path,
        *,
        profile: Profile = "solo",
        owner: str = "owner",
        passphrase: Passphrase | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a workspace in ``folder`` (created if missing) and open it.

        The first principal is ``owner``: all roles in profile ``solo``; in profile ``team`` the roles that the rules of
        separated duties allow to be held together. The workspace exists once its folder of keys has its final name;
        what an interrupted attempt left is replaced.

        Raises:
            InvalidInput: There is a workspace already, or somebody makes one at this moment; its settings name another
                profile; or the folder cannot be written. Nothing is left then.
        """
        fresh = not folder.exists()
        with _alone_in(folder):
            state, settings = folder / STATE, folder / SETTINGS
            if (state / KEYS).exists() or (state.exists() and not (state / UNFINISHED).exists()):
                raise InvalidInput(
                    f"{folder}: holds a workspace already", next_step=f"stanch --workspace {folder} status"
                )
            found = settings.exists()
            _make_state(folder, load_config(settings, user_file=user_config_file()).chosen_algorithms())
            try:
                if not found:
                    text = f'[ledger]\norigin = "{_fresh_origin()}"\n\n[access]\nprofile = "{profile}"\n'
                    write_atomic(settings, text.encode(), mode=0o644)
                _fill(folder, profile, owner, passphrase, clock)
                (state / UNFINISHED).rename(state / KEYS)
                sync_folder(state)
            except BaseException:
                shutil.rmtree(state, ignore_errors=True)
                if not found:
                    settings.unlink(missing_ok=True)
                if fresh:
                    folder.rmdir()
                raise
        unlock = (lambda: passphrase) if passphrase is not None else None
        return cls.open(folder, principal=owner, unlock=unlock, clock=clock)

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        principal: str | None = None,
        unlock: Unlock | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the workspace in ``folder``, or the nearest one above the current folder.

        Args:
            folder: The workspace's folder.
            principal: Whose local key is used; by default that of whoever was registered first.
            unlock: Asked for the passphrase if the key is locked.
            environ: Where settings may be overridden.
            clock: Seconds since 1970.

        Raises:
            NotFound: There is no workspace.
            NotAuthenticated: The principal has no key here, or is not registered.
        """
        found = find_workspace(folder)
        config = load_config(found / SETTINGS, environ=environ, user_file=user_config_file())
        _check_profile(config)
        keys = Keyring(found / STATE / KEYS)
        with ExitStack() as opened:
            tables = opened.enter_context(closing(open_tables(config.workspace.tables, base=found)))
            blobs = open_blobs(config.workspace.blobs, base=found)
            ledger = Ledger.open(
                tables, blobs, origin=config.ledger.origin, keys=keys.signers("log"),
                params=ledger_params(config, found, STATE, log_verifiers(config, keys)), clock=clock,
            )  # fmt: skip
            opened.enter_context(closing(ledger))
            access = config.access
            _check_bound(access.profile, ledger.reader())
            ground = Ground(tables, keys, ledger.origin, access.profile, clock, access.session_minutes)
            people, leases = People.login(ground, principal, unlock=unlock), Leases(tables, clock)
            record_abandoned(ledger, leases, clock)
            door = people.door(ledger, leases, witnessing(config, ledger))
            workspace = cls(found, config, keys, tables, blobs, ledger, leases, people, door)
            opened.pop_all()  # from here on close() does it
        return workspace

    def acting_as(self, principal: str, *, unlock: Unlock | None = None) -> "Workspace":
        """Return the same workspace with another principal of its keyring acting."""
        people = People.login(self.people.ground, principal, unlock=unlock)
        return replace(self, people=people, door=people.door(self.ledger, self.leases, self.door.witnessing))

    @property
    def state(self) -> Path:
        """The folder of everything that the workspace keeps."""
        return self.folder / STATE

    def now(self) -> datetime:
        """Return the time of the workspace's clock, with its zone."""
        return datetime.fromtimestamp(self.door.clock(), UTC)

    def close(self) -> None:
        """Publish the last checkpoint and give back the database, also one that takes nothing any more."""
        with closing(self.tables), closing(self.ledger):
            self.leases.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_workspace(folder: Path | None) -> Path:
    """Return ``folder``, or the nearest folder above the current one that holds a workspace.

    Raises:
        NotFound: There is none.
    """
    candidates = [folder] if folder is not None else [Path.cwd(), *Path.cwd().parents]
    for candidate in candidates:
        if (candidate / STATE / KEYS).is_dir():
            return candidate
    where = folder if folder is not None else f"{Path.cwd()} or any folder above it"
    raise NotFound(f"no workspace in {where}", next_step="name it: --workspace FOLDER, or make one: stanch init")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and keep others from making a workspace in it until the block ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written", why=error.strerror or "") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which ends with the process
        except BlockingIOError as error:
            what = f"{folder}: somebody makes a workspace here at this moment"
            raise InvalidInput(what, next_step="wait until it is made") from error
        yield
    finally:
        os.close(handle)


def _make_state(folder: Path, chosen: Algorithms) -> None:
    """Make the folder of an unfinished workspace with its keys; it appears under its name with all of them."""
    partial = folder / f"{STATE}.partial"
    try:
        for leftover in (partial, folder / STATE):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(mode=0o700)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written", why=error.strerror or "") from error
    try:
        Keyring.create(partial / UNFINISHED, chosen)
        partial.rename(folder / STATE)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(folder)


def _fill(
    folder: Path, profile: Profile, owner: str, passphrase: Passphrase | None, clock: Callable[[], float]
) -> None:
    """Start the tables and the log of an unfinished workspace, and register its first principal."""
    config = load_config(folder / SETTINGS, user_file=user_config_file())
    if config.access.profile != profile:
        raise InvalidInput(
            f"{folder}: expected a workspace with profile {profile}, its settings say {config.access.profile}",
            next_step=f"stanch init --profile {config.access.profile}, or change [access] profile in {SETTINGS}",
        )
    _check_profile(config)
    if not config.ledger.origin:
        raise InvalidInput(
            f"{folder / SETTINGS}: expected a name for the log, found none",
            next_step=f'add: [ledger] origin = "{_fresh_origin()}"',
        )
    keys = Keyring(folder / STATE / UNFINISHED)
    with closing(open_tables(config.workspace.tables, base=folder, create=True)) as tables:
        blobs = open_blobs(config.workspace.blobs, base=folder)
        with Ledger.create(
            tables, blobs, origin=config.ledger.origin, signer=keys.signer("log"),
            params=ledger_params(config, folder, STATE, log_verifiers(config, keys)), clock=clock,
        ) as ledger:  # fmt: skip
            register_owner(Ground(tables, keys, ledger.origin, profile, clock), owner, passphrase=passphrase)


def _check_profile(config: Config) -> None:
    """A database that several hosts share has several people: there the two-person rules are on."""
    if config.workspace.tables.startswith("postgresql:") and config.access.profile != "team":
        raise InvalidInput(
            f"tables in PostgreSQL need profile team, the settings say {config.access.profile}",
            why="solo switches the two-person rules off",
            next_step=f'set [access] profile = "team" in {SETTINGS}, and: stanch init --profile team '
            "--owner-passphrase-file FILE",
        )


def _check_bound(profile: Profile, reader: LedgerReader) -> None:
    """Refuse to open as one person's what was several people's: the settings are a file, the log is not."""
    if profile == "team":
        return
    latest = reader.tail(max(0, reader.size() - _LATEST), _LATEST)
    for index, data in chain(reader.tail(0, 1), latest):
        if read_event(data).unmapped.stanch.profile == "team":
            raise InvalidInput(
                f"log {reader.origin}: was kept in profile team, the settings say {profile} (entry {index})",
                why="solo switches the two-person rules off",
                next_step=f'set [access] profile = "team" in {SETTINGS}',
            )


def _fresh_origin() -> str:
    return f"stanch.local/{random_bytes(16).hex()}"


def log_verifiers(config: Config, keys: Keyring) -> tuple[NoteVerifier, ...]:
    """Return the public halves of all keys of the workspace's log, the newest first."""
    return tuple(NoteSigner(config.ledger.origin, key).verifier for key in keys.signers("log"))
