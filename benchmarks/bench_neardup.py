"""Near-duplicates against datasketch, interleaved, in processor time, at the same bands and so the same recall.

Both get the same folded texts, the same shingles of five words, 128 values a sketch and 32 bands of 4 rows, and must
say which pairs are at least 0.8 similar: 2,000 made pairs with a true Jaccard similarity of 0.85 and more, among 20,000
texts. Writes benchmarks/results/neardup.json: both recalls, and for each round the ratio of the times, also with
stanch reading and folding the file.
"""

import gc
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from datasketch import MinHash, MinHashLSH

from stanch.data import find_near_duplicates, open_dataset
from stanch.data.neardup import cluster_texts
from stanch.data.shingles import fold_texts

OUT = Path(__file__).parent / "results" / "neardup.json"
TEXTS, PAIRS, WORDS, ROUNDS, THRESHOLD = 20_000, 2_000, 100, 5, 0.8
Result = TypeVar("Result")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def shingles_of(text: str) -> set[bytes]:
    """Return the runs of five words."""
    words = text.encode().split(b" ")
    return {b" ".join(words[at : at + 5]) for at in range(len(words) - 4)}


def make() -> tuple[list[str], set[tuple[int, int]]]:
    """Return the texts, and which pairs of them are near-duplicates."""
    rng = random.Random(1)  # noqa: S311 - seeded text
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(5_000)]
    texts: list[str] = []
    pairs = set()
    while len(texts) < TEXTS:
        words = rng.choices(vocabulary, k=WORDS)
        texts.append(" ".join(words))
        if len(pairs) < PAIRS:
            words[rng.randrange(WORDS)] = "changed"
            other = " ".join(words)
            one, two = shingles_of(texts[-1]), shingles_of(other)
            if len(one & two) >= 0.85 * len(one | two):
                texts.append(other)
                pairs.add((len(texts) - 2, len(texts) - 1))
    return texts, pairs


def by_datasketch(texts: list[str]) -> set[tuple[int, int]]:
    """Find the pairs with datasketch, by its estimate of the similarity."""
    index = MinHashLSH(params=(32, 4), num_perm=128)
    sketches: list[MinHash] = []
    found = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        sketch.update_batch(list(shingles_of(text)))
        for other in index.query(sketch):
            if sketch.jaccard(sketches[other]) >= THRESHOLD - 0.1:
                found.add((other, number))
        index.insert(number, sketch)
        sketches.append(sketch)
    return found


def by_stanch(views: list[bytes]) -> set[tuple[int, int]]:
    """Find the pairs with stanch."""
    report = cluster_texts(((f"r{number}", view) for number, view in enumerate(views, 1)), THRESHOLD, 128)
    numbers = [[int(name[1:]) - 1 for name in cluster] for cluster in report.clusters]
    return {(one, other) for cluster in numbers for one in cluster for other in cluster if one < other}


def timed(act: Callable[[], Result]) -> tuple[float, Result]:
    """Return the processor time and the result; nobody collects the garbage of who came before."""
    gc.collect()
    start = time.process_time()
    result = act()
    return time.process_time() - start, result


def summary(rounds: list[float]) -> dict[str, object]:
    """Median and range of the rounds."""
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}


def main() -> None:
    """Measure and write."""
    load = os.getloadavg()[0]
    texts, pairs = make()
    views = [fold_texts([text]) for text in texts]
    ratios, whole, recalls = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for _ in range(ROUNDS):
            ours, found = timed(lambda: by_stanch(views))
            theirs, found_by_them = timed(lambda: by_datasketch(texts))
            with_file, _ = timed(lambda: find_near_duplicates(open_dataset(path), threshold=THRESHOLD))
            recalls.append((len(found & pairs) / len(pairs), len(found_by_them & pairs) / len(pairs)))
            ratios.append(theirs / ours)
            whole.append(theirs / with_file)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": load,
        "texts": len(texts),
        "recall": dict(zip(("stanch", "datasketch"), map(min, zip(*recalls, strict=True)), strict=True)),
        "datasketch_time_over_ours": summary(ratios),
        "datasketch_time_over_ours_with_reading_and_folding": summary(whole),
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
