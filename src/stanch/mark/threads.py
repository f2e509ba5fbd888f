"""Work on many items on some threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def run_each(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Return ``work`` of each item, in order.

    One thread is the caller's own: handing work to another and waiting for it takes longer than many an item does.
    """
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
