"""A small log on a real disk, with a clock that the tests turn."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stanch.crypto import SigningKey
from stanch.ledger import Act, Entry, Ledger, LedgerParams, LedgerReader, LogPlace, TrustPolicy, intent, new_act_id
from stanch.store import Tables, open_blobs, open_tables

ORIGIN = "example.com/stanch/log"
PRINCIPAL = "p_aaaqeayeaudaocajbifqydiob4"
START_MS = 1_767_225_600_000
VECTORS = Path(__file__).parent.parent / "vectors"


class Clock:
    """Seconds since 1970; stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = START_MS / 1000

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Ground:
    """The parts that a log stands on."""

    folder: Path
    tables_uri: str = "sqlite:stanch.db"
    blobs_uri: str = "file:blobs"
    clock: Clock = field(default_factory=Clock)
    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(bytes(range(32))))
    opened: list[Tables] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = self.open_tables(create=not self.database.exists())
        self.blobs = open_blobs(self.blobs_uri, base=self.folder)
        self.params = LedgerParams(highwater=self.folder / "highwater", checkpoint_seconds=0)

    @property
    def database(self) -> Path:
        return self.folder / "stanch.db"

    def open_tables(self, *, create: bool = False) -> Tables:
        self.opened.append(open_tables(self.tables_uri, base=self.folder, create=create))
        return self.opened[-1]

    def create(self) -> Ledger:
        return Ledger.create(
            self.tables, self.blobs, origin=ORIGIN, signer=self.key, params=self.params, clock=self.clock
        )

    def open(self, tables: Tables | None = None) -> Ledger:
        return Ledger.open(
            tables or self.tables, self.blobs, origin=ORIGIN, keys=[self.key], params=self.params, clock=self.clock
        )

    def entry(self, number: int = 0, *, kind: str = "tune.run") -> Entry:
        time_ms = int(self.clock() * 1000)
        act = Act(kind=kind, id=new_act_id(time_ms), principal=PRINCIPAL)
        return intent(act, time_ms=time_ms, payload={"number": number})

    def fill(self, log: Ledger, count: int) -> None:
        for future in [log.append_nowait(self.entry(number)) for number in range(count)]:
            future.result(30)

    @property
    def place(self) -> LogPlace:
        return LogPlace(self.tables_uri, self.blobs_uri, self.folder, (self.policy.logs[0].vkey,))

    def reader(self) -> LedgerReader:
        return LedgerReader(self.tables, self.blobs, verifiers=self.policy.logs)

    @property
    def policy(self) -> TrustPolicy:
        return TrustPolicy.of([vector("note/checkpoint.json")["vkey"]])


def vector(name: str):
    """Return a vector file."""
    return json.loads((VECTORS / name).read_text())


@pytest.fixture
def ground(tmp_path):
    ground = Ground(tmp_path)
    yield ground
    for tables in ground.opened:
        tables.close()


@pytest.fixture(scope="session")
def new_database(postgresql, tmp_path_factory):
    """Return a function that gives the URI of a database with all tables and no row: copying them is quicker."""
    made = postgresql.database()
    open_tables(made, base=tmp_path_factory.mktemp("tables"), create=True).close()
    return lambda: postgresql.copy(made)


@pytest.fixture
def pg_ground(tmp_path, postgresql, new_database):
    """A log whose rows are in PostgreSQL and whose tiles are files."""
    ground = Ground(tmp_path, new_database())
    ground.server = postgresql
    yield ground
    for tables in ground.opened:
        tables.close()


@pytest.fixture
def cloud_ground(tmp_path, new_database, s3):
    """A log whose rows are in PostgreSQL and whose tiles are in S3."""
    ground = Ground(tmp_path, new_database(), s3.uri())
    yield ground
    for tables in ground.opened:
        tables.close()


@pytest.fixture(params=["ground", "pg_ground"])
def either(request):
    """A log in SQLite, and one in PostgreSQL."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def make_ground():
    """Return the class, for tests that need more than one log or another place."""
    return Ground


@pytest.fixture
def load():
    return vector
