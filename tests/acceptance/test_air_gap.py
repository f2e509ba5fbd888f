"""Does everything that proves something work on a machine without any network?

A recipient and an auditor sit behind an air gap: files come by hand. Each command is a process of its own in a network
namespace of its own, in which not even this machine is reached.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from scene import done, facts, process, team

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("here")]

ALONE = ("unshare", "--net")


@pytest.fixture
def alone(here):
    """Run a line on the machine behind the gap."""
    if subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare --net is not permitted here")
    names = ("acme.key", "pub.pem", "log.vkey")
    (here / "gap").mkdir()
    for name in names:
        shutil.copy(name, "gap")
    return lambda line: process(line, *ALONE, cwd=here / "gap")


def test_from_the_bucket_to_the_opened_model(alone):
    """The bucket comes as a folder on a disk; the approvals came with it."""
    shutil.copytree("store", "gap/store")
    name = Path(facts("acme")["uri"].removeprefix("file:")).name
    for line in (
        f"release fetch file:store/{name} --trust pub.pem --out got",
        "release redeem got --identity acme.key --trust pub.pem",
        "release open got --identity acme.key --trust pub.pem",
    ):
        done(alone(line))


def test_the_record(alone):
    done(team("ada", "log prove 24 --out gap/entry.json"))
    Path("gap/policy").write_text(f"log {Path('log.vkey').read_text()}\nquorum none\n")
    checked = done(alone("--json log check entry.json entry.json.tlog-proof --policy policy"))
    assert checked.data["index"] == 24
