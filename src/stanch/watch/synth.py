"""Synthetic traffic: what principals do when nothing is wrong. Seeded, and made for whole matrices at once."""

import numpy as np

from stanch.watch.counts import Floats
from stanch.watch.esr import WEEK
from stanch.watch.events import FEATURES
from stanch.watch.firstseen import Values
from stanch.watch.leak import CROWD, FILL, WIDTH

Generator = np.random.Generator
DISPERSION = 5.0
TOPICS = 50
PROMPTS = 200
STRIDE = 25
_FRESH = np.array(["network", "key", "model", "client"])


def working_week() -> Floats:
    """Return a factor for each hour of the week, mean 1: busy by day from Monday to Friday, quiet at the weekend."""
    hours = np.arange(WEEK)
    by_day = np.exp(-(((hours % 24) - 13.0) ** 2) / 18.0)
    factors = 0.3 + np.where(hours // 24 < 5, 1.0, 0.25) * by_day
    scaled: Floats = factors / factors.mean()
    return scaled


def hourly_counts(
    generator: Generator, principals: int, hours: int, *, scale: float = 10.0, profile: Floats | None = None
) -> Floats:
    """Return negative-binomial counts, (hours, principals), of means drawn from Gamma(2, scale)."""
    means = generator.gamma(2.0, scale, principals)
    factors = np.ones(hours) if profile is None else profile[np.arange(hours) % WEEK]
    mean = np.maximum(factors[:, None] * means, 1e-6)
    found: Floats = generator.negative_binomial(DISPERSION, DISPERSION / (DISPERSION + mean)).astype(np.float64)
    return found


def lone_hits(generator: Generator, principals: int, hours: int) -> Floats:
    """Return lone hits and how many chance gives, (hours, principals, 2), of text that holds nothing of the corpus."""
    per_hour = generator.gamma(2.0, 4000.0, principals)
    answered = generator.random((hours, principals)) < 0.7
    characters = np.floor(answered * generator.gamma(3.0, per_hour / 3.0, (hours, principals)))
    return np.stack([generator.poisson(characters * FILL).astype(np.float64), characters * FILL], axis=-1)


def chance_runs(generator: Generator, characters: int) -> int:
    """Return how many runs so many characters hold by chance: two hits a stride apart, or five that stand close."""
    hits = np.sort(generator.choice(characters, generator.binomial(characters, FILL), replace=False, shuffle=False))
    chained = np.isin(hits - STRIDE, hits, assume_unique=True)
    crowded = np.zeros(len(hits), bool)
    crowded[CROWD - 1 :] = hits[CROWD - 1 :] - hits[: len(hits) - CROWD + 1] < WIDTH
    # A run ends its answer: the next hits of the same run are met by nobody.
    first = np.append(True, ~(chained | crowded)[:-1] | (np.diff(hits) >= WIDTH))[: len(hits)]
    return int(((chained | crowded) & first).sum())


def answers(generator: Generator, models: int, hours: int) -> Floats:
    """Return what the answers of each hour add up to, as D7 reads them, (hours, models, 7).

    Lengths vary like a gamma variable. A few answers are filtered. Most repeat a little, one in some hundred is a loop.
    Half of them tell their log-probabilities.
    """
    each = generator.poisson(generator.uniform(1.0, 30.0, models), (hours, models)).astype(np.float64)
    told = generator.binomial(each.astype(np.int64), 0.5).astype(np.float64)
    length, share, little, loop, surprise = (
        generator.uniform(low, high, models)
        for low, high in ((100.0, 2000.0), (0.0, 0.05), (0.002, 0.03), (0.0, 0.01), (0.3, 1.2))
    )
    least = 1e-9  # of an hour without answers
    lengths = generator.gamma(np.maximum(2 * each, least), length / 2)
    filtered = generator.binomial(each.astype(np.int64), share)
    loops = generator.binomial(each.astype(np.int64), loop) * generator.uniform(0.3, 0.9, (hours, models))
    repeated = np.minimum(generator.gamma(np.maximum(0.3 * each, least), little / 0.3) + loops, each)
    surprisal = generator.gamma(np.maximum(8 * told, least), surprise / 8)
    return np.stack([each, lengths, filtered, each, repeated, told, surprisal], axis=-1)


class Habits:
    """What each of many principals usually does in a day, and how often it does something new.

    A new network, key, model or kind of client is what happens now and then.
    """

    def __init__(self, generator: Generator, principals: int, *, novelty: float = 0.01) -> None:
        self._generator = generator
        self._networks = generator.integers(1, 5, principals)
        self._rate = generator.gamma(2.0, novelty / 2, principals)
        self._busy = 5 + generator.gamma(2.0, 15.0, principals)
        self._fresh = 0

    def day(self) -> dict[str, Values]:
        """Return the values of a day by principal."""
        g = self._generator
        amounts = 1 + g.poisson(self._busy)
        fresh = g.random((len(amounts), len(_FRESH))) < self._rate[:, None] / len(_FRESH)
        late = g.random(len(amounts)) < 0.2
        found: dict[str, Values] = {}
        for row, amount in enumerate(amounts.tolist()):
            used = max(1, int(self._networks[row]) - int(g.integers(2)))
            today: Values = {
                "network": {f"n{row}.{i}": max(1.0, amount // 2.0**i) for i in range(used)},
                "key": {f"k{row}": float(amount)},
                "model": {f"m{row % 7}": float(amount)},
                "client": {f"c{row % 3}": float(amount)},
                "hours": {"week 1": float(amount), "week 2": float(amount)} | ({"week 3": 2.0} if late[row] else {}),
            }
            for attribute in _FRESH[fresh[row]].tolist():
                self._fresh += 1
                today[attribute][f"new{self._fresh}"] = 1.0
            found[f"p{row}"] = today
        return found


class Topics:
    """Means of the features of 200 prompts, of principals that each ask about a few topics of their own."""

    def __init__(self, generator: Generator, principals: int) -> None:
        self._generator = generator
        centres = generator.normal(size=(TOPICS, 64))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        frequencies, phases = generator.normal(size=(64, FEATURES)) / 1.2, generator.uniform(0, 2 * np.pi, FEATURES)
        # E cos(w·z + b) of z ~ N(c, s²I) is exp(−s²|w|²/2)·cos(w·c + b).
        damping = np.exp(-0.02 * (frequencies**2).sum(axis=0) / 2)
        self._features = np.sqrt(2 / FEATURES) * damping * np.cos(centres @ frequencies + phases)
        self._mixtures = generator.dirichlet(np.full(TOPICS, 0.08), principals)
        self._spread = generator.uniform(0.5, 1.5, principals)

    def windows(self, mixtures: Floats | None = None) -> Floats:
        """Return a window of each principal, or of each of ``mixtures``."""
        shares = self._mixtures if mixtures is None else mixtures
        counts = self._generator.multinomial(PROMPTS, shares / shares.sum(axis=1, keepdims=True))
        noise = self._generator.normal(size=(len(shares), FEATURES)) / np.sqrt(PROMPTS * FEATURES)
        found: Floats = counts / PROMPTS @ self._features + noise * self._spread[: len(shares), None]
        return found

    def stranger(self) -> Floats:
        """Return the window of somebody who asks about everything alike, as to copy the model."""
        found: Floats = self.windows(np.full((1, TOPICS), 1 / TOPICS))[0]
        return found
