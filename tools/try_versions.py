"""Install what is published on every Python that is promised and there, and run tests against each installation.

    python tools/try_versions.py [3.13 ...]

Three installations on each of Python 3.11 to 3.13: ``bare`` is the core without any extra, ``lowest`` the extras that
need no torch at the lowest versions that pyproject.toml promises (constraints-lowest.txt), ``newest`` the same at
whatever the index offers today. What is installed is the wheel, never this folder. ``bare`` is asked what
tests/project/test_bare.py asks; the others run the tests of the packages that they hold. A Python that is not there is
told as such. It needs the index, and takes a quarter of an hour.

Writes benchmarks/results/versions.json; exit code 1 if one failed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "versions.json"
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = "age,arrow,aws,console,fast,gateway,ids,pdf,pkcs11,postgres,s3,timestamp,watch"
TESTS = ("config", "crypto", "ledger", "scan")
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "faker", "mpmath")
COUNTS = re.compile(r"([0-9]+) (passed|failed|errors?|skipped)")


def find_python(version: str) -> str | None:
    """Return the program of a Python, from the path or from pyenv."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def run(command: list[str], log: Path, **more: str) -> int:
    """Run a command, its output into a log."""
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **more}
        return subprocess.run(command, stdout=out, stderr=out, check=False, cwd=ROOT, env=environ).returncode  # noqa: S603 - ours


def install(python: str, kind: str, wheel: Path, where: Path, log: Path) -> int:
    """Make an environment and install the wheel into it, with what its tests need."""
    if code := run([python, "-m", "venv", str(where)], log):
        return code
    pip = [str(where / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    constraint = {"bare": ["--constraint", "constraints.txt"], "lowest": ["--constraint", "constraints-lowest.txt"]}
    what = [str(wheel)] if kind == "bare" else [f"{wheel}[{EXTRAS}]", *TOOLS]
    return run([*pip, *constraint.get(kind, []), *what], log) or run([*pip[:-2], "check"], log)


def test(kind: str, where: Path, log: Path) -> int:
    """Run the tests of an installation."""
    if kind == "bare":
        more = {"STANCH_BARE": str(where / "bin" / "python")}
        return run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/project/test_bare.py"], log, **more
        )
    command = [str(where / "bin" / "python"), "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider"]
    marks = "not slow and not nightly and not acceptance and not realweights and not on_both_grounds"
    return run([*command, "-m", marks, *(f"tests/{name}" for name in TESTS)], log)


def counts(log: Path) -> dict[str, int]:
    """Return how many tests did what, from the last line that says so."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if " in " in line and COUNTS.search(line)]
    return {word: int(number) for number, word in COUNTS.findall(lines[-1])} if lines else {}


def main() -> int:
    """Try all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="*", default=PYTHONS)
    asked = parser.parse_args().pythons
    found: dict[str, dict[str, object]] = json.loads(OUT.read_text()) if OUT.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(ROOT)]
        if run(build, folder / "build.log"):
            raise SystemExit((folder / "build.log").read_text())
        (wheel,) = folder.glob("*.whl")
        for version in asked:
            python = find_python(version)
            if python is None:
                found[version] = {"there": False}
                continue
            told: dict[str, object] = {
                "there": True,
                "python": subprocess.check_output([python, "-V"], text=True).split()[1],  # noqa: S603 - found by its name
            }
            for kind in ("bare", "lowest", "newest"):
                where, log = folder / f"{version}-{kind}", folder / f"{version}-{kind}.log"
                installed = install(python, kind, wheel, where, log) == 0
                passed = installed and test(kind, where, log) == 0
                told[kind] = {"installed": installed, "passed": passed, **counts(log)}
                print(version, kind, told[kind], flush=True)
                if not passed:
                    print(log.read_text(errors="replace")[-6000:], file=sys.stderr, flush=True)
                shutil.rmtree(where, ignore_errors=True)
            found[version] = told
            OUT.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(_passed(told) for told in found.values()) else 1


def _passed(told: dict[str, object]) -> bool:
    parts = [part for part in told.values() if isinstance(part, dict)]
    return all(part["passed"] for part in parts)


if __name__ == "__main__":
    sys.exit(main())
