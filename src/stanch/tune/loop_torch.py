"""The explicit loop, the same with and without privacy.

One logical step: coins, chunks, clipped sum, noise (in memory only), charge (durable), optimizer step, perhaps a
checkpoint. A crash before the charge released nothing; after it, one step is lost and stays charged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stanch.crypto import sha256
from stanch.data import TokenRecord
from stanch.terms import SILENT, Progress
from stanch.tune.checkpoint_sealed import CheckpointSeal
from stanch.tune.checkpoint_torch import (
    CHECKPOINT_FILES,
    CheckpointState,
    adapter_bytes,
    list_checkpoints,
    load_checkpoint,
    pack,
    save_checkpoint,
    unpack,
)
from stanch.tune.coverage_torch import check_coverage, check_movement, check_optimizer, check_step
from stanch.tune.gradient_torch import StepGradient
from stanch.tune.journal import BudgetJournal
from stanch.tune.model_torch import CausalModel
from stanch.tune.ranks_torch import Ranks
from stanch.tune.sampler import UnitSampler
from stanch.tune.spec import TrainSpec

_COMPARE_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Everything that one run of the loop needs.

    Attributes:
        model: The model with its adapter.
        gradient: Fills ``param.grad``.
        sampler: Draws the units of a step.
        records: The tokens of each record, by id.
        journal: Charges steps; None without privacy, and in processes that do not lead.
        train: Learning rate, schedule, checkpoints.
        steps: Planned steps.
        folder: Where checkpoints go.
        run: Digest of what must not change on resume.
        seal: For whom and by whom checkpoints are sealed; None writes plaintext.
        ranks: The processes that share the steps.
        progress: Told after each step.
        on_checkpoint: Told after each checkpoint.
    """

    model: CausalModel
    gradient: StepGradient
    sampler: UnitSampler
    records: Mapping[str, TokenRecord] = field(repr=False)
    journal: BudgetJournal | None
    train: TrainSpec
    steps: int
    folder: Path
    run: str
    seal: CheckpointSeal | None = None
    ranks: Ranks = field(default_factory=Ranks)
    progress: Progress = SILENT
    on_checkpoint: Callable[[CheckpointState], None]

    def run_steps(self) -> int:
        """Run until every planned step is over, from the last checkpoint if there is one.

        Returns:
            The number of updates in the model: fewer than steps where a crash lost some.
        """
        optimizer = make_optimizer(self.model, self.train)
        updates, elapsed = self._restore(optimizer) if self.ranks.leads else (0, 0)
        if self.ranks.world > 1:
            updates, elapsed = self._spread(optimizer, updates, elapsed)
        check_coverage(self.model, optimizer)
        check_optimizer(self.model.adapter.parameters(), optimizer)
        process_step = 0
        while elapsed < self.steps:
            units = self.ranks.own(self.sampler.draw(process_step))
            self.gradient.fill(process_step, [self._records_of(process_step, unit) for unit in units])
            check_step(process_step, self.model, optimizer, self.gradient)
            if self.journal is not None:
                self.journal.charge(updates)
            self.ranks.wait()
            self._update(optimizer, elapsed, first=updates == 0)
            process_step, updates, elapsed = process_step + 1, updates + 1, elapsed + 1
            if self.ranks.world > 1 and (process_step % _COMPARE_EVERY == 0 or elapsed == self.steps):
                self.ranks.agree(sha256(adapter_bytes(self.model.adapter.parameters())), "set of weights")
            self._keep(optimizer, updates, elapsed)
            self.progress("tune", elapsed, self.steps)
        return updates

    def _records_of(self, step: int, unit: int) -> list[TokenRecord]:
        return [self.records[record_id] for record_id in self.sampler.records_of(step, unit)]

    def _update(self, optimizer: torch.optim.Optimizer, elapsed: int, *, first: bool) -> None:
        parameters = self.model.adapter.parameters()
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()} if first else {}
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.train, elapsed, self.steps)
        optimizer.step()
        moving = any(p.grad is not None and p.grad.any() for p in parameters.values()) if first else False
        if moving:
            check_movement(before, parameters)

    def _restore(self, optimizer: torch.optim.Optimizer) -> tuple[int, int]:
        """Return updates and elapsed steps after loading the last checkpoint; lost steps stay charged.

        Raises:
            ProgressLost: Steps are charged, and there is no checkpoint.
            BudgetRolledBack: The journal is not the one that the checkpoint was made with.
        """
        charged = self.journal.charged if self.journal is not None else 0
        found = list_checkpoints(self.folder)
        if not found:
            if self.journal is not None:
                self.journal.require_untouched()
            return 0, 0
        state = load_checkpoint(found[-1], self.model.adapter.parameters(), optimizer, run=self.run, seal=self.seal)
        if self.journal is not None:
            self.journal.require(state.head, checkpoint=found[-1].name)
            return state.updates, charged
        return state.updates, state.elapsed

    def _spread(self, optimizer: torch.optim.Optimizer, updates: int, elapsed: int) -> tuple[int, int]:
        """Give every process the weights, optimizer state and counts of the one that leads."""
        parameters = self.model.adapter.parameters()
        packed = pack(CheckpointState(self.run, updates, elapsed, None), parameters, optimizer)
        shared = {name: self.ranks.share(packed[name]) for name in CHECKPOINT_FILES}
        state = unpack(shared, parameters, optimizer, run=self.run, what="process 0")
        return state.updates, state.elapsed

    def _keep(self, optimizer: torch.optim.Optimizer, updates: int, elapsed: int) -> None:
        every = self.train.checkpoint_every
        if not self.ranks.leads or not every or (elapsed % every and elapsed < self.steps):
            return
        head = self.journal.head if self.journal is not None else None
        state = CheckpointState(self.run, updates, elapsed, head)
        save_checkpoint(self.folder, state, self.model.adapter.parameters(), optimizer, seal=self.seal)
        if self.journal is not None:
            self.journal.announce()
        self.on_checkpoint(state)


def make_optimizer(model: CausalModel, train: TrainSpec) -> torch.optim.Optimizer:
    """Return AdamW over the adapter's parameters."""
    parameters = list(model.adapter.parameters().values())
    return torch.optim.AdamW(parameters, lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)


def learning_rate(train: TrainSpec, elapsed: int, steps: int) -> float:
    """Return the learning rate of the step after ``elapsed`` of ``steps``: constant, or linear to zero."""
    return train.learning_rate * (1 - elapsed / steps) if train.schedule == "linear" else train.learning_rate
