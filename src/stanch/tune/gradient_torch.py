"""The gradient of one step, left in ``param.grad``: clipped and noised, or ordinary."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from stanch.data import TokenRecord
from stanch.tune.chunks import Chunk, Row, cut_chunks
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.grid import Integers, add_quantised, grid_exponent, noise_scale, release
from stanch.tune.model_torch import CausalModel
from stanch.tune.noise import NoiseSource
from stanch.tune.physical_torch import choose_budget
from stanch.tune.plan import PrivacyPlan

Units = Sequence[Sequence[TokenRecord]]


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


class StepGradient(Protocol):
    """Fills ``param.grad`` for one logical step."""

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
        add_up: Adds this process's integers to those of the others.
    """

    def __init__(
        self,
        model: LossModel,
        plan: PrivacyPlan,
        noise: NoiseSource,
        *,
        budget: int,
        add_up: Callable[[Integers], Integers] = lambda integers: integers,
    ) -> None:
        self._model = model
        self._plan = plan
        self._noise = noise
        self._add_up = add_up
        self._budget = budget
        self._parameters = model.adapter.parameters()
        self._gradients = UnitGradients(
            self._parameters, plan.max_grad_norm, "automatic" if plan.clipping == "automatic" else "flat"
        )
        model.adapter.collect(self._gradients)

    def choose_chunks(self, model: CausalModel, longest: int) -> None:
        """Let the memory of the model's device decide how many tokens go through it at once.

        Args:
            model: The model of this gradient.
            longest: Tokens of the longest record.
        """
        self._budget = choose_budget(model, self._gradients, longest)

    def sum_clipped(self, units: Units) -> dict[str, torch.Tensor]:
        """Return the sum of the units' clipped gradients by parameter, before any noise.

        Where memory runs out, the chunk's units run again in smaller chunks, here and from now on; the cut changes
        neither the sample nor the sum.
        """
        self._gradients.reset()
        waiting = [unit for unit in units if unit]
        while waiting:
            for chunk in cut_chunks(waiting, self._budget):
                try:
                    self._add_chunk(chunk)
                except torch.OutOfMemoryError:
                    self._gradients.drop()
                    if max(len(rows) for rows in chunk.passes) == 1:
                        raise
                    self._budget = max(1, self._budget // 2)
                    break
                done = {row.record.id for rows in chunk.passes for row in rows}
                waiting = [unit for unit in waiting if unit[0].id not in done]
        return self._gradients.total

    def _add_chunk(self, chunk: Chunk) -> None:
        for rows in chunk.passes:
            self._gradients.expect(chunk.units, len(rows))
            self._model.loss(rows).backward()  # type: ignore[no-untyped-call]  # torch types no backward
        self._gradients.add_clipped()

    def fill(self, step: int, units: Units) -> None:
        """Leave the noisy mean gradient in ``param.grad``."""
        exponent = grid_exponent(self._plan.max_grad_norm, self._plan.coordinates)
        scale = noise_scale(self._plan)
        total = self.sum_clipped(units)
        for index, (name, parameter) in enumerate(self._parameters.items()):
            integers = self._noise.integers(step, index, parameter.numel(), scale)
            # What is released takes the place of the sum, which is not needed any more.
            add_quantised(integers, total.pop(name).cpu().numpy().reshape(-1), exponent)
            noisy = release(self._add_up(integers), exponent, self._plan.denominator)
            parameter.grad = torch.from_numpy(noisy).view(parameter.shape).to(parameter.device)


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
