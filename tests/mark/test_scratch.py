import numpy as np

from stanch.mark.scratch import Scratch
from stanch.mark.threads import run_each


def test_what_threads_write_is_read_and_the_rest_is_zero():
    values = np.arange(1, 70_001, dtype=np.float32)
    with Scratch(100_000) as scratch:
        run_each(lambda start: scratch.write(start + 7, values[start : start + 700]), range(0, 70_000, 700), 4)
        found = scratch.values()
    assert np.array_equal(found[7:70_007], values)
    assert not found[:7].any()
    assert not found[70_007:].any()
    found[3] = 5
    assert found[3] == 5


def test_other_orders_in_memory_and_other_types_are_written_as_they_read():
    values = np.arange(12, dtype=np.float64).reshape(3, 4)
    with Scratch(12) as scratch:
        scratch.write(0, values.T)
        assert scratch.values().tolist() == values.T.ravel().tolist()
    with Scratch(0) as scratch:
        assert scratch.values().size == 0
