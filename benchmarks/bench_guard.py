"""What the guard alone costs a token and holds back, and that no way of cutting a text lets anything out.

Run with::

    python benchmarks/bench_guard.py
    python benchmarks/bench_guard.py splits 1000000

A token is five characters of English in which nothing is found: paragraphs of the reference manual that Python carries
(``pydoc_data``), each read once. ``all`` is everything at once: the shipped recognisers, an index of 54,000 windows, 16
canaries and a dictionary of 50,000 terms of one to three words; the others leave parts of it away. Tokens are fed one
by one, and eight at a time, as the gateway does with what one read brings. Figures are processor time, best and lower
quartile of many short interleaved rounds; the glance and the steps of the walk over the index are compiled before, as a
process that serves has them soon, where numba is installed (``compiled``). Writes benchmarks/results/guard.json and
guard-splits.json.
"""

import base64
import itertools
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics

from stanch.guard import Action, Guard, GuardPolicy
from stanch.scan import FINE, Dictionary, IndexParams, SpanIndex
from stanch.scan.compiler import COMPILER

RESULTS = Path(__file__).parent / "results"
KEY = bytes(range(32))
TOKEN, TOKENS, TERMS, ROUNDS, EACH = 5, 1000, 50_000, 60, 100
TOGETHER = (1, 8)
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
CANARY, MAIL, AWS = "harbour code 4417-0093 zulu", "ana.diaz@example.org", "AKIAIOSFODNN7EXAMPLQ"


def salad(rng: random.Random, count: int, least: int = 1) -> str:
    """Return words that nobody has."""
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(least, 4))) for _ in range(count))


def policies() -> dict[str, GuardPolicy]:
    """Return what is measured, by name."""
    rng = random.Random(3)  # noqa: S311 - seeded text
    index = SpanIndex.build([salad(rng, 320) for _ in range(900)], key=KEY)
    terms: set[str] = set()
    while len(terms) < TERMS:
        terms.add(salad(rng, rng.randint(1, 3), least=3))
    canaries = tuple(f"the violet heron sings {number}" for number in range(48113, 48129))
    dictionary = Dictionary.build(terms, key=KEY, label="codename")
    return {
        "recognisers": GuardPolicy(),
        "recognisers, index": GuardPolicy(index=index),
        "recognisers, index, canaries": GuardPolicy(index=index, canaries=canaries),
        "all": GuardPolicy(index=index, canaries=canaries, dictionaries=(dictionary,)),
    }


def clean(guard: Guard, size: int, count: int) -> list[str]:
    """Return so many parts of English, each of so many characters, in which a guard finds nothing."""
    paragraphs = (" ".join(part.split()) for text in topics.values() for part in text.split("\n\n"))
    prose = "\n".join(part for part in paragraphs if is_clean(guard, part))
    found = [part for part in cut(prose, size) if len(part) == size and is_clean(guard, part)][:count]
    if len(found) < count:
        raise AssertionError(f"{len(found)} parts are clean")
    return found


def is_clean(guard: Guard, text: str) -> bool:
    """Say whether a guard finds nothing."""
    return play(guard, [text])[:2] == (text, Action.ALLOW)


def cut(text: str, size: int) -> list[str]:
    """Return a text in pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def feed(guard: Guard, chunks: Sequence[str]) -> None:
    """Take a clean text through the guard."""
    stream = guard.open()
    for chunk in chunks:
        stream.feed(chunk)
    stream.finish()


def held(guard: Guard, chunks: Sequence[str]) -> float:
    """Return how many characters are held after a step, on the average."""
    stream = guard.open()
    return statistics.mean(stream.feed(chunk).held_chars for chunk in chunks)


def measure() -> dict[str, object]:
    """Return the cost of a token and the characters held, by what is looked for."""
    guards = {name: Guard(policy) for name, policy in policies().items()}
    COMPILER.compile()
    parts = clean(guards["all"], TOKEN * TOKENS, ROUNDS + 1)
    rounds: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(ROUNDS + 1):
        for (name, guard), together in itertools.product(guards.items(), TOGETHER):
            chunks = cut(parts[number], TOKEN * together)  # what was read before would be remembered
            start = time.process_time()
            feed(guard, chunks)
            if number:  # the first one warms
                rounds[name, together].append((time.process_time() - start) / TOKENS * 1e6)
    found: dict[str, object] = {"compiled": COMPILER.steps is not None}
    for name, guard in guards.items():
        costs = {
            f"{together} together": {"best": min(taken), "quartile": statistics.quantiles(taken, n=4)[0]}
            for together in TOGETHER
            if (taken := rounds[name, together])
        }
        found[name] = {
            "us a token": costs,
            "mean held": statistics.mean(held(guard, cut(part, TOKEN)) for part in parts),
        }
    return found


def play(guard: Guard, chunks: Iterator[str] | Sequence[str]) -> tuple[str, Action, list[int]]:
    """Return what came out, the verdict and what was held after each step."""
    stream, out, waits = guard.open(), list[str](), list[int]()
    for chunk in chunks:
        step = stream.feed(chunk)
        out.append(step.text)
        waits.append(step.held_chars)
        if step.action is Action.BLOCK:
            return "".join(out), step.action, waits
    step = stream.finish()
    return "".join([*out, step.text]), step.action, waits


def secret(rng: random.Random, library: Sequence[str]) -> tuple[str, int]:
    """Return something that must not come out, and how much of its head may."""
    row, at = rng.choice(library), rng.randrange(40)
    most = FINE.k + 2 * FINE.stride
    code = base64.b64encode(CANARY.encode()).decode()
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in CANARY)
    whole = (CANARY, CANARY.upper(), CANARY[::-1], " ".join(CANARY), code, escaped, MAIL, AWS)
    return rng.choice([(row[at : at + most + rng.randrange(20)], most), *((text, 0) for text in whole)])


def split(count: int) -> Iterator[dict[str, object]]:
    """Cut texts with a secret at random, and count the cuts after which something else comes out than of the whole.

    Yields:
        The counts so far, now and then and at the end.
    """
    rng = random.Random(41)  # noqa: S311 - seeded text
    library = [salad(rng, 60) for _ in range(12)]
    index = SpanIndex.build(library, key=KEY, params=IndexParams(FINE.k, FINE.stride, 40, None))
    COMPILER.compile()
    guard = Guard(GuardPolicy(index=index, canaries=(CANARY,)))
    done = violations = blocked = texts = 0
    while done < count:
        before, (text, head), after = (
            salad(rng, rng.choice((1, 2, 3, 15))) + " ",
            secret(rng, library),
            " " + salad(rng, 1),
        )
        said = before + text + after
        whole = play(guard, [said])[:2]
        texts, blocked = texts + 1, blocked + (whole[1] is Action.BLOCK)
        leaks = whole[1] is Action.ALLOW or whole[0].removeprefix(before).startswith(text[: head + 1])
        for _ in range(min(EACH, count - done)):
            cuts = sorted(rng.choices(range(1, len(said)), k=rng.choice((1, 1, 1, 2, 3))))
            pieces = [said[a:b] for a, b in itertools.pairwise([0, *cuts, len(said)])]
            violations += leaks or play(guard, pieces)[:2] != whole
            done += 1
        if done % 10_000 == 0 or done == count:
            yield {"splits": done, "texts": texts, "blocked": blocked, "violations": violations}


def main(words: Sequence[str]) -> None:
    """Measure and write."""
    load, start = os.getloadavg()[0], time.process_time()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found, name = (split(int(words[1])), "guard-splits") if words[:1] == ["splits"] else ([measure()], "guard")
    for figures in found:
        result = {"machine": machine, "load": load, "processor seconds": time.process_time() - start} | figures
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
