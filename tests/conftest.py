"""What all tests share: no network, no shared caches, no hidden skip where every part is there, and real servers."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the test folders are no packages; servers is their neighbour

import servers

NO_SKIP = os.environ.get("STANCH_NO_SKIP") == "1"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001 - pytest's signature
    """Where every part is installed, a skipped test is a failed one."""
    outcome = yield
    report = outcome.get_result()
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although every part is installed: {report.longrepr}"


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
