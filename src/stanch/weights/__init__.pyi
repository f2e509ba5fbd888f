from .adapter import Adapter, LowRank, is_adapter, is_factor, open_adapter, read_factors
from .arithmetic import native_float
from .digest import DirectoryDigest, directory_digest
from .floats import (
    FLOAT8_TYPES,
    FLOAT_TYPES,
    bf16_to_float32,
    float8_to_float32,
    float32_to_bf16,
    from_float32,
    to_float32,
)
from .folder import Listing, find_file, list_files, walk_files
from .header import (
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
from .json_file import read_json_object
from .model import INDEX_NAME, open_model, weight_files
from .paths import check_paths
from .remote_code import names_code
from .tensors import Tensor, open_tensors, write_safetensors

__all__ = [
    "ELEMENT_TYPES",
    "FLOAT8_TYPES",
    "FLOAT_TYPES",
    "INDEX_NAME",
    "MAX_HEADER_BYTES",
    "PACKED_BITS",
    "Adapter",
    "DirectoryDigest",
    "Header",
    "Listing",
    "LowRank",
    "Tensor",
    "TensorInfo",
    "bf16_to_float32",
    "build_head",
    "check_paths",
    "directory_digest",
    "element_size",
    "find_file",
    "float8_to_float32",
    "float32_to_bf16",
    "from_float32",
    "is_adapter",
    "is_factor",
    "list_files",
    "names_code",
    "native_float",
    "open_adapter",
    "open_model",
    "open_tensors",
    "parse_header",
    "read_factors",
    "read_head",
    "read_header",
    "read_json_object",
    "to_float32",
    "walk_files",
    "weight_files",
    "write_safetensors",
]
