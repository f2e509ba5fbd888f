"""The exact rank of a secret among all strings it could have been, by a search that leaves out what cannot matter.

Log-probabilities only fall along a string, so a beginning that is already less likely than the whole secret is cut off
with everything that starts with it. At each length at most 1 / p(secret) beginnings are left, since their probabilities
add up to at most 1: for a secret that the model knows well the search is short.
"""

import math
from collections.abc import Sequence

import numpy as np

from stanch.audit.features import Continue, TokenArray

_BATCH = 256


def search_bound(log_p: float, length: int) -> float:
    """Return the most nodes that the search for a secret of this log-probability can visit."""
    return length * math.exp(min(-log_p, 700.0))


def exact_rank(proceed: Continue, choices: Sequence[TokenArray], secret: TokenArray, *, tie: float) -> int:
    """Return 1 + the number of other strings that are at least as likely as ``secret``.

    Args:
        proceed: The model after the words before the secret.
        choices: The tokens that may stand at each position; distinct.
        secret: One of the choices at each position.
        tie: A string this much less likely still counts as equally likely: rounding counts against the model.
    """
    own = [float(proceed(secret[None, :i], secret[i : i + 1])[0, 0]) for i in range(secret.size)]
    least = math.fsum(own) - tie
    strings, totals = np.empty((1, 0), dtype=np.int64), np.zeros(1)
    for tokens in choices:
        grown, sums = [], []
        for start in range(0, totals.size, _BATCH):
            part = strings[start : start + _BATCH]
            reached = totals[start : start + _BATCH, None] + proceed(part, tokens)
            rows, columns = np.nonzero(reached >= least)
            grown.append(np.concatenate([part[rows], tokens[columns, None]], axis=1))
            sums.append(reached[rows, columns])
        strings, totals = np.concatenate(grown), np.concatenate(sums)
        if totals.size == 0:  # only rounding can cut the secret's own path
            return 1
    return 1 + int((strings != secret).any(axis=1).sum())
