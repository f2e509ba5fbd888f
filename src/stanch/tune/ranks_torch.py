"""Several processes that share the steps of one run: started by ``torchrun``, joined by gloo.

Unit i belongs to process i mod W, so removing a unit touches the rounding of one process alone. All toss the same
coins; each clips and quantises the sum of its own units; process 0 alone adds noise; the integers are added exactly,
whatever the order. Process 0 charges the step, and only then does any process take it.

The model is wrapped in nothing: its backward pass leaves no gradients for which a wrapper could wait.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from stanch.tune.grid import blocks
from stanch.tune.noise import Take
from stanch.tune.refusals import RankLost, RanksDiverged, UnsupportedParallelism
from stanch.tune.sampler import StreamKeys

_WAIT = timedelta(minutes=30)
_UNSUPPORTED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


class Ranks:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: Number of this process; 0 leads: it alone charges, writes and adds noise.
        world: How many there are.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world
        self._group: dist.ProcessGroup | None = None

    @classmethod
    @contextmanager
    def join(cls, environment: Mapping[str, str] = os.environ) -> Iterator["Ranks"]:
        """Meet the other processes that ``torchrun`` started; alone where it started none.

        Raises:
            UnsupportedParallelism: The launcher asks for a model that is cut into shards.
            RankLost: The others do not come.
        """
        for name, kind in _UNSUPPORTED.items():
            if environment.get(name, "").lower() == "true":
                raise UnsupportedParallelism(
                    f"{kind} is not supported",
                    why="a unit's norm over shards of the model needs sums that this release does not make",
                    next_step="start with torchrun alone; each process then holds the whole model",
                )
        ranks = cls(int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1")))
        if ranks.world == 1:
            yield ranks
            return
        with _others():
            if dist.is_initialized():
                # Another launcher's group may not carry integers of the processor.
                ranks._group = dist.new_group(backend="gloo", timeout=_WAIT)
            else:
                dist.init_process_group("gloo", timeout=_WAIT)
        try:
            yield ranks
        finally:
            dist.destroy_process_group(ranks._group)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that charges, writes and adds noise."""
        return self.rank == 0

    def own(self, units: Sequence[int]) -> tuple[int, ...]:
        """Return which of the drawn units belong to this process."""
        return tuple(unit for unit in units if unit % self.world == self.rank)

    def add_up(self, integers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sum over all processes; exact, for integers have no order of addition."""
        if self.world == 1:
            return integers
        total = torch.from_numpy(np.ascontiguousarray(integers))
        with _others():
            dist.all_reduce(total, group=self._group)
        found: npt.NDArray[np.int64] = total.numpy()
        return found

    def share(self, data: bytes) -> bytes:
        """Return process 0's bytes in every process."""
        if self.world == 1:
            return data
        size = torch.tensor([len(data)])
        with _others():
            dist.broadcast(size, 0, group=self._group)
            shared = torch.zeros(int(size), dtype=torch.uint8)
            if self.leads:
                shared[:] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.broadcast(shared, 0, group=self._group)
        return shared.numpy().tobytes()

    def share_keys(self, keys: StreamKeys) -> StreamKeys:
        """Return process 0's keys for coins and records; its key for noise stays where it is."""
        if self.world == 1:
            return keys
        shared = self.share(keys.sample + keys.records)
        return StreamKeys(keys.noise if self.leads else b"", shared[:32], shared[32:])

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            with _others():
                dist.barrier(group=self._group)

    def agree(self, data: bytes, what: str) -> None:
        """Compare ``data`` with process 0's.

        Raises:
            RanksDiverged: In every process, where one differs.
        """
        differ = torch.tensor([int(self.share(data) != data)])
        if self.world > 1:
            with _others():
                dist.all_reduce(differ, group=self._group)
        if differ.any():
            raise RanksDiverged(
                f"{int(differ)} of {self.world} processes have another {what} than process 0",
                why="they would train different models",
                next_step="give every process the same files, spec and versions; then resume",
            )


class NoNoise:
    """The noise of the processes that add none: process 0 adds it for all."""

    def draw(self, step: int, parameter: int, count: int, scale: float, take: Take) -> None:  # noqa: ARG002 - a NoiseSource
        """Hand over zeros."""
        for places in blocks(count):
            take(places, np.zeros(len(range(count)[places])))


@contextmanager
def _others() -> Iterator[None]:
    """Turn what torch says about the other processes into an error of ours."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise RankLost(
            "another process of the run is gone, or did not come",
            why=type(error).__name__,
            next_step="see why it stopped, then resume; charged steps stay charged",
        ) from error
