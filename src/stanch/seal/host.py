"""What of this host bears on open bundles: how fast plaintext is made, and where the system could write it."""

import re
import resource
from dataclasses import dataclass
from pathlib import Path

_HUGE_PAGES = Path("kernel/mm/transparent_hugepage/enabled")
_CHOSEN = re.compile(r"\[([a-z]+)\]")


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One thing that was looked at.

    Attributes:
        name: ``huge-pages``, ``swap`` or ``core-dumps``.
        fine: Whether nothing is to be done.
        found: What was found, in words.
        next_step: What to do, where something is.
    """

    name: str
    fine: bool
    found: str
    next_step: str = ""


def examine_host(*, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> tuple[HostCheck, ...]:
    """Look at huge pages, swap and core dumps of this host and process; nothing is changed."""
    return _check_huge_pages(sys), _check_swap(proc), _check_core_dumps(proc)


def _check_huge_pages(sys: Path) -> HostCheck:
    mode = _CHOSEN.search(_read(sys / _HUGE_PAGES))
    if mode is not None and mode[1] in {"always", "madvise"}:
        return HostCheck("huge-pages", fine=True, found=f"huge pages are there for open bundles ({mode[1]})")
    return HostCheck(
        "huge-pages", fine=False, found="no huge pages: bundles open more slowly",
        next_step=f"as root: echo madvise > /sys/{_HUGE_PAGES}",
    )  # fmt: skip


def _check_swap(proc: Path) -> HostCheck:
    places = [line.split()[0] for line in _read(proc / "swaps").splitlines()[1:] if line.strip()]
    if not places:
        return HostCheck("swap", fine=True, found="no swap: plaintext in memory stays there")
    return HostCheck(
        "swap", fine=False, found=f"the system may write plaintext of open bundles to {', '.join(places)}",
        next_step="as root: swapoff -a, or encrypt it with a key that is made anew at each start",
    )  # fmt: skip


def _check_core_dumps(proc: Path) -> HostCheck:
    limit, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if _read(proc / "sys/kernel/core_pattern").startswith("|"):
        # core(5): a program that is piped to gets the dump whatever the limit.
        return HostCheck(
            "core-dumps", fine=False,
            found="a program gets the dump of a crashed process whatever its limit, with keys and small files in it",
            next_step="as root: sysctl kernel.core_pattern=core",
        )  # fmt: skip
    if limit:
        return HostCheck(
            "core-dumps", fine=False, found="a crash would write keys and small files to a core dump",
            next_step="ulimit -c 0",
        )  # fmt: skip
    return HostCheck("core-dumps", fine=True, found="a crash of this process writes no core dump")


def _read(path: Path) -> str:
    """Return what a file of the kernel says; nothing where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
