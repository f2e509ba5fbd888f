"""Weight files: read strictly, mapped, written in order; no tensor library needed.

``seal`` cuts files by their header, ``mark`` writes marked copies and reads suspects, ``tune`` and ``audit`` name model
directories by their digest::

    header = read_header(path)                     # strict; raises InvalidSafetensors
    tensors = open_model(directory)                # name -> Tensor, memory-mapped, bf16 as uint16
    values = tensors["lm_head.weight"].to_float32()
    adapter = open_adapter(directory)              # LoRA factors and their effective scales
    digest = directory_digest(directory).root      # what the ledger calls this directory
    write_safetensors(path, [Tensor.from_float32("w", values, "BF16")])
"""

from stanch.weights.adapter import Adapter, LowRank, is_adapter, open_adapter
from stanch.weights.arithmetic import native_float
from stanch.weights.digest import DirectoryDigest, directory_digest, walk_files
from stanch.weights.floats import FLOAT_TYPES, bf16_to_float32, float32_to_bf16, from_float32, to_float32
from stanch.weights.header import (
    ELEMENT_TYPES,
    MAX_HEADER_BYTES,
    PACKED_BITS,
    Header,
    TensorInfo,
    build_head,
    element_size,
    parse_header,
    read_head,
    read_header,
)
from stanch.weights.hub import find_blob
from stanch.weights.json_file import read_json_object
from stanch.weights.model import INDEX_NAME, open_model, weight_files
from stanch.weights.paths import check_paths
from stanch.weights.tensors import Tensor, open_tensors, write_safetensors

__all__ = [
    "ELEMENT_TYPES",
    "FLOAT_TYPES",
    "INDEX_NAME",
    "MAX_HEADER_BYTES",
    "PACKED_BITS",
    "Adapter",
    "DirectoryDigest",
    "Header",
    "LowRank",
    "Tensor",
    "TensorInfo",
    "bf16_to_float32",
    "build_head",
    "check_paths",
    "directory_digest",
    "element_size",
    "find_blob",
    "float32_to_bf16",
    "from_float32",
    "is_adapter",
    "native_float",
    "open_adapter",
    "open_model",
    "open_tensors",
    "parse_header",
    "read_head",
    "read_header",
    "read_json_object",
    "to_float32",
    "walk_files",
    "weight_files",
    "write_safetensors",
]
