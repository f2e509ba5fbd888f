"""Rounding the original as the suspect was rounded: most of the error is the same, and falls out of their difference.

A suspect that was cut to 8 or 4 bits lies on a grid, also where it is stored as floats again. The grid is read from the
suspect's values alone, so that no file has to say how it was made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1], np.float32)  # fmt: skip
"""The 16 values of NF4 (Dettmers et al., QLoRA, 2023), as bitsandbytes rounds them to float32."""

NF4_EDGES: Floats = ((NF4[1:] + NF4[:-1]) / 2).astype(np.float32)
_TINY = np.float32(1e-30)
_PROBES, _WIDTH = 16, 64


@dataclass(frozen=True, slots=True)
class Grid:
    """Values that a block can hold, as multiples of its unit.

    Attributes:
        block: Values in a block, side by side in a row; 0: the whole row.
        levels: Integers from −levels to levels; 0: the values of NF4.
        slack: How far a stored value may lie from the grid, in its units: floats of 16 bits round again.
        least: 0: the unit is the block's largest magnitude over ``levels``. Else it is the block's least magnitude but
            0, made exact by the largest, which is at least so many of it.
        unit: The unit of all blocks, where they have one.
    """

    block: int
    levels: int
    slack: float
    least: int = 0
    unit: float = 0.0

    def blocks(self, rows: Floats) -> Floats:
        """Return the rows cut into blocks, one a line."""
        return rows.reshape(-1, self.block or rows.shape[1])

    def fits(self, rows: Floats) -> npt.NDArray[np.bool_]:
        """Say of each row whether all its values lie on the grid."""
        blocks = self.blocks(rows)
        scaled = blocks / self.scales(blocks)
        near = np.abs(scaled - self.nearest(scaled)) <= np.float32(self.slack)
        if self.least and not self.unit:
            near &= np.abs(scaled).max(axis=1, keepdims=True) >= self.least - self.slack
        whole: npt.NDArray[np.bool_] = near.reshape(len(rows), -1).all(axis=1)
        return whole

    def scales(self, blocks: Floats) -> Floats:
        """Return each block's unit."""
        if self.unit:
            return np.full((len(blocks), 1), self.unit, np.float32)
        largest = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), _TINY)
        result: Floats = largest / (_steps(blocks, largest) if self.least else np.float32(self.levels or 1))
        return result

    def nearest(self, scaled: Floats) -> Floats:
        """Return the nearest value of the grid to each, both in its units."""
        if self.levels:
            return np.clip(np.rint(scaled), -self.levels, self.levels)
        return NF4[np.searchsorted(NF4_EDGES, scaled)]

    def round(self, original: Floats, suspect: Floats) -> Floats:
        """Return the original on the suspect's grid; in rows that lie on none, as it is."""
        scales = self.scales(self.blocks(suspect))
        rounded = (self.nearest(self.blocks(original) / scales) * scales).reshape(original.shape)
        return np.where(self.fits(suspect)[:, np.newaxis], rounded, original)


def _steps(blocks: Floats, largest: Floats) -> Floats:
    """Return how many of its least magnitude but 0 each block's largest is, at least 1."""
    magnitudes = np.abs(blocks)
    least = np.where(magnitudes > 0, magnitudes, np.float32(np.inf)).min(axis=1, keepdims=True)
    steps: Floats = np.maximum(np.rint(largest / least), np.float32(1))
    return steps


GRIDS = (
    Grid(0, 127, 1 / 12), Grid(32, 127, 1 / 12), Grid(64, 0, 1 / 128),
    *(Grid(block, 15, 1 / 12, 3) for block in (128, 64, 32)), Grid(0, 255, 1 / 12, 16),
)  # fmt: skip
"""What is looked for: 8 bits a row (bitsandbytes), 8 bits in blocks of 32 (GGUF Q8_0), NF4; then integers whose unit is
not known: 3 or 4 bits in blocks (GPTQ, and whatever else has a scale a group), 8 bits with one scale a tensor."""


def find_grid(rows: int, read: Callable[[npt.NDArray[np.int64]], Floats | None]) -> Grid | None:
    """Return the grid that most of 16 rows of a tensor, spread evenly, lie on, the first of equals; None if none does.

    Args:
        rows: How many rows the tensor has.
        read: Returns some of the suspect's rows, or None.
    """
    probes = read(np.linspace(0, rows - 1, _PROBES).astype(np.int64))
    if probes is None or probes.shape[1] % _WIDTH:
        return None
    probes = probes[probes.any(axis=1)]
    fits = {grid: grid.fits(probes) for grid in GRIDS if len(probes) and not probes.shape[1] % (grid.block or 1)}
    found = max(fits, key=lambda grid: int(fits[grid].sum()), default=None)
    if found is None or not fits[found].any():
        return None
    if found.block or not found.least:
        return found
    held = probes[fits[found]]
    # One unit for the whole tensor: that of the row with the most steps, which has it most exactly.
    return replace(found, unit=float(found.scales(held)[np.abs(held).max(axis=1).argmax(), 0]))


def without_rounding(suspect: Floats, original: Floats, largest: float) -> Floats:
    """Return the suspect without the share of the original's own rounding error that least squares finds in it.

    Args:
        suspect: A tensor, [rows, columns]; what is not below ``largest`` takes no part in the fit.
        original: The same of the original.
        largest: See above.
    """
    grid = find_grid(len(suspect), suspect.__getitem__)
    if grid is None:
        return suspect
    error = grid.round(original, suspect) - original
    residual = np.where(np.abs(suspect) < largest, suspect - original, np.float32(0))
    power = product = 0.0
    for left, right in zip(residual, error, strict=True):  # row by row: float64 of a whole matrix would be large
        wide = right.astype(np.float64)
        power, product = power + float(wide @ wide), product + float(left.astype(np.float64) @ wide)
    share = product / power if power else 0.0
    return suspect - np.float32(share) * error
