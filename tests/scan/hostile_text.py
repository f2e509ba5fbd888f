"""Texts that are hard to cut: examples of all rules, whole, torn, glued and in disguise; and JSON around them."""

import json
import random

from stanch.scan import load_pack
from stanch.scan.examples import ExampleMaker

FRAGMENTS = [
    *(example for rule in load_pack() for example in (*rule.examples, *rule.counterexamples)),
    "project  NIGHT-jar 7/7",
    "77 rajthgin tcejorp",
    "the canary sings 44170093",
    "the canary sings 4417",
    "Elan Vital 9",
]
GLUE = [
    " ", "", ", ", "\n", "\u200b", "é", "ﬁ", "😀", "\x1e",
    "@", "-", "名前", "\u00a0", ".", ": ", "4", "A", "the ", "\ud83d",
    '"', "\\", "\\n", "/", "\t",
]  # fmt: skip


def make_text(seed: int, most: int = 5) -> str:
    """Return a text of up to ``most`` fragments."""
    rng = random.Random(seed)
    maker = ExampleMaker(str(seed))
    parts = []
    for _ in range(rng.randint(1, most)):
        part = maker.fill(rng.choice(FRAGMENTS))
        shape = rng.random()
        if shape < 0.2:
            part = part[: rng.randint(0, len(part))]
        elif shape < 0.3:
            part = part[rng.randint(0, len(part)) :]
        elif shape < 0.36:
            place = rng.randint(0, len(part))
            part = part[:place] + rng.choice(GLUE) + part[place:]
        elif shape < 0.4:
            part = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in part)
        parts += [part, rng.choice(GLUE)]
    return "".join(parts)


def split(text: str, rng: random.Random) -> list[str]:
    """Cut a text at random places, or into single characters."""
    if rng.random() < 0.02:
        return list(text)
    cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.choice((1, 1, 2, 2, 3, 5))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def make_line(seed: int) -> bytes:
    """Return a line of JSON whose strings, key names and numbers are such texts or harmless ones."""
    rng = random.Random(seed)

    def text() -> str:
        if rng.random() < 0.5:
            return rng.choice(
                ["fine", "two words", "C:\\new", 'so "quoted"', "a/b", "", "über", "tab\there", "12 of 30"]
            )
        return make_text(rng.getrandbits(32), 1).encode("utf-8", "replace").decode()

    def value(depth: int) -> object:
        kind = rng.random()
        if depth < 3 and kind < 0.3:
            return {text(): value(depth + 1) for _ in range(rng.randint(0, 3))}
        if depth < 3 and kind < 0.4:
            return [value(depth + 1) for _ in range(rng.randint(0, 3))]
        if kind < 0.6:
            return rng.choice([rng.getrandbits(53), rng.random(), 4539148803436467.0, 4.5e15, 1e-7, 2.5, -12])
        return rng.choice([None, True]) if kind < 0.63 else text()

    row = {"text": text(), text(): value(0), text(): value(0)}
    line = json.dumps(row, ensure_ascii=rng.random() < 0.3, separators=rng.choice([(",", ":"), (", ", ": ")]))
    if rng.random() < 0.1:  # the same number in another form, the same slash escaped
        line = line.replace("4539148803436467.0", "45391488034364670e-1").replace("/", "\\/")
    return line.encode()
