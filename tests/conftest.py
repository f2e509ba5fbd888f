"""What all tests share: no network, no shared caches, and no hidden skip where everything is installed."""

import os

import pytest

NO_SKIP = os.environ.get("STANCH_NO_SKIP") == "1"


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
    """Give the whole run a cache folder of its own; yield the user's, where a fetched model lies."""
    from stanch.tune.fetch import cache_folder  # noqa: PLC0415 - used here alone

    found = cache_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield found
