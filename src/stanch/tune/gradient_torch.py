"""The gradient of one step, left in ``param.grad``: clipped and noised, or ordinary."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from stanch.data import TokenRecord
from stanch.tune.chunks import Chunk, Row, cut_chunks
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.grid import Floats, Released, Whole, blocks, grid_exponent, noise_scale, quantise, release_into
from stanch.tune.model_torch import CausalModel
from stanch.tune.noise import NoiseSource
from stanch.tune.physical_torch import choose_budget
from stanch.tune.plan import PrivacyPlan

Units = Sequence[Sequence[TokenRecord]]
AddUp = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]


class Trainable(Protocol):
    """What is trained of a model."""

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters by name, sorted by name: the order of the plan."""
        ...

    def collect(self, gradients: UnitGradients | None) -> None:
        """Collect per-unit gradients from now on, or return to ordinary autograd."""
        ...


class LossModel(Protocol):
    """A model that gives the loss of rows."""

    @property
    def adapter(self) -> Trainable:
        """What is trained of it."""
        ...

    def loss(self, rows: Sequence[Row]) -> torch.Tensor:
        """Return the sum over the rows of weight times token losses."""
        ...


_CHECK_EVERY = 100


def is_checked(step: int) -> bool:
    """Tell whether a step of a process is one of those whose release is checked: the first, and every 100th."""
    return step % _CHECK_EVERY == 0


class StepGradient(Protocol):
    """Fills ``param.grad`` for one logical step."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters whose gradients it leaves."""
        ...

    def fill(self, step: int, units: Units) -> None:
        """Leave the gradient of these units (the records of each) in ``param.grad``; no units are a step too."""
        ...


class PrivateGradient:
    """(clipped sum on the grid + noise)/L; everything that the mechanism needs comes from the plan.

    Args:
        model: What is trained.
        plan: Every constant.
        noise: Of this process; of several, one alone adds noise.
        budget: Tokens that go through the model at once.
        add_up: Adds this process's integers to those of the others; None where it is alone.

    Attributes:
        plan: Every constant.
        parameters: The parameters whose gradients it leaves.
    """

    def __init__(
        self,
        model: LossModel,
        plan: PrivacyPlan,
        noise: NoiseSource,
        *,
        budget: int,
        add_up: AddUp | None = None,
    ) -> None:
        self._model = model
        self.plan = plan
        self._noise = noise
        self._add_up = add_up
        self._budget = budget
        self.parameters = model.adapter.parameters()
        self._gradients = UnitGradients(
            self.parameters, plan.max_grad_norm, "automatic" if plan.clipping == "automatic" else "flat"
        )
        self._sums: dict[str, torch.Tensor] = {}
        self._loss: torch.Tensor | float = 0.0
        self._with_loss = 0
        model.adapter.collect(self._gradients)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the units of the last step, 0 without any; a figure about private data."""
        return float(self._loss) / max(1, self._with_loss)

    def choose_chunks(self, model: CausalModel, longest: int) -> None:
        """Let the memory of the model's device decide how many tokens go through it at once.

        Args:
            model: The model of this gradient.
            longest: Tokens of the longest record.
        """
        self._budget = choose_budget(model, self._gradients, longest)

    def sum_clipped(self, units: Units) -> dict[str, torch.Tensor]:
        """Return the sum of the units' clipped gradients by parameter, before any noise.

        Where memory runs out, the whole sum is formed again from smaller chunks, here and from now on: a chunk may have
        been added to some parameters' sums and not to others'. The cut changes neither the sample nor the sum.
        """
        while True:
            self._gradients.reset()
            self._loss, self._with_loss = 0.0, 0
            for chunk in cut_chunks(units, self._budget):
                try:
                    self._add_chunk(chunk)
                except torch.OutOfMemoryError:
                    self._gradients.reset()
                    if max(len(rows) for rows in chunk.passes) == 1:
                        raise
                    self._budget = max(1, self._budget // 2)
                    break
            else:
                return self._gradients.total

    def _add_chunk(self, chunk: Chunk) -> None:
        losses = []
        for rows in chunk.passes:
            self._gradients.expect(chunk.units, len(rows))
            loss = self._model.loss(rows)
            loss.backward()  # type: ignore[no-untyped-call]  # torch types no backward
            losses.append(loss.detach())
        self._gradients.add_clipped()
        self._loss, self._with_loss = self._loss + torch.stack(losses).sum(), self._with_loss + chunk.units

    def fill(self, step: int, units: Units) -> None:
        """Leave the noisy mean gradient in ``param.grad``."""
        total = self.sum_clipped(units)
        self._sums.clear()
        for index, (name, parameter) in enumerate(self.parameters.items()):
            part = total.pop(name)
            if is_checked(step):
                self._sums[name] = part.clone()
            sums: Floats = part.cpu().numpy().reshape(-1)
            # What is released takes the place of the sum where it has its size: new memory costs time.
            in_place = sums.dtype == np.float32
            released: Released = sums.view(np.float32) if in_place else np.empty(len(sums), dtype=np.float32)
            self._release_into(released, step, index, sums)
            parameter.grad = torch.from_numpy(released).view(parameter.shape).to(parameter.device)

    def _release_into(self, released: Released, step: int, index: int, sums: Floats) -> None:
        """Put (sum on the grid + noise)/L of one parameter into ``released``, block by block while it is in the cache.

        Several processes need all integers at once.
        """
        exponent = grid_exponent(self.plan.max_grad_norm, self.plan.coordinates)
        integers = np.empty(len(sums), dtype=np.int64) if self._add_up else None

        def take(places: slice, noise: Whole) -> None:
            noise += quantise(sums[places], exponent)
            if integers is None:
                release_into(released[places], noise, exponent, self.plan.denominator)
            else:
                integers[places] = noise

        self._noise.draw(step, index, len(sums), noise_scale(self.plan), take)
        if self._add_up and integers is not None:
            total = self._add_up(integers)
            for places in blocks(len(total)):
                release_into(released[places], total[places].astype(np.float64), exponent, self.plan.denominator)

    def noise_variance(self) -> float:
        """Return the variance of what the last release holds beside the clipped sum, in that of the plan.

        Of several processes, all must call it, and after a step for which :func:`is_checked`.
        """
        exponent = grid_exponent(self.plan.max_grad_norm, self.plan.coordinates)
        squares = 0.0
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            steps = quantise(self._sums[name].cpu().numpy().reshape(-1), exponent)
            if self._add_up:
                steps = self._add_up(steps.astype(np.int64)).astype(np.float64)
            noisy = parameter.grad.cpu().numpy().reshape(-1).astype(np.float64) * self.plan.denominator
            noise = noisy - np.ldexp(steps, exponent)
            squares += float(noise @ noise)
        return squares / (self.plan.coordinates * (self.plan.noise_multiplier * self.plan.max_grad_norm) ** 2)


class PlainGradient:
    """The sum of the units' gradients over the expected batch, by ordinary autograd; protects nobody.

    Attributes:
        mean_loss: Mean loss of the units of the last step that had any; a figure about private data.
    """

    def __init__(self, model: CausalModel, batch: int, *, budget: int) -> None:
        self._model = model
        self._batch = batch
        self._budget = budget
        self.mean_loss = float("nan")
        model.adapter.collect(None)

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters whose gradients it leaves."""
        return self._model.adapter.parameters()

    def fill(self, step: int, units: Units) -> None:  # noqa: ARG002 - the step matters to noise alone
        """Leave the mean gradient in ``param.grad``."""
        for parameter in self._model.adapter.parameters().values():
            parameter.grad = torch.zeros_like(parameter)
        losses = []
        for chunk in cut_chunks(units, self._budget):
            for rows in chunk.passes:
                loss = self._model.loss(rows)
                (loss / self._batch).backward()  # type: ignore[no-untyped-call]  # torch types no backward
                losses.append(float(loss.detach()))
        if units:
            self.mean_loss = sum(losses) / len(units)
