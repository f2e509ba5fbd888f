"""Fuzz parsers of outside bytes with coverage (atheris), remake the seeds, or count what mutated inputs do.

    python tools/fuzz.py --target signature --runs 100000     one target, or all without --target
    python tools/fuzz.py --seeds                              make every seed with the real writers
    python tools/fuzz.py --counts 10000                       write benchmarks/results/fuzz.json
    python tools/fuzz.py --table                              write the table of docs/explain/fuzzing.md

Inputs that reach new code are kept in ``tests/fuzz/corpus/NAME``; one that does harm is kept as ``crash-…`` there.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "fuzz"
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
PAGE = ROOT / "docs" / "explain" / "fuzzing.md"
MAX_LEN = 4096
SIZES = (10, 100, 1000)
sys.path[:0] = [str(FOLDER), str(ROOT / "src")]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="name of a target; all of them without it")
    parser.add_argument("--runs", type=int, default=10_000, help="inputs for each target")
    parser.add_argument("--max-len", type=int, default=MAX_LEN, help="bytes of the longest input")
    parser.add_argument("--keep-nothing", action="store_true", help="leave the corpus as it is")
    parser.add_argument("--seeds", action="store_true", help="make the seeds anew")
    parser.add_argument("--counts", type=int, metavar="N", help="feed N mutated inputs to each target and count")
    parser.add_argument("--table", action="store_true", help="write the table of targets into the documentation")
    parser.add_argument("--inside", metavar="GROUP", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        return _fuzz(args.inside, args.target[0], args.runs, args.max_len, Path(os.environ["STANCH_FUZZ_CORPUS"]))
    from fuzz_harness import write_seeds  # noqa: PLC0415 - atheris must come first where it runs
    from fuzz_targets import TARGETS  # noqa: PLC0415 - ditto

    names = args.target or list(TARGETS)
    if args.seeds:
        write_seeds([TARGETS[name] for name in names])
    elif args.table:
        _write_table()
    elif args.counts:
        return _count(args.counts, names)
    else:
        return max(_start(name, args) for name in names)
    return 0


def _start(name: str, args: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own: atheris ends its process, and a crash shall not end the others."""
    from fuzz_targets import GROUPS  # noqa: PLC0415 - as above

    group = next(group for group in GROUPS if name in {target.name for target in group.TARGETS})
    with tempfile.TemporaryDirectory() as temporary:
        corpus = FOLDER / "corpus" / name
        if args.keep_nothing:
            corpus = Path(shutil.copytree(corpus, Path(temporary) / name))
        words = [
            sys.executable,
            __file__,
            "--inside",
            group.__name__,
            "--target",
            name,
            "--runs",
            str(args.runs),
            "--max-len",
            str(args.max_len),
        ]
        done = subprocess.run(words, check=False, env=os.environ | {"STANCH_FUZZ_CORPUS": str(corpus)})  # noqa: S603 - this file
    print(f"{name}: {args.runs} runs, {'no harm' if not done.returncode else 'HARM'}", flush=True)
    return done.returncode


def _fuzz(group: str, name: str, runs: int, max_len: int, corpus: Path) -> int:
    import atheris  # noqa: PLC0415 - a tool of development

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["stanch"], enable_loader_override=False):
        # One group alone: what atheris instruments takes fifty times as long to import.
        targets = importlib.import_module(group).TARGETS
    target = next(target for target in targets if target.name == name)
    target.contents()
    # New inputs go into the first folder; libFuzzer counts the seeds as runs too.
    options = [
        f"-runs={runs + len(list(corpus.iterdir()))}",
        f"-max_len={max_len}",
        "-timeout=10",
        "-rss_limit_mb=3000",
    ]
    options += [f"-artifact_prefix={corpus}/", "-verbosity=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.feed)
    atheris.Fuzz()
    return 0


def _count(count: int, names: list[str]) -> int:
    """Write what ``count`` mutated inputs did to each target; the same counts on every machine."""
    from fuzz_harness import bound_memory, feed_all  # noqa: PLC0415 - as above
    from fuzz_mutations import mutations  # noqa: PLC0415 - as above
    from fuzz_targets import TARGETS  # noqa: PLC0415 - as above

    warnings.simplefilter("ignore")
    bound_memory()
    found, faults = {}, 0
    for name in names:
        target = TARGETS[name]
        tally = feed_all(target, mutations(target.seeds, count, name=name), sample=100)
        forged = sum("forged" in text for text, _ in tally.faults)
        found[name] = {
            "kind": target.kind,
            "mutations": count,
            "refused": tally.outcomes["refused"],
            "accepted_plain": tally.outcomes["accepted"],
            "accepted_same_content": tally.outcomes["same"],
            "accepted_forged": forged,
            "crashes": len(tally.faults) - forged,
            # In steps, so that it does not depend on how busy the machine is.
            "slowest_below_ms": next((size for size in SIZES if tally.slowest * 1000 < size), 10_000),
        }
        faults += len(tally.faults)
        _write_counts(found, list(TARGETS))
        print(name, json.dumps(found[name]), [text for text, _ in tally.faults[:3]] or "", flush=True)
    return bool(faults)


def _write_counts(found: dict[str, dict[str, object]], names: list[str]) -> None:
    """Write the counts; targets that were not fed now keep theirs."""
    before = json.loads(RESULTS.read_text())["targets"] if RESULTS.exists() else {}
    found = before | found
    RESULTS.write_text(json.dumps({"targets": {name: found[name] for name in names if name in found}}, indent=1) + "\n")


def _write_table() -> None:
    from fuzz_targets import TARGETS  # noqa: PLC0415 - as above

    text = PAGE.read_text()
    head, _, _ = text.partition("| target |")
    rows = [f"| `{t.name}` | {t.reads} | `{t.parser.removeprefix('stanch.')}` | {t.kind} |" for t in TARGETS.values()]
    PAGE.write_text(
        head + "\n".join(["| target | what it reads | parser in `stanch` | kind |", "|---|---|---|---|", *rows]) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
