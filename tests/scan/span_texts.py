"""Seeded word salads: distinct enough that two texts share no window by chance."""

import random

SYLLABLES = [a + b for a in "bdklmnr" for b in "aeiou"]


def words(count: int, rng: random.Random) -> list[str]:
    return ["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4))) for _ in range(count)]


def texts(count: int, size: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(words(size, rng)) for _ in range(count)]
