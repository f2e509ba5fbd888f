"""Scanning against its peers, interleaved: JSON lines of chat, and a stream of short tokens.

Each round takes its own part of a generated corpus (`tests/scan/chat_corpus.py`: 4 % of the turns hold a planted
value and 4 % a hard negative) and lets everyone scan it, in an order that changes. kingfisher and betterleaks look for
secrets alone, in blocks of whole lines; ours reads the lines, scans every message and reports places in it. The slow
ones get less of the part, which is noted. Time is processor time of all threads; megabytes are those of the lines.

Ours: `all` has the shipped rules, and as many of kingfisher's own as bring them to 250; `shipped` has the shipped ones;
`secrets` those for secrets alone, as the peers have, filled up likewise; `raw` is `all` with only suspect lines parsed;
`re2` is `shipped` without Hyperscan.
Writes benchmarks/results/scan.json: for each figure the median, the range and all rounds. STANCH_BENCH_MB sets the size
of the corpus.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import betterleaks
import kingfisher_sdk
import orjson
from presidio_analyzer import RecognizerRegistry

from stanch.scan import Location, Policy, Recogniser, Scanner, load_pack
from stanch.scan.adapters.kingfisher import read_kingfisher

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scan"))
from chat_corpus import ChatMaker

OUT = Path(__file__).parent / "results" / "scan.json"
MEGABYTES = int(os.environ.get("STANCH_BENCH_MB", "210"))
ROUNDS, BLOCK, LEAST_RULES = 7, 1 << 20, 250
TOKEN, STREAMED = 5, 300_000
Lines = Sequence[bytes]
Figures = defaultdict[str, list[float]]


@dataclass(frozen=True)
class Contender:
    """Who scans, and which part of the lines it is given."""

    scan: Callable[[Lines], object]
    share: float = 1.0


def messages(lines: Lines) -> list[tuple[int, int, str]]:
    """Read the texts of lines, each with the number of its line and its place in there."""
    return [
        (number, place, message["content"])
        for number, line in enumerate(lines)
        for place, message in enumerate(orjson.loads(line)["messages"])
    ]


def scan(scanner: Scanner, lines: Lines) -> list[int]:
    """Return the number of findings in each message that has any."""
    found = messages(lines)
    fields = [f"messages[{place}].content" for _, place, _ in found]

    def locate(number: int) -> Location:
        return Location(f"r{found[number][0]}", fields[number])

    return [len(result.findings) for _, result in scanner.scan_block([text for _, _, text in found], fields, locate)]


def blocks(lines: Lines) -> list[list[bytes]]:
    """Group lines to blocks of about a mebibyte."""
    grouped: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if size >= BLOCK:
            grouped.append([])
            size = 0
        grouped[-1].append(line)
        size += len(line)
    return grouped


def parsed(scanner: Scanner) -> Callable[[Lines], object]:
    """Scan every message of every line."""
    return lambda lines: [scan(scanner, block) for block in blocks(lines)]


def raw(scanner: Scanner) -> Callable[[Lines], object]:
    """Scan the messages of suspect lines."""

    return lambda lines: [
        scan(scanner, [block[number] for number in sorted(scanner.suspect_lines(block))]) for block in blocks(lines)
    ]


def enough_rules(shipped: tuple[Recogniser, ...], rules: kingfisher_sdk.Rules) -> tuple[Recogniser, ...]:
    """Return shipped rules, filled up with foreign ones to the least number."""
    return shipped + read_kingfisher(rules).recognisers[: max(0, LEAST_RULES - len(shipped))]


def presidio() -> Callable[[Lines], object]:
    """Scan with all pattern recognisers of presidio for English, without a language model."""
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    chosen = [one for one in registry.recognizers if hasattr(one, "patterns")]

    def scan(lines: Lines) -> object:
        texts = [text for _, _, text in messages(lines)]
        return [len(one.analyze(text, one.supported_entities, None) or ()) for text in texts for one in chosen]

    return scan


def contenders() -> tuple[dict[str, Contender], dict[str, int]]:
    """Return everyone by name, and how many rules they have."""
    kingfisher = kingfisher_sdk.Scanner(kingfisher_sdk.Rules())
    shipped = load_pack()
    secrets = tuple(rule for rule in shipped if rule.family == "secret")
    everything = Scanner(Policy(recognisers=enough_rules(shipped, kingfisher.rules)))
    policies = {"shipped": Policy(), "secrets": Policy(recognisers=enough_rules(secrets, kingfisher.rules))}
    everyone = {name: Contender(parsed(Scanner(policy))) for name, policy in policies.items()}
    everyone |= {
        "all": Contender(parsed(everything)),
        "raw": Contender(raw(everything)),
        "re2": Contender(parsed(Scanner(Policy(), engine="re2")), 0.02),
        "kingfisher": Contender(lambda lines: [kingfisher.scan(b"\n".join(block)) for block in blocks(lines)]),
        "betterleaks": Contender(
            lambda lines: [betterleaks.scan_string(b"\n".join(block).decode()) for block in blocks(lines)], 0.05
        ),
        "presidio": Contender(presidio(), 0.002),
    }
    counts = {name: len(policy.active()) for name, policy in policies.items()}
    return everyone, counts | {"all": len(everything.policy.active()), "kingfisher": len(kingfisher.rules)}


def rates(everyone: dict[str, Contender], lines: Lines, number: int, figures: Figures) -> None:
    """Let everyone scan the lines once."""
    names = [*everyone][number % len(everyone) :] + [*everyone][: number % len(everyone)]
    rate = {}
    for name in names:
        part = lines[: max(1, int(len(lines) * everyone[name].share))]
        start = time.process_time()
        everyone[name].scan(part)
        rate[name] = sum(map(len, part)) / (time.process_time() - start) / 1e6
        figures[f"{name}_mb_per_cpu_second"].append(rate[name])
    for ours in ("all", "raw", "shipped", "secrets"):
        for peer in ("kingfisher", "betterleaks", "presidio"):
            figures[f"{ours}_over_{peer}"].append(rate[ours] / rate[peer])


def stream(scanner: Scanner, text: str, figures: Figures) -> None:
    """Feed clean prose in short tokens."""
    session, held = scanner.open_stream(), 0
    tokens = [text[at : at + TOKEN] for at in range(0, len(text), TOKEN)]
    start = time.process_time()
    for token in tokens:
        held += session.feed(token).held_chars
    figures["stream_us_per_token"].append((time.process_time() - start) / len(tokens) * 1e6)
    figures["stream_mean_held_chars"].append(held / len(tokens))


def main() -> None:
    """Measure and write."""
    load, figures = os.getloadavg()[0], defaultdict[str, list[float]](list)
    everyone, counts = contenders()
    streamed, prose = Scanner(Policy()), ChatMaker(2).prose(STREAMED)
    with tempfile.TemporaryFile() as file:
        file.writelines(ChatMaker(1).lines(MEGABYTES * 1_000_000))
        file.seek(0)
        for number in range(ROUNDS):
            lines = [line.rstrip(b"\n") for line in file.readlines(MEGABYTES * 1_000_000 // ROUNDS)]
            rates(everyone, lines, number, figures)
            stream(streamed, prose, figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": load, "megabytes": MEGABYTES, "rules": counts}
    result |= {"shares": {name: contender.share for name, contender in everyone.items()}}
    result |= {
        label: {"median": statistics.median(rounds), "range": [min(rounds), max(rounds)], "rounds": rounds}
        for label, rounds in figures.items()
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    for label, rounds in figures.items():
        print(f"{label:<40} {statistics.median(rounds):.3g} [{min(rounds):.3g}, {max(rounds):.3g}]")


if __name__ == "__main__":
    main()
