"""Mutation testing: change one thing of a module, run the tests that reach it, and see whether one fails.

    python tools/mutate.py crypto.floe crypto.shares     these modules; all that are listed without a name
    python tools/mutate.py --again crypto.floe           only what survived and has no reason, after a new test
    python tools/mutate.py --table                       write the table of docs/explain/mutation.md

What is changed, ``tools/mutants.py`` says. ``tools/mutation/PACKAGE.toml`` lists for each module the tests, all of them
fast, and for each survivor the reason why no test should fail. Counts and survivors go to
``benchmarks/results/mutation.json``.

Each mutant is imported by a new fork of a process that holds the other packages, and of stanch what lies beneath the
module's package, which cannot import it. It is met by the tests that ran a line of its statement, the fastest first. A
change that shows at import is met by all tests of the group, those that reach its module first. A module must pass the
same way unchanged. Tests that take more than twelve seconds of processor time alone, traced, are left out. One process
at a time; a mutant may use five times the processor time of its tests, and wait for 20 seconds.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, settings
from mutants import mutants

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "stanch"
TABLES = ROOT / "tools" / "mutation"
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
PAGE = ROOT / "docs" / "explain" / "mutation.md"
FAST = "not nightly and not slow and not acceptance and not realweights"
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-m", FAST]
SERVERS = {"postgresql", "s3_service", "kms_service", "aws", "pg_ground", "cloud_ground"}
MEMORY = 6 << 30
SLOW_S = 12
FLOOR_S, FACTOR, WALL_S, IDLE_S = 5, 5, 60, 20
PASSED, FAILED, NOT_FOUND = 0, 1, 4
TraceFunction: TypeAlias = Callable[[FrameType, str, object], "TraceFunction | None"]


@dataclass(frozen=True)
class Test:
    """What one test does alone: seconds of processor time, and the lines that it runs of each file."""

    name: str
    seconds: float
    lines: dict[str, set[int]]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="modules, as in crypto.floe; all that are listed without a name")
    parser.add_argument("--again", action="store_true", help="only what survived last time and has no reason")
    parser.add_argument("--table", action="store_true", help="write the table into the documentation")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if args.table:
        PAGE.write_text(with_table(PAGE.read_text()))
        return 0
    wanted = args.modules or listed()
    groups = [(group, [name for name in group["modules"] if name in wanted]) for group in table("group")]
    groups = [(group, modules) for group, modules in groups if modules]
    if len(groups) > 1:  # each in a process of its own: none of its modules may be imported for another one
        again = ["--again"] if args.again else []
        return max(subprocess.run([sys.executable, __file__, *again, *modules]).returncode for _, modules in groups)  # noqa: S603, PLW1510 - ourselves; the code is returned
    with tempfile.TemporaryDirectory() as folder:
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder  # the tests are compiled once, not for each mutant
        for group, modules in groups:
            tests = _measure(group["tests"], [_path(name) for name in modules])
            for name in modules:
                _record(name, _try_module(name, tests, again=args.again))
    return 0


def table(part: str) -> list[dict[str, Any]]:
    """Return the groups or the reasons (``part``) of all packages."""
    tables = [tomllib.loads(path.read_text()) for path in sorted(TABLES.glob("*.toml"))]
    return [entry for table in tables for entry in table.get(part, [])]


def listed() -> list[str]:
    """Return the modules that are tried, as in ``crypto.floe``."""
    return [name for group in table("group") for name in group["modules"]]


def _path(name: str) -> Path:
    return SOURCES.joinpath(*name.split(".")).with_suffix(".py")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _try_module(name: str, tests: list[Test], *, again: bool) -> dict[str, Any]:
    """Try every mutant of a module, or those that survived before, and return what is recorded of it."""
    path = _path(name)
    source = path.read_text()
    tests = sorted(tests, key=lambda test: test.seconds)
    reach = [test for test in tests if test.lines[str(path)]]
    beside = [test for test in tests if not test.lines[str(path)]]
    whole = compile(source, str(path), "exec")
    if _run(name, whole, reach + beside) != PASSED:
        raise SystemExit(f"{name}: its tests do not pass unchanged")
    before = _results()["modules"].get(name)
    old = {(s["place"], s["was"], s["now"]) for s in before["survivors"]} if again else None
    explained = {
        tuple(change) for reason in table("reason") if reason["module"] == name for change in reason["changes"]
    }
    tally = {"mutants": 0, "killed": 0, "timeouts": 0}
    survivors = []
    for mutant in mutants(source, str(path)):
        tally["mutants"] += 1
        key = {"place": mutant.place, "was": mutant.was, "now": mutant.now}
        if old is not None and tuple(key.values()) not in old:
            continue
        if old is not None and tuple(key.values()) in explained:
            survivors.append(key)
            continue
        reached = [test for test in reach if test.lines[str(path)] & set(mutant.lines)]
        met = reach + beside if mutant.at_import else reached
        outcome = _run(name, mutant.code, met) if met else PASSED
        if outcome == PASSED:
            survivors.append(key)
            print(f"{name} {mutant.place}, {len(met)} tests\n  - {mutant.was}\n  + {mutant.now}", flush=True)
        tally["timeouts"] += outcome is None
    if before and again:
        tally["timeouts"] += before["timeouts"]
    tally["killed"] = tally["mutants"] - tally["timeouts"] - len(survivors)
    print(name, tally, len(survivors), "survived", flush=True)
    return {"source": _digest(path), **tally, "survivors": survivors}


def _run(name: str, code: CodeType, tests: list[Test]) -> int | None:
    """Import a module as ``code`` in a fork, run tests, and return how they ended; nothing for too long."""
    limit = FLOOR_S + FACTOR * sum(test.seconds for test in tests)
    ended = _fork(lambda: _import_and_run(name, code, [test.name for test in tests]), limit)
    if ended == NOT_FOUND:  # the names of tests come from the module: run their files
        ended = _fork(lambda: _import_and_run(name, code, {test.name.partition("::")[0] for test in tests}), limit)
    return ended


def _import_and_run(name: str, code: CodeType, what: Iterable[str]) -> int:
    sys.meta_path.insert(0, _Finder(f"stanch.{name}", code))
    return _pytest(what)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module as code at hand."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name = name
        self._code = code

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._code.co_filename, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # noqa: S102 - that is what importing a module is


class _Quick:
    """Keeps tests fast: none that needs a server, the same examples each time, and no search for the smallest."""

    @staticmethod
    def pytest_sessionstart() -> None:
        """Set Hypothesis up after the tests' own profile."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", settings(), phases=phases, database=None, derandomize=True)
        settings.load_profile("mutation")

    @staticmethod
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Leave out what asks for a server, itself or through the parameter of a fixture."""
        items[:] = [item for item in items if not SERVERS & {*item.fixturenames, *_parameters(item)}]


def _parameters(item: pytest.Item) -> set[str]:
    chosen = getattr(item, "callspec", None)
    return {value for value in chosen.params.values() if isinstance(value, str)} if chosen else set()


class _Measure(_Quick):
    """Runs each test alone in a fork, and notes what it takes and where it comes."""

    def __init__(self, files: list[str]) -> None:
        self._files = files
        self.tests: list[Test] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        with tempfile.NamedTemporaryFile() as file:
            for item in session.items:
                ended = _fork(lambda item=item: self._run_item(item, file.name), SLOW_S, quiet=False)
                if ended is None:
                    continue
                if ended != PASSED:
                    raise SystemExit(f"{item.nodeid} fails alone ({ended})")
                self.tests.append(pickle.loads(Path(file.name).read_bytes()))  # noqa: S301 - our own fork wrote it
        return True

    def _run_item(self, item: pytest.Item, out: str) -> int:
        lines: dict[str, set[int]] = {file: set() for file in self._files}

        def enter(frame: FrameType, _event: str, _arg: object) -> TraceFunction | None:
            seen = lines.get(frame.f_code.co_filename)
            if seen is None:
                return None

            def step(frame: FrameType, _event: str, _arg: object) -> TraceFunction:
                seen.add(frame.f_lineno)
                return step

            return step

        began = time.process_time()
        threading.settrace(enter)
        sys.settrace(enter)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        sys.settrace(None)
        Path(out).write_bytes(pickle.dumps(Test(item.nodeid, time.process_time() - began, lines)))
        return bool(item.session.testsfailed)


def _measure(files: list[str], paths: list[Path]) -> list[Test]:
    """Return what each fast test in ``files`` reaches of ``paths``; import here what they import from elsewhere."""
    with tempfile.NamedTemporaryFile() as file:

        def measure() -> int:
            plugin = _Measure([str(path) for path in paths])
            ended = _pytest(files, plugin)
            Path(file.name).write_bytes(pickle.dumps((plugin.tests, _unconcerned(paths))))
            return ended

        if _fork(measure, 60 * WALL_S, quiet=False) != PASSED:
            raise SystemExit("the tests do not pass unchanged")
        tests, names = pickle.loads(Path(file.name).read_bytes())  # noqa: S301 - our own fork wrote it
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()
    return tests


def _unconcerned(paths: list[Path]) -> list[str]:
    """Return the imported modules that are installed, or of layers beneath all ``paths``: they import none of these."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    tried = {path.relative_to(SOURCES).parts[0] for path in paths}
    lowest = max(number for number, layer in enumerate(layers) if tried & set(layer.split(" | ")))
    beneath = tuple(f"stanch.{package}" for layer in layers[lowest + 1 :] for package in layer.split(" | "))
    return [
        name
        for name, module in sys.modules.items()
        if "site-packages" in (getattr(module, "__file__", None) or "")
        or name in sys.stdlib_module_names
        or name.startswith(beneath)
    ]


def _pytest(what: Iterable[str], plugin: _Quick | None = None) -> int:
    return int(pytest.main([*OPTIONS, f"--basetemp={tempfile.mkdtemp()}", *what], plugins=[plugin or _Quick()]))


def _fork(act: Callable[[], int], seconds: float, *, quiet: bool = True) -> int | None:
    """Return what ``act`` returns in a fork, 1 if it fails otherwise, nothing if it ran too long."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pid = os.fork()
        if not pid:
            _act(act, seconds, folder, quiet=quiet)
        status = _wait(pid, time.monotonic() + max(WALL_S, 3 * seconds))
    if os.WIFSIGNALED(status):
        return None if os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL} else FAILED
    return os.WEXITSTATUS(status)


def _act(act: Callable[[], int], seconds: float, folder: str, *, quiet: bool) -> None:
    """Be the fork: a group of its own, bounded, with its own temporary folder."""
    ended = FAILED
    try:
        os.setpgid(0, 0)
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), resource.getrlimit(resource.RLIMIT_CPU)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if quiet:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        ended = act()
    except BaseException:  # noqa: BLE001 - a fork must not come back
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)


def _wait(pid: int, until: float) -> int:
    used, since = 0, time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        now = time.monotonic()
        if now > since + IDLE_S:  # what waits for something that will never come is given up sooner
            before, used, since = used, _used(pid), now
            until = now if used == before else until
        if now >= until:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it started and left
    return status


def _used(group: int) -> int:
    """Return the processor time that a group of processes has used, and the forks that they wait for (clock ticks)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if group in {int(fields[1]), int(fields[2])}:
                total += sum(map(int, fields[11:15]))
    return total


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"modules": {}}


def _record(name: str, found: dict[str, Any]) -> None:
    modules = _results()["modules"] | {name: found}
    version = _digest(ROOT / "tools" / "mutants.py")
    text = {
        "tool": {"name": "tools/mutate.py", "mutants_sha256": version, "python": platform.python_version()},
        "modules": dict(sorted(modules.items())),
    }
    RESULTS.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")


def with_table(page: str) -> str:
    """Return the page of documentation with the table of what is listed and on record."""
    modules = _results()["modules"]
    rows = ["| module | mutants | killed | too slow | survived, explained |", "|---|---|---|---|---|"]
    for name in listed():
        m = modules[name]
        since = "" if m["source"] == _digest(_path(name)) else ", changed since"
        rows.append(f"| `{name}`{since} | {m['mutants']} | {m['killed']} | {m['timeouts']} | {len(m['survivors'])} |")
    head, mark, rest = page.partition("<!-- mutation.json -->\n")
    return "\n".join([head + mark.rstrip("\n"), *rows, "<!-- end -->"]) + rest.partition("<!-- end -->")[2]


if __name__ == "__main__":
    sys.exit(main())
