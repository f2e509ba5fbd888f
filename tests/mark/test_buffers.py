from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from stanch.mark.buffers import Buffers


def test_a_name_keeps_its_array_and_grows():
    buffers = Buffers()
    first = buffers.get("a", np.float32, 100)
    assert np.shares_memory(first, buffers.get("a", np.float32, 10))
    assert not np.shares_memory(first, buffers.get("b", np.float32, 10))
    grown = buffers.get("a", np.float32, 200)
    assert (grown.shape, grown.dtype) == ((200,), np.float32)
    assert np.shares_memory(grown, buffers.get("a", np.float32, 200))


def test_very_large_arrays_are_not_kept():
    buffers = Buffers()
    assert not np.shares_memory(buffers.get("a", np.uint8, 2**20 + 1), buffers.get("a", np.uint8, 2**20 + 1))


def test_threads_do_not_share():
    buffers, both = Buffers(), Barrier(2)

    def get(value):
        array = buffers.get("a", np.int64, 1000)
        array[:] = value
        both.wait(60)
        return array.copy()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(get, (1, 2))
    assert (first == 1).all()
    assert (second == 2).all()
