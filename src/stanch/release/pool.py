"""Work in a few threads, with a bounded number of tasks under way and the results back in the calling thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_all(tasks: Iterable[Task], work: Callable[[Task], Outcome], workers: int) -> Iterator[Outcome]:
    """Yield ``work(task)`` of every task, in order; at most ``2 * workers`` tasks are under way or waiting.

    The first failure is raised; what has not begun by then never begins.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        pending: deque[Future[Outcome]] = deque()
        try:
            for task in tasks:
                if len(pending) == 2 * workers:
                    yield pending.popleft().result()
                pending.append(pool.submit(work, task))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
