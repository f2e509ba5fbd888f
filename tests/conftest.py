"""What all tests share: no network, no shared caches, no hidden skip where every part is there, and real servers."""

import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; servers is their neighbour

import servers

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores; torch reads this when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says something about the machine, not about the code.
settings.register_profile("stanch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stanch")

# What the tests import stays for good: a collector that walks it all again and again takes a tenth of the run.
gc.set_threshold(50_000, 10, 10)

NO_SKIP = os.environ.get("STANCH_NO_SKIP") == "1"
MEMORY, NEEDED = Path("/dev/shm"), 8 << 30  # noqa: S108 - not a path to share: each run has a folder of its own
OWN = re.compile(r"stanch-tests-([0-9]+)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Keep what tests and their servers write in memory, where there is plenty: most of them wait for a disk."""
    if "PYTEST_XDIST_WORKER" in os.environ or config.option.basetemp or not os.access(MEMORY, os.W_OK):
        return
    for folder in MEMORY.iterdir():  # left by runs that were killed
        if (found := OWN.fullmatch(folder.name)) and not Path("/proc", found[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)
    space = os.statvfs(MEMORY)
    free = re.search(r"^MemAvailable: +([0-9]+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if free and min(space.f_bavail * space.f_frsize, int(free[1]) << 10) >= NEEDED:
        folder = MEMORY / f"stanch-tests-{os.getpid()}"
        config.option.basetemp = str(folder / "tests")
        folder.mkdir()
        folder.chmod(0o711)  # a server's ordinary user finds its own folder there
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None


def pytest_unconfigure(config):
    """Free the memory."""
    folder = Path(config.option.basetemp or "").parent
    if "PYTEST_XDIST_WORKER" not in os.environ and OWN.fullmatch(folder.name):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Let the second worker read the files from the end: each finds half of them compiled by the other."""
    outcome = yield
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1" and isinstance(collector, pytest.Session | pytest.Directory):
        outcome.get_result().result.reverse()


def pytest_collection_modifyitems(items):
    """Among workers the files with long tests begin, then those with many: what begins last shall end soon."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    counts = Counter(item.path for item in items)
    early = {item.path for item in items if item.get_closest_marker("slow")}
    # One file has the models made that the audit's tests share, before another worker could have to wait for them.
    early.add(min((item.path for item in items if "tiny" in item.fixturenames), default=None))
    items.sort(key=lambda item: (item.path not in early, -counts[item.path], item.path))


def pytest_collection_finish():
    """Take what is there by now out of the collector's sight."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001 - pytest's signature
    """Where every part is installed, a skipped test is a failed one."""
    outcome = yield
    report = outcome.get_result()
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although every part is installed: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """Give the whole run, all its workers, a cache folder of its own; yield the user's, where a fetched model lies."""
    from stanch.tune.fetch import cache_folder  # noqa: PLC0415 - used here alone

    found, run = cache_folder(), tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANCH_CACHE_DIR", str(folder))
        yield found


@pytest.fixture
def tmp_path(request, tmp_path_factory, _numbers=itertools.count()):  # noqa: B008 - one for all tests
    """A fresh folder, as pytest's own: that one reads the names of all earlier ones to number the next."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}{next(_numbers)}", numbered=False)


@pytest.fixture
def open_here(tmp_path):
    """Return a function that names what this process holds open below the test's folder, by name or deleted."""

    def held():
        found = []
        for handle in Path("/proc/self/fd").iterdir():
            try:
                found.append(str(handle.readlink()))
            except FileNotFoundError:  # closed meanwhile: the listing's own, or an earlier test's
                continue
        return [path for path in found if Path(path).is_relative_to(tmp_path)]

    return held


@pytest.fixture
def make_disk(tmp_path):
    """Return a function that mounts a disk of so many megabytes and returns its folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    folder = tmp_path / "disk"

    def make(megabytes):
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "stanch-test", str(folder)], check=True)
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server; ``postgresql.database()`` makes an empty database and returns its URI."""
    with servers.postgresql_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_service():
    """An S3 service that no variable leads to yet."""
    with servers.s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_service, monkeypatch):
    """The S3 service, with the variables that lead to it; ``s3.uri()`` returns an empty prefix."""
    for name, value in s3_service.environment.items():
        monkeypatch.setenv(name, value)
    return s3_service


@pytest.fixture(scope="session")
def kms_service():
    """A KMS that no variable leads to yet."""
    with servers.kms_server() as server:
        yield server


@pytest.fixture
def kms(kms_service, monkeypatch):
    """The KMS, with the variables that lead to it; ``kms.key()`` makes a key and returns its ARN."""
    for name, value in kms_service.environment.items():
        monkeypatch.setenv(name, value)
    return kms_service


@pytest.fixture(scope="session")
def softhsm():
    """A token of SoftHSM2; ``softhsm.key()`` makes a key on it and returns its URI."""
    with servers.softhsm_token() as token:
        yield token


@pytest.fixture(scope="session", name="authority")
def _authority(tmp_path_factory):
    """A time-stamping authority; ``authority.served`` lets it answer at a URL."""
    if find_spec("rfc3161_client") is None or shutil.which("openssl") is None:
        pytest.skip("rfc3161-client or openssl is not installed")
    from authority import Authority  # noqa: PLC0415 - used here alone

    return Authority(tmp_path_factory.mktemp("tsa") / "a")


@pytest.fixture(scope="session")
def steps():
    """The compiled steps of a walk over an index, and the glance."""
    pytest.importorskip("numba")
    from stanch.scan.compiler import compile_steps  # noqa: PLC0415 - few tests need it

    return compile_steps()
