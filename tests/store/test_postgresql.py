"""PostgreSQL alone: URIs, TLS, passwords, settings of the server, lost connections, turns between processes."""

import datetime as dt
import ipaddress
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

import servers
from stanch.errors import CommitUnknown, InvalidInput, MissingExtraError, StoreError, StoreUnsafe
from stanch.store import open_tables, postgresql
from stanch.store.postgresql import Address
from stanch.store.schema.access import principal


@pytest.mark.parametrize(
    ("uri", "mode"),
    [
        ("postgresql://u@db.example.com/d", "verify-full"),
        ("postgresql://u@db.example.com:6432/d?sslmode=verify-full&sslrootcert=/etc/ca.pem", "verify-full"),
        ("postgresql://127.0.0.1/d", "prefer"),
        ("postgresql://localhost/d?sslmode=disable", "disable"),
        ("postgresql://[::1]:5433/d", "prefer"),
        ("postgresql:///d?host=/run/postgresql", "prefer"),
    ],
)
def test_addresses(uri, mode):
    address = Address.parse(uri)
    assert (address.database, address.tls["sslmode"]) == ("d", mode)
    assert "sslmode" not in address.name


@pytest.mark.parametrize(
    "uri",
    [
        *(f"postgresql://u@db.example.com/d?sslmode={mode}" for mode in ("disable", "prefer", "require", "verify-ca")),
        "postgresql://u@127.0.0.2.example.com/d?sslmode=require",
        "postgresql://localhost/d?sslmode=never",
        "postgresql://localhost/d?options=-c%20synchronous_commit=off",
        "postgresql://localhost/d?password=hunter2",
        "postgresql://localhost/d?host=db.example.com",
        "postgresql:///d?host=db.example.com",
        "postgresql://a,b/d",
        "postgresql://localhost/",
        "postgresql://localhost/d/e",
        "postgresql:///d",
        "postgresql:d",
        "postgresql://localhost:port/d",
        "postgresql://localhost/d?x",
        "postgresql://u:hunter2@localhost/d",
        "postgresql://u:hunt/er2@localhost/d",
    ],
)
def test_addresses_that_are_refused(uri):
    with pytest.raises(InvalidInput) as caught:
        open_tables(uri)
    assert "hunt" not in caught.value.what + caught.value.why + caught.value.next_step


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = Address.parse(f"postgresql://{text}")
    except InvalidInput:
        return
    assert address.tls["sslmode"] == "verify-full" or address.host.startswith(("/", "127.", "::1", "localhost"))


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="postgres"):
        open_tables("postgresql://localhost/d")


def test_nobody_listens():
    with pytest.raises(StoreError) as caught:
        open_tables(f"postgresql://u@127.0.0.1:{servers.free_port()}/d")
    assert "refused" in caught.value.why


def test_a_session_syncs_its_commits_whatever_the_variables_say(pg, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c synchronous_commit=off")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    with pg.open(create=True).write() as connection:
        for name in ("synchronous_commit", "fsync", "full_page_writes"):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "5s"
    with pg.open().read() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "repeatable read"


@pytest.mark.parametrize("name", ["lock_timeout", "idle_in_transaction_session_timeout"])
def test_a_pooler_that_drops_the_settings_of_a_session_is_refused(pg, monkeypatch, name):
    psycopg = pytest.importorskip("psycopg")
    connect = psycopg.connect

    def pooled(*, options, **settings):
        kept = " ".join(part for part in options.replace("-c ", "-c").split() if not part.startswith(f"-c{name}="))
        return connect(options=kept, **settings)

    monkeypatch.setattr(psycopg, "connect", pooled)
    with pytest.raises(StoreUnsafe, match=f"{name}: expected [0-9]+, found 0") as caught:
        pg.open(create=True)
    assert "pooler" in caught.value.why


def test_a_pooler_that_changes_sessions_between_transactions_is_refused(pg, monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    connect = psycopg.connect

    class Pooled:
        """Hands each transaction to the next of two sessions."""

        def __init__(self, **settings):
            self.sessions = [connect(**settings, autocommit=True) for _ in range(2)]

        def execute(self, *words):
            self.sessions.reverse()
            return self.sessions[0].execute(*words)

        def close(self):
            for session in self.sessions:
                session.close()

    monkeypatch.setattr(psycopg, "connect", Pooled)
    with pytest.raises(StoreUnsafe, match="change from one transaction to the next"):
        pg.open(create=True)


def test_a_lease_that_another_session_holds_at_its_end_is_told(pg, monkeypatch):
    lock = postgresql._lock
    monkeypatch.setattr(
        postgresql, "_lock", lambda connection, function, key: lock(connection, function, key) and "un" not in function
    )
    tables = pg.open(create=True)
    with pytest.raises(StoreUnsafe, match="change from one transaction to the next"), tables.lease("x") as held:
        assert held


@pytest.fixture(scope="module")
def own_server():
    """A server that may be killed and started with other settings."""
    with servers.postgresql_server() as server:
        yield server


def test_a_server_that_was_killed_kept_what_was_committed(own_server):
    with closing(open_tables(own_server.database(), create=True)) as tables:
        with tables.write() as connection:
            connection.exec_driver_sql("INSERT INTO act_lease VALUES ('kept', 'h', 1, 1)")
        own_server.kill()
        with pytest.raises(StoreError), tables.write():
            pass
        own_server.start()
        with tables.read() as connection:
            assert connection.exec_driver_sql("SELECT act FROM act_lease").scalars().all() == ["kept"]


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_keep_its_commits_is_refused(own_server, setting):
    uri = own_server.database()
    own_server.kill()
    kept, own_server.command = own_server.command, [*own_server.command, "-c", f"{setting}=off"]
    own_server.start()
    with pytest.raises(StoreUnsafe, match=f"{setting}: expected on, found off"):
        open_tables(uri, create=True)
    own_server.kill()
    own_server.command = kept
    own_server.start()


def test_a_password_comes_from_a_private_file(own_server, tmp_path, monkeypatch):
    uri = own_server.database()
    own_server.run(f"ALTER ROLE {servers.USER} PASSWORD 'hunter2'")
    own_server.kill()
    (own_server.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    own_server.start()
    monkeypatch.delenv("PGPASSWORD")
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    with pytest.raises(StoreError, match="database failed"):
        open_tables(uri, create=True)
    monkeypatch.setenv("PGPASSWORD_FILE", str(secret))
    open_tables(uri, create=True).close()
    secret.chmod(0o644)
    with pytest.raises(InvalidInput, match="others can read") as caught:
        open_tables(uri)
    assert "hunter2" not in caught.value.what + caught.value.why
    secret.chmod(0o600)
    secret.write_text("hunter3")
    with pytest.raises(StoreError) as caught:
        open_tables(uri)
    assert "hunter3" not in caught.value.what + caught.value.why


HOLDER = """
import sys, time
from stanch.store import open_tables, postgresql
tables = open_tables(sys.argv[1])
with tables.write() as connection:
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_writer_waits_for_another_process_and_not_for_a_dead_one(pg, postgresql):
    tables = pg.open(create=True)
    with subprocess.Popen([sys.executable, "-c", HOLDER, pg.uri], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"holds\n"
        start = time.monotonic()
        threading.Timer(0.5, process.kill).start()
        with tables.write() as connection:
            connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 1, 1)")
        assert 0.4 < time.monotonic() - start < 5
    assert postgresql.process.poll() is None


def test_a_writer_that_never_gets_its_turn_is_refused(pg, monkeypatch):
    assert postgresql._SESSION["lock_timeout"] == "5000"
    monkeypatch.setitem(postgresql._SESSION, "lock_timeout", "300")
    first, second = pg.open(create=True), pg.open()
    with first.write(), pytest.raises(StoreError) as caught, second.write():
        pass
    assert "lock timeout" in caught.value.why


def test_a_connection_lost_at_commit_is_neither_success_nor_failure(pg, postgresql):
    direct = pg.open(create=True)
    with servers.silent_proxy(postgresql.port) as (port, armed):
        pg.uri = pg.uri.replace(f":{postgresql.port}/", f":{port}/")
        tables = pg.open()
        armed.set()
        with pytest.raises(CommitUnknown), tables.write() as connection:
            connection.exec_driver_sql("INSERT INTO act_lease VALUES ('a', 'h', 1, 1)")
        with direct.read() as connection:
            assert connection.exec_driver_sql("SELECT act FROM act_lease").scalar() == "a"
        with tables.write() as connection:  # on a new connection
            connection.exec_driver_sql("INSERT INTO act_lease VALUES ('b', 'h', 1, 1)")


def certificate(name, *, signer=None, address=None):
    """Return a certificate for ``name`` and its key: of an authority that signs itself, or signed by ``signer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), dt.datetime.now(dt.UTC)
    issuer, issuer_key = (signer[0].subject, signer[1]) if signer else (subject, key)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )  # fmt: skip
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """A folder with two authorities' certificates, and a server's for 127.0.0.1 that one of them signed."""
    own, stranger = certificate("own authority"), certificate("stranger")
    leaf, key = certificate("server", signer=own, address="127.0.0.1")
    folder = tmp_path_factory.mktemp("tls")
    for file, content in {"own.pem": own[0], "stranger.pem": stranger[0], "server.pem": leaf}.items():
        (folder / file).write_bytes(content.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder


@pytest.fixture
def tls(postgresql, authorities):
    """PostgreSQL behind TLS, which this build of the server cannot do itself; yield a URI and what was agreed on."""
    with servers.tls_proxy(postgresql.port, authorities / "server.pem", authorities / "server.key") as (port, agreed):
        yield postgresql.database().replace(f":{postgresql.port}/", f":{port}/"), agreed


def test_a_connection_is_encrypted_and_its_server_proven(tls, authorities):
    uri, agreed = tls
    with closing(open_tables(f"{uri}?sslmode=verify-full&sslrootcert={authorities}/own.pem", create=True)) as tables:
        with tables.read() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        assert set(agreed) == {"TLSv1.3"}


@pytest.mark.parametrize(
    ("host", "authority", "why"),
    [("127.0.0.1", "stranger", "certificate verify failed"), ("localhost", "own", "does not match host name")],
)
def test_a_server_that_cannot_prove_its_name_is_refused(tls, authorities, host, authority, why):
    uri = tls[0].replace("127.0.0.1", host)
    with pytest.raises(StoreError) as caught:
        open_tables(f"{uri}?sslmode=verify-full&sslrootcert={authorities}/{authority}.pem", create=True)
    assert why in f"{caught.value.what} {caught.value.why}"


def test_a_server_without_tls_is_refused_where_it_is_asked_for(postgresql, authorities):
    with pytest.raises(StoreError) as caught:
        open_tables(f"{postgresql.database()}?sslmode=verify-full&sslrootcert={authorities}/own.pem", create=True)
    assert "does not support SSL" in f"{caught.value.what} {caught.value.why}"


def test_a_role_that_may_not_vacuum_the_statistics_is_told_so(postgresql):
    """PostgreSQL itself only warns: samples of erased values would stay in its statistics."""
    psycopg = pytest.importorskip("psycopg")
    uri, role = postgresql.database(), f"r{uuid.uuid4().hex}"
    mark = f"MARK-{uuid.uuid4().hex}"
    postgresql.run(f"CREATE ROLE {role} LOGIN")
    with psycopg.connect(uri, autocommit=True) as owner:
        owner.execute(f"GRANT ALL ON SCHEMA public TO {role}")
        number = owner.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()[0]
    files = postgresql.folder / "data" / "base" / str(number)

    def left():
        postgresql.run("CHECKPOINT")
        return any(mark.encode() in path.read_bytes() for path in files.iterdir())

    with closing(open_tables(uri.replace(f"{servers.USER}@", f"{role}@"), create=True)) as tables:
        row = {"kind": "user", "issuer": "l", "clearance": 0, "suspended": 0, "created_ms": 0}
        with tables.write() as connection:
            rows = [{**row, "id": f"p_{n}", "subject": f"{mark}{n}", "display": mark} for n in range(300)]
            connection.execute(principal.insert(), rows)
        with psycopg.connect(uri, autocommit=True) as owner:
            owner.execute("ANALYZE principal")
        with tables.write() as connection:
            connection.execute(principal.update().values(issuer=None, subject=None, display=None))
        with pytest.raises(StoreError, match="still hold values") as caught:
            tables.scrub()
        assert "pg_statistic" in caught.value.why
        assert left()
        postgresql.run(f"GRANT pg_maintain TO {role}")
        tables.scrub()
        assert not left()
