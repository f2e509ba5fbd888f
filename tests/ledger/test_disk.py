"""A real disk that is full, and one that is read-only: nothing is acknowledged that is not there, nothing is lost."""

import subprocess

import pytest

from stanch.errors import LedgerUnavailable, StoreError
from stanch.ledger import fsck

MEGABYTE = 1 << 20


@pytest.fixture
def disk(make_disk):
    return make_disk(8)


def remount(disk, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def append_many(ground, log, count):
    """Append, and return how many were acknowledged; the others are refused in one way."""
    futures = [log.append_nowait(ground.entry(number)) for number in range(count)]
    refused = [error for future in futures if (error := future.exception(30)) is not None]
    assert {type(error) for error in refused} <= {LedgerUnavailable}
    return count - len(refused)


def test_a_full_disk_refuses_and_goes_on_once_there_is_room(disk, make_ground):
    ground = make_ground(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(5 * MEGABYTE))
    log = ground.create()
    acknowledged, last = 0, 50
    while last == 50 and acknowledged < 100_000:
        last = append_many(ground, log, 50)
        acknowledged += last
    assert 0 < acknowledged < 100_000
    assert log.reader().size() == acknowledged
    acknowledged += append_many(ground, log, 1000)
    assert log.reader().size() == acknowledged
    ballast.unlink()
    assert log.append(ground.entry()).index == acknowledged
    log.publish()
    assert fsck(log.reader(), ground.policy).published == acknowledged + 1
    log.close()
    ground.tables.close()


def test_a_read_only_disk_refuses_and_loses_nothing(disk, make_ground):
    ground = make_ground(disk)
    log = ground.create()
    ground.fill(log, 300)
    log.publish()
    log.close()
    ground.tables.close()
    remount(disk, "ro")
    try:
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        with pytest.raises(StoreError, match="nothing was changed"):
            ground.open_tables()
        assert before == {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    finally:
        remount(disk, "rw")
    tables = ground.open_tables()
    log = ground.open(tables)
    assert log.append(ground.entry()).index == 300
    log.publish()
    assert fsck(log.reader(), ground.policy).size == 301
    log.close()
    tables.close()
