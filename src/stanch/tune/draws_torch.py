"""The units of each step, in the place of a trainer's batches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from stanch.tune.sampler import UnitSampler


class Draws:
    """The units of each step, as a trainer's data loader: an iterable with the length of the run."""

    def __init__(self, sampler: UnitSampler, steps: int) -> None:
        self._sampler = sampler
        self._steps = steps
        self._drawn = 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _ in range(self._steps):
            step, self._drawn = self._drawn, self._drawn + 1
            yield {"units": torch.tensor(self._sampler.draw(step), dtype=torch.long)}
