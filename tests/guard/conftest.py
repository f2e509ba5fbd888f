"""Indexed texts of random words, and the scanner compiled once."""

import random

import pytest

from stanch.guard import GuardPolicy
from stanch.scan import FINE, STANDARD, IndexParams, SpanIndex

KEY = bytes(range(32))
CANARY = "harbour code 4417-0093 zulu"
_SYLLABLES = [a + b for a in "bdklmnr" for b in "aeiou"]


def salad(rng, count):
    return " ".join("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(count))


@pytest.fixture(scope="session")
def words():
    return salad


@pytest.fixture(scope="session")
def library():
    rng = random.Random(1)
    return [salad(rng, 60) for _ in range(12)]


@pytest.fixture(scope="session")
def indexes(library):
    wide = {"fine": FINE, "standard": STANDARD}
    return {
        name: SpanIndex.build(library, key=KEY, params=IndexParams(params.k, params.stride, 40, None))
        for name, params in wide.items()
    }


@pytest.fixture(scope="session")
def policy(indexes):
    return GuardPolicy(index=indexes["fine"], canaries=(CANARY,))


@pytest.fixture(scope="session")
def canary():
    return CANARY
