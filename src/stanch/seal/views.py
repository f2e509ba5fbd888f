"""Read-only tensors over decrypted memory."""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import numpy as np

from stanch.weights import Header, Tensor, TensorInfo


def view_tensor(info: TensorInfo, memory: memoryview, start: int = 0) -> Tensor:
    """Return a read-only view of one tensor, which keeps the memory alive.

    Args:
        info: The tensor's entry of a checked header.
        memory: Bytes of the data section.
        start: Which byte of the data section ``memory`` begins with.
    """
    raw = (
        np.frombuffer(memory.toreadonly(), info.raw_type, count=prod(info.raw_shape), offset=info.start - start)
        if info.count
        else np.empty(0, info.raw_type)
    )
    raw.flags.writeable = False
    return Tensor(info.name, info.dtype, raw.reshape(info.raw_shape))


def view_tensors(header: Header, memory: memoryview) -> Mapping[str, Tensor]:
    """Return read-only views of all tensors over the whole data section, in the order of their offsets."""
    return MappingProxyType({info.name: view_tensor(info, memory) for info in header.tensors})
