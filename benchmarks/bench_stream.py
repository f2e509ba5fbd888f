"""Processor time of a streamed token: the scanner, the guard stage by stage, and the cursor of the keyed index.

Tokens are five characters of seeded chat prose (`tests/scan/chat_corpus.py`); nothing in it is found. `short` feeds the
scanner words and single characters instead, `cold` text of made-up words that hardly come again, so that little of it
is remembered. `secrets` is the cost of a byte of JSON lines under the shipped rules for secrets.

Name the `src` folder of another version to measure both, interleaved in short rounds, with the median of the paired
ratios: the only figure that holds on a machine that others use as well.

    python benchmarks/bench_stream.py [OTHER_SRC]
"""

import importlib
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import orjson

from stanch.guard import Guard, GuardPolicy
from stanch.scan import Dictionary, Folder, Location, Policy, Scanner, SpanIndex, load_pack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "scan"))
from chat_corpus import ChatMaker

ROOT = Path(__file__).resolve().parents[1]
KEY = bytes(range(32))
CHARS, TOKEN, ROUNDS = 60_000, 5, 9
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
CANARY = "the violet heron sings 48113"
Work = tuple[Callable[[], None], int]


class Session(Protocol):
    """What takes tokens."""

    def feed(self, chunk: str, /) -> object:
        """Take one."""
        ...

    def finish(self) -> object:
        """End the text."""
        ...


def made_up(rng: random.Random, chars: int) -> str:
    """Make a text of words that nobody has."""
    words, size = [], 0
    while size < chars:
        words.append("".join(rng.choices(SYLLABLES, k=rng.choice([1, 2, 2, 2, 3, 3, 4]))))
        size += len(words[-1]) + 1
    return " ".join(words)


def cut(text: str) -> list[str]:
    """Cut a text into tokens."""
    return [text[at : at + TOKEN] for at in range(0, len(text), TOKEN)]


def fed(start: Callable[[], Session], tokens: Sequence[str]) -> Work:
    """Return the work of feeding tokens to a new session."""

    def work() -> None:
        session = start()
        for token in tokens:
            session.feed(token)
        session.finish()

    return work, len(tokens)


def walked(index: SpanIndex, tokens: Sequence[str]) -> Work:
    """Return the work of folding tokens and looking for their windows."""

    def work() -> None:
        folder, cursor = Folder("index"), index.cursor()
        for token in tokens:
            cursor.push(folder.push(token))

    return work, len(tokens)


def secrets(lines: Iterable[bytes]) -> Work:
    """Return the work of looking for secrets in lines of chat."""
    scanner = Scanner(Policy(recognisers=tuple(rule for rule in load_pack() if rule.family == "secret")))
    whole = list(lines)

    def work() -> None:
        texts = [message["content"] for line in whole for message in orjson.loads(line)["messages"]]
        for _ in scanner.scan_many((Location(str(number), "content"), text) for number, text in enumerate(texts)):
            pass

    return work, sum(map(len, whole))


def works() -> dict[str, Work]:
    """Return everything that is measured, by name."""
    rng, prose = random.Random(3), ChatMaker(2).prose(CHARS)  # noqa: S311 - seeded text
    tokens, cold = cut(prose), cut(made_up(rng, CHARS))
    index = SpanIndex.build([made_up(rng, 1_500) for _ in range(600)], key=KEY)
    term = Dictionary.build(["project nightfall", "orion dossier", "keystone"], key=KEY, label="codename")
    scanner, canaries = Scanner(Policy()), (CANARY,)
    guards = {
        "guard": Guard(GuardPolicy()),
        "guard index": Guard(GuardPolicy(index=index)),
        "guard index canary": Guard(GuardPolicy(index=index, canaries=canaries)),
        "guard all": Guard(GuardPolicy(index=index, canaries=canaries, dictionaries=(term,))),
    }
    return {
        "scan": fed(scanner.open_stream, tokens),
        "scan short": fed(scanner.open_stream, re.findall(r" ?[A-Za-z]{1,5}|\s|[^A-Za-z\s]", prose)),
        "scan cold": fed(scanner.open_stream, cold),
        "cursor": walked(index, tokens),
        "cursor cold": walked(index, cold),
        "secrets": secrets(ChatMaker(1).lines(1_000_000)),
        **{name: fed(guard.open, tokens) for name, guard in guards.items()},
    }


def serve() -> None:
    """Measure what is asked for by name, a line each, in microseconds for one token or byte."""
    with suppress(ImportError):  # another version may have nothing to compile
        importlib.import_module("stanch.scan.compiler").COMPILER.compile()
    known = works()
    print(*known, sep=",", flush=True)
    for line in sys.stdin:
        work, count = known[line.strip()]
        start = time.process_time()
        work()
        print((time.process_time() - start) / count * 1e6, flush=True)


def asked(server: "subprocess.Popen[str]", name: str) -> float:
    """Return one round of a server."""
    if server.stdin is None or server.stdout is None:
        raise SystemExit("the server has no pipes")
    server.stdin.write(f"{name}\n")
    server.stdin.flush()
    return float(server.stdout.readline())


def main(sources: Sequence[str]) -> None:
    """Measure this version, and another one if it is named."""
    with ExitStack() as stack:
        servers = []
        for source in (str(ROOT / "src"), *sources):
            command = [sys.executable, __file__, "--serve"]
            environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
            server = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)
            servers.append(stack.enter_context(server))
        names = [server.stdout.readline().strip().split(",") for server in servers if server.stdout is not None]
        for name in names[0]:
            rounds = []
            for number in range(ROUNDS + 1):
                order = servers if number % 2 else servers[::-1]
                taken = {id(server): asked(server, name) for server in order}
                rounds.append([taken[id(server)] for server in servers])
            ratio = statistics.median(here / there for here, *rest in rounds[1:] for there in rest or [here])
            medians = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
            print(f"{name:<20}", *(f"{median:9.4f} us" for median in medians), f"ratio {ratio:.3f}", flush=True)
        for server in servers:
            if server.stdin is not None:
                server.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        main(sys.argv[1:])
