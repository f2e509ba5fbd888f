"""Who scans the parts of a dataset: this process, or several on this machine."""

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

import msgspec

from stanch.data.part_scan import PartJob, PartScanner, PartSecrets, PartTask
from stanch.data.rows import Range
from stanch.errors import ExternalError

Numbered = tuple[int, Range]


class Engine(Protocol):
    """Runs :meth:`PartScanner.scan` over parts; the results do not depend on which engine does."""

    def run(self, job: PartJob, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """Yield the number of each part with its :class:`PartResult` in MessagePack, as they get done."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Processes on this machine; with one, this process itself."""

    processes: int = 1

    def run(self, job: PartJob, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """See :class:`Engine`.

        Raises:
            ExternalError: A process was ended from outside.
        """
        if self.processes == 1 or len(parts) < 2:
            scanner = job.here()
            return ((number, msgspec.msgpack.encode(scanner.scan(part))) for number, part in parts)
        return self._pooled(job, parts)

    def _pooled(self, job: PartJob, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
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
                "a process of the scan was ended from outside",
                why="most often for want of memory",
                next_step="run the same command again: finished parts are kept; or use fewer processes",
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_scanner: list[PartScanner] = []


def _begin(task: PartTask, secrets: PartSecrets) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _scanner[:] = [PartScanner.open(task, secrets)]


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went: the pool alone would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _scan(number: int, part: Range) -> tuple[int, bytes]:
    return number, msgspec.msgpack.encode(_scanner[0].scan(part))


def _submit(pool: ProcessPoolExecutor, parts: Iterable[Numbered]) -> set[Future[tuple[int, bytes]]]:
    return {pool.submit(_scan, number, part) for number, part in parts}
