"""Does the parts of a pass on a Ray cluster; needs the extra ``ray``.

A task carries the dataset's path, the policy without its secrets, and check values. No secret travels in it: each
worker fetches them itself, from wherever its keys are, and refuses to work if they are not the right ones. The dataset
must have the same path on every machine. What a part gives (redacted rows, hashes of shingles, keyed windows) goes
through Ray's object store, which may write it to the disks of the cluster.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from stanch.data.stage import Job, Numbered, StageSecrets, Task, Work
from stanch.errors import ExternalError, InvalidInput, LeakFound, MissingExtraError, StanchError

_KNOWN = {kind.__name__: kind for kind in (InvalidInput, LeakFound)}

Done = tuple[int, bytes, str, tuple[str, str, str]]
"""A part's number and what came of it: bytes, or the name and the three lines of an error."""


@dataclass(frozen=True, slots=True)
class Ray:
    """The cluster that this process is connected to; without one, it connects first.

    A worker that ends is replaced and its part is done again, three times at most; a part comes out once. Workers stay
    for the next stage: each keeps what it opened for the last one until then, or until this process ends.

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
        ray = connect(self.address)
        with reported(next_step="run the same command again: finished parts of a redaction are kept"):
            # In a list it stays a reference, which a worker follows once and not with each part.
            begin = [ray.put(partial(PartWorker, job.task(), self.fetch))]
            submit = partial(ray.remote(do_part).remote, begin)
            waiting = iter(parts)
            running = [submit(part) for part in islice(waiting, self.workers)]
            while running:
                (ready,), running = ray.wait(running)
                running += [submit(part) for part in islice(waiting, 1)]
                number, body, kind, lines = ray.get(ready)
                if kind:
                    what, why, next_step = lines
                    raise _KNOWN.get(kind, ExternalError)(what, why=why, next_step=next_step)
                yield number, body


class PartWorker:
    """A process of the cluster: opens the dataset once, then does the parts that it is given."""

    def __init__(self, task: Task, fetch: Callable[[], StageSecrets]) -> None:
        self._work: Work | None = None
        self._error: StanchError | None = None
        try:
            self._work = task.open(fetch())
        except StanchError as error:
            self._error = error

    def __call__(self, part: Numbered) -> Done:
        """Do a part."""
        number, error = part[0], self._error
        if self._work is not None:
            try:
                return number, self._work(part), "", ("", "", "")
            except StanchError as found:
                error = found
        if error is None:
            raise AssertionError  # the constructor leaves one of the two
        return number, b"", type(error).__name__, (error.what, error.why, error.next_step)


_workers: dict[str, PartWorker] = {}


def do_part(begin: list[Any], part: Numbered) -> Done:
    """Do a part in a process of the cluster, which begins with the first one of a stage."""
    import ray  # noqa: PLC0415 - an optional part

    (reference,) = begin
    if reference.hex() not in _workers:
        _workers.clear()
        _workers[reference.hex()] = ray.get(reference)()
    return _workers[reference.hex()](part)


def connect(address: str) -> Any:  # noqa: ANN401 - Ray ships no types
    """Connect this process to a cluster and return Ray; usage statistics stay off unless the user sets them.

    Raises:
        MissingExtraError: Ray is not installed.
        ExternalError: The cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an optional part
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
    return ray


@contextmanager
def reported(*, next_step: str) -> Iterator[None]:
    """Turn what Ray raises into our error.

    Raises:
        ExternalError: A worker or the cluster ended.
    """
    from ray.exceptions import RayError  # noqa: PLC0415 - an optional part

    try:
        yield
    except RayError as error:
        raise ExternalError(
            f"Ray failed: {type(error).__name__}",
            why="a worker or the cluster ended",
            next_step=next_step,
        ) from None
