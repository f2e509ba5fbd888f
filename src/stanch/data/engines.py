"""Who does the parts of a pass over a dataset: this process, or several on this machine."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from stanch.data.stage import Job, Numbered, StageSecrets, Task, Work
from stanch.errors import ExternalError


class Engine(Protocol):
    """Runs a stage over parts; the results do not depend on which engine does."""

    def run(self, job: Job, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """Yield the number of each part with what the work made of it, as they get done; each part once."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Processes on this machine; with one, this process itself."""

    processes: int = 1

    def run(self, job: Job, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """See :class:`Engine`.

        Raises:
            ExternalError: A process was ended from outside.
        """
        if self.processes == 1 or len(parts) < 2:
            work = job.here()
            return ((part[0], work(part)) for part in parts)
        return self._pooled(job, parts)

    def _pooled(self, job: Job, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        # Not forked: a fork copies the locks of threads that it does not copy. The secrets go through the pipe of the
        # child, never through its arguments or environment.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(self.processes, len(parts)),
            mp_context=context,
            initializer=_begin,
            initargs=(job.task(), job.secrets()),
        )
        waiting = iter(parts)
        try:
            running = _submit(pool, islice(waiting, 2 * self.processes))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= _submit(pool, islice(waiting, len(done)))
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise ExternalError(
                "a process of the pass was ended from outside",
                why="most often for want of memory",
                next_step="run the same command again: finished parts are kept; or use fewer processes",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


LOCAL = Local()
"""This process alone."""


def in_order(results: Iterable[tuple[int, bytes]], parts: Sequence[Numbered]) -> Iterator[bytes]:
    """Yield the results in the order of the parts; those that came too early wait in memory."""
    waiting: dict[int, bytes] = {}
    rest = iter(results)
    for number, _ in parts:
        while number not in waiting:
            finished, body = next(rest)
            waiting[finished] = body
        yield waiting.pop(number)


_work: list[Work] = []


def _begin(task: Task, secrets: StageSecrets) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work[:] = [task.open(secrets)]


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went: the pool alone would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _do(part: Numbered) -> tuple[int, bytes]:
    return part[0], _work[0](part)


def _submit(pool: ProcessPoolExecutor, parts: Iterable[Numbered]) -> set[Future[tuple[int, bytes]]]:
    return {pool.submit(_do, part) for part in parts}
