"""Other marks at the same size of change: how many colluders are all still named, at 1e-9 over 10,000 recipients?

On the query matrix of MiniLM's first layer, each copy changed by 3e-3 of each row's rms (root mean square):

- ``gaussian``: the values of ``stanch.mark``.
- ``signs``: ±1 spread spectrum, with the same threshold.
- ``projection``: after Uchida et al. 2017: 256 bits a recipient in secret random projections. Here they are read from
  the difference to the original, which that paper does not need: as published, a change this small holds no bits.
- ``positions``: after EmMark (Zhang and Koushanfar 2024): steps of ±1 in the int8 weights, on keyed positions among the
  largest quarter, as many as make the same change.

The three peers are our own re-implementations of the ideas, not their authors' code. Bits are counted with the exact
binomial. For each attack the least of three seeds is given. Seeded: the same weights give the same figures.

    python benchmarks/bench_mark_peers.py

Writes a part of benchmarks/results/mark-robustness.json.
"""

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from bench_mark import Floats, integers, keep, minilm, nf4
from scipy.stats import binom

from stanch.mark import threshold
from stanch.mark.embedding import row_scales
from stanch.mark.signature import signature_values
from stanch.weights import open_model

NAME = "encoder.layer.0.attention.self.query.weight"
STRENGTH, BITS, RECIPIENTS, EPSILON, SEEDS = 3e-3, 256, 10_000, 1e-9, 3
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
TAU = threshold(RECIPIENTS, 1, EPSILON)
Stack = npt.NDArray[np.float32]
Attack = Callable[[Stack], Floats]
Found = Callable[[Floats, int], bool]
ATTACKS: dict[str, Attack] = {
    "mean": lambda stack: stack.mean(axis=0),
    "minimum": lambda stack: stack.min(axis=0),
    "mean, int8": lambda stack: integers(8, 0)(stack.mean(axis=0)),
    "mean, nf4": lambda stack: nf4(stack.mean(axis=0)),
}


def correlation(original: Floats, values: Callable[[int], Floats]) -> tuple[Callable[[int], Floats], Found]:
    """Return how a correlating mark is written and found."""
    strength = (STRENGTH * row_scales(original))[:, np.newaxis]

    def write(number: int) -> Floats:
        return original + strength * values(number)

    def find(suspect: Floats, number: int) -> bool:
        feature = (suspect - original) * strength
        feature = feature - feature.mean(axis=1, keepdims=True)
        return float((feature * values(number)).sum() / np.linalg.norm(feature)) >= TAU

    return write, find


def agree(right: int, count: int) -> bool:
    """Say whether so many right bits are less likely by chance than the level allows."""
    return bool(binom.sf(right - 1, count, 0.5) <= EPSILON / RECIPIENTS)


def projection(original: Floats, seed: int) -> tuple[Callable[[int], Floats], Found]:
    """Bits as signs of secret projections of the change."""
    generator = np.random.default_rng([seed, 1])
    secret = generator.standard_normal((BITS, original.size), np.float32)
    scales = row_scales(original)[:, np.newaxis]

    def bits(number: int) -> npt.NDArray[np.bool_]:
        return np.random.default_rng([seed, 2, number]).random(BITS) < 0.5

    def write(number: int) -> Floats:
        signs = np.where(bits(number), np.float32(1), np.float32(-1))
        change = (signs @ secret / np.sqrt(np.float32(BITS))).reshape(original.shape)
        return original + STRENGTH * scales * change

    def find(suspect: Floats, number: int) -> bool:
        read = secret @ ((suspect - original) / scales).ravel() > 0
        return agree(int(np.count_nonzero(read == bits(number))), BITS)

    return write, find


def positions(original: Floats, seed: int) -> tuple[Callable[[int], Floats], Found]:
    """Bits as steps of the int8 weights on keyed positions."""
    step = np.abs(original).max(axis=1, keepdims=True) / np.float32(127)
    large = np.flatnonzero(np.abs(original) >= np.quantile(np.abs(original), 0.75))
    change = STRENGTH**2 * float(np.square(row_scales(original), dtype=np.float64).mean()) * original.size
    count = int(change / float(np.square(step, dtype=np.float64).mean()))
    chosen = np.random.default_rng([seed, 3]).choice(large, count, replace=False)
    flat_step = np.broadcast_to(step, original.shape).ravel()[chosen]
    base = np.round(original / step) * step

    def bits(number: int) -> npt.NDArray[np.bool_]:
        return np.random.default_rng([seed, 4, number]).random(count) < 0.5

    def write(number: int) -> Floats:
        copy = base.ravel().copy()
        copy[chosen] += np.where(bits(number), flat_step, -flat_step)
        return copy.reshape(base.shape)

    def find(suspect: Floats, number: int) -> bool:
        difference = (suspect - base).ravel()[chosen]
        shown = np.abs(difference) > 1e-3 * flat_step
        right = (difference > 0) == bits(number)
        return agree(int(np.count_nonzero(right & shown)), int(np.count_nonzero(shown)))

    return write, find


def schemes(original: Floats, seed: int) -> dict[str, tuple[Callable[[int], Floats], Found]]:
    """Return the four marks."""

    def gaussian(number: int) -> Floats:
        return signature_values(bytes([seed, number]) * 16, 0, original.size).reshape(original.shape)

    def signs(number: int) -> Floats:
        chosen = np.random.default_rng([seed, 5, number]).random(original.shape) < 0.5
        return np.where(chosen, np.float32(1), np.float32(-1))

    return {
        "gaussian": correlation(original, gaussian),
        "signs": correlation(original, signs),
        "projection": projection(original, seed),
        "positions": positions(original, seed),
    }


def colluders(write: Callable[[int], Floats], find: Found, attack: Attack) -> int:
    """Return the largest number up to which all colluders are named."""
    most = 0
    for count in COUNTS:
        suspect = attack(np.stack([write(number) for number in range(count)])).astype(np.float32)
        if not all(find(suspect, number) for number in range(count)):
            break
        most = count
    return most


def main() -> None:
    """Write the largest number of colluders by mark and attack."""
    original = open_model(minilm())[NAME].to_float32()
    table: dict[str, dict[str, int]] = {}
    for seed in range(SEEDS):
        for name, (write, find) in schemes(original, seed).items():
            for title, attack in ATTACKS.items():
                found = colluders(write, find, attack)
                row = table.setdefault(name, {})
                row[title] = min(row.get(title, COUNTS[-1]), found)
    result: dict[str, object] = {
        "weights": original.size,
        "strength": STRENGTH,
        "tau": TAU,
        "most_tried": COUNTS[-1],
        "colluders": table,
    }
    keep("peers", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
