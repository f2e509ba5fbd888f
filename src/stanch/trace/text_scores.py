"""Text watermark scores with numpy alone, and a bound on them that assumes nothing about the text or the hash.

SynthID (Dathathri et al., Nature 634, 2024) as transformers has it: a token at the end of a 5-gram with hash ``h`` gets
at depth ``l`` the bit ``g = T[((h + k_l)·M + 1) mod 2^16]``; generation favours tokens with ones. A text's score is
``s = Σ_l w_l Σ_t (g − mean T)``. For a fixed text the inner sum is one function ``F(k_l)`` of the key's lowest 16 bits,
and all its 65,536 values are computed. Keys of a tenant that had no part in the text are independent and uniform, so

    P(s ≥ x) ≤ min over λ > 0 of  exp(−λx) · Π_l mean_k exp(λ w_l F(k))      (Chernoff, with exact moments)

holds over the secret keys, for any text whatever: repetitive, translated, or chosen by whoever does not know the keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.trace.text_keys import DEPTH

NGRAM = 5
HISTORY = 1024
TABLE_SIZE = 1 << 16
TABLE_SHA256 = "5151fe795a218d1adf0b7fd707204de23867ef2653fdebb8c9ff28d93f6aa55b"
_MULTIPLIER = 6364136223846793005 % TABLE_SIZE
_MAX_TOKEN = 1 << 31
_STEPS = 40

Doubles = npt.NDArray[np.float64]


@cache
def sampling_table() -> npt.NDArray[np.uint8]:
    """Return SynthID's table of bits: the lowest bits of MT19937 seeded with 0, as torch draws it on a CPU."""
    state = np.random.RandomState(0)
    table = (state.randint(0, 1 << 32, TABLE_SIZE, np.uint32) & 1).astype(np.uint8)
    if sha256(np.packbits(table).tobytes()).hexdigest() != TABLE_SHA256:
        raise InvalidInput("text watermark: numpy draws another table than the published one")
    table.flags.writeable = False
    return table


def weights() -> Doubles:
    """Return the weights of the depths: falling from 10 to 1, with mean 1; the first depths carry most."""
    falling = np.linspace(10, 1, DEPTH)
    result: Doubles = falling / falling.mean()
    return result


def count_hashes(texts: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Count the lowest 16 bits of the hash of each 5-gram that generation could have marked.

    A 5-gram counts once over all texts. Within a text a context that returns within 1,024 tokens was not marked and
    does not count.

    Raises:
        InvalidInput: A token is no number from 0 to 2^31 − 1.
    """
    counts = np.zeros(TABLE_SIZE, np.int64)
    seen: set[tuple[int, ...]] = set()
    for tokens in texts:
        if any(type(token) is not int or not 0 <= token < _MAX_TOKEN for token in tokens):
            raise InvalidInput("text: a token is not a whole number from 0 to 2147483647")
        last: dict[tuple[int, ...], int] = {}
        for end in range(NGRAM, len(tokens) + 1):
            gram = tuple(tokens[end - NGRAM : end])
            before, last[gram[:-1]] = last.get(gram[:-1], -HISTORY - 1), end
            if end - before <= HISTORY or gram in seen:
                continue
            seen.add(gram)
            value = 1
            for token in gram:
                value = ((value + token) * _MULTIPLIER + 1) % TABLE_SIZE
            counts[value] += 1
    return counts


@dataclass(frozen=True, slots=True)
class TextScores:
    """What texts show under every key.

    Attributes:
        tokens: How many tokens count.
        by_key: F(k): the sum over the counted tokens of g − mean T, for the lowest 16 bits of a key.
    """

    tokens: int
    by_key: Doubles

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "TextScores":
        """Score texts given as token numbers under every key at once: a circular correlation with the table."""
        counts = count_hashes(texts)
        marked = sampling_table()[(np.arange(TABLE_SIZE) * _MULTIPLIER + 1) % TABLE_SIZE]
        sums = np.fft.irfft(np.fft.rfft(counts).conj() * np.fft.rfft(marked), TABLE_SIZE)
        tokens = int(counts.sum())
        return cls(tokens, np.rint(sums) - tokens * float(marked.mean()))

    def score(self, keys: Sequence[int]) -> float:
        """Return ``s`` of a tenant's keys."""
        return float(weights() @ self.by_key[np.asarray(keys, np.int64) % TABLE_SIZE])

    def z(self, score: float) -> float:
        """Return a score in standard deviations over random keys; 0 where every key scores alike."""
        deviation = float(np.sqrt(np.square(weights()).sum()) * self.by_key.std())
        return score / deviation if deviation > 0 else 0.0

    def log10_bound(self, score: float) -> float:
        """Return a bound on log10 of the chance that keys without a part in the text score this or more.

        Every λ gives a valid bound, so an imperfect minimum makes it larger, never wrong.
        """
        if score <= 0:
            return 0.0
        values, times = np.unique(self.by_key, return_counts=True)
        exponents = np.outer(weights(), values)
        chances = np.log(times / TABLE_SIZE)
        spread = float(np.square(weights()).sum() * self.by_key.var())

        def bound(rate: float) -> float:
            terms = rate * exponents + chances
            top = terms.max(axis=1)
            moments = top + np.log(np.exp(terms - top[:, np.newaxis]).sum(axis=1))
            return float(moments.sum()) - rate * score

        low, high = 0.0, 4 * score / max(spread, 1e-9)
        for _ in range(_STEPS):  # the bound is convex in the rate
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if bound(left) < bound(right) else (left, high)
        return min(0.0, bound((low + high) / 2) / float(np.log(10)) + 1e-9)
