"""A redaction that is killed again and again, and must neither lose nor repeat anything. Part of `make nightly`.

Generates records from a seed, each with its number and some with a finding, and has a child process redact them. The
child is killed with SIGKILL at random points, as often as asked, and started again, until it gets to the end. Then
every record must stand in the copy once and in order, with the findings replaced and nothing else, and the counts of
the report must be those of the generator. Prints them, and the most memory that any child took; exits with 1 if
anything is wrong. A drill of all ten million is kept in benchmarks/results/resume.json.

    python benchmarks/drill_resume.py --records 10000000 --kills 5 --folder /var/tmp
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stanch.data import open_dataset, scan_dataset
from stanch.data.engines import Local
from stanch.data.scanning import ScanPlan
from stanch.scan import Policy, Scanner

OUT = Path(__file__).parent / "results" / "resume.json"
KEY, ALL = bytes(range(32)), 10_000_000
EVERY, PACE = 13, 0.01
"""One record in so many holds a finding; seconds between two looks at the child."""


def record(number: int) -> tuple[str, str]:
    """Return the text of a record, and what it is redacted to."""
    words = " ".join(f"{(number * 2654435761 + place * 40503) % 99_991:x}" for place in range(number % 7 + 3))
    text = f"record {number} says {words}"
    return (f"{text} to ana{number}@works.io", f"{text} to <EMAIL>") if number % EVERY == 0 else (text, text)


def redact(source: Path, out: Path, processes: int) -> None:
    """Make the pass, or go on with it; what it found goes to standard output."""
    policy = Policy(kinds=frozenset({"email", "github-token"}), report_key=KEY)
    dataset = open_dataset(source, key=KEY)
    report = scan_dataset(dataset, Scanner(policy), out=out, plan=ScanPlan(Local(processes)))
    print(json.dumps({"records": report.records, "findings": len(report.findings)}))


def start(source: Path, out: Path, processes: int) -> subprocess.Popen[bytes]:
    """Start a child that makes the pass."""
    command = [sys.executable, __file__, "--child", str(source), str(out), "--processes", str(processes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kill_at(child: subprocess.Popen[bytes], kept: Path, size: int) -> bool:
    """Kill the child once the file of finished parts has reached a size; say whether it came to that."""
    while child.poll() is None:
        if kept.exists() and kept.stat().st_size >= size:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return True
        time.sleep(PACE)
    return False


def differences(out: Path, records: int) -> Iterator[str]:
    """Yield what is wrong with the copy; at most the first difference of a record."""
    number = 0
    with out.open("rb") as file:
        for number, line in enumerate(file, 1):
            if json.loads(line) != {"text": record(number - 1)[1]}:
                yield f"line {number} is not record {number - 1} as it should be"
                return
    if number != records:
        yield f"{number} records, expected {records}"


def drill(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Run it; return what is wrong."""
    source, out = folder / "records.jsonl", folder / "clean.jsonl"
    kept, rng = folder / f".{out.name}.pass", random.Random(arguments.seed)  # noqa: S311 - a drill
    with source.open("w") as file:
        file.writelines(json.dumps({"text": record(number)[0]}) + "\n" for number in range(arguments.records))
    # The file of finished parts holds the redacted rows and little else: it gets about as large as the source.
    points = sorted(rng.uniform(0.02, 0.98) * source.stat().st_size for _ in range(arguments.kills))
    peaks, killed = [], 0
    for point in [*points, float("inf")]:
        child = start(source, out, arguments.processes)
        killed += kill_at(child, kept, int(min(point, 1 << 62)))
        said = child.stdout.read() if child.stdout is not None else b""
        print(f"child ended with {child.wait()}, {kept.stat().st_size if kept.exists() else 0} bytes kept", flush=True)
        peaks.append(child_peak())
    expected = {"records": arguments.records, "findings": (arguments.records + EVERY - 1) // EVERY}
    wrong = [] if child.returncode == 0 and json.loads(said) == expected else [f"{said!r}, expected {expected}"]
    wrong += [] if killed == arguments.kills else [f"killed {killed} times, expected {arguments.kills}"]
    wrong += [f"{kept} is left over"] if kept.exists() else []
    wrong += differences(out, arguments.records) if out.exists() else ["there is no copy"]
    told = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "records": arguments.records, "megabytes": round(source.stat().st_size / 1e6), "kills": killed,
        "findings": expected["findings"], "peak_megabytes": round(max(peaks)), "wrong": len(wrong),
    }  # fmt: skip
    print(json.dumps(told))
    if arguments.records >= ALL:
        OUT.write_text(json.dumps(told, indent=1) + "\n")
    return wrong


def child_peak() -> float:
    """Return the most memory in MB that a child that has ended took."""
    import resource  # noqa: PLC0415 - for this alone

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=ALL)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="Where the files lie; they are removed in the end.")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        redact(*arguments.child, arguments.processes)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        wrong = drill(Path(folder), arguments)
    print("\n".join(wrong) or "nothing is lost, repeated or changed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
