"""People with keys in a fresh database, and a clock that the tests turn."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; oidc_provider is their neighbour

from stanch.access import Approvals, Directory, sign_session
from stanch.crypto import SigningKey
from stanch.store import open_tables

ORIGIN = "example.com/stanch"
VECTORS = Path(__file__).parent.parent / "vectors" / "access"


class Clock:
    """Seconds since 1970; stands still until it is moved."""

    def __init__(self):
        self.seconds = 1_767_225_600.0

    def __call__(self):
        return self.seconds


class People:
    """A directory, its approvals, and the keys of everybody who was registered here."""

    def __init__(self, tables):
        self.tables = tables
        self.clock = Clock()
        self.directory = Directory(tables, origin=ORIGIN, clock=self.clock)
        self.approvals = Approvals(tables, origin=ORIGIN, clock=self.clock)
        self.keys = {}

    def replace_key(self, key_id):
        """Let whoever signs in with a key sign in with another one, which is thrown away."""
        return self.directory.replace_key(key_id, SigningKey.generate("ed25519").public)

    @property
    def now_ms(self):
        return int(self.clock() * 1000)

    def add(self, name, **options):
        key = SigningKey.from_seed(name.encode().ljust(32, b"."))
        principal = self.directory.register(key.public, display=name, **options)
        self.keys[principal.id] = key
        return principal.id

    def sign_in(self, principal, **options):
        login = sign_session(self.keys[principal], ORIGIN, self.directory.challenge(), self.now_ms)
        return self.directory.session(login, **options)


@pytest.fixture
def people(tmp_path):
    tables = open_tables("sqlite:stanch.db", base=tmp_path, create=True)
    yield People(tables)
    tables.close()


@pytest.fixture
def load():
    return lambda name: json.loads((VECTORS / name).read_text())
