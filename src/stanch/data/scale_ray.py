"""Does the parts of a pass on a Ray cluster; needs the extra ``ray``.

A task carries the dataset's path, the policy without its secrets, and check values. No secret travels in it: each
worker fetches them itself, from wherever its keys are, and refuses to work if they are not the right ones. The dataset
must have the same path on every machine. What a part gives (redacted rows, hashes of shingles, keyed windows) goes
through Ray's object store, which may write it to the disks of the cluster.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stanch.data.rows import Range
from stanch.data.stage import Job, Numbered, StageSecrets, Task, Work
from stanch.errors import ExternalError, InvalidInput, LeakFound, MissingExtraError, StanchError

_KNOWN = {kind.__name__: kind for kind in (InvalidInput, LeakFound)}
_COLUMNS = ("number", "start", "stop", "first")


@dataclass(frozen=True, slots=True)
class Ray:
    """Ray Data on the cluster that this process is connected to; without one, it connects first.

    A worker that ends is replaced and its part is done again; a part comes out once.

    Attributes:
        fetch: Returns the secrets; called in each worker. A function of a module, or a ``functools.partial`` of one
            over paths and names, never over keys.
        workers: Number of workers.
        address: ``local``: a cluster on this machine that is started for this process. Otherwise as ``ray.init`` takes
            it.
    """

    fetch: Callable[[], StageSecrets]
    workers: int = 2
    address: str = "local"

    def run(self, job: Job, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """See :class:`stanch.data.engines.Engine`.

        Raises:
            MissingExtraError: Ray is not installed.
            InvalidInput: A worker cannot open the dataset, or holds other secrets.
            ExternalError: The cluster cannot be reached, or failed.
        """
        data = connect(self.address)
        if not parts:
            return
        items = [
            dict(zip(_COLUMNS, (number, part.start, part.stop, part.first), strict=True)) for number, part in parts
        ]
        done = data.from_items(items, override_num_blocks=len(items)).map_batches(
            PartWorker,
            fn_constructor_args=(job.task(), self.fetch),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=min(self.workers, len(items))),
        )
        for row in rows_of(done, next_step="run the same command again: finished parts of a redaction are kept"):
            if row["error"]:
                what, why, next_step = row["why"]
                raise _KNOWN.get(row["error"], ExternalError)(what, why=why, next_step=next_step)
            yield row["number"], row["body"]


class PartWorker:
    """One actor: opens the dataset once, then does the parts that it is given."""

    def __init__(self, task: Task, fetch: Callable[[], StageSecrets]) -> None:
        self._work: Work | None = None
        self._error: StanchError | None = None
        try:
            self._work = task.open(fetch())
        # An error that leaves an actor's constructor is tried again without end.
        except StanchError as error:
            self._error = error

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - Arrow tables on both sides
        """Do the part of each row of the batch."""
        import pyarrow as pa  # noqa: PLC0415 - Ray brings it

        done = [self._do(tuple(row[name] for name in _COLUMNS)) for row in batch.to_pylist()]
        numbers, bodies, kinds, errors = zip(*done, strict=True)
        body = pa.array(bodies, pa.large_binary())
        return pa.table({"number": numbers, "body": body, "error": kinds, "why": errors})

    def _do(self, row: tuple[int, ...]) -> tuple[int, bytes, str, tuple[str, str, str]]:
        number, start, stop, first = row
        error = self._error
        if self._work is not None:
            try:
                return number, self._work((number, Range(start, stop, first))), "", ("", "", "")
            except StanchError as found:
                error = found
        if error is None:
            raise AssertionError  # the constructor leaves one of the two
        return number, b"", type(error).__name__, (error.what, error.why, error.next_step)


def connect(address: str) -> Any:  # noqa: ANN401 - Ray ships no types
    """Connect this process to a cluster and return Ray Data; usage statistics stay off unless the user sets them.

    Raises:
        MissingExtraError: Ray is not installed.
        ExternalError: The cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an optional part
        import ray.data  # noqa: PLC0415 - same
    except ImportError:
        raise MissingExtraError("ray") from None
    if not ray.is_initialized():
        # A cluster of this process alone is not reachable from other machines.
        own: dict[str, Any] = (
            {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == "local" else {}
        )
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise ExternalError(
                "cannot reach the Ray cluster", why=type(error).__name__, next_step="check its address and that it runs"
            ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Standard error belongs to the command; Ray keeps its own log files.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data


def rows_of(done: Any, *, next_step: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - Ray ships no types
    """Yield the rows of a Ray dataset as they get done.

    Raises:
        ExternalError: A worker or the cluster ended.
    """
    from ray.exceptions import RayError  # noqa: PLC0415 - an optional part

    try:
        yield from done.iter_rows()
    except RayError as error:
        raise ExternalError(
            f"Ray failed: {type(error).__name__}",
            why="a worker or the cluster ended",
            next_step=next_step,
        ) from None
