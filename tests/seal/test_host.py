"""What of a host bears on open bundles: each answer, from files as the kernel writes them."""

import resource
import sys

import pytest

from stanch.cli import main
from stanch.seal import examine_host

SWAPS = "Filename\t\tType\t\tSize\tUsed\tPriority\n"


@pytest.fixture
def limit():
    """Restore the limit of core dumps, which a test may lower."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_CORE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture
def examine(tmp_path):
    def look(*, pages="always [madvise] never\n", swaps=SWAPS, pattern="core\n"):
        for name, text in (
            ("sys/kernel/mm/transparent_hugepage/enabled", pages), ("proc/swaps", swaps),
            ("proc/sys/kernel/core_pattern", pattern),
        ):  # fmt: skip
            if text is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)
        found = examine_host(proc=tmp_path / "proc", sys=tmp_path / "sys")
        assert all(check.fine == (not check.next_step) and check.found for check in found)
        return {check.name: check for check in found}

    return look


@pytest.mark.parametrize("pages", ["[always] madvise never\n", "always [madvise] never\n"])
def test_a_host_where_nothing_is_to_be_done(examine, limit, pages):
    limit(0)
    found = {name: check.fine for name, check in examine(pages=pages).items()}
    assert found == {"huge-pages": True, "swap": True, "core-dumps": True}


@pytest.mark.parametrize("pages", ["always madvise [never]\n", "nonsense", None])
def test_without_huge_pages_it_is_slower(examine, pages):
    assert not examine(pages=pages)["huge-pages"].fine


def test_each_place_of_swap_is_named(examine):
    check = examine(swaps=SWAPS + "/dev/sda2\tpartition\t1\t0\t-2\n/swap\tfile\t1\t0\t-3\n")["swap"]
    assert not check.fine
    assert check.found.endswith("/dev/sda2, /swap")


@pytest.mark.parametrize("swaps", [SWAPS, SWAPS + "\n", "", None])
def test_where_the_kernel_names_no_swap_and_no_program_nothing_is_to_be_done(examine, limit, swaps):
    limit(0)
    found = examine(swaps=swaps, pattern=None)
    assert found["swap"].fine
    assert found["core-dumps"].fine


def test_what_is_no_text_is_read_all_the_same(examine, tmp_path):
    examine()
    (tmp_path / "proc" / "swaps").write_bytes(SWAPS.encode() + b"/sw\xffap file 1 0 -2\n")
    assert examine(swaps=None)["swap"].found.endswith("/sw\ufffdap")


def test_this_host_is_looked_at(monkeypatch):
    looked = []
    monkeypatch.setattr(sys.modules["stanch.seal.host"], "_read", lambda path: looked.append(str(path)) or "")
    examine_host()
    assert looked == [
        "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/swaps", "/proc/sys/kernel/core_pattern",
    ]  # fmt: skip


def test_a_core_dump_is_refused_by_the_limit_unless_a_program_gets_it(examine, limit):
    limit(0)
    assert not examine(pattern="|/usr/lib/systemd-coredump %P\n")["core-dumps"].fine
    assert examine()["core-dumps"].fine
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        return  # nobody here can raise it again
    limit(1)
    assert not examine()["core-dumps"].fine


def test_the_command_line_allows_itself_no_core_dump(limit, monkeypatch, capsys):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        limit(1)
    monkeypatch.setattr("sys.argv", ["stanch", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    assert capsys.readouterr().out
