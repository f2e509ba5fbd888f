"""The training-text index against its limits: size, recall, false matches (seeded), and processor time.

Writes benchmarks/results/index.json. The statistical part gives the same figures on every machine; of the timings it
keeps the median, the range and all rounds. Text is made of pronounceable words of English length, with punctuation.
"""

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from stanch.scan import STANDARD, Folder, SpanIndex, fold_text

OUT = Path(__file__).parent / "results" / "index.json"
KEY = bytes(range(32))
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
LENGTHS = [1, 2, 2, 2, 3, 3, 4]  # syllables: 4.9 letters a word
TEXT_CHARS, TEXTS = 1_500, 70_000  # 105 MB
COPIES, INDEPENDENT_CHARS, ROUNDS, TOKENS = 3_000, 10_000_000, 9, 40_000


def prose(rng: random.Random, chars: int) -> str:
    """Make a text of about so many characters."""
    words, size = [], 0
    while size < chars:
        word = "".join(rng.choices(SYLLABLES, k=rng.choice(LENGTHS)))
        words.append(word.capitalize() + rng.choice(",.") if rng.random() < 0.1 else word)
        size += len(words[-1]) + 1
    return " ".join(words)


def recall(index: SpanIndex, texts: list[str], change: Callable[[random.Random, str], str], chars: int) -> float:
    """Return the share of changed copies of ``chars`` folded characters that are a match."""
    rng, found = random.Random(chars), 0  # noqa: S311 - seeded text
    for _ in range(COPIES):
        folded = fold_text(rng.choice(texts), "index").decode()
        at = rng.randint(0, len(folded) - chars)
        found += bool(index.query(change(rng, folded[at : at + chars])))
    return found / COPIES


def as_it_is(_rng: random.Random, text: str) -> str:
    """Change nothing."""
    return text


def loud(rng: random.Random, text: str) -> str:
    """Write in capitals, with other spaces and punctuation."""
    return "".join(c.upper() if c != " " else rng.choice([" ", ", ", "  ", " - ", "...\n"]) for c in text)


def one_word_in_ten(rng: random.Random, text: str) -> str:
    """Replace one word in ten by another."""
    return " ".join(prose(rng, 1) if rng.random() < 0.1 else word for word in text.split())


def false_matches(index: SpanIndex) -> dict[str, object]:
    """Count hits and matches in text that the index never saw."""
    rng = random.Random(2)  # noqa: S311 - seeded text
    hits = matches = chars = 0
    while chars < INDEPENDENT_CHARS:
        text = prose(rng, 100_000)
        matches += len(index.query(text))
        folded = fold_text(text, "index")
        hits += len(index.cursor().push(folded))
        chars += len(folded)
    fill = index.header.fill_fp
    return {
        "chars": chars,
        "hits_per_char": hits / chars,
        "fill_fp": fill,
        "hits_in_standard_deviations_from_fill_fp": (hits - chars * fill) / (chars * fill * (1 - fill)) ** 0.5,
        "matches_per_char": matches / chars,
        "chains_per_char_expected": fill**2,
    }


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def timings(index: SpanIndex) -> dict[str, list[float]]:
    """Return microseconds per token of 4 to 5 characters, without and with folding, and per character in bulk."""
    rng = random.Random(3)  # noqa: S311 - seeded text
    text = prose(rng, 5 * TOKENS)
    tokens, at = [], 0
    for _ in range(TOKENS):
        size = rng.choice([4, 5])
        tokens.append(text[at : at + size])
        at += size
    folder = Folder("index")
    pieces = [folder.push(token) for token in tokens]
    folded = fold_text(prose(rng, 2_000_000), "index")
    found: dict[str, list[float]] = {"cursor_per_token": [], "fold_and_cursor_per_token": [], "bulk_per_char": []}

    def stream() -> None:
        cursor = index.cursor()
        for piece in pieces:
            cursor.push(piece)

    def fold_and_stream() -> None:
        folder, cursor = Folder("index"), index.cursor()
        for token in tokens:
            cursor.push(folder.push(token))

    for _ in range(ROUNDS):
        found["cursor_per_token"].append(1e6 * seconds(stream) / TOKENS)
        found["fold_and_cursor_per_token"].append(1e6 * seconds(fold_and_stream) / TOKENS)
        found["bulk_per_char"].append(1e6 * seconds(lambda: index.cursor().push(folded)) / len(folded))
    return found


def main() -> None:
    """Measure and write."""
    load = os.getloadavg()[0]
    rng = random.Random(1)  # noqa: S311 - seeded text
    texts = [prose(rng, TEXT_CHARS) for _ in range(TEXTS)]
    size = sum(len(text.encode()) for text in texts)
    index: SpanIndex | None = None

    def build() -> None:
        nonlocal index
        index = SpanIndex.build(texts, key=KEY)

    building = seconds(build)
    if index is None:
        raise SystemExit("no index was built")
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": load,
        "params": {"k": STANDARD.k, "stride": STANDARD.stride, "bits": STANDARD.bits},
        "text_bytes": size,
        "index_megabytes_per_gigabyte_of_text": 1000 * len(index.to_bytes()) / size,
        "build_microseconds_per_byte": 1e6 * building / size,
        "recall": {
            "100 characters": recall(index, texts, as_it_is, 100),
            "200 characters, capitals, spaces and punctuation": recall(index, texts, loud, 200),
            "380 characters, one word in ten changed": recall(index, texts, one_word_in_ten, 380),
        },
        "independent_text": false_matches(index),
        "microseconds": {
            name: {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": rounds}
            for name, rounds in timings(index).items()
        },
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
